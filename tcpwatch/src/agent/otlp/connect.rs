//! The way to the collector: names, TCP, TLS. No secret and no certificate is read where the endpoint is plain `http`.

use super::settings::Settings;
use anyhow::{Context, Result, bail};
use hickory_resolver::TokioResolver;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;
use tower_service::Service;

/// A TCP connection takes at most this long.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Asks `/etc/hosts` and the servers of `/etc/resolv.conf`, as they are when a connection is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let asked = async {
                let resolver = TokioResolver::builder_tokio()?.build()?;
                resolver.lookup_ip(name.as_str()).await
            };
            let found = asked.await.map_err(|error| {
                io::Error::new(io::ErrorKind::NotFound, format!("`{name}` is not resolved: {error}"))
            })?;
            // The port is the connector's affair.
            let all: Vec<_> = found.iter().map(|addr| SocketAddr::new(addr, 0)).collect();
            Ok(all.into_iter())
        })
    }
}

/// What opens connections as asked.
///
/// # Errors
/// A certificate or a key cannot be read, or none is there to trust.
pub(super) fn connector(settings: &Settings) -> Result<Connector> {
    let mut tcp = HttpConnector::new_with_resolver(Resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let tls = if settings.endpoint.scheme_str() == Some("https") {
        tls(settings)?
    } else {
        // Never used, and it costs nothing.
        builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    };
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("no TLS")
}

fn tls(settings: &Settings) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &settings.certificate {
        Some(file) => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("{} is no authority to trust", file.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                bail!(
                    "this host has no certificates to trust\nhint: install ca-certificates, or name an authority: \
                     `certificate = \"FILE\"` in [otlp]"
                );
            }
        }
    }
    let trusting = builder()?.with_root_certificates(roots);
    let Some((certificate, key)) = &settings.client else { return Ok(trusting.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read a key from {}\nhint: PEM is wanted", key.display()))?;
    trusting
        .with_client_auth_cert(chain, secret)
        .with_context(|| format!("{} and {} do not go together", certificate.display(), key.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let cannot = || format!("cannot read a certificate from {}\nhint: PEM is wanted", file.display());
    let all: Vec<_> = CertificateDer::pem_file_iter(file)
        .with_context(cannot)?
        .collect::<Result<_, _>>()
        .with_context(cannot)?;
    if all.is_empty() {
        bail!("{}", cannot());
    }
    Ok(all)
}
