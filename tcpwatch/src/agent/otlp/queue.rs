//! What waits for the collector: encoded events, never more bytes than was said. What finds no room is counted, not waited for.

use prost::bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Events in one request.
pub(super) const MOST: usize = 512;
/// An event waits so long for others to travel with.
const LINGER: Duration = Duration::from_secs(1);
/// What an entry takes beside its bytes: its place here and the allocator's head.
const EACH: usize = size_of::<Bytes>() + 16;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    /// Of what waits and of what is on its way.
    bytes: usize,
    /// Events that are on their way.
    sending: usize,
    closing: bool,
}

/// Filled by the thread of the events, emptied by that of the exporter.
#[derive(Debug)]
pub(super) struct Queue {
    most_bytes: usize,
    state: Mutex<State>,
    changed: Notify,
}

/// What travels in one request. It counts as waiting until it is given back.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Bytes>,
}

fn cost(records: &[Bytes]) -> usize {
    records.iter().map(|record| record.len() + EACH).sum()
}

impl Queue {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, state: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room.
    pub(super) fn push(&self, record: Bytes) -> bool {
        let mut state = self.lock();
        let bytes = state.bytes + record.len() + EACH;
        if bytes > self.most_bytes || state.closing {
            return false;
        }
        state.bytes = bytes;
        state.waiting.push_back(record);
        // The first one starts the wait for company, a full request ends it.
        let wakes = matches!(state.waiting.len(), 1 | MOST);
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
        true
    }

    /// Nothing more is taken in, and what waits need not wait for company.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    /// How many wait or are on their way.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.sending
    }

    /// The next ones, oldest first. `None`: it is closed and empty.
    pub(super) async fn next(&self) -> Option<Batch> {
        loop {
            let (count, closing) = {
                let state = self.lock();
                (state.waiting.len(), state.closing)
            };
            match count {
                0 if closing => return None,
                0 => self.changed.notified().await,
                _ if closing || count >= MOST => break,
                // Whether company came or not.
                _ => {
                    drop(tokio::time::timeout(LINGER, self.company()).await);
                    break;
                }
            }
        }
        let mut state = self.lock();
        let count = state.waiting.len().min(MOST);
        let records: Vec<_> = state.waiting.drain(..count).collect();
        state.sending = count;
        Some(Batch { records })
    }

    async fn company(&self) {
        loop {
            self.changed.notified().await;
            let state = self.lock();
            if state.closing || state.waiting.len() >= MOST {
                return;
            }
        }
    }

    /// The batch is where it should be, or nowhere: its room is free.
    pub(super) fn done(&self, batch: &Batch) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(cost(&batch.records));
        state.sending = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn what_is_on_its_way_still_takes_room() {
        let queue = Queue::new(3 * (10 + EACH));
        let record = || Bytes::from(vec![7; 10]);
        assert_eq!((0..5).filter(|_| queue.push(record())).count(), 3);
        queue.close();
        assert!(!queue.push(record()), "it is closed");
        let batch = wait(queue.next()).unwrap();
        assert_eq!((batch.records.len(), queue.len()), (3, 3));
        let bytes = || queue.lock().bytes;
        assert_eq!(bytes(), 3 * (10 + EACH));
        queue.done(&batch);
        assert_eq!(bytes(), 0);
        assert_eq!(queue.len(), 0);
        assert!(wait(queue.next()).is_none());
    }

    #[test]
    fn a_full_request_goes_at_once_and_others_wait_for_company() {
        let queue = Queue::new(1 << 20);
        for _ in 0..MOST + 1 {
            assert!(queue.push(Bytes::from_static(&[1])));
        }
        let began = Instant::now();
        let batch = wait(queue.next()).unwrap();
        assert!(began.elapsed() < LINGER);
        assert_eq!(batch.records.len(), MOST);
        queue.done(&batch);
        let batch = wait(queue.next()).unwrap();
        assert!(began.elapsed() >= LINGER);
        assert_eq!(batch.records.len(), 1);
    }

    #[test]
    fn the_oldest_go_first() {
        let queue = Queue::new(1 << 20);
        for i in 0..2 * MOST {
            queue.push(Bytes::copy_from_slice(&u64::try_from(i).unwrap().to_le_bytes()));
        }
        queue.close();
        let mut seen = Vec::new();
        wait(async {
            while let Some(batch) = queue.next().await {
                seen.extend(batch.records.iter().map(|record| record[0]));
                queue.done(&batch);
            }
        });
        assert_eq!(seen, (0..2 * MOST).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
    }
}
