//! RSTs of netfilter, which no TCP counter sees.

use super::evidence::segment;
use super::{Harm, RST_SENT, Spec};
use crate::diagnose::cause::{Facts, Verdict};
use crate::event::Certainty;

pub(super) const CAUSES: &[Spec] = &[Spec {
    id: "firewall-reject",
    events: RST_SENT,
    summary: "a firewall rule of this host rejected the segment from {remote} with a reset",
    many: "{count} segments were rejected by this host's firewall",
    fix: Some("find the rule: `nft list ruleset | grep -n reject`, `iptables-save | grep -n REJECT`"),
    evidence: "netfilter sent the RST; the hook it did so at, and the engine where the stack names it",
    certainty: Certainty::Certain,
    harm: Harm::Warning,
    sites: &["F1"],
    source: "net/ipv4/netfilter/nf_reject_ipv4.c: nf_send_reset",
    since: "5.10",
    words: &[],
    rule: Some(reject),
}];

fn reject(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.by_firewall() {
        return None;
    }
    let site = facts.site;
    let sender = site.function.unwrap_or("nf_send_reset");
    let at = hook_name(facts.record.packet.nf_hook);
    let engine = if site.has_prefix("nft_") {
        Some("nftables")
    } else if site.has("reject_tg") || site.has("reject_tg6") || site.has_prefix("ipt_") {
        Some("iptables")
    } else {
        None
    };
    Some(
        Verdict::certain()
            .with([format!("{sender} at netfilter's {at}")])
            .with(engine.map(|engine| format!("the rule is one of {engine}")))
            .with([segment(facts)]),
    )
}

/// `netfilter`'s hooks by number.
fn hook_name(number: u8) -> &'static str {
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]
        .get(usize::from(number))
        .unwrap_or(&"an unknown hook")
}
