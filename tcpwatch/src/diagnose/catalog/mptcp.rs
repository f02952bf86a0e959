//! RSTs of MPTCP subflows. Where the kernel names MPTCP's reason, that is the cause; else the function that decided
//! tells.

use super::evidence::segment;
use super::{Harm, RST_SENT, Spec, reset};
use crate::diagnose::cause::{Facts, Verdict};
use crate::event::{Certainty, EventKind};
use tcpwatch_common::record::flag;
use tcpwatch_common::state::{NEW_SYN_RECV, SYN_RECV, SYN_SENT};

pub(super) const CAUSES: &[Spec] = &[
    Spec {
        id: "mptcp-fastclose",
        events: RST_SENT,
        summary: "{owner} ended an MPTCP connection at once (unread data, SO_LINGER 0, disconnect or timeout)",
        many: "{count} MPTCP subflows were reset by a fast close",
        fix: Some("let the application read what the peer sent before it closes"),
        evidence: "MPTCP's own close resets a subflow with the reason TCP_ABORT_ON_CLOSE",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A14"],
        source: "net/mptcp/protocol.c: mptcp_do_fastclose",
        since: "5.15",
        words: &[reset(
            "TCP_ABORT_ON_CLOSE",
            "the same on an MPTCP socket, or its SO_LINGER 0, or its disconnect",
        )],
        rule: Some(fastclose),
    },
    Spec {
        id: "mptcp-subflow-reset",
        events: &[EventKind::RstSent, EventKind::RstReceived],
        summary: "a subflow of an MPTCP connection was reset",
        many: "{count} MPTCP subflows were reset",
        fix: None,
        evidence: "MPTCP reset a subflow and the kernel does not tell its reason, or an RST ended one",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A15", "A16", "A17", "R9"],
        source: "net/mptcp/subflow.c: mptcp_subflow_reset",
        since: "5.10",
        words: &[],
        rule: Some(subflow_reset),
    },
    Spec {
        id: "mptcp-join-refused",
        events: RST_SENT,
        summary: "MPTCP refused a segment of a handshake, most often one that wanted to join a connection",
        many: "{count} segments that wanted to join MPTCP connections were refused",
        fix: Some("see `ip mptcp limits` and `ip mptcp endpoint`"),
        evidence: "MPTCP answered a segment of a handshake with an RST, and the kernel does not tell its reason",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["P15", "P16"],
        source: "net/mptcp/subflow.c: subflow_syn_recv_sock",
        since: "5.10",
        words: &[reset("NOT_SPECIFIED", "an MPTCP join was refused, and the code for it did not come along")],
        rule: Some(join_refused),
    },
    Spec {
        id: "mptcp-eunspec",
        events: RST_SENT,
        summary: "an MPTCP subflow was reset without a special reason",
        many: "{count} MPTCP subflows were reset without a special reason",
        fix: None,
        evidence: "the kernel's reason MPTCP_RST_EUNSPEC",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A15", "A16"],
        source: "include/net/rstreason.h: MPTCP_RST_EUNSPEC",
        since: "6.10",
        words: &[reset("MPTCP_RST_EUNSPEC", "an MPTCP subflow was reset")],
        rule: Some(|facts| named(facts, "MPTCP_RST_EUNSPEC")),
    },
    Spec {
        id: "mptcp-emptcp",
        events: RST_SENT,
        summary: "an MPTCP subflow was reset because of an error in its MPTCP options",
        many: "{count} MPTCP subflows were reset because of errors in MPTCP options",
        fix: Some("look for a middlebox that changes TCP options"),
        evidence: "the kernel's reason MPTCP_RST_EMPTCP",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A16", "A17", "P15", "P16"],
        source: "include/net/rstreason.h: MPTCP_RST_EMPTCP",
        since: "6.10",
        words: &[reset("MPTCP_RST_EMPTCP", "an MPTCP option cannot be right")],
        rule: Some(|facts| named(facts, "MPTCP_RST_EMPTCP")),
    },
    Spec {
        id: "mptcp-eresource",
        events: RST_SENT,
        summary: "an MPTCP subflow was reset for lack of resources",
        many: "{count} MPTCP subflows were reset for lack of resources",
        fix: Some("see `ip mptcp limits`"),
        evidence: "the kernel's reason MPTCP_RST_ERESOURCE",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A16", "P15", "P16"],
        source: "include/net/rstreason.h: MPTCP_RST_ERESOURCE",
        since: "6.10",
        words: &[reset("MPTCP_RST_ERESOURCE", "no room for the subflow")],
        rule: Some(|facts| named(facts, "MPTCP_RST_ERESOURCE")),
    },
    Spec {
        id: "mptcp-eprohibit",
        events: RST_SENT,
        summary: "an MPTCP subflow was refused by policy",
        many: "{count} MPTCP subflows were refused by policy",
        fix: Some("see `ip mptcp limits` and `ip mptcp endpoint`"),
        evidence: "the kernel's reason MPTCP_RST_EPROHIBIT",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A16", "P15", "P16"],
        source: "include/net/rstreason.h: MPTCP_RST_EPROHIBIT",
        since: "6.10",
        words: &[reset("MPTCP_RST_EPROHIBIT", "limits or endpoints forbid the subflow")],
        rule: Some(|facts| named(facts, "MPTCP_RST_EPROHIBIT")),
    },
    Spec {
        id: "mptcp-ewq2big",
        events: RST_SENT,
        summary: "an MPTCP subflow was reset because too much data waits on it",
        many: "{count} MPTCP subflows were reset because too much data waited on them",
        fix: None,
        evidence: "the kernel's reason MPTCP_RST_EWQ2BIG",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A16"],
        source: "include/net/rstreason.h: MPTCP_RST_EWQ2BIG",
        since: "6.10",
        words: &[reset("MPTCP_RST_EWQ2BIG", "too much data waits on the subflow")],
        rule: Some(|facts| named(facts, "MPTCP_RST_EWQ2BIG")),
    },
    Spec {
        id: "mptcp-ebadperf",
        events: RST_SENT,
        summary: "an MPTCP subflow was reset because it performs badly",
        many: "{count} MPTCP subflows were reset because they performed badly",
        fix: None,
        evidence: "the kernel's reason MPTCP_RST_EBADPERF",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A16"],
        source: "include/net/rstreason.h: MPTCP_RST_EBADPERF",
        since: "6.10",
        words: &[reset("MPTCP_RST_EBADPERF", "the subflow is too slow")],
        rule: Some(|facts| named(facts, "MPTCP_RST_EBADPERF")),
    },
    Spec {
        id: "mptcp-emiddlebox",
        events: RST_SENT,
        summary: "an MPTCP subflow was reset because a middlebox interferes",
        many: "{count} MPTCP subflows were reset because a middlebox interferes",
        fix: Some("look for a middlebox that changes TCP options or payload"),
        evidence: "the kernel's reason MPTCP_RST_EMIDDLEBOX",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A16", "A17"],
        source: "include/net/rstreason.h: MPTCP_RST_EMIDDLEBOX",
        since: "6.10",
        words: &[reset("MPTCP_RST_EMIDDLEBOX", "options or payload were changed on the way")],
        rule: Some(|facts| named(facts, "MPTCP_RST_EMIDDLEBOX")),
    },
];

