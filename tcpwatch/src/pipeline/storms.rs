//! What the kernel side only counted, as events: one a second for each kind, port and network, explained by one of its own.

use crate::event::Event;
use crate::source::{Live, Storm};
use anyhow::Result;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tcpwatch_common::record::{Record, flag};
use tcpwatch_common::storm::{Key, What, level};

/// Keys whose last sample is kept: each takes as much as the record and is shared by its three levels.
const SAMPLES: usize = 3 * 256;

/// What was told, and what is to explain the rest.
pub(super) struct Storms {
    samples: HashMap<Key, Rc<Record>>,
    /// How much of each place was told.
    told: HashMap<u32, u64>,
    looked: Instant,
}

/// Something to tell.
pub(super) struct Due {
    pub(super) storm: Storm,
    /// Of those that `storm` counted: not told yet.
    pub(super) count: u64,
    /// An event like them that was delivered; `None` when it was lost.
    pub(super) sample: Option<Rc<Record>>,
    /// Since when they are counted.
    pub(super) within: Duration,
}

impl Storms {
    pub(super) fn new() -> Self {
        Self { samples: HashMap::new(), told: HashMap::new(), looked: Instant::now() }
    }

    /// Keeps the record if the kernel side said that what is like it will be counted.
    pub(super) fn note(&mut self, record: &Record) {
        if record.flags & flag::SAMPLE == 0 {
            return;
        }
        if self.samples.len() >= SAMPLES {
            // Those of storms that still rage come again within a window.
            self.samples.clear();
        }
        let record = Rc::new(*record);
        for key in keys(&record) {
            self.samples.insert(key, Rc::clone(&record));
        }
    }

    /// What was counted and not told yet; at the end also where nothing was counted lately.
    pub(super) fn due(&mut self, live: &Live, at_the_end: bool) -> Result<Vec<Due>> {
        let within = self.looked.elapsed();
        self.looked = Instant::now();
        let mut due = Vec::new();
        for storm in live.storms(at_the_end)? {
            let told = self.told.get(&storm.slot).copied().unwrap_or(0);
            let count = storm.count.saturating_sub(told);
            if count != 0 {
                due.push(Due { storm, count, sample: self.samples.get(&storm.key).cloned(), within });
            }
        }
        Ok(due)
    }

    pub(super) fn told(&mut self, due: &Due) {
        self.told.insert(due.storm.slot, due.storm.count);
    }
}

/// The keys under which the kernel side counts what is like this record.
fn keys(record: &Record) -> [Key; level::COUNT] {
    let what = What {
        kind: record.kind,
        hook: record.hook,
        state: record.state,
        packet_flags: record.packet.flags,
        stage: record.listen.stage,
        reason: record.reason,
    };
    [level::KIND, level::PORT, level::PEER].map(|level| Key::new(level, &record.flow, &what))
}

/// Turns an event like them into one that stands for all of them.
pub(super) fn stand_for(event: &mut Event, due: &Due) {
    event.count = due.count;
    let Some(cause) = &mut event.cause else { return };
    let key = &due.storm.key;
    let of = match key.level() {
        level::PEER => format!("from {} to port {}", network(key.network), key.local_port()),
        level::PORT => format!("from many networks to port {}", key.local_port()),
        _ => "from many networks to many ports".to_owned(),
    };
    let (count, seconds) = (due.count, due.within.as_secs_f64());
    let text = format!(
        "one of a storm: {count} like this {of} in {seconds:.1} s were counted without detail (--storm)"
    );
    cause.evidence.push(text.into());
}

/// The network in a key.
fn network(network: u64) -> String {
    match (network >> 32, network as u32) {
        (0xffff, v4) => format!("{}/24", IpAddr::V4(Ipv4Addr::from(v4))),
        _ => format!("{}/64", IpAddr::V6(Ipv6Addr::from(u128::from(network) << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples;
    use crate::event::{Cause, Certainty, EventKind};
    use tcpwatch_common::state::ESTABLISHED;

    fn sample() -> Record {
        let record = samples::active(ESTABLISHED);
        Record { flags: record.flags | flag::SAMPLE, ..record }
    }

    #[test]
    fn only_what_the_kernel_side_marked_is_kept_for_each_level() {
        let mut storms = Storms::new();
        storms.note(&samples::active(ESTABLISHED));
        assert!(storms.samples.is_empty());
        storms.note(&sample());
        assert_eq!(storms.samples.len(), level::COUNT);
    }

    #[test]
    fn memory_of_samples_is_bounded() {
        let mut storms = Storms::new();
        for port in 0..5_000 {
            let mut record = sample();
            record.flow.local_port = port;
            storms.note(&record);
        }
        assert!(storms.samples.len() < SAMPLES + level::COUNT);
    }

    #[test]
    fn an_event_says_what_it_stands_for() {
        let record = sample();
        let key = keys(&record)[usize::from(level::PEER)];
        let due = Due {
            storm: Storm { slot: 1, key, count: 500 },
            count: 120,
            sample: None,
            within: Duration::from_secs(1),
        };
        let mut event = Event::new(EventKind::RstSent, 0, 0);
        event.cause = Some(Cause {
            id: "closed-port",
            certainty: Certainty::Certain,
            summary: String::new(),
            evidence: Vec::new(),
            fix: None,
        });
        stand_for(&mut event, &due);
        assert_eq!(event.count, 120);
        let evidence = &event.cause.unwrap().evidence[0];
        assert!(evidence.contains("120 like this from ") && evidence.contains("/24 to port"), "{evidence}");
        assert_eq!(network(0xffff_c000_0200), "192.0.2.0/24");
        assert_eq!(network(0x2001_0db8_0000_0001), "2001:db8:0:1::/64");
    }
}
