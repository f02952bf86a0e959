//! Alerts that really fire: a Prometheus from Debian scrapes an agent, by the configuration and the rules in `deploy`, while a host is
//! brought into the trouble that they are for. And promtool's word on the rules and on the agent's page.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::hosts::captures::{address, get};
use crate::hosts::tool::{Running, Tool};
use crate::net::{Family, Pair};
use crate::scratch::Scratch;
use crate::stage::not_here;
use crate::tally::Tally;

mod prometheus;
mod trouble;

use prometheus::{Prometheus, Promtool};
use trouble::{Backend, Proxy};

/// An emulated host takes its time; whatever is waited for may take as long.
const LIMIT: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(200);

const FAMILY: Family = Family::V4;
const PROXY: u16 = 8080;
const BACKEND: u16 = 9000;
/// Where connections end that the host closes first.
const SINK: u16 = 9001;
const RESETTING: u16 = 8081;
/// More than the 50 that are an alert, on each side of the proxy.
const SERVED: usize = 60;
const SLOTS: &str = "50";

pub struct Options {
    pub tcpwatch: String,
    /// The folder with Prometheus.
    pub prometheus: PathBuf,
    /// Without it nobody checks the rules and the page.
    pub promtool: Option<PathBuf>,
}

/// Judges everything; true if all of it passed.
pub fn run(options: &Options) -> Result<bool> {
    let scratch = Scratch::new("alerts")?;
    let mut tally = Tally::default();
    match &options.promtool {
        Some(program) => {
            let promtool = Promtool::new(&options.prometheus, program);
            note(&mut tally, "promtool-rules", promtool.rules(scratch.path()));
            note(&mut tally, "promtool-page", page(options, &promtool));
        }
        None => tally.skip("promtool v4", "it is not here: `cargo xtask test --only alerts` brings it along"),
    }
    if let Err(error) = alerts(options, &scratch, &mut tally) {
        note(&mut tally, "alerts", Err(error));
    }
    tally.finish();
    Ok(tally.failed == 0 && tally.passed > 0)
}

fn note(tally: &mut Tally, name: &str, outcome: Result<()>) {
    tally.judge(&format!("{name} v4"), outcome);
}

fn wait<T>(what: &str, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + LIMIT;
    let mut last = None;
    while Instant::now() < end {
        match ready() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => last = None,
            // Who is not up yet, or has no time, may answer the next time.
            Err(error) => last = Some(error),
        }
        sleep(PAUSE);
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("waited in vain for {what}")),
        None => bail!("waited in vain for {what}"),
    }
}

/// An agent that watches one namespace, and where its figures are.
fn agent(options: &Options, pair: &Pair) -> Result<(Running, SocketAddr)> {
    let netns = pair.server.inode().to_string();
    // Little room and no counting of storms, so that it can be made to lose something.
    let args = ["agent", "--listen", "127.0.0.1:0", "--netns", &netns, "--close-wait-after", "2s"];
    let more = ["--buffer", "64K", "--storm", "off"];
    let running = Tool::plain(&options.tcpwatch, &[&args[..], &more].concat()).spawn()?;
    let at = address(&running)?;
    // Until they are attached it is zero.
    wait("the agent's hooks", || {
        let page = get(at, "/metrics")?;
        let started = page.lines().find_map(|line| line.strip_prefix("tcpwatch_start_time_seconds "));
        Ok(started.is_some_and(|at| at.parse::<f64>().is_ok_and(|at| at > 0.0)).then_some(()))
    })?;
    Ok((running, at))
}

/// promtool reads the page of an agent that has something to tell.
fn page(options: &Options, promtool: &Promtool) -> Result<()> {
    let pair = Pair::new()?;
    let (running, at) = agent(options, &pair)?;
    let listener = pair.server.enter(|| trouble::listen(FAMILY.any(RESETTING)))?;
    trouble::reset(&pair, &listener, FAMILY.server(RESETTING), 3)?;
    let page = wait("the resets on the page", || {
        let answer = get(at, "/metrics")?;
        let (_, page) = answer.split_once("\r\n\r\n").context("no page")?;
        Ok(page.contains("tcpwatch_resets_total{").then(|| page.to_owned()))
    })?;
    promtool.page(&page)?;
    running.stop()?.exits(0)
}

/// One alert, and what it has to say.
struct Expected {
    name: &'static str,
    labels: &'static [(&'static str, &'static str)],
    /// Part of the summary.
    says: &'static str,
}

const TURNS_AWAY: Expected = Expected {
    name: "TcpListenerTurnsClientsAway",
    // Whatever address the clients asked for.
    labels: &[("process", "proxy"), ("listener", "0.0.0.0:8080"), ("severity", "critical")],
    says: "proxy turns clients away on 0.0.0.0:8080",
};
const QUEUE: Expected = Expected {
    name: "TcpListenQueueNearlyFull",
    labels: &[("process", "proxy"), ("listener", "0.0.0.0:8080")],
    says: "17 connections wait for accept() by proxy",
};
const LEAK: Expected = Expected {
    name: "TcpCloseWaitLeak",
    labels: &[("process", "proxy")],
    says: "sockets that the peer closed long ago",
};
const TIME_WAIT: Expected =
    Expected { name: "TcpTimeWaitTableFull", labels: &[("severity", "critical")], says: "slots run out" };
const RESETS: Expected =
    Expected { name: "TcpResetsByProcess", labels: &[("cause", "linger-zero")], says: "linger-zero" };
const LOSES: Expected = Expected { name: "TcpwatchLosesEvents", labels: &[], says: "loses events of tcp_" };
const GONE: Expected =
    Expected { name: "TcpwatchIsGone", labels: &[("job", "tcpwatch")], says: "cannot be scraped" };

