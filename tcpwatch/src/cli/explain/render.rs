//! Explanations for people and for programs.

use super::super::page::Page;
use super::{Answer, Entry, causes_of, plain, words_of};
use crate::diagnose::catalog::Spec;
use crate::diagnose::words::{Act, Dictionary, Word, counter};
use serde::Serialize;

/// Room for a name in a list.
const NAME: usize = 27;

impl Answer<'_> {
    /// At most 100 columns, ends with a newline.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        if self.list {
            self.list(&mut page);
            return page.text;
        }
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                page.blank();
                page.blank();
            }
            match entry {
                Entry::Cause(spec) => cause(&mut page, spec),
                Entry::Word { dictionary, word, number } => {
                    page.line(
                        0,
                        &format!(
                            "{}: {}{}",
                            word.name,
                            dictionary.what(),
                            self.place(*dictionary, word.name, *number)
                        ),
                    );
                    explain(&mut page, *dictionary, word);
                }
                Entry::Nameless { dictionary, name, number } => {
                    page.line(
                        0,
                        &format!(
                            "{name}: {}{}",
                            dictionary.what(),
                            self.place(*dictionary, name, Some(*number))
                        ),
                    );
                    page.line(2, &entry.brief());
                }
            }
        }
        page.text
    }

    /// Where the name is found.
    fn place(&self, dictionary: Dictionary, name: &str, number: Option<u32>) -> String {
        let kernel = self.kernel.map(|kernel| kernel.name.as_str());
        match (dictionary, number, kernel) {
            (Dictionary::Counter, ..) => format!(", {} for nstat", counter::nstat(name)),
            (Dictionary::State, Some(number), _) => format!(", number {number}"),
            (Dictionary::Reset | Dictionary::Drop, Some(number), Some(kernel)) => {
                format!(", {number} in {kernel}")
            }
            (Dictionary::Reset | Dictionary::Drop, None, Some(kernel)) => format!(", not in {kernel}"),
            _ => String::new(),
        }
    }

    fn list(&self, page: &mut Page) {
        page.line(0, "`tcpwatch explain NAME` tells more. Upper or lower case, `-` or `_`, and the kernel's prefixes do not matter.");
        page.blank();
        page.line(0, "Causes: what tcpwatch says of an event (`cause.id` in JSON)");
        let line = |page: &mut Page, entry: &Entry<'_>| {
            page.hanging(2, &format!("{:<NAME$}", entry.name()), &entry.brief());
        };
        self.entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Cause(_)))
            .for_each(|entry| line(page, entry));
        for wanted in Dictionary::ALL {
            page.blank();
            page.line(0, wanted.heading());
            let mut nameless: Vec<(String, Vec<&str>)> = Vec::new();
            let mut absent = Vec::new();
            for entry in &self.entries {
                match entry {
                    Entry::Word { dictionary, word, number } if *dictionary == wanted => {
                        line(page, entry);
                        if number.is_none() {
                            absent.push(word.name);
                        }
                    }
                    Entry::Nameless { dictionary, name, .. } if *dictionary == wanted => {
                        let brief = entry.brief();
                        match nameless.iter_mut().find(|(known, _)| *known == brief) {
                            Some((_, names)) => names.push(name),
                            None => nameless.push((brief, vec![name])),
                        }
                    }
                    _ => {}
                }
            }
            for (brief, names) in nameless {
                page.line(2, &format!("{brief}:"));
                page.line(4, &names.join(" "));
            }
            if matches!(wanted, Dictionary::Reset | Dictionary::Drop) {
                self.remark(page, wanted, &absent);
            }
        }
    }

    /// What is different on the kernel at hand.
    fn remark(&self, page: &mut Page, dictionary: Dictionary, absent: &[&str]) {
        match self.kernel {
            None => page
                .line(2, "(this host does not show its kernel's types: these are the names of 6.12 to 7.2)"),
            Some(kernel) if kernel.names(dictionary).is_empty() => {
                page.line(2, &format!("({} has no such reasons: it is older)", kernel.name));
            }
            Some(_) if absent.is_empty() => {}
            Some(kernel) => {
                page.line(2, &format!("not in {}:", kernel.name));
                page.line(4, &absent.join(" "));
            }
        }
    }

    /// One object a line.
    pub fn json(&self) -> String {
        let objects = self.entries.iter().map(|entry| {
            // Only a map with keys that are no strings, or a failing writer, make this fail: there is neither.
            serde_json::to_string(&Object::from(entry)).map(|json| json + "\n").unwrap_or_default()
        });
        objects.collect()
    }
}

