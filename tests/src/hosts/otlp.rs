//! The agent and a collector: what comes over OTLP is what happened, and an absent collector costs nothing that there was room for.

mod expected;
mod receiver;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use serde_json::{Value, json};

use super::captures::{self, FEW, folder, text};
use super::tool::{END, Running};
use super::traffic::Ground;
use super::{Case, Lab, When, case};
use receiver::{Mood, Receiver, Taken, Tls};

pub(super) const CASES: &[Case] = &[
    case("otlp-grpc", When::Any, grpc),
    case("otlp-http", When::Any, http),
    case("otlp-tls", When::Any, tls),
    case("otlp-answers", When::Any, answers),
    case("otlp-outage", When::Any, outage),
    case("otlp-nonsense", When::Any, nonsense),
];

const PORT: u16 = 8080;
/// As long as the collector is away.
const OUTAGE: Duration = Duration::from_secs(60);
/// The longest that an agent waits for another try, and some.
const RETURN: Duration = Duration::from_secs(40);

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn records(taken: &Taken) -> Vec<&LogRecord> {
    let resources = taken.logs.iter().flat_map(|request| &request.resource_logs);
    resources.flat_map(|one| &one.scope_logs).flat_map(|one| &one.log_records).collect()
}

/// An agent that was told so, in a namespace of ours.
fn agent(lab: &Lab, folder: &Path, ground: &Ground, config: &str) -> Result<Running> {
    let file = folder.join("agent.toml");
    let common = format!(
        "listen = \"127.0.0.1:0\"\nattach = \"tracepoint\"\nstorm = \"off\"\nnetns = \"{}\"\n{config}\n",
        ground.inode()
    );
    std::fs::write(&file, common)?;
    lab.tool(&["agent", "--config", text(&file)?]).spawn()
}

/// Some of everything that this host lets happen, and all of it comes, in the words of the conventions.
fn everything(lab: &Lab, name: &str, receiver: &Receiver, otlp: &str) -> Result<Taken> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let folder = folder(lab, name)?;
    let ring = folder.join("ring");
    let config = format!(
        "events = \"all\"\nclose-wait-after = \"1s\"\n[ring]\npath = \"{}\"\n[otlp]\n{otlp}\n",
        text(&ring)?
    );
    let running = agent(lab, &folder, &ground, &config)?;
    let address = captures::address(&running)?;
    captures::wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
    let left = {
        let fd = ground.cli.socket(false)?;
        ground.cli.connect(fd, SocketAddr::from(([127, 0, 0, 1], PORT)))?;
        let (accepted, _) = ground.srv.accept(listener)?;
        ground.cli.close(fd)?;
        accepted
    };
    for v6 in [false, true] {
        ground.reset_by(&ground.cli, listener, PORT, v6)?;
    }
    ground.close_unread(listener, PORT)?;
    ground.netns.enter(|| {
        Ground::refuse(super::traffic::CLOSED);
        Ok(())
    })?;
    captures::wait_value(address, "tcpwatch_close_wait_sockets", 1.0)?;
    receiver.wait("a log record", END, |taken| !taken.logs.is_empty())?;
    receiver.wait("a figure", END, |taken| !taken.metrics.is_empty())?;
    let page = captures::get(address, "/metrics")?;
    let ended = running.stop()?;
    ended.exits(0)?;
    ground.srv.close(left)?;
    let taken = receiver.taken();
    let back = lab.tool(&["--json", "-r", text(&ring)?]).run()?;
    back.exits(0)?;
    let events: Vec<Value> =
        back.stdout.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let events: Vec<_> = events
        .iter()
        .filter(|event| !matches!(event["event"].as_str(), Some("start" | "summary" | "lost")))
        .collect();
    let got = records(&taken);
    let happened = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    ensure!(got.len() == events.len(), "{} records for {} events: {}", got.len(), events.len(), ended.stderr);
    for (kind, least) in [("rst_sent", 4), ("rst_received", 4), ("state", 12), ("close_wait_leak", 1)] {
        ensure!(happened(kind) >= least, "{} events {kind}", happened(kind));
    }
    for (record, event) in got.iter().zip(events) {
        expected::same(record, event)?;
    }
    speaker(&taken)?;
    figures(&taken, &page)?;
    Ok(taken)
}

