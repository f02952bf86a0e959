//! A filter that is typed while events are looked at: the same language, or a word to look for.

use super::Error;
use super::filter::{self, Family};
use crate::event::{Endpoint, Event};
use tcpwatch_common::filter::Filter;
use tcpwatch_common::flow::{Addr, Flow};

/// Words that a filter begins with, and hardly a process or a cause. Not each of the language's: Postfix has a process `local`.
const BEGIN: [&str; 12] =
    ["host", "net", "port", "portrange", "src", "dst", "ip", "ip6", "tcp", "not", "inbound", "outbound"];

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    filter: Option<Filter>,
    /// In small letters.
    word: Option<String>,
}

impl Wanted {
    /// `port 80 and not host 10.9.0.7`, or a word that a process, a cause, a reason, an address or a container has in it.
    ///
    /// # Errors
    /// It begins like a filter and is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match filter::expression(Family::Any, &[], &[], &words) {
            Ok(expression) => {
                Ok(Self { filter: Some(Filter { active: 1, expression, ..Filter::NONE }), word: None })
            }
            Err(error) if begins(&words[0]) => Err(error),
            Err(_) => Ok(Self { filter: None, word: Some(text.to_lowercase()) }),
        }
    }

    /// Whether an event is.
    pub fn admits(&self, event: &Event) -> bool {
        self.filter.is_none_or(|filter| filter.admits_flow(&flow(event)))
            && self.word.as_ref().is_none_or(|word| has(event, word))
    }
}

fn begins(word: &str) -> bool {
    word.starts_with(['(', '!']) || BEGIN.contains(&word)
}

/// Between whom an event is, as the filter asks for it.
pub fn flow(event: &Event) -> Flow {
    let mut flow = Flow { netns: event.netns.unwrap_or(0), ..Flow::default() };
    let of = |end: Option<Endpoint>| end.map(|end| (Addr::from_ip(end.addr), end.port)).unwrap_or_default();
    (flow.local, flow.local_port) = of(event.local);
    (flow.remote, flow.remote_port) = of(event.remote);
    flow
}

fn has(event: &Event, word: &str) -> bool {
    let within = |text: &str| text.to_lowercase().contains(word);
    let end = |end: Option<Endpoint>| end.is_some_and(|end| within(&end.to_string()));
    let owner = event.owner.as_ref().is_some_and(|owner| {
        within(&owner.comm)
            || [&owner.exe, &owner.cgroup, &owner.container].into_iter().flatten().any(|text| within(text))
            || owner.pid.is_some_and(|pid| pid.to_string() == word)
    });
    owner
        || within(event.kind.name())
        || event.cause.as_ref().is_some_and(|cause| within(cause.id))
        || event.reason.as_ref().is_some_and(|reason| within(&reason.name))
        || event.state.is_some_and(within)
        || end(event.local)
        || end(event.remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    fn event() -> Event {
        let end = |addr: &str, port| Some(Endpoint { addr: addr.parse().unwrap(), port });
        Event {
            local: end("10.9.0.1", 80),
            remote: end("10.9.0.2", 40_000),
            state: Some("CLOSE_WAIT"),
            ..Event::new(EventKind::RstSent, 1, 1)
        }
    }

    #[test]
    fn words_and_expressions() {
        for (text, wanted) in [
            ("", true),
            ("port 80", true),
            ("port 81", false),
            ("src port 80 and not host 10.9.0.3", true),
            ("close_wait", true),
            ("CLOSE_WAIT", true),
            ("rst_sent", true),
            ("nginx", false),
            ("10.9.0.2:40", true),
            ("ipvsadm", false),
        ] {
            assert_eq!(Wanted::parse(text).unwrap().admits(&event()), wanted, "{text}");
        }
        for text in ["port 99999", "(port 80", "not", "host nowhere.example and"] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }
}
