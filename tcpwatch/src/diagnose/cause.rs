//! From facts to a cause: walks the catalogue, whose rules take [`Facts`] and give a [`Verdict`]. Pure: values in, verdict
//! out.

use super::catalog::{self, Spec};
use super::lately::Around;
use super::site::Site;
use super::state;
use crate::event::{
    Cause, Certainty, Endpoint, EventKind, ListenInfo, OwnerInfo, Reason, ReasonFrom, TaskInfo, Text,
};
use memchr::memchr;
use std::cell::OnceCell;
use std::fmt::Write as _;
use tcpwatch_common::hook;
use tcpwatch_common::owner::Memory;
use tcpwatch_common::record::{Record, SOCK_LINGER, flag, kind};
use tcpwatch_common::state as states;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;

/// Everything that a cause may rest on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub record: &'a Record,
    /// What the record becomes.
    pub kind: EventKind,
    pub site: &'a Site<'a>,
    pub reason: Option<&'a Reason>,
    /// The state in which the act began.
    pub began: Option<u8>,
    pub owner: Option<&'a OwnerInfo>,
    pub task: Option<&'a TaskInfo>,
    /// What the listener did, on listen events.
    pub listen: Option<ListenInfo>,
    /// What is known besides the record.
    pub around: &'a Around,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// Found when the first rule asks for it; nearly all do.
    pub sort: OnceCell<Sort>,
}

/// Who decided on an RST: sorts that exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A firewall: it never passes the TCP stack.
    Firewall,
    /// MPTCP.
    Mptcp,
    /// TCP of its own accord: no segment drew it.
    Active,
    /// TCP, in answer to a segment.
    Passive,
    /// The peer, and it ended something.
    Obeyed,
    /// It is no RST, or one that changed nothing.
    Other,
}

/// What rules ask.
impl<'a> Facts<'a> {
    /// An RST of a firewall.
    pub(super) fn by_firewall(&self) -> bool {
        self.sort() == Sort::Firewall
    }

    /// An RST that MPTCP decided to send.
    pub(super) fn by_mptcp(&self) -> bool {
        self.sort() == Sort::Mptcp
    }

    /// An RST of TCP's own accord.
    pub(super) fn active(&self) -> bool {
        self.sort() == Sort::Active
    }

    /// TCP's answer to a segment.
    pub(super) fn passive(&self) -> bool {
        self.sort() == Sort::Passive
    }

    /// The peer's RST, and it ended something.
    pub(super) fn obeyed(&self) -> bool {
        self.sort() == Sort::Obeyed
    }

    fn sort(&self) -> Sort {
        *self.sort.get_or_init(|| match self.record.kind {
            kind::RST_RECEIVED => Sort::Obeyed,
            kind::RST_SENT => match self.record.hook {
                hook::NF_SEND_RESET | hook::NF_SEND_RESET6 => Sort::Firewall,
                _ if self.looks_like_mptcp() => Sort::Mptcp,
                _ if self.has(flag::PACKET) => Sort::Passive,
                _ => Sort::Active,
            },
            _ => Sort::Other,
        })
    }

    fn looks_like_mptcp(&self) -> bool {
        self.mptcp_reason().is_some()
            // The subflow's code is none that this kernel has a name for.
            || self.reason_is("ERROR")
            || self.decided_by(&["mptcp_", "__mptcp_", "subflow_"])
            || self.mptcp_fastclose()
            || self.mptcp_refuses()
    }

    /// The whole connection is ended at once. Some kernels close each subflow as if by SO_LINGER 0. Without a stack,
    /// MPTCP is known by its mark; a subflow that close() itself resets is in CLOSE.
    pub(super) fn mptcp_fastclose(&self) -> bool {
        if self.has(flag::PACKET) {
            return false;
        }
        let unseen = self.no_path() && self.has(flag::MPTCP) && self.record.state != states::CLOSE;
        self.site.has("mptcp_do_fastclose")
            || self.site.is("tcp_disconnect") && self.site.has("__mptcp_close_ssk")
            || self.reason_is("TCP_ABORT_ON_CLOSE") && (self.decided_by(&["mptcp_", "__mptcp_"]) || unseen)
    }

    /// A segment of a handshake is refused. Without a stack MPTCP's listener is known by its mark: TCP itself has a word
    /// for each of its own answers.
    pub(super) fn mptcp_refuses(&self) -> bool {
        let unseen = self.no_path()
            && self.told("NOT_SPECIFIED") == Some(Certainty::Certain)
            && self.has(flag::MPTCP | flag::SOCKET | flag::FULL)
            && self.record.state == states::LISTEN;
        self.has(flag::PACKET) && (self.decided_by(&["subflow_"]) || unseen)
    }

