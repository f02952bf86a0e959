//! The public shape of a diagnosis, version 1: keys are added here, never renamed.

use crate::event::{Start, Summary};
use crate::sink::json::schema::{Lifetimes, Owner, Reconciliation};
use crate::sink::time::rfc3339;
use crate::verdict::{self, Party};
use serde::Serialize;
use std::io::{self, Write};
use std::net::IpAddr;

/// Version of this schema.
const VERSION: u32 = 1;

/// One line of the output.
#[derive(Debug, Serialize)]
struct Diagnosis<'a> {
    diagnosis: u32,
    /// `found`: what the host looked like at the start; `watched`: the end.
    phase: &'static str,
    time: Option<String>,
    version: Option<&'a str>,
    kernel: Option<&'a str>,
    watched_ns: u64,
    verdicts: Vec<Verdict<'a>>,
    reconciliation: Vec<Reconciliation<'a>>,
    lifetimes: Vec<Lifetimes<'a>>,
    /// Events that are in none of the figures.
    lost: u64,
}

#[derive(Debug, Serialize)]
struct Verdict<'a> {
    cause: &'static str,
    with: &'a [&'static str],
    certainty: &'static str,
    harm: &'static str,
    count: u64,
    title: &'a str,
    who: Vec<Who<'a>>,
    netns: Option<u32>,
    services: &'a [String],
    peers: Vec<Peer>,
    peer_count: usize,
    /// There are more peers than were counted.
    peers_more: bool,
    why: &'a [String],
    evidence: &'a [String],
    fix: &'a [String],
    first: Option<String>,
    last: Option<String>,
}

#[derive(Debug, Serialize)]
struct Who<'a> {
    #[serde(flatten)]
    owner: Owner<'a>,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Peer {
    addr: IpAddr,
    count: u64,
}

impl<'a> From<&'a verdict::Verdict> for Verdict<'a> {
    fn from(verdict: &'a verdict::Verdict) -> Self {
        let moment = |ns: u64| (ns != 0).then(|| rfc3339(ns).to_string());
        Self {
            cause: verdict.cause,
            with: &verdict.with,
            certainty: verdict.certainty.name(),
            harm: verdict.harm.name(),
            count: verdict.count,
            title: &verdict.title,
            who: verdict
                .who
                .iter()
                .map(|Party { owner, count }| Who { owner: Owner::from(owner), count: *count })
                .collect(),
            netns: verdict.netns,
            services: &verdict.services,
            peers: verdict.peers.iter().map(|(addr, count)| Peer { addr: *addr, count: *count }).collect(),
            peer_count: verdict.peer_count,
            peers_more: verdict.peers_more,
            why: &verdict.why,
            evidence: &verdict.evidence,
            fix: &verdict.fix,
            first: moment(verdict.first_ns),
            last: moment(verdict.last_ns),
        }
    }
}

/// The state at the start.
pub(super) fn found(
    out: &mut impl Write,
    start: Option<&Start>,
    found: &[verdict::Verdict],
) -> io::Result<()> {
    line(
        out,
        &Diagnosis {
            phase: "found",
            time: start.map(|start| rfc3339(start.time_ns).to_string()),
            ..empty(start, found)
        },
    )
}

/// The end.
pub(super) fn diagnosis(
    out: &mut impl Write,
    start: Option<&Start>,
    verdicts: &[verdict::Verdict],
    summary: &Summary,
    lost: u64,
) -> io::Result<()> {
    line(
        out,
        &Diagnosis {
            phase: "watched",
            time: Some(rfc3339(summary.time_ns).to_string()),
            watched_ns: summary.watched_ns,
            reconciliation: summary.netns.iter().map(Reconciliation::from).collect(),
            lifetimes: summary.lifetimes.iter().map(Lifetimes::from).collect(),
            lost,
            ..empty(start, verdicts)
        },
    )
}

fn empty<'a>(start: Option<&'a Start>, verdicts: &'a [verdict::Verdict]) -> Diagnosis<'a> {
    Diagnosis {
        diagnosis: VERSION,
        phase: "",
        time: None,
        version: start.map(|start| start.version.as_str()),
        kernel: start.map(|start| start.kernel.as_str()),
        watched_ns: 0,
        verdicts: verdicts.iter().map(Verdict::from).collect(),
        reconciliation: Vec::new(),
        lifetimes: Vec::new(),
        lost: 0,
    }
}

fn line(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}
