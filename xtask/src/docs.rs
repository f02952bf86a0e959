//! `cargo xtask docs`: writes the pages that tcpwatch itself knows best, and finds out whether they are up to date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, repo};

/// A text in the repository that tcpwatch prints.
struct Page {
    file: &'static str,
    args: &'static [&'static str],
    place: Place,
}

enum Place {
    /// The file is this text and nothing else.
    Whole,
    /// A block between `<!-- NAME -->` and `<!-- /NAME -->`; a file without these markers has no such block.
    Block(&'static str),
}

const PAGES: &[Page] = &[
    Page { file: "README.md", args: &["--help"], place: Place::Block("help") },
    Page { file: "docs/hooks.md", args: &["docs", "hooks"], place: Place::Whole },
    Page { file: "docs/causes.md", args: &["docs", "causes"], place: Place::Whole },
    Page { file: "docs/reasons.md", args: &["docs", "reasons"], place: Place::Whole },
    Page { file: "docs/callers.md", args: &["docs", "callers"], place: Place::Whole },
];

/// `cargo xtask docs`.
pub(crate) fn main() -> Result<()> {
    let tcpwatch = tcpwatch()?;
    let mut failed = 0;
    for page in PAGES {
        match page.fresh(&tcpwatch) {
            Ok(Some((old, new))) => {
                let file = page.path();
                if let Some(dir) = file.parent() {
                    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
                }
                if old != new {
                    fs::write(&file, &new).with_context(|| format!("cannot write {}", file.display()))?;
                }
                println!("{}: {}", page.file, if old == new { "up to date" } else { "written" });
            }
            Ok(None) => println!("{}: has no generated block", page.file),
            Err(error) => {
                eprintln!("error: {}: {error:#}", page.file);
                failed += 1;
            }
        }
    }
    if failed > 0 { bail!("{failed} of {} pages could not be generated", PAGES.len()) } else { Ok(()) }
}

/// What is wrong with the generated pages, one sentence each.
pub(crate) fn stale() -> Result<Vec<String>> {
    let tcpwatch = tcpwatch()?;
    let mut wrong = Vec::new();
    for page in PAGES {
        match page.fresh(&tcpwatch) {
            Ok(Some((old, new))) if old != new => {
                wrong.push(format!("{}: out of date; run `cargo xtask docs`", page.file))
            }
            Ok(_) => {}
            Err(error) => wrong.push(format!("{}: {error:#}", page.file)),
        }
    }
    Ok(wrong)
}

/// The unoptimised build: tests have it at hand, and it prints the same.
fn tcpwatch() -> Result<PathBuf> {
    cmd::run(repo::cargo_test().args(["--quiet", "--no-run"]))
        .context("cannot build tcpwatch for its texts")?;
    Ok(repo::target_dir()?.join("debug/tcpwatch"))
}

impl Page {
    fn path(&self) -> PathBuf {
        repo::root().join(self.file)
    }

    /// The file as it is and as it ought to be; `None` if it has no place for the text.
    fn fresh(&self, tcpwatch: &Path) -> Result<Option<(String, String)>> {
        let old = fs::read_to_string(self.path()).unwrap_or_default();
        if let Place::Block(name) = self.place
            && block(&old, name).is_none()
        {
            return Ok(None);
        }
        // No terminal on any side: the text must not depend on whose window it was made in.
        let text = cmd::output(Command::new(tcpwatch).args(self.args))?;
        let new = match self.place {
            Place::Whole => text,
            Place::Block(name) => match block(&old, name) {
                Some((before, after)) => format!("{before}\n```text\n{}\n```\n{after}", text.trim_end()),
                None => return Ok(None),
            },
        };
        Ok(Some((old, new)))
    }
}

/// What stands before a block, with its first marker, and what follows it, with its last.
fn block<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (first, last) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let start = text.find(&first)? + first.len();
    let end = start + text[start..].find(&last)?;
    Some((&text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_lies_between_its_markers() {
        let text = "a\n<!-- help -->\nold\n<!-- /help -->\nb\n";
        assert_eq!(block(text, "help"), Some(("a\n<!-- help -->", "<!-- /help -->\nb\n")));
        assert_eq!(block(text, "other"), None);
        assert_eq!(block("<!-- help -->\nno end", "help"), None);
    }
}
