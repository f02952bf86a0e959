//! The command line: what was typed, checked against the host, as values.
//!
//! [`parse`] prints nothing and ends nothing: `main` does, with [`Parsed`] or [`Error`] in hand.

mod agent;
mod args;
pub mod doctor;
pub mod explain;
mod filter;
mod lookup;
pub mod manual;
mod options;
mod otlp;
mod page;
mod values;
mod wanted;

pub use agent::AgentOptions;
pub use options::{Attach, Color, DoctorOptions, ExplainOptions, WatchOptions};
pub use wanted::{Wanted, flow};

use crate::host::Host;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// How tcpwatch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// It could not do what it was asked for; what was asked for was sensible.
    Failed = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// `--strict`, and events were lost.
    Lost = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Trace(WatchOptions),
    Diagnose(WatchOptions),
    Top(WatchOptions),
    Agent(AgentOptions),
    /// Where the page goes.
    Report(WatchOptions, PathBuf),
    Doctor(DoctorOptions),
    Explain(ExplainOptions),
    /// Print the page `docs/hooks.md`, made from the table.
    DocsHooks,
    /// Print the page `docs/causes.md`, made from the catalogue.
    DocsCauses,
    /// Print the page `docs/reasons.md`, made from the dictionary.
    DocsReasons,
    /// Print the page `docs/callers.md`, made from the table of callers.
    DocsCallers,
    /// Print what makes this shell complete tcpwatch's words.
    Completions(clap_complete::Shell),
    /// Write the pages for `man` into this folder.
    Man(PathBuf),
}

/// What comes of a command line that is in order.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and it is soon taken apart")]
pub enum Parsed {
    Run(Command),
    /// Help or version: for standard output, and that is all.
    Print(String),
}

/// What is wrong, on which object, and as the last line what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub what: String,
    pub hint: String,
    pub exit: Exit,
}

impl Error {
    fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), exit: Exit::Usage }
    }

    /// Of an error that has its hint as the last line.
    fn of(error: &anyhow::Error) -> Self {
        let text = sentence(error);
        let (what, hint) =
            text.split_once("\nhint: ").unwrap_or((&text, "`tcpwatch --help` lists commands and options"));
        Self::failed(what, hint)
    }

    fn failed(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), exit: Exit::Failed }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.what, self.hint)
    }
}

impl std::error::Error for Error {}

/// Reads a command line, program name first. Pids, namespaces and cgroups that it names are looked up on `host`.
pub fn parse(
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    host: &Host,
) -> Result<Parsed, Error> {
    match args::read(line) {
        Ok(typed) => options::check(typed, host).map(Parsed::Run),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(Parsed::Print(error.to_string())),
            _ => Err(from_clap(&error)),
        },
    }
}

/// The page of `tcpwatch --help`, for the documentation.
pub fn help() -> String {
    args::help()
}

/// An error and its causes in one sentence, and the hint of the outermost that has one as the last line.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    let mut hint = None;
    for cause in error.chain() {
        let text = cause.to_string();
        let (what, advice) = match text.split_once("\nhint: ") {
            Some((what, advice)) => (what, Some(advice.to_owned())),
            None => (text.as_str(), None),
        };
        if !sentence.is_empty() {
            sentence.push_str(": ");
        }
        sentence.push_str(what);
        hint = hint.or(advice);
    }
    match hint {
        Some(hint) => format!("{sentence}\nhint: {hint}"),
        None => sentence,
    }
}

/// In our own form: the parser's has the hint in the middle and a usage line nobody asked for.
fn from_clap(error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let all = |kind| match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let wrong = text(ContextKind::InvalidArg);
    let see_help = "`tcpwatch --help` lists commands and options".to_owned();
    let (what, hint) = match (error.kind(), wrong) {
        (ErrorKind::UnknownArgument, Some(wrong)) if !wrong.starts_with('-') => {
            (format!("unknown command `{wrong}`"), did_you_mean(wrong).unwrap_or(see_help))
        }
        (ErrorKind::UnknownArgument, Some(wrong)) => {
            let near = text(ContextKind::SuggestedArg);
            (
                format!("unknown option `{wrong}`"),
                near.map_or(see_help, |near| format!("did you mean `{near}`?")),
            )
        }
        (ErrorKind::InvalidSubcommand, _) => {
            let wrong = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("unknown command `{wrong}`"), did_you_mean(wrong).unwrap_or(see_help))
        }
        (ErrorKind::ArgumentConflict, Some(wrong)) => match text(ContextKind::PriorArg) {
            Some(prior) if prior == wrong => (format!("`{wrong}` is given twice"), "give it once".to_owned()),
            Some(prior) => {
                (format!("`{wrong}` and `{prior}` exclude each other"), "give one of them".to_owned())
            }
            None => (format!("`{wrong}` cannot be used here"), see_help),
        },
        (ErrorKind::ArgumentConflict, None) => {
            let command = text(ContextKind::InvalidSubcommand).unwrap_or("the command");
            (
                format!("options of `trace` stand before `{command}`"),
                format!("options go behind the command: `tcpwatch {command} …`"),
            )
        }
        (ErrorKind::InvalidValue, Some(wrong)) => {
            let valid = all(ContextKind::ValidValue);
            match text(ContextKind::InvalidValue).filter(|value| !value.is_empty()) {
                Some(value) => (format!("`{value}` is not a value of `{wrong}`"), format!("one of: {valid}")),
                None if valid.is_empty() => (format!("`{wrong}` needs a value"), see_help),
                None => (format!("`{wrong}` needs a value"), format!("one of: {valid}")),
            }
        }
        _ => {
            let rendered = error.to_string();
            let first = rendered.lines().next().unwrap_or_default();
            (first.strip_prefix("error: ").unwrap_or(first).to_owned(), see_help)
        }
    };
    Error::usage(what, hint)
}

/// The parser would suggest hidden commands, too.
fn did_you_mean(command: &str) -> Option<String> {
    let near = values::nearest(command, args::COMMANDS.into_iter())?;
    Some(format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests;
