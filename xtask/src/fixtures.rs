//! `cargo xtask fixtures`: records what tcpwatch asks of each kernel's types under `tcpwatch/tests/kernels/`, so that
//! `tcpwatch/tests/fixtures.rs` and `cargo xtask protos` need no kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::vm::{self, Guest};
use crate::{cmd, repo};

const SYSTEM_BTF: &str = "/sys/kernel/btf/vmlinux";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: vm::Choice,
    /// Record the running kernel instead: one that Debian does not have
    #[arg(long, conflicts_with_all = ["kernel", "refresh", "vmlinuz"])]
    here: bool,
}

/// `cargo xtask fixtures`.
pub(crate) fn main(args: &Args) -> Result<()> {
    let target = repo::target_dir()?;
    // The reader of BTF is tcpwatch's own. xtask does not link it: then xtask would not build without a compiler for BPF.
    cmd::run(repo::cargo().args(["build", "--quiet", "--package", "tcpwatch", "--example", "reduce"]))
        .context("cannot build the reducer")?;
    let reducer = target.join("debug/examples/reduce");
    let all = repo::root().join("tcpwatch/tests/kernels");
    if args.here {
        let release = cmd::output(Command::new("uname").arg("-r"))?;
        record(&reducer, Path::new(SYSTEM_BTF), &all, release.trim())?;
    } else {
        let scratch = target.join("fixtures");
        for (name, kernel) in args.choice.each() {
            let kernel = kernel?;
            let out = scratch.join(&name);
            println!("kernel {name}: booting {}", kernel.release);
            let done = Guest::new(&kernel)
                .out(&out)
                .run(&format!("cp {SYSTEM_BTF} /out/btf"), Duration::from_secs(300))
                .with_context(|| format!("cannot boot {}", kernel.release))?;
            if done.status != 0 {
                bail!("{} does not show its types", kernel.release);
            }
            record(&reducer, &out.join("btf"), &all, &kernel.release)?;
        }
    }
    // The tests write what they find; whether it is right they say in the same breath.
    cmd::run(repo::cargo().env("UPDATE_GOLDEN", "1").args([
        "test",
        "--quiet",
        "--package",
        "tcpwatch",
        "--test",
        "fixtures",
    ]))?;
    println!("`git diff` shows what moved in the kernels");
    Ok(())
}

/// Writes the fixture of a release, and removes those of other point releases of its series.
fn record(reducer: &Path, btf: &Path, all: &Path, release: &str) -> Result<()> {
    let folder = all.join(release);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("btf");
    cmd::run(Command::new(reducer).args([btf, &file]))?;
    let size = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
    println!("kernel {release}: {size} bytes");
    for old in others(all, release)? {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        println!("kernel {release}: takes the place of {}", old.display());
    }
    Ok(())
}

/// Fixtures of the same series and flavour, but of another release.
fn others(all: &Path, release: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(all).with_context(|| format!("cannot list {}", all.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != release && series(&name) == series(release) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Major and minor version, and what follows the numbers: a kernel of one's own does not replace Debian's.
fn series(release: &str) -> (Vec<&str>, String) {
    let version = release.split(['.', '-', '+']).take(2).collect();
    let flavour = release.split('-').skip(1).filter(|part| part.starts_with(|c: char| c.is_alphabetic()));
    (version, flavour.collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_releases_are_one_series() {
        assert_eq!(series("6.12.107+deb13-cloud-amd64"), series("6.12.94+deb13-cloud-amd64"));
        assert_eq!(series("5.10.0-46-cloud-amd64"), series("5.10.0-9-cloud-amd64"));
        assert_ne!(series("6.12.107+deb13-cloud-amd64"), series("6.18.15+deb13-cloud-amd64"));
        assert_ne!(series("6.12.107+deb13-cloud-amd64"), series("6.12.107-mine"));
    }
}
