//! FILTER: the part of tcpdump's language that is about hosts and ports, compiled into what the kernel programs evaluate.
//! `-4`, `-6`, `-L` and `-D` are short for parts of it and go the same way.
//!
//! `src` is the local end and `dst` the remote one, as `ss` has them: an event is about a connection, and some events come
//! without a segment that would have a direction. `local` and `remote` say it without the doubt.

mod lex;
mod parse;
mod tree;
mod value;

use super::Error;
use super::args::COMMANDS;
use super::values;
use std::ops::Range;
use tcpwatch_common::filter::{End, Expression, TESTS, Test};
use tree::Tree;
use value::IPV4;

/// Tests for what is typed behind the options: there is always room for theirs, too, and the family takes one.
const TYPED: usize = 64;
const _: () = assert!(TYPED + 2 * values::PORTS < TESTS);

/// More of a long filter is not shown in an error.
const SHOWN: usize = 72;

/// What is wrong with which part of the text, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    what: String,
    at: Range<usize>,
    hint: String,
}

impl Wrong {
    fn new(what: impl Into<String>, at: Range<usize>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), at, hint: hint.into() }
    }
}

/// The family of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Family {
    #[default]
    Any,
    V4,
    V6,
}

impl Family {
    /// Both ends are of one family; the local one tells.
    fn tree(self) -> Tree {
        match self {
            Self::Any => Tree::Always(true),
            Self::V4 => IPV4.test(End::Local),
            Self::V6 => IPV4.test(End::Local).not(),
        }
    }
}

/// What `-4` and `-6`, `-L` and `-D` ask for, and the words behind the options; all of it must hold.
pub(super) fn expression(
    family: Family,
    local: &[u16],
    remote: &[u16],
    words: &[String],
) -> Result<Expression, Error> {
    let typed = typed(words)?;
    let tree = family.tree().and(ports(End::Local, local)).and(ports(End::Remote, remote)).and(typed);
    tree.compile().ok_or_else(|| {
        Error::usage(
            format!("the filter `{}` lets nothing through", words.join(" ")),
            "tcpwatch watches TCP alone: leave `not tcp` away",
        )
    })
}

/// One of these ports; none of them stand for every port.
fn ports(end: End, ports: &[u16]) -> Tree {
    let one = |port: &u16| Tree::Test(Test::ports(end, *port, *port));
    ports.iter().map(one).reduce(Tree::or).unwrap_or(Tree::Always(true))
}

/// The words behind the options, as one expression; without words, everything.
fn typed(words: &[String]) -> Result<Tree, Error> {
    let Some(first) = words.first() else { return Ok(Tree::Always(true)) };
    if COMMANDS.contains(&first.as_str()) {
        return Err(Error::usage(
            format!("the command `{first}` stands where a filter is expected"),
            format!("the command comes first, its options behind it: `tcpwatch {first} …`"),
        ));
    }
    // Quoted filters may have lines; a caret needs one.
    let text = words.join(" ").replace(char::is_control, " ");
    parse::parse(&text).map_err(|wrong| misspelt(&text).unwrap_or_else(|| explain(&text, wrong)))
}

/// A single word that is no filter was meant as a command.
fn misspelt(text: &str) -> Option<Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return None;
    }
    if parse::is_known(text) {
        return None;
    }
    let hint = values::nearest(text, COMMANDS.into_iter())
        .map_or("`tcpwatch --help` lists commands and what a filter takes".to_owned(), |near| {
            format!("did you mean `{near}`?")
        });
    Some(Error::usage(format!("`{text}` is neither a command nor a filter"), hint))
}

/// The sentence, the filter and a caret under what is wrong.
fn explain(text: &str, Wrong { what, at, hint }: Wrong) -> Error {
    let place = |byte: usize| text.get(..byte).unwrap_or(text).chars().count();
    let (from, to) = (place(at.start), place(at.end));
    let skipped = if to > SHOWN { from.min(to - SHOWN / 2) } else { 0 };
    let shown: String = text.chars().skip(skipped).take(SHOWN).collect();
    let before = if skipped > 0 { "…" } else { "" };
    let after = if text.chars().count() > skipped + SHOWN { "…" } else { "" };
    let indent = from - skipped + before.chars().count();
    let carets = "^".repeat((to - from).clamp(1, SHOWN));
    Error::usage(format!("{what}\n    {before}{shown}{after}\n    {:indent$}{carets}", ""), hint)
}

#[cfg(test)]
mod tests;
