//! The package for Debian and its kin: an `ar` of a format, a tar of what dpkg is to know, and a tar of the files.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::parts::{Parts, SHELLS};
use super::tree::{Tree, gzip};
use crate::sums::md5;

const MAINTAINER: &str = "tcpwatch maintainers <tcpwatch@users.noreply.github.com>";

/// What changes in the package alone counts here.
const REVISION: u32 = 1;

/// The only architecture that tcpwatch is built for.
const ARCHITECTURE: &str = "amd64";

/// What a purge leaves no trace of, beside what the scripts remove.
const CONFFILE: &str = "etc/tcpwatch/agent.toml";

/// Who removes the package keeps this file, who purges it does not.
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// The file's name, as dpkg would have it.
pub(super) fn name(parts: &Parts) -> String {
    format!("tcpwatch_{}_{ARCHITECTURE}.deb", version(parts))
}

fn version(parts: &Parts) -> String {
    format!("{}-{REVISION}", parts.version)
}

/// The whole package.
pub(super) fn build(parts: &Parts) -> Result<Vec<u8>> {
    let time = parts.time.seconds();
    let data = data(parts)?;
    let control = control(parts, &data)?;
    // gzip, because every dpkg there is takes it, and it needs no library in C.
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&control.tar("./", time)?)?),
        ("data.tar.gz", gzip(&data.tar("./", time)?)?),
    ];
    let mut archive = ar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), content.len() as u64);
        header.set_mtime(time);
        header.set_mode(0o100_644);
        archive.append(&header, content.as_slice()).with_context(|| format!("cannot add {name}"))?;
    }
    archive.into_inner().context("cannot end the package")
}

/// What is unpacked on the host.
fn data(parts: &Parts) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.program("usr/bin/tcpwatch", parts.binary.clone());
    for (name, page) in parts.manual.files() {
        tree.file(format!("usr/share/man/man8/{name}.gz"), gzip(&page.content)?);
    }
    for (shell, file) in SHELLS {
        let folder = match *shell {
            "bash" => "usr/share/bash-completion/completions",
            "zsh" => "usr/share/zsh/vendor-completions",
            _ => "usr/share/fish/vendor_completions.d",
        };
        let text = parts.completions.files().find(|(name, _)| name == shell);
        let (_, text) = text.with_context(|| format!("no completions for {shell}"))?;
        tree.file(format!("{folder}/{file}"), text.content.clone());
    }
    tree.file(
        "usr/lib/systemd/system/tcpwatch-agent.service",
        parts.deployed("systemd/tcpwatch-agent.service")?,
    );
    tree.file(CONFFILE, parts.deployed("agent.toml")?);
    let doc = "usr/share/doc/tcpwatch";
    tree.file(format!("{doc}/copyright"), parts.deployed("debian/copyright")?);
    tree.file(format!("{doc}/changelog.Debian.gz"), gzip(changelog(parts)?.as_bytes())?);
    for (name, file) in parts.documents.files() {
        match name {
            "CHANGELOG.md" => tree.file(format!("{doc}/changelog.gz"), gzip(&file.content)?),
            // `copyright` has them.
            "LICENSE-APACHE" | "LICENSE-MIT" => {}
            _ => tree.file(format!("{doc}/{name}"), file.content.clone()),
        }
    }
    for (name, file) in parts.deploy.files().filter(|(name, _)| !name.starts_with("debian/")) {
        if !matches!(name, "agent.toml" | "systemd/tcpwatch-agent.service") {
            tree.file(format!("{doc}/examples/{name}"), file.content.clone());
        }
    }
    tree.file("usr/share/lintian/overrides/tcpwatch", parts.deployed("debian/lintian-overrides")?);
    Ok(tree)
}

