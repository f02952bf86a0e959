//! A filter's words as a tree. `not` binds most; `and` and `or` bind alike, from the left, as in tcpdump. A value alone has
//! the qualifiers of the one before it: `port 80 or 443`.

use super::lex::{Token, tokens};
use super::tree::Tree;
use super::value::{self, Network};
use super::{Family, TYPED, Wrong};
use crate::cli::values;
use std::ops::Range;
use tcpwatch_common::filter::{End, Test};

/// Parentheses in parentheses: more are nobody's intention.
const DEPTH: usize = 32;

/// Every word that means something by itself.
const KEYWORDS: [&str; 14] = [
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "local",
    "remote",
    "ip",
    "ip6",
    "tcp",
    "and",
    "or",
    "not",
];

const SEE: &str = "`host`, `net`, `port`, `portrange`, `src`, `dst`, `ip`, `ip6`, `and`, `or`, `not` and parentheses are known";

/// Words of tcpdump that cannot have a meaning here, and why.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &[
            "ether", "link", "vlan", "mpls", "pppoed", "pppoes", "geneve", "vxlan", "wlan", "fddi", "tr",
            "ppp", "slip", "llc", "arp", "rarp", "stp", "type", "subtype", "dir", "addr1", "addr2", "addr3",
            "addr4",
        ],
        "tcpwatch sees connections and not frames",
    ),
    (
        &[
            "udp",
            "icmp",
            "icmp6",
            "sctp",
            "igmp",
            "igrp",
            "pim",
            "ah",
            "esp",
            "vrrp",
            "carp",
            "proto",
            "protochain",
        ],
        "tcpwatch watches TCP alone",
    ),
    (
        &["less", "greater", "len", "broadcast", "multicast", "gateway", "byte"],
        "tcpwatch filters connections and not packets",
    ),
    (
        &["inbound", "outbound", "ifname", "on", "ifindex", "rnr", "rulenum", "reason", "action"],
        "an event is about a connection, which has no direction and no interface",
    ),
];

#[derive(Clone, Copy, Default)]
enum Side {
    #[default]
    Either,
    Both,
    One(Which),
}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Local,
    Remote,
}

/// What a value is; a bare one tells by its form.
#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Bare,
    Host,
    Net,
    Port,
    Range,
}

#[derive(Clone, Copy, Default)]
struct Qualifiers {
    family: Family,
    side: Side,
    kind: Kind,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    /// Of the value before.
    last: Option<Qualifiers>,
    depth: usize,
    /// Tests so far.
    tests: usize,
    end: usize,
}

pub(super) fn parse(text: &str) -> Result<Tree, Wrong> {
    let mut parser =
        Parser { tokens: tokens(text), next: 0, last: None, depth: 0, tests: 0, end: text.trim_end().len() };
    let tree = parser.expression()?;
    match parser.take() {
        None => Ok(tree),
        Some(token) => Err(behind(token)),
    }
}

/// Whether tcpdump or tcpwatch knows the word.
pub(super) fn is_known(word: &str) -> bool {
    KEYWORDS.contains(&word)
        || value::port(word).is_ok()
        || FOREIGN.iter().any(|(words, _)| words.contains(&word))
}

/// What stands where an expression is complete.
fn behind(token: Token<'_>) -> Wrong {
    if token.text == ")" {
        return Wrong::new("`)` closes nothing", token.at(), "leave it away, or open it with `(`");
    }
    foreign(token).unwrap_or_else(|| {
        let hint = match values::nearest(token.text, ["and", "or"].into_iter()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("for instance `and {}`", token.text),
        };
        Wrong::new(format!("`{}` follows without `and` or `or`", token.text), token.at(), hint)
    })
}

