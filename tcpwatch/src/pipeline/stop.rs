//! How a run ends from outside: the first signal in order, a second one at once.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A second signal within this time is the first one's echo: `timeout` sends it to the process and to its group.
const SAME_WISH: Duration = Duration::from_millis(300);

/// The signals that end a run.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let open = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())? })
    }

    pub(super) async fn called(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// The first signal ends a run in order, a second one at once: what the kernel holds of tcpwatch goes with the process.
pub(super) struct Stop {
    pub(super) signals: Signals,
    /// Set with the first signal, for the start and the end, which await nothing.
    pub(super) asked: Arc<AtomicBool>,
}

/// What the thread that listens sets. It listens for as long as the process lives: a signal between two runs of the agent ends the next one.
static ASKED: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

impl Stop {
    pub(super) fn new() -> Result<Self> {
        let signals = Signals::new()?;
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match &*asked {
            Some(asked) => Arc::clone(asked),
            None => Arc::clone(asked.insert(listen()?)),
        };
        Ok(Self { signals, asked })
    }
}

fn listen() -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&asked);
    // A thread of its own: the end may wait for a reader that stalls.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let listen = async move {
        signals.called().await;
        set.store(true, Ordering::Relaxed);
        let first = Instant::now();
        loop {
            let kind = signals.called().await;
            if first.elapsed() > SAME_WISH {
                std::process::exit(128 + kind.as_raw_value());
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(listen))
        .context("cannot listen for signals")?;
    Ok(asked)
}