/// What dpkg is told.
fn control(parts: &Parts, data: &Tree) -> Result<Tree> {
    let mut tree = Tree::default();
    // In KiB, each file with a whole number of them, and one for each folder: so says Debian's policy of `du`.
    let size: usize = data.files().map(|(_, file)| file.content.len().div_ceil(1024) + 1).sum();
    let control = format!(
        "Package: tcpwatch\n\
         Version: {}\n\
         Architecture: {ARCHITECTURE}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {size}\n\
         Pre-Depends: init-system-helpers (>= 1.54~)\n\
         Section: net\n\
         Priority: optional\n\
         Homepage: https://github.com/tcpwatch/tcpwatch\n\
         Description: names who reset, refused or leaked a TCP connection, and why\n \
         For every TCP reset, every refused connection and every leaked socket of a\n \
         host it tells which process, which socket, which kernel reason, why, and what\n \
         to change. It attaches to the running kernel by BPF, from 5.10 to the newest,\n \
         without headers or a compiler.\n \
         .\n \
         The service tcpwatch-agent keeps figures for Prometheus, entries in the\n \
         journal, and captures of the last hour.\n",
        version(parts)
    );
    tree.file("control", control);
    tree.file("conffiles", format!("/{CONFFILE}\n"));
    let mut sums = String::new();
    for (path, file) in data.files().filter(|(path, _)| *path != CONFFILE) {
        writeln!(sums, "{}  {path}", md5(&file.content))?;
    }
    tree.file("md5sums", sums);
    for script in SCRIPTS {
        tree.program(*script, parts.deployed(&format!("debian/{script}"))?);
    }
    Ok(tree)
}

fn changelog(parts: &Parts) -> Result<String> {
    Ok(format!(
        "tcpwatch ({}) unstable; urgency=medium\n\n  * Release {}; changelog.gz tells what is new.\n\n -- {MAINTAINER}  {}\n",
        version(parts),
        parts.version,
        parts.time.rfc2822()?
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::*;
    use crate::dist::parts::sample;
    use crate::{cmd, repo};

    /// Name and bytes of each member.
    fn members(deb: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = ar::Archive::new(deb);
        let mut members = Vec::new();
        while let Some(entry) = archive.next_entry() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.push((String::from_utf8(entry.header().identifier().to_vec()).unwrap(), content));
        }
        members
    }

    /// Paths and texts of a member.
    fn unpacked(member: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(member));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), content)
        });
        entries.collect()
    }

    #[test]
    fn it_has_its_members_in_order_and_always_the_same_bytes() {
        let deb = build(&sample()).unwrap();
        assert_eq!(deb, build(&sample()).unwrap());
        let members = members(&deb);
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["debian-binary", "control.tar.gz", "data.tar.gz"]);
        assert_eq!(members[0].1, b"2.0\n");
        let control = unpacked(&members[1].1);
        let of = |name: &str| {
            let (_, text) = control.iter().find(|(path, _)| path.ends_with(name)).unwrap();
            String::from_utf8(text.clone()).unwrap()
        };
        assert!(of("control").contains("\nVersion: 1.2.3-1\n"));
        assert_eq!(of("conffiles"), "/etc/tcpwatch/agent.toml\n");
        let sums = of("md5sums");
        assert!(sums.contains("  usr/bin/tcpwatch\n") && !sums.contains("agent.toml"), "{sums}");
        let files = unpacked(&members[2].1);
        let has = |name: &str| files.iter().any(|(path, _)| path.trim_start_matches("./") == name);
        for name in [
            "usr/bin/tcpwatch",
            "usr/share/man/man8/tcpwatch.8.gz",
            "usr/share/bash-completion/completions/tcpwatch",
            "usr/share/zsh/vendor-completions/_tcpwatch",
            "usr/share/fish/vendor_completions.d/tcpwatch.fish",
            "usr/lib/systemd/system/tcpwatch-agent.service",
            "etc/tcpwatch/agent.toml",
            "usr/share/doc/tcpwatch/copyright",
            "usr/share/doc/tcpwatch/changelog.Debian.gz",
        ] {
            assert!(has(name), "{name}: {files:?}");
        }
        assert!(!files.iter().any(|(path, _)| path.contains("/examples/debian/")));
    }

    #[test]
    fn dpkg_takes_it() {
        // Where there is no dpkg the package is made all the same; the guests install it on every run of the tests.
        let Some(dpkg) = repo::which("dpkg-deb") else { return };
        let file = std::env::temp_dir().join(format!("tcpwatch-{}.deb", std::process::id()));
        std::fs::write(&file, build(&sample()).unwrap()).unwrap();
        let ask = |option: &str| cmd::output(Command::new(&dpkg).arg(option).arg(&file));
        let (info, contents) = (ask("--info"), ask("--contents"));
        std::fs::remove_file(&file).unwrap();
        let (info, contents) = (info.unwrap(), contents.unwrap());
        assert!(info.contains("Package: tcpwatch") && info.contains("postinst"), "{info}");
        assert!(contents.contains("-rwxr-xr-x root/root"), "{contents}");
    }
}
