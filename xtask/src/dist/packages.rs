//! All packages of a release, beside the binary: a .deb, a tarball, an image, and the sums of all of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::parts::{Parts, SHELLS};
use super::tree::{Tree, gzip};
use super::{deb, image};
use crate::repo;
use crate::sums::sha256;

/// Where they are.
pub(crate) struct Packages {
    pub(crate) deb: PathBuf,
    tarball: PathBuf,
    /// The image as a folder, and as an archive.
    pub(crate) image: PathBuf,
    image_archive: PathBuf,
    sums: PathBuf,
}

impl Packages {
    pub(crate) fn all(&self) -> [&Path; 5] {
        [&self.deb, &self.tarball, &self.image, &self.image_archive, &self.sums]
    }
}

/// Makes all of them of this binary and this checkout, in the folder of the binaries.
pub(crate) fn make(tcpwatch: &Path) -> Result<Packages> {
    let parts = Parts::gather(tcpwatch)?;
    let dist = repo::dist_dir()?;
    fs::create_dir_all(&dist).with_context(|| format!("cannot make {}", dist.display()))?;
    let release = release(&parts)?;
    let layout = dist.join(image::name(&parts));
    if layout.exists() {
        // Blobs of another build would stay.
        fs::remove_dir_all(&layout).with_context(|| format!("cannot remove {}", layout.display()))?;
    }
    for (path, file) in release.files().filter(|(path, _)| *path != "tcpwatch") {
        let path = dist.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Packages {
        deb: dist.join(deb::name(&parts)),
        tarball: dist.join(format!("{}.tar.gz", tarball_name(&parts))),
        image_archive: dist.join(format!("{}.tar", image::name(&parts))),
        image: layout,
        sums: dist.join("SHA256SUMS"),
    })
}

/// Everything as it lies in the folder.
fn release(parts: &Parts) -> Result<Tree> {
    let mut release = Tree::default();
    release.program("tcpwatch", parts.binary.clone());
    release.file(deb::name(parts), deb::build(parts)?);
    let name = tarball_name(parts);
    release.file(
        format!("{name}.tar.gz"),
        gzip(&tarball(parts)?.tar(&format!("{name}/"), parts.time.seconds())?)?,
    );
    let layout = image::build(parts)?;
    release.file(format!("{}.tar", image::name(parts)), layout.tar("", parts.time.seconds())?);
    release.plant(&image::name(parts), &layout);
    let mut sums = String::new();
    for (path, file) in release.files() {
        writeln!(sums, "{}  {path}", sha256(&file.content))?;
    }
    release.file("SHA256SUMS", sums);
    Ok(release)
}

fn tarball_name(parts: &Parts) -> String {
    format!("tcpwatch-{}-x86_64-linux", parts.version)
}

/// For hosts without dpkg: as the checkout has it, with what the binary prints.
fn tarball(parts: &Parts) -> Result<Tree> {
    let mut tree = parts.documents.clone();
    tree.program("tcpwatch", parts.binary.clone());
    tree.plant("man/man8", &parts.manual);
    for (shell, file) in SHELLS {
        let text = parts.completions.files().find(|(name, _)| name == shell);
        let (_, text) = text.with_context(|| format!("no completions for {shell}"))?;
        tree.file(format!("completions/{shell}/{file}"), text.content.clone());
    }
    let mut deploy = Tree::default();
    // How the .deb is made is of no use without the checkout.
    for (name, file) in parts.deploy.files().filter(|(name, _)| !name.starts_with("debian/")) {
        deploy.file(name, file.content.clone());
    }
    tree.plant("deploy", &deploy);
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::parts::sample;

    #[test]
    fn two_runs_make_the_same_release_and_its_sums() {
        let release = release(&sample()).unwrap();
        assert_eq!(release, super::release(&sample()).unwrap());
        let (_, sums) = release.files().find(|(name, _)| *name == "SHA256SUMS").unwrap();
        let sums = String::from_utf8(sums.content.clone()).unwrap();
        for (path, file) in release.files().filter(|(name, _)| *name != "SHA256SUMS") {
            assert!(sums.contains(&format!("{}  {path}\n", sha256(&file.content))), "{path}");
        }
        assert_eq!(sums.lines().count() + 1, release.files().count());
        for name in
            ["tcpwatch_1.2.3-1_amd64.deb", "tcpwatch-1.2.3-x86_64-linux.tar.gz", "tcpwatch-1.2.3-oci.tar"]
        {
            assert!(sums.contains(name), "{sums}");
        }
    }

    #[test]
    fn the_tarball_has_what_a_host_without_dpkg_needs() {
        let tree = tarball(&sample()).unwrap();
        for name in [
            "tcpwatch",
            "README.md",
            "LICENSE-MIT",
            "docs/agent.md",
            "man/man8/tcpwatch.8",
            "completions/zsh/_tcpwatch",
            "deploy/systemd/tcpwatch-agent.service",
            "deploy/agent.toml",
        ] {
            assert!(tree.files().any(|(path, _)| path == name), "{name}");
        }
    }
}
