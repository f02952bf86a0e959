//! Where the agent sends what it sees over OTLP: by flags, by `[otlp]` of its file, or by the variables that every program
//! with OpenTelemetry reads
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use super::{Error, values};
use crate::agent::otlp::settings::{OtlpFile, Protocol, Settings};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Ten thousand events and more.
const QUEUE: u64 = 16 << 20;
const INTERVAL: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where a collector listens for HTTP by custom.
const HTTP_PORT: u16 = 4_318;

/// Joins flags, file and environment, in that order. `None`: nobody named a collector.
pub(super) fn settings(
    url: Option<String>,
    protocol: Option<String>,
    file: Option<OtlpFile>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Settings>, Error> {
    let file_was_there = file.is_some();
    let file = file.unwrap_or_default();
    let env = |name: &str| {
        env(&format!("OTEL_{name}")).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let exporter = |name: &str| env(&format!("EXPORTER_OTLP_{name}"));
    let Some(endpoint) = url.or(file.endpoint).or_else(|| exporter("ENDPOINT")) else {
        return match (protocol, file_was_there) {
            (Some(_), _) => {
                Err(Error::usage("`--otlp-protocol` without a collector", "`--otlp URL` names it"))
            }
            (None, true) => {
                Err(Error::usage("[otlp] names no collector", "`endpoint = \"http://127.0.0.1:4317\"`"))
            }
            (None, false) => Ok(None),
        };
    };
    let endpoint = address(&endpoint)?;
    let protocol = match protocol.or(file.protocol).or_else(|| exporter("PROTOCOL")) {
        Some(text) => self::protocol(&text)?,
        None if endpoint.port_u16() == Some(HTTP_PORT) => Protocol::Http,
        None => Protocol::Grpc,
    };
    if protocol == Protocol::Grpc && !matches!(endpoint.path(), "" | "/") {
        return Err(Error::usage(
            format!("`{endpoint}` has a path, which gRPC has no use for"),
            "`--otlp-protocol http/protobuf`, or scheme, host and port alone",
        ));
    }
    let (logs, metrics) = signals(file.signals.as_deref())?;
    let interval = file.interval.map_or(Ok(INTERVAL), |text| values::duration("interval", &text))?;
    let timeout = match (file.timeout, exporter("TIMEOUT")) {
        (Some(text), _) => values::duration("timeout", &text)?,
        // Milliseconds, as the specification has it.
        (None, Some(text)) => Duration::from_millis(values::count("OTEL_EXPORTER_OTLP_TIMEOUT", &text)?),
        (None, None) => TIMEOUT,
    };
    let queue = file.queue.map_or(Ok(QUEUE), |text| values::size("queue", &text))?;
    if interval < Duration::from_secs(1) || timeout.is_zero() {
        return Err(Error::usage(
            "`interval` is at least 1s and `timeout` more than nothing",
            "for instance `interval = \"15s\"`",
        ));
    }
    let client = (
        file.client_certificate.or_else(|| exporter("CLIENT_CERTIFICATE").map(PathBuf::from)),
        file.client_key.or_else(|| exporter("CLIENT_KEY").map(PathBuf::from)),
    );
    Ok(Some(Settings {
        headers: headers(file.headers, exporter("HEADERS"))?,
        gzip: gzip(file.compression.or_else(|| exporter("COMPRESSION")).as_deref())?,
        certificate: file.certificate.or_else(|| exporter("CERTIFICATE").map(PathBuf::from)),
        client: match client {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Error::usage(
                    "a client's certificate and its key are only of use together",
                    "`client-certificate` and `client-key` in [otlp]",
                ));
            }
        },
        queue: usize::try_from(queue).unwrap_or(usize::MAX),
        interval,
        timeout,
        logs,
        metrics,
        resource: resource(file.resource, env("RESOURCE_ATTRIBUTES").as_deref(), env("SERVICE_NAME"))?,
        endpoint,
        protocol,
    }))
}

fn address(text: &str) -> Result<Uri, Error> {
    let wrong = || {
        Error::usage(
            format!("`{text}` is not the address of a collector"),
            "scheme, host and port, as http://127.0.0.1:4317 or https://collector.example:4318",
        )
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    match uri.scheme_str() {
        Some("http" | "https")
            if uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none() =>
        {
            Ok(uri)
        }
        _ => Err(wrong()),
    }
}

fn protocol(text: &str) -> Result<Protocol, Error> {
    match text {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" | "http" => Ok(Protocol::Http),
        _ => Err(Error::usage(format!("unknown protocol `{text}`"), "grpc or http/protobuf")),
    }
}

fn gzip(text: Option<&str>) -> Result<bool, Error> {
    match text {
        None | Some("none") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => Err(Error::usage(format!("unknown compression `{other}`"), "gzip or none")),
    }
}

fn signals(text: Option<&str>) -> Result<(bool, bool), Error> {
    let (mut logs, mut metrics) = (false, false);
    for word in text.unwrap_or("logs,metrics").split(',') {
        match word.trim() {
            "logs" => logs = true,
            "metrics" => metrics = true,
            other => return Err(Error::usage(format!("unknown signal `{other}`"), "logs, metrics or both")),
        }
    }
    Ok((logs, metrics))
}

/// `a=b,c=d`, with what has a meaning of its own as `%2C`.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong = || {
        Error::usage(
            format!("{name} makes no sense"),
            "name=value,name=value, with %2C for a comma in a value",
        )
    };
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
            let value = unescaped(value.trim()).ok_or_else(wrong)?;
            Ok((key.trim().to_owned(), value))
        })
        .collect()
}

