//! Incident B: redis clients lose their connections, because the host of redis has no TIME_WAIT slots left.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::clients::{Tally, pop, push_jobs};
use super::scene::Scene;
use super::truth::{Event, Truth};
use super::verdict::Verdict;

const LIMIT: u64 = 50;
const WORKERS: usize = 8;
/// Longer than a delayed ACK: redis's FIN is acknowledged before the worker sends its own.
const WORK: Duration = Duration::from_millis(70);
const JOBS: usize = 5_000;
const RESETS: u64 = 100;
/// How often a client that keeps its connection comes back: later than redis closes it for being idle.
const REST: Duration = Duration::from_millis(4000);
const POOLED: usize = 3;

/// Workers say QUIT, so redis closes first and its host needs the TIME_WAIT slots. Each worker knows what became of its pop;
/// beside them real clients keep a connection that redis closes when it is idle.
pub(super) fn play(scene: &mut Scene<'_>) -> Result<Truth> {
    scene.pair.server.sysctl("ipv4/tcp_max_tw_buckets", &LIMIT.to_string())?;
    let pid = scene.redis(true, &["--timeout", "1"])?;
    let redis = scene.family.server(6379);
    push_jobs(scene.elsewhere(), redis, JOBS)?;
    scene.watch(&[])?;
    let tally = Tally::default();
    let stop = AtomicBool::new(false);
    let address = redis.ip().to_string();
    let complaints = scope(|threads| -> Result<Vec<String>> {
        let elsewhere = scene.elsewhere();
        let work = || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                tally.note(&pop(elsewhere, redis, WORK)?)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| threads.spawn(work)).collect();
        let full = scene.wait_growth("TCPTimeWaitOverflow", RESETS / 2);
        let pooled: Vec<_> = (0..POOLED).map(|_| threads.spawn(|| pooled(scene, &address))).collect();
        let seen = full.and_then(|()| {
            scene.wait("workers whose connections were reset", || {
                let over = workers.iter().any(|worker| worker.is_finished());
                Ok(over || tally.reset() >= RESETS)
            })
        });
        let complaints: Result<Vec<_>> =
            pooled.into_iter().map(|client| client.join().ok().context("a client panicked")?).collect();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().ok().context("a worker panicked")??;
        }
        seen.and(complaints)
    })?;
    for complaint in &complaints {
        ensure!(complaint.contains("Error: "), "redis-cli did not lose its connection: {complaint}");
    }
    let resets = tally.reset() + POOLED as u64;
    Ok(Truth {
        events: vec![
            Event::new("tw_overflow", "tw-bucket-overflow", RESETS..=u64::MAX)
                .owner(&[pid], "redis-server")
                .local_port(6379)
                .says("/timewait/max", LIMIT)
                .hook("tcp_time_wait"),
            Event::new("rst_sent", "tw-bucket-overflow", resets..=u64::MAX)
                .owner(&[pid], "redis-server")
                .local_port(6379)
                .hook("tcp_time_wait"),
        ],
        counters: vec![("TCPTimeWaitOverflow", RESETS..=u64::MAX), ("OutRsts", resets..=u64::MAX)],
        verdict: Verdict::new(&["tw-bucket-overflow"], "TCPTimeWaitOverflow")
            .by(&[pid], "redis-server")
            .at(6379)
            .says(&["TIME_WAIT", &address, "sysctl -w net.ipv4.tcp_max_tw_buckets="])
            .says_one(&[&format!("{LIMIT} of {LIMIT}"), &format!("{LIMIT} slots")])
            .says(&["from clients of port 6379", "lived less than", "a second"]),
    })
}

/// A real client that pops, rests, and pops again on the same connection; gives what it said.
fn pooled(scene: &Scene<'_>, address: &str) -> Result<String> {
    let mut command = scene.lab.programs.command("/usr/bin/redis-cli", &["-h", address]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = scene.elsewhere().enter(|| command.spawn().context("starting redis-cli"))?;
    let mut input = client.stdin.take().context("redis-cli without an input")?;
    let mut output = BufReader::new(client.stdout.take().context("redis-cli without an output")?);
    let mut said = String::new();
    input.write_all(b"LPOP jobs\n")?;
    output.read_line(&mut said)?;
    sleep(REST);
    input.write_all(b"LPOP jobs\n")?;
    drop(input);
    output.read_to_string(&mut said)?;
    client.stderr.take().context("redis-cli without an error output")?.read_to_string(&mut said)?;
    client.wait()?;
    Ok(said)
}
