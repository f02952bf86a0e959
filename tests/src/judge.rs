//! Holds what tcpwatch printed against what a scenario knows: pure functions over parsed lines.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::expect::{Expect, Listen, Owner};

/// What can be asked of this host.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Only tracepoints are granted: what needs a hook may be absent, an owner may be null, a cause unknown.
    pub tracepoints_only: bool,
    /// The kernel says why it sends an RST (6.10 and later).
    pub kernel_reasons: bool,
    /// An event without a cause counts as wrong.
    pub strict_causes: bool,
    /// tcpwatch said at its start that it cannot see RSTs that a connection does not obey: neither the function that
    /// refuses them nor the tracepoint of dropped segments is attached.
    pub ignored_unseen: bool,
}

/// Whether the `start` line says so.
pub fn ignored_unseen(events: &[Value]) -> bool {
    let attached = |hook: &str| {
        events.first().and_then(|start| text(start, &format!("/hooks/{hook}/attached"))).is_some()
    };
    !attached("tcp_validate_incoming") && !attached("kfree_skb")
}

/// Runs of tcpwatch's programs that the kernel left out, as the `summary` line says.
pub fn missed(events: &[Value]) -> u64 {
    missed_by_hook(events).into_iter().map(|(_, missed)| missed).sum()
}

/// The same, for each hook that has any.
pub fn missed_by_hook(events: &[Value]) -> Vec<(String, u64)> {
    let Some(hooks) = events.last().and_then(|summary| summary.get("hooks")?.as_object()) else {
        return Vec::new();
    };
    let of = |(name, hook): (&String, &Value)| Some((name.clone(), hook.get("missed")?.as_u64()?));
    hooks.iter().filter_map(of).filter(|(_, missed)| *missed > 0).collect()
}

/// Counters that can be compared with events, and the growth that the events stand for.
pub const BOOKS: [&str; 3] = ["OutRsts", "ListenDrops", "TCPTimeWaitOverflow"];

fn text<'a>(event: &'a Value, path: &str) -> Option<&'a str> {
    event.pointer(path).and_then(Value::as_str)
}

fn number(event: &Value, path: &str) -> Option<u64> {
    event.pointer(path).and_then(Value::as_u64)
}

pub fn netns(event: &Value) -> Option<u64> {
    number(event, "/netns")
}

/// How many acts an event stands for.
pub fn count(event: &Value) -> u64 {
    number(event, "/count").unwrap_or(1)
}

pub(crate) fn endpoint(event: &Value, which: &str) -> Option<SocketAddr> {
    let end = event.get(which)?;
    let addr: IpAddr = end.get("addr")?.as_str()?.parse().ok()?;
    Some(SocketAddr::new(addr, u16::try_from(end.get("port")?.as_u64()?).ok()?))
}

