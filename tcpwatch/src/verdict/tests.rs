//! Events gathered, and what they come to.

use super::*;
use crate::event::samples::{self, end};
use crate::event::{
    Cause, Direction, HistoryStep, ListenAction, ListenInfo, ListenerStanding, Pressure, Queue,
    Reconciliation, Stage, TimeWaitInfo,
};

const SECOND: u64 = 1_000_000_000;

fn owner(pid: u32, comm: &str, how: &'static str) -> OwnerInfo {
    OwnerInfo { how, ..samples::owner(pid, comm) }
}

fn event(kind: EventKind, cause: &'static str, local: &str, remote: &str) -> Event {
    let mut event = Event::new(kind, SECOND, SECOND);
    event.netns = Some(7);
    event.local = Some(end(local));
    event.remote = Some(end(remote));
    event.cause = Some(Cause {
        id: cause,
        certainty: Certainty::Certain,
        summary: format!("{cause} happened"),
        evidence: vec!["figures".into()],
        fix: Some("do".into()),
    });
    event
}

fn owned(mut event: Event, owner: OwnerInfo) -> Event {
    event.owner = Some(owner);
    event
}

fn gathered(events: &[Event]) -> Vec<Verdict> {
    let mut collector = Collector::default();
    events.iter().for_each(|event| collector.take(event));
    collector.finish(&Summary { watched_ns: 10 * SECOND, ..Summary::default() })
}

#[test]
fn workers_of_one_service_are_one_verdict() {
    let linger = |pid, port: u16| {
        let remote = format!("10.0.0.9:{port}");
        owned(event(EventKind::RstSent, "linger-zero", "10.0.0.1:80", &remote), owner(pid, "nginx", "accept"))
    };
    let other = owned(
        event(EventKind::RstSent, "linger-zero", "10.0.0.1:5000", "10.0.0.9:3306"),
        owner(812, "nginx", "connect"),
    );
    let verdicts = gathered(&[linger(812, 4001), linger(813, 4002), linger(812, 4003), other]);
    assert_eq!(verdicts.len(), 2, "another service");
    let first = &verdicts[0];
    assert_eq!((first.count, first.services.as_slice()), (3, ["10.0.0.1:80".to_owned()].as_slice()));
    let who: Vec<_> = first.who.iter().map(|party| (party.owner.pid, party.count)).collect();
    assert_eq!(who, [(Some(812), 2), (Some(813), 1)]);
    assert_eq!(first.title, "3 connections were closed with SO_LINGER 0");
    assert_eq!(verdicts[1].services, ["10.0.0.9:3306"]);
    assert_eq!(verdicts[1].title, "linger-zero happened", "of one event, its own sentence");
}

#[test]
fn the_harm_decides_before_the_number() {
    let scan = event(EventKind::RstSent, "closed-port", "10.0.0.1:9", "10.0.0.9:4000");
    let full = event(EventKind::ListenDrop, "accept-queue-full", "10.0.0.1:80", "10.0.0.9:4000");
    let verdicts = gathered(&[scan.clone(), scan.clone(), scan, full]);
    assert_eq!((verdicts[0].cause, verdicts[1].cause), ("accept-queue-full", "closed-port"));
}

#[test]
fn both_ends_on_this_host_are_one_verdict_whichever_comes_first() {
    let sent = event(EventKind::RstSent, "linger-zero", "10.0.0.1:80", "10.0.0.9:4000");
    let received = event(EventKind::RstReceived, "reset-by-peer", "10.0.0.9:4000", "10.0.0.1:80");
    for events in [[sent.clone(), received.clone()], [received.clone(), sent]] {
        let verdicts = gathered(&events);
        assert_eq!(verdicts.len(), 1);
        let told = verdicts[0].evidence.iter().any(|line| line.contains("at the other end"));
        assert!(told, "{verdicts:?}");
    }
    assert_eq!(gathered(&[received])[0].cause, "reset-by-peer", "the other end is elsewhere");
}

