//! `cargo xtask chart`: the manifests in `deploy/kubernetes` are what Helm makes of the chart in `deploy/helm`. Where there is no Helm, a
//! hash in their head tells whether the chart has changed since.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::sums::sha256;
use crate::{cmd, repo};

const CHART: &str = "deploy/helm/tcpwatch";
const VALUES: &str = "deploy/kubernetes/values.yaml";
const MANIFESTS: &str = "deploy/kubernetes/tcpwatch.yaml";
const HEAD: &str = "# Made by `cargo xtask chart --write` of deploy/helm/tcpwatch, whose hash then was ";
const NAME: &str = "tcpwatch";

/// `cargo xtask chart`.
pub(crate) fn main(write: bool) -> Result<()> {
    ensure!(
        repo::which("helm").is_some(),
        "there is no `helm` on this machine\nhint: https://helm.sh/docs/intro/install says where to get it"
    );
    if write {
        lint()?;
        let path = repo::root().join(MANIFESTS);
        fs::write(&path, render()?).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {MANIFESTS}");
        return Ok(());
    }
    check().map(drop)
}

/// Lints the chart and renders it, and holds that against the manifests. `Some`: why it could not.
pub(crate) fn check() -> Result<Option<&'static str>> {
    if repo::which("helm").is_none() {
        return Ok(Some("no `helm` on this machine: the chart was neither linted nor rendered"));
    }
    lint()?;
    if render()? != manifests()? {
        bail!("{MANIFESTS} is not what helm makes of {CHART}\nhint: cargo xtask chart --write");
    }
    println!("{MANIFESTS} is what helm makes of {CHART}");
    Ok(None)
}

/// Whether the manifests are older than the chart, as a sentence.
pub(crate) fn stale() -> Result<Option<String>> {
    let manifests = manifests()?;
    let head = manifests.lines().next().and_then(|line| line.strip_prefix(HEAD));
    let hash = hash()?;
    Ok((head != Some(&hash)).then(|| {
        format!("{MANIFESTS}:1: the chart has changed, its hash is {hash} now: run `cargo xtask chart --write`, which takes helm")
    }))
}

fn manifests() -> Result<String> {
    let path = repo::root().join(MANIFESTS);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn helm(args: &[&str]) -> Command {
    let mut helm = Command::new("helm");
    helm.current_dir(repo::root()).args(args);
    helm
}

fn lint() -> Result<()> {
    cmd::quiet(&mut helm(&["lint", "--strict", "--values", VALUES, CHART]))
}

fn render() -> Result<String> {
    let args = ["template", NAME, CHART, "--namespace", NAME, "--values", VALUES];
    let text = cmd::output(&mut helm(&args))?;
    Ok(format!("{HEAD}{}\n{}\n", hash()?, text.trim()))
}

/// Of every file that Helm makes the manifests of, and of what it is told beside.
fn hash() -> Result<String> {
    let root = repo::root();
    let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", CHART, VALUES];
    let list = cmd::output(Command::new("git").current_dir(&root).args(listed))?;
    // What else the chart brings along (alerts, dashboard) is not among these manifests.
    let counts = |file: &&str| !file.ends_with(".md") && !file.contains("/files/");
    let mut files: Vec<&str> = list.split_terminator('\0').filter(counts).collect();
    files.sort_unstable();
    let mut all = String::new();
    for file in files {
        let text = fs::read(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        all += &format!("{file} {}\n", sha256(&text));
    }
    Ok(sha256(all.as_bytes()))
}