/// One line about an event, for messages.
pub fn describe(event: &Value) -> String {
    let end = |which| endpoint(event, which).map_or_else(|| "?".to_owned(), |addr| addr.to_string());
    let word = |path: &str| match event.pointer(path) {
        None => "absent".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    format!(
        "{} {} → {} state {} owner {}/{} ({}) reason {} cause {} site {} count {}",
        word("/event"),
        end("local"),
        end("remote"),
        word("/state"),
        word("/owner/comm"),
        word("/owner/pid"),
        word("/owner/how"),
        word("/reason/name"),
        word("/cause/id"),
        word("/site"),
        count(event),
    )
}

/// Events that a scenario answers for. States are not compared, and leaks only where they are expected: under emulation
/// many a socket stays in CLOSE_WAIT for longer than a leak takes.
pub fn is_judged(event: &Value, expects: &[Expect]) -> bool {
    let leak = text(event, "/event") == Some("close_wait_leak");
    leak && expects.iter().any(|expect| expect.event == "close_wait_leak") || is_act(event)
}

/// Events of which each stands for something that a scenario did.
pub(crate) fn is_act(event: &Value) -> bool {
    matches!(text(event, "/event"), Some("rst_sent" | "rst_received" | "listen_drop" | "tw_overflow"))
}

/// Everything that is wrong with the events of one scenario. `side_of` tells a namespace's inode of a side.
pub fn judge(expects: &[Expect], events: &[&Value], inodes: [u64; 2], rules: Rules) -> Vec<String> {
    let mut problems = Vec::new();
    let mut filled = vec![0u64; expects.len()];
    let mut largest = vec![0u64; expects.len()];
    for event in events {
        let fit = expects
            .iter()
            .enumerate()
            .filter(|(at, expect)| {
                filled[*at] + count(event) <= *expect.times.end() && same_act(expect, event, inodes)
            })
            .map(|(at, expect)| (at, differences(expect, event, rules)))
            .min_by_key(|(_, wrong)| wrong.len());
        match fit {
            Some((at, wrong)) => {
                filled[at] += count(event);
                largest[at] = largest[at].max(count(event));
                if !wrong.is_empty() {
                    problems.push(format!("{}: {}", expects[at], wrong.join("; ")));
                }
            }
            None => problems.push(format!("unexpected: {}", describe(event))),
        }
    }
    for (expect, most) in expects.iter().zip(largest) {
        if let Some(sockets) = expect.sockets.filter(|sockets| *sockets != most && most != 0) {
            problems
                .push(format!("{expect}: one event should stand for {sockets} sockets, {most} is the most"));
        }
    }
    for (expect, seen) in expects.iter().zip(filled) {
        let least = if may_be_unseen(expect, rules) { 0 } else { *expect.times.start() };
        if seen < least {
            problems.push(format!("missing: {expect} (seen {seen} of {least})"));
        }
    }
    problems
}

/// What this host grants cannot show it, and tcpwatch says so.
pub(crate) fn may_be_unseen(expect: &Expect, rules: Rules) -> bool {
    (rules.tracepoints_only && (expect.needs_hook || silent_without_socket(expect, rules)))
        || (rules.ignored_unseen && expect.ignored)
}

/// Before 6.10 the tracepoint of sent RSTs is silent where there is no full socket.
fn silent_without_socket(expect: &Expect, rules: Rules) -> bool {
    !rules.kernel_reasons && matches!(expect.reason, Some("NO_SOCKET" | "TCP_TIMEWAIT_SOCKET"))
}

/// The event is about the act that was expected, whatever else it says about it.
pub(crate) fn same_act(expect: &Expect, event: &Value, inodes: [u64; 2]) -> bool {
    text(event, "/event") == Some(expect.event)
        && netns(event) == Some(inodes[expect.side as usize])
        && endpoint(event, "local") == Some(expect.local)
        && endpoint(event, "remote").is_some_and(|remote| expect.remotes.contains(&remote))
}

/// Everything in which the event contradicts what is known.
pub(crate) fn differences(expect: &Expect, event: &Value, rules: Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut one_of = |what: &str, allowed: &[&str], got: Option<&str>| {
        let value = got.unwrap_or("null");
        let fits = |one: &str| one.strip_suffix('*').map_or(value == one, |start| value.starts_with(start));
        if !allowed.is_empty() && !allowed.iter().any(|one| fits(one)) {
            wrong.push(format!("{what} should be {}, is {}", allowed.join(" or "), got.unwrap_or("null")));
        }
    };
    let weak = rules.tracepoints_only;
    let state = text(event, "/state");
    if state.is_some() || !weak {
        one_of("state", &expect.states, state);
    }
    let site = text(event, "/site");
    if site.is_some() || !weak {
        one_of("site", &expect.sites, site);
    }
    if let Some(name) = expect.reason {
        one_of("reason", &[name], text(event, "/reason/name"));
        let from = if rules.kernel_reasons { "kernel" } else { "inferred" };
        one_of("reason.from", &[from], text(event, "/reason/from"));
    }
    let cause = text(event, "/cause/id");
    let excused = match cause {
        None => !rules.strict_causes,
        Some("unknown") => weak,
        Some(_) => false,
    };
    let weaker = weak && cause.is_some_and(|cause| expect.weak_causes.contains(&cause));
    if !excused && !weaker {
        one_of("cause", &expect.causes, cause);
    }
    if let Some(comm) = expect.task {
        one_of("task.comm", &[comm], text(event, "/task/comm"));
    }
    let owned = event.get("owner").is_some_and(|owner| !owner.is_null());
    match &expect.owner {
        Owner::Unchecked => {}
        Owner::Nobody if owned => wrong.push(format!(
            "owner should be null, is {}/{}",
            text(event, "/owner/comm").unwrap_or("null"),
            number(event, "/owner/pid").unwrap_or(0)
        )),
        Owner::Nobody => {}
        Owner::Is { .. } if !owned && weak => {}
        Owner::Is { pid, comm } => {
            let got = (number(event, "/owner/pid"), text(event, "/owner/comm"));
            if got != (u64::try_from(*pid).ok(), Some(comm.as_str())) {
                wrong.push(format!(
                    "owner should be {comm}/{pid}, is {}/{}",
                    got.1.unwrap_or("null"),
                    got.0.map_or_else(|| "null".to_owned(), |pid| pid.to_string())
                ));
            }
            let how = text(event, "/owner/how");
            if !expect.hows.is_empty() && !expect.hows.contains(&how.unwrap_or("null")) {
                wrong.push(format!("owner.how should be {}, is {how:?}", expect.hows.join(" or ")));
            }
        }
    }
    if let Some(listen) = &expect.listen {
        wrong.extend(listen_differences(listen, event));
    }
    if let Some((used, max)) = expect.timewait {
        let got = (number(event, "/timewait/used"), number(event, "/timewait/max"));
        if got != (Some(used), Some(max)) {
            wrong.push(format!("timewait should be {used} of {max}, is {got:?}"));
        }
    }
    wrong
}

fn listen_differences(listen: &Listen, event: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for (field, want) in [("queue", listen.queue), ("stage", listen.stage), ("action", listen.action)] {
        let got = text(event, &format!("/listen/{field}"));
        if !want.is_empty() && got != Some(want) {
            wrong.push(format!("listen.{field} should be {want}, is {}", got.unwrap_or("null")));
        }
    }
    if let Some(want) = listen.local {
        let (addr, port) = (text(event, "/listen/local/addr"), number(event, "/listen/local/port"));
        if addr != Some(&want.ip().to_string()) || port != Some(want.port().into()) {
            wrong.push(format!("listen.local should be {want}, is {addr:?} port {port:?}"));
        }
    }
    let exact = |value: Option<u64>| value.map(|value| value..=value);
    for (field, want) in [
        ("len", listen.len.clone()),
        ("max", exact(listen.max)),
        ("backlog", exact(listen.backlog)),
        ("somaxconn", exact(listen.somaxconn)),
    ] {
        let got = number(event, &format!("/listen/{field}"));
        if want.as_ref().is_some_and(|want| !got.is_some_and(|got| want.contains(&got))) {
            wrong.push(format!("listen.{field} should be {want:?}, is {got:?}"));
        }
    }
    wrong
}

/// What the events of one namespace say that its counters should have grown by, in the order of [`BOOKS`].
pub fn books<'a>(events: impl Iterator<Item = &'a Value>) -> [u64; 3] {
    let mut sums = [0; 3];
    for event in events {
        let place = match text(event, "/event") {
            Some("rst_sent") => {
                let firewall = text(event, "/cause/id") == Some("firewall-reject")
                    || text(event, "/site").is_some_and(|site| site.starts_with("nf_"));
                if firewall { None } else { Some(0) }
            }
            Some("listen_drop") => {
                matches!(text(event, "/listen/action"), Some("dropped" | "reset")).then_some(1)
            }
            Some("tw_overflow") => Some(2),
            _ => None,
        };
        if let Some(place) = place {
            sums[place] += count(event);
        }
    }
    sums
}

