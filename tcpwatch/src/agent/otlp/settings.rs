//! Where events and figures go over OTLP, and how.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// `[otlp]` of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OtlpFile {
    pub endpoint: Option<String>,
    pub protocol: Option<String>,
    pub headers: Option<BTreeMap<String, String>>,
    pub compression: Option<String>,
    pub certificate: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub queue: Option<String>,
    pub interval: Option<String>,
    pub timeout: Option<String>,
    pub signals: Option<String>,
    pub resource: Option<BTreeMap<String, String>>,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Port 4317 by custom.
    Grpc,
    /// Protobuf over HTTP/1.1 or 2; port 4318 by custom.
    Http,
}

/// All there is to know about the way to a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Scheme, host and port; over HTTP also what stands in front of `/v1/logs`.
    pub endpoint: Uri,
    pub protocol: Protocol,
    /// Sent with every request. Their values are secrets: never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub gzip: bool,
    /// Whom to trust instead of the certificates of this host (PEM).
    pub certificate: Option<PathBuf>,
    /// Who we are: certificate and key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
    /// Bytes of events that may wait for the collector.
    pub queue: usize,
    /// From one sending of the figures to the next.
    pub interval: Duration,
    /// Of one request.
    pub timeout: Duration,
    pub logs: bool,
    pub metrics: bool,
    /// Said about this host beside what is known anyway; wins over it.
    pub resource: BTreeMap<String, String>,
}
