//! What becomes of the output: readers that go or stall, full disks, limits on events and time, losses, a second tcpwatch.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::tool::{END, Running};
use super::traffic::{Ground, only, owned_by};
use super::{Case, Lab, When, case, sys};

pub(super) const CASES: &[Case] = &[
    case("pipe-closed-at-once", When::Any, pipe_closed_at_once),
    case("pipe-closed-later", When::Any, pipe_closed_later),
    case("disk-full", When::Any, disk_full),
    case("for-a-time", When::Any, for_a_time),
    case("count", When::Any, count),
    case("two-at-once", When::Any, two_at_once),
    case("strict-losses", When::Any, strict_losses),
    case("reader-stalls", When::Alone, reader_stalls),
];

const PORT: u16 = 8080;
/// Attached in a moment: it is not the hooks that matter here.
const FEW: &[&str] = &["--attach", "tracepoint"];

/// It ends by itself and quietly once it has something to write; nobody is told how many events that takes.
fn ends_quietly(running: Running, ground: &Ground, listener: i32) -> Result<()> {
    // The first write may still fit; what follows it cannot.
    for _ in 0..3 {
        ground.reset(listener, PORT)?;
        sleep(Duration::from_millis(100));
    }
    let ended = running.wait(END)?;
    ended.exits(0)?;
    ended.is_silent()
}

fn pipe_closed_at_once(lab: &Lab) -> Result<()> {
    for args in [&["--json"][..], &[]] {
        let ground = Ground::new()?;
        let listener = ground.listen(PORT)?;
        let (read, write) = sys::pipe()?;
        let inode = ground.inode();
        let args = [args, FEW, &["--netns", &inode]].concat();
        let running = lab.tool(&args).stdout(write).spawn()?;
        drop(read);
        ends_quietly(running, &ground, listener).with_context(|| format!("arguments {args:?}"))?;
    }
    // Pages are printed in one piece.
    for args in [&["--help"][..], &["doctor"]] {
        let (read, write) = sys::pipe()?;
        drop(read);
        let ended = lab.tool(args).stdout(write).run()?;
        ended.exits(0)?;
        ended.is_silent()?;
    }
    Ok(())
}

fn pipe_closed_later(lab: &Lab) -> Result<()> {
    for args in [&["--json"][..], &[]] {
        let ground = Ground::new()?;
        let listener = ground.listen(PORT)?;
        let inode = ground.inode();
        let args = [args, FEW, &["--netns", &inode]].concat();
        let mut running = lab.tool(&args).read_by_test().spawn()?;
        let mut reader = BufReader::new(running.take_stdout()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(!line.is_empty(), "no first line");
        drop(reader);
        ends_quietly(running, &ground, listener).with_context(|| format!("arguments {args:?}"))?;
    }
    Ok(())
}

fn disk_full(lab: &Lab) -> Result<()> {
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let json = [&["--json"], FEW].concat();
    for args in [&json[..], FEW, &["doctor"], &["--help"]] {
        let ended = lab.tool(args).stdout(full()?).spawn()?.wait(END)?;
        ended.exits(1).with_context(|| format!("arguments {args:?}"))?;
        ended
            .complains(&["cannot write to standard output", "No space left on device"])
            .with_context(|| format!("arguments {args:?}"))?;
        ensure!(ended.stderr.matches("cannot write").count() == 1, "it says it twice: {}", ended.stderr);
    }
    Ok(())
}

fn for_a_time(lab: &Lab) -> Result<()> {
    let ended = lab.tool(&["--json", "--for", "1s"]).run()?;
    ended.exits(0)?;
    ended.is_silent()?;
    let watched = ended.events()?.summary["watched_ns"].as_u64().unwrap_or(0);
    ensure!((1_000_000_000..10_000_000_000).contains(&watched), "it watched for {watched} ns");
    Ok(())
}

/// Exactly three events, though there are more in the kernel's buffer, and books that say so.
fn count(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let running =
        lab.tool(&[&["--json", "-c", "3", "--netns", &ground.inode()], FEW].concat()).spawn()?.started()?;
    for _ in 0..20 {
        ground.reset(listener, PORT)?;
    }
    let ended = running.wait(END)?;
    ended.exits(0)?;
    let events = ended.events()?.events;
    ensure!(events.len() == 3, "{} events and not three", events.len());
    Ok(())
}

fn two_at_once(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let inode = ground.inode();
    let args = ["--json", "--netns", &inode];
    let (one, two) = (lab.tool(&args).spawn()?, lab.tool(&args).spawn()?);
    let mut both = [one.started()?, two.started()?];
    let reset = ground.reset(listener, PORT)?;
    for running in &mut both {
        running.wait_events(2)?;
    }
    for running in both {
        let ended = running.stop()?;
        ended.exits(0)?;
        let books = ended.events()?;
        let sent = only(&books.events, "rst_sent", reset.client, reset.server)?;
        owned_by(sent, Some(ground.cli.pid()), ground.cli.comm())?;
        ensure!(books.events.len() == 2, "{} events and not two", books.events.len());
    }
    Ok(())
}

/// More events than the smallest buffer holds, while tcpwatch stands still: it says how many it lost, and fails.
fn strict_losses(lab: &Lab) -> Result<()> {
    const STORM: usize = 400;
    let ground = Ground::new()?;
    let args = ["--json", "--strict", "--buffer", "64K", "--netns", &ground.inode()];
    let running = lab.tool(&args).spawn()?.started()?;
    running.signal(libc::SIGSTOP)?;
    ground.storm(|count| count == STORM)?;
    running.signal(libc::SIGCONT)?;
    let ended = running.stop()?;
    let books = ended.events()?;
    ensure!(books.lost > 0, "nothing was lost");
    let seen = books.events.len() as u64 + books.lost;
    ensure!(seen == 2 * STORM as u64, "{STORM} refused connections made {seen} events and not two each");
    ended.exits(3)?;
    // Without the flag it is told all the same, but is no failure.
    let args = ["--json", "--strict", "--for", "100ms", "--netns", &ground.inode()];
    lab.tool(&[&args, FEW].concat()).run()?.exits(0).context("nothing lost")
}

/// A reader that takes nothing: the first Ctrl-C waits for it, the second does not.
fn reader_stalls(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let inode = ground.inode();
    let args = [&["--json", "--netns", &inode], FEW].concat();
    let mut running = lab.tool(&args).read_by_test().spawn()?;
    let out = running.take_stdout()?;
    let mut reader = BufReader::with_capacity(1, out);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let began = Instant::now();
    // Far more than a pipe and a buffer hold.
    ground.storm(|count| count == 1000)?;
    ensure!(began.elapsed() < END, "the storm took {:?}: tcpwatch holds it up", began.elapsed());
    sleep(Duration::from_millis(500));
    running.signal(libc::SIGINT)?;
    sleep(Duration::from_millis(700));
    running.signal(libc::SIGINT)?;
    let ended = running.wait(Duration::from_secs(10));
    drop(reader);
    let code = ended?.status.code();
    ensure!(code == Some(130), "it ended with {code:?}");
    Ok(())
}
