//! The page `docs/causes.md`.

use super::sites::{GROUPS, HARMLESS, PLACES};
use super::{Spec, all};

/// The page, made from the rows.
pub fn page() -> String {
    let mut page = String::from(
        "# Causes\n\nEvery `cause.id` that an event can carry. The evidence, with its figures, comes with the event; a cause is \
         never given without.\n",
    );
    all().for_each(|spec| page.push_str(&section(spec)));
    page.push_str(&sites());
    page
}

fn section(spec: &Spec) -> String {
    let events: Vec<&str> = spec.events.iter().map(|kind| kind.name()).collect();
    let mut text = format!("\n## {}\n\n{}.\n\n", spec.id, spec.summary);
    text.push_str(&format!("- Events: {}; from kernel {} on.\n", events.join(", "), spec.since));
    text.push_str(&format!("- Evidence: {}; at best {}.\n", spec.evidence, spec.certainty.name()));
    if !spec.source.is_empty() {
        text.push_str(&format!("- Kernel: `{}`", spec.source));
        if !spec.sites.is_empty() {
            text.push_str(&format!("; sites {}", spec.sites.join(", ")));
        }
        text.push_str(".\n");
    }
    if let Some(fix) = spec.fix {
        text.push_str(&format!("- What to change: {fix}.\n"));
    }
    text
}

/// Where the kernel resets, turns away and gives up, and which causes cover it.
fn sites() -> String {
    let mut text = String::from(
        "\n# Kernel sites\n\nEvery place where the kernel resets a connection, turns one away or gives one up, on the kernels \
         from 5.10 on, and the causes that cover it. Where several do, the evidence decides.\n",
    );
    for (letter, what) in GROUPS {
        text.push_str(&format!("\n## {what}\n\n| site | function | when | causes |\n|---|---|---|---|\n"));
        for place in PLACES.iter().filter(|place| place.id.starts_with(*letter)) {
            let causes: Vec<String> = all()
                .filter(|spec| spec.sites.contains(&place.id))
                .map(|spec| format!("[{0}](#{0})", spec.id))
                .collect();
            text.push_str(&format!(
                "| {} | `{}` | {} | {} |\n",
                place.id,
                place.function,
                place.when,
                causes.join(", ")
            ));
        }
    }
    text.push_str("\n## What looks alike and is no event\n\n| function | what |\n|---|---|\n");
    for (function, what) in HARMLESS {
        text.push_str(&format!("| `{function}` | {what} |\n"));
    }
    text
}
