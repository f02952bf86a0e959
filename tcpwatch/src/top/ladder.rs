//! The ladder of a flow: the states it went through, and what happened at the end.

use crate::event::{Event, EventKind};

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rung {
    pub(super) state: String,
    /// How long it was in it, in words; empty where it is in it still.
    pub(super) stayed: String,
    /// What ended the state.
    pub(super) then: String,
}

/// Microseconds in a form that is read at a glance.
pub(super) fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..120_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{} min", us / 60_000_000),
    }
}

/// The arrow of an event, as seen from this host.
pub(super) fn act(event: &Event) -> &'static str {
    match event.kind {
        EventKind::RstSent => "─── RST ──▶",
        EventKind::RstReceived => "◀── RST ───",
        EventKind::ListenDrop => "✗ turned away",
        EventKind::TwOverflow => "✗ no TIME_WAIT slot",
        EventKind::CloseWaitLeak => "… left open",
        EventKind::Drop => "✗ segment dropped",
        EventKind::State => "state changes",
        EventKind::Retransmit => "↻ sent again",
    }
}

/// Oldest first; the last one is where the event struck.
pub(super) fn of(event: &Event) -> Vec<Rung> {
    let mut rungs: Vec<Rung> = event
        .history
        .iter()
        .map(|step| Rung {
            state: step.state.to_owned(),
            stayed: step.for_us.map_or_else(|| "since before tcpwatch".to_owned(), span),
            then: String::new(),
        })
        .collect();
    let last = rungs.last().map(|rung| rung.state.as_str());
    if let Some(state) = event.state.filter(|state| last != Some(state)) {
        rungs.push(Rung { state: state.to_owned(), stayed: String::new(), then: String::new() });
    }
    match rungs.last_mut() {
        Some(rung) => rung.then = act(event).to_owned(),
        None => {
            rungs.push(Rung { state: "no socket".into(), stayed: String::new(), then: act(event).to_owned() })
        }
    }
    rungs
}
