//! Every cause that tcpwatch knows is provoked by a scenario, or it is said here why that cannot be.
#![cfg(test)]

use std::collections::BTreeSet;

use super::all;

/// A cause that no scenario provokes.
struct NotProvoked {
    id: &'static str,
    why: &'static str,
    /// The test that gives it from recorded values instead.
    test: &'static str,
}

const fn not_provoked(id: &'static str, why: &'static str, test: &'static str) -> NotProvoked {
    NotProvoked { id, why, test }
}

const NOT_PROVOKED: &[NotProvoked] = &[
    not_provoked(
        "unknown",
        "whatever provokes it gets a cause of its own",
        "without_evidence_it_is_unknown_and_says_what_there_is",
    ),
    not_provoked(
        "listen-no-memory",
        "an allocation of the kernel would have to fail",
        "a_syn_tells_by_how_far_it_came",
    ),
    not_provoked(
        "mptcp-eunspec",
        "the peer would have to speak MPTCP over two subflows and end one",
        "mptcp_names_its_reasons",
    ),
    not_provoked(
        "mptcp-eresource",
        "an allocation of the kernel would have to fail",
        "mptcp_names_its_reasons",
    ),
    not_provoked(
        "mptcp-eprohibit",
        "the join would need a token and an HMAC of SHA-256",
        "mptcp_names_its_reasons",
    ),
    not_provoked(
        "mptcp-ewq2big",
        "no path to it is known in the kernels of the matrix",
        "mptcp_names_its_reasons",
    ),
    not_provoked(
        "mptcp-ebadperf",
        "no path to it is known in the kernels of the matrix",
        "mptcp_names_its_reasons",
    ),
    not_provoked(
        "mptcp-emiddlebox",
        "something would have to change payload on its way over two subflows",
        "mptcp_names_its_reasons",
    ),
];

const PAGE: &str = include_str!("../../../docs/causes.md");

/// Where the tests from recorded values are.
const TESTS: [&str; 3] = [
    include_str!("../../../tcpwatch/src/diagnose/cause/tests.rs"),
    include_str!("../../../tcpwatch/src/diagnose/cause/tests/listener.rs"),
    include_str!("../../../tcpwatch/src/diagnose/cause/tests/mptcp.rs"),
];

/// The ids of the page, up to the table of kernel sites.
fn known() -> BTreeSet<&'static str> {
    let causes = PAGE.split("\n# ").next().unwrap_or_default();
    causes.lines().filter_map(|line| line.strip_prefix("## ")).collect()
}

fn provoked() -> BTreeSet<&'static str> {
    all().flat_map(|scenario| scenario.causes).copied().collect()
}

#[test]
fn every_cause_is_provoked_or_it_is_said_why_not() {
    let known = known();
    assert!(known.len() > 40, "docs/causes.md has another shape: {known:?}");
    let excused: BTreeSet<&str> = NOT_PROVOKED.iter().map(|one| one.id).collect();
    for id in &known {
        assert!(
            provoked().contains(id) != excused.contains(id),
            "{id}: declare it in the scenario that provokes it, or say in NOT_PROVOKED why none can; not both"
        );
    }
    let invented: Vec<_> = provoked().union(&excused).filter(|id| !known.contains(*id)).copied().collect();
    assert!(invented.is_empty(), "docs/causes.md does not know {invented:?}");
}

#[test]
fn what_is_not_provoked_has_a_reason_and_a_test() {
    for one in NOT_PROVOKED {
        assert!(!one.why.is_empty(), "{}", one.id);
        let named = format!("fn {}()", one.test);
        assert!(TESTS.iter().any(|text| text.contains(&named)), "{}: no test is named {}", one.id, one.test);
    }
}

#[test]
fn no_scenario_declares_a_cause_twice() {
    for scenario in all() {
        let distinct: BTreeSet<_> = scenario.causes.iter().collect();
        assert_eq!(distinct.len(), scenario.causes.len(), "{}", scenario.name);
    }
}
