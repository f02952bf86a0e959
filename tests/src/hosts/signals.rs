//! Ctrl-C, SIGTERM and SIGKILL, at every moment.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::sys::{self, Object};
use super::tool::END;
use super::traffic::Ground;
use super::{Case, Lab, When, case};

pub(super) const CASES: &[Case] = &[
    case("signal-at-start", When::Alone, signal_at_start),
    case("signal-under-load", When::Alone, signal_under_load),
    case("signal-twice", When::Alone, signal_twice),
    case("sigkill", When::Alone, sigkill),
];

const SIGNALS: [i32; 2] = [libc::SIGINT, libc::SIGTERM];
/// Nobody waits longer for a program that was told to end.
const PATIENCE: Duration = Duration::from_secs(5);

fn signal_at_start(lab: &Lab) -> Result<()> {
    for signal in SIGNALS {
        for delay in [0, 5, 20, 50, 100, 300, 1000] {
            let running = lab.tool(&["--json"]).spawn()?;
            sleep(Duration::from_millis(delay));
            let what = || format!("signal {signal} after {delay} ms");
            running.signal(signal).with_context(what)?;
            let ended = running.wait(PATIENCE).with_context(what)?;
            // Before there is a handler, the signal itself ends it.
            let by_signal = std::os::unix::process::ExitStatusExt::signal(&ended.status) == Some(signal);
            if !by_signal {
                ended.exits(0).with_context(what)?;
            }
            ended.is_silent().with_context(what)?;
            if !ended.stdout.is_empty() {
                ended.events().with_context(what)?;
            }
        }
    }
    Ok(())
}

fn signal_under_load(lab: &Lab) -> Result<()> {
    for signal in SIGNALS {
        let ground = Ground::new()?;
        let listener = ground.listen(8080)?;
        let running = lab.tool(&["--json", "--netns", &ground.inode()]).spawn()?.started()?;
        let end = Instant::now() + Duration::from_secs(3);
        let (ended, churned) = std::thread::scope(|scope| {
            let storms: Vec<_> =
                (0..2).map(|_| scope.spawn(|| ground.storm(|_| Instant::now() > end))).collect();
            let resets = scope.spawn(|| {
                let mut count = 0;
                while Instant::now() < end {
                    ground.reset(listener, 8080)?;
                    count += 1;
                }
                Ok::<_, anyhow::Error>(count)
            });
            sleep(Duration::from_millis(1500));
            let ended = running.stop_by(signal);
            let mut churned = resets.join().unwrap_or_else(|_| bail!("the resets panicked"))?;
            for storm in storms {
                churned += storm.join().unwrap_or_else(|_| bail!("the storm panicked"))?;
            }
            Ok::<_, anyhow::Error>((ended?, churned))
        })?;
        ended.exits(0)?;
        let books = ended.events().with_context(|| format!("signal {signal}"))?;
        ensure!(books.of("rst_sent").count() > 10, "{} events in a storm", books.events.len());
        ensure!(churned > 10, "only {churned} connections");
        // Taking everything off takes as long as attaching it, and the load is still there.
        let patience = PATIENCE.max(2 * lab.slowness);
        ensure!(ended.took < patience, "it took {:.1} s to end", ended.took.as_secs_f64());
    }
    Ok(())
}

/// Impatient fingers. `timeout(1)` and some supervisors send it twice too, so the summary has to come if nothing holds it up.
fn signal_twice(lab: &Lab) -> Result<()> {
    for pause in [0, 1, 10, 50] {
        let ground = Ground::new()?;
        let listener = ground.listen(8080)?;
        let mut running = lab.tool(&["--json", "--netns", &ground.inode()]).spawn()?.started()?;
        ground.reset(listener, 8080)?;
        running.wait_events(2)?;
        running.signal(libc::SIGINT)?;
        sleep(Duration::from_millis(pause));
        // Gone already is fine.
        drop(running.signal(libc::SIGINT));
        let ended = running.wait(PATIENCE)?;
        ended.exits(0).with_context(|| format!("{pause} ms apart"))?;
        let events = ended.events().with_context(|| format!("{pause} ms apart"))?.events;
        ensure!(events.len() == 2, "{} events and not two", events.len());
    }
    Ok(())
}

/// What `/proc/PID/fdinfo` says that a process holds in the kernel.
fn held(pid: i32) -> Result<BTreeSet<(Object, u32)>> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        for (key, kind) in
            [("prog_id:", Object::Program), ("map_id:", Object::Map), ("link_id:", Object::Link)]
        {
            let id = text.lines().find_map(|line| line.strip_prefix(key));
            if let Some(id) = id.and_then(|id| id.trim().parse().ok()) {
                all.insert((kind, id));
            }
        }
    }
    Ok(all)
}

fn exists(kind: Object, id: u32) -> Result<bool> {
    Ok(sys::next_object(kind, id - 1).context("listing BPF objects")? == Some(id))
}

fn kprobe_events() -> Option<String> {
    std::fs::read_to_string("/sys/kernel/tracing/kprobe_events").ok()
}

fn sigkill(lab: &Lab) -> Result<()> {
    let rungs: &[&[&str]] = if lab.has_functions() { &[&[], &["--attach", "kprobe"]] } else { &[&[]] };
    for rung in rungs {
        let probes = kprobe_events();
        let ground = Ground::new()?;
        let listener = ground.listen(8080)?;
        let args = [&["--json"], *rung].concat();
        let running = lab.tool(&args).spawn()?.started()?;
        ground.reset(listener, 8080)?;
        let held = held(running.pid())?;
        for kind in [Object::Program, Object::Map] {
            ensure!(held.iter().any(|(held, _)| *held == kind), "tcpwatch holds no {kind:?}");
        }
        for (kind, id) in &held {
            ensure!(exists(*kind, *id)?, "the kernel does not list {kind:?} {id}");
        }
        running.signal(libc::SIGKILL)?;
        let ended = running.wait(END)?;
        ensure!(!ended.status.success(), "it survived");
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let mut left = Vec::new();
            for (kind, id) in &held {
                if exists(*kind, *id)? {
                    left.push(format!("{kind:?} {id}"));
                }
            }
            if left.is_empty() {
                break;
            }
            ensure!(Instant::now() < end, "still in the kernel after SIGKILL: {}", left.join(", "));
            sleep(Duration::from_millis(50));
        }
        ensure!(kprobe_events() == probes, "kprobes are left in tracefs: {:?}", kprobe_events());
        ensure!(ended.whole_lines(), "a line is cut off");
    }
    Ok(())
}
