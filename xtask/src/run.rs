//! `cargo xtask run`: build and start tcpwatch, with the privileges it needs.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cmd, repo, setup};

/// Builds what is needed and turns into tcpwatch; comes back only if that fails.
pub(crate) fn main(args: &[String]) -> Result<()> {
    setup::ensure()?;
    cmd::run(repo::cargo().args(["build", "--release", "--package", "tcpwatch"]))
        .context("cannot build tcpwatch")?;
    let tcpwatch = repo::target_dir()?.join("release/tcpwatch");
    let mut command = if repo::is_root() {
        Command::new(&tcpwatch)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(&tcpwatch);
        sudo
    };
    if args.is_empty() {
        command.arg("trace");
    }
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("cannot start `{}`", cmd::line(&command)))
}
