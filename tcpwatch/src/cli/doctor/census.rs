//! `tcpwatch doctor --census`: who sends resets in this kernel, as a table per function.

use crate::cli::page::Page;
use crate::diagnose::catalog;
use crate::kernel::census::known::{Meaning, Role};
use crate::kernel::census::{Caller, Census, How, Row, Unchecked};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What came of a census.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of tcpwatch.
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    pub taken: Result<Census, Unchecked>,
}

impl Report {
    /// Taken, and every caller is known.
    pub fn is_complete(&self) -> bool {
        self.taken.as_ref().is_ok_and(Census::is_complete)
    }

    /// For people; at most 100 columns, ends with a newline.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        page.line(0, &format!("tcpwatch {} on kernel {}: census of resets", self.version, self.kernel));
        page.blank();
        match &self.taken {
            Ok(census) => table(census, &mut page),
            Err(Unchecked { why, hint }) => {
                page.hanging(0, "Not checked: ", why);
                page.hanging(0, "hint: ", hint);
            }
        }
        page.text
    }

    /// For programs: one object, ends with a newline.
    pub fn json(&self) -> String {
        let Self { version, kernel, taken } = self;
        let census = taken.as_ref().ok();
        let unchecked = taken.as_ref().err();
        let output = Output {
            version,
            kernel,
            checked: census.is_some(),
            complete: self.is_complete(),
            why: unchecked.map(|unchecked| unchecked.why.as_str()),
            hint: unchecked.map(|unchecked| unchecked.hint.as_str()),
            problems: census.map(|census| census.problems.as_slice()),
            searched: census.map(OutputSearched::from),
            targets: census.map(|census| census.rows.iter().map(OutputTarget::from).collect()),
        };
        // Only a map with keys that are no strings, or a failing writer, make this fail: there is neither.
        serde_json::to_string(&output).map(|json| json + "\n").unwrap_or_default()
    }
}

fn table(census: &Census, page: &mut Page) {
    let searched = &census.searched;
    page.hanging(
        0,
        "Searched: ",
        &format!(
            "{} of kernel text, {} of modules, {} of variables",
            megabytes(searched.text_bytes),
            megabytes(searched.module_bytes),
            megabytes(searched.data_bytes)
        ),
    );
    let mut role = None;
    for row in &census.rows {
        if role.replace(row.target.role) != Some(row.target.role) {
            page.blank();
            page.line(0, row.target.role.heading());
        }
        row_text(row, page);
    }
    page.blank();
    for problem in &census.problems {
        page.hanging(0, "no  ", problem);
    }
    page.line(0, &figures(census));
    let unknown = census.rows.iter().flat_map(|row| &row.callers).any(|caller| caller.known.is_none());
    page.line(
        0,
        match (census.is_complete(), unknown) {
            (true, _) => "All of them are known.",
            (false, false) => "They are known, but something is missing: see `no` above.",
            (false, true) => "Not all of them are known: see `no` above.",
        },
    );
}

fn row_text(row: &Row, page: &mut Page) {
    let target = row.target;
    let count = |how| row.callers.iter().filter(|caller| caller.how == how).map(|caller| caller.places).sum();
    let mut head = format!("{} {}: ", target.name, target.does);
    if row.present {
        head += &things(count(How::Call), "call");
        let pointers: usize = count(How::Pointer);
        if pointers > 0 {
            let _ = write!(head, ", {}", things(pointers, "pointer"));
        }
    } else {
        head += "not in this kernel, or its module is not loaded";
    }
    page.line(2, &head);
    for caller in &row.callers {
        let mark = match caller.how {
            How::Call => format!("{:>2}  ", caller.places),
            How::Pointer => " >  ".to_owned(),
        };
        page.hanging(4, &mark, &who(caller));
        match caller.known.map(|known| known.meaning) {
            Some(Meaning::Sites(sites)) => page.line(12, &causes(sites).join(" ")),
            Some(Meaning::Aside(why)) => page.line(12, why),
            None => {}
        }
    }
}

