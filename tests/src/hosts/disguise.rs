//! `tcpwatch-scenario disguise`: makes the host odd for one program, then becomes that program.
//!
//! A process of its own, so that mounts, privileges and pids of the suite stay as they are, and with one thread, so that
//! nothing of it has to be safe between fork and exec.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use super::sys;
use crate::sys::{exit_now, fork};

#[derive(clap::Args)]
pub struct Disguise {
    /// As this user, who has no privileges
    #[arg(long)]
    uid: Option<u32>,
    /// Without these capabilities
    #[arg(long, value_delimiter = ',')]
    drop: Vec<u32>,
    /// With these capabilities alone
    #[arg(long, value_delimiter = ',', conflicts_with = "drop")]
    keep: Vec<u32>,
    /// An empty file system over this folder
    #[arg(long)]
    cover: Vec<String>,
    /// The first file over the second one
    #[arg(long, value_name = "FILE=FILE")]
    bind: Vec<String>,
    /// Without what is mounted here, if anything is
    #[arg(long)]
    unmount: Vec<String>,
    /// As process 1 of a pid namespace
    #[arg(long)]
    pidns: bool,
    /// With the /proc of the outer namespace
    #[arg(long, requires = "pidns")]
    foreign_proc: bool,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Does not come back but with an error, or at the end of the other program.
pub fn wear(disguise: &Disguise) -> Result<()> {
    let name = disguise.command.first().context("no program")?;
    let program: OwnedFd = std::fs::File::open(name).with_context(|| format!("opening {name}"))?.into();
    let mounts = !disguise.cover.is_empty() || !disguise.bind.is_empty() || !disguise.unmount.is_empty();
    if mounts || disguise.pidns {
        sys::own_mounts().context("a mount namespace")?;
    }
    for target in &disguise.unmount {
        // Not mounted is what was asked for; what is mounted twice goes twice.
        while sys::unmount(target).is_ok() {}
    }
    for target in &disguise.cover {
        sys::mount_new("tmpfs", target).with_context(|| format!("covering {target}"))?;
    }
    for pair in &disguise.bind {
        let (source, target) = pair.split_once('=').context("FILE=FILE")?;
        sys::bind(source, target).with_context(|| format!("binding {source} over {target}"))?;
    }
    if disguise.pidns {
        go_inside(disguise.foreign_proc)?;
    }
    let unwanted = |number: &u32| match disguise.keep.is_empty() {
        true => disguise.drop.contains(number),
        false => !disguise.keep.contains(number),
    };
    for number in (0..64).filter(unwanted).filter(|number| sys::may_have_capability(*number)) {
        sys::drop_capability(number).with_context(|| format!("dropping capability {number}"))?;
    }
    if let Some(uid) = disguise.uid {
        sys::become_user(uid).context("becoming another user")?;
    }
    sys::become_program(&program, &disguise.command).with_context(|| format!("starting {name}"))
}

/// Comes back as process 1 of a new pid namespace. The outer process stays for its status only: signals go to the whole
/// process group.
fn go_inside(foreign_proc: bool) -> Result<()> {
    sys::own_pids().context("a pid namespace")?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        sys::ignore(signal, true);
    }
    match fork().context("fork")? {
        0 => {
            sys::die_with_parent()?;
            for signal in [libc::SIGINT, libc::SIGTERM] {
                sys::ignore(signal, false);
            }
            if !foreign_proc {
                sys::mount_new("proc", "/proc").context("mounting /proc")?;
            }
            Ok(())
        }
        pid => exit_now(sys::wait(pid).unwrap_or(1)),
    }
}
