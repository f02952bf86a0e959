//! Figures of made-up events.

use super::*;
use crate::event::samples::{end, owner};
use crate::event::{Cause, Certainty, Endpoint, HookStatus, ListenerStanding, TimeWaitInfo};

/// Figures of an agent that has seen everything there is: each family has a series.
pub(in crate::agent) fn full() -> Metrics {
    let metrics = Metrics::new(10);
    for kind in EventKind::ALL {
        let (owner, local) = (Some(owner(1, "nginx")), Some(end("10.9.0.1:80")));
        metrics.event(&Event { owner, local, ..Event::new(kind, 1, 1) });
    }
    let listener =
        ListenerStanding { local: end("0.0.0.0:80"), owner: Some(owner(1, "nginx")), len: 1, max: Some(128) };
    metrics.standing(&[Standing {
        netns: 7,
        time_wait: Some(TimeWaitInfo { used: 5, max: 100 }),
        listeners: vec![listener],
        ..Standing::default()
    }]);
    let hooks = vec![HookStatus { name: "tcp_reset".into(), attached: Ok("fentry".into()), sees: None }];
    let (version, kernel) = ("0.1.0".into(), "6.12".into());
    metrics.start(&Start { mono_ns: 1, time_ns: 1, version, kernel, hooks });
    metrics.lost(&Lost { mono_ns: 1, time_ns: 1, hook: "tcp_reset".into(), count: 4 });
    metrics.unwritten();
    metrics.reloaded(true);
    metrics.exported(Delivery::Delivered, 1);
    metrics.export("logs", true);
    let page = metrics.page().unwrap_or_default();
    for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(page.lines().any(|line| line.starts_with(family)), "{family} was not touched");
    }
    metrics
}

fn event(kind: EventKind, pid: u32, comm: &str, count: u64) -> Event {
    let cause = Cause {
        id: "linger-zero",
        certainty: Certainty::Certain,
        summary: String::new(),
        evidence: Vec::new(),
        fix: None,
    };
    let local = Some(end("10.9.0.1:80"));
    Event { cause: Some(cause), owner: Some(owner(pid, comm)), local, count, ..Event::new(kind, 1, 1) }
}

fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn resets_are_counted_by_cause_and_owner() {
    let metrics = Metrics::new(10);
    metrics.event(&event(EventKind::RstSent, 1, "nginx", 2));
    metrics.event(&event(EventKind::RstSent, 2, "nginx", 3));
    metrics.event(&event(EventKind::RstReceived, 2, "redis", 1));
    let page = metrics.page().unwrap();
    let series = "tcpwatch_resets_total{direction=\"sent\",cause=\"linger-zero\",site=\"\",process=\"nginx\"";
    assert_eq!(value(&page, series), Some(5.0), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn what_is_beyond_the_bound_is_other() {
    let metrics = Metrics::new(3);
    for number in 0..1_000 {
        for kind in
            [EventKind::RstSent, EventKind::ListenDrop, EventKind::TwOverflow, EventKind::CloseWaitLeak]
        {
            metrics.event(&event(kind, number, &format!("p{number}"), 1));
        }
    }
    let page = metrics.page().unwrap();
    assert!(page.lines().count() < 80, "{}", page.lines().count());
    let total: f64 = page
        .lines()
        .filter(|line| line.starts_with("tcpwatch_resets_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!((total - 1_000.0).abs() < 0.1, "none is lost: {total}");
    assert!(page.contains("process=\"other\""));
}

#[test]
fn a_leak_that_is_told_no_more_has_ended() {
    let metrics = Metrics::new(10);
    metrics.event(&event(EventKind::CloseWaitLeak, 1, "proxy", 60));
    metrics.event(&event(EventKind::CloseWaitLeak, 1, "proxy", 40));
    metrics.event(&event(EventKind::CloseWaitLeak, 2, "proxy", 2));
    let series = "tcpwatch_close_wait_sockets{process=\"proxy\"";
    assert_eq!(value(&metrics.page().unwrap(), series), Some(42.0));
    metrics.sweep(Duration::from_secs(60));
    assert_eq!(value(&metrics.page().unwrap(), series), Some(42.0));
    metrics.sweep(Duration::ZERO);
    assert_eq!(value(&metrics.page().unwrap(), series), None);
}

#[test]
fn queues_are_those_of_the_last_look() {
    let metrics = Metrics::new(10);
    let standing = |port, len| Standing {
        netns: 7,
        time_wait: Some(TimeWaitInfo { used: 5, max: 100 }),
        listeners: vec![ListenerStanding {
            local: Endpoint { addr: "0.0.0.0".parse().unwrap(), port },
            owner: Some(owner(1, "nginx")),
            len,
            max: Some(128),
        }],
        ..Standing::default()
    };
    metrics.standing(&[standing(80, 3)]);
    metrics.standing(&[standing(81, 9)]);
    let page = metrics.page().unwrap();
    assert_eq!(value(&page, "tcpwatch_listen_queue_length{listener=\"0.0.0.0:81\""), Some(9.0));
    assert_eq!(value(&page, "tcpwatch_listen_queue_length{listener=\"0.0.0.0:80\""), None);
    assert_eq!(value(&page, "tcpwatch_time_wait_limit{netns=\"7\"}"), Some(100.0));
}

#[test]
fn the_older_format_calls_families_as_their_series() {
    let page = "# HELP a_b What.\n# TYPE a_b counter\na_b_total{x=\"1\"} 5\n# HELP c Info.\n# TYPE c info\nc_info{v=\"2\"} 1\n\
                # HELP d_seconds S.\n# TYPE d_seconds gauge\n# UNIT d_seconds seconds\nd_seconds 1.5\n# EOF\n";
    let expected = "# HELP a_b_total What.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 5\n\
                    # HELP c_info Info.\n# TYPE c_info gauge\nc_info{v=\"2\"} 1\n\
                    # HELP d_seconds S.\n# TYPE d_seconds gauge\nd_seconds 1.5\n";
    assert_eq!(plain(page), expected);
}

#[test]
fn its_own_health_is_there() {
    let metrics = Metrics::new(10);
    let hook = |name: &str, attached| HookStatus { name: name.to_owned(), attached, sees: None };
    let hooks = vec![hook("tcp_reset", Ok("fentry".into())), hook("nf_send_reset", Err("none".into()))];
    let start =
        Start { mono_ns: 1, time_ns: 5_000_000_000, version: "0.1.0".into(), kernel: "6.12".into(), hooks };
    metrics.start(&start);
    metrics.start(&start);
    metrics.lost(&Lost { mono_ns: 1, time_ns: 1, hook: "tcp_reset".into(), count: 4 });
    let page = metrics.page().unwrap();
    assert_eq!(value(&page, "tcpwatch_hook_attached{hook=\"nf_send_reset\"}"), Some(0.0));
    assert_eq!(value(&page, "tcpwatch_events_lost_total{hook=\"tcp_reset\"}"), Some(4.0));
    assert_eq!(value(&page, "tcpwatch_start_time_seconds"), Some(5.0));
    assert_eq!(page.matches("tcpwatch_build_info{").count(), 1, "{page}");
}
