//! tcpwatch in a pid namespace: pids are those that a process has there, and null for processes outside.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::tool::Running;
use super::traffic::{Ground, only, owned_by};
use super::{Case, Lab, When, case, complaints, sys};
use crate::actor::Actor;

pub(super) const CASES: &[Case] =
    &[case("pid-namespace", When::Any, pid_namespace), case("foreign-proc", When::Any, foreign_proc)];

const PORT: u16 = 8080;

/// An actor born in the pid namespace of the tcpwatch behind a disguise, and the pid that it has there.
fn actor_inside(running: &Running, ground: &Ground) -> Result<(Actor, i32)> {
    let path = format!("/proc/{}/ns/pid_for_children", running.pid());
    let inside: OwnedFd = File::open(&path).with_context(|| format!("opening {path}"))?.into();
    // A thread's children change their namespace and never change back, so it is a thread for this alone.
    let actor = std::thread::scope(|scope| {
        let spawn = || -> Result<Actor> {
            sys::enter_pids(&inside).context("entering a pid namespace")?;
            Actor::spawn("ins", &ground.netns)
        };
        scope.spawn(spawn).join().unwrap_or_else(|_| bail!("the thread panicked"))
    })?;
    let status = fs::read_to_string(format!("/proc/{}/status", actor.pid()))?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
    let pids: Vec<i32> = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    match pids[..] {
        [.., outer, inner] if outer == actor.pid() => Ok((actor, inner)),
        _ => bail!("the actor is in no inner pid namespace: {pids:?}"),
    }
}

/// One RST by a process inside and one by a process outside, as events.
fn watch(
    lab: &Lab,
    disguise: &[&str],
    check: impl Fn(&Ground, &Value, &Value, i32, &Actor) -> Result<()>,
) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let mut running = lab.odd(disguise, &["--json", "--netns", &ground.inode()]).spawn()?.started()?;
    let (inside, inner_pid) = actor_inside(&running, &ground)?;
    let within = ground.reset_by(&inside, listener, PORT, false)?;
    let without = ground.reset(listener, PORT)?;
    running.wait_events(4)?;
    // Process 1 of a namespace does not end before all others in it were waited for.
    inside.kill()?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let books = ended.events()?;
    let one = only(&books.events, "rst_sent", within.client, within.server)?;
    let two = only(&books.events, "rst_sent", without.client, without.server)?;
    check(&ground, one, two, inner_pid, &inside)
}

fn pid_namespace(lab: &Lab) -> Result<()> {
    let said = complaints(&lab.doctor(&["--pidns"])?).join("\n");
    ensure!(said.contains("pid namespace of its own"), "doctor says: {said}");
    watch(lab, &["--pidns"], |ground, within, without, pid, inside| {
        owned_by(within, Some(pid), inside.comm()).context("the process inside")?;
        let exe = within["owner"]["exe"].as_str().unwrap_or_default();
        ensure!(exe.contains("tcpwatch-scenario"), "its program is {}", within["owner"]);
        owned_by(without, None, ground.cli.comm()).context("the process outside")?;
        ensure!(without["owner"]["exe"].is_null(), "a program without a pid: {}", without["owner"]);
        Ok(())
    })?;
    // A pid on the command line is one of the namespace too: process 1 is there, our own is not.
    let outside = std::process::id().to_string();
    let ended = lab.odd(&["--pidns"], &["-p", &outside, "--for", "1s"]).run()?;
    ended.refused(1, &["no process with pid", &outside])
}

/// The outer /proc in an inner namespace: a pid leads to the wrong process there, so nothing is looked up by it.
fn foreign_proc(lab: &Lab) -> Result<()> {
    let disguise = ["--pidns", "--foreign-proc"];
    let said = complaints(&lab.doctor(&disguise)?).join("\n");
    ensure!(said.contains("belongs to another pid namespace"), "doctor says: {said}");
    let began = Instant::now();
    watch(lab, &disguise, |ground, within, without, pid, inside| {
        owned_by(within, Some(pid), inside.comm()).context("the process inside")?;
        owned_by(without, None, ground.cli.comm()).context("the process outside")?;
        for event in [within, without] {
            ensure!(event["owner"]["exe"].is_null(), "a program from a foreign /proc: {}", event["owner"]);
        }
        Ok(())
    })?;
    ensure!(began.elapsed() < Duration::from_secs(300), "it took {:?}", began.elapsed());
    Ok(())
}
