//! The kernels of the matrix: which package each comes from, and the cache they are kept in.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::{self, Apt, Archive, Package};
use crate::{cmd, repo};

/// One row of the matrix. Nothing is pinned: the newest point release that the mirror has is taken.
struct Series {
    name: &'static str,
    archive: Archive,
    suite: &'static str,
    /// What the package of the image is called before the part that changes with each release.
    image: &'static str,
}

const SERIES: &[Series] = &[
    // The last kernel before BTF of modules, MPTCP and drop reasons; still on many hosts.
    Series {
        name: "5.10",
        archive: Archive::Security,
        suite: "bullseye-security",
        image: "linux-image-5.10.0-",
    },
    Series { name: "6.1", archive: Archive::Main, suite: "bookworm", image: "linux-image-6.1.0-" },
    Series { name: "6.12", archive: Archive::Main, suite: "trixie", image: "linux-image-6.12." },
    Series { name: "6.18", archive: Archive::Main, suite: "trixie-backports", image: "linux-image-6.18." },
    // Here the image package is empty and depends on one with the image and one with the modules.
    Series { name: NEWEST, archive: Archive::Main, suite: "sid", image: "linux-binary-" },
];

const NEWEST: &str = "newest";

/// Names of all rows, in order of age.
pub(crate) fn all() -> Vec<String> {
    SERIES.iter().map(|series| series.name.to_owned()).collect()
}

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// What the matrix calls it: the series, or the release of one's own.
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// The folder of that release under `/lib/modules`, with `modules.dep`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// A kernel of one's own: the folder of modules is named after the release, as everywhere.
    pub(crate) fn own(vmlinuz: &Path, modules: &Path) -> Result<Self> {
        let modules = modules
            .canonicalize()
            .with_context(|| format!("cannot find the modules {}", modules.display()))?;
        let release =
            modules.file_name().context("the folder of modules has no name")?.to_string_lossy().into_owned();
        if !modules.join("modules.dep").exists() {
            bail!("{} has no modules.dep\nhint: run depmod on it", modules.display());
        }
        Ok(Self { name: release.clone(), release, vmlinuz: vmlinuz.to_owned(), modules })
    }

    /// The kernel of that row, from the cache or else from Debian. `refresh` asks Debian again for a newer one.
    pub(crate) fn get(name: &str, refresh: bool) -> Result<Self> {
        let Some(series) = SERIES.iter().find(|series| series.name == name) else {
            bail!(
                "no kernel `{name}` in the matrix\nhint: one of {}, or --vmlinuz and --modules",
                all().join(", ")
            );
        };
        let cache = cache_dir()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make the folder {}", cache.display()))?;
        // Two runs at once must not fetch the same kernel twice, nor see half of one.
        let lock = File::create(cache.join(format!("{name}.lock"))).context("cannot make a lock file")?;
        lock.lock().context("cannot lock the cache of kernels")?;
        let dir = cache.join(name);
        if refresh || !dir.join("release").exists() {
            fetch(series, &cache, &dir)?;
        }
        Self::cached(name, &dir)
    }

    fn cached(name: &str, dir: &Path) -> Result<Self> {
        let file = dir.join("release");
        let release = fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .trim()
            .to_owned();
        let modules = dir.join("lib/modules").join(&release);
        Ok(Self { name: name.to_owned(), release, vmlinuz: dir.join("vmlinuz"), modules })
    }
}

/// Kernels are a gigabyte: they live outside the tree and are shared by all checkouts.
pub(super) fn cache_dir() -> Result<PathBuf> {
    let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = var("TCPWATCH_VM_CACHE") {
        return Ok(dir);
    }
    let base = var("XDG_CACHE_HOME").or_else(|| repo::home().map(|home| home.join(".cache")));
    Ok(base
        .context("neither HOME nor TCPWATCH_VM_CACHE is set: no place to keep kernels")?
        .join("tcpwatch/kernels"))
}

fn fetch(series: &Series, cache: &Path, dir: &Path) -> Result<()> {
    println!("kernel {}: asking Debian's {} for its newest", series.name, series.suite);
    let work = cache.join(format!(".{}", series.name));
    let fresh = work.join("kernel");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot empty {}", work.display()))?;
    }
    let apt = Apt::open(&work.join("apt"), series.archive, series.suite)?;
    let candidates = candidates(series, &apt.packages(&["linux-image-", "linux-binary-", "linux-modules-"])?);
    let mut failure = None;
    // A list can be ahead of the mirror's files: then the next older release is as good.
    for candidate in candidates.iter().take(5) {
        let unpacked = work.join("unpacked");
        match apt.unpack(&candidate.packages, &unpacked) {
            Ok(()) => {
                settle(&candidate.release, &unpacked, &fresh)?;
                if dir.exists() {
                    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
                }
                fs::rename(&fresh, dir)
                    .with_context(|| format!("cannot move the kernel to {}", dir.display()))?;
                fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
                println!("kernel {}: {} is in {}", series.name, candidate.release, dir.display());
                return Ok(());
            }
            Err(error) => {
                println!(
                    "kernel {}: {} cannot be had, trying the next older",
                    series.name, candidate.release
                );
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) => Err(error
            .context(format!("none of the kernels {} in {} can be downloaded", series.name, series.suite))),
        None => bail!(
            "Debian's {} has no kernel {} any more\nhint: pass --vmlinuz and --modules, or change xtask/src/vm/kernels.rs",
            series.suite,
            series.name
        ),
    }
}

