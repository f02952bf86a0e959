//! Programs as Debian ships them: nginx and redis for the incidents, Prometheus for the alerts, each set with what it is linked to
//! in a folder of its own.
//!
//! Nothing is installed: the packages are only unpacked. Who runs a program makes this folder its root, on this machine as in a
//! guest, so the machine's own libraries do not matter.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian::{Apt, Archive};
use super::kernels::cache_dir;

/// Where a guest has them.
pub(crate) const IN_GUEST: &str = "/programs";
pub(crate) const PROMETHEUS_IN_GUEST: &str = "/prometheus";

const SUITE: &str = "trixie";

/// Programs that go into guests together: each guest holds all of them in memory.
#[derive(Clone, Copy)]
pub(crate) struct Set {
    /// The folder in the cache.
    name: &'static str,
    packages: &'static [&'static str],
    /// What a program needs beside the packages wanted themselves is in packages named so; the others set up a whole system.
    runtime: &'static [&'static str],
    /// A program that only this machine runs, and that lies beside the folder.
    apart: Option<&'static str>,
}

/// The web server and the language in which it talks to redis, redis and its command line.
pub(crate) const INCIDENTS: Set = Set {
    name: "programs",
    packages: &["nginx", "libnginx-mod-http-lua", "redis-server", "redis-tools"],
    runtime: &["lib", "lua", "zlib", "nginx", "redis"],
    apart: None,
};

/// Who scrapes the agent and judges the alerts; and who checks rules and pages, as large again.
pub(crate) const PROMETHEUS: Set = Set {
    name: "prometheus",
    packages: &["prometheus", "promtool"],
    runtime: &["libc6", "libgcc", "prometheus", "promtool"],
    apart: Some("usr/bin/promtool"),
};

/// Not needed to run anything, and guests hold all of it in memory.
const DEAD_WEIGHT: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/prometheus",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/security",
];

impl Set {
    /// The program that lies beside the folder which `get` gave.
    pub(crate) fn beside(self, dir: &Path) -> Option<PathBuf> {
        self.apart.map(|path| dir.with_file_name(Path::new(path).file_name().unwrap_or_default()))
    }
}

/// The folder, from the cache or else from Debian. `refresh` fetches it anew.
pub(crate) fn get(set: Set, refresh: bool) -> Result<PathBuf> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make the folder {}", cache.display()))?;
    let lock = File::create(cache.join("programs.lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the cache of programs")?;
    let dir = cache.join(set.name);
    if refresh || !dir.join("versions").exists() {
        fetch(set, &cache, &dir)?;
    }
    Ok(dir)
}

fn fetch(set: Set, cache: &Path, dir: &Path) -> Result<()> {
    println!("{}: asking Debian's {SUITE} for {}", set.name, set.packages.join(", "));
    let work = cache.join(format!(".{}", set.name));
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot empty {}", work.display()))?;
    }
    let apt = Apt::open(&work.join("apt"), Archive::Main, SUITE)?;
    let mut packages = apt.closure(set.packages)?;
    packages.retain(|package| set.runtime.iter().any(|prefix| package.name.starts_with(prefix)));
    let root = work.join("root");
    fs::create_dir_all(&root).context("cannot make a folder for the programs")?;
    apt.unpack(&packages, &root)?;
    furnish(&root)?;
    if let (Some(path), Some(apart)) = (set.apart, set.beside(dir)) {
        fs::rename(root.join(path), &apart).with_context(|| format!("cannot move {path} apart"))?;
    }
    // It comes last: it says that all is there.
    let versions: String =
        packages.iter().map(|package| format!("{} {}\n", package.name, package.version)).collect();
    fs::write(root.join("versions"), versions).context("cannot write the versions of the programs")?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::rename(&root, dir).with_context(|| format!("cannot move the programs to {}", dir.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    println!("{}: {} packages are in {}", set.name, packages.len(), dir.display());
    Ok(())
}

/// What packages that were left out, or scripts that never ran, would have put there.
fn furnish(root: &Path) -> Result<()> {
    for weight in DEAD_WEIGHT {
        let weight = root.join(weight);
        if weight.exists() {
            fs::remove_dir_all(&weight).with_context(|| format!("cannot remove {}", weight.display()))?;
        }
    }
    for (link, target) in
        [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("bin", "usr/bin"), ("sbin", "usr/sbin")]
    {
        if !root.join(link).exists() {
            symlink(target, root.join(link)).with_context(|| format!("cannot make the link {link}"))?;
        }
    }
    for folder in ["dev", "proc", "sys", "tmp", "run", "etc", "var/log"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let passwd = "root:x:0:0:root:/:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n";
    fs::write(root.join("etc/passwd"), passwd).context("cannot write the users of the programs")?;
    fs::write(root.join("etc/group"), "root:x:0:\nwww-data:x:33:\n")
        .context("cannot write the groups of the programs")
}
