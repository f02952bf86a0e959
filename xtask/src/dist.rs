//! `cargo xtask dist`: the static binaries, the proof that they are static, and the packages made of them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{cmd, repo};

mod deb;
mod elf;
mod image;
mod packages;
mod parts;
mod tree;

pub(crate) use elf::is_static;
pub(crate) use packages::{Packages, make as make_packages};

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

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Make the packages of the binary that lies in target/dist
    #[arg(long)]
    built: bool,
}

/// `cargo xtask dist`.
pub(crate) fn main(args: &Args) -> Result<()> {
    let tcpwatch = if args.built { there(TCPWATCH)? } else { build(TCPWATCH)? };
    let packages = make_packages(&tcpwatch)?;
    for file in packages.all() {
        println!("{}", file.display());
    }
    Ok(())
}

/// What the tests need: the binary under test, the one that provokes the events, and the one under whose load programs are timed.
pub(crate) fn build_all() -> Result<Dist> {
    Ok(Dist { tcpwatch: build(TCPWATCH)?, scenario: build(SCENARIO)?, load: build(LOAD)? })
}

/// The same as they lie there, whoever built them.
pub(crate) fn built() -> Result<Dist> {
    Ok(Dist { tcpwatch: there(TCPWATCH)?, scenario: there(SCENARIO)?, load: there(LOAD)? })
}

fn there((_, binary): (&str, &str)) -> Result<PathBuf> {
    let file = repo::dist_dir()?.join(binary);
    if !file.is_file() {
        bail!("{} is not there\nhint: without --built it is built", file.display());
    }
    Ok(file)
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
