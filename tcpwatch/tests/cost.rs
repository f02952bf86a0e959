//! `docs/cost.md` speaks of every program, so that a new hook does not cost unseen.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use tcpwatch::kernel::hooks::{HOOKS, Rung, When};

#[test]
fn every_program_has_its_row_and_no_other_has_one() {
    let page: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "docs", "cost.md"].iter().collect();
    let page = fs::read_to_string(page).unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let mut programs = BTreeSet::new();
    for hook in HOOKS {
        // A trampoline needs types of the module, which no kernel is asked for: there it is always a kprobe.
        let never = |rung| matches!(hook.when, When::Module(_)) && rung == Rung::Fentry;
        let ways = hook.ways.iter().filter(|way| !never(way.rung));
        programs.extend(ways.flat_map(|way| way.parts).map(|(_, name)| *name));
    }
    // They find out what a host grants.
    programs.extend(["probe_fentry", "probe_kprobe"]);
    let lacking: Vec<_> = programs.difference(&rows).collect();
    let stray: Vec<_> = rows.difference(&programs).collect();
    assert!(
        lacking.is_empty() && stray.is_empty(),
        "docs/cost.md lacks {lacking:?} and has {stray:?} too many: `cargo xtask cost --write`"
    );
}
