//! Captures written, read back, cut, damaged and rotated.

use super::*;
use crate::event::{
    Bytes, Cause, CauseCount, Certainty, Direction, Endpoint, Event, EventKind, HistoryStep, HookBooks,
    HookStatus, Lifetimes, ListenAction, ListenInfo, ListenerStanding, Lost, OwnerInfo, PacketInfo, Pressure,
    Queue, Reason, ReasonFrom, Reconciliation, Stage, Standing, Start, Summary, Tables, TaskContext,
    TaskInfo, TimeWaitInfo,
};
use crate::sink::{Out, Shown, Sink, Weight, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use tcpwatch_common::counters::HookCounters;

/// Files by their names.
type Files = Rc<RefCell<BTreeMap<PathBuf, Vec<u8>>>>;

struct Fake {
    files: Files,
    path: PathBuf,
}

impl Out for Fake {
    fn put(&mut self, bytes: &[u8], _weight: Weight) -> io::Result<Shown> {
        self.files.borrow_mut().entry(self.path.clone()).or_default().extend_from_slice(bytes);
        Ok(Shown::Yes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sink(rotation: Rotation) -> (CaptureSink, Files) {
    let files = Files::default();
    let kept = Rc::clone(&files);
    let open: Opener = Box::new(move |path| {
        kept.borrow_mut().insert(path.to_owned(), Vec::new());
        Ok(Box::new(Fake { files: Rc::clone(&kept), path: path.to_owned() }))
    });
    let host = Host { hardware: "x86_64".into(), system: "Linux 6.12".into(), name: "web1".into() };
    (CaptureSink::new(open, rotation, host).unwrap(), files)
}

fn owner() -> OwnerInfo {
    OwnerInfo {
        pid: Some(812),
        comm: "nginx\"\\".into(),
        exe: Some("/usr/sbin/nginx".into()),
        uid: 33,
        cgroup: None,
        container: Some("0123456789ab".into()),
        how: "accept",
        start_ns: 77,
        cgroup_id: 0,
    }
}

/// An event of which every field says something.
fn full(kind: EventKind) -> Event {
    let end = |addr: &str, port| Some(Endpoint { addr: addr.parse().unwrap(), port });
    let is_state = kind == EventKind::State;
    Event {
        netns: Some(4_026_531_840),
        local: end("10.9.0.1", 80),
        remote: end("10.9.0.2", 40_000),
        state: Some("ESTABLISHED"),
        old_state: is_state.then_some("ESTABLISHED"),
        new_state: is_state.then_some("CLOSE_WAIT"),
        for_us: is_state.then_some(5),
        owner: Some(owner()),
        task: Some(TaskInfo { pid: None, comm: "swapper/0".into(), context: Some(TaskContext::Softirq) }),
        reason: Some(Reason { name: "NO_SOCKET".into(), from: ReasonFrom::Inferred }),
        cause: Some(Cause {
            id: "closed-port",
            certainty: Certainty::Likely,
            summary: "nobody listens".into(),
            evidence: vec!["a line\nand another".into(), "no socket".into()],
            fix: Some("listen".into()),
        }),
        site: Some("tcp_v4_rcv".into()),
        stack: Some(vec!["tcp_v4_rcv+0x5".into()]),
        history: vec![
            HistoryStep { state: "SYN_RECV", for_us: None },
            HistoryStep { state: "ESTABLISHED", for_us: Some(3) },
        ],
        listen: Some(ListenInfo {
            local: Some(Endpoint { addr: "::".parse().unwrap(), port: 8443 }),
            queue: Some(Queue::Accept),
            stage: Stage::Ack,
            len: 3,
            max: 2,
            backlog: None,
            somaxconn: Some(4096),
            action: ListenAction::Reset,
            pressure: Some(Pressure::SlowAccept),
        }),
        timewait: Some(TimeWaitInfo { used: 5, max: 6 }),
        packet: Some(PacketInfo { seq: 1, ack: 2, flags: 0x12, window: 3, len: 4 }),
        bytes: Some(Bytes { received: 1, sent: u64::MAX }),
        mptcp: true,
        count: 9,
        // To the microsecond: that is what JSON says.
        ..Event::new(kind, 123_456_789, 1_795_945_510_347_164_000)
    }
}

fn start() -> Start {
    let hook =
        |name: &str, attached| HookStatus { name: name.to_owned(), attached, sees: Some("x".to_owned()) };
    Start {
        mono_ns: 1,
        time_ns: 1_795_945_510_000_000_000,
        version: "0.1.0".to_owned(),
        kernel: "6.12".to_owned(),
        hooks: vec![hook("z_first", Ok("fentry".to_owned())), hook("a_second", Err("no module".to_owned()))],
    }
}

fn summary() -> Summary {
    let counters = HookCounters { seen: 10, delivered: 5, filtered: 2, aggregated: 1, lost: 2 };
    Summary {
        mono_ns: 9,
        time_ns: 1_795_945_511_000_000_000,
        watched_ns: 8,
        hooks: vec![HookBooks { name: "tcp_reset".to_owned(), counters, missed: 1 }],
        netns: vec![Reconciliation {
            netns: 4,
            counter: "TcpOutRsts".to_owned(),
            kernel: None,
            explained: 3,
        }],
        causes: vec![
            CauseCount { id: "zz".to_owned(), count: 5 },
            CauseCount { id: "closed-port".to_owned(), count: 2 },
        ],
        lifetimes: vec![Lifetimes {
            owner: Some(owner()),
            netns: 4,
            direction: Direction::Outgoing,
            peer: Some("fd09::1".parse().unwrap()),
            port: 6379,
            count: 1,
            short: 1,
            closed_first: 0,
            median_us: 5,
            p90_us: 6,
            max_us: 7,
            bytes_received: 8,
            bytes_sent: 9,
        }],
        tables: Tables {
            sockets: 1,
            sockets_seen: 2,
            sockets_forgotten: 3,
            ended: 4,
            ended_seen: 5,
            ended_forgotten: 6,
        },
    }
}

fn standing() -> Vec<Standing> {
    let local = Endpoint { addr: "::".parse().unwrap(), port: 80 };
    vec![Standing {
        netns: 4,
        time_ns: 1_795_945_509_000_000_000,
        time_wait: Some(TimeWaitInfo { used: 1, max: 2 }),
        refused_since_boot: Some(3),
        listeners: vec![ListenerStanding { local, owner: Some(owner()), len: 1, max: None }],
    }]
}

/// Everything that can be said, once each.
fn everything() -> Vec<Said> {
    let lost =
        Lost { mono_ns: 5, time_ns: 1_795_945_510_500_000_000, hook: "tcp_reset".to_owned(), count: 2 };
    let mut all = vec![Said::Start(start()), Said::Standing(standing())];
    for kind in EventKind::ALL {
        all.push(Said::Event(Box::new(full(kind))));
        all.push(Said::Event(Box::new(Event::new(kind, 1, 2_000))));
    }
    let mut later = standing();
    later[0].listeners[0].len = 2;
    all.extend([Said::Lost(lost), Said::Standing(later), Said::Summary(Box::new(summary()))]);
    all
}

fn say(sink: &mut dyn Sink, all: &[Said]) {
    for said in all {
        match said {
            Said::Start(start) => sink.start(start).unwrap(),
            Said::Event(event) => assert_eq!(sink.event(event).unwrap(), Shown::Yes),
            Said::Standing(all) => sink.standing(all).unwrap(),
            Said::Lost(lost) => assert_eq!(sink.lost(lost).unwrap(), Shown::Yes),
            Said::Summary(summary) => sink.summary(summary).unwrap(),
        }
    }
    sink.flush().unwrap();
}

fn written(all: &[Said]) -> Vec<u8> {
    let path = PathBuf::from("a");
    let (mut sink, files) = sink(Rotation { path: path.clone(), ..Rotation::default() });
    say(&mut sink, all);
    files.borrow_mut().remove(&path).unwrap()
}

/// All that can be read, and how it ends.
fn read(bytes: &[u8]) -> (Vec<Said>, Result<(), Broken>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(broken) => return (Vec::new(), Err(broken)),
    };
    let mut all = Vec::new();
    loop {
        match reader.advance() {
            Ok(Some(said)) => all.push(said),
            Ok(None) => return (all, Ok(())),
            Err(broken) => return (all, Err(broken)),
        }
    }
}

/// What `--json` prints.
fn lines(all: &[Said]) -> String {
    let mut out = Vec::new();
    say(&mut json::JsonSink::new(&mut out), all);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_was_written_is_read_back_word_for_word() {
    let all = everything();
    let (back, ended) = read(&written(&all));
    ended.unwrap();
    assert_eq!(lines(&back), lines(&all));
    assert_eq!(back, all);
}

#[test]
fn what_stands_as_before_is_said_once() {
    let later = standing().into_iter().map(|one| Standing { time_ns: one.time_ns + 1_000, ..one }).collect();
    let (back, _) = read(&written(&[Said::Standing(standing()), Said::Standing(later)]));
    assert_eq!(back.len(), 1);
}

#[test]
fn the_section_says_where_it_comes_from() {
    let bytes = written(&[]);
    let reader = Reader::new(&bytes[..]).unwrap();
    assert_eq!((reader.host().name.as_str(), reader.host().system.as_str()), ("web1", "Linux 6.12"));
}

#[test]
fn a_file_cut_anywhere_gives_what_is_whole() {
    let all = everything();
    let bytes = written(&all);
    let mut most = 0;
    for length in 1..bytes.len() {
        let (back, ended) = read(&bytes[..length]);
        assert_eq!(back, all[..back.len()], "cut at {length}");
        assert!(back.len() >= most, "cut at {length}: less than a shorter file has");
        most = back.len();
        if let Err(broken) = ended {
            assert!(matches!(broken, Broken::CutOff { .. }), "cut at {length}: {broken}");
        }
    }
    assert_eq!(most, all.len());
}

#[test]
fn no_damage_makes_it_fall_over() {
    let whole = written(&everything());
    let mut chance = fastrand::Rng::with_seed(7);
    let (mut refused, mut read_on) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..chance.usize(1..8) {
            let at = chance.usize(..bytes.len());
            match chance.u8(..5) {
                0 => bytes[at] = chance.u8(..),
                1 => bytes[at] ^= 1 << chance.u8(..8),
                2 => bytes.truncate(at.max(1)),
                3 => drop(bytes.drain(at..(at + chance.usize(..64)).min(bytes.len()))),
                _ => bytes.splice(at..at, (0..chance.usize(..64)).map(|_| 0xff)).for_each(drop),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        let (_, ended) = read(&bytes);
        match ended {
            Ok(()) => read_on += 1,
            // Each is a sentence with a hint.
            Err(broken) => {
                assert!(broken.to_string().contains("\nhint: "), "{broken}");
                refused += 1;
            }
        }
    }
    assert!(refused > 1_000 && read_on > 100, "{refused} refused, {read_on} read to the end");
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let mut bytes = written(&[]);
    bytes.extend_from_slice(&[6, 0, 0, 0, 0xf0, 0xff, 0xff, 0]);
    bytes.extend_from_slice(&[0; 32]);
    assert!(matches!(read(&bytes).1, Err(Broken::CutOff { .. })));
    let mut bytes = written(&[]);
    bytes.extend_from_slice(&[6, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(matches!(read(&bytes).1, Err(Broken::Damaged { .. })));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let mut dumpcap = Vec::new();
    block::section(&mut dumpcap, "", "", "Dumpcap (Wireshark) 4.0.17", "");
    let table: [(&[u8], &str); 8] = [
        (b"", "empty"),
        (b"{\"event\":\"start\"}\n", "JSON"),
        (&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0], "pcap file of packets"),
        (&[0x1f, 0x8b, 8, 0], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0], "zstd"),
        (b"tcp_reset", "not a pcapng file"),
        (&[0x0a, 0x0d], "middle of a block"),
        (&dumpcap, "Dumpcap"),
    ];
    for (bytes, word) in table {
        let broken = read(bytes).1.unwrap_err().to_string();
        assert!(broken.contains(word) && broken.contains("\nhint: "), "{word}: {broken}");
    }
}

#[test]
fn a_later_schema_is_refused() {
    let mut bytes = written(&[]);
    block::journal(&mut bytes, 1, 1, "x", br#"{"event":"start","schema":2}"#);
    let broken = read(&bytes).1.unwrap_err();
    assert!(matches!(broken, Broken::Newer { schema: 2 }), "{broken}");
}

#[test]
fn names_that_this_version_lacks_are_kept_and_not_too_many() {
    let mut bytes = written(&[]);
    let mut line = Vec::new();
    for number in 0..1_000 {
        let mut event = full(EventKind::RstSent);
        let name: &'static str = Box::leak(format!("later-{number}").into_boxed_str());
        event.cause.as_mut().unwrap().id = name;
        json::event(&mut line, &event).unwrap();
        block::journal(&mut bytes, 1, 1, "x", &line);
    }
    let (back, ended) = read(&bytes);
    assert!(back.len() > 100 && back.len() < 1_000, "{}", back.len());
    assert!(ended.unwrap_err().to_string().contains("too many names"));
}

#[test]
fn foreign_sections_and_blocks_are_passed_over() {
    let event = Said::Event(Box::new(full(EventKind::RstSent)));
    let mut bytes = written(std::slice::from_ref(&event));
    block::statistics(&mut bytes, 0, 5, block::Statistics::default());
    block::section(&mut bytes, "", "", "Mergecap", "");
    block::journal(&mut bytes, 1, 1, "x", b"not ours");
    bytes.extend_from_slice(&written(std::slice::from_ref(&event)));
    let (back, ended) = read(&bytes);
    ended.unwrap();
    assert_eq!(back, [event.clone(), event]);
}

#[test]
fn an_event_longer_than_an_option_is_read_whole() {
    let mut event = full(EventKind::RstSent);
    event.cause.as_mut().unwrap().evidence = vec!["é".repeat(100_000).into()];
    let all = [Said::Event(Box::new(event))];
    let (back, ended) = read(&written(&all));
    ended.unwrap();
    assert_eq!(back, all);
}

#[test]
fn files_follow_each_other_and_each_can_be_read_alone() {
    let rotation = Rotation { path: PathBuf::from("a"), size: Some(64 << 10), ..Rotation::default() };
    let (mut sink, files) = sink(rotation);
    let event = Said::Event(Box::new(full(EventKind::RstSent)));
    say(&mut sink, &[Said::Start(start()), Said::Standing(standing())]);
    for _ in 0..100 {
        say(&mut sink, std::slice::from_ref(&event));
    }
    let files = files.borrow();
    let names: Vec<_> = files.keys().map(|path| path.to_str().unwrap()).collect();
    assert!(names.len() > 2 && names.starts_with(&["a", "a1", "a2"]), "{names:?}");
    let mut events = 0;
    for (name, bytes) in &*files {
        assert!(bytes.len() <= 64 << 10, "{name:?}: {}", bytes.len());
        let (back, ended) = read(bytes);
        ended.unwrap();
        assert_eq!(back[..2], [Said::Start(start()), Said::Standing(standing())], "{name:?}");
        events += back.len() - 2;
    }
    assert_eq!(events, 100, "none is missing, none is there twice");
}

#[test]
fn a_beginning_longer_than_a_file_does_not_make_a_file_per_event() {
    let rotation = Rotation { path: PathBuf::from("a"), size: Some(64 << 10), ..Rotation::default() };
    let (mut sink, files) = sink(rotation);
    let mut many = standing();
    many[0].listeners = vec![many[0].listeners[0].clone(); 1_000];
    say(&mut sink, &[Said::Start(start()), Said::Standing(many)]);
    for _ in 0..10 {
        say(&mut sink, &[Said::Event(Box::new(full(EventKind::RstSent)))]);
    }
    assert_eq!(files.borrow().len(), 10, "one event each, and none with nothing");
    for bytes in files.borrow().values() {
        assert_eq!(read(bytes).0.len(), 3);
    }
}

#[test]
fn the_oldest_of_so_many_files_is_written_over() {
    let rotation =
        Rotation { path: PathBuf::from("a"), size: Some(64 << 10), files: Some(2), ..Rotation::default() };
    let (mut sink, files) = sink(rotation);
    let event = Said::Event(Box::new(full(EventKind::RstSent)));
    for _ in 0..300 {
        say(&mut sink, std::slice::from_ref(&event));
    }
    let names: Vec<_> = files.borrow().keys().cloned().collect();
    assert_eq!(names, [PathBuf::from("a"), PathBuf::from("a1")]);
}
