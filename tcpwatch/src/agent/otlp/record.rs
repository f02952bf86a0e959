//! An event as a log record: what OpenTelemetry has a name for is called so (<https://opentelemetry.io/docs/specs/semconv/>), the rest is
//! `tcpwatch.…` with the names of `--json`.

use super::values::{Attributes, any};
use crate::event::{Endpoint, Event, EventKind, Lost, OwnerInfo};
use crate::host::cgroup;
use crate::sink::time::now_ns;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use std::net::IpAddr;

/// The record of an event.
pub(super) fn event(event: &Event) -> LogRecord {
    let summary = event.cause.as_ref().map_or(event.kind.name(), |cause| cause.summary.as_str());
    let severity = match event.kind {
        EventKind::State | EventKind::RstReceived => SeverityNumber::Info,
        _ => SeverityNumber::Warn,
    };
    LogRecord {
        attributes: attributes(event).0,
        ..record(event.time_ns, event.kind.name(), severity, summary)
    }
}

/// The record of a loss.
pub(super) fn lost(lost: &Lost) -> LogRecord {
    let mut all = Attributes::default();
    all.add("tcpwatch.hook", lost.hook.as_str());
    all.add("tcpwatch.count", lost.count);
    let body = format!("{} events of {} were lost", lost.count, lost.hook);
    LogRecord { attributes: all.0, ..record(lost.time_ns, "lost", SeverityNumber::Warn, &body) }
}

fn record(time_ns: u64, name: &str, severity: SeverityNumber, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: time_ns,
        observed_time_unix_nano: now_ns(),
        severity_number: severity.into(),
        severity_text: if severity == SeverityNumber::Info { "INFO" } else { "WARN" }.to_owned(),
        body: Some(any(body)),
        event_name: format!("tcpwatch.{name}"),
        ..LogRecord::default()
    }
}

fn attributes(event: &Event) -> Attributes {
    let mut all = Attributes::default();
    network(&mut all, event);
    if let Some(owner) = &event.owner {
        process(&mut all, owner);
    }
    verdict(&mut all, event);
    circumstances(&mut all, event);
    all
}

fn network(all: &mut Attributes, event: &Event) {
    all.add("network.transport", "tcp");
    let ends = [("network.local", event.local), ("network.peer", event.remote)];
    if let Some(end) = event.local.or(event.remote) {
        all.add("network.type", if end.addr.is_ipv4() { "ipv4" } else { "ipv6" });
    }
    for (name, end) in ends {
        if let Some(Endpoint { addr, port }) = end {
            all.add(&format!("{name}.address"), addr.to_string());
            all.add(&format!("{name}.port"), port);
        }
    }
    all.add_known("network.connection.state", event.state.map(connection_state));
    all.add_known("tcpwatch.netns", event.netns);
    all.add_known("tcpwatch.state.old", event.old_state.map(connection_state));
    all.add_known("tcpwatch.state.new", event.new_state.map(connection_state));
    all.add_known("tcpwatch.state.for_us", event.for_us);
    if event.mptcp {
        all.add("tcpwatch.mptcp", true);
    }
}

/// The owner of the socket.
pub(super) fn process(all: &mut Attributes, owner: &OwnerInfo) {
    all.add_known("process.pid", owner.pid);
    all.add("process.executable.name", owner.comm.as_str());
    all.add_known("process.executable.path", owner.exe.as_deref());
    all.add("process.user.id", owner.uid);
    // As `/proc/PID/cgroup` of a host with cgroup v2 has it.
    all.add_known("process.linux.cgroup", owner.cgroup.as_ref().map(|path| format!("0::{path}")));
    all.add_known("container.id", owner.container.as_deref());
    all.add_known("k8s.pod.uid", owner.cgroup.as_deref().and_then(cgroup::pod));
    all.add("tcpwatch.owner.how", owner.how);
    all.add_known("tcpwatch.owner.start_ns", (owner.start_ns != 0).then_some(owner.start_ns));
}

fn verdict(all: &mut Attributes, event: &Event) {
    if let Some(cause) = &event.cause {
        all.add("tcpwatch.cause", cause.id);
        all.add("tcpwatch.certainty", cause.certainty.name());
        all.add("tcpwatch.evidence", cause.evidence.as_slice());
        all.add_known("tcpwatch.fix", cause.fix.as_deref());
    }
    if let Some(reason) = &event.reason {
        all.add("tcpwatch.reason", reason.name.as_str());
        all.add("tcpwatch.reason.from", reason.from.name());
    }
    all.add_known("tcpwatch.site", event.site.as_deref());
    all.add_known("tcpwatch.stack", event.stack.as_deref());
    all.add("tcpwatch.count", event.count);
}

