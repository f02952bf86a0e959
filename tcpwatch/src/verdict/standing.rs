//! What is wrong already before the first event: tables near their limit, queues that are full now.

use super::{Harm, Party, Verdict};
use crate::event::{Certainty, ListenerStanding, Reconciliation, Standing};

/// From this share of a limit on it is worth a word, in percent.
const NEAR: u64 = 80;

/// Adds what namespaces show to the verdicts: as evidence where there is a verdict about it, as one of its own otherwise.
pub(super) fn judge(all: &[Standing], verdicts: &mut Vec<Verdict>) {
    for standing in all {
        time_wait(standing, verdicts);
        for listener in &standing.listeners {
            queue(standing, listener, verdicts);
        }
    }
}

fn time_wait(standing: &Standing, verdicts: &mut Vec<Verdict>) {
    let Some(table) = standing.time_wait else { return };
    let counted = |line: &mut Vec<String>| {
        if let Some(refused) = standing.refused_since_boot.filter(|count| *count > 0) {
            line.push(format!(
                "the kernel counted {refused} refusals (TCPTimeWaitOverflow) since this namespace began"
            ));
        }
    };
    let known = verdicts
        .iter_mut()
        .filter(|verdict| verdict.cause == "tw-bucket-overflow" && verdict.netns == Some(standing.netns));
    let mut is_known = false;
    for verdict in known {
        is_known = true;
        counted(&mut verdict.evidence);
    }
    let (used, max) = (u64::from(table.used), u64::from(table.max));
    if is_known || used == 0 || used * 100 < max * NEAR {
        return;
    }
    let mut evidence = vec![format!("{used} of {max} TIME_WAIT slots in use (net.ipv4.tcp_max_tw_buckets)")];
    counted(&mut evidence);
    verdicts.push(Verdict {
        harm: Harm::Warning,
        why: vec![
            "when the table is full, sockets that close first vanish, and their peers' next segments draw RSTs".to_owned(),
        ],
        fix: vec![crate::diagnose::more_slots(table.max)],
        evidence,
        ..found("tw-bucket-overflow", standing, format!("the TIME_WAIT table is {} % full", used * 100 / max.max(1)))
    });
}

fn queue(standing: &Standing, listener: &ListenerStanding, verdicts: &mut Vec<Verdict>) {
    let Some(max) = listener.max else { return };
    let (len, max) = (u64::from(listener.len), u64::from(max));
    let place = listener.local.to_string();
    let known = verdicts.iter().any(|verdict| {
        verdict.netns == Some(standing.netns)
            && matches!(verdict.cause, "accept-queue-full" | "accept-queue-overflow" | "close-wait-leak")
            && verdict.services.iter().any(|service| port(service) == port(&place))
    });
    // One more than the limit fits in.
    let full = len > max;
    if known || !full && (max < 8 || len * 100 < max * NEAR) {
        return;
    }
    let title = if full {
        format!("the accept queue of {place} is full")
    } else {
        format!("the accept queue of {place} is {} % full", len * 100 / max)
    };
    let who = listener.owner.iter().map(|owner| Party { owner: owner.clone(), count: 1 }).collect();
    verdicts.push(Verdict {
        harm: if full { Harm::Refused } else { Harm::Warning },
        certainty: Certainty::Certain,
        who,
        services: vec![place],
        why: vec!["connections wait there until the process calls accept()".to_owned()],
        evidence: vec![format!("{len} connections wait, the limit is {max}")],
        fix: vec![format!(
            "see why the process does not accept (`top`, `strace -f -p {}`), then raise its backlog and \
             net.core.somaxconn",
            listener
                .owner
                .as_ref()
                .and_then(|owner| owner.pid)
                .map_or_else(|| "PID".to_owned(), |pid| pid.to_string())
        )],
        ..found("accept-queue-full", standing, title)
    });
}

/// What the kernel counted and no hook saw: said, where it can be seen that way only.
pub(super) fn unseen(rows: &[Reconciliation], verdicts: &[Verdict]) -> Vec<Verdict> {
    let mut more = Vec::new();
    for row in rows {
        let Some(unseen) =
            row.kernel.and_then(|kernel| kernel.checked_sub(row.explained)).filter(|unseen| *unseen > 0)
        else {
            continue;
        };
        let (harm, title, fix) = match row.counter.as_str() {
            "ListenDrops" => (
                Harm::Refused,
                format!("{unseen} connections were turned away that tcpwatch did not see"),
                "`ss -lnt` shows listeners whose Recv-Q is over Send-Q; `tcpwatch doctor` says how to see more",
            ),
            "TCPTimeWaitOverflow" => (
                Harm::Refused,
                format!("{unseen} sockets were refused their TIME_WAIT slot that tcpwatch did not see"),
                "see net.ipv4.tcp_max_tw_buckets and `ss -s`; `tcpwatch doctor` says how to see more",
            ),
            _ => (
                Harm::Broken,
                format!("{unseen} RSTs were sent that tcpwatch did not see"),
                "`tcpwatch doctor` says how to see more",
            ),
        };
        let suspects = verdicts
            .iter()
            .filter(|verdict| verdict.netns == Some(row.netns) && verdict.count == 0)
            .map(|verdict| format!("at the start of the watch: {}", verdict.title));
        let standing = Standing { netns: row.netns, ..Standing::default() };
        more.push(Verdict {
            harm,
            certainty: Certainty::Unknown,
            count: unseen,
            why: vec![
                "no hook that this host grants sees the place in the kernel where it happens".to_owned(),
            ],
            evidence: std::iter::once(format!(
                "{}: the kernel counted {}, tcpwatch explained {}",
                row.counter,
                row.kernel.unwrap_or(0),
                row.explained
            ))
            .chain(suspects)
            .collect(),
            fix: vec![fix.to_owned()],
            ..found("unknown", &standing, title)
        });
    }
    more
}

fn port(place: &str) -> Option<&str> {
    place.rsplit(':').next()
}

/// A verdict about what was found.
fn found(cause: &'static str, standing: &Standing, title: String) -> Verdict {
    Verdict {
        cause,
        with: Vec::new(),
        certainty: Certainty::Certain,
        harm: Harm::Warning,
        count: 0,
        title,
        who: Vec::new(),
        netns: Some(standing.netns),
        services: Vec::new(),
        peers: Vec::new(),
        peer_count: 0,
        peers_more: false,
        why: Vec::new(),
        evidence: Vec::new(),
        fix: Vec::new(),
        first_ns: 0,
        last_ns: 0,
    }
}
