//! `tcpwatch explain`: what a name means that tcpwatch, the kernel, `ss` or `nstat` prints.

mod render;

use super::{Error, values};
use crate::diagnose::catalog::{self, Spec};
use crate::diagnose::words::{Act, Dictionary, NO_REASONS, Word};
use crate::event::EventKind;
use crate::kernel::names::ReasonNames;
use tcpwatch_common::state;

/// A kernel whose reasons are known by number.
pub struct Kernel {
    /// What to call it: `kernel 6.12.107`.
    pub name: String,
    pub reasons: ReasonNames,
}

impl Kernel {
    /// Every reason of one of its enums; empty for a dictionary that is no enum.
    fn names(&self, dictionary: Dictionary) -> Vec<(u32, &str)> {
        let mut names = match dictionary {
            Dictionary::Reset => self.reasons.resets(),
            Dictionary::Drop => self.reasons.drops(),
            _ => Vec::new(),
        };
        names.retain(|(_, name)| !NO_REASONS.contains(name));
        names
    }

    fn number(&self, dictionary: Dictionary, word: &Word) -> Option<u32> {
        self.names(dictionary)
            .iter()
            .find(|(_, name)| dictionary.is(name, word.name))
            .map(|(number, _)| *number)
    }
}

/// What one name means in one dictionary.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Cause(&'static Spec),
    Word {
        dictionary: Dictionary,
        word: &'static Word,
        /// In the kernel's enum.
        number: Option<u32>,
    },
    /// The kernel has the name, tcpwatch has no words for it.
    Nameless {
        dictionary: Dictionary,
        name: &'a str,
        number: u32,
    },
}

impl<'a> Entry<'a> {
    fn of(dictionary: Dictionary, word: &'static Word, kernel: Option<&Kernel>) -> Self {
        let number = match dictionary {
            Dictionary::State => state_number(word.name),
            _ => kernel.and_then(|kernel| kernel.number(dictionary, word)),
        };
        Self::Word { dictionary, word, number }
    }

    /// A name of the kernel's enum.
    fn of_kernel(dictionary: Dictionary, number: u32, name: &'a str) -> Self {
        match dictionary.find(name) {
            Some(word) => Self::Word { dictionary, word, number: Some(number) },
            None => Self::Nameless { dictionary, name, number },
        }
    }

    fn name(&self) -> &'a str {
        match *self {
            Self::Cause(spec) => spec.id,
            Self::Word { word, .. } => word.name,
            Self::Nameless { name, .. } => name,
        }
    }

    /// What one line says.
    fn brief(&self) -> String {
        match *self {
            Self::Cause(spec) => plain(spec.summary),
            Self::Word { word, .. } => word.brief.to_owned(),
            Self::Nameless { dictionary: Dictionary::Drop, name, .. } if !name.starts_with("TCP_") => {
                "a drop reason of this kernel outside TCP, or newer than tcpwatch".to_owned()
            }
            Self::Nameless { .. } => "unknown to tcpwatch: newer than it".to_owned(),
        }
    }

    fn acts(&self) -> Vec<Act> {
        match self {
            Self::Word { dictionary, word, .. } => dictionary.acts_of(word),
            Self::Cause(_) | Self::Nameless { .. } => Vec::new(),
        }
    }
}

fn state_number(name: &str) -> Option<u32> {
    (0..=u8::MAX).find(|number| state::name(*number) == Some(name)).map(u32::from)
}

/// A sentence of the catalogue without an event to fill it from.
fn plain(template: &str) -> String {
    template
        .replace("{owner}", "the process")
        .replace("{local}", "the address")
        .replace("{remote}", "the peer")
        .replace("{port}", "N")
        .replace("{state}", "its state")
        .replace("{count}", "N")
}

/// The words that lead to a cause.
fn words_of(spec: &Spec) -> impl Iterator<Item = (Dictionary, &'static Word)> {
    Dictionary::ALL.into_iter().flat_map(move |dictionary| {
        let leads = move |word: &&Word| spec.words.iter().any(|lead| lead.is_of(dictionary, word));
        dictionary.words().iter().filter(leads).map(move |word| (dictionary, word))
    })
}

/// The causes that an event can have.
fn causes_of(event: &str) -> impl Iterator<Item = &'static Spec> {
    let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == event);
    catalog::all().filter(move |spec| kind.is_some_and(|kind| spec.events.contains(&kind)))
}

/// Everything that a name means, or everything there is.
pub struct Answer<'a> {
    entries: Vec<Entry<'a>>,
    /// Nobody asked for a name: one line each.
    list: bool,
    kernel: Option<&'a Kernel>,
}

/// Looks a name up; `None` asks for every name.
pub fn answer<'a>(name: Option<&str>, kernel: Option<&'a Kernel>) -> Result<Answer<'a>, Error> {
    let entries = match name {
        None => everything(kernel),
        Some(name) => lookup(name.trim(), kernel)?,
    };
    Ok(Answer { entries, list: name.is_none(), kernel })
}

