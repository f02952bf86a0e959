//! `cargo xtask fuzz`: what tcpwatch reads from others, under libFuzzer.
//!
//! Coverage is a pass of the compiler, and a panic is all that safe Rust has to fear, so the stable compiler will do. Who wants a
//! sanitizer too takes cargo-fuzz, for which `fuzz/` has its usual layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, repo, setup};

/// What cargo-fuzz hands to the compiler, without a sanitizer.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // So that the marks around the counters are not dropped with the code that nobody calls.
    "-Clink-dead-code",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Input {
    /// Captures, and all that is made of them
    Capture,
    /// Filters as they are typed
    Filter,
    /// Types of kernels
    Types,
}

impl Input {
    const fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Filter => "filter",
            Self::Types => "types",
        }
    }

    /// Bytes of an input, at most.
    const fn longest(self) -> u32 {
        match self {
            Self::Capture => 16_384,
            Self::Filter => 200,
            Self::Types => 65_536,
        }
    }

    /// What it begins with, beside what earlier runs found.
    fn seeds(self, root: &Path) -> Result<Vec<Vec<u8>>> {
        match self {
            // The fuzzer has to find the format by itself, as far as it is not given: `--seed`.
            Self::Capture => Ok(Vec::new()),
            Self::Filter => Ok(vec![
                b"tcp port 80 and not host 10.0.0.1".to_vec(),
                b"src net 10.0.0.0/8 or (dst portrange 1-9 and ip6)".to_vec(),
                b"local port 443 and remote host 2001:db8::1".to_vec(),
            ]),
            Self::Types => {
                let folder = root.join("tcpwatch/tests/kernels");
                let kernels =
                    fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
                kernels.map(|kernel| Ok(fs::read(kernel?.path().join("btf"))?)).collect()
            }
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to feed
    #[arg(value_enum)]
    input: Input,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Files to begin with, such as captures of `tcpwatch -w FILE`
    #[arg(long, value_name = "FILE")]
    seed: Vec<PathBuf>,
}

/// `cargo xtask fuzz`.
pub(crate) fn main(args: &Args) -> Result<()> {
    setup::ensure()?;
    let root = repo::root();
    let name = args.input.name();
    let target = repo::target_dir()?.join("fuzz");
    cmd::run(
        repo::cargo()
            .args(["build", "--release", "--target", TARGET, "--bin", name, "--manifest-path"])
            .arg(root.join("fuzz/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", COVERAGE.join(" ")),
    )
    .context("cannot build what is to be fed")?;

    let corpus = target.join("corpus").join(name);
    let found = target.join("found");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    for (row, seed) in args.input.seeds(&root)?.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{row}")), seed)?;
    }
    for (row, seed) in args.seed.iter().enumerate() {
        let bytes = fs::read(seed).with_context(|| format!("cannot read {}", seed.display()))?;
        let most = args.input.longest() as usize;
        // Cut off is as good as whole: a reader has to bear that anyway.
        fs::write(corpus.join(format!("given-{row}")), &bytes[..bytes.len().min(most)])?;
    }
    let mut fuzzer = Command::new(target.join(TARGET).join("release").join(name));
    fuzzer
        .arg(&corpus)
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={}", args.input.longest()))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .args(["-print_final_stats=1", "-timeout=10"]);
    if cmd::run(&mut fuzzer).is_err() {
        bail!("it fell over; the input that did it is in {}", found.display());
    }
    println!("fuzz: {name}: nothing found in {} s", args.seconds);
    Ok(())
}
