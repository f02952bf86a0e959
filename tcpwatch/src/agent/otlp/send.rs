//! One request, over gRPC or HTTP, and what its answer means
//! (<https://opentelemetry.io/docs/specs/otlp/#failures>).

use super::connect::Connector;
use super::settings::{Protocol, Settings};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use std::io::Write as _;
use std::time::Duration;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic_prost::ProstCodec;

/// Of an answer more is not read: it is a sentence.
const ANSWER: usize = 64 << 10;
/// A connection on which nothing came for so long is asked whether it still lives.
const ALIVE: Duration = Duration::from_secs(20);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Received; so many of its records were turned away, and why.
    Taken { rejected: u64, why: String },
    /// Nobody will take it, however often it is sent.
    Refused(String),
    /// Another try may do; not before that time, if one was said.
    Later { why: String, after: Option<Duration> },
}

/// What may be sent: a message, and where to.
pub(super) trait Signal: Message + Clone + Default + 'static {
    /// Over HTTP.
    const PATH: &'static str;
    /// Over gRPC.
    const METHOD: &'static str;
    type Answer: Message + Default + 'static;

    /// How many records were turned away, and why.
    fn rejected(answer: &Self::Answer) -> (i64, &str);
}

impl Signal for super::Logs {
    const PATH: &'static str = "/v1/logs";
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    type Answer = ExportLogsServiceResponse;

    fn rejected(answer: &Self::Answer) -> (i64, &str) {
        answer
            .partial_success
            .as_ref()
            .map_or((0, ""), |part| (part.rejected_log_records, &part.error_message))
    }
}

impl Signal for super::Figures {
    const PATH: &'static str = "/v1/metrics";
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    type Answer = ExportMetricsServiceResponse;

    fn rejected(answer: &Self::Answer) -> (i64, &str) {
        answer
            .partial_success
            .as_ref()
            .map_or((0, ""), |part| (part.rejected_data_points, &part.error_message))
    }
}

/// Speaks to the collector. Connections are kept.
#[derive(Debug)]
pub(super) struct Sender {
    settings: Settings,
    connector: Connector,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Grpc(Client<Connector, tonic::body::Body>),
    Http(Client<Connector, Full<Bytes>>),
}

impl Transport {
    fn new(protocol: Protocol, connector: Connector) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        match protocol {
            Protocol::Grpc => Self::Grpc(
                builder
                    .http2_only(true)
                    .http2_keep_alive_interval(ALIVE)
                    .http2_keep_alive_timeout(ALIVE / 2)
                    .build(connector),
            ),
            Protocol::Http => Self::Http(builder.build(connector)),
        }
    }
}

impl Sender {
    pub(super) fn new(settings: &Settings, connector: Connector) -> Self {
        let transport = Transport::new(settings.protocol, connector.clone());
        Self { settings: settings.clone(), connector, transport }
    }

    pub(super) async fn send<S: Signal>(&mut self, message: S) -> Outcome {
        let patience = self.settings.timeout;
        let sent = async {
            match &self.transport {
                Transport::Grpc(client) => grpc(client, &self.settings, message).await,
                Transport::Http(client) => http(client, &self.settings, &message).await,
            }
        };
        match tokio::time::timeout(patience, sent).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Its connection may be one on which nobody listens any more.
                self.transport = Transport::new(self.settings.protocol, self.connector.clone());
                later(format!("no answer within {} s", patience.as_secs_f64()))
            }
        }
    }
}

fn later(why: String) -> Outcome {
    Outcome::Later { why, after: None }
}

fn taken<S: Signal>(answer: &S::Answer) -> Outcome {
    let (rejected, why) = S::rejected(answer);
    Outcome::Taken { rejected: u64::try_from(rejected).unwrap_or(0), why: why.to_owned() }
}

async fn grpc<S: Signal>(
    client: &Client<Connector, tonic::body::Body>,
    settings: &Settings,
    message: S,
) -> Outcome {
    let mut grpc = tonic::client::Grpc::with_origin(client.clone(), settings.endpoint.clone());
    if settings.gzip {
        grpc = grpc.send_compressed(CompressionEncoding::Gzip);
    }
    grpc = grpc.accept_compressed(CompressionEncoding::Gzip);
    if let Err(error) = grpc.ready().await {
        return later(whole(&error));
    }
    let headers: HeaderMap = settings.headers.iter().cloned().collect();
    let mut request =
        tonic::Request::from_parts(MetadataMap::from_headers(headers), tonic::Extensions::new(), message);
    request.set_timeout(settings.timeout);
    let codec = ProstCodec::<S, S::Answer>::default();
    match grpc.unary(request, PathAndQuery::from_static(S::METHOD), codec).await {
        Ok(answer) => taken::<S>(answer.get_ref()),
        Err(status) => judged(&status),
    }
}

