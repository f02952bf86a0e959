//! THE TABLE of causes: what `explain`, the documentation, metric labels and every verdict are derived from.
//!
//! Everything about a cause stands in its row, its rule beside it. Rules exclude each other, so the order of rows is for
//! readers only; [`super::cause::diagnose`] holds them to that in debug builds.
//!
//! Sentences may contain `{owner}`, `{local}`, `{remote}`, `{port}` and `{state}`; [`Spec::many`] contains `{count}`.

mod active;
pub(super) mod evidence;
mod firewall;
mod late;
mod leak;
mod listener;
mod mptcp;
mod page;
mod passive;
mod received;
pub mod sites;

pub use page::page;

pub(super) use evidence::raise_tw_buckets;
pub(super) use leak::leaked;

use super::cause::{Facts, Verdict};
use super::words::{Dictionary, Word};
use crate::event::{Certainty, EventKind};
use tcpwatch_common::record::flag;

/// What a cause does to those who depend on this host; the order of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// As a rule nobody suffers: scans, leftovers, ordinary endings.
    Noise,
    /// Nobody suffers yet.
    Warning,
    /// Connections are cut that somebody used.
    Broken,
    /// Connections or their data are lost, and nobody chose that.
    Refused,
}

impl Harm {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Refused => "refused",
        }
    }
}

/// One cause.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Stable, kebab-case.
    pub id: &'static str,
    /// The events that it explains.
    pub events: &'static [EventKind],
    /// What happened, for one event. No full stop.
    pub summary: &'static str,
    /// The same for `{count}` of them.
    pub many: &'static str,
    /// What to change. `None` where there is nothing wrong with this host.
    pub fix: Option<&'static str>,
    /// What must be seen before this cause is given. No full stop.
    pub evidence: &'static str,
    /// The best it can reach.
    pub certainty: Certainty,
    /// As a rule.
    pub harm: Harm,
    /// The [`sites`] that it covers.
    pub sites: &'static [&'static str],
    /// Where the kernel decides.
    pub source: &'static str,
    /// The first kernel that does so, of those that tcpwatch supports.
    pub since: &'static str,
    /// The kernel's words that lead to it: `tcpwatch explain` and `docs/reasons.md` show it there.
    pub words: &'static [Lead],
    /// Speaks where the facts are evidence for this cause. `None`: not told from a single record.
    pub rule: Option<fn(&Facts<'_>) -> Option<Verdict>>,
}

/// What a word of the kernel's stands for where this is the cause.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    pub dictionary: Dictionary,
    pub word: &'static str,
    /// The act, or what goes wrong. No full stop.
    pub what: &'static str,
}

impl Lead {
    /// Whether it belongs to this word.
    pub fn is_of(&self, dictionary: Dictionary, word: &Word) -> bool {
        self.dictionary == dictionary && self.word == word.name
    }
}

const fn reset(word: &'static str, what: &'static str) -> Lead {
    Lead { dictionary: Dictionary::Reset, word, what }
}

const fn dropped(word: &'static str, what: &'static str) -> Lead {
    Lead { dictionary: Dictionary::Drop, word, what }
}

const fn in_state(word: &'static str, what: &'static str) -> Lead {
    Lead { dictionary: Dictionary::State, word, what }
}

const fn counter(word: &'static str, what: &'static str) -> Lead {
    Lead { dictionary: Dictionary::Counter, word, what }
}

const RST_SENT: &[EventKind] = &[EventKind::RstSent];
const RST_RECEIVED: &[EventKind] = &[EventKind::RstReceived];
const LISTEN_DROP: &[EventKind] = &[EventKind::ListenDrop];

/// The causes, grouped as in the documentation.
const GROUPS: &[&[Spec]] = &[
    passive::CAUSES,
    late::CAUSES,
    active::CAUSES,
    firewall::CAUSES,
    mptcp::CAUSES,
    listener::CAUSES,
    leak::CAUSES,
    received::CAUSES,
    &[UNKNOWN],
];

