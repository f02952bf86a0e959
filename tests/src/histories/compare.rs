//! Holds what tcpwatch said against what the players know: precision and recall of cause and of owner. Pure functions.
//!
//! *Said* is an event that names a cause (not `unknown`) or an owner; *right* is one that names the true one; *due* is what had to be
//! named. Precision is right of said, recall is right of due. An event that nobody can account for is said and not right.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::AddAssign;

use serde_json::Value;

use super::truth::Truth;
use crate::expect::{Expect, Owner};
use crate::judge::{self, Rules};

/// One of the two questions: which cause, whose socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Score {
    pub(super) due: u64,
    pub(super) said: u64,
    pub(super) right: u64,
}

impl Score {
    fn note(&mut self, answer: Answer, count: u64) {
        match answer {
            Answer::Right => {
                self.said += count;
                self.right += count;
            }
            Answer::Wrong => self.said += count,
            Answer::None => {}
        }
    }

    /// In thousandths, rounded down, so that 1000 means all of them.
    pub(super) fn precision(self) -> u64 {
        (self.right * 1000).checked_div(self.said).unwrap_or(1000)
    }

    pub(super) fn recall(self) -> u64 {
        (self.right * 1000).checked_div(self.due).unwrap_or(1000)
    }
}

impl AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.due += other.due;
        self.said += other.said;
        self.right += other.right;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Right,
    Wrong,
    None,
}

/// The line of one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) due: u64,
    pub(super) seen: u64,
    pub(super) cause: Score,
    pub(super) owner: Score,
}

impl AddAssign for Row {
    fn add_assign(&mut self, other: Self) {
        self.due += other.due;
        self.seen += other.seen;
        self.cause += other.cause;
        self.owner += other.owner;
    }
}

/// One thing on which truth and tcpwatch do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    /// Which pair of namespaces.
    pub(super) pair: usize,
    /// What is wrong, in a few words.
    pub(super) what: String,
    pub(super) truth: String,
    pub(super) event: String,
}

#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// By event and true cause; by the event's own cause where there is no truth.
    pub(super) rows: BTreeMap<(&'static str, String), Row>,
    pub(super) misses: Vec<Miss>,
    /// Events that this host cannot show, which are not held against tcpwatch.
    pub(super) excused: u64,
}

impl Comparison {
    pub(super) fn total(&self) -> Row {
        let mut sum = Row::default();
        for row in self.rows.values() {
            sum += *row;
        }
        sum
    }

    fn row(&mut self, event: &'static str, cause: &str) -> &mut Row {
        self.rows.entry((event, cause.to_owned())).or_default()
    }
}

/// Two ends without an order.
fn key(pair: usize, one: SocketAddr, two: SocketAddr) -> (usize, SocketAddr, SocketAddr) {
    (pair, one.min(two), one.max(two))
}

/// `inodes` are the namespaces of the pairs; `events` are those that can be judged, in these namespaces.
pub(super) fn compare(truths: &[Truth], events: &[&Value], inodes: &[[u64; 2]], rules: Rules) -> Comparison {
    let mut places: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, truth) in truths.iter().enumerate() {
        places.entry(key(truth.pair, truth.ends[0], truth.ends[1])).or_default().push(at);
    }
    let mut shares: Vec<Vec<&Value>> = vec![Vec::new(); truths.len()];
    let mut result = Comparison::default();
    for event in events {
        let netns = judge::netns(event);
        let Some(pair) = inodes.iter().position(|two| two.iter().any(|inode| netns == Some(*inode))) else {
            continue;
        };
        let time = event.get("mono_ns").and_then(Value::as_u64);
        let ends = judge::endpoint(event, "local").zip(judge::endpoint(event, "remote"));
        let place = ends.zip(time).and_then(|((local, remote), time)| {
            let same = places.get(&key(pair, local, remote))?;
            // What comes late is still about the last act on these addresses.
            same.iter().copied().filter(|at| truths[*at].since <= time).max_by_key(|at| truths[*at].since)
        });
        match place {
            Some(at) => shares[at].push(event),
            None => unexpected(&mut result, pair, event, "no act on these addresses until then"),
        }
    }
    for (truth, share) in truths.iter().zip(&shares) {
        one(&mut result, truth, share, inodes[truth.pair], rules);
    }
    result
}

fn unexpected(result: &mut Comparison, pair: usize, event: &Value, truth: &str) {
    let cause = said_cause(event).unwrap_or("unknown");
    let count = judge::count(event);
    let (named, owned) = (said_cause(event).is_some(), owner_of(event).is_some());
    let row = result.row(event_name(event), cause);
    row.seen += count;
    row.cause.said += if named { count } else { 0 };
    row.owner.said += if owned { count } else { 0 };
    result.misses.push(Miss {
        pair,
        what: "unexpected event".to_owned(),
        truth: truth.to_owned(),
        event: judge::describe(event),
    });
}