/// Who speaks.
fn speaker(taken: &Taken) -> Result<()> {
    let logs = taken.logs.iter().flat_map(|request| &request.resource_logs);
    let metrics = taken.metrics.iter().flat_map(|request| &request.resource_metrics);
    let of_logs = logs.map(|one| (one.resource.as_ref(), one.schema_url.as_str()));
    for (resource, schema) in
        of_logs.chain(metrics.map(|one| (one.resource.as_ref(), one.schema_url.as_str())))
    {
        ensure!(schema.starts_with("https://opentelemetry.io/schemas/1."), "schema {schema}");
        let all = expected::table(&resource.context("no resource")?.attributes)?;
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
        for (key, value) in [
            ("service.name", "tcpwatch".to_owned()),
            ("host.name", read("/proc/sys/kernel/hostname")?),
            ("os.type", "linux".to_owned()),
            ("os.version", read("/proc/sys/kernel/osrelease")?),
            ("team", "edge".to_owned()),
        ] {
            ensure!(all.get(key) == Some(&json!(value)), "{key} is {:?} and not {value}", all.get(key));
        }
        for key in ["service.version", "service.instance.id", "host.arch"] {
            ensure!(all.get(key).is_some_and(|value| value.as_str() != Some("")), "{key} is not said");
        }
    }
    Ok(())
}

/// A label of the page, as an attribute.
fn attribute(label: &str, value: &str) -> Vec<(String, Value)> {
    let name = match label {
        "process" => "process.executable.name".to_owned(),
        "container" => "container.id".to_owned(),
        "queue" | "action" => format!("tcpwatch.listen.{label}"),
        "direction" => {
            let value = if value == "sent" { "transmit" } else { "receive" };
            return vec![("network.io.direction".to_owned(), json!(value))];
        }
        "netns" => return vec![("tcpwatch.netns".to_owned(), json!(value.parse::<u64>().unwrap_or(0)))],
        "listener" => {
            let Ok(end) = value.parse::<SocketAddr>() else { return Vec::new() };
            return vec![
                ("network.local.address".to_owned(), json!(end.ip().to_string())),
                ("network.local.port".to_owned(), json!(end.port())),
            ];
        }
        other => format!("tcpwatch.{other}"),
    };
    vec![(name, json!(value))]
}

/// Every series of the page is a point, with the same attributes; those that stood still also with the same value.
fn figures(taken: &Taken, page: &str) -> Result<()> {
    let last = taken.metrics.last().context("no figures")?;
    let metrics =
        last.resource_metrics.iter().flat_map(|one| &one.scope_metrics).flat_map(|one| &one.metrics);
    let mut points: BTreeMap<(String, String), f64> = BTreeMap::new();
    for metric in metrics {
        let (all, ending) = match metric.data.as_ref().context("a metric without data")? {
            Data::Sum(sum) => {
                ensure!(
                    sum.is_monotonic && sum.aggregation_temporality == 2,
                    "{} is no counter",
                    metric.name
                );
                ensure!(sum.data_points.iter().all(|point| point.start_time_unix_nano > 0), "since when?");
                (&sum.data_points, "_total")
            }
            Data::Gauge(gauge) => (&gauge.data_points, ""),
            other => bail!("{other:?}"),
        };
        let ending = if metric.unit == "s" { "_seconds" } else { ending };
        for point in all {
            let value = match point.value.context("a point without a value")? {
                Number::AsInt(value) => value as f64,
                Number::AsDouble(value) => value,
            };
            let name = format!("{}{ending}", metric.name.replace('.', "_"));
            points.insert((name, json!(expected::table(&point.attributes)?).to_string()), value);
        }
    }
    let mut seen = 0;
    let is_series = |line: &&str| line.starts_with("tcpwatch_") && !line.starts_with("tcpwatch_build_info");
    for line in page.lines().filter(is_series) {
        let (series, value) = line.rsplit_once(' ').context("no series")?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|one| one.split_once("=\""));
        let labels = labels.map(|(name, value)| (name, value.trim_end_matches('"')));
        let attributes: serde_json::Map<_, _> = labels
            .filter(|(_, value)| !value.is_empty())
            .flat_map(|(name, value)| attribute(name, value))
            .collect();
        let point = points.get(&(name.to_owned(), Value::from(attributes.clone()).to_string()));
        let point = point.with_context(|| format!("no point for {line}: {attributes:?}"))?;
        if name.starts_with("tcpwatch_resets") {
            seen += 1;
            ensure!(Ok(*point) == value.parse(), "{point} for {line}");
        }
    }
    ensure!(seen >= 4, "{seen} series of resets:\n{page}");
    Ok(())
}

fn grpc(lab: &Lab) -> Result<()> {
    let receiver = Receiver::grpc(anywhere(), None)?;
    let otlp = format!(
        "endpoint = \"http://{}\"\ninterval = \"1s\"\n[otlp.headers]\nx-Tenant = \"17\"\n[otlp.resource]\nteam = \"edge\"",
        receiver.address()
    );
    let taken = everything(lab, "otlp-grpc", &receiver, &otlp)?;
    ensure!(taken.headers["x-tenant"] == "17", "{:?}", taken.headers);
    Ok(())
}

