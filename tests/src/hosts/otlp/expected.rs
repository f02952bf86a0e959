//! What an event must look like over OTLP, made from its JSON: every attribute, and none beside.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::{Value, json};

/// An attribute, and where the JSON has it. A name ends in `~` where its value is a state, in the words of the conventions.
const NAMES: [(&str, &str); 45] = [
    ("network.local.address", "/local/addr"),
    ("network.local.port", "/local/port"),
    ("network.peer.address", "/remote/addr"),
    ("network.peer.port", "/remote/port"),
    ("network.connection.state~", "/state"),
    ("tcpwatch.netns", "/netns"),
    ("tcpwatch.state.old~", "/old_state"),
    ("tcpwatch.state.new~", "/new_state"),
    ("tcpwatch.state.for_us", "/for_us"),
    ("process.pid", "/owner/pid"),
    ("process.executable.name", "/owner/comm"),
    ("process.executable.path", "/owner/exe"),
    ("process.user.id", "/owner/uid"),
    ("container.id", "/owner/container"),
    ("tcpwatch.owner.how", "/owner/how"),
    ("tcpwatch.owner.start_ns", "/owner/start_ns"),
    ("tcpwatch.cause", "/cause/id"),
    ("tcpwatch.certainty", "/cause/certainty"),
    ("tcpwatch.evidence", "/cause/evidence"),
    ("tcpwatch.fix", "/cause/fix"),
    ("tcpwatch.reason", "/reason/name"),
    ("tcpwatch.reason.from", "/reason/from"),
    ("tcpwatch.site", "/site"),
    ("tcpwatch.stack", "/stack"),
    ("tcpwatch.count", "/count"),
    ("tcpwatch.task.pid", "/task/pid"),
    ("tcpwatch.task.comm", "/task/comm"),
    ("tcpwatch.task.context", "/task/context"),
    ("tcpwatch.listen.address", "/listen/local/addr"),
    ("tcpwatch.listen.port", "/listen/local/port"),
    ("tcpwatch.listen.queue", "/listen/queue"),
    ("tcpwatch.listen.stage", "/listen/stage"),
    ("tcpwatch.listen.len", "/listen/len"),
    ("tcpwatch.listen.max", "/listen/max"),
    ("tcpwatch.listen.backlog", "/listen/backlog"),
    ("tcpwatch.listen.somaxconn", "/listen/somaxconn"),
    ("tcpwatch.listen.action", "/listen/action"),
    ("tcpwatch.listen.pressure", "/listen/pressure"),
    ("tcpwatch.timewait.used", "/timewait/used"),
    ("tcpwatch.timewait.max", "/timewait/max"),
    ("tcpwatch.packet.seq", "/packet/seq"),
    ("tcpwatch.packet.ack", "/packet/ack"),
    ("tcpwatch.packet.flags", "/packet/flags"),
    ("tcpwatch.packet.window", "/packet/window"),
    ("tcpwatch.packet.len", "/packet/len"),
];

/// A state as OpenTelemetry has it (`network.connection.state`).
fn state(kernel: &str) -> &'static str {
    match kernel {
        "ESTABLISHED" => "established",
        "SYN_SENT" => "syn_sent",
        "SYN_RECV" | "NEW_SYN_RECV" => "syn_received",
        "FIN_WAIT1" => "fin_wait_1",
        "FIN_WAIT2" => "fin_wait_2",
        "TIME_WAIT" => "time_wait",
        "CLOSE" => "closed",
        "CLOSE_WAIT" => "close_wait",
        "LAST_ACK" => "last_ack",
        "LISTEN" => "listen",
        "CLOSING" => "closing",
        _ => "a state that no kernel has",
    }
}

fn states(value: &Value) -> Value {
    value.as_str().map_or(Value::Null, |name| json!(state(name)))
}