/// Words that tcpdump knows and tcpwatch does not.
fn foreign(token: Token<'_>) -> Option<Wrong> {
    let (why, hint) = if token.text == "!=" {
        ("nothing is compared", "what is not wanted stands behind `not`: `not port 22`")
    } else if token.text.starts_with(['=', '<', '>', '&', '|']) || token.text.contains('[') {
        (
            "it does not look into packets",
            "kinds of events are chosen with --events, for instance `--events rst`",
        )
    } else {
        let (_, why) = FOREIGN.iter().find(|(words, _)| words.contains(&token.text))?;
        (*why, SEE)
    };
    Some(Wrong::new(format!("`{}` is not part of the filter: {why}", token.text), token.at(), hint))
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Option<Token<'a>> {
        self.take_if(|_| true)
    }

    fn take_if(&mut self, wanted: impl Fn(&Token<'a>) -> bool) -> Option<Token<'a>> {
        let token = self.peek().filter(wanted)?;
        self.next += 1;
        Some(token)
    }

    fn expression(&mut self) -> Result<Tree, Wrong> {
        let mut tree = self.operand()?;
        loop {
            if self.take_if(Token::is_and).is_some() {
                tree = tree.and(self.operand()?);
            } else if self.take_if(Token::is_or).is_some() {
                tree = tree.or(self.operand()?);
            } else {
                return Ok(tree);
            }
        }
    }

    fn operand(&mut self) -> Result<Tree, Wrong> {
        let negated = self.nots();
        let Some(token) = self.take() else {
            return Err(Wrong::new(
                "the filter ends too early",
                self.end..self.end,
                "for instance `port 80`",
            ));
        };
        let tree = match token.text {
            "(" => self.group(token)?,
            "ip" => self.family(token, Family::V4)?,
            "ip6" => self.family(token, Family::V6)?,
            "tcp" => self.family(token, Family::Any)?,
            word if is_direction(word) || kind(word).is_some() => self.head(token, Family::Any)?,
            _ => self.value(token, self.last.unwrap_or_default(), true)?,
        };
        Ok(if negated { tree.not() } else { tree })
    }

    /// Whether an odd number of `not` stands here.
    fn nots(&mut self) -> bool {
        let mut negated = false;
        while self.take_if(Token::is_not).is_some() {
            negated = !negated;
        }
        negated
    }

    /// What is in parentheses.
    fn group(&mut self, open: Token<'a>) -> Result<Tree, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Wrong::new(
                format!("more than {DEPTH} parentheses in each other"),
                open.at(),
                "write it flatter",
            ));
        }
        let tree = self.expression()?;
        self.depth -= 1;
        match self.take() {
            Some(token) if token.text == ")" => Ok(tree),
            Some(token) => Err(behind(token)),
            None => Err(Wrong::new("`(` is never closed", open.at(), "close it with `)`")),
        }
    }

    /// A protocol, alone or before other qualifiers.
    fn family(&mut self, token: Token<'a>, family: Family) -> Result<Tree, Wrong> {
        if let Some(word) = self.take_if(|next| is_direction(next.text) || kind(next.text).is_some()) {
            return self.head(word, family);
        }
        self.last = None;
        self.is_of(family, token.at())
    }

    /// Whether the connection is of the family.
    fn is_of(&mut self, family: Family, at: Range<usize>) -> Result<Tree, Wrong> {
        self.count(usize::from(family != Family::Any), at)?;
        Ok(family.tree())
    }

    /// Qualifiers from a direction or a kind on, and their value.
    fn head(&mut self, first: Token<'a>, family: Family) -> Result<Tree, Wrong> {
        let mut qualifiers = Qualifiers { family, ..Qualifiers::default() };
        let mut word = first;
        if let Some(one) = direction(word.text) {
            qualifiers.side = Side::One(one);
            // `src or dst`: two directions without a value between.
            let other = self.tokens.get(self.next + 1).and_then(|other| direction(other.text));
            if let (Some(joint), Some(other)) = (self.peek(), other)
                && (joint.is_and() || joint.is_or())
                && one != other
            {
                qualifiers.side = if joint.is_or() { Side::Either } else { Side::Both };
                self.next += 2;
            }
            if let Some(next) = self.take_if(|next| kind(next.text).is_some()) {
                word = next;
            }
        }
        qualifiers.kind = kind(word.text).unwrap_or_default();
        self.last = Some(qualifiers);
        let negated = self.nots();
        let needs = match qualifiers.kind {
            Kind::Bare | Kind::Host => "an address",
            Kind::Net => "a network",
            Kind::Port => "a port",
            Kind::Range => "a range of ports",
        };
        let tree = match self.take() {
            Some(token) if token.text == "(" => self.group(token)?,
            Some(token)
                if token.is_and() || token.is_or() || token.text == ")" || KEYWORDS.contains(&token.text) =>
            {
                return Err(Wrong::new(
                    format!("`{}` needs {needs} and not `{}`", word.text, token.text),
                    token.at(),
                    example(word.text, qualifiers.kind),
                ));
            }
            Some(token) => self.value(token, qualifiers, false)?,
            None => {
                return Err(Wrong::new(
                    format!("`{}` needs {needs}", word.text),
                    self.end..self.end,
                    example(word.text, qualifiers.kind),
                ));
            }
        };
        Ok(if negated { tree.not() } else { tree })
    }

    /// A value and what it means behind these qualifiers; `free`: where a word of its own might stand, too.
    fn value(&mut self, token: Token<'a>, qualifiers: Qualifiers, free: bool) -> Result<Tree, Wrong> {
        if token.text == ")" || token.is_and() || token.is_or() {
            return Err(Wrong::new(
                format!("`{}` stands where a host, a net or a port is expected", token.text),
                token.at(),
                "for instance `host 10.9.0.1 and not port 22`",
            ));
        }
        if let Some(wrong) = foreign(token) {
            return Err(wrong);
        }
        self.last = Some(qualifiers);
        let text = token.text;
        let wrong = |(what, hint): value::Not| {
            let near = if free { misspelt(text) } else { None };
            Wrong::new(what, token.at(), near.map_or(hint, |near| format!("did you mean `{near}`?")))
        };
        let ports = |first, last| move |end| Tree::Test(Test::ports(end, first, last));
        match qualifiers.kind {
            Kind::Port => {
                let port = value::port(text).map_err(wrong)?;
                self.sides(qualifiers, token, 1, ports(port, port))
            }
            Kind::Range => {
                let (first, last) = value::range(text).map_err(wrong)?;
                self.sides(qualifiers, token, 1, ports(first, last))
            }
            Kind::Host => self.network(qualifiers, token, value::host(text).map_err(wrong)?),
            Kind::Net => {
                let mask = self.mask()?;
                self.network(qualifiers, token, value::net(text, mask).map_err(wrong)?)
            }
            Kind::Bare if text.contains('/') => {
                self.network(qualifiers, token, value::net(text, None).map_err(wrong)?)
            }
            Kind::Bare if is_number(text) => Err(Wrong::new(
                format!("`{text}` may be a port or a network"),
                token.at(),
                format!("`port {text}`, or `net {text}`"),
            )),
            Kind::Bare => match value::host(text) {
                Ok(network) => self.network(qualifiers, token, network),
                Err(not) if text.contains(['.', ':', '%']) => Err(wrong(not)),
                Err(_) => {
                    let hint = match (value::port(text), misspelt(text)) {
                        (Ok(_), _) => format!("a port is `port {text}`"),
                        (_, Some(near)) => format!("did you mean `{near}`?"),
                        _ => SEE.to_owned(),
                    };
                    Err(Wrong::new(format!("`{text}` is not part of a filter"), token.at(), hint))
                }
            },
        }
    }

    /// The mask of a network, if one follows.
    fn mask(&mut self) -> Result<Option<&'a str>, Wrong> {
        let Some(word) = self.take_if(|next| next.text == "mask") else { return Ok(None) };
        match self.take() {
            Some(mask) => Ok(Some(mask.text)),
            None => Err(Wrong::new("`mask` needs a mask", word.at(), "for instance `mask 255.255.0.0`")),
        }
    }

    fn network(&mut self, qualifiers: Qualifiers, token: Token<'a>, network: Network) -> Result<Tree, Wrong> {
        let fits = match qualifiers.family {
            Family::Any => true,
            Family::V4 => network.is_v4(),
            Family::V6 => !network.is_v4(),
        };
        if !fits {
            let (is, word) = if network.is_v4() { ("IPv4", "ip6") } else { ("IPv6", "ip") };
            return Err(Wrong::new(
                format!("`{}` is {is}, behind `{word}`", token.text),
                token.at(),
                format!("leave `{word}` away"),
            ));
        }
        self.sides(qualifiers, token, network.cost(), |end| network.test(end))
    }

    /// The test of one end for the ends that are meant.
    fn sides(
        &mut self,
        qualifiers: Qualifiers,
        token: Token<'a>,
        cost: usize,
        test: impl Fn(End) -> Tree,
    ) -> Result<Tree, Wrong> {
        let family = self.is_of(qualifiers.family, token.at())?;
        let ends = if matches!(qualifiers.side, Side::One(_)) { 1 } else { 2 };
        self.count(ends * cost, token.at())?;
        Ok(family.and(match qualifiers.side {
            Side::One(Which::Local) => test(End::Local),
            Side::One(Which::Remote) => test(End::Remote),
            Side::Either => test(End::Local).or(test(End::Remote)),
            Side::Both => test(End::Local).and(test(End::Remote)),
        }))
    }

    /// Takes room for tests.
    fn count(&mut self, tests: usize, at: Range<usize>) -> Result<(), Wrong> {
        self.tests += tests;
        if self.tests <= TYPED {
            return Ok(());
        }
        Err(Wrong::new(
            format!("the filter is too long: {TYPED} tests fit, and from here on it takes more"),
            at,
            "a value takes one test behind `src` or `dst` and two without; `net` and `portrange` take many at once",
        ))
    }
}

/// The word that was probably meant.
fn misspelt(text: &str) -> Option<&'static str> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !is_number(text);
    is_word.then(|| values::nearest(text, KEYWORDS.into_iter())).flatten()
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn direction(word: &str) -> Option<Which> {
    match word {
        "src" | "local" => Some(Which::Local),
        "dst" | "remote" => Some(Which::Remote),
        _ => None,
    }
}

fn is_direction(word: &str) -> bool {
    direction(word).is_some()
}

fn kind(word: &str) -> Option<Kind> {
    match word {
        "host" => Some(Kind::Host),
        "net" => Some(Kind::Net),
        "port" => Some(Kind::Port),
        "portrange" => Some(Kind::Range),
        _ => None,
    }
}

fn example(word: &str, kind: Kind) -> String {
    let value = match kind {
        Kind::Bare | Kind::Host => "10.9.0.1",
        Kind::Net => "10.9.0.0/16",
        Kind::Port => "80",
        Kind::Range => "8000-8099",
    };
    format!("for instance `{word} {value}`")
}