fn http(lab: &Lab) -> Result<()> {
    let receiver = Receiver::http(anywhere())?;
    let otlp = format!(
        "endpoint = \"http://localhost:{}\"\nprotocol = \"http/protobuf\"\ncompression = \"gzip\"\ninterval = \"1s\"\n\
         [otlp.headers]\nx-tenant = \"17\"\n[otlp.resource]\nteam = \"edge\"",
        receiver.address().port()
    );
    let taken = everything(lab, "otlp-http", &receiver, &otlp)?;
    ensure!(
        taken.headers["x-tenant"] == "17" && taken.headers["content-encoding"] == "gzip",
        "{:?}",
        taken.headers
    );
    Ok(())
}

/// Both ends show who they are; whom the other does not trust gets no word.
fn tls(lab: &Lab) -> Result<()> {
    let folder = folder(lab, "otlp-tls")?;
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let signed = |name: &str| -> Result<(String, String)> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let (certificate, key) = signed("localhost")?;
    let (ours, our_key) = signed("agent")?;
    for (name, content) in [("ca.pem", &authority_pem), ("agent.pem", &ours), ("agent.key", &our_key)] {
        std::fs::write(folder.join(name), content)?;
    }
    let receiver = Receiver::grpc(anywhere(), Some(&Tls { authority: authority_pem, certificate, key }))?;
    let at = |name: &str| format!("{}/{name}", folder.display());
    let endpoint =
        format!("endpoint = \"https://localhost:{}\"\ninterval = \"1s\"", receiver.address().port());
    let otlp = format!(
        "{endpoint}\ncertificate = \"{}\"\nclient-certificate = \"{}\"\nclient-key = \"{}\"\n[otlp.resource]\nteam = \"edge\"",
        at("ca.pem"),
        at("agent.pem"),
        at("agent.key")
    );
    everything(lab, "otlp-tls", &receiver, &otlp)?;
    let before = receiver.taken().metrics.len();
    let ground = Ground::new()?;
    for (otlp, complaint) in [
        (format!("certificate = \"{}\"", at("agent.key")), "cannot read a certificate from"),
        (format!("certificate = \"{}\"", at("nothing.pem")), "cannot read a certificate from"),
    ] {
        let ended = agent(lab, &folder, &ground, &format!("[otlp]\n{endpoint}\n{otlp}"))?.wait(END)?;
        ended.exits(1)?;
        ended.complains(&[complaint])?;
    }
    // Another authority than the collector's, and nobody to show: neither is trusted.
    std::fs::write(folder.join("other.pem"), ours)?;
    for otlp in
        [format!("certificate = \"{}\"", at("other.pem")), format!("certificate = \"{}\"", at("ca.pem"))]
    {
        let running = agent(lab, &folder, &ground, &format!("[otlp]\n{endpoint}\n{otlp}"))?;
        let address = captures::address(&running)?;
        captures::wait_value(
            address,
            "tcpwatch_otlp_exports_total{signal=\"metrics\",outcome=\"failure\"}",
            1.0,
        )?;
        let ended = running.stop()?;
        ended.exits(0)?;
        ensure!(ended.stderr.contains("takes no figures ("), "it does not say so: {}", ended.stderr);
    }
    let after = receiver.taken().metrics.len();
    ensure!(before == after, "{} figures came over a connection that is not trusted", after - before);
    Ok(())
}

/// What has no series yet was counted no time.
fn value(address: SocketAddr, series: &str) -> Result<f64> {
    Ok(captures::value(&captures::get(address, "/metrics")?, series).unwrap_or(0.0))
}

const DELIVERED: &str = "tcpwatch_otlp_log_records_total{outcome=\"delivered\"}";
const REJECTED: &str = "tcpwatch_otlp_log_records_total{outcome=\"rejected\"}";
const SPILLED: &str = "tcpwatch_otlp_log_records_total{outcome=\"spilled\"}";