    /// MPTCP may have answered in place of TCP: on a listener of its own, on a kernel that tells neither path nor reason.
    pub(super) fn mptcp_may_refuse(&self) -> bool {
        let told = self.reason.is_some_and(|reason| reason.from == ReasonFrom::Kernel);
        self.has(flag::MPTCP) && self.no_path() && !told
    }

    /// The function that decided has a name that begins so.
    fn decided_by(&self, prefixes: &[&str]) -> bool {
        self.site.function.is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Which function decided is not known.
    pub(super) fn no_path(&self) -> bool {
        self.site.function.is_none()
    }

    /// The reason, where it is one of MPTCP's own.
    pub(super) fn mptcp_reason(&self) -> Option<&'a str> {
        self.reason.map(|reason| reason.name.as_str()).filter(|name| name.starts_with("MPTCP_RST_"))
    }

    /// It answers a segment that met a full socket in this state.
    pub(super) fn answers_in(&self, state: u8) -> bool {
        self.passive() && self.has(flag::SOCKET | flag::FULL) && self.record.state == state
    }

    /// It answers a segment of a handshake whose request waits in a listener's queue: `tcp_check_req` does.
    pub(super) fn answers_request(&self) -> bool {
        self.answers_in(states::LISTEN) && (self.site.is("tcp_check_req") || self.reason_is("INVALID_SYN"))
    }

    /// It answers the ACK of a SYN cookie, whose new child refused it: from 7.2 on in the listener's name.
    pub(super) fn answers_cookie(&self) -> bool {
        const REFUSED: [&str; 4] =
            ["TCP_OLD_ACK", "TCP_TOO_OLD_ACK", "TCP_ACK_UNSENT_DATA", "TCP_ABORT_ON_DATA"];
        self.answers_in(states::LISTEN)
            && !self.answers_request()
            && REFUSED.iter().any(|reason| self.reason_is(reason))
    }

    /// It answers a segment that met a listener, but no request and no cookie of its own.
    pub(super) fn answers_stray(&self) -> bool {
        self.answers_in(states::LISTEN) && !self.answers_request() && !self.answers_cookie()
    }

    /// It answers the last ACK of a handshake.
    pub(super) fn answers_last_ack(&self) -> bool {
        self.answers_request() && !self.segment_is(SYN)
    }

    /// It answers a segment that met no socket.
    pub(super) fn answers_nobody(&self) -> bool {
        self.passive() && !self.has(flag::SOCKET)
    }

    /// The connection that the answered segment belonged to, which ended before: it met nobody, or the listener that has
    /// the port. A SYN belongs to a new one.
    pub(super) fn ended(&self) -> Option<&'a Memory> {
        let late = self.answers_nobody() && !self.segment_is(SYN) || self.answers_stray();
        (late && self.has(flag::PAST)).then_some(&self.record.past)
    }

    /// Whether all these bits of [`flag`] are set.
    pub(super) fn has(&self, bits: u32) -> bool {
        self.record.flags & bits == bits
    }

    /// Whether the segment has one of these flags of the TCP header.
    pub(super) fn segment_is(&self, bits: u8) -> bool {
        self.record.packet.flags & bits != 0
    }

    pub(super) fn reason_is(&self, name: &str) -> bool {
        self.reason.is_some_and(|reason| reason.name == name)
    }

    /// For reasons with one meaning: how much it says that this is the reason. `None`: it is another one.
    pub(super) fn told(&self, name: &str) -> Option<Certainty> {
        let reason = self.reason.filter(|reason| reason.name == name)?;
        Some(match reason.from {
            ReasonFrom::Kernel => Certainty::Certain,
            ReasonFrom::Inferred => Certainty::Likely,
        })
    }

    /// The segment closed an orphan on its way to FIN_WAIT2, which `TCP_LINGER2` forbids.
    pub(super) fn linger2_abort(&self) -> bool {
        let half_closed = matches!(self.began, None | Some(states::FIN_WAIT1 | states::FIN_WAIT2));
        self.answers_in(states::CLOSE) && self.orphan() && self.record.socket.linger2 < 0 && half_closed
    }

    pub(super) fn orphan(&self) -> bool {
        self.has(flag::DEAD)
    }

    pub(super) fn minisock(&self) -> bool {
        state::is_minisock(self.record)
    }

    /// Both sides, or an orphan's own, are closed, and a minisock waits for what is still on its way.
    pub(super) fn waits_out(&self) -> bool {
        self.began == Some(states::TIME_WAIT) || self.began == Some(states::FIN_WAIT2) && self.minisock()
    }

    /// `SO_LINGER` with time 0.
    pub(super) fn lingers_zero(&self) -> bool {
        let socket = &self.record.socket;
        socket.flags & SOCK_LINGER != 0 && socket.lingertime == 0
    }

    pub(super) fn began_name(&self) -> &'static str {
        self.began.and_then(states::name).unwrap_or("an unknown state")
    }
}

