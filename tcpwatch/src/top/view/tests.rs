//! Every view on a small screen and on a large one, against a golden page.

use super::*;
use crate::cli::Wanted;
use crate::event::samples::{self, end};
use crate::event::{
    Bytes, Cause, EventKind, HistoryStep, ListenAction, ListenInfo, ListenerStanding, Lost, PacketInfo,
    Queue, Reason, ReasonFrom, Stage, Standing, Start, TaskContext, TaskInfo,
};
use crate::top::ui::Look;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::sync::Arc;

pub(in crate::top) const LOOK: Look = Look { color: false, plays: false };
/// 2026-11-21 03:14:00 UTC.
const BEGIN: u64 = 1_795_230_840_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn owner(pid: u32, comm: &str) -> OwnerInfo {
    OwnerInfo {
        exe: Some("/usr/sbin/daemon".into()),
        uid: 33,
        cgroup: Some("/system.slice/daemon.service".into()),
        ..samples::owner(pid, comm)
    }
}

fn event(kind: EventKind, second: u64, id: &'static str, owner: OwnerInfo, ends: (&str, &str)) -> Event {
    Event {
        netns: Some(4_026_531_840),
        local: Some(end(ends.0)),
        remote: Some(end(ends.1)),
        owner: Some(owner),
        cause: Some(Cause {
            id,
            certainty: Certainty::Certain,
            summary: format!("a sentence about {id}"),
            evidence: vec!["SO_LINGER is set, time 0".into(), "closed in state ESTABLISHED".into()],
            fix: Some("remove SO_LINGER {1,0} from the application unless the reset is wanted".into()),
        }),
        ..Event::new(kind, second * SECOND, BEGIN + second * SECOND)
    }
}

pub(in crate::top) fn drop_at(local: &str, count: u64) -> Event {
    let listen = ListenInfo {
        local: None,
        queue: Some(Queue::Accept),
        stage: Stage::Syn,
        len: 129,
        max: 128,
        backlog: Some(128),
        somaxconn: Some(4096),
        action: ListenAction::Dropped,
        pressure: None,
    };
    let ends = (local, "10.9.0.7:51000");
    let event = event(EventKind::ListenDrop, 50, "accept-queue-full", owner(812, "nginx"), ends);
    Event { listen: Some(listen), count, ..event }
}

pub(in crate::top) fn leak(count: u64) -> Event {
    let ends = ("10.9.0.1:40112", "10.9.0.9:6379");
    Event { count, ..event(EventKind::CloseWaitLeak, 55, "close-wait-leak", owner(4711, "proxy"), ends) }
}

fn linger(second: u64, port: u16) -> Event {
    let remote = format!("10.9.0.9:{port}");
    let ends = ("10.9.0.1:6379", remote.as_str());
    Event {
        state: Some("ESTABLISHED"),
        history: vec![
            HistoryStep { state: "SYN_RECV", for_us: Some(471) },
            HistoryStep { state: "ESTABLISHED", for_us: Some(4_703_500) },
        ],
        reason: Some(Reason { name: "TCP_STATE".into(), from: ReasonFrom::Kernel }),
        site: Some("tcp_disconnect".into()),
        task: Some(TaskInfo {
            pid: Some(900),
            comm: "redis-server".into(),
            context: Some(TaskContext::Process),
        }),
        packet: Some(PacketInfo { seq: 7, ack: 9, flags: 0x10, window: 512, len: 0 }),
        bytes: Some(Bytes { received: 10, sent: 2_000 }),
        ..event(EventKind::RstSent, second, "linger-zero", owner(900, "redis-server"), ends)
    }
}

