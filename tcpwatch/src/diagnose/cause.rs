//! The cause of an event: site, reason and the flow's past put together. Pure: values in, verdict out.

mod active;
pub(super) mod late;
mod passive;
mod received;

use super::site::Site;
use super::{catalog, listen, reason, state};
use crate::event::{Cause, Certainty, Endpoint, OwnerInfo, Reason, TaskInfo, flag_names};
use std::fmt::Write as _;
use tcpwatch_common::hook;
use tcpwatch_common::record::{Record, flag, kind};

/// Everything that a cause may rest on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub record: &'a Record,
    pub site: &'a Site<'a>,
    pub reason: Option<&'a Reason>,
    /// The state in which the act began.
    pub began: Option<u8>,
    pub owner: Option<&'a OwnerInfo>,
    pub task: Option<&'a TaskInfo>,
    /// What the listener did, on listen events.
    pub listen: Option<&'a listen::Verdict>,
    pub local: Endpoint,
    pub remote: Endpoint,
}

impl Facts<'_> {
    fn has(&self, bit: u32) -> bool {
        self.record.flags & bit != 0
    }

    fn reason_is(&self, name: &str) -> bool {
        self.reason.is_some_and(|reason| reason.name == name)
    }

    /// The function that decided is known, or the kernel gave the reason: the path is certain, not deduced.
    fn path_known(&self) -> bool {
        self.site.function.is_some()
    }

    fn began_name(&self) -> &'static str {
        self.began.and_then(tcpwatch_common::state::name).unwrap_or("an unknown state")
    }

    /// The segment at hand, for evidence.
    fn segment(&self) -> String {
        let packet = self.record.packet;
        let mut text = format!("segment {} seq {} ack {}", flag_names(packet.flags), packet.seq, packet.ack);
        if packet.len > 0 {
            let _ = write!(text, ", {} bytes", packet.len);
        }
        text
    }
}

/// The cause, or `None` where the evidence speaks for none.
pub fn diagnose(facts: &Facts<'_>) -> Option<Cause> {
    match facts.record.kind {
        kind::RST_SENT if matches!(facts.record.hook, hook::NF_SEND_RESET | hook::NF_SEND_RESET6) => {
            Some(firewall(facts))
        }
        kind::RST_SENT => mptcp(facts).or_else(|| {
            if facts.has(flag::PACKET) { passive::diagnose(facts) } else { active::diagnose(facts) }
        }),
        kind::RST_RECEIVED => received::obeyed(facts),
        kind::RST_IGNORED => Some(received::ignored(facts)),
        kind::LISTEN_DROP => listen_drop(facts),
        kind::TW_OVERFLOW => Some(late::refused_now(facts)),
        _ => None,
    }
}

/// What is said when there is no evidence: what little is known.
pub fn unknown(facts: &Facts<'_>) -> Cause {
    let mut evidence = Vec::new();
    if let Some(reason) = facts.reason {
        evidence.push(format!("reason {} ({})", reason.name, reason.from.name()));
    }
    if let Some(function) = facts.site.function {
        evidence.push(format!("decided in {function}"));
    }
    if facts.has(flag::PACKET) {
        evidence.push(facts.segment());
    }
    if facts.site.frames.is_empty() {
        evidence.push(
            "no symbols: the kernel hides them (kernel.kptr_restrict), or there was no stack".to_owned(),
        );
    }
    Verdict::new("unknown", Certainty::Unknown).with(evidence).cause(facts)
}

/// A cause in the making.
#[derive(Debug)]
struct Verdict {
    id: &'static str,
    certainty: Certainty,
    evidence: Vec<String>,
    fix: Option<String>,
}

impl Verdict {
    fn new(id: &'static str, certainty: Certainty) -> Self {
        Self { id, certainty, evidence: Vec::new(), fix: None }
    }

    fn certain(id: &'static str) -> Self {
        Self::new(id, Certainty::Certain)
    }

    fn likely(id: &'static str) -> Self {
        Self::new(id, Certainty::Likely)
    }

    fn possible(id: &'static str) -> Self {
        Self::new(id, Certainty::Possible)
    }

    /// Certain where the code path is known, likely where only the socket's fields speak.
    fn by_path(id: &'static str, facts: &Facts<'_>) -> Self {
        if facts.path_known() { Self::certain(id) } else { Self::likely(id) }
    }