/// What a rule says of its own row.
#[derive(Debug)]
pub struct Verdict {
    certainty: Certainty,
    evidence: Vec<Text>,
    fix: Option<Text>,
}

impl Verdict {
    pub(super) fn new(certainty: Certainty) -> Self {
        Self { certainty, evidence: Vec::new(), fix: None }
    }

    pub(super) fn certain() -> Self {
        Self::new(Certainty::Certain)
    }

    pub(super) fn likely() -> Self {
        Self::new(Certainty::Likely)
    }

    pub(super) fn possible() -> Self {
        Self::new(Certainty::Possible)
    }

    pub(super) fn with<T: Into<Text>>(mut self, evidence: impl IntoIterator<Item = T>) -> Self {
        self.evidence.extend(evidence.into_iter().map(Into::into));
        self
    }

    /// Replaces the row's remedy, where the facts allow a better one.
    pub(super) fn fix<T: Into<Text>>(mut self, fix: Option<T>) -> Self {
        self.fix = fix.map(Into::into);
        self
    }

    /// The row's cause with words of its own, for what is not told from one record.
    pub(super) fn say(self, spec: &Spec, summary: String) -> Cause {
        let fix = self.fix.or(spec.fix.map(Text::Borrowed));
        Cause { id: spec.id, certainty: self.certainty, summary, evidence: self.evidence, fix }
    }

    fn cause(self, spec: &Spec, facts: &Facts<'_>) -> Cause {
        self.say(spec, sentence(spec.summary, facts))
    }
}

/// The cause: the row of the catalogue whose rule speaks.
pub fn diagnose(facts: &Facts<'_>) -> Cause {
    let mut speaking = catalog::all()
        .filter(|spec| spec.events.contains(&facts.kind))
        .filter_map(|spec| Some((spec, (spec.rule?)(facts)?)));
    let Some((spec, verdict)) = speaking.next() else {
        return catalog::unknown(facts).cause(&catalog::UNKNOWN, facts);
    };
    debug_assert!(verdict.certainty <= spec.certainty, "{} is never that certain", spec.id);
    debug_assert_eq!(speaking.next().map(|(other, _)| other.id), None, "beside {}", spec.id);
    verdict.cause(spec, facts)
}

/// Fills a sentence of the catalogue.
fn sentence(template: &str, facts: &Facts<'_>) -> String {
    let mut text = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, word, after)) = blank(rest) {
        text.push_str(before);
        match word {
            "owner" => match facts.owner {
                Some(owner) => push_owner(&mut text, owner),
                None => text.push_str(NOBODY),
            },
            "local" => push_endpoint(&mut text, facts.local),
            "remote" => push_endpoint(&mut text, facts.remote),
            "port" => text.push_str(itoa::Buffer::new().format(facts.local.port)),
            "state" => text.push_str(facts.began_name()),
            other => text.extend(["{", other, "}"]),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The first word in braces, and what stands before and behind it.
fn blank(text: &str) -> Option<(&str, &str, &str)> {
    let open = memchr(b'{', text.as_bytes())?;
    let (before, inner) = (&text[..open], &text[open + 1..]);
    let close = memchr(b'}', inner.as_bytes())?;
    Some((before, &inner[..close], &inner[close + 1..]))
}

/// Stands for an owner who is not known.
pub(super) const NOBODY: &str = "a process that tcpwatch does not know";

/// `nginx[812]`.
pub(super) fn name_owner(owner: &OwnerInfo) -> String {
    let mut text = String::new();
    push_owner(&mut text, owner);
    text
}

fn push_endpoint(text: &mut String, endpoint: Endpoint) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{endpoint}");
}

fn push_owner(text: &mut String, owner: &OwnerInfo) {
    text.push_str(&owner.comm);
    if let Some(pid) = owner.pid {
        text.extend(["[", itoa::Buffer::new().format(pid), "]"]);
    }
}

#[cfg(test)]
mod tests;