fn everything(kernel: Option<&Kernel>) -> Vec<Entry<'_>> {
    let mut entries: Vec<_> = catalog::all().map(Entry::Cause).collect();
    for dictionary in Dictionary::ALL {
        entries.extend(dictionary.words().iter().map(|word| Entry::of(dictionary, word, kernel)));
        entries.extend(nameless(dictionary, kernel));
    }
    entries
}

/// What the kernel names and tcpwatch does not know.
fn nameless(dictionary: Dictionary, kernel: Option<&Kernel>) -> impl Iterator<Item = Entry<'_>> {
    let names = kernel.map(|kernel| kernel.names(dictionary)).unwrap_or_default();
    let entries = names.into_iter().map(move |(number, name)| Entry::of_kernel(dictionary, number, name));
    entries.filter(|entry| matches!(entry, Entry::Nameless { .. }))
}

fn lookup<'a>(typed: &str, kernel: Option<&'a Kernel>) -> Result<Vec<Entry<'a>>, Error> {
    if let Some(number) = values::whole(typed).filter(|_| !typed.is_empty()) {
        return by_number(typed, number, kernel);
    }
    let mut found: Vec<Entry<'_>> = Vec::new();
    found.extend(catalog::find(&kebab(typed)).map(Entry::Cause));
    for dictionary in Dictionary::ALL {
        let is_it = |entry: &Entry<'_>| dictionary.is(typed, entry.name());
        found.extend(dictionary.find(typed).map(|word| Entry::of(dictionary, word, kernel)));
        found.extend(nameless(dictionary, kernel).filter(is_it));
    }
    if found.is_empty() { Err(unknown(typed, kernel)) } else { Ok(found) }
}

fn kebab(typed: &str) -> String {
    typed.to_ascii_lowercase().replace('_', "-")
}

/// bpftrace and perf print reasons and states by number.
fn by_number<'a>(typed: &str, wanted: u64, kernel: Option<&'a Kernel>) -> Result<Vec<Entry<'a>>, Error> {
    let mut found = Vec::new();
    for dictionary in Dictionary::ALL {
        let names = kernel.map(|kernel| kernel.names(dictionary)).unwrap_or_default();
        let same = names.into_iter().filter(|(number, _)| u64::from(*number) == wanted);
        found.extend(same.map(|(number, name)| Entry::of_kernel(dictionary, number, name)));
    }
    let states = Dictionary::State.words().iter().map(|word| Entry::of(Dictionary::State, word, None));
    found.extend(states.filter(
        |entry| matches!(entry, Entry::Word { number: Some(number), .. } if u64::from(*number) == wanted),
    ));
    if !found.is_empty() {
        return Ok(found);
    }
    Err(match kernel {
        Some(kernel) => Error::usage(
            format!("no reset reason, drop reason or TCP state of {} has the number {typed}", kernel.name),
            "numbers move between kernels: give the name, or the types of the other kernel with --btf FILE",
        ),
        None => Error::failed(
            format!(
                "no TCP state has the number {typed}, and this host does not show the numbers of its reasons"
            ),
            "give the name, or the types of the kernel with --btf FILE",
        ),
    })
}

fn unknown(typed: &str, kernel: Option<&Kernel>) -> Error {
    /// More would be a list, not a hint.
    const FEW: usize = 6;
    let wanted = kebab(typed);
    let names: Vec<&str> = everything(kernel).iter().map(Entry::name).collect();
    let mut near: Vec<&str> = Vec::new();
    if wanted.len() >= 3 {
        near.extend(names.iter().filter(|name| kebab(name).contains(&wanted)));
    }
    if near.is_empty() {
        let keys: Vec<String> = names.iter().map(|name| kebab(name)).collect();
        let best = values::nearest(bare(&wanted), keys.iter().map(String::as_str));
        near.extend(names.iter().filter(|name| best == Some(&kebab(name))));
    }
    near.sort_unstable();
    near.dedup();
    let hint = match near.as_slice() {
        [] => "`tcpwatch explain` lists every name".to_owned(),
        [one] => format!("did you mean `{one}`?"),
        few if few.len() <= FEW => format!("did you mean one of: {}?", few.join(", ")),
        many => {
            format!(
                "{} names have this in them: {}, …; `tcpwatch explain` lists them",
                many.len(),
                many[..FEW].join(", ")
            )
        }
    };
    Error::usage(format!("no cause, reason, state, counter or event is called `{typed}`"), hint)
}

/// Without the prefix of the kernel's enum: it would make every name far away.
fn bare(wanted: &str) -> &str {
    ["sk-rst-reason-", "skb-drop-reason-", "tcpext"]
        .iter()
        .find_map(|prefix| wanted.strip_prefix(prefix))
        .unwrap_or(wanted)
}

#[cfg(test)]
mod tests;
