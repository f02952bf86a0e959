//! A small Debian with systemd on a disk, for guests that try what needs a whole system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::debian::{self, Archive};
use super::kernels::cache_dir;
use crate::{cmd, repo};

const SUITE: &str = "trixie";

/// Beside what every Debian has: an init, its bus, the manual, what lists programs of the kernel.
const PACKAGES: &[&str] = &["systemd", "systemd-sysv", "dbus", "man-db", "bpftool", "iproute2"];

/// What would happen by itself while a test runs, or only takes time.
const OFF: &[&str] = &[
    "etc/systemd/system/timers.target.wants",
    "usr/lib/systemd/system/timers.target.wants",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Room for what a test installs.
const SPARE_MIB: u64 = 200;

/// The disk, from the cache or else from Debian. `refresh` makes it anew.
pub(crate) fn get(refresh: bool) -> Result<PathBuf> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make the folder {}", cache.display()))?;
    let lock = File::create(cache.join("system.lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the cache of the system")?;
    let dir = cache.join("system");
    let made_of = dir.join("packages");
    // It comes last, and a disk of other packages is none.
    if refresh || fs::read_to_string(&made_of).ok() != Some(PACKAGES.join(" ")) {
        make(&cache, &dir)?;
        fs::write(&made_of, PACKAGES.join(" ")).context("cannot write what the system is made of")?;
    }
    Ok(dir.join("disk"))
}

fn make(cache: &Path, dir: &Path) -> Result<()> {
    println!("system: asking Debian's {SUITE} for {} and what they need (a minute)", PACKAGES.join(", "));
    let tool = |name: &str| {
        repo::which(name).with_context(|| {
            format!("`{name}` is not on this machine\nhint: `cargo xtask setup` installs it")
        })
    };
    let work = cache.join(".system");
    let root = work.join("root");
    for old in [&work, &dir.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        fs::create_dir_all(old).with_context(|| format!("cannot make {}", old.display()))?;
    }
    cmd::quiet(
        Command::new(tool("mmdebstrap")?)
            .args(["--quiet", "--variant=minbase", "--include", &PACKAGES.join(",")])
            .arg(SUITE)
            .arg(&root)
            .arg(debian::source(Archive::Main, SUITE)?),
    )
    .context("cannot make a Debian")?;
    for off in OFF {
        let off = root.join(off);
        if off.exists() {
            fs::remove_dir_all(&off).with_context(|| format!("cannot remove {}", off.display()))?;
        }
    }
    // Else each start of the disk would be the first one of a new machine, with more to do.
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")
        .context("cannot name the machine")?;
    fs::write(root.join("etc/hostname"), "guest\n").context("cannot name the host")?;
    let used = cmd::output(Command::new("du").args(["--summarize", "--block-size=1M"]).arg(&root))?;
    let used: u64 = used.split_whitespace().next().unwrap_or_default().parse().context("cannot read du")?;
    // No journal and no checksums: it is thrown away, and takes fewer modules.
    cmd::quiet(
        Command::new(tool("mke2fs")?)
            .args(["-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-d"])
            .arg(&root)
            .arg(dir.join("disk"))
            .arg(format!("{}M", used + SPARE_MIB)),
    )
    .context("cannot make a disk of it")?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    println!("system: {used} MB are in {}", dir.display());
    Ok(())
}