/// Books that do not balance: the kernel counted one thing and the events say another.
pub fn unbalanced(kernel: [u64; 3], events: [u64; 3], rules: Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((name, kernel), events) in BOOKS.iter().zip(kernel).zip(events) {
        // Without hooks the queue drops and TIME_WAIT refusals are seen by the counters alone.
        let may_miss = rules.tracepoints_only && (*name != "OutRsts" || !rules.kernel_reasons);
        if kernel != events && !(may_miss && events < kernel) {
            wrong.push(format!("the kernel counted {name} {kernel}, the events say {events}"));
        }
    }
    wrong
}

/// Problems of the stream as a whole: first and last line, losses.
pub fn stream(events: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = |event: Option<&Value>| event.and_then(|event| text(event, "/event").map(str::to_owned));
    if name(events.first()).as_deref() != Some("start") {
        wrong.push("the first line is not the start event".to_owned());
    }
    if name(events.last()).as_deref() != Some("summary") {
        wrong.push("the last line is not the summary".to_owned());
    }
    let known = [
        "start",
        "rst_sent",
        "rst_received",
        "listen_drop",
        "tw_overflow",
        "close_wait_leak",
        "drop",
        "state",
        "retransmit",
        "lost",
        "summary",
    ];
    for event in events {
        let name = text(event, "/event").unwrap_or("null");
        if !known.contains(&name) {
            wrong.push(format!("unknown event {name:?}"));
        }
        if name == "lost" {
            wrong.push(format!("events were lost: {event}"));
        }
        if is_act(event) {
            let missing: Vec<&str> = FIELDS.into_iter().filter(|field| event.get(field).is_none()).collect();
            if !missing.is_empty() {
                wrong.push(format!("{name} has no field {}", missing.join(", ")));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Fields that every judged event carries, be it as null.
const FIELDS: [&str; 10] =
    ["time", "mono_ns", "netns", "local", "remote", "state", "owner", "task", "cause", "count"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expect::Side;

    const RULES: Rules =
        Rules { tracepoints_only: false, kernel_reasons: true, strict_causes: false, ignored_unseen: false };
    const WEAK: Rules = Rules { tracepoints_only: true, ..RULES };

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn expect() -> Expect {
        Expect {
            owner: Owner::Is { pid: 7, comm: "srv".to_owned() },
            ..Expect::rst_sent(addr("10.9.0.1:80"), addr("10.9.0.2:4000"))
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .cause("linger-zero")
        }
    }

    fn event() -> Value {
        json!({
            "event": "rst_sent", "netns": 1, "count": 1,
            "local": {"addr": "10.9.0.1", "port": 80}, "remote": {"addr": "10.9.0.2", "port": 4000},
            "state": "ESTABLISHED", "owner": {"pid": 7, "comm": "srv", "how": "accept"},
            "reason": {"name": "TCP_STATE", "from": "kernel"}, "cause": {"id": "linger-zero"},
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut event = event();
        *event.pointer_mut(path).unwrap() = value;
        event
    }

    fn verdict(events: &[&Value], rules: Rules) -> Vec<String> {
        judge(&[expect()], events, [1, 2], rules)
    }

    #[test]
    fn a_right_event_is_right() {
        assert_eq!(verdict(&[&event()], RULES), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_field_is_named() {
        for (path, value, word) in [
            ("/state", json!("CLOSE"), "state"),
            ("/owner/pid", json!(8), "owner"),
            ("/owner/comm", json!("cli"), "owner"),
            ("/owner", json!(null), "owner"),
            ("/reason/name", json!("NO_SOCKET"), "reason"),
            ("/reason/from", json!("inferred"), "reason.from"),
            ("/cause/id", json!("disconnect"), "cause"),
            ("/cause/id", json!("unknown"), "cause"),
        ] {
            let problems = verdict(&[&with(path, value)], RULES);
            assert!(problems.len() == 1 && problems[0].contains(word), "{path}: {problems:?}");
        }
    }

    #[test]
    fn twice_is_once_too_often_and_never_is_missing() {
        assert!(verdict(&[&event(), &event()], RULES)[0].starts_with("unexpected"));
        assert!(verdict(&[], RULES)[0].starts_with("missing"));
        assert!(verdict(&[&with("/netns", json!(2))], RULES).len() == 2, "wrong namespace is another event");
    }

    #[test]
    fn an_aggregate_stands_for_its_count() {
        let many = expect().remotes(vec![addr("10.9.0.2:4000"), addr("10.9.0.2:4001")]);
        let both = with("/count", json!(2));
        assert_eq!(judge(std::slice::from_ref(&many), &[&both], [1, 2], RULES), Vec::<String>::new());
        assert_eq!(judge(&[many], &[&event()], [1, 2], RULES).len(), 1, "one of two is missing");
    }

    #[test]
    fn a_host_with_tracepoints_only_may_not_know_but_never_errs() {
        assert!(verdict(&[&with("/owner", json!(null))], WEAK).is_empty());
        assert!(verdict(&[&with("/cause/id", json!("unknown"))], WEAK).is_empty());
        assert_eq!(verdict(&[&with("/owner/pid", json!(8))], WEAK).len(), 1);
        assert_eq!(judge(&[expect().needs_hook()], &[], [1, 2], WEAK), Vec::<String>::new());
    }

    #[test]
    fn sides_are_told_apart() {
        let client = expect().at(Side::Client);
        assert!(judge(&[client], &[&with("/netns", json!(2))], [1, 2], RULES).is_empty());
    }

    #[test]
    fn books_count_what_passed_the_stack() {
        let events = [
            event(),
            with("/cause/id", json!("firewall-reject")),
            json!({"event": "listen_drop", "count": 3, "listen": {"action": "dropped"}}),
            json!({"event": "listen_drop", "listen": {"action": "cookie"}}),
            json!({"event": "tw_overflow"}),
            json!({"event": "state"}),
        ];
        assert_eq!(books(events.iter()), [1, 3, 1]);
        assert!(unbalanced([1, 3, 1], [1, 3, 1], RULES).is_empty());
        assert_eq!(unbalanced([1, 3, 1], [1, 0, 0], RULES).len(), 2);
        assert!(unbalanced([1, 3, 1], [1, 0, 0], WEAK).is_empty());
        assert_eq!(unbalanced([1, 0, 0], [1, 1, 0], WEAK).len(), 1, "an invented event is wrong anywhere");
    }

    #[test]
    fn streams_begin_and_end_as_promised() {
        assert!(stream(&[json!({"event": "start"}), json!({"event": "summary"})]).is_empty());
        assert_eq!(stream(&[json!({"event": "rest"})]).len(), 3);
        assert!(
            !stream(&[json!({"event": "start"}), json!({"event": "lost"}), json!({"event": "summary"})])
                .is_empty()
        );
    }
}
