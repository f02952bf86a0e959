//! Debian's package lists: read with an apt that has a state of its own, so that the machine's apt is not touched.
//!
//! apt checks the signatures; nothing here trusts a download that apt has not checked.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd;

/// One entry of a package list, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// Which of Debian's two archives a suite lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    Main,
    Security,
}

/// An apt with lists and cache of its own, that knows one suite.
pub(super) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Sets it up under `dir` and fetches the list of the suite.
    pub(super) fn open(dir: &Path, archive: Archive, suite: &str) -> Result<Self> {
        let apt = Self { dir: dir.to_owned() };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(folder))
                .with_context(|| format!("cannot make {folder} in {}", dir.display()))?;
        }
        fs::write(dir.join("status"), "").context("cannot write the list of what is installed")?;
        fs::write(dir.join("s.list"), source(archive, suite)? + "\n")
            .context("cannot write the list of sources")?;
        cmd::quiet(apt.get().arg("update"))
            .with_context(|| format!("cannot fetch Debian's list of {suite}"))?;
        Ok(apt)
    }

    /// Every package of the suite whose name begins with one of these.
    pub(super) fn packages(&self, prefixes: &[&str]) -> Result<Vec<Package>> {
        let files = cmd::output(self.get().args([
            "indextargets",
            "--format",
            "$(FILENAME)",
            "Created-By: Packages",
        ]))?;
        let mut found = Vec::new();
        for file in files.lines() {
            let text = cmd::output(Command::new("/usr/lib/apt/apt-helper").args(["cat-file", file]))?;
            found.extend(
                packages(&text)
                    .filter(|package| prefixes.iter().any(|prefix| package.name.starts_with(prefix))),
            );
        }
        Ok(found)
    }

    /// These packages and all that they depend on, as if nothing was installed.
    pub(super) fn closure(&self, names: &[&str]) -> Result<Vec<Package>> {
        let plan =
            cmd::output(self.get().args(["--simulate", "--no-install-recommends", "install"]).args(names))?;
        Ok(planned(&plan).collect())
    }

    /// Downloads the packages and unpacks them into `into`.
    pub(super) fn unpack(&self, packages: &[Package], into: &Path) -> Result<()> {
        let debs = self.dir.join("debs");
        if debs.exists() {
            fs::remove_dir_all(&debs).context("cannot empty the download folder")?;
        }
        fs::create_dir_all(&debs).context("cannot make the download folder")?;
        let exact = packages.iter().map(|package| format!("{}={}", package.name, package.version));
        cmd::quiet(self.get().arg("download").args(exact).current_dir(&debs))?;
        for deb in fs::read_dir(&debs).context("cannot read the download folder")? {
            cmd::quiet(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(into))?;
        }
        Ok(())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let path = |name: &str| self.dir.join(name).display().to_string();
        let options = [
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::Etc::sourcelist={}", path("s.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", path("lists")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::State::status={}", path("status")),
            "Acquire::Languages=none".to_owned(),
            // The catalogue of desktop programs is larger than the list itself.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The line for apt's sources that names a suite of that archive.
pub(super) fn source(archive: Archive, suite: &str) -> Result<String> {
    Ok(format!("deb [signed-by={}] {} {suite} main", keyring()?.display(), mirror(archive)?))
}

/// The mirror of that archive, as this machine's own sources name it.
fn mirror(archive: Archive) -> Result<String> {
    let targets =
        cmd::output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]))
            .context("cannot ask apt for this machine's sources\nhint: kernels and programs come from Debian; elsewhere pass --vmlinuz and --modules")?;
    match pick_mirror(&targets, archive) {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "none of this machine's apt sources is Debian's {archive:?} archive\n\
             hint: add it to the apt sources, or pass --vmlinuz and --modules"
        ),
    }
}

