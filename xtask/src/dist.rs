//! `cargo xtask dist`: the static binaries, and the proof that they are static.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{cmd, repo};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What goes to users, and what goes into the guests of the test matrix beside it: package and binary.
const TCPWATCH: (&str, &str) = ("tcpwatch", "tcpwatch");
const SCENARIO: (&str, &str) = ("tcpwatch-tests", "tcpwatch-scenario");
const LOAD: (&str, &str) = ("tcpwatch-tests", "tcpwatch-load");

/// All binaries, ready to be copied anywhere.
pub(crate) struct Dist {
    pub(crate) tcpwatch: PathBuf,
    pub(crate) scenario: PathBuf,
    pub(crate) load: PathBuf,
}

/// `cargo xtask dist`.
pub(crate) fn main() -> Result<()> {
    build(TCPWATCH).map(drop)
}

/// What the tests need: the binary under test, the one that provokes the events, and the one under whose load programs are timed.
pub(crate) fn build_all() -> Result<Dist> {
    Ok(Dist { tcpwatch: build(TCPWATCH)?, scenario: build(SCENARIO)?, load: build(LOAD)? })
}

/// The same as they lie there, whoever built them.
pub(crate) fn built() -> Result<Dist> {
    let dist = repo::dist_dir()?;
    let of = |(_, binary): (&str, &str)| {
        let file = dist.join(binary);
        if !file.is_file() {
            bail!("{} is not there\nhint: without --built it is built", file.display());
        }
        Ok(file)
    };
    Ok(Dist { tcpwatch: of(TCPWATCH)?, scenario: of(SCENARIO)?, load: of(LOAD)? })
}

/// What is measured, tcpwatch as it is shipped, and what plays the load.
pub(crate) fn build_bench() -> Result<(PathBuf, PathBuf)> {
    Ok((build(TCPWATCH)?, build(LOAD)?))
}

fn build((package, binary): (&str, &str)) -> Result<PathBuf> {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" -C target-feature=+crt-static");
    let mut cargo = repo::cargo();
    // With --target the flags reach only what is shipped, not the build scripts.
    cargo.args(["build", "--release", "--target", TARGET, "--package", package, "--bin", binary]);
    cmd::run(cargo.env("RUSTFLAGS", flags.trim_start()))
        .with_context(|| format!("cannot build a static {binary}"))?;
    let built = repo::target_dir()?.join(TARGET).join("release").join(binary);
    if !is_static(&built)? {
        bail!(
            "{} asks for a loader, so it would not run on other hosts\nhint: is libc.a installed?",
            built.display()
        );
    }
    let dist = repo::dist_dir()?;
    fs::create_dir_all(&dist).with_context(|| format!("cannot make {}", dist.display()))?;
    let target = dist.join(binary);
    // By a rename: whoever runs the old one at this moment keeps it.
    let fresh = dist.join(format!(".{binary}.{}", std::process::id()));
    fs::copy(&built, &fresh).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&fresh, &target).with_context(|| format!("cannot replace {}", target.display()))?;
    let size = fs::metadata(&target)?.len();
    println!("{}: static, {:.1} MB", target.display(), size as f64 / 1e6);
    Ok(target)
}

/// Whether an ELF file runs without a loader and without libraries.
pub(crate) fn is_static(file: &Path) -> Result<bool> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    match has_interpreter(&bytes) {
        Some(dynamic) => Ok(!dynamic),
        None => bail!("{} is no 64-bit ELF file", file.display()),
    }
}

/// Whether one of the program headers names a loader. `None` if this is no little-endian 64-bit ELF file.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    let table = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
    for i in 0..count {
        if number(table.checked_add(i * size)?, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and program headers of these types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = u8::try_from(types.len()).unwrap();
        for kind in types {
            let at = elf.len();
            elf.resize(at + 56, 0);
            elf[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        elf
    }

    #[test]
    fn the_loader_gives_a_dynamic_file_away() {
        assert_eq!(has_interpreter(&elf(&[6, 3, 1])), Some(true));
        assert_eq!(has_interpreter(&elf(&[1, 1, 7])), Some(false));
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(has_interpreter(&elf(&[1, 1])[..100]), None);
    }
}
