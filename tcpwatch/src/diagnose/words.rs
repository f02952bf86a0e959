//! The dictionary of words that are not tcpwatch's own: the kernel's reset and drop reasons, TCP states, counters; and the
//! values of a few fields of events. Pure data; `tcpwatch explain` and `docs/reasons.md` are made of it.

use super::catalog::{self, Spec};

pub mod counter;
pub mod drop;
pub mod field;
pub mod reset;
pub mod state;

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// As the kernel spells it, without the prefix of its enum.
    pub name: &'static str,
    /// Other spellings that people paste.
    pub aliases: &'static [&'static str],
    /// One line. No full stop.
    pub brief: &'static str,
    /// Sentences.
    pub means: &'static str,
    /// Where to look, one sentence each. No full stop.
    pub look: &'static [&'static str],
    /// Names in any dictionary.
    pub see: &'static [&'static str],
}

/// An act, and what tcpwatch calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    pub what: &'static str,
    /// An id of [`super::catalog`].
    pub cause: &'static str,
}

/// A table of words: the name, then `also:` other spellings, one line, sentences, and what is known beyond them.
macro_rules! words {
    ($($name:literal $(also: [$($alias:literal),*])? $brief:literal
        $means:literal
        $(look: [$($look:literal),* $(,)?])?
        $(see: [$($see:literal),*])?;)*) => {
        &[$($crate::diagnose::words::Word {
            name: $name,
            aliases: &[$($($alias),*)?],
            brief: $brief,
            means: $means,
            look: &[$($($look),*)?],
            see: &[$($($see),*)?],
        }),*]
    };
}
use words;

/// What kind of name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dictionary {
    Reset,
    Drop,
    State,
    Counter,
    Event,
    Owner,
}

impl Dictionary {
    /// In the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Reset, Self::Drop, Self::State, Self::Counter, Self::Event, Self::Owner];

    /// The name in JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Reset => "reset_reason",
            Self::Drop => "drop_reason",
            Self::State => "state",
            Self::Counter => "counter",
            Self::Event => "event",
            Self::Owner => "owner.how",
        }
    }

    /// What one of its words is.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Reset => "reset reason of the kernel (sk_rst_reason)",
            Self::Drop => "drop reason of the kernel (skb_drop_reason)",
            Self::State => "TCP state",
            Self::Counter => "counter of the kernel",
            Self::Event => "event of tcpwatch (`event` in JSON)",
            Self::Owner => "how tcpwatch knows an owner (`owner.how` in JSON)",
        }
    }

    /// Above the list of all its words.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Reset => "Reset reasons: what the kernel says of an RST that it sends, since 6.10",
            Self::Drop => "Drop reasons: what the kernel says of a segment that it throws away, since 5.17",
            Self::State => "TCP states",
            Self::Counter => "Counters: nstat -az, netstat -s, /proc/net/snmp, /proc/net/netstat",
            Self::Event => "Events",
            Self::Owner => "How an owner is known",
        }
    }

    /// Above the acts of a word.
    pub const fn acts(self) -> &'static str {
        match self {
            Self::Reset => "Carried by",
            Self::Drop => "Happens when",
            Self::State => "What goes wrong in it",
            Self::Counter => "Counted when",
            Self::Event | Self::Owner => "Causes",
        }
    }

    pub const fn words(self) -> &'static [Word] {
        match self {
            Self::Reset => reset::WORDS,
            Self::Drop => drop::WORDS,
            Self::State => state::WORDS,
            Self::Counter => counter::WORDS,
            Self::Event => field::EVENTS,
            Self::Owner => field::OWNERS,
        }
    }

    /// What people paste before the name, the longest first.
    const fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Reset => &["SK_RST_REASON_"],
            Self::Drop => &["SKB_DROP_REASON_", "SKB_"],
            Self::State => &["TCP_"],
            Self::Counter => &["TCPEXT", "LINUX_MIB_", "TCP_MIB_", "TCP"],
            Self::Event | Self::Owner => &[],
        }
    }

    /// Whether a typed name means this one: letters of either case, `-` for `_`, with the kernel's prefix or without.
    pub fn is(self, typed: &str, name: &str) -> bool {
        let (typed, name) = (self.key(typed), self.key(name));
        typed == name
            || self
                .prefixes()
                .iter()
                .any(|prefix| typed.strip_prefix(*prefix).is_some_and(|rest| rest == name))
    }

    /// States are also written without any line between their words.
    fn key(self, name: &str) -> String {
        let key = name.to_ascii_uppercase().replace('-', "_");
        match (self, key.strip_prefix("TCP_")) {
            (Self::State, rest) => rest.unwrap_or(&key).replace('_', ""),
            _ => key,
        }
    }

    /// What leads to one of its words, or goes wrong in it, as the rows of the catalogue say.
    pub fn acts_of(self, word: &Word) -> Vec<Act> {
        let acts = |spec: &'static Spec| {
            spec.words
                .iter()
                .filter(|lead| lead.is_of(self, word))
                .map(|lead| Act { what: lead.what, cause: spec.id })
        };
        catalog::all().flat_map(acts).collect()
    }

    /// The word for a name.
    pub fn find(self, typed: &str) -> Option<&'static Word> {
        self.words()
            .iter()
            .find(|word| self.is(typed, word.name) || word.aliases.iter().any(|alias| self.is(typed, alias)))
    }
}

/// The page `docs/reasons.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# The kernel's names\n\nReset reasons, drop reasons, states and counters, as `tcpwatch explain NAME` tells them. Behind \
         an arrow stands the [cause](causes.md) that tcpwatch gives.\n",
    );
    for dictionary in [Dictionary::Reset, Dictionary::Drop, Dictionary::State, Dictionary::Counter] {
        page.push_str(&format!("\n## {}\n", dictionary.heading()));
        for word in dictionary.words() {
            page.push_str(&format!("\n### {}\n\n{}. {}\n", word.name, capital(word.brief), word.means));
            let acts = dictionary.acts_of(word);
            if !acts.is_empty() {
                page.push_str(&format!("\n{}:\n\n", dictionary.acts()));
            }
            for Act { what, cause } in acts {
                page.push_str(&format!("- {what} → [{cause}](causes.md#{cause})\n"));
            }
            if !word.look.is_empty() {
                page.push_str("\nLook at:\n\n");
            }
            for look in word.look {
                page.push_str(&format!("- {look}\n"));
            }
        }
    }
    page
}

/// A sentence begins with a capital letter.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Entries of the kernel's enums that are no reasons: how many there are, and a mask.
pub const NO_REASONS: [&str; 2] = ["MAX", "SUBSYS_MASK"];

#[cfg(test)]
mod tests;