/// Among lines `URI SUITE` the first URI of the archive wanted. Archives are told apart by the last part of their path.
fn pick_mirror(targets: &str, archive: Archive) -> Option<String> {
    let folder = match archive {
        Archive::Main => "debian",
        Archive::Security => "debian-security",
    };
    let uris = targets.lines().filter_map(|line| line.split_whitespace().next());
    uris.map(|uri| uri.trim_end_matches('/'))
        .find(|uri| uri.rsplit('/').next() == Some(folder))
        .map(str::to_owned)
}

fn keyring() -> Result<PathBuf> {
    let names = ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"];
    names.iter().map(|name| Path::new("/usr/share/keyrings").join(name)).find(|file| file.exists()).context(
        "Debian's archive keys are not in /usr/share/keyrings\n\
         hint: apt-get install debian-archive-keyring",
    )
}

/// The entries of a package list, in its order.
fn packages(text: &str) -> impl Iterator<Item = Package> {
    text.split("\n\n").filter_map(|entry| {
        let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some(Package { name: field("Package")?.to_owned(), version: field("Version")?.to_owned() })
    })
}

/// What apt would install, from its lines `Inst NAME (VERSION ORIGIN [ARCHITECTURE])`.
fn planned(plan: &str) -> impl Iterator<Item = Package> {
    plan.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        let version = rest.strip_prefix('(')?.split_whitespace().next()?;
        Some(Package { name: name.to_owned(), version: version.to_owned() })
    })
}

/// Debian's order of versions: runs of non-digits and of digits in turn, `~` before everything, letters before the rest.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (word_a, rest_a) = split(a, |c| !c.is_ascii_digit());
        let (word_b, rest_b) = split(b, |c| !c.is_ascii_digit());
        let words = (0..word_a.len().max(word_b.len()))
            .map(|i| weight(word_a.get(i)).cmp(&weight(word_b.get(i))))
            .find(|order| order.is_ne());
        if let Some(order) = words {
            return order;
        }
        let (number_a, rest_a) = split(rest_a, u8::is_ascii_digit);
        let (number_b, rest_b) = split(rest_b, u8::is_ascii_digit);
        let order = number(number_a).cmp(&number(number_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn split(text: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|c| !belongs(c)).unwrap_or(text.len()))
}

fn weight(c: Option<&u8>) -> i32 {
    match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_debians_order() {
        let rising = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+deb12u1",
            "5.10.0-9",
            "5.10.0-46",
            "6.9",
            "6.12.94-1",
            "6.12.107-1~deb12u1",
            "6.12.107-1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("7.2.13+deb14", "7.2.13+deb14"), Ordering::Equal);
        assert_eq!(compare("1.02", "1.2"), Ordering::Equal);
    }

    #[test]
    fn package_lists() {
        let text = "Package: a\nVersion: 1\nDepends: x\n\nPackage: b\nInstalled-Size: 3\nVersion: 2-1\n more\n\nBroken: yes\n";
        let found: Vec<_> = packages(text).map(|package| (package.name, package.version)).collect();
        assert_eq!(found, [("a".into(), "1".into()), ("b".into(), "2-1".into())]);
    }

    #[test]
    fn what_apt_would_install() {
        let plan = "Building dependency tree...\nInst libc6 (2.41-12 Debian:13/stable [amd64]) []\n\
                    Inst nginx (1.26.3-3 Debian:13/stable [amd64])\nConf nginx (1.26.3-3 Debian:13/stable [amd64])\n";
        let found: Vec<_> = planned(plan).map(|package| (package.name, package.version)).collect();
        assert_eq!(found, [("libc6".into(), "2.41-12".into()), ("nginx".into(), "1.26.3-3".into())]);
    }

    #[test]
    fn mirrors_by_archive() {
        let targets = "https://other.example/node nodistro\nhttp://mirror.example/debian/ bookworm\n\
                       http://mirror.example/debian-security/ bookworm-security\n";
        assert_eq!(pick_mirror(targets, Archive::Main).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(
            pick_mirror(targets, Archive::Security).as_deref(),
            Some("http://mirror.example/debian-security")
        );
        assert_eq!(pick_mirror("http://mirror.example/ubuntu noble\n", Archive::Main), None);
    }
}
