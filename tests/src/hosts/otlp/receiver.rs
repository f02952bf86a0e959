//! A collector as far as the protocol goes: the official definitions, and the servers that are made from them. It answers as it is told.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Takes,
    /// It takes all but so many records of each request.
    TakesBut(i64),
    /// Busy: another time.
    Busy,
    /// Never.
    Refuses,
}

/// Whom it trusts, and who it is (PEM).
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    pub(super) logs: Vec<ExportLogsServiceRequest>,
    pub(super) metrics: Vec<ExportMetricsServiceRequest>,
    /// Of the last request.
    pub(super) headers: HeaderMap,
    /// Requests that were not taken.
    pub(super) turned_away: usize,
}

#[derive(Clone, Debug, Default)]
struct Desk {
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Taken>>,
}

impl Desk {
    /// What to answer; the number of records to reject, or whether it may be sent again.
    fn judge(&self, headers: &HeaderMap) -> Result<i64, bool> {
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.headers = headers.clone();
        let verdict = match mood {
            Mood::Takes => Ok(0),
            Mood::TakesBut(count) => Ok(count),
            Mood::Busy => Err(true),
            Mood::Refuses => Err(false),
        };
        taken.turned_away += usize::from(verdict.is_err());
        verdict
    }

    fn logs(&self, request: ExportLogsServiceRequest, rejected: i64) -> ExportLogsServiceResponse {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).logs.push(request);
        let part =
            ExportLogsPartialSuccess { rejected_log_records: rejected, error_message: "too old".to_owned() };
        ExportLogsServiceResponse { partial_success: (rejected > 0).then_some(part) }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) -> ExportMetricsServiceResponse {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).metrics.push(request);
        ExportMetricsServiceResponse { partial_success: None }
    }

    fn status(may_again: bool) -> tonic::Status {
        if may_again {
            tonic::Status::unavailable("busy")
        } else {
            tonic::Status::invalid_argument("not that")
        }
    }
}

#[tonic::async_trait]
impl LogsService for Desk {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        let rejected = self.judge(request.metadata().as_ref()).map_err(Self::status)?;
        Ok(tonic::Response::new(self.logs(request.into_inner(), rejected)))
    }
}

#[tonic::async_trait]
impl MetricsService for Desk {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.judge(request.metadata().as_ref()).map_err(Self::status)?;
        Ok(tonic::Response::new(self.metrics(request.into_inner())))
    }
}

/// It runs until it is dropped: then its port is closed and its connections break.
pub(super) struct Receiver {
    desk: Desk,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Receiver {
    pub(super) fn grpc(address: SocketAddr, tls: Option<&Tls>) -> Result<Self> {
        let (desk, runtime, listener) = Self::open(address)?;
        let mut server = Server::builder();
        if let Some(tls) = tls {
            let config = ServerTlsConfig::new()
                .identity(Identity::from_pem(&tls.certificate, &tls.key))
                .client_ca_root(Certificate::from_pem(&tls.authority));
            let _inside = runtime.enter();
            server = server.tls_config(config).context("TLS")?;
        }
        let address = listener.local_addr()?;
        let logs = LogsServiceServer::new(desk.clone()).accept_compressed(CompressionEncoding::Gzip);
        let metrics = MetricsServiceServer::new(desk.clone()).accept_compressed(CompressionEncoding::Gzip);
        let serving = server.add_service(logs).add_service(metrics);
        runtime.spawn(async move { serving.serve_with_incoming(TcpListenerStream::new(listener)).await });
        Ok(Self { desk, address, runtime: Some(runtime) })
    }

    pub(super) fn http(address: SocketAddr) -> Result<Self> {
        let (desk, runtime, listener) = Self::open(address)?;
        let address = listener.local_addr()?;
        let served = desk.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = served.clone();
                let answer = service_fn(move |request| {
                    let desk = desk.clone();
                    async move { Ok::<_, Infallible>(answer(&desk, request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Self { desk, address, runtime: Some(runtime) })
    }

    fn open(address: SocketAddr) -> Result<(Desk, Runtime, TcpListener)> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("listening on {address}"))?;
        Ok((Desk::default(), runtime, listener))
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn mood(&self, mood: Mood) {
        *self.desk.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    pub(super) fn taken(&self) -> Taken {
        self.desk.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for what is wanted to have come.
    pub(super) fn wait(
        &self,
        what: &str,
        patience: std::time::Duration,
        enough: impl Fn(&Taken) -> bool,
    ) -> Result<Taken> {
        let end = Instant::now() + patience;
        loop {
            let taken = self.taken();
            if enough(&taken) {
                return Ok(taken);
            }
            ensure!(
                Instant::now() < end,
                "{what} did not come: {} requests with events, {} with figures, {} turned away",
                taken.logs.len(),
                taken.metrics.len(),
                taken.turned_away
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        }
    }
}

async fn answer(desk: &Desk, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let reply = |status, body: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    };
    let (head, body) = request.into_parts();
    let rejected = match desk.judge(&head.headers) {
        Ok(rejected) => rejected,
        Err(true) => return reply(StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        Err(false) => return reply(StatusCode::BAD_REQUEST, Vec::new()),
    };
    let Ok(body) = body.collect().await else { return reply(StatusCode::BAD_REQUEST, Vec::new()) };
    match decoded(desk, &head, &body.to_bytes(), rejected) {
        Ok(body) => reply(StatusCode::OK, body),
        Err(error) => {
            drop(std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("the receiver: {error:#}\n"),
            ));
            reply(StatusCode::BAD_REQUEST, Vec::new())
        }
    }
}

fn decoded(desk: &Desk, head: &hyper::http::request::Parts, body: &[u8], rejected: i64) -> Result<Vec<u8>> {
    ensure!(head.method == Method::POST, "{} is no way to send", head.method);
    ensure!(head.headers["content-type"] == "application/x-protobuf", "another type");
    let mut plain = Vec::new();
    match head.headers.get("content-encoding").map(hyper::header::HeaderValue::as_bytes) {
        Some(b"gzip") => GzDecoder::new(body).read_to_end(&mut plain).map(drop)?,
        None => plain.extend_from_slice(body),
        Some(other) => bail!("an encoding of another kind: {other:?}"),
    }
    match head.uri.path() {
        "/v1/logs" => {
            Ok(desk.logs(ExportLogsServiceRequest::decode(plain.as_slice())?, rejected).encode_to_vec())
        }
        "/v1/metrics" => {
            Ok(desk.metrics(ExportMetricsServiceRequest::decode(plain.as_slice())?).encode_to_vec())
        }
        other => bail!("{other} is no path of the protocol"),
    }
}