/// With `%XX` resolved.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Those of the file, or those of the environment. What is wrong is named without its value, which may be a secret.
fn headers(
    file: Option<BTreeMap<String, String>>,
    env: Option<String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let all: Vec<_> = match (file, env) {
        (Some(file), _) => file.into_iter().collect(),
        (None, Some(text)) => pairs("OTEL_EXPORTER_OTLP_HEADERS", &text)?,
        (None, None) => Vec::new(),
    };
    all.into_iter()
        .map(|(name, value)| {
            let wrong = || {
                Error::usage(
                    format!("header `{name}` cannot be sent"),
                    "names are letters, digits and dashes, values are ASCII",
                )
            };
            // gRPC has them in small letters alone.
            let header = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            Ok((header, value))
        })
        .collect()
}

/// The file wins over the environment, key by key.
fn resource(
    file: Option<BTreeMap<String, String>>,
    env: Option<&str>,
    service: Option<String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut all: BTreeMap<_, _> =
        env.map_or(Ok(Vec::new()), |text| pairs("OTEL_RESOURCE_ATTRIBUTES", text))?.into_iter().collect();
    all.extend(service.map(|name| ("service.name".to_owned(), name)));
    all.extend(file.unwrap_or_default());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: Option<&str>, file: &str, env: &[(&str, &str)]) -> Result<Option<Settings>, Error> {
        let file = (!file.is_empty()).then(|| toml::from_str(file).unwrap());
        let env =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        settings(url.map(str::to_owned), None, file, env)
    }

    #[test]
    fn nobody_asked_and_nothing_is_sent() {
        assert_eq!(of(None, "", &[]).unwrap(), None);
        assert_eq!(of(None, "", &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap(), None);
    }

    #[test]
    fn the_port_tells_the_protocol_unless_somebody_says_it() {
        let protocol = |url: &str, file: &str| of(Some(url), file, &[]).unwrap().unwrap().protocol;
        assert_eq!(protocol("http://a:4317", ""), Protocol::Grpc);
        assert_eq!(protocol("http://a:4318", ""), Protocol::Http);
        assert_eq!(protocol("http://a:9", ""), Protocol::Grpc);
        assert_eq!(protocol("http://a:4318", "protocol = \"grpc\""), Protocol::Grpc);
    }

    #[test]
    fn the_environment_speaks_where_flags_and_file_are_silent() {
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example/otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc, x-tenant=1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=n1,team=a%2Cb"),
            ("OTEL_SERVICE_NAME", "edge"),
        ];
        let all = of(None, "", &env).unwrap().unwrap();
        assert_eq!(
            (all.protocol, all.gzip, all.timeout),
            (Protocol::Http, true, Duration::from_millis(2_500))
        );
        let headers: Vec<_> =
            all.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("authorization", "Basic abc"), ("x-tenant", "1")]);
        assert_eq!(all.resource["team"], "a,b");
        assert_eq!(all.resource["service.name"], "edge");
        let file = "endpoint = \"http://b:4317\"\nprotocol = \"grpc\"\ntimeout = \"1s\"\nqueue = \"1M\"\nsignals = \"logs\"\n\
                    [headers]\nx = \"y\"\n[resource]\nteam = \"c\"\n";
        let all = of(None, file, &env).unwrap().unwrap();
        assert_eq!((all.endpoint.host(), all.protocol, all.queue), (Some("b"), Protocol::Grpc, 1 << 20));
        assert_eq!((all.headers.len(), all.logs, all.metrics), (1, true, false));
        assert_eq!((all.resource["team"].as_str(), all.resource["k8s.node.name"].as_str()), ("c", "n1"));
        assert_eq!(of(Some("http://d:1"), file, &env).unwrap().unwrap().endpoint.host(), Some("d"));
    }

    #[test]
    fn what_makes_no_sense_is_named_and_no_secret_is_told() {
        for (url, file, env, what) in [
            (Some("collector:4317"), "", ("", ""), "`collector:4317` is not the address"),
            (Some("ftp://a:1"), "", ("", ""), "not the address"),
            (Some("http://a:1/x"), "", ("", ""), "has a path"),
            (None, "queue = \"1M\"", ("", ""), "names no collector"),
            (Some("http://a:1"), "protocol = \"http/json\"", ("", ""), "unknown protocol `http/json`"),
            (Some("http://a:1"), "compression = \"zstd\"", ("", ""), "unknown compression"),
            (Some("http://a:1"), "signals = \"traces\"", ("", ""), "unknown signal `traces`"),
            (Some("http://a:1"), "queue = \"1K\"", ("", ""), "`1K` is not a size, in `queue`"),
            (Some("http://a:1"), "interval = \"10ms\"", ("", ""), "at least 1s"),
            (Some("http://a:1"), "client-key = \"/x\"", ("", ""), "only of use together"),
            (
                Some("http://a:1"),
                "",
                ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
                "OTEL_EXPORTER_OTLP_HEADERS makes no sense",
            ),
            (Some("http://a:1"), "[headers]\n\"a b\" = \"secret\"", ("", ""), "header `a b` cannot be sent"),
        ] {
            let error = of(url, file, &[env]).unwrap_err();
            assert!(error.what.contains(what), "{error}");
            assert!(!format!("{error}").contains("secret"), "{error}");
        }
    }
}