/// The causes that cover these sites, in the catalogue's order.
fn causes(sites: &[&str]) -> Vec<&'static str> {
    let covers = |spec: &&catalog::Spec| spec.sites.iter().any(|site| sites.contains(site));
    catalog::all().filter(covers).map(|spec| spec.id).collect()
}

fn who(caller: &Caller) -> String {
    let name = caller.full_name();
    let Some(known) = caller.known else { return format!("{name}: UNKNOWN") };
    let sites = known.meaning.sites().iter().fold(String::new(), |text, site| text + " " + site);
    let by = match caller.how {
        How::Call => String::new(),
        How::Pointer => format!("; by pointer, from source: {}", caller.through.join(" ")),
    };
    format!("{name} ({}){sites}{by}", known.source)
}

/// What sends resets, in one sentence. Who only passes on, or sends no RST, is left out of the figures.
fn figures(census: &Census) -> String {
    let decides = |caller: &&Caller| caller.known.is_none_or(|known| !known.meaning.sites().is_empty());
    let senders = census.rows.iter().filter(|row| row.target.role == Role::Sends);
    let senders = senders.flat_map(|row| &row.callers).filter(decides);
    let (mut calls, mut functions, mut through) = (0, BTreeSet::new(), BTreeSet::new());
    for caller in senders {
        if caller.how == How::Call {
            calls += caller.places;
            functions.insert(caller.name.as_str());
        }
        through.extend(caller.through.iter().copied());
    }
    format!(
        "This kernel sends resets from {} in {}, and by pointer from {} more.",
        things(calls, "place"),
        things(functions.len(), "function"),
        through.len()
    )
}

fn things(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// The public form; names are a contract, absence is `null`.
#[derive(Serialize)]
struct Output<'a> {
    version: &'a str,
    kernel: &'a str,
    /// Whether the census could be taken at all; if not, `why`.
    checked: bool,
    /// Every caller is known, and nothing was left out; if not, `problems`.
    complete: bool,
    why: Option<&'a str>,
    hint: Option<&'a str>,
    problems: Option<&'a [String]>,
    searched: Option<OutputSearched>,
    targets: Option<Vec<OutputTarget<'a>>>,
}

#[derive(Serialize)]
struct OutputSearched {
    text_bytes: u64,
    module_bytes: u64,
    data_bytes: u64,
}

impl From<&Census> for OutputSearched {
    fn from(census: &Census) -> Self {
        let searched = census.searched;
        Self {
            text_bytes: searched.text_bytes,
            module_bytes: searched.module_bytes,
            data_bytes: searched.data_bytes,
        }
    }
}

#[derive(Serialize)]
struct OutputTarget<'a> {
    name: &'a str,
    role: &'a str,
    does: &'a str,
    present: bool,
    callers: Vec<OutputCaller<'a>>,
}

impl<'a> From<&'a Row> for OutputTarget<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            name: row.target.name,
            role: row.target.role.name(),
            does: row.target.does,
            present: row.present,
            callers: row.callers.iter().map(OutputCaller::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct OutputCaller<'a> {
    name: &'a str,
    module: Option<&'a str>,
    /// `call`, or `pointer` for a variable that holds one.
    how: &'a str,
    /// Calls, or pointers.
    places: usize,
    known: bool,
    source: Option<&'a str>,
    /// The functions that call by the pointer, from the source.
    through: Option<&'a [&'a str]>,
    sites: &'a [&'a str],
    causes: Vec<&'a str>,
    note: Option<&'a str>,
}

impl<'a> From<&'a Caller> for OutputCaller<'a> {
    fn from(caller: &'a Caller) -> Self {
        let meaning = caller.known.map(|known| known.meaning);
        let sites = meaning.map(Meaning::sites).unwrap_or_default();
        Self {
            name: &caller.name,
            module: caller.module.as_deref(),
            how: if caller.how == How::Call { "call" } else { "pointer" },
            places: caller.places,
            known: caller.known.is_some(),
            source: caller.known.map(|known| known.source),
            through: (caller.how == How::Pointer).then_some(&caller.through),
            sites,
            causes: causes(sites),
            note: meaning
                .and_then(|meaning| if let Meaning::Aside(why) = meaning { Some(why) } else { None }),
        }
    }
}

#[cfg(test)]
mod tests;
