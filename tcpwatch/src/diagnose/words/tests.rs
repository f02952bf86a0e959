//! What every table keeps to.

use super::*;
use crate::diagnose::catalog;
use crate::event::EventKind;
use tcpwatch_common::{owner::how, state};

fn all() -> impl Iterator<Item = (Dictionary, &'static Word)> {
    Dictionary::ALL
        .into_iter()
        .flat_map(|dictionary| dictionary.words().iter().map(move |word| (dictionary, word)))
}

#[test]
fn every_word_that_leads_to_a_cause_exists() {
    for spec in catalog::all() {
        for lead in spec.words {
            let there = lead.dictionary.words().iter().any(|word| word.name == lead.word);
            assert!(there, "{}: {:?} has no word {}", spec.id, lead.dictionary, lead.word);
        }
    }
}

#[test]
fn every_reference_exists() {
    for (dictionary, word) in all() {
        for see in word.see {
            let there = Dictionary::ALL.iter().any(|other| other.find(see).is_some());
            assert!(
                there || catalog::find(see).is_some(),
                "{dictionary:?} {}: nothing is called {see}",
                word.name
            );
            assert!(*see != word.name, "{dictionary:?} {}: refers to itself", word.name);
        }
    }
}

#[test]
fn a_name_stands_once_and_is_found_under_all_its_spellings() {
    for (dictionary, word) in all() {
        let same = |other: &&Word| dictionary.is(word.name, other.name);
        assert_eq!(dictionary.words().iter().filter(same).count(), 1, "{dictionary:?} {}", word.name);
        for spelling in word.aliases.iter().chain([&word.name]) {
            assert_eq!(dictionary.find(spelling), Some(word), "{dictionary:?} {spelling}");
        }
    }
}

#[test]
fn lines_are_lines_and_sentences_are_sentences() {
    for (dictionary, word) in all() {
        let place = format!("{dictionary:?} {}", word.name);
        let acts = dictionary.acts_of(word);
        assert!(word.brief.chars().count() <= 71, "{place}: {} letters", word.brief.chars().count());
        assert!(!word.brief.ends_with('.') && word.means.ends_with('.'), "{place}");
        assert!(!word.means.starts_with(char::is_lowercase), "{place}");
        for part in acts.iter().map(|act| act.what).chain(word.look.iter().copied()) {
            assert!(!part.ends_with('.'), "{place}: {part}");
        }
        for text in acts.iter().map(|act| act.what).chain(word.look.iter().copied()).chain([word.means]) {
            assert!(!text.contains("  "), "{place}: {text}");
            assert!(text.matches('`').count().is_multiple_of(2), "{place}: {text}");
        }
    }
}

#[test]
fn the_kernels_spellings_and_those_of_its_tools_are_found() {
    for (dictionary, typed, name) in [
        (Dictionary::Reset, "SK_RST_REASON_TCP_STATE", "TCP_STATE"),
        (Dictionary::Reset, "tcp-state", "TCP_STATE"),
        (Dictionary::Drop, "skb_drop_reason_tcp_flags", "TCP_FLAGS"),
        (Dictionary::Drop, "SKB_CONSUMED", "CONSUMED"),
        (Dictionary::State, "CLOSE-WAIT", "CLOSE_WAIT"),
        (Dictionary::State, "close_wait", "CLOSE_WAIT"),
        (Dictionary::State, "TCP_CLOSE_WAIT", "CLOSE_WAIT"),
        (Dictionary::State, "fin-wait-2", "FIN_WAIT2"),
        (Dictionary::State, "timewait", "TIME_WAIT"),
        (Dictionary::State, "estab", "ESTABLISHED"),
        (Dictionary::State, "UNCONN", "CLOSE"),
        (Dictionary::Counter, "TcpExtListenDrops", "ListenDrops"),
        (Dictionary::Counter, "TcpOutRsts", "OutRsts"),
        (Dictionary::Counter, "tcpexttcptimewaitoverflow", "TCPTimeWaitOverflow"),
        (Dictionary::Counter, "LINUX_MIB_LISTENOVERFLOWS", "ListenOverflows"),
        (Dictionary::Event, "RST-OUT", "rst_sent"),
        (Dictionary::Event, "tw_overflow", "tw_overflow"),
    ] {
        assert_eq!(dictionary.find(typed).map(|word| word.name), Some(name), "{typed}");
    }
    for (dictionary, typed) in [
        (Dictionary::State, "STATE"),
        (Dictionary::State, "TCP_STATE"),
        (Dictionary::Counter, "TCP_ABORT_ON_DATA"),
        (Dictionary::Reset, "SK_RST_REASON_"),
        (Dictionary::Reset, ""),
        (Dictionary::State, "TCP_"),
        (Dictionary::Counter, "Tcp"),
    ] {
        assert_eq!(dictionary.find(typed), None, "{typed}");
    }
}

/// A new value of these fields needs words.
#[test]
fn every_state_event_and_owner_has_words() {
    for name in (0..=u8::MAX).filter_map(state::name) {
        assert!(Dictionary::State.find(name).is_some(), "{name}");
    }
    for kind in EventKind::ALL {
        assert!(Dictionary::Event.find(kind.name()).is_some(), "{}", kind.name());
    }
    for name in (0..=u8::MAX).filter_map(how::name) {
        assert!(Dictionary::Owner.find(name).is_some(), "{name}");
    }
}

/// Whoever adds a cause is reminded of the words that lead to it.
#[test]
fn every_cause_of_an_rst_sent_or_a_refusal_is_led_to() {
    // The firewall gives no reason and counts nowhere.
    let silent = ["firewall-reject", "mptcp-subflow-reset", "unknown"];
    for spec in catalog::all().filter(|spec| !silent.contains(&spec.id)) {
        assert!(!spec.words.is_empty(), "no word leads to {}", spec.id);
    }
}
