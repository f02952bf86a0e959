//! The scripts, by subject. Each provokes one thing and says what has to be seen of it.

mod closing;
mod coverage;
mod global;
mod handshake;
mod late;
mod listen;
mod mptcp;
mod old;
mod owner;
mod received;

use crate::net::Family;
use crate::stage::{PORT, Stage};

/// When a scenario may play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Any,
    /// Something of it is older than tcpwatch.
    Early,
    /// It changes settings of the whole machine: alone, and only if asked for.
    Global,
}

pub struct Scenario {
    pub name: &'static str,
    /// What it provokes, in one line.
    pub about: &'static str,
    pub families: &'static [Family],
    pub when: When,
    /// The causes that it provokes, and that tcpwatch has to name for it.
    pub causes: &'static [&'static str],
    pub play: fn(&mut Stage) -> anyhow::Result<()>,
}

impl Scenario {
    /// Its name for each family: IPv6 sockets that talk IPv4 make it another scenario.
    pub fn names(&self) -> impl Iterator<Item = (String, Family)> {
        self.families.iter().map(|&family| match family {
            Family::Mapped => (format!("{}-mapped", self.name), family),
            _ => (self.name.to_owned(), family),
        })
    }
}

const PLAIN: &[Family] = &[Family::V4, Family::V6];
/// Also with IPv6 sockets that talk IPv4.
const ALL: &[Family] = &[Family::V4, Family::V6, Family::Mapped];

const fn scenario(
    name: &'static str,
    about: &'static str,
    families: &'static [Family],
    causes: &'static [&'static str],
    play: fn(&mut Stage) -> anyhow::Result<()>,
) -> Scenario {
    Scenario { name, about, families, when: When::Any, causes, play }
}

/// Every scenario, in the order of the list.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        closing::SCENARIOS,
        late::SCENARIOS,
        listen::SCENARIOS,
        handshake::SCENARIOS,
        received::SCENARIOS,
        owner::SCENARIOS,
        old::SCENARIOS,
        mptcp::SCENARIOS,
        global::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case_and_unique() {
        let mut names: Vec<&str> = all().map(|scenario| scenario.name).collect();
        for name in &names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a name appears twice");
    }

    #[test]
    fn every_scenario_says_what_it_provokes() {
        for scenario in all() {
            assert!(!scenario.about.is_empty() && scenario.about.len() < 100, "{}", scenario.name);
            assert!(!scenario.families.is_empty(), "{}", scenario.name);
        }
    }
}
