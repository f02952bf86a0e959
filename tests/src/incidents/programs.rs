//! Real programs from a folder that holds all they need: started with that folder as their root, ended by pid.

use std::fs;
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::hosts::sys as mounts;
use crate::net::Netns;
use crate::scratch::Scratch;
use crate::sys;

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Where a program finds the files that were written for it, and may write its own.
pub(super) const RUN: &str = "/run";

/// The folder, and one for the files of this run.
pub(super) struct Programs {
    root: PathBuf,
    scratch: Scratch,
}

impl Programs {
    pub(super) fn new(root: &str) -> Result<Self> {
        let root = PathBuf::from(root);
        for program in ["usr/sbin/nginx", "usr/bin/redis-server", "usr/bin/redis-cli"] {
            if !root.join(program).exists() {
                bail!(
                    "no {program} in {}\nhint: `cargo xtask test --only incidents` fetches the programs",
                    root.display()
                );
            }
        }
        Ok(Self { root, scratch: Scratch::new("incidents")? })
    }

    /// Writes a file that programs find as `/run/NAME`.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<String> {
        self.scratch.file(name, content.as_bytes())?;
        Ok(format!("{RUN}/{name}"))
    }

    /// The command that becomes the program in its own root; it goes through this program, which makes the root.
    pub(super) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("within").arg(&self.root).arg(self.scratch.path()).args(["--", program]).args(args);
        // Nobody's settings but ours.
        command.env_clear().env("LANG", "C").env("PATH", "/usr/sbin:/usr/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        sys::interrupt_with_us(&mut command);
        command
    }

    /// Starts a server in a namespace and waits until it listens on the port.
    pub(super) fn serve(&self, netns: &Netns, port: u16, program: &str, args: &[&str]) -> Result<Daemon> {
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        let log = self.scratch.path().join(format!("{name}-{port}.log"));
        let out = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = self.command(program, args);
        command.stdout(out.try_clone()?).stderr(out);
        let child = netns.enter(|| command.spawn().with_context(|| format!("starting {name}")))?;
        let mut daemon = Daemon { child, name };
        let end = Instant::now() + START;
        while !listens(netns, port)? {
            let ended = daemon.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} does not listen on port {port}: {}", daemon.name, said.trim());
            }
            sleep(PAUSE);
        }
        Ok(daemon)
    }
}

fn listens(netns: &Netns, port: u16) -> Result<bool> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    for table in ["tcp", "tcp6"] {
        let text = netns.proc_net(table)?;
        let mut rows = text.lines().map(|line| line.split_whitespace().skip(1));
        if rows.any(|mut row| {
            row.next().is_some_and(|local| local.ends_with(&port)) && row.nth(1) == Some(LISTEN)
        }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `tcpwatch-scenario within ROOT SCRATCH -- PROGRAM ARGS`: does not come back but with an error.
///
/// The mounts are in a namespace of their own: nobody else sees them, and they go with the program.
pub fn within(root: &str, scratch: &str, command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().context("no program")?;
    mounts::own_mounts().context("a mount namespace")?;
    for (source, target) in [("/dev", "dev"), ("/proc", "proc"), (scratch, "run")] {
        let target = Path::new(root).join(target);
        mounts::bind(source, &target.to_string_lossy())
            .with_context(|| format!("binding {source} to {}", target.display()))?;
    }
    chroot(root).with_context(|| format!("making {root} the root"))?;
    std::env::set_current_dir("/").context("entering the root")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("starting {program}"))
}

/// A running server. Its end is the end of its children too.
pub(super) struct Daemon {
    child: Child,
    pub(super) name: String,
}

impl Daemon {
    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The processes that this one has started.
    pub(super) fn children(&self) -> Vec<i32> {
        let parent = format!("PPid:\t{}", self.pid());
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                status.lines().any(|line| line == parent)
            })
            .collect()
    }

    /// The one process that this one has started, once it is there.
    pub(super) fn worker(&self) -> Result<i32> {
        let end = Instant::now() + START;
        loop {
            match self.children().as_slice() {
                [one] => return Ok(*one),
                [] if Instant::now() < end => sleep(PAUSE),
                several => bail!("{} has {} children and not one", self.name, several.len()),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let children = self.children();
        // What is gone already cannot be signalled, and need not.
        for pid in &children {
            drop(sys::signal(*pid, libc::SIGCONT));
        }
        drop(sys::signal(self.pid(), libc::SIGTERM));
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            sleep(PAUSE);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            for pid in &children {
                drop(sys::signal(*pid, libc::SIGKILL));
            }
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