/// The protocol's table of codes. `RESOURCE_EXHAUSTED` is worth another try only if the collector says when.
fn judged(status: &tonic::Status) -> Outcome {
    let what = match std::error::Error::source(status) {
        Some(source) => whole(source),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    };
    let why = format!("{:?}: {what}", status.code());
    let after = retry_info(status.details());
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Outcome::Later { why, after },
        Code::ResourceExhausted if after.is_some() => Outcome::Later { why, after },
        // What hyper says when a connection broke or there was none; no collector said it.
        Code::Unknown if std::error::Error::source(status).is_some() => Outcome::Later { why, after },
        _ => Outcome::Refused(why),
    }
}

/// `google.rpc.Status`, of which only the details matter.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RpcDuration>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RpcDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|one| one.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?))
}

async fn http<S: Signal>(
    client: &Client<Connector, Full<Bytes>>,
    settings: &Settings,
    message: &S,
) -> Outcome {
    let mut body = message.encode_to_vec();
    let mut request =
        Request::post(beside(&settings.endpoint, S::PATH)).header(CONTENT_TYPE, "application/x-protobuf");
    if settings.gzip {
        body = match packed(&body) {
            Ok(packed) => packed,
            Err(error) => return Outcome::Refused(format!("cannot compress: {error}")),
        };
        request = request.header(CONTENT_ENCODING, "gzip");
    }
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    let request = match request.body(Full::new(Bytes::from(body))) {
        Ok(request) => request,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let answer = match client.request(request).await {
        Ok(answer) => answer,
        Err(error) => return later(whole(&error)),
    };
    let (head, body) = answer.into_parts();
    let body = match Limited::new(body, ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        // What it means is in the status already.
        Err(_) => Bytes::new(),
    };
    match head.status {
        status if status.is_success() => match S::Answer::decode(body) {
            Ok(answer) => taken::<S>(&answer),
            Err(_) => Outcome::Refused("the answer is not OTLP".to_owned()),
        },
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => {
            let seconds =
                head.headers.get(RETRY_AFTER).and_then(|text| text.to_str().ok()?.trim().parse().ok());
            Outcome::Later { why: status.to_string(), after: seconds.map(Duration::from_secs) }
        }
        status => Outcome::Refused(status.to_string()),
    }
}

fn packed(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body)?;
    gzip.finish()
}

/// The endpoint with a signal's path behind its own.
fn beside(endpoint: &Uri, path: &str) -> String {
    format!("{}{path}", endpoint.to_string().trim_end_matches('/'))
}

/// An error and all that it rests on: hyper says `client error (Connect)` and no more.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let what = source.to_string();
        if !text.contains(&what) {
            text.push_str(": ");
            text.push_str(&what);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_its_path_behind_the_endpoint() {
        for (endpoint, expected) in [
            ("http://a:4318", "http://a:4318/v1/logs"),
            ("http://a:4318/", "http://a:4318/v1/logs"),
            ("https://a/otlp", "https://a/otlp/v1/logs"),
        ] {
            assert_eq!(beside(&endpoint.parse().unwrap(), "/v1/logs"), expected);
        }
    }

    #[test]
    fn codes_are_judged_as_the_protocol_says() {
        let is_later = |code| matches!(judged(&tonic::Status::new(code, "x")), Outcome::Later { .. });
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::DataLoss,
        ] {
            assert!(is_later(code), "{code:?}");
        }
        for code in [
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::Unimplemented,
            Code::PermissionDenied,
            Code::Internal,
            Code::ResourceExhausted,
        ] {
            assert!(!is_later(code), "{code:?}");
        }
    }

    #[test]
    fn an_exhausted_collector_is_asked_again_when_it_says_so() {
        let delay = RetryInfo { retry_delay: Some(RpcDuration { seconds: 3, nanos: 500_000_000 }) };
        let detail = RpcAny {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: delay.encode_to_vec(),
        };
        let details = RpcStatus { details: vec![detail] }.encode_to_vec();
        let status = tonic::Status::with_details(Code::ResourceExhausted, "full", details.into());
        let after = Some(Duration::from_millis(3_500));
        assert_eq!(judged(&status), Outcome::Later { why: "ResourceExhausted: full".to_owned(), after });
        assert_eq!(retry_info(b"nonsense"), None);
    }
}