    fn with(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    fn fix(mut self, fix: impl Into<Option<String>>) -> Self {
        self.fix = fix.into();
        self
    }

    fn cause(self, facts: &Facts<'_>) -> Cause {
        let spec = catalog::find(self.id);
        let template = spec.map_or(self.id, |spec| spec.summary);
        let fix = self.fix.or_else(|| spec.and_then(|spec| spec.fix).map(str::to_owned));
        Cause {
            id: self.id,
            certainty: self.certainty,
            summary: sentence(template, facts),
            evidence: self.evidence,
            fix,
        }
    }
}

/// Fills a sentence of the catalogue.
fn sentence(template: &str, facts: &Facts<'_>) -> String {
    let owner = facts.owner.map_or_else(|| NOBODY.to_owned(), name_owner);
    template
        .replace("{owner}", &owner)
        .replace("{local}", &facts.local.to_string())
        .replace("{remote}", &facts.remote.to_string())
        .replace("{port}", &facts.local.port.to_string())
        .replace("{state}", facts.began_name())
}

/// Stands for an owner who is not known.
pub(super) const NOBODY: &str = "a process that tcpwatch does not know";

/// `nginx[812]`.
pub(super) fn name_owner(owner: &OwnerInfo) -> String {
    match owner.pid {
        Some(pid) => format!("{}[{pid}]", owner.comm),
        None => owner.comm.clone(),
    }
}

/// `netfilter`'s hooks by number.
fn nf_hook(number: u8) -> &'static str {
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]
        .get(usize::from(number))
        .unwrap_or(&"an unknown hook")
}

fn firewall(facts: &Facts<'_>) -> Cause {
    let packet = facts.record.packet;
    let mut evidence = Vec::new();
    let sender = facts.site.function.unwrap_or("nf_send_reset");
    evidence.push(format!("{sender} at netfilter's {}", nf_hook(packet.nf_hook)));
    let engine = if facts.site.has_prefix("nft_") {
        Some("nftables")
    } else if facts.site.has("reject_tg") || facts.site.has("reject_tg6") || facts.site.has_prefix("ipt_") {
        Some("iptables")
    } else {
        None
    };
    evidence.extend(engine.map(|engine| format!("the rule is one of {engine}")));
    evidence.push(facts.segment());
    Verdict::certain("firewall-reject").with(evidence).cause(facts)
}

/// MPTCP names its own reasons.
fn mptcp(facts: &Facts<'_>) -> Option<Cause> {
    let function = facts.site.function.unwrap_or_default();
    let evidence = |text: &str| {
        let mut all = vec![text.to_owned()];
        all.extend(facts.site.function.map(|function| format!("decided in {function}")));
        all
    };
    let named = facts.reason.and_then(|reason| match reason.name.as_str() {
        "MPTCP_RST_EUNSPEC" => Some("mptcp-eunspec"),
        "MPTCP_RST_EMPTCP" => Some("mptcp-emptcp"),
        "MPTCP_RST_ERESOURCE" => Some("mptcp-eresource"),
        "MPTCP_RST_EPROHIBIT" => Some("mptcp-eprohibit"),
        "MPTCP_RST_EWQ2BIG" => Some("mptcp-ewq2big"),
        "MPTCP_RST_EBADPERF" => Some("mptcp-ebadperf"),
        "MPTCP_RST_EMIDDLEBOX" => Some("mptcp-emiddlebox"),
        _ => None,
    });
    if let Some(id) = named {
        return Some(Verdict::certain(id).with(evidence("the kernel's MPTCP reason")).cause(facts));
    }
    let theirs = ["mptcp_", "__mptcp_"].iter().any(|prefix| function.starts_with(prefix));
    // Without a stack, MPTCP is known by its mark; a plain close of a subflow has a socket that is shut.
    let fast = facts.site.has("mptcp_do_fastclose")
        || facts.reason_is("TCP_ABORT_ON_CLOSE") && (theirs || function.is_empty() && facts.has(flag::MPTCP));
    if fast && !facts.has(flag::PACKET) {
        return Some(
            Verdict::by_path("mptcp-fastclose", facts).with(evidence("an MPTCP subflow")).cause(facts),
        );
    }
    if function.starts_with("subflow_") && facts.has(flag::PACKET) {
        let mut all = evidence("an MPTCP join or first segment was refused");
        all.push(facts.segment());
        return Some(Verdict::certain("mptcp-join-refused").with(all).cause(facts));
    }
    let reset = theirs || function.starts_with("subflow_");
    reset.then(|| {
        Verdict::certain("mptcp-subflow-reset")
            .with(evidence("this kernel does not tell the MPTCP reason"))
            .cause(facts)
    })
}

fn listen_drop(facts: &Facts<'_>) -> Option<Cause> {
    let verdict = facts.listen?;
    let listen = &facts.record.listen;
    let fix = if verdict.id == "accept-queue-full" { listen::accept_fix(listen) } else { None };
    Some(
        Verdict::new(verdict.id, verdict.certainty)
            .with(verdict.evidence.iter().cloned())
            .fix(fix)
            .cause(facts),
    )
}

/// `17 ms`, `3.2 s`: short, as a reader takes it in.
fn span(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..100_000_000_000 => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests;
