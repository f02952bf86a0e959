//! The figures, made from the page that Prometheus gets, so that the two never say different things.

use super::record;
use super::values::Attributes;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, Sum, metric::Data,
};

/// A family of the page, its name here, its unit (UCUM). With `_` for `.` and the page's endings a name is the page's again, as
/// those translate that bring OTLP into Prometheus.
const FIGURES: [(&str, &str, &str); 19] = [
    ("tcpwatch_resets", "tcpwatch.resets", "{reset}"),
    ("tcpwatch_listen_drops", "tcpwatch.listen.drops", "{connection}"),
    ("tcpwatch_time_wait_refused", "tcpwatch.time_wait.refused", "{socket}"),
    ("tcpwatch_close_wait_sockets", "tcpwatch.close_wait.sockets", "{socket}"),
    ("tcpwatch_listen_queue_length", "tcpwatch.listen.queue.length", "{connection}"),
    ("tcpwatch_listen_queue_limit", "tcpwatch.listen.queue.limit", "{connection}"),
    ("tcpwatch_time_wait_sockets", "tcpwatch.time_wait.sockets", "{socket}"),
    ("tcpwatch_time_wait_limit", "tcpwatch.time_wait.limit", "{socket}"),
    ("tcpwatch_events", "tcpwatch.events", "{event}"),
    ("tcpwatch_events_lost", "tcpwatch.events_lost", "{event}"),
    ("tcpwatch_hook_attached", "tcpwatch.hook.attached", "1"),
    ("tcpwatch_journal_entries_lost", "tcpwatch.journal.entries_lost", "{entry}"),
    ("tcpwatch_config_reloads", "tcpwatch.config.reloads", "{reload}"),
    ("tcpwatch_otlp_log_records", "tcpwatch.otlp.log_records", "{record}"),
    ("tcpwatch_otlp_exports", "tcpwatch.otlp.exports", "{request}"),
    ("tcpwatch_otlp_queue_length", "tcpwatch.otlp.queue.length", "{record}"),
    ("tcpwatch_lag_seconds", "tcpwatch.lag", "s"),
    ("tcpwatch_start_time_seconds", "tcpwatch.start_time", "s"),
    // The resource says what it has to say.
    ("tcpwatch_build", "", ""),
];

/// One line of the page.
#[derive(Debug, PartialEq, Eq)]
struct Series<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

fn series(line: &str) -> Option<Series<'_>> {
    let Some((name, mut rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(Series { name, labels: Vec::new(), value });
    };
    let mut labels = Vec::new();
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((label.trim_start_matches(','), value));
        rest = after.get(end + 1..)?;
    }
    Some(Series { name, labels, value: rest.strip_prefix("} ")? })
}

fn attributes(labels: &[(&str, String)]) -> Attributes {
    let mut all = Attributes::default();
    for (label, value) in labels {
        let value = value.as_str();
        match *label {
            _ if value.is_empty() => {}
            "direction" => {
                all.add("network.io.direction", if value == "sent" { "transmit" } else { "receive" });
            }
            "listener" => record::listener(&mut all, value),
            "process" => all.add("process.executable.name", value),
            "container" => all.add("container.id", value),
            "netns" => match value.parse::<u32>() {
                Ok(inode) => all.add("tcpwatch.netns", inode),
                Err(_) => all.add("tcpwatch.netns", value),
            },
            "queue" | "action" => all.add(&format!("tcpwatch.listen.{label}"), value),
            other => all.add(&format!("tcpwatch.{other}"), value),
        }
    }
    all
}

fn point(series: &Series<'_>, unit: &str, start_ns: u64, now_ns: u64) -> Option<NumberDataPoint> {
    let whole = || series.value.parse().ok().map(Value::AsInt);
    let broken = || series.value.parse().ok().map(Value::AsDouble);
    Some(NumberDataPoint {
        attributes: attributes(&series.labels).0,
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        value: Some(if unit == "s" { broken()? } else { whole().or_else(broken)? }),
        ..NumberDataPoint::default()
    })
}

