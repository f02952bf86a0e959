//! `cargo xtask tidy`: the house rules that no compiler checks.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{chart, cmd, docs, protos, repo};

/// A file longer than this does more than one thing.
const MAX_LINES: usize = 600;

/// Package hosts, in two parts, or this list would be the only offender. People build behind mirrors: a host belongs into the
/// machine's settings.
const HOSTS: &[(&str, &str)] = &[
    ("deb", "debian.org"),
    ("security", "debian.org"),
    ("snapshot", "debian.org"),
    ("index", "crates.io"),
    ("static", "crates.io"),
    ("pypi", "org"),
    ("files", "pythonhosted.org"),
    ("registry", "npmjs.org"),
];

/// `cargo xtask tidy`.
pub(crate) fn main() -> Result<()> {
    let mut wrong = files()?;
    match docs::stale() {
        Ok(stale) => wrong.extend(stale),
        Err(error) => wrong.push(format!("docs: {error:#}")),
    }
    match chart::stale() {
        Ok(stale) => wrong.extend(stale),
        Err(error) => wrong.push(format!("chart: {error:#}")),
    }
    match protos::wrong() {
        Ok(mismatches) => wrong.extend(mismatches),
        Err(error) => wrong.push(format!("prototypes: {error:#}")),
    }
    if wrong.is_empty() {
        println!("all tidy");
        return Ok(());
    }
    for sentence in &wrong {
        println!("{sentence}");
    }
    bail!("{} things to tidy up", wrong.len())
}

/// Every file that git knows or would add, against every rule.
fn files() -> Result<Vec<String>> {
    let root = repo::root();
    let list = cmd::output(Command::new("git").current_dir(&root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let forbidden = forbidden(&root);
    let mut wrong = Vec::new();
    for name in list.split_terminator('\0') {
        // Gone from the folder but not yet from git; or bytes, which no rule is about.
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        check(name, &text, &forbidden, &mut wrong);
    }
    Ok(wrong)
}

/// Texts that tie the repository to one machine, with what is wrong about each.
fn forbidden(root: &Path) -> Vec<(String, &'static str)> {
    const PATH: &str = "a path of one machine";
    let mut texts: Vec<_> = HOSTS.iter().map(|(a, b)| (format!("{a}.{b}"), "a package host")).collect();
    texts.extend(["root", "home"].map(|dir| (format!("/{dir}/"), PATH)));
    texts.push((root.display().to_string(), PATH));
    // The neighbours of the checkout, unless it lies where everybody has folders.
    if let Some(parent) = root.parent().and_then(Path::to_str) {
        let top = parent.trim_start_matches('/').split('/').next().unwrap_or_default();
        let everywhere =
            ["", "dev", "etc", "lib", "mnt", "opt", "proc", "run", "srv", "sys", "tmp", "usr", "var"];
        if !everywhere.contains(&top) {
            texts.push((format!("{parent}/"), PATH));
        }
    }
    texts
}

fn check(name: &str, text: &str, forbidden: &[(String, &str)], wrong: &mut Vec<String>) {
    let rust = name.ends_with(".rs");
    if rust && !text.starts_with("//!") {
        wrong.push(format!("{name}:1: does not begin with `//!`, a sentence on what the file is for"));
    }
    let lines = text.lines().count();
    if rust && lines > MAX_LINES {
        wrong.push(format!("{name}: has {lines} lines, more than {MAX_LINES}; split it"));
    }
    if name.ends_with("Cargo.toml") && text.contains("[package]") && !inherits_lints(text) {
        wrong.push(format!(
            "{name}: lacks `[lints] workspace = true`, so the workspace's lints do not count here"
        ));
    }
    // A lock file and recorded kernels are not written by hand.
    let by_hand = name != "Cargo.lock";
    for (at, line) in text.lines().enumerate().filter(|_| by_hand) {
        let place = format!("{name}:{}", at + 1);
        if rust && unfinished(line) {
            wrong.push(format!("{place}: unfinished work is no state to commit"));
        }
        for (text, what) in forbidden {
            if mentions(line, text) {
                wrong.push(format!("{place}: names {what}: {text}"));
            }
        }
    }
}

/// Whether the text stands there by itself, not as the tail of a longer path or name.
fn mentions(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/".contains(c)) || !text.starts_with('/')
    })
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')) == Some("workspace = true")
}

fn unfinished(line: &str) -> bool {
    [concat!("to", "do!("), concat!("FIX", "ME"), concat!("TO", "DO")].iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        check(name, text, &forbidden(Path::new("/checkouts/tcpwatch")), &mut wrong);
        wrong
    }

    #[test]
    fn a_tidy_file_passes() {
        assert!(found("a.rs", "//! What it is for.\n").is_empty());
        assert!(found("a/Cargo.toml", "[package]\n[lints]\n# why\nworkspace = true\n").is_empty());
        assert!(found("Cargo.toml", "[workspace]\n").is_empty());
        assert!(found("a.md", "in target/checkouts/x\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_offender() {
        let offenders = [
            ("a.rs", "use std::fs;\n".to_owned(), "begin with"),
            ("a.rs", format!("//! x\n{}", "\n".repeat(600)), "601 lines"),
            ("a.rs", format!("//! x\n{}", concat!("to", "do!()")), "a.rs:2: unfinished"),
            ("Cargo.toml", "[package]\n[lints.rust]\n".to_owned(), "lints"),
            ("a.md", format!("see http://{}.{}/x", "deb", "debian.org"), "a package host"),
            ("a.md", ["see ", "home", "me/x"].join("/"), "a path of one machine"),
            ("a.md", "see /checkouts/notes.txt".to_owned(), "/checkouts/"),
        ];
        for (name, text, sentence) in offenders {
            let wrong = found(name, &text);
            assert_eq!(wrong.len(), 1, "{name}: {wrong:?}");
            assert!(wrong[0].contains(sentence), "{wrong:?}");
        }
    }
}