/// What a collector answers is understood: busy is another time, a refusal is for good, and a part is a part.
fn answers(lab: &Lab) -> Result<()> {
    for over_grpc in [true, false] {
        let receiver = if over_grpc { Receiver::grpc(anywhere(), None) } else { Receiver::http(anywhere()) }?;
        let ground = Ground::new()?;
        let listener = ground.listen(PORT)?;
        let folder = folder(lab, if over_grpc { "otlp-answers-grpc" } else { "otlp-answers-http" })?;
        let protocol = if over_grpc { "grpc" } else { "http/protobuf" };
        let config = format!(
            "events = \"rst\"\n[otlp]\nendpoint = \"http://{}\"\nprotocol = \"{protocol}\"\nsignals = \"logs\"",
            receiver.address()
        );
        let running = agent(lab, &folder, &ground, &config)?;
        let address = captures::address(&running)?;
        captures::wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
        receiver.mood(Mood::Busy);
        ground.reset(listener, PORT)?;
        receiver.wait("a request", END, |taken| taken.turned_away >= 2)?;
        receiver.mood(Mood::Takes);
        captures::wait_value(address, DELIVERED, 2.0)?;
        receiver.mood(Mood::Refuses);
        ground.reset(listener, PORT)?;
        captures::wait_value(address, REJECTED, 2.0)?;
        receiver.mood(Mood::TakesBut(1));
        ground.reset(listener, PORT)?;
        captures::wait_value(address, REJECTED, 3.0)?;
        captures::wait_value(address, DELIVERED, 3.0)?;
        let ended = running.stop()?;
        ended.exits(0)?;
        let taken = receiver.taken();
        ensure!(taken.metrics.is_empty(), "figures came that nobody asked for");
        ensure!(records(&taken).len() == 4, "{} records came", records(&taken).len());
        for words in ["takes no events (", "answers again", "turned 2 events away"] {
            ensure!(ended.stderr.contains(words), "it does not say `{words}`: {}", ended.stderr);
        }
    }
    Ok(())
}

/// The collector is away for a minute: what fits into the queue comes when it is back, what does not is counted.
fn outage(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let folder = folder(lab, "otlp-outage")?;
    let receiver = Receiver::grpc(anywhere(), None)?;
    let collector = receiver.address();
    let config = format!(
        "events = \"rst\"\n[otlp]\nendpoint = \"http://{collector}\"\nsignals = \"logs\"\nqueue = \"64K\""
    );
    let running = agent(lab, &folder, &ground, &config)?;
    let address = captures::address(&running)?;
    captures::wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
    ground.reset(listener, PORT)?;
    receiver.wait("the first two", END, |taken| records(taken).len() == 2)?;
    drop(receiver);
    let away = Instant::now();
    for _ in 0..10 {
        ground.reset(listener, PORT)?;
    }
    let seen = "tcpwatch_events_total{event=\"rst_received\"}";
    captures::wait_value(address, seen, 11.0)?;
    ensure!(value(address, SPILLED)? == 0.0, "ten resets do not fit");
    sleep(OUTAGE.saturating_sub(away.elapsed()));
    captures::wait_value(address, "tcpwatch_otlp_queue_length", 20.0)?;
    let receiver = Receiver::grpc(collector, None)?;
    receiver.wait("what waited", RETURN, |taken| records(taken).len() == 20)?;
    captures::wait_value(address, DELIVERED, 22.0)?;
    drop(receiver);
    for _ in 0..150 {
        ground.reset(listener, PORT)?;
    }
    captures::wait_value(address, seen, 161.0)?;
    captures::wait_value(address, "tcpwatch_events_total{event=\"rst_sent\"}", 161.0)?;
    let spilled = value(address, SPILLED)?;
    ensure!((1.0..300.0).contains(&spilled), "{spilled} of 300 were spilled");
    let receiver = Receiver::grpc(collector, None)?;
    let kept = 300 - spilled as usize;
    receiver.wait("what fitted in", RETURN, |taken| records(taken).len() >= kept)?;
    captures::wait_value(address, DELIVERED, 22.0 + kept as f64)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let taken = receiver.taken();
    ensure!(records(&taken).len() == kept, "{} came and not {kept}", records(&taken).len());
    for words in ["takes no events (", "answers again"] {
        ensure!(ended.stderr.contains(words), "it does not say `{words}`: {}", ended.stderr);
    }
    Ok(())
}

fn nonsense(lab: &Lab) -> Result<()> {
    let agent = |more: &[&str]| lab.tool(&[&["agent", "--listen", "off"], FEW, more].concat()).run();
    for (args, words) in [
        (&["--otlp", "127.0.0.1:4317"][..], &["`127.0.0.1:4317` is not the address of a collector"][..]),
        (&["--otlp", "http://127.0.0.1:1/x"], &["has a path"]),
        (&["--otlp", "http://127.0.0.1:1", "--otlp-protocol", "kafka"], &["unknown protocol `kafka`"]),
        (&["--otlp-protocol", "grpc"], &["without a collector"]),
    ] {
        agent(args)?.refused(2, words)?;
    }
    // A collector that is not there is no reason not to watch, and not to end.
    let began = Instant::now();
    let running = lab
        .tool(
            &[&["agent", "--listen", "127.0.0.1:0", "--otlp", "http://no.such.host.invalid:4317"], FEW]
                .concat(),
        )
        .spawn()?;
    let address = captures::address(&running)?;
    captures::wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    ensure!(began.elapsed() < lab.slowness + END, "it took {:?} to end", began.elapsed());
    Ok(())
}
