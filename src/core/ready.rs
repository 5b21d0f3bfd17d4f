//! The queue of callbacks that are ready to run.
//!
//! asyncio's rule (`base_events.py`, `_run_once`): "This is the only place where callbacks are actually *called*. [...]
//! Note: We run all currently scheduled callbacks, but not any callbacks scheduled by callbacks run this time around".
//! So a turn fixes a snapshot, which is only a count: the queue is FIFO, and what is pushed meanwhile comes behind it.
//!
//! ```text
//! begin ──► pop, pop, ... ──► None          every callback of the snapshot ran
//!       └─► pop, ... ──► abandon            KeyboardInterrupt left the run: the rest stays, in front
//! ```

use std::collections::VecDeque;

/// Capacity that an idle queue keeps. Above it, memory of a past burst is given back.
const KEEP: usize = 1024;

/// FIFO of ready callbacks with a snapshot of those that belong to the current turn.
#[derive(Debug)]
pub struct Ready<T> {
    queue: VecDeque<T>,
    /// How many at the front of the queue belong to the turn under way.
    snapshot: usize,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Ready<T> {
    /// An empty queue; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { queue: VecDeque::new(), snapshot: 0 }
    }

    /// How many are queued, in the snapshot or behind it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is queued.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues `item` behind all others. During a turn: for the next one.
    #[inline]
    pub fn push(&mut self, item: T) {
        self.queue.push_back(item);
    }

    /// Opens a turn: everything queued by now belongs to it. Returns how many that are.
    #[inline]
    pub fn begin(&mut self) -> usize {
        // Filling a queue takes as many pushes as it has places, so giving them back costs each push a constant.
        if self.queue.capacity() > KEEP && self.queue.len() < self.queue.capacity() / 16 {
            self.queue.shrink_to(KEEP / 2);
        }
        self.snapshot = self.queue.len();
        self.snapshot
    }

    /// The next callback of the turn, `None` once the snapshot is exhausted.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.snapshot == 0 {
            return None;
        }
        self.snapshot -= 1;
        self.queue.pop_front()
    }

    /// Ends the turn early. What is left of its snapshot stays queued, in front, for the next one.
    #[inline]
    pub fn abandon(&mut self) {
        self.snapshot = 0;
    }

    /// Everything queued, front first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter()
    }

    /// Empties the queue: the loop closes. The caller drops the callbacks once it holds no borrow, since dropping
    /// one may run code of its owner.
    #[must_use]
    pub fn take_all(&mut self) -> VecDeque<T> {
        self.snapshot = 0;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_during_a_turn_waits_for_the_next() {
        let mut ready = Ready::new();
        ready.push(1);
        assert_eq!(ready.begin(), 1);
        assert_eq!(ready.pop(), Some(1));
        ready.push(2);
        assert_eq!(ready.pop(), None);
        assert_eq!((ready.begin(), ready.pop(), ready.pop()), (1, Some(2), None));
    }

    #[test]
    fn an_abandoned_turn_leaves_its_rest_in_front() {
        let mut ready = Ready::new();
        (1..=3).for_each(|item| ready.push(item));
        ready.begin();
        assert_eq!(ready.pop(), Some(1));
        ready.push(4);
        ready.abandon();
        assert_eq!(ready.pop(), None);
        assert_eq!(ready.begin(), 3);
        assert_eq!([ready.pop(), ready.pop(), ready.pop(), ready.pop()], [Some(2), Some(3), Some(4), None]);
    }

    #[test]
    fn nothing_runs_before_a_turn_begins() {
        let mut ready = Ready::new();
        ready.push(1);
        assert_eq!(ready.pop(), None);
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut ready = Ready::new();
        (0..100_000).for_each(|item| ready.push(item));
        ready.begin();
        while ready.pop().is_some() {}
        ready.begin();
        assert!(ready.queue.capacity() <= KEEP, "{}", ready.queue.capacity());
    }

    #[test]
    fn a_closed_loop_hands_its_callbacks_out() {
        let mut ready = Ready::new();
        (0..3).for_each(|item| ready.push(item));
        ready.begin();
        assert_eq!(ready.take_all(), [0, 1, 2]);
        assert!(ready.is_empty() && ready.pop().is_none());
    }
}