/// A host on which something of everything happened.
pub(in crate::top) fn crowd(model: &mut Model) {
    let start = Start {
        mono_ns: 0,
        time_ns: BEGIN,
        version: "0.1.0".into(),
        kernel: "6.12.107-amd64".into(),
        hooks: Vec::new(),
    };
    model.start(start, "web1".into());
    let listener = |local: &str, owner: OwnerInfo, len, max| ListenerStanding {
        local: end(local),
        owner: Some(owner),
        len,
        max: Some(max),
    };
    for len in [3, 60, 129] {
        model.standing(&[Standing {
            netns: 4_026_531_840,
            listeners: vec![
                listener("0.0.0.0:80", owner(812, "nginx"), len, 128),
                listener("[::1]:6379", owner(900, "redis-server"), 0, 511),
            ],
            ..Standing::default()
        }]);
    }
    for second in 0..50 {
        let port = 40_000 + u16::try_from(second).unwrap();
        (0..=second / 10).for_each(|_| model.event(&Arc::new(linger(second, port))));
    }
    model.event(&Arc::new(drop_at("10.9.0.1:80", 17)));
    model.event(&Arc::new(leak(63)));
    let nobody =
        event(EventKind::RstSent, 56, "closed-port", owner(1, "x"), ("[fd09::1]:9", "[fd09::2]:35254"));
    model.event(&Arc::new(Event { owner: None, ..nobody }));
    let state =
        event(EventKind::State, 57, "x", owner(900, "redis-server"), ("10.9.0.1:6379", "10.9.0.9:40001"));
    model.event(&Arc::new(Event {
        cause: None,
        old_state: Some("ESTABLISHED"),
        new_state: Some("CLOSE_WAIT"),
        for_us: Some(5_000),
        ..state
    }));
    model.lost(&Lost { mono_ns: 1, time_ns: BEGIN + 58 * SECOND, hook: "tcp_reset".into(), count: 3 });
    model.tick(BEGIN + 60 * SECOND);
}

fn screen(width: u16, height: u16, model: &Model, ui: &Ui) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, ui)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y: u16| -> String {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

/// Every view on a small screen and on a large one, against `tests/golden/top.txt`.
#[test]
fn every_view_is_as_it_was() {
    let mut model = Model::default();
    let mut ui = Ui::new(LOOK);
    let mut pages = String::new();
    let mut page = |title: &str, model: &Model, ui: &Ui| {
        for (width, height) in [(80, 24), (200, 60)] {
            pages += &format!("=== {title}, {width}×{height}\n{}", screen(width, height, model, ui));
        }
    };
    page("nothing yet", &model, &ui);
    crowd(&mut model);
    let press = |ui: &mut Ui, model: &mut Model, codes: &[KeyCode]| {
        for code in codes {
            ui.key(KeyEvent::new(*code, KeyModifiers::NONE), model);
        }
    };
    page("causes", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Char('2')]);
    page("listeners", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Char('3'), KeyCode::Down]);
    page("processes", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Char('4')]);
    page("events", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Char('?')]);
    page("help", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Char('?'), KeyCode::Char('1'), KeyCode::Enter, KeyCode::Down]);
    page("events of a cause", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Enter]);
    page("one event", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Esc, KeyCode::Esc, KeyCode::Char('/'), KeyCode::Char('p')]);
    page("typing", &model, &ui);
    press(&mut ui, &mut model, &[KeyCode::Esc]);
    (ui.paused, ui.waiting, ui.filter) = (true, 12, "port 80".into());
    model.set_filter(Wanted::parse("port 80").unwrap());
    ui.look.plays = true;
    page("paused, filtered, played", &model, &ui);

    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/top.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &pages).unwrap();
    }
    let expected = std::fs::read_to_string(golden).unwrap_or_default();
    for (number, (line, was)) in pages.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, was, "line {} of {golden}; UPDATE_GOLDEN=1 writes it anew", number + 1);
    }
    assert_eq!(pages.lines().count(), expected.lines().count());
}

#[test]
fn no_size_makes_it_fall_over() {
    let mut model = Model::default();
    crowd(&mut model);
    for over in 0..4 {
        let mut ui = Ui::new(LOOK);
        for code in [KeyCode::Enter, KeyCode::Enter, KeyCode::Char('?')].iter().take(over) {
            ui.key(KeyEvent::new(*code, KeyModifiers::NONE), &mut model);
        }
        for width in (1..220).step_by(7) {
            for height in (1..70).step_by(3) {
                screen(width, height, &model, &ui);
            }
        }
    }
}

#[test]
fn without_colour_there_is_none() {
    let mut model = Model::default();
    crowd(&mut model);
    for (color, wanted) in [(false, false), (true, true)] {
        let ui = Ui::new(Look { color, ..LOOK });
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &model, &ui)).unwrap();
        let colored = terminal.backend().buffer().content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(colored, wanted);
    }
}

#[test]
fn bars_grow_with_counts() {
    assert_eq!(bars(&[0, 1, 4, 8], 4), " ▂▅█");
    assert_eq!(bars(&[1, 2, 3], 2), "▆█");
    assert_eq!(bars(&[0, 0], 2), "  ");
    assert_eq!(bars(&[], 2), "");
}
