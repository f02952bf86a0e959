//! Gives the figures out over HTTP, on a thread of its own: whoever scrapes slowly holds up nobody.

use super::metrics::Metrics;
use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What Prometheus asks for by name.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Whoever does not gets this.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// Scrapers at once; more of them wait.
const AT_ONCE: usize = 16;
/// Whoever says nothing for so long is not a scraper.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection, whatever is asked over it.
const LONGEST: Duration = Duration::from_secs(300);

/// The thread and its socket.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
}

impl Server {
    /// Listens at once, so that a port that is taken is an error of the start.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(super) fn start(address: SocketAddr, metrics: Arc<Metrics>) -> Result<Self> {
        let cannot = || {
            format!("cannot listen on {address}\nhint: `--listen` names another address, `--listen off` none")
        };
        let listener = TcpListener::bind(address).with_context(cannot)?;
        listener.set_nonblocking(true).with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || runtime.block_on(serve(listener, metrics)))
            .context("cannot start the thread that gives figures out")?;
        Ok(Self { address })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, or a client that is gone already: the next one may have more luck.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(|request| {
                let metrics = Arc::clone(&metrics);
                async move { Ok::<_, Infallible>(answer(&request, &metrics)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            // A scraper that breaks off is its own affair.
            drop(tokio::time::timeout(LONGEST, connection).await);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let accepts = request.headers().get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    let openmetrics = accepts.contains("application/openmetrics-text");
    reply(request.method(), request.uri().path(), openmetrics, metrics)
}

fn reply(method: &Method, path: &str, openmetrics: bool, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        _ if method != Method::GET && method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET it\n".to_owned())
        }
        "/metrics" => match if openmetrics { metrics.page() } else { metrics.plain_page() } {
            Ok(page) => (StatusCode::OK, if openmetrics { OPENMETRICS } else { PROMETHEUS }, page),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/" => (StatusCode::OK, TEXT, "tcpwatch agent: figures are at /metrics\n".to_owned()),
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "figures are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn figures_are_given_out() {
        let server = Server::start("127.0.0.1:0".parse().unwrap(), Arc::new(Metrics::new(5))).unwrap();
        let address = server.address();
        let get = |path: &str| {
            ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        };
        let page = get("/metrics");
        assert!(page.contains("version=0.0.4") && !page.contains("# EOF"), "{page}");
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        let page = ask(
            address,
            &format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\nConnection: close\r\n\r\n"),
        );
        assert!(
            page.starts_with("HTTP/1.1 200") && page.contains("openmetrics-text") && page.contains("# EOF"),
            "{page}"
        );
        assert!(get("/healthz").ends_with("ok\n"));
        assert!(get("/nothing").starts_with("HTTP/1.1 404"));
        let post = ask(
            address,
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        assert!(ask(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        let taken = Server::start(address, Arc::new(Metrics::new(5))).unwrap_err();
        assert!(format!("{taken:#}").contains("--listen"));
    }
}