fn attributes(event: &Value) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value: Value| {
        if !value.is_null() {
            all.insert(name.to_owned(), value);
        }
    };
    for (name, place) in NAMES {
        let value = event.pointer(place).unwrap_or(&Value::Null);
        match name.strip_suffix('~') {
            Some(name) => add(name, states(value)),
            None => add(name, value.clone()),
        }
    }
    add("network.transport", json!("tcp"));
    if let Some(address) =
        ["/local/addr", "/remote/addr"].iter().find_map(|place| event.pointer(place)?.as_str())
    {
        add("network.type", json!(if address.contains(':') { "ipv6" } else { "ipv4" }));
    }
    if let Some(path) = event.pointer("/owner/cgroup").and_then(Value::as_str) {
        add("process.linux.cgroup", json!(format!("0::{path}")));
    }
    if event["mptcp"] == true {
        add("tcpwatch.mptcp", json!(true));
    }
    for side in ["received", "sent"] {
        add(&format!("tcpwatch.bytes.{side}"), event["bytes"][side].clone());
    }
    let steps = event["history"].as_array().cloned().unwrap_or_default();
    if !steps.is_empty() {
        let step = |step: &Value| {
            let mut one = json!({ "state": states(&step["state"]) });
            if !step["for_us"].is_null() {
                one["for_us"] = step["for_us"].clone();
            }
            one
        };
        add("tcpwatch.history", steps.iter().map(step).collect());
    }
    all
}

pub(super) fn plain(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::BoolValue(yes)) => json!(yes),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|one| plain(Some(one))).collect(),
        Some(Any::KvlistValue(table)) => {
            table.values.iter().map(pair).collect::<serde_json::Map<_, _>>().into()
        }
        _ => Value::Null,
    }
}

fn pair(one: &KeyValue) -> (String, Value) {
    (one.key.clone(), plain(one.value.as_ref()))
}

/// All attributes; an error if one is there twice.
pub(super) fn table(all: &[KeyValue]) -> Result<BTreeMap<String, Value>> {
    let table: BTreeMap<_, _> = all.iter().map(pair).collect();
    ensure!(table.len() == all.len(), "an attribute is there twice: {all:?}");
    Ok(table)
}

/// Nanoseconds since 1970 in the form that the JSON has: to the microsecond.
fn moment(ns: u64) -> String {
    let (days, rest) = (ns / 86_400_000_000_000, ns % 86_400_000_000_000);
    // Days to a date, after Howard Hinnant's `civil_from_days`; everything is after 1970 here.
    let shifted = days + 719_468;
    let (era, doe) = (shifted / 146_097, shifted % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (seconds, ns) = (rest / 1_000_000_000, rest % 1_000_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", ns / 1_000)
}

/// The record says what the JSON says, all of it and no more.
pub(super) fn same(record: &LogRecord, event: &Value) -> Result<()> {
    let kind = event["event"].as_str().context("no event")?;
    ensure!(record.event_name == format!("tcpwatch.{kind}"), "{} for {kind}", record.event_name);
    let time = event["time"].as_str().context("no time")?;
    ensure!(moment(record.time_unix_nano) == time, "{} for {time}", moment(record.time_unix_nano));
    ensure!(record.observed_time_unix_nano >= record.time_unix_nano, "observed before it happened");
    let severity = if matches!(kind, "state" | "rst_received") { (9, "INFO") } else { (13, "WARN") };
    ensure!((record.severity_number, record.severity_text.as_str()) == severity, "{record:?}");
    let body = event.pointer("/cause/summary").cloned().unwrap_or_else(|| json!(kind));
    ensure!(plain(record.body.as_ref()) == body, "the body is not {body}: {record:?}");
    let (is, should) = (table(&record.attributes)?, attributes(event));
    for (name, value) in &should {
        ensure!(is.get(name) == Some(value), "{name} is {:?} and not {value} for {event}", is.get(name));
    }
    let beside: Vec<_> = is.keys().filter(|name| !should.contains_key(*name)).collect();
    ensure!(beside.is_empty(), "{beside:?} are known from nowhere: {event}");
    Ok(())
}
