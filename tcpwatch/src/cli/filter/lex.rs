//! A filter's text cut into words.

use std::ops::Range;

/// A word, a parenthesis or an operator, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    start: usize,
}

impl Token<'_> {
    pub(super) fn at(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    pub(super) fn is_and(&self) -> bool {
        matches!(self.text, "and" | "&&")
    }

    pub(super) fn is_or(&self) -> bool {
        matches!(self.text, "or" | "||")
    }

    pub(super) fn is_not(&self) -> bool {
        matches!(self.text, "not" | "!")
    }
}

pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let start = text.len() - rest.len();
        let length = match rest.chars().next() {
            None => return tokens,
            // What begins like an operator and is none is a word of its own, to be named in an error.
            Some('(' | ')') => 1,
            Some('!' | '&' | '|' | '=' | '<' | '>') => operator(rest),
            Some(_) => rest.find(|c: char| c.is_whitespace() || "()!&|=<>".contains(c)).unwrap_or(rest.len()),
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(Token { text: token, start });
        rest = behind;
    }
}

fn operator(rest: &str) -> usize {
    let two = ["&&", "||", "!=", "==", "<=", ">=", "<<", ">>"];
    if two.iter().any(|known| rest.starts_with(known)) { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.text).collect()
    }

    #[test]
    fn operators_need_no_spaces() {
        assert_eq!(
            words("host a&&!port 80||(net 10/8)"),
            ["host", "a", "&&", "!", "port", "80", "||", "(", "net", "10/8", ")"]
        );
        assert_eq!(words("  port  80 "), ["port", "80"]);
        assert_eq!(words("tcp[13]&4!=0"), ["tcp[13]", "&", "4", "!=", "0"]);
        assert_eq!(words(""), [""; 0]);
    }

    #[test]
    fn places_are_bytes_of_the_text() {
        let text = "hóst fd00::1 and x";
        for token in tokens(text) {
            assert_eq!(&text[token.at()], token.text);
        }
    }
}
