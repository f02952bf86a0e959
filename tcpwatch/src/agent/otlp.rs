//! OTLP: events as log records and figures as metrics, to a collector of OpenTelemetry over gRPC or HTTP
//! (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! An event flows so: [`record`] gives it the names of the conventions, [`queue`] keeps it, encoded, until the collector has
//! it, [`export`] puts requests together on a thread of its own and tries again, [`send`] speaks and judges the answer,
//! over what [`connect`] opens. [`figures`] makes metrics of the page of figures, [`resource`] says who speaks.

mod connect;
mod export;
mod figures;
mod queue;
mod record;
mod resource;
mod send;
pub mod settings;
mod values;

pub(super) use export::Exporter;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::bytes::Bytes;

type Figures = ExportMetricsServiceRequest;

/// `ExportLogsServiceRequest` with its records as bytes: on the wire a message within another is bytes with a length, and
/// what waits in the queue is encoded already.
#[derive(Clone, PartialEq, prost::Message)]
struct Logs {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    log_records: Vec<Bytes>,
    #[prost(string, tag = "3")]
    schema_url: String,
}