/// The firing alert of that name, if it says what it should.
fn firing(prometheus: &Prometheus, expected: &Expected) -> Result<Option<()>> {
    for alert in prometheus.alerts()? {
        if alert["labels"]["alertname"] != expected.name || alert["state"] != "firing" {
            continue;
        }
        let right = expected.labels.iter().all(|(name, value)| alert["labels"][name] == *value);
        let summary = alert["annotations"]["summary"].as_str().unwrap_or_default();
        ensure!(right && summary.contains(expected.says), "it fires with something else: {alert}");
        return Ok(Some(()));
    }
    Ok(None)
}

fn wait_firing(prometheus: &Prometheus, expected: &Expected) -> Result<()> {
    wait(&format!("{} to fire", expected.name), || firing(prometheus, expected))
        .with_context(|| format!("there are {}", prometheus.summary()))
}

fn wait_quiet(prometheus: &Prometheus, expected: &Expected) -> Result<()> {
    wait(&format!("{} to be over", expected.name), || {
        let alerts = prometheus.alerts()?;
        Ok((!alerts.iter().any(|alert| alert["labels"]["alertname"] == expected.name)).then_some(()))
    })
}

fn alerts(options: &Options, scratch: &Scratch, tally: &mut Tally) -> Result<()> {
    let pair = Pair::new()?;
    pair.server.sysctl("ipv4/tcp_max_tw_buckets", SLOTS)?;
    let backend = Backend::start(&pair.client, FAMILY.client(BACKEND), true)?;
    let sink = Backend::start(&pair.client, FAMILY.client(SINK), false)?;
    let (agent, at) = agent(options, &pair).context("the agent")?;
    let sees = |hook: &str| -> Result<bool> {
        Ok(get(at, "/metrics")?.contains(&format!("tcpwatch_hook_attached{{hook=\"{hook}\"}} 1")))
    };
    let sees_drops = sees("tcp_conn_request")?;
    let prometheus = Prometheus::start(&options.prometheus, scratch.path(), at)?;
    wait("a scrape that went well", || {
        let targets = prometheus.targets()?;
        Ok(targets.iter().any(|target| target["health"] == "up").then_some(()))
    })
    .with_context(|| prometheus.said())?;
    // Nothing has happened, so nothing may be told.
    prometheus.wait_evaluations(2)?;
    let early = prometheus.alerts()?;
    ensure!(early.is_empty(), "alerts without a reason: {early:?}");

    // The proxy serves its clients, and hangs.
    let mut proxy = Some(Proxy::start(&pair, FAMILY.any(PROXY), FAMILY.client(BACKEND), SERVED)?);
    for _ in 0..SERVED {
        trouble::request(&pair.client, FAMILY.server(PROXY)).context("a request through the proxy")?;
    }
    trouble::fill(&pair.client, FAMILY.server(PROXY))?;
    let stop = AtomicBool::new(false);
    scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| trouble::knock(&pair.client, FAMILY.server(PROXY), &stop));
        }
        threads.spawn(|| trouble::close_first(&pair.server, FAMILY.client(SINK), &stop));
        if sees_drops {
            note(tally, TURNS_AWAY.name, wait_firing(&prometheus, &TURNS_AWAY));
        } else {
            let why = "the kernel grants no hook that sees dropped SYNs";
            note(tally, TURNS_AWAY.name, Err(not_here(why.to_owned())));
        }
        for expected in [&QUEUE, &LEAK, &TIME_WAIT] {
            note(tally, expected.name, wait_firing(&prometheus, expected));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Clients are turned away on every host; where no hook sees a SYN dropped, one whose last ACK is dropped may be seen.
    let known = [QUEUE.name, LEAK.name, TIME_WAIT.name, TURNS_AWAY.name];
    note(tally, "nothing-else-fires", others(&prometheus, &known));

    // It is ended: what it held goes, and so do the alerts on that.
    drop(proxy.take());
    for expected in [&QUEUE, &LEAK] {
        note(tally, &format!("{}-ends", expected.name), wait_quiet(&prometheus, expected));
    }

    let listener = pair.server.enter(|| trouble::listen(FAMILY.any(RESETTING)))?;
    let resets = wait("resets that are an alert", || {
        trouble::reset(&pair, &listener, FAMILY.server(RESETTING), 300)?;
        firing(&prometheus, &RESETS)
    });
    note(tally, RESETS.name, resets.with_context(|| format!("there are {}", prometheus.summary())));

    // While it stands still there is nobody who takes events out of the buffer.
    let losses = wait("losses that are an alert", || {
        agent.signal(libc::SIGSTOP)?;
        let played = trouble::reset(&pair, &listener, FAMILY.server(RESETTING), 1000);
        agent.signal(libc::SIGCONT)?;
        played?;
        prometheus.wait_evaluations(2)?;
        firing(&prometheus, &LOSES)
    });
    note(tally, LOSES.name, losses.with_context(|| format!("there are {}", prometheus.summary())));

    let ended = agent.stop()?;
    ended.exits(0).context("the agent")?;
    note(tally, GONE.name, wait_firing(&prometheus, &GONE));
    drop((backend, sink));
    Ok(())
}

fn others(prometheus: &Prometheus, known: &[&str]) -> Result<()> {
    let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned();
    let alerts = prometheus.alerts()?;
    let others: Vec<_> = alerts.iter().filter(|alert| !known.contains(&name(alert).as_str())).collect();
    ensure!(others.is_empty(), "alerts that nothing gave a reason for: {others:?}");
    Ok(())
}