/// What stands in for a cause where no rule speaks.
pub(super) const UNKNOWN: Spec = Spec {
    id: "unknown",
    events: &EventKind::ALL,
    summary: "there is evidence for none of the known causes",
    many: "{count} events have no known cause",
    fix: None,
    evidence: "no rule speaks; what little is known is listed",
    certainty: Certainty::Unknown,
    harm: Harm::Broken,
    sites: &[],
    source: "",
    since: "5.10",
    words: &[],
    rule: None,
};

/// Every cause, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Spec> + Clone {
    GROUPS.iter().copied().flatten()
}

/// The cause of that id.
pub fn find(id: &str) -> Option<&'static Spec> {
    all().find(|spec| spec.id == id)
}

/// What there is to say without a cause.
pub(super) fn unknown(facts: &Facts<'_>) -> Verdict {
    let verdict = Verdict::new(Certainty::Unknown);
    if let Some(past) = late::unseen(facts) {
        return verdict.with([past, evidence::segment(facts)]);
    }
    let mut known = Vec::new();
    if let Some(reason) = facts.reason {
        known.push(format!("reason {} ({})", reason.name, reason.from.name()));
    }
    if let Some(function) = facts.site.function {
        known.push(format!("decided in {function}"));
    }
    if facts.has(flag::PACKET) {
        known.push(evidence::segment(facts));
    }
    if facts.site.frames.is_empty() {
        known.push(
            "no symbols: the kernel hides them (kernel.kptr_restrict), or there was no stack".to_owned(),
        );
    }
    verdict.with(known)
}

impl Spec {
    /// [`Self::many`] with a figure that a reader can take in: `4,000,000 connects were refused`.
    pub fn counted(&self, count: u64) -> String {
        let digits = count.to_string();
        let mut grouped = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        self.many.replace("{count}", &grouped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_kebab_case() {
        for (i, spec) in all().enumerate() {
            assert!(
                spec.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{}",
                spec.id
            );
            assert!(all().take(i).all(|other| other.id != spec.id), "{} twice", spec.id);
            assert!(!spec.events.is_empty(), "{}", spec.id);
        }
    }

    #[test]
    fn sentences_use_known_words_only() {
        let known = ["{owner}", "{local}", "{remote}", "{port}", "{state}"];
        for spec in all() {
            let mut text = spec.summary.to_owned();
            for word in known {
                text = text.replace(word, "");
            }
            assert!(!text.contains(['{', '}']), "{}: {text}", spec.id);
            for text in [spec.summary, spec.many, spec.evidence, spec.fix.unwrap_or_default()] {
                assert!(!text.ends_with('.'), "{}: {text}", spec.id);
            }
            assert!(!spec.evidence.is_empty(), "{}", spec.id);
        }
    }

    #[test]
    fn many_is_a_sentence_for_any_number_above_one() {
        for spec in all() {
            let noun = spec.many.strip_prefix("{count} ").unwrap_or_else(|| panic!("{}", spec.id));
            assert!(!noun.contains(['{', '}']), "{}: {noun}", spec.id);
            let subject = noun.split(' ').take(3);
            assert!(subject.into_iter().any(|word| word.ends_with('s')), "{}: not a plural: {noun}", spec.id);
        }
        let counted = |count| find("connection-refused").unwrap().counted(count);
        assert_eq!(counted(2), "2 connects were refused");
        assert_eq!(counted(123_456), "123,456 connects were refused");
        assert_eq!(counted(4_000_000), "4,000,000 connects were refused");
    }

    #[test]
    fn the_contract_is_complete() {
        let ids = "closed-port tw-bucket-overflow fin-wait2-timeout connection-timed-out late-segment data-after-close \
            linger2-abort stray-segment-to-listener accept-queue-overflow syn-in-handshake bad-handshake-ack \
            forgotten-connect listener-closed close-with-unread-data linger-zero disconnect socket-destroyed \
            keepalive-timeout orphan-limit out-of-memory orphan-timeout firewall-reject mptcp-fastclose \
            connection-refused reset-by-peer reset-after-peer-close reset-in-handshake reset-in-time-wait rst-ignored \
            accept-queue-full syn-queue-full syn-cookies-sent syn-cookie-invalid listen-no-memory listen-refused \
            close-wait-leak unknown";
        for id in ids.split_ascii_whitespace() {
            assert!(find(id).is_some(), "{id} is missing");
        }
    }
}
