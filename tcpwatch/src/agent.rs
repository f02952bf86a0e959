//! `tcpwatch agent`: a run that does not end, for a fleet: figures for Prometheus, events for the journal, and a ring of captures on
//! disk for when somebody comes to look.
//!
//! [`config`] is what was asked for, by file and flags; [`metrics`] keeps the figures, [`serve`] gives them out on a thread of its own,
//! [`otlp`] sends events and figures to a collector, [`journal`] writes entries, [`notify`] speaks to systemd, [`ring`] keeps the
//! captures within their bounds.

pub mod config;
mod journal;
mod metrics;
mod notify;
pub mod otlp;
#[cfg(test)]
mod queries;
pub mod ring;
mod serve;

use crate::event::{Event, Lost, Standing, Start, Summary};
use crate::sink::time::now_ns;
use crate::sink::{Shown, Sink};
use anyhow::{Context, Result};
use config::Config;
use journal::Journal;
use metrics::Metrics;
use notify::Notify;
use otlp::Exporter;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at listeners and TIME_WAIT tables: soon enough for a scrape every quarter of a minute.
const LOOK: Duration = Duration::from_secs(10);
/// Between two looks at what is old: figures of leaks that are told no more.
const SWEEP: Duration = Duration::from_secs(1);

/// What lives on when the configuration is read again.
pub struct Agent {
    metrics: Arc<Metrics>,
    /// SIGHUP came, and the file is in order.
    again: Arc<AtomicBool>,
    notify: Notify,
    /// `None`: nobody wants figures.
    server: Option<serve::Server>,
    file: Option<PathBuf>,
    /// The one that the last run had: what it still holds is not lost when another run begins.
    exporter: Mutex<Option<Arc<Exporter>>>,
    /// When figures began to count: nanoseconds since 1970.
    since_ns: u64,
}

impl Agent {
    /// Opens what is asked for. `check` says whether the file can be used when it is read again.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn new(config: &Config, check: impl Fn() -> Result<()> + Send + 'static) -> Result<Self> {
        let metrics = Arc::new(Metrics::new(config.max_series));
        let server = match config.listen {
            Some(address) => Some(serve::Server::start(address, Arc::clone(&metrics))?),
            None => None,
        };
        let again = Arc::new(AtomicBool::new(false));
        on_hangup(Arc::clone(&again), Arc::clone(&metrics), check)?;
        Ok(Self {
            metrics,
            again,
            notify: Notify::from_environment(),
            server,
            file: config.file.clone(),
            exporter: Mutex::default(),
            since_ns: now_ns(),
        })
    }

    /// Where figures are given out.
    pub fn listens(&self) -> Option<std::net::SocketAddr> {
        self.server.as_ref().map(serve::Server::address)
    }

    /// The file that it was configured by.
    pub fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }

    /// Whether the run ended to begin anew with what the file says now.
    pub fn begins_anew(&self) -> bool {
        self.again.swap(false, Ordering::Relaxed)
    }

    /// A sink for one run.
    ///
    /// # Errors
    /// The journal is wanted, and there is none; a certificate for the collector cannot be read.
    pub fn sink(&self, config: &Config) -> Result<AgentSink> {
        let journal = config.journal.then(Journal::open).transpose()?;
        Ok(AgentSink {
            metrics: Arc::clone(&self.metrics),
            again: Arc::clone(&self.again),
            notify: self.notify.clone(),
            journal,
            exporter: self.exporter(config)?,
            keeps_leaks: config.close_wait_after * 5 / 2,
            next_sweep: Instant::now(),
        })
    }

    /// The exporter that is at work already, if it was asked for the same.
    fn exporter(&self, config: &Config) -> Result<Option<Arc<Exporter>>> {
        let mut current = self.exporter.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().map(|exporter| exporter.settings()) != config.otlp.as_ref() {
            let next = match &config.otlp {
                Some(settings) => Some(Arc::new(Exporter::start(settings, &self.metrics, self.since_ns)?)),
                None => None,
            };
            if let Some(last) = std::mem::replace(&mut *current, next) {
                // What it holds may take a moment, in which events go to the new one.
                std::thread::Builder::new().name("otlp-last".to_owned()).spawn(move || drop(last))?;
            }
        }
        Ok(current.clone())
    }
}

/// SIGHUP: the file is read at once, and the run begins anew only if it is in order.
fn on_hangup(
    again: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    check: impl Fn() -> Result<()> + Send + 'static,
) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut hangup = {
        let _inside = runtime.enter();
        signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?
    };
    let listen = async move {
        while hangup.recv().await.is_some() {
            match check() {
                Ok(()) => {
                    metrics.reloaded(true);
                    again.store(true, Ordering::Relaxed);
                }
                Err(error) => {
                    metrics.reloaded(false);
                    eprintln!(
                        "tcpwatch: the configuration is not read again: {}",
                        crate::cli::sentence(&error)
                    );
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || runtime.block_on(listen))
        .context("cannot listen for SIGHUP")?;
    Ok(())
}

/// One run's events become figures and entries.
pub struct AgentSink {
    metrics: Arc<Metrics>,
    again: Arc<AtomicBool>,
    notify: Notify,
    journal: Option<Journal>,
    exporter: Option<Arc<Exporter>>,
    /// How long the figure of a leak holds that is not told again.
    keeps_leaks: Duration,
    next_sweep: Instant,
}

impl Sink for AgentSink {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.metrics.start(start);
        let attached = start.hooks.iter().filter(|hook| hook.attached.is_ok()).count();
        self.notify.ready(&format!(
            "watching kernel {}, {attached} of {} hooks attached",
            start.kernel,
            start.hooks.len()
        ));
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        self.metrics.event(event);
        if let Some(journal) = &mut self.journal
            && journal.event(event) == Shown::No
        {
            self.metrics.unwritten();
        }
        if let Some(exporter) = &self.exporter {
            exporter.event(event);
        }
        Ok(Shown::Yes)
    }

    fn judges(&self) -> bool {
        true
    }

    fn looks_again(&self) -> Option<Duration> {
        Some(LOOK)
    }

    fn over(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        self.metrics.standing(all);
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        self.metrics.lost(lost);
        if let Some(journal) = &mut self.journal {
            journal.lost(lost);
        }
        if let Some(exporter) = &self.exporter {
            exporter.lost(lost);
        }
        Ok(Shown::Yes)
    }

    fn closing(&mut self) {}

    fn summary(&mut self, _summary: &Summary) -> io::Result<()> {
        if self.again.load(Ordering::Relaxed) {
            self.notify.reloading();
        } else {
            self.notify.stopping();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.notify.alive();
        if Instant::now() >= self.next_sweep {
            self.metrics.sweep(self.keeps_leaks);
            self.next_sweep = Instant::now() + SWEEP;
        }
        Ok(())
    }
}