/// Puts what the packages hold into the shape of the cache. The file `release` comes last: it says that all is there.
fn settle(release: &str, unpacked: &Path, fresh: &Path) -> Result<()> {
    // Packages of a merged /usr carry `usr/lib`, older ones `lib`; the image lies in /boot or beside the modules.
    let modules =
        [unpacked.join("usr/lib/modules"), unpacked.join("lib/modules")].map(|dir| dir.join(release));
    let modules = modules
        .iter()
        .find(|dir| dir.is_dir())
        .with_context(|| format!("the packages of {release} have no modules"))?;
    let images = [unpacked.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images
        .iter()
        .find(|file| file.is_file())
        .with_context(|| format!("the packages of {release} have no vmlinuz"))?;
    let target = fresh.join("lib/modules");
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    fs::copy(image, fresh.join("vmlinuz")).context("cannot copy vmlinuz")?;
    fs::rename(modules, target.join(release)).context("cannot move the modules")?;
    // Debian makes modules.dep when the package is configured, which never happens here.
    cmd::quiet(
        Command::new(repo::which("depmod").unwrap_or_else(|| "depmod".into()))
            .arg("-b")
            .arg(fresh)
            .arg(release),
    )
    .context("cannot index the modules\nhint: `cargo xtask setup` installs kmod")?;
    fs::write(fresh.join("release"), release).context("cannot write the release")
}

/// A release and the packages it consists of.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    release: String,
    packages: Vec<Package>,
}

/// All releases of the series, best first: newest, and the small `cloud` flavour before the full one.
fn candidates(series: &Series, packages: &[Package]) -> Vec<Candidate> {
    let named = |name: &str| packages.iter().find(|package| package.name == name);
    let mut found: Vec<(bool, &Package, Candidate)> = Vec::new();
    for package in packages {
        let Some(tail) = package.name.strip_prefix(series.image) else { continue };
        let signed = tail.strip_suffix("-unsigned").unwrap_or(tail);
        let cloud = signed.ends_with("-cloud-amd64");
        let version = signed.strip_suffix("-cloud-amd64").or_else(|| signed.strip_suffix("-amd64"));
        // What is left must be the version alone: no `-rt`, no `-dbg`, no meta package.
        let Some(version) =
            version.filter(|v| v.starts_with(|c: char| c.is_ascii_digit()) && !v.contains('-'))
        else {
            continue;
        };
        let prefix = series.image.trim_start_matches("linux-image-").trim_start_matches("linux-binary-");
        let flavour = if cloud { "cloud-amd64" } else { "amd64" };
        let release = format!("{prefix}{version}-{flavour}");
        let mut set = vec![package.clone()];
        if series.name == NEWEST {
            match named(&format!("linux-modules-{release}")) {
                Some(modules) => set.push(modules.clone()),
                None => continue,
            }
        }
        found.push((cloud, package, Candidate { release, packages: set }));
    }
    found.sort_by(|(cloud_a, a, _), (cloud_b, b, _)| {
        cloud_b
            .cmp(cloud_a)
            .then_with(|| debian::compare(&b.version, &a.version))
            .then_with(|| a.name.cmp(&b.name))
    });
    found.into_iter().map(|(_, _, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.into(), version: version.into() }
    }

    fn series(name: &str) -> &'static Series {
        SERIES.iter().find(|series| series.name == name).unwrap()
    }

    #[test]
    fn newest_point_release_first() {
        let packages = [
            package("linux-image-6.12.94+deb13-cloud-amd64", "6.12.94-1"),
            package("linux-image-6.12.107+deb13-cloud-amd64", "6.12.107-1"),
            package("linux-image-6.12.107+deb13-cloud-amd64-dbg", "6.12.107-1"),
            package("linux-image-6.12.107+deb13-amd64", "6.12.107-1"),
            package("linux-image-6.12.107+deb13-rt-amd64", "6.12.107-1"),
            package("linux-image-6.18.1+deb13-cloud-amd64", "6.18.1-1"),
            package("linux-image-cloud-amd64", "6.12.107-1"),
        ];
        let releases: Vec<_> =
            candidates(series("6.12"), &packages).into_iter().map(|found| found.release).collect();
        assert_eq!(
            releases,
            ["6.12.107+deb13-cloud-amd64", "6.12.94+deb13-cloud-amd64", "6.12.107+deb13-amd64"]
        );
    }

    #[test]
    fn abi_numbers_and_unsigned_images() {
        let packages = [
            package("linux-image-5.10.0-9-cloud-amd64", "5.10.70-1"),
            package("linux-image-5.10.0-46-cloud-amd64-unsigned", "5.10.262-1"),
        ];
        let found = candidates(series("5.10"), &packages);
        assert_eq!(found[0].release, "5.10.0-46-cloud-amd64");
        assert_eq!(found[0].packages[0].name, "linux-image-5.10.0-46-cloud-amd64-unsigned");
        assert_eq!(found[1].release, "5.10.0-9-cloud-amd64");
    }

    #[test]
    fn newest_needs_its_modules() {
        let packages = [
            package("linux-binary-7.3.1+deb14-cloud-amd64", "7.3.1-1"),
            package("linux-binary-7.2.13+deb14-cloud-amd64", "7.2.13-1"),
            package("linux-binary-unsigned-7.2.13+deb14-cloud-amd64", "7.2.13-1"),
            package("linux-modules-7.2.13+deb14-cloud-amd64", "7.2.13-1"),
        ];
        let found = candidates(series(NEWEST), &packages);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].release, "7.2.13+deb14-cloud-amd64");
        assert_eq!(found[0].packages.len(), 2);
    }
}