fn refused(pid: u32) -> Event {
    let mut event = owned(
        event(EventKind::TwOverflow, "tw-bucket-overflow", "10.0.0.1:5000", "10.0.0.2:6379"),
        owner(pid, "nginx", "connect"),
    );
    event.timewait = Some(TimeWaitInfo { used: 50, max: 50 });
    event
}

#[test]
fn a_full_table_names_who_fills_it() {
    let drawn = owned(
        event(EventKind::RstSent, "tw-bucket-overflow", "10.0.0.1:5000", "10.0.0.2:6379"),
        owner(1, "nginx", "dead"),
    );
    let mut collector = Collector::default();
    [refused(1), refused(1), drawn].iter().for_each(|event| collector.take(event));
    let row = Lifetimes {
        owner: Some(owner(1, "nginx", "connect")),
        netns: 7,
        direction: Direction::Outgoing,
        peer: Some("10.0.0.2".parse().unwrap()),
        port: 6379,
        count: 500,
        short: 499,
        closed_first: 480,
        median_us: 3_000,
        p90_us: 9_000,
        max_us: 2_000_000,
        bytes_received: 1,
        bytes_sent: 1,
    };
    let verdicts = collector.finish(&Summary { lifetimes: vec![row], ..Summary::default() });
    let verdict = &verdicts[0];
    assert_eq!((verdicts.len(), verdict.count), (1, 2), "an RST that follows is no loss of its own");
    let text = verdict.evidence.join("\n");
    assert!(verdict.title.starts_with("2 sockets of nginx were refused"), "{}", verdict.title);
    assert!(verdict.title.ends_with("1 RSTs of this host followed"), "{}", verdict.title);
    assert!(text.contains("nginx[1] had 500 connections to 10.0.0.2:6379"), "{text}");
    assert!(verdict.fix[1].contains("keep its connections to 10.0.0.2:6379 open"), "{:?}", verdict.fix);
}

fn leak(pid: u32, count: u64) -> Event {
    let mut event = owned(
        event(EventKind::CloseWaitLeak, "close-wait-leak", "10.0.0.1:80", "10.0.0.9:4000"),
        owner(pid, "proxy", "accept"),
    );
    event.count = count;
    event.history = vec![HistoryStep { state: "CLOSE_WAIT", for_us: Some(70_000_000) }];
    event
}

fn full(pid: u32, comm: &str) -> Event {
    let mut event = owned(
        event(EventKind::ListenDrop, "accept-queue-full", "10.0.0.1:80", "10.0.0.8:4000"),
        owner(pid, comm, "listen"),
    );
    event.listen = Some(ListenInfo {
        local: None,
        queue: Some(Queue::Accept),
        stage: Stage::Syn,
        len: 6,
        max: 5,
        backlog: Some(5),
        somaxconn: Some(4096),
        action: ListenAction::Dropped,
        pressure: Some(Pressure::SlowAccept),
    });
    event
}

#[test]
fn a_process_that_leaks_and_does_not_accept_has_one_illness() {
    let verdicts = gathered(&[leak(5, 40), leak(5, 44), full(5, "proxy"), full(5, "proxy")]);
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    let verdict = &verdicts[0];
    assert_eq!(verdict.cause, "close-wait-leak");
    assert_eq!(verdict.with, ["accept-queue-full"]);
    assert!(verdict.title.contains("proxy[5] has stopped working"), "{}", verdict.title);
    assert!(verdict.title.contains(": 44 that the peer closed"), "the last look counts: {}", verdict.title);
    assert!(verdict.fix[0].contains("/proc/5/task"), "{:?}", verdict.fix);
    assert_eq!(gathered(&[leak(5, 40), full(6, "other")]).len(), 2, "another process's queue");
}

