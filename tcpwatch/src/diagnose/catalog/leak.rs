//! Sockets that nobody closes: found by watching, not told from one record.

use super::Spec;
use crate::event::{Certainty, EventKind};

pub(super) const CAUSES: &[Spec] = &[Spec {
    id: "close-wait-leak",
    events: &[EventKind::CloseWaitLeak],
    summary: "{remote} closed, and {owner} has not closed in turn",
    many: "{count} sockets wait for their process to close them",
    fix: Some(
        "the application must close a connection when it reads end of file; see what its threads wait for",
    ),
    evidence: "a socket that a process holds has been in CLOSE_WAIT for longer than --close-wait-after",
    certainty: Certainty::Certain,
    sites: &[],
    source: "net/ipv4/tcp_input.c: tcp_fin",
    since: "5.10",
    rule: None,
}];