fn explain(page: &mut Page, dictionary: Dictionary, word: &Word) {
    page.line(2, word.brief);
    page.blank();
    page.line(2, word.means);
    let acts = dictionary.acts_of(word);
    if !acts.is_empty() {
        page.blank();
        page.line(2, dictionary.acts());
        let widest = acts.iter().map(|act| act.cause.len()).max().unwrap_or(0) + 2;
        for Act { what, cause } in acts {
            page.hanging(4, &format!("{cause:widest$}"), what);
        }
    }
    let causes: Vec<&str> = match dictionary {
        Dictionary::Event => causes_of(word.name).map(|spec| spec.id).collect(),
        _ => Vec::new(),
    };
    if !causes.is_empty() {
        page.blank();
        page.hanging(2, "Causes: ", &causes.join(", "));
    }
    if !word.look.is_empty() {
        page.blank();
        page.line(2, "Look at");
        for look in word.look {
            page.hanging(4, "- ", look);
        }
    }
    if !word.see.is_empty() {
        page.blank();
        page.hanging(2, "See also: ", &word.see.join(", "));
    }
}

fn cause(page: &mut Page, spec: &Spec) {
    let events: Vec<&str> = spec.events.iter().map(|kind| kind.name()).collect();
    page.line(0, &format!("{}: cause of {}", spec.id, events.join(", ")));
    page.line(2, &plain(spec.summary));
    page.line(2, &format!("or, of several: {}", plain(spec.many)));
    page.blank();
    page.hanging(2, "Evidence:       ", &plain(spec.evidence));
    page.hanging(2, "Certainty:      ", &format!("{} at best", spec.certainty.name()));
    match spec.fix {
        Some(fix) => page.hanging(2, "What to change: ", &plain(fix)),
        None => page.line(2, "What to change: nothing that tcpwatch knows of"),
    }
    if !spec.source.is_empty() {
        page.hanging(2, "In the kernel:  ", spec.source);
    }
    page.hanging(2, "Kernels:        ", &format!("from {} on", spec.since));
    let mut goes_with: Vec<(Dictionary, Vec<&str>)> = Vec::new();
    for (dictionary, word) in words_of(spec) {
        match goes_with.last_mut() {
            Some((last, names)) if *last == dictionary => names.push(word.name),
            _ => goes_with.push((dictionary, vec![word.name])),
        }
    }
    if !goes_with.is_empty() {
        page.blank();
        page.line(2, "Goes with");
        for (dictionary, names) in goes_with {
            page.hanging(4, &format!("{:<15}", dictionary.id()), &names.join(", "));
        }
    }
}

/// The public form; names are a contract, absence is `null`.
#[derive(Serialize)]
struct Object<'a> {
    /// `cause`, or the name of a [`Dictionary`].
    dictionary: &'static str,
    name: &'a str,
    /// In the kernel's enum.
    number: Option<u32>,
    /// Whether tcpwatch has words for it.
    known: bool,
    brief: String,
    means: Option<&'static str>,
    acts: Vec<ObjectAct>,
    look: &'static [&'static str],
    see: &'static [&'static str],
    cause: Option<ObjectCause>,
}

#[derive(Serialize)]
struct ObjectAct {
    what: &'static str,
    cause: &'static str,
}

#[derive(Serialize)]
struct ObjectCause {
    events: Vec<&'static str>,
    many: String,
    evidence: String,
    /// The best it can reach.
    certainty: &'static str,
    fix: Option<String>,
    source: Option<&'static str>,
    since: &'static str,
}

impl<'a> From<&Entry<'a>> for Object<'a> {
    fn from(entry: &Entry<'a>) -> Self {
        let (dictionary, number, word, cause) = match *entry {
            Entry::Cause(spec) => ("cause", None, None, Some(ObjectCause::from(spec))),
            Entry::Word { dictionary, word, number } => (dictionary.id(), number, Some(word), None),
            Entry::Nameless { dictionary, number, .. } => (dictionary.id(), Some(number), None, None),
        };
        Self {
            dictionary,
            name: entry.name(),
            number,
            known: !matches!(entry, Entry::Nameless { .. }),
            brief: entry.brief(),
            means: word.map(|word| word.means),
            acts: entry.acts().into_iter().map(|Act { what, cause }| ObjectAct { what, cause }).collect(),
            look: word.map_or(&[], |word| word.look),
            see: word.map_or(&[], |word| word.see),
            cause,
        }
    }
}

impl From<&Spec> for ObjectCause {
    fn from(spec: &Spec) -> Self {
        Self {
            events: spec.events.iter().map(|kind| kind.name()).collect(),
            many: plain(spec.many),
            evidence: plain(spec.evidence),
            certainty: spec.certainty.name(),
            fix: spec.fix.map(plain),
            source: (!spec.source.is_empty()).then_some(spec.source),
            since: spec.since,
        }
    }
}
