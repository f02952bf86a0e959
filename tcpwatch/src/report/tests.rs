//! Pages of captures that are made here: what must be there, what must never be, and how long they get.

use super::*;
use crate::event::samples::{self, end};
use crate::event::{
    Cause, Certainty, Endpoint, EventKind, HistoryStep, HookBooks, HookStatus, ListenAction, ListenInfo,
    ListenerStanding, OwnerInfo, PacketInfo, Queue, Reconciliation, Stage,
};
use tcpwatch_common::counters::HookCounters;

const BEGIN: u64 = 1_795_230_840_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn owner(pid: u32, comm: &str) -> OwnerInfo {
    OwnerInfo { exe: Some("/usr/bin/x".into()), ..samples::owner(pid, comm) }
}

fn event(number: u64) -> Event {
    let kinds = [
        (EventKind::RstSent, "linger-zero"),
        (EventKind::RstReceived, "reset-by-peer"),
        (EventKind::ListenDrop, "accept-queue-full"),
        (EventKind::CloseWaitLeak, "close-wait-leak"),
    ];
    let (kind, id) = kinds[number as usize % 4];
    let process = u32::try_from(number % 7_000).unwrap();
    let time = number * SECOND / 100;
    Event {
        netns: Some(4_026_531_840),
        local: Some(end("10.9.0.1:80")),
        remote: Some(Endpoint {
            addr: std::net::Ipv4Addr::from(0x0a09_0000 + u32::try_from(number % 50_000).unwrap()).into(),
            port: u16::try_from(1024 + number % 60_000).unwrap(),
        }),
        state: Some("ESTABLISHED"),
        owner: Some(owner(process, &format!("proc{}", process % 90))),
        cause: Some(Cause {
            id,
            certainty: Certainty::Certain,
            summary: format!("a sentence about {id}"),
            evidence: vec!["evidence".into()],
            fix: Some("fix".into()),
        }),
        history: vec![
            HistoryStep { state: "SYN_RECV", for_us: Some(400) },
            HistoryStep { state: "ESTABLISHED", for_us: Some(1_500_000) },
        ],
        packet: Some(PacketInfo { seq: 1, ack: 2, flags: 0x10, window: 3, len: 0 }),
        listen: (kind == EventKind::ListenDrop).then_some(ListenInfo {
            local: None,
            queue: Some(Queue::Accept),
            stage: Stage::Syn,
            len: 17,
            max: 16,
            backlog: None,
            somaxconn: None,
            action: ListenAction::Dropped,
            pressure: None,
        }),
        ..Event::new(kind, time, BEGIN + time)
    }
}

fn summary() -> Summary {
    let counters = HookCounters { seen: 10, delivered: 7, filtered: 1, aggregated: 1, lost: 1 };
    Summary {
        mono_ns: 9,
        time_ns: BEGIN,
        watched_ns: 60 * SECOND,
        hooks: vec![HookBooks { name: "tcp_reset".into(), counters, missed: 0 }],
        netns: vec![Reconciliation {
            netns: 7,
            counter: "TcpOutRsts".into(),
            kernel: Some(15),
            explained: 15,
        }],
        ..Summary::default()
    }
}

fn made(events: impl Iterator<Item = Event>, finished: bool) -> String {
    let mut page = Vec::new();
    let host = Host { hardware: "x86_64".into(), system: "Linux 6.12".into(), name: "web1".into() };
    let mut sink = ReportSink::new(&mut page, "incident.pcapng".into(), host);
    let hook = |name: &str, attached| HookStatus { name: name.to_owned(), attached, sees: None };
    let hooks = vec![hook("tcp_reset", Ok("fentry".into())), hook("nf_send_reset", Err("no module".into()))];
    let start =
        Start { mono_ns: 0, time_ns: BEGIN, version: "0.1.0".into(), kernel: "6.12.107".into(), hooks };
    sink.start(&start).unwrap();
    let listener =
        ListenerStanding { local: end("0.0.0.0:80"), owner: Some(owner(5, "nginx")), len: 3, max: Some(16) };
    sink.standing(&[Standing { netns: 4_026_531_840, listeners: vec![listener], ..Standing::default() }])
        .unwrap();
    events.for_each(|event| assert_eq!(sink.event(&event).unwrap(), Shown::Yes));
    sink.summary(&if finished { summary() } else { Summary::default() }).unwrap();
    String::from_utf8(page).unwrap()
}

#[test]
fn everything_that_was_asked_for_is_there() {
    let page = made((0..400).map(event), true);
    for part in [
        "web1",
        "6.12.107",
        "What is wrong",
        "linger-zero",
        "accept-queue-full",
        "a sentence about reset-by-peer",
        "0.0.0.0:80",
        "limit 16",
        "nginx[5]",
        "TcpOutRsts",
        "not attached: no module",
        "seen = delivered",
        "SYN_RECV",
        "1.5 s",
        "<title>",
        "aria-label",
        "<caption>",
        "incident.pcapng",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn the_page_asks_for_nothing() {
    let page = made((0..400).map(event), true);
    for part in
        ["<script", "http://", "https://", "url(", "@import", "<img", "<iframe", "<link rel=\"stylesheet"]
    {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn names_are_text_and_never_markup() {
    let bad = "<img src=x onerror=alert(1)>\"'&";
    let mut one = event(0);
    one.owner = Some(owner(1, bad));
    one.cause.as_mut().unwrap().summary = bad.into();
    one.cause.as_mut().unwrap().evidence = vec![bad.into()];
    let page = made(std::iter::once(one), true);
    assert!(!page.contains("<img"), "it is markup");
    assert!(page.contains("&lt;img src=x"));
}

#[test]
fn tags_are_closed_in_order() {
    let page = made((0..400).map(event), true);
    let void = ["meta", "link", "!DOCTYPE"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = page.as_str();
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').unwrap();
        let tag = &rest[..end];
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace()).collect();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !void.contains(&name.as_str()) {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_million_events_make_a_page_that_can_be_mailed() {
    let page = made((0..1_000_000).map(event), true);
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    assert!(page.contains("250000"), "every event is counted");
}

#[test]
fn a_capture_without_books_says_so() {
    let page = made((0..4).map(event), false);
    assert!(page.contains("ends without the books"));
    let page = made(std::iter::empty(), true);
    assert!(page.contains("Nothing was reset") && page.contains("Nothing happened"));
}