/// A page in OpenMetrics as metrics. Counters count from `start_ns`; both times are nanoseconds since 1970.
pub(super) fn metrics(page: &str, start_ns: u64, now_ns: u64) -> Vec<Metric> {
    let mut all: Vec<Metric> = Vec::new();
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help).trim_end_matches('.');
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let known = FIGURES.iter().find(|(name, ..)| *name == family);
            let (_, name, unit) = known.copied().unwrap_or((family, family, ""));
            let data = match kind {
                "counter" => Data::Sum(Sum {
                    data_points: Vec::new(),
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                }),
                _ => Data::Gauge(Gauge::default()),
            };
            all.push(Metric {
                name: name.to_owned(),
                description: help.to_owned(),
                unit: unit.to_owned(),
                data: Some(data),
                ..Metric::default()
            });
        } else if !line.starts_with('#')
            && let (Some(series), Some(metric)) = (series(line), all.last_mut())
        {
            match &mut metric.data {
                Some(Data::Sum(sum)) => {
                    sum.data_points.extend(point(&series, &metric.unit, start_ns, now_ns));
                }
                // A gauge is of the moment.
                Some(Data::Gauge(gauge)) => {
                    gauge.data_points.extend(point(&series, &metric.unit, 0, now_ns));
                }
                _ => {}
            }
        }
    }
    all.retain(|metric| {
        !metric.name.is_empty()
            && match &metric.data {
                Some(Data::Sum(sum)) => !sum.data_points.is_empty(),
                Some(Data::Gauge(gauge)) => !gauge.data_points.is_empty(),
                _ => false,
            }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::super::values::find;
    use super::*;
    use crate::agent::metrics::tests::full;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;

    #[test]
    fn labels_are_read_as_they_were_written() {
        let read = series(r#"a_total{x="1 {\"}",process="a\\b\nc",e=""} 5"#).unwrap();
        let labels = [("x", "1 {\"}"), ("process", "a\\b\nc"), ("e", "")].map(|(a, b)| (a, b.to_owned()));
        assert_eq!(read, Series { name: "a_total", labels: labels.into(), value: "5" });
        assert_eq!(series("a 1.5").unwrap().value, "1.5");
        assert_eq!(series("a{x=\"").map(|_| ()), None);
    }

    #[test]
    fn every_figure_of_the_page_has_a_name_and_a_unit() {
        let page = full().page().unwrap();
        let families: Vec<_> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        for family in &families {
            let (_, name, unit) = FIGURES
                .iter()
                .find(|(known, ..)| known == family)
                .unwrap_or_else(|| panic!("{family} has no name"));
            if name.is_empty() {
                continue;
            }
            let ending = if *unit == "s" { "_seconds" } else { "" };
            assert_eq!(format!("{}{ending}", name.replace('.', "_")), *family);
        }
        for (known, ..) in FIGURES {
            assert!(families.contains(&known), "{known} is on no page");
        }
    }

    #[test]
    fn counters_are_sums_since_the_start_and_gauges_are_of_now() {
        let page = "# HELP tcpwatch_resets TCP RSTs.\n# TYPE tcpwatch_resets counter\n\
                    tcpwatch_resets_total{direction=\"sent\",cause=\"linger-zero\",site=\"\",process=\"a\",container=\"\"} 3\n\
                    # HELP tcpwatch_listen_queue_length L.\n# TYPE tcpwatch_listen_queue_length gauge\n\
                    tcpwatch_listen_queue_length{listener=\"[::]:80\",netns=\"7\",process=\"a\",container=\"\"} 2\n\
                    # HELP tcpwatch_lag_seconds L.\n# TYPE tcpwatch_lag_seconds gauge\n# UNIT tcpwatch_lag_seconds seconds\n\
                    tcpwatch_lag_seconds 2\n# TYPE tcpwatch_events counter\n# EOF\n";
        let all = metrics(page, 5, 9);
        assert_eq!(all.len(), 3, "what has no series is not there");
        assert_eq!((all[0].name.as_str(), all[0].description.as_str()), ("tcpwatch.resets", "TCP RSTs"));
        let Some(Data::Sum(sum)) = &all[0].data else { panic!("no sum") };
        assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, 9));
        assert_eq!(point.value, Some(Value::AsInt(3)));
        let transmit = Attribute::StringValue("transmit".to_owned());
        assert_eq!(find(&point.attributes, "network.io.direction"), Some(&transmit));
        assert_eq!(find(&point.attributes, "container.id"), None);
        let Some(Data::Gauge(gauge)) = &all[1].data else { panic!("no gauge") };
        assert_eq!(
            find(&gauge.data_points[0].attributes, "network.local.port"),
            Some(&Attribute::IntValue(80))
        );
        let Some(Data::Gauge(lag)) = &all[2].data else { panic!("no gauge") };
        assert_eq!((lag.data_points[0].value, all[2].unit.as_str()), (Some(Value::AsDouble(2.0)), "s"));
    }
}