#[test]
fn what_stands_is_judged_without_an_event() {
    let mut collector = Collector::default();
    let listener = ListenerStanding {
        local: end("0.0.0.0:80"),
        owner: Some(owner(5, "site", "proc")),
        len: 6,
        max: Some(5),
    };
    let fine = ListenerStanding { len: 1, ..listener.clone() };
    let standing = Standing {
        time_ns: 0,
        netns: 7,
        time_wait: Some(TimeWaitInfo { used: 4_500, max: 5_000 }),
        refused_since_boot: Some(12),
        listeners: vec![listener, fine],
    };
    collector.stand(std::slice::from_ref(&standing));
    let verdicts = collector.verdicts(0, &[]);
    let causes: Vec<_> = verdicts.iter().map(|verdict| (verdict.cause, verdict.harm)).collect();
    assert_eq!(causes, [("accept-queue-full", Harm::Refused), ("tw-bucket-overflow", Harm::Warning)]);
    assert!(verdicts[1].evidence[1].contains("12 refusals"), "{:?}", verdicts[1].evidence);
    collector.take(&refused(1));
    let verdicts = collector.verdicts(0, &[]);
    let full: Vec<_> = verdicts.iter().filter(|verdict| verdict.cause == "tw-bucket-overflow").collect();
    assert_eq!(full.len(), 1, "evidence of the verdict that is there");
    assert!(full[0].evidence.iter().any(|line| line.contains("12 refusals")));
}

#[test]
fn what_only_the_kernel_counted_is_said() {
    let row = |counter: &str, kernel, explained| Reconciliation {
        netns: 7,
        counter: counter.to_owned(),
        kernel,
        explained,
    };
    let summary = Summary {
        netns: vec![
            row("ListenDrops", Some(9), 2),
            row("TcpOutRsts", Some(3), 3),
            row("TcpOutRsts", None, 1),
        ],
        ..Summary::default()
    };
    let verdicts = Collector::default().finish(&summary);
    assert_eq!(verdicts.len(), 1);
    let Verdict { cause, count, certainty, .. } = verdicts[0];
    assert_eq!((cause, count, certainty), ("unknown", 7, Certainty::Unknown));
}

#[test]
fn a_storm_of_causes_stays_bounded() {
    let mut collector = Collector::default();
    for port in 0..3_000u16 {
        let local = format!("10.0.0.1:{}", port + 1);
        let remote = format!("10.0.{}.{}:4000", port / 250, port % 250);
        collector.take(&event(EventKind::RstSent, "closed-port", &local, &remote));
    }
    let verdicts = collector.finish(&Summary::default());
    assert!(verdicts.len() <= GROUPS + 1, "{}", verdicts.len());
    assert_eq!(verdicts.iter().map(|verdict| verdict.count).sum::<u64>(), 3_000, "nothing is lost");
}

#[test]
fn drops_and_resets_of_one_queue_are_one_verdict() {
    let reset = owned(
        event(EventKind::RstSent, "accept-queue-overflow", "10.0.0.1:80", "10.0.0.8:4000"),
        owner(5, "site", "listen"),
    );
    let verdicts = gathered(&[full(5, "site"), reset.clone()]);
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    assert_eq!(
        (verdicts[0].cause, verdicts[0].count),
        ("accept-queue-full", 1),
        "the reset is one of the drops"
    );
    assert_eq!(verdicts[0].with, ["accept-queue-overflow"]);
    assert!(verdicts[0].fix.iter().any(|fix| fix.starts_with("sysctl -w net.ipv4.tcp_abort_on_overflow=0")));
    assert_eq!(gathered(&[reset])[0].cause, "accept-queue-overflow", "where drops are not seen");
}

#[test]
fn a_process_leaks_once_whatever_its_services() {
    let mut backend = leak(5, 20);
    backend.remote = Some(end("10.0.0.7:80"));
    backend.local = Some(end("10.0.0.1:40000"));
    let verdicts = gathered(&[backend, leak(5, 37)]);
    assert_eq!((verdicts.len(), verdicts[0].count), (1, 37), "{verdicts:?}");
}