fn circumstances(all: &mut Attributes, event: &Event) {
    if let Some(task) = &event.task {
        all.add_known("tcpwatch.task.pid", task.pid);
        all.add("tcpwatch.task.comm", task.comm.as_str());
        all.add_known("tcpwatch.task.context", task.context.map(|context| context.name()));
    }
    if !event.history.is_empty() {
        let steps = event.history.iter().map(|step| {
            let mut one = Attributes::default();
            one.add("state", connection_state(step.state));
            one.add_known("for_us", step.for_us);
            one
        });
        all.add("tcpwatch.history", steps.collect::<Vec<_>>());
    }
    if let Some(listen) = &event.listen {
        all.add_known("tcpwatch.listen.address", listen.local.map(|local| local.addr.to_string()));
        all.add_known("tcpwatch.listen.port", listen.local.map(|local| u32::from(local.port)));
        all.add_known("tcpwatch.listen.queue", listen.queue.map(|queue| queue.name()));
        all.add("tcpwatch.listen.stage", listen.stage.name());
        all.add("tcpwatch.listen.len", listen.len);
        all.add("tcpwatch.listen.max", listen.max);
        all.add_known("tcpwatch.listen.backlog", listen.backlog);
        all.add_known("tcpwatch.listen.somaxconn", listen.somaxconn);
        all.add("tcpwatch.listen.action", listen.action.name());
        all.add_known("tcpwatch.listen.pressure", listen.pressure.map(|pressure| pressure.name()));
    }
    if let Some(table) = &event.timewait {
        all.add("tcpwatch.timewait.used", table.used);
        all.add("tcpwatch.timewait.max", table.max);
    }
    if let Some(packet) = &event.packet {
        all.add("tcpwatch.packet.seq", packet.seq);
        all.add("tcpwatch.packet.ack", packet.ack);
        all.add("tcpwatch.packet.flags", crate::event::Flags(packet.flags).to_string());
        all.add("tcpwatch.packet.window", packet.window);
        all.add("tcpwatch.packet.len", packet.len);
    }
    if let Some(bytes) = &event.bytes {
        all.add("tcpwatch.bytes.received", bytes.received);
        all.add("tcpwatch.bytes.sent", bytes.sent);
    }
}

/// The convention's word for a state: `CLOSE` is `closed`, `SYN_RECV` and `NEW_SYN_RECV` are `syn_received`.
fn connection_state(kernel: &str) -> String {
    match kernel {
        "CLOSE" => "closed".to_owned(),
        "SYN_RECV" | "NEW_SYN_RECV" => "syn_received".to_owned(),
        "FIN_WAIT1" => "fin_wait_1".to_owned(),
        "FIN_WAIT2" => "fin_wait_2".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

/// `10.9.0.1:80`, as the label `listener` of a figure has it, in the convention's two attributes.
pub(super) fn listener(all: &mut Attributes, text: &str) {
    let parts = text.rsplit_once(':').and_then(|(addr, port)| {
        let addr: IpAddr = addr.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some((addr, port.parse::<u16>().ok()?))
    });
    match parts {
        Some((addr, port)) => {
            all.add("network.local.address", addr.to_string());
            all.add("network.local.port", port);
        }
        // `other`.
        None => all.add("tcpwatch.listener", text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::find;
    use super::*;
    use crate::event::{Cause, Certainty, HistoryStep, TaskContext, TaskInfo, samples};
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    fn text(value: &str) -> Option<Value> {
        Some(Value::StringValue(value.to_owned()))
    }

    #[test]
    fn an_event_has_the_names_of_the_conventions() {
        let mut told = Event::new(EventKind::RstSent, 5, 7);
        told.local = Some(samples::end("[fd00::1]:80"));
        told.remote = Some(samples::end("[fd00::2]:4711"));
        told.state = Some("FIN_WAIT2");
        let pod = "8a1f0c1e_0000_4000_8000_0123456789ab";
        told.owner = Some(OwnerInfo {
            exe: Some("/usr/bin/proxy".into()),
            cgroup: Some(
                format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice").into(),
            ),
            container: Some("4b825dc642cb".into()),
            ..samples::owner(5, "proxy")
        });
        told.task = Some(TaskInfo { pid: None, comm: "swapper".into(), context: Some(TaskContext::Softirq) });
        told.history = vec![HistoryStep { state: "NEW_SYN_RECV", for_us: None }];
        told.cause = Some(Cause {
            id: "linger-zero",
            certainty: Certainty::Certain,
            summary: "proxy closed with SO_LINGER 0".to_owned(),
            evidence: vec!["a".into(), "b".into()],
            fix: None,
        });
        let record = event(&told);
        assert_eq!((record.time_unix_nano, record.event_name.as_str()), (7, "tcpwatch.rst_sent"));
        assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
        assert_eq!(record.body.unwrap().value, text("proxy closed with SO_LINGER 0"));
        let all = &record.attributes;
        let of = |key| find(all, key).cloned();
        assert_eq!(of("network.type"), text("ipv6"));
        assert_eq!(of("network.local.address"), text("fd00::1"));
        assert_eq!(of("network.peer.port"), Some(Value::IntValue(4_711)));
        assert_eq!(of("network.connection.state"), text("fin_wait_2"));
        assert_eq!(of("process.pid"), Some(Value::IntValue(5)));
        assert_eq!(of("process.executable.name"), text("proxy"));
        assert_eq!(of("k8s.pod.uid"), text("8a1f0c1e-0000-4000-8000-0123456789ab"));
        assert_eq!(of("container.id"), text("4b825dc642cb"));
        assert_eq!(of("tcpwatch.cause"), text("linger-zero"));
        assert_eq!(of("tcpwatch.fix"), None, "what is not known is not there");
        let Some(Value::ArrayValue(evidence)) = of("tcpwatch.evidence") else { panic!("no list") };
        assert_eq!(evidence.values.len(), 2);
        let mut keys: Vec<_> = all.iter().map(|one| one.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all.len(), "a key is there twice");
    }

    #[test]
    fn a_listener_is_an_address_and_a_port() {
        let of = |text: &str| {
            let mut all = Attributes::default();
            listener(&mut all, text);
            all.0.into_iter().map(|one| one.key).collect::<Vec<_>>()
        };
        assert_eq!(of("[::]:80"), ["network.local.address", "network.local.port"]);
        assert_eq!(of("0.0.0.0:80"), ["network.local.address", "network.local.port"]);
        assert_eq!(of("other"), ["tcpwatch.listener"]);
    }
}
