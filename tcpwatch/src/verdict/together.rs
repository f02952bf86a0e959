//! Verdicts that explain each other, and what the lifetimes of connections add to them.

use super::{Harm, Verdict, name};
use crate::event::{Direction, Lifetimes};

/// Lifetimes below this many connections say nothing about a habit.
const HABIT: u64 = 10;
/// Rows of lifetimes in one verdict.
const ROWS: usize = 3;

/// The table of TIME_WAIT fills with connections that end; how many and how short they are names the one who fills it.
pub(super) fn lifetimes(verdict: &mut Verdict, all: &[Lifetimes]) {
    if verdict.cause != "tw-bucket-overflow" {
        return;
    }
    // Only who closes first takes a slot.
    let here = all.iter().filter(|row| Some(row.netns) == verdict.netns && row.closed_first >= HABIT);
    let mut rows: Vec<&Lifetimes> = here.collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.closed_first));
    for row in rows.into_iter().take(ROWS) {
        verdict.evidence.push(sentence(row));
        let mostly_short = row.short * 10 >= row.count * 9;
        if mostly_short {
            verdict.fix.push(keep_open(row));
        }
    }
}

/// `nginx[812] ended 412 connections to 10.9.0.2:6379, …`.
fn sentence(row: &Lifetimes) -> String {
    format!(
        "{} had {} connections {} that ended lately: half of them lived less than {}, nine of ten less than {}, and it \
         closed {} of them first, which takes a slot each time",
        who(row),
        row.count,
        where_to(row),
        span(row.median_us),
        span(row.p90_us),
        row.closed_first,
    )
}

fn keep_open(row: &Lifetimes) -> String {
    match row.direction {
        Direction::Outgoing => format!(
            "for good: let {} keep its connections {} open and use them again: a pool with an idle timeout longer than the \
             pause between requests (nginx: `keepalive` in the upstream block; Lua: `set_keepalive`)",
            who(row),
            where_to(row)
        ),
        Direction::Incoming => format!(
            "for good: let the clients of port {} keep their connections open for more than one request, or close first: \
             whoever closes first takes the slot, here {}",
            row.port,
            who(row)
        ),
    }
}

fn who(row: &Lifetimes) -> String {
    row.owner.as_ref().map_or_else(|| "a process that tcpwatch does not know".to_owned(), name)
}

fn where_to(row: &Lifetimes) -> String {
    match (row.direction, row.peer) {
        (Direction::Outgoing, Some(std::net::IpAddr::V6(addr))) => format!("to [{addr}]:{}", row.port),
        (Direction::Outgoing, Some(addr)) => format!("to {addr}:{}", row.port),
        (Direction::Outgoing, None) => format!("to port {}", row.port),
        (Direction::Incoming, _) => format!("from clients of port {}", row.port),
    }
}

fn span(us: u64) -> String {
    match us {
        0..1_000 => "1 ms".to_owned(),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..100_000_000 => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// A full accept queue drops, and with `tcp_abort_on_overflow` resets: each reset is among the drops too.
fn overflows(verdicts: &mut Vec<Verdict>) {
    let mut resets = Vec::new();
    verdicts.retain(|verdict| {
        let reset = verdict.cause == "accept-queue-overflow";
        if reset {
            resets.push(verdict.clone());
        }
        !reset
    });
    for reset in resets {
        let joined = |full: &&mut Verdict| full.cause == "accept-queue-full" && same_service(&reset, full);
        let Some(full) = verdicts.iter_mut().find(joined) else {
            verdicts.push(reset);
            continue;
        };
        full.with.push(reset.cause);
        full.evidence.push(format!(
            "net.ipv4.tcp_abort_on_overflow=1: {} of these clients were reset and saw ECONNRESET",
            reset.count
        ));
        full.fix.push(
            "sysctl -w net.ipv4.tcp_abort_on_overflow=0: then clients whose last ACK is dropped wait and come in when there is \
             room, instead of an error"
                .to_owned(),
        );
        full.last_ns = full.last_ns.max(reset.last_ns);
    }
}

/// A process that leaks sockets and turns clients away has one illness, not two: it has stopped working on its connections.
pub(super) fn join(mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
    overflows(&mut verdicts);
    let mut leaks: Vec<Verdict> = Vec::new();
    verdicts.retain(|verdict| {
        let leak = verdict.cause == "close-wait-leak";
        if leak {
            leaks.push(verdict.clone());
        }
        !leak
    });
    for mut leak in leaks {
        let joined = |queue: &Verdict| queue.cause == "accept-queue-full" && same_service(&leak, queue);
        let Some(at) = verdicts.iter().position(joined) else {
            verdicts.push(leak);
            continue;
        };
        let queue = verdicts.remove(at);
        let who = super::group::names(&leak.who);
        let clients = match queue.count {
            0 => "nobody accepts those that wait".to_owned(),
            1 => "a client was turned away".to_owned(),
            count => format!("{count} times a client was turned away"),
        };
        leak.title = format!(
            "{who} has stopped working on its connections: {} that the peer closed are left open, and {clients}",
            leak.count
        );
        leak.why.push(format!(
            "it neither closes what its peers closed nor accepts what waits, so its accept queue is full: {}",
            queue.why.join("; ")
        ));
        leak.with.push(queue.cause);
        leak.count += queue.count;
        leak.harm = Harm::Refused;
        leak.evidence.extend(queue.evidence);
        // Said better now.
        leak.fix.retain(|fix| !fix.contains("/task/*/stack"));
        leak.fix.insert(0, stuck(&leak));
        leak.fix.extend(queue.fix);
        leak.services = queue.services;
        leak.first_ns = match (leak.first_ns, queue.first_ns) {
            (0, other) | (other, 0) => other,
            (a, b) => a.min(b),
        };
        leak.last_ns = leak.last_ns.max(queue.last_ns);
        verdicts.push(leak);
    }
    verdicts
}

fn same_service(leak: &Verdict, queue: &Verdict) -> bool {
    let same_process = leak
        .who
        .iter()
        .any(|a| queue.who.iter().any(|b| a.owner.pid.is_some() && a.owner.identity() == b.owner.identity()));
    // A master listens, a worker leaks: the same program on the same port.
    let same_program = leak.who.iter().any(|a| queue.who.iter().any(|b| a.owner.comm == b.owner.comm));
    let same_place = leak.services.iter().any(|service| queue.services.contains(service));
    leak.netns == queue.netns && (same_process || same_program && same_place)
}

/// Where to look in a process that does nothing.
fn stuck(leak: &Verdict) -> String {
    let pid = leak.who.first().and_then(|party| party.owner.pid);
    let pid = pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
    format!(
        "see what its threads wait for: `cat /proc/{pid}/task/*/stack`, `gdb -p {pid} -batch -ex 'thread apply all bt'`; \
         usually a lock, a full pool, or a backend without timeout. A restart frees the sockets and the clients, and loses \
         what is in work"
    )
}
