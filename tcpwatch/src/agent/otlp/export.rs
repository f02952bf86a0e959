//! The thread that empties the queue and sends figures. What the collector does not take is sent again, ever less often, for
//! as long as it takes; meanwhile the queue fills up, and only what finds no room in it is lost, and counted.

use super::queue::{Batch, Queue};
use super::send::{Outcome, Sender};
use super::settings::Settings;
use super::{Figures, Logs, ResourceLogs, ScopeLogs, connect, figures, record, resource};
use crate::agent::metrics::{Delivery, Metrics};
use crate::event::{Event, Lost};
use crate::sink::time::now_ns;
use anyhow::{Context, Result};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The first wait before another try; then twice as long, and so on.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Longer than that no collector is left alone, even if it asks for it.
const ASKED: Duration = Duration::from_secs(300);
/// Whoever ends the agent waits so long for what the queue still holds.
const FAREWELL: Duration = Duration::from_secs(5);
/// The same trouble is told once in so long.
const TELL: Duration = Duration::from_secs(60);

/// The queue's end that events go in at. Dropped, it sends what is left, for a moment.
#[derive(Debug)]
pub(in crate::agent) struct Exporter {
    settings: Settings,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    ends: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts the thread. `since`: when the figures began to count.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub(in crate::agent) fn start(
        settings: &Settings,
        metrics: &Arc<Metrics>,
        since_ns: u64,
    ) -> Result<Self> {
        let queue = Arc::new(Queue::new(settings.queue));
        let (ends, ended) = watch::channel(false);
        let exporting = |sender| Exporting {
            sender,
            resource: resource::resource(&settings.resource),
            endpoint: settings.endpoint.to_string(),
            metrics: Arc::clone(metrics),
            ended: ended.clone(),
            told: None,
            silent: false,
        };
        let connector = connect::connector(settings)?;
        let mut logs = exporting(Sender::new(settings, connector.clone()));
        let mut figures = exporting(Sender::new(settings, connector));
        let (waiting, interval) = (Arc::clone(&queue), settings.interval);
        let (wants_logs, wants_figures) = (settings.logs, settings.metrics);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = async move {
            tokio::join!(
                async {
                    if wants_logs {
                        logs.events(&waiting).await;
                    }
                },
                async {
                    if wants_figures {
                        figures.figures(interval, since_ns).await;
                    }
                }
            );
        };
        let thread = std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || runtime.block_on(work))
            .context("cannot start the thread that speaks to the collector")?;
        Ok(Self {
            settings: settings.clone(),
            queue,
            metrics: Arc::clone(metrics),
            ends,
            thread: Some(thread),
        })
    }

    pub(in crate::agent) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(in crate::agent) fn event(&self, event: &Event) {
        if self.settings.logs {
            self.push(&record::event(event));
        }
    }

    pub(in crate::agent) fn lost(&self, lost: &Lost) {
        if self.settings.logs {
            self.push(&record::lost(lost));
        }
    }

    fn push(&self, record: &LogRecord) {
        if !self.queue.push(record.encode_to_vec().into()) {
            self.metrics.exported(Delivery::Spilled, 1);
        }
        self.metrics.export_queue(self.queue.len());
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.queue.close();
        self.ends.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        let left = self.queue.len();
        if left > 0 {
            self.metrics.exported(Delivery::Spilled, left as u64);
            eprintln!("tcpwatch: {left} events did not reach the collector at {}", self.settings.endpoint);
        }
    }
}

/// One signal's way out.
struct Exporting {
    sender: Sender,
    resource: Resource,
    endpoint: String,
    metrics: Arc<Metrics>,
    ended: watch::Receiver<bool>,
    /// When trouble was last told.
    told: Option<Instant>,
    /// The collector has not answered lately.
    silent: bool,
}

impl Exporting {
    fn request(&self, batch: &Batch) -> Logs {
        let records = ScopeLogs {
            scope: Some(resource::scope()),
            log_records: batch.records.clone(),
            schema_url: resource::SCHEMA.to_owned(),
        };
        let all = ResourceLogs {
            resource: Some(self.resource.clone()),
            scope_logs: vec![records],
            schema_url: resource::SCHEMA.to_owned(),
        };
        Logs { resource_logs: vec![all] }
    }

