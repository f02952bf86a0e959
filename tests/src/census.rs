//! The census of the kernel that the scenarios ran on: who sends resets there, and whether tcpwatch knows all of them.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::stage::not_here;

/// Calls that every kernel has, so that a census which finds nothing does not pass: caller, what it calls, and the function
/// without which the kernel lacks both.
const CERTAIN: &[(&str, &str, &str)] = &[
    ("tcp_v4_rcv", "tcp_v4_send_reset", "tcp_v4_rcv"),
    ("tcp_v4_do_rcv", "tcp_v4_send_reset", "tcp_v4_rcv"),
    ("tcp_request_sock_ops", "tcp_v4_send_reset", "tcp_v4_rcv"),
    ("tcp_v6_rcv", "tcp_v6_send_reset", "tcp_v6_rcv"),
    ("__tcp_close", "tcp_send_active_reset", "tcp_v4_rcv"),
    ("tcp_abort", "tcp_send_active_reset", "tcp_v4_rcv"),
    ("mptcp_subflow_reset", "tcp_send_active_reset", "mptcp_subflow_reset"),
    ("tcp_validate_incoming", "tcp_reset", "tcp_v4_rcv"),
    ("tcp_time_wait", "inet_twsk_alloc", "tcp_v4_rcv"),
    ("nft_reject_inet_eval", "nf_send_reset", "nft_reject_inet_eval"),
    ("nft_reject_inet_eval", "nf_send_reset6", "nft_reject_inet_eval"),
];

/// What is wrong with the census here. On a machine of somebody's, a kernel that does not show its text is no fault; on a
/// throw-away machine it is.
pub(crate) fn problems(tcpwatch: &str, throw_away: bool) -> Result<Vec<String>> {
    let mut command = Command::new(tcpwatch);
    command.args(["doctor", "--census", "--json"]).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("starting {tcpwatch}"))?;
    let census: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("doctor --census printed no JSON: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    let symbols = std::fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
    if census["checked"] == false && !throw_away {
        return Err(not_here(census["why"].as_str().unwrap_or("tcpwatch does not say why")));
    }
    Ok(judge(&census, output.status.code(), |name| has(&symbols, name)))
}

fn has(symbols: &str, function: &str) -> bool {
    symbols.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some(function))
}

fn judge(census: &Value, status: Option<i32>, has: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    if census["checked"] != true {
        problems.push(format!("not checked: {}", census["why"]));
    }
    let said = census["problems"].as_array().into_iter().flatten();
    problems.extend(said.map(|problem| problem.as_str().unwrap_or("a problem that is no text").to_owned()));
    let complete = census["complete"] == true;
    if complete != problems.is_empty() {
        problems.push(format!("`complete` is {}", census["complete"]));
    }
    if status != Some(i32::from(!complete)) {
        problems.push(format!("exit status {status:?}, and `complete` is {complete}"));
    }
    if census["checked"] == true {
        for (caller, target, need) in CERTAIN {
            if has(need) && !leads(census, caller, target) {
                problems.push(format!("{caller} leads to {target}, and was not found"));
            }
        }
    }
    problems
}

fn leads(census: &Value, caller: &str, target: &str) -> bool {
    let targets = census["targets"].as_array().into_iter().flatten();
    let mut callers =
        targets.filter(|row| row["name"] == target).filter_map(|row| row["callers"].as_array()).flatten();
    callers.any(|row| row["name"] == caller && row["known"] == true && row["places"].as_u64() > Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every certain call, by target.
    fn sound() -> Value {
        let row = |(caller, target, _): &(&str, &str, &str)| json!({"name": target, "callers": [{"name": caller, "known": true, "places": 1}]});
        json!({
            "checked": true, "complete": true, "problems": [], "targets": CERTAIN.iter().map(row).collect::<Vec<_>>()
        })
    }

    #[test]
    fn a_sound_census_passes() {
        assert_eq!(judge(&sound(), Some(0), |_| true), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_told() {
        let with = |field: &str, value: Value| {
            let mut census = sound();
            census[field] = value;
            census
        };
        let unknown = with("problems", json!(["toe_abort calls tcp_reset"]));
        assert_eq!(judge(&unknown, Some(0), |_| true).len(), 2, "it says both complete and a problem");
        let mut unknown = unknown;
        unknown["complete"] = false.into();
        assert_eq!(judge(&unknown, Some(1), |_| true), ["toe_abort calls tcp_reset"]);
        assert_eq!(judge(&unknown, Some(0), |_| true).len(), 2, "and ends as if all were well");
        assert_eq!(judge(&sound(), None, |_| true).len(), 1, "killed");
        let empty = with("targets", json!([]));
        assert_eq!(judge(&empty, Some(0), |_| true).len(), CERTAIN.len());
        assert_eq!(judge(&empty, Some(0), |_| false), Vec::<String>::new(), "a kernel without any of them");
        let closed = json!({"checked": false, "complete": false, "why": "closed"});
        assert_eq!(judge(&closed, Some(1), |_| true), ["not checked: \"closed\""]);
    }

    #[test]
    fn functions_of_modules_are_there_too() {
        let symbols =
            "ffffffff81000000 T tcp_v4_rcv\nffffffffc0000000 t nft_reject_inet_eval\t[nft_reject_inet]\n";
        assert!(has(symbols, "nft_reject_inet_eval") && has(symbols, "tcp_v4_rcv"));
        assert!(!has(symbols, "tcp_v4"));
    }
}
