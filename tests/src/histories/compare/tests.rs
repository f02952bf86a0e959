//! Feeds the comparer events that are deliberately wrong: each fault must be found, and be found in the right figure.

use serde_json::json;

use super::*;
use crate::expect::Side;

const RULES: Rules =
    Rules { tracepoints_only: false, kernel_reasons: true, strict_causes: true, ignored_unseen: false };
const WEAK: Rules = Rules { tracepoints_only: true, strict_causes: false, ..RULES };
const INODES: [[u64; 2]; 2] = [[1, 2], [3, 4]];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn owner(pid: i32, comm: &str) -> Owner {
    Owner::Is { pid, comm: comm.to_owned() }
}

fn sent(port: u16) -> Expect {
    let expect = Expect::rst_sent(addr("10.9.0.1:80"), SocketAddr::new(addr("10.9.0.2:1").ip(), port));
    Expect { owner: owner(7, "srv"), ..expect.state("ESTABLISHED").cause("linger-zero") }
}

fn got(port: u16) -> Expect {
    let client = SocketAddr::new(addr("10.9.0.2:1").ip(), port);
    let expect = Expect::rst_received(Side::Client, client, addr("10.9.0.1:80"), "ESTABLISHED");
    Expect { owner: owner(8, "cli"), ..expect }
}

/// A connection from this port, reset by the server between these times.
fn truth(port: u16, since: u64, until: u64) -> Truth {
    let ends = [addr("10.9.0.1:80"), SocketAddr::new(addr("10.9.0.2:1").ip(), port)];
    Truth { act: "linger-zero", pair: 0, ends, since, until, ways: vec![vec![sent(port), got(port)]] }
}

/// What an honest tcpwatch says of it.
fn events(truth: &Truth) -> Vec<Value> {
    let side = |expect: &Expect| {
        let Owner::Is { pid, comm } = &expect.owner else { panic!("an owner") };
        let end = |addr: SocketAddr| json!({"addr": addr.ip().to_string(), "port": addr.port()});
        json!({
            "event": expect.event, "netns": INODES[truth.pair][expect.side as usize], "count": 1,
            "mono_ns": truth.since + 1, "local": end(expect.local), "remote": end(expect.remotes[0]),
            "state": expect.states[0], "owner": {"pid": pid, "comm": comm, "how": "accept"},
            "reason": {"name": "TCP_STATE", "from": "kernel"}, "cause": {"id": expect.causes[0]},
        })
    };
    truth.ways[0].iter().map(side).collect()
}

fn history() -> (Vec<Truth>, Vec<Value>) {
    let truths = vec![truth(4000, 10, 20), truth(4001, 12, 30), truth(4000, 25, 40)];
    let events = truths.iter().flat_map(events).collect();
    (truths, events)
}

fn judged(truths: &[Truth], events: &[Value], rules: Rules) -> Comparison {
    compare(truths, &events.iter().collect::<Vec<_>>(), &INODES, rules)
}

fn set(event: &mut Value, path: &str, value: Value) {
    *event.pointer_mut(path).unwrap() = value;
}

#[test]
fn honest_events_score_all() {
    let (truths, events) = history();
    for rules in [RULES, WEAK] {
        let result = judged(&truths, &events, rules);
        assert_eq!(result.misses, []);
        let all = Score { due: 6, said: 6, right: 6 };
        assert_eq!(result.total(), Row { due: 6, seen: 6, cause: all, owner: all });
        assert_eq!(result.rows.len(), 2, "sent and received");
    }
}

#[test]
fn a_swapped_owner_is_found_on_every_host() {
    let (truths, mut events) = history();
    let (one, two) = (events[0]["owner"].clone(), events[1]["owner"].clone());
    set(&mut events[0], "/owner", two);
    set(&mut events[1], "/owner", one);
    for rules in [RULES, WEAK] {
        let result = judged(&truths, &events, rules);
        assert_eq!(result.misses.len(), 2);
        assert_eq!(result.total().owner, Score { due: 6, said: 6, right: 4 });
        assert_eq!(result.total().cause.precision(), 1000);
    }
}

#[test]
fn a_right_name_with_a_wrong_pid_is_wrong() {
    let (truths, mut events) = history();
    set(&mut events[2], "/owner/pid", json!(8));
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 1);
    assert_eq!(result.total().owner.precision(), 833);
}

#[test]
fn a_swapped_cause_is_found_on_every_host() {
    let (truths, mut events) = history();
    set(&mut events[0], "/cause/id", json!("disconnect"));
    for rules in [RULES, WEAK] {
        let result = judged(&truths, &events, rules);
        assert_eq!(result.misses.len(), 1);
        assert_eq!(result.total().cause, Score { due: 6, said: 6, right: 5 });
        assert_eq!(result.total().owner.recall(), 1000);
    }
}

