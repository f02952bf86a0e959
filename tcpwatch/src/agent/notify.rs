//! What systemd is told: that the hooks are attached, that the loop still turns (`WatchdogSec=`), that it ends.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// Says nothing where nobody asked (`NOTIFY_SOCKET` is not set).
#[derive(Clone, Debug)]
pub(super) struct Notify {
    /// Half of the time after which systemd loses its patience.
    pace: Option<Duration>,
    next: Instant,
}

impl Notify {
    pub(super) fn from_environment() -> Self {
        Self { pace: sd_notify::watchdog_enabled().map(|patience| patience / 2), next: Instant::now() }
    }

    fn say(states: &[NotifyState<'_>]) {
        // Who started it without systemd listens to nothing; that is no error.
        drop(sd_notify::notify(states));
    }

    pub(super) fn ready(&self, status: &str) {
        Self::say(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(super) fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        Self::say(&states);
    }

    pub(super) fn stopping(&self) {
        Self::say(&[NotifyState::Stopping]);
    }

    /// The loop has come around.
    pub(super) fn alive(&mut self) {
        let Some(pace) = self.pace else { return };
        let now = Instant::now();
        if now >= self.next {
            self.next = now + pace;
            Self::say(&[NotifyState::Watchdog]);
        }
    }
}
