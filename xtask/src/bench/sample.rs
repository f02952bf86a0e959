//! Figures made up for tests: two pairs of each of three tools, of which one loses events.

use std::collections::BTreeMap;

use super::data::{
    Books, Cost, CostRun, Held, HookBooks, InGuest, Load, Machine, Pair, Played, Results, Run, Start, ToolRun,
};
use super::stats::Spread;
use super::tools::{ALL, LIMIT, TCPSTATES, TCPWATCH, Tool};

fn load(rate: u64, ns: u64) -> Load {
    let program = Cost { name: "inet_sock_set_state".to_owned(), runs: rate * 10, ns: rate * ns };
    Load {
        operations: rate,
        total: rate + 2000,
        bytes: 0,
        wall_s: 1.0,
        cpu_s: 0.9,
        netns: 7,
        counters: BTreeMap::from([("OutRsts".to_owned(), rate + 2000)]),
        programs: if ns > 0 { vec![program] } else { Vec::new() },
    }
}

fn run(rate: u64, ns: u64, tool: Option<ToolRun>) -> Run {
    Run { load: load(rate, ns), tool, others_s: 0.01, stolen_s: 0.0 }
}

/// A tool that saw every RST and lost so many of its events.
fn tool(rate: u64, lost: u64) -> ToolRun {
    let all = rate + 2000;
    let hook = HookBooks { seen: all, delivered: all - lost, lost, ..HookBooks::default() };
    ToolRun {
        cpu_s: 0.05,
        rss_before_kb: 12_000,
        rss_after_kb: 12_100,
        rss_peak_kb: 12_288,
        events: all - lost,
        kinds: BTreeMap::from([("rst_sent".to_owned(), all - lost)]),
        lost,
        books: Some(Books {
            hooks: BTreeMap::from([("tcp_send_reset".to_owned(), hook)]),
            reconciled: BTreeMap::from([("TcpOutRsts".to_owned(), (Some(all), all))]),
        }),
        ..ToolRun::default()
    }
}

fn pairs(tool_name: &str, rates: [u64; 2], lost: u64) -> Vec<Pair> {
    let pair = |rate| Pair {
        tool: tool_name.to_owned(),
        without: run(50_000, 0, None),
        with: run(rate, 0, Some(tool(rate, lost))),
    };
    rates.map(pair).into()
}

fn played(workload: &str) -> Played {
    let mut all = pairs(TCPWATCH, [48_000, 46_000], 0);
    all.extend(pairs(ALL, [20_000, 30_000], 5000));
    all.extend(pairs(TCPSTATES, [10_000, 10_000], 0));
    let costs = [(TCPWATCH, 2000), (LIMIT, 250)]
        .map(|(tool, ns)| CostRun { tool: tool.to_owned(), run: run(40_000, ns, None) })
        .into();
    Played { workload: workload.to_owned(), pairs: all, costs }
}

/// Figures of everything but the floods.
pub(super) fn results() -> Results {
    let missing = Tool {
        name: "bpftrace printf",
        kind: super::tools::Kind::Lines,
        argv: vec!["/usr/bin/bpftrace".to_owned(), "-e".to_owned(), "a | b".to_owned()],
        mark: "",
        missing: Some("is not\ninstalled".to_owned()),
    };
    let spread = |ms| Spread::of([ms]).unwrap();
    Results {
        command: "cargo xtask bench".to_owned(),
        machine: Machine {
            date: "2026-01-02 03:04 UTC".to_owned(),
            cpu: "A CPU".to_owned(),
            cores: 2,
            kernel: "6.18.1".to_owned(),
            memory_mb: 24_576,
            system: "Debian".to_owned(),
            hypervisor: Some("kvm".to_owned()),
            commit: "0123abc".to_owned(),
        },
        tools: vec![missing.words()],
        uncovered: 3,
        refused: 25,
        played: vec![played("fin"), played("rst"), played("syn-closed")],
        starts: vec![Start {
            tool: TCPWATCH.to_owned(),
            mark: "start".to_owned(),
            ran_ms: spread(40.0),
            said_ms: spread(70.0),
        }],
        held: vec![Held {
            tool: TCPWATCH.to_owned(),
            connections: 100_000,
            watched: true,
            rss_kb: 12 * 1024,
            rss_peak_kb: 14 * 1024,
            maps_kb: 40 * 1024,
            idle_share: 0.0012,
        }],
        guests: vec![InGuest {
            kernel: "5.10".to_owned(),
            release: "5.10.1".to_owned(),
            workload: "fin".to_owned(),
            tool: "tcpwatch --json".to_owned(),
            rate: spread(0.9),
            cpu: spread(1.1),
        }],
        binary: 4_458_432,
    }
}
