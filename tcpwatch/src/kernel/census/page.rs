//! The page `docs/callers.md`: the table of callers.

use super::known::{Meaning, TARGETS};
use super::scan::How;
use std::fmt::Write as _;

/// The page.
pub fn page() -> String {
    let mut page = String::from(
        "# Callers\n\nThe functions of the kernel that send an RST, obey one or ask for a TIME_WAIT slot, and who calls them. \
         `tcpwatch doctor --census` looks for every such call in the running kernel's own text, and for every variable that \
         holds a pointer to such a function; what it finds and this table does not have, it names, and ends with status 1. \
         Where a compiler inlined a function, the call stands in the function around it: both have a row. Calls by pointer \
         are known from the source. [Kernel sites](causes.md#kernel-sites) tells what happens at each site, and which causes \
         cover it.\n",
    );
    for target in TARGETS {
        let _ = write!(page, "\n## {}\n\n{}; {}.\n\n", target.name, target.role.heading(), target.does);
        page.push_str("| caller | source | sites |\n|---|---|---|\n");
        for known in target.callers {
            let name = match known.how {
                How::Call => format!("`{}`", known.name),
                How::Pointer => {
                    let through: Vec<_> = known.through.iter().map(|name| format!("`{name}`")).collect();
                    format!("{}, by the pointer in `{}`", through.join(", "), known.name)
                }
            };
            let meaning = match known.meaning {
                Meaning::Sites(sites) => sites.join(", "),
                Meaning::Aside(why) => why.to_owned(),
            };
            let _ = writeln!(page, "| {name} | `{}` | {meaning} |", known.source);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_and_unique() {
        for target in TARGETS {
            for (at, known) in target.callers.iter().enumerate() {
                let name = known.name;
                assert!(known.source.ends_with(".c"), "{name}");
                assert_eq!(known.how == How::Pointer, !known.through.is_empty(), "{name}");
                let twice = target.callers[..at].iter().any(|other| other.name == name);
                assert!(!twice, "{name} leads twice to {}", target.name);
            }
        }
    }
}
