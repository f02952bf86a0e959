//! The two clocks of an event.

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) mono_ns: u64,
    pub(super) wall_ns: u64,
}

impl Clock {
    pub(super) fn read() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let ns = |id| {
            let time = clock_gettime(id);
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
        };
        Self { mono_ns: ns(ClockId::Monotonic), wall_ns: ns(ClockId::Realtime) }
    }

    /// To add to a monotonic time for a wall time.
    pub(super) fn offset_ns(&self) -> i64 {
        self.wall_ns.cast_signed().wrapping_sub(self.mono_ns.cast_signed())
    }
}
