//! What goes into every package: the binary, what it prints about itself, the pages and the unit of this checkout.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::tree::Tree;
use crate::scratch::Scratch;
use crate::{cmd, repo};

/// Of all shells that a distribution has a place for: the shell, and what the file is called there.
pub(super) const SHELLS: &[(&str, &str)] =
    &[("bash", "tcpwatch"), ("zsh", "_tcpwatch"), ("fish", "tcpwatch.fish")];

/// The material of one release.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) version: String,
    /// When the sources were last changed.
    pub(super) time: Stamp,
    pub(super) binary: Vec<u8>,
    /// Pages for `man`, by name.
    pub(super) manual: Tree,
    /// By the name of the shell.
    pub(super) completions: Tree,
    /// The checkout's README, CHANGELOG, licences and pages.
    pub(super) documents: Tree,
    /// The folder `deploy`.
    pub(super) deploy: Tree,
}

/// The time of everything in a package, or two runs would make two packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(OffsetDateTime);

impl Stamp {
    /// `SOURCE_DATE_EPOCH`, or the time of the last commit.
    fn of_the_sources() -> Result<Self> {
        let text = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => cmd::output(
                Command::new("git").current_dir(repo::root()).args(["log", "-1", "--format=%ct"]),
            )
            .context("cannot ask git for the time of the last commit\nhint: SOURCE_DATE_EPOCH tells it without git")?,
        };
        let seconds = text
            .trim()
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {}", text.trim()))?;
        Self::at(seconds)
    }

    pub(super) fn at(seconds: i64) -> Result<Self> {
        OffsetDateTime::from_unix_timestamp(seconds).map(Self).context("that time is out of range")
    }

    pub(super) fn seconds(self) -> u64 {
        self.0.unix_timestamp().unsigned_abs()
    }

    /// As Debian's changelogs have it.
    pub(super) fn rfc2822(self) -> Result<String> {
        self.0.format(&Rfc2822).context("cannot write a date")
    }

    pub(super) fn rfc3339(self) -> Result<String> {
        self.0.format(&Rfc3339).context("cannot write a date")
    }
}

impl Parts {
    /// Of this checkout and a binary built from it.
    pub(super) fn gather(tcpwatch: &Path) -> Result<Self> {
        let said = cmd::output(Command::new(tcpwatch).arg("--version"))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        if said.trim() != format!("tcpwatch {version}") {
            bail!(
                "{} says that it is `{}`, not {version}\nhint: build it anew",
                tcpwatch.display(),
                said.trim()
            );
        }
        let mut completions = Tree::default();
        for (shell, _) in SHELLS {
            completions.file(*shell, cmd::bytes(Command::new(tcpwatch).args(["completions", shell]))?);
        }
        let mut documents = Tree::default();
        let root = repo::root();
        for name in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
            documents.file(name, read(&root.join(name))?);
        }
        documents.plant("docs", &folder(&root.join("docs"))?);
        Ok(Self {
            version,
            time: Stamp::of_the_sources()?,
            binary: read(tcpwatch)?,
            manual: manual(tcpwatch)?,
            completions,
            documents,
            deploy: folder(&root.join("deploy"))?,
        })
    }

    /// A file of `deploy`.
    pub(super) fn deployed(&self, path: &str) -> Result<&[u8]> {
        self.deploy
            .files()
            .find(|(name, _)| *name == path)
            .map(|(_, file)| file.content.as_slice())
            .with_context(|| format!("deploy/{path} is not there"))
    }
}

/// What the binary writes when it is asked for its pages.
fn manual(tcpwatch: &Path) -> Result<Tree> {
    let scratch = Scratch::new("man")?;
    cmd::quiet(Command::new(tcpwatch).arg("man").arg(scratch.path()))?;
    folder(scratch.path())
}

/// A folder with everything below it. What git does not know is not wanted, but there may be no git.
fn folder(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            tree.plant(&name, &folder(&path)?);
        } else {
            tree.file(name, read(&path)?);
        }
    }
    Ok(tree)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Made-up parts for tests of what is made of them.
#[cfg(test)]
pub(super) fn sample() -> Parts {
    let root = repo::root();
    let mut manual = Tree::default();
    manual.file("tcpwatch.8", ".TH TCPWATCH 8\n");
    let mut completions = Tree::default();
    for (shell, _) in SHELLS {
        completions.file(*shell, format!("# {shell}\n"));
    }
    let mut documents = Tree::default();
    for (name, text) in [
        ("README.md", "# tcpwatch\n"),
        ("CHANGELOG.md", "# Changelog\n"),
        ("LICENSE-APACHE", "Apache\n"),
        ("LICENSE-MIT", "MIT\n"),
        ("docs/agent.md", "# The agent\n"),
    ] {
        documents.file(name, text);
    }
    Parts {
        version: "1.2.3".to_owned(),
        time: Stamp::at(1_700_000_000).unwrap(),
        binary: b"\x7fELF".to_vec(),
        manual,
        completions,
        documents,
        deploy: folder(&root.join("deploy")).unwrap(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_packages_want_them() {
        let stamp = Stamp::at(1_700_000_000).unwrap();
        assert_eq!(stamp.rfc2822().unwrap(), "Tue, 14 Nov 2023 22:13:20 +0000");
        assert_eq!(stamp.rfc3339().unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(stamp.seconds(), 1_700_000_000);
    }
}