fn event_name(event: &Value) -> &'static str {
    let name = event.get("event").and_then(Value::as_str);
    ["rst_sent", "rst_received", "listen_drop", "tw_overflow"]
        .into_iter()
        .find(|known| name == Some(known))
        .unwrap_or("?")
}

fn said_cause(event: &Value) -> Option<&str> {
    event.pointer("/cause/id").and_then(Value::as_str).filter(|id| *id != "unknown")
}

fn owner_of(event: &Value) -> Option<(Option<u64>, Option<&str>)> {
    let owner = event.get("owner").filter(|owner| !owner.is_null())?;
    Some((owner.get("pid").and_then(Value::as_u64), owner.get("comm").and_then(Value::as_str)))
}

fn cause_answer(expect: &Expect, event: &Value) -> Answer {
    match said_cause(event) {
        None => Answer::None,
        Some(id) if expect.causes.contains(&id) => Answer::Right,
        Some(_) => Answer::Wrong,
    }
}

fn owner_answer(expect: &Expect, event: &Value) -> Answer {
    match (&expect.owner, owner_of(event)) {
        (Owner::Unchecked, _) | (_, None) => Answer::None,
        (Owner::Is { pid, comm }, Some(got)) if got == (u64::try_from(*pid).ok(), Some(comm.as_str())) => {
            Answer::Right
        }
        (_, Some(_)) => Answer::Wrong,
    }
}

/// How the events of one truth fit one of its ways.
struct Fit<'a> {
    /// Expectation, event, and what is wrong with it.
    pairs: Vec<(usize, &'a Value, Vec<String>)>,
    left: Vec<&'a Value>,
    filled: Vec<u64>,
    missing: Vec<usize>,
}

impl Fit<'_> {
    fn faults(&self) -> usize {
        let wrong = self.pairs.iter().filter(|(_, _, wrong)| !wrong.is_empty()).count();
        wrong + self.left.len() + self.missing.len()
    }
}

fn fit<'a>(way: &[Expect], events: &[&'a Value], inodes: [u64; 2], rules: Rules) -> Fit<'a> {
    let mut fit =
        Fit { pairs: Vec::new(), left: Vec::new(), filled: vec![0; way.len()], missing: Vec::new() };
    for event in events {
        let room = |at: usize, one: &Expect| fit.filled[at] + judge::count(event) <= *one.times.end();
        let best = way
            .iter()
            .enumerate()
            .filter(|(at, one)| room(*at, one) && judge::same_act(one, event, inodes))
            .map(|(at, one)| (at, judge::differences(one, event, rules)))
            .min_by_key(|(_, wrong)| wrong.len());
        match best {
            Some((at, wrong)) => {
                fit.filled[at] += judge::count(event);
                fit.pairs.push((at, event, wrong));
            }
            None => fit.left.push(event),
        }
    }
    let short = |(at, one): &(usize, &Expect)| {
        fit.filled[*at] < *one.times.start() && !judge::may_be_unseen(one, rules)
    };
    fit.missing = way.iter().enumerate().filter(short).map(|(at, _)| at).collect();
    fit
}

fn one(result: &mut Comparison, truth: &Truth, events: &[&Value], inodes: [u64; 2], rules: Rules) {
    let fits = truth.ways.iter().map(|way| (way, fit(way, events, inodes, rules)));
    let Some((way, fit)) = fits.min_by_key(|(_, fit)| fit.faults()) else { return };
    for (at, expect) in way.iter().enumerate() {
        let due = fit.filled[at].max(*expect.times.start());
        let row = result.row(expect.event, expect.causes.first().copied().unwrap_or("-"));
        row.due += due;
        row.cause.due += due;
        if matches!(expect.owner, Owner::Is { .. }) {
            row.owner.due += due;
        }
        if fit.filled[at] < due && !fit.missing.contains(&at) {
            result.excused += due - fit.filled[at];
        }
    }
    for (at, event, wrong) in &fit.pairs {
        let expect = &way[*at];
        let row = result.row(expect.event, expect.causes.first().copied().unwrap_or("-"));
        row.seen += judge::count(event);
        row.cause.note(cause_answer(expect, event), judge::count(event));
        row.owner.note(owner_answer(expect, event), judge::count(event));
        if !wrong.is_empty() {
            result.misses.push(Miss {
                pair: truth.pair,
                what: wrong.join("; "),
                truth: tell(truth, expect),
                event: judge::describe(event),
            });
        }
    }
    for at in &fit.missing {
        let expect = &way[*at];
        result.misses.push(Miss {
            pair: truth.pair,
            what: format!("missing, seen {} of {}", fit.filled[*at], expect.times.start()),
            truth: tell(truth, expect),
            event: "none".to_owned(),
        });
    }
    for event in fit.left {
        unexpected(result, truth.pair, event, &format!("{}: nothing (more) to be seen", truth.act));
    }
}

fn tell(truth: &Truth, expect: &Expect) -> String {
    format!(
        "{}: {expect}, cause {}, between {} and {} ns",
        truth.act,
        expect.causes.join(" or "),
        truth.since,
        truth.until
    )
}

#[cfg(test)]
mod tests;