    async fn events(&mut self, queue: &Queue) {
        let mut ended = self.ended.clone();
        while let Some(batch) = queue.next().await {
            let reached = tokio::select! {
                reached = self.deliver(&batch, queue) => reached,
                () = farewell(&mut ended) => false,
            };
            if !reached {
                return;
            }
            queue.done(&batch);
            self.metrics.export_queue(queue.len());
        }
    }

    /// Tries until the collector has it, or says that it never will.
    async fn deliver(&mut self, batch: &Batch, queue: &Queue) -> bool {
        let count = batch.records.len() as u64;
        let mut pause = FIRST;
        loop {
            let outcome = self.sender.send(self.request(batch)).await;
            self.metrics.export("logs", matches!(outcome, Outcome::Taken { .. }));
            match outcome {
                Outcome::Taken { rejected, why } => {
                    let rejected = rejected.min(count);
                    self.metrics.exported(Delivery::Delivered, count - rejected);
                    self.answers();
                    if rejected > 0 {
                        self.metrics.exported(Delivery::Rejected, rejected);
                        self.tell(&format!("turned {rejected} events away: {why}"));
                    }
                    return true;
                }
                Outcome::Refused(why) => {
                    self.metrics.exported(Delivery::Rejected, count);
                    self.tell(&format!("turned {count} events away: {why}"));
                    return true;
                }
                Outcome::Later { why, after } => {
                    self.silent = true;
                    self.tell(&format!("takes no events ({why}): {} wait", queue.len()));
                    // Many agents lost the same collector at the same moment: they should not all come back at once.
                    let wait = after.unwrap_or_else(|| pause.mul_f64(0.5 + jitter() / 2.0));
                    self.rest(wait.min(ASKED)).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    /// Waits. The end of the agent is a reason for another try at once.
    async fn rest(&mut self, pause: Duration) {
        let began_in_peace = !*self.ended.borrow();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.ended.wait_for(|ended| *ended), if began_in_peace => {}
        }
    }

    async fn figures(&mut self, interval: Duration, since_ns: u64) {
        let mut ended = self.ended.clone();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first one comes at once, and there is nothing to tell yet.
        ticks.tick().await;
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                _ = ended.wait_for(|ended| *ended) => true,
            };
            tokio::select! {
                () = self.tell_figures(since_ns) => {}
                () = farewell(&mut ended) => return,
            }
            if last {
                return;
            }
        }
    }

    /// What fails is not sent again: the next figures say all that these said.
    async fn tell_figures(&mut self, since_ns: u64) {
        let Ok(page) = self.metrics.page() else { return };
        let all = figures::metrics(&page, since_ns, now_ns());
        let message = Figures {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(resource::scope()),
                    metrics: all,
                    schema_url: resource::SCHEMA.to_owned(),
                }],
                schema_url: resource::SCHEMA.to_owned(),
            }],
        };
        let outcome = self.sender.send(message).await;
        self.metrics.export("metrics", matches!(outcome, Outcome::Taken { .. }));
        match outcome {
            Outcome::Taken { rejected: 0, .. } => self.answers(),
            Outcome::Taken { rejected, why } => self.tell(&format!("turned {rejected} figures away: {why}")),
            Outcome::Refused(why) => self.tell(&format!("turned the figures away: {why}")),
            Outcome::Later { why, .. } => {
                self.silent = true;
                self.tell(&format!("takes no figures ({why})"));
            }
        }
    }

    fn tell(&mut self, what: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            eprintln!("tcpwatch: the collector at {} {what}", self.endpoint);
        }
    }

    fn answers(&mut self) {
        if std::mem::take(&mut self.silent) {
            self.told = None;
            eprintln!("tcpwatch: the collector at {} answers again", self.endpoint);
        }
    }
}

/// Comes a moment after the end.
async fn farewell(ended: &mut watch::Receiver<bool>) {
    // The other end is dropped only after the thread has ended.
    drop(ended.wait_for(|ended| *ended).await);
    tokio::time::sleep(FAREWELL).await;
}

/// From 0 to 1, another one each time.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(now_ns()) >> 32;
    bits as f64 / f64::from(u32::MAX)
}