fn named(facts: &Facts<'_>, reason: &str) -> Option<Verdict> {
    (facts.by_mptcp() && facts.mptcp_reason() == Some(reason))
        .then(|| Verdict::certain().with(evidence("the kernel's MPTCP reason", facts)))
}

/// MPTCP decided, and the kernel does not say why.
fn unnamed(facts: &Facts<'_>) -> bool {
    facts.by_mptcp() && facts.mptcp_reason().is_none()
}

fn fastclose(facts: &Facts<'_>) -> Option<Verdict> {
    if !unnamed(facts) || !facts.mptcp_fastclose() {
        return None;
    }
    let verdict = if facts.no_path() { Verdict::likely() } else { Verdict::certain() };
    Some(verdict.with(evidence("an MPTCP subflow", facts)))
}

fn join_refused(facts: &Facts<'_>) -> Option<Verdict> {
    (unnamed(facts) && facts.mptcp_refuses()).then(|| {
        let verdict = if facts.no_path() { Verdict::likely() } else { Verdict::certain() };
        verdict.with(evidence("an MPTCP join or first segment was refused", facts)).with([segment(facts)])
    })
}

fn subflow_reset(facts: &Facts<'_>) -> Option<Verdict> {
    if facts.obeyed() {
        let handshake = matches!(facts.began?, SYN_SENT | SYN_RECV | NEW_SYN_RECV);
        if handshake || facts.waits_out() || !facts.has(flag::MPTCP) {
            return None;
        }
        return Some(
            Verdict::certain()
                .with([
                    format!("it met the socket in {}", facts.began_name()),
                    "an MPTCP subflow: the connection may live on over others".to_owned(),
                ])
                .with(facts.has(flag::PACKET).then(|| segment(facts))),
        );
    }
    (unnamed(facts) && !facts.mptcp_refuses() && !facts.mptcp_fastclose())
        .then(|| Verdict::certain().with(evidence("this kernel does not tell the MPTCP reason", facts)))
}

/// A sentence, and the function that decided.
fn evidence(text: &str, facts: &Facts<'_>) -> Vec<String> {
    let mut all = vec![text.to_owned()];
    all.extend(facts.site.function.map(|function| format!("decided in {function}")));
    all
}