#[test]
fn an_unknown_cause_costs_recall_not_precision() {
    let (truths, mut events) = history();
    set(&mut events[0], "/cause/id", json!("unknown"));
    set(&mut events[1], "/cause", Value::Null);
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 2);
    assert_eq!((result.total().cause.precision(), result.total().cause.recall()), (1000, 666));
    assert_eq!(judged(&truths, &events, WEAK).misses, [], "such a host may not know");
}

#[test]
fn a_missing_owner_costs_recall_not_precision() {
    let (truths, mut events) = history();
    set(&mut events[4], "/owner", Value::Null);
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 1);
    assert_eq!((result.total().owner.precision(), result.total().owner.recall()), (1000, 833));
}

#[test]
fn an_owner_where_there_is_none_costs_precision() {
    let (mut truths, events) = history();
    truths[0].ways[0][0].owner = Owner::Nobody;
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 1);
    assert_eq!(result.total().owner, Score { due: 5, said: 6, right: 5 });
}

#[test]
fn a_missing_event_costs_recall_of_both() {
    let (truths, mut events) = history();
    events.remove(0);
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 1);
    assert_eq!((result.total().cause.precision(), result.total().cause.recall()), (1000, 833));
    assert_eq!(result.total().owner.recall(), 833);
    assert_eq!(judged(&truths, &events, WEAK).misses.len(), 1, "a tracepoint shows it");
}

#[test]
fn what_needs_a_hook_may_be_missing_without_hooks() {
    let (mut truths, mut events) = history();
    truths[0].ways[0][0].needs_hook = true;
    events.remove(0);
    assert_eq!(judged(&truths, &events, RULES).misses.len(), 1);
    let weak = judged(&truths, &events, WEAK);
    assert_eq!((weak.misses.len(), weak.excused), (0, 1));
    assert_eq!(weak.total().cause.recall(), 833, "the figure still says so");
}

#[test]
fn a_duplicate_costs_precision_of_both() {
    let (truths, mut events) = history();
    events.push(events[0].clone());
    for rules in [RULES, WEAK] {
        let result = judged(&truths, &events, rules);
        assert_eq!(result.misses.len(), 1);
        assert_eq!(result.total().cause, Score { due: 6, said: 7, right: 6 });
        assert_eq!(result.total().owner, Score { due: 6, said: 7, right: 6 });
    }
}

#[test]
fn an_event_that_claims_to_be_two_is_wrong() {
    let (truths, mut events) = history();
    set(&mut events[0], "/count", json!(2));
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 2, "one unexpected, one missing");
}

#[test]
fn the_time_tells_two_connections_with_the_same_addresses_apart() {
    let (truths, mut events) = history();
    for between_or_before in [22, 15] {
        set(&mut events[4], "/mono_ns", json!(between_or_before));
        let result = judged(&truths, &events, RULES);
        assert_eq!(result.misses.len(), 2, "the first has one too many, the second none");
    }
    set(&mut events[4], "/mono_ns", json!(45));
    assert_eq!(judged(&truths, &events, RULES).misses, [], "late, and the last on these addresses");
    set(&mut events[0], "/mono_ns", json!(5));
    assert_eq!(judged(&truths, &events, RULES).misses.len(), 2, "before the first it belongs to none");
}

#[test]
fn an_orderly_end_shows_nothing() {
    let (mut truths, events) = history();
    truths[1].ways = vec![Vec::new()];
    let result = judged(&truths, &events, WEAK);
    assert_eq!(result.misses.len(), 2);
    assert_eq!(result.total().cause.precision(), 666);
}

#[test]
fn the_other_namespace_is_another_host() {
    let (truths, mut events) = history();
    set(&mut events[0], "/netns", json!(3));
    assert_eq!(judged(&truths, &events, RULES).misses.len(), 2);
    set(&mut events[0], "/netns", json!(99));
    assert_eq!(judged(&truths, &events, RULES).misses.len(), 1, "foreign events are nobody's business here");
}

#[test]
fn of_several_ways_exactly_one_holds() {
    let (mut truths, events) = history();
    let reversed = Expect { causes: vec!["disconnect"], ..sent(4000) };
    truths[0].ways = vec![vec![reversed], vec![sent(4000), got(4000)]];
    assert_eq!(judged(&truths, &events, RULES).misses, []);
    // Half of each is no way at all.
    let mut mixed = events.clone();
    set(&mut mixed[0], "/cause/id", json!("disconnect"));
    assert_eq!(judged(&truths, &mixed, RULES).misses.len(), 1);
    let mut half = events;
    half.remove(1);
    assert_eq!(judged(&truths, &half, RULES).misses.len(), 1);
}

#[test]
fn a_wrong_state_is_a_miss_though_cause_and_owner_are_right() {
    let (truths, mut events) = history();
    set(&mut events[0], "/state", json!("CLOSE_WAIT"));
    let result = judged(&truths, &events, RULES);
    assert_eq!(result.misses.len(), 1);
    assert_eq!((result.total().cause.recall(), result.total().owner.recall()), (1000, 1000));
}
