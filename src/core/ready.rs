//! The queue of callbacks that are ready to run.
//!
//! asyncio's rule (`base_events.py`, `_run_once`): "This is the only place where callbacks are actually *called*. [...]
//! Note: We run all currently scheduled callbacks, but not any callbacks scheduled by callbacks run this time around".
//! So a turn fixes a snapshot, which is only the place in the queue up to which it runs: the queue is FIFO, and what is
//! pushed meanwhile comes behind it.
//!
//! ```text
//! begin ──► pop, pop, ... ──► None          every callback of the snapshot ran
//!       └─► pop, ... ──► (no more pops)     KeyboardInterrupt left the run: the rest stays, in front
//! ```
//!
//! A callback may run a turn of its own (`loop._run_once()`), which takes what the outer turn has not run yet. Places are
//! counted from the first callback ever, so the outer turn then finds its snapshot used up and runs nothing that was pushed
//! later; asyncio's counts what is left and fails (`IndexError`) or runs too much.

use std::collections::VecDeque;

/// Capacity that an idle queue keeps. Above it, memory of a past burst is given back.
const KEEP: usize = 1024;

/// FIFO of ready callbacks.
#[derive(Debug)]
pub struct Ready<T> {
    queue: VecDeque<T>,
    /// How many have left the queue, ever: the place of the one in front.
    taken: u64,
}

/// The callbacks that belong to a turn: those that were queued when it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The place behind the last one.
    end: u64,
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
        Self { queue: VecDeque::new(), taken: 0 }
    }

    /// How many are queued.
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

    /// Opens a turn: everything queued by now belongs to it.
    #[inline]
    pub fn begin(&mut self) -> Snapshot {
        // Filling a queue takes as many pushes as it has places, so giving them back costs each push a constant.
        if self.queue.capacity() > KEEP && self.queue.len() < self.queue.capacity() / 16 {
            self.queue.shrink_to(KEEP / 2);
        }
        self.begin_elsewhere(self.queue.len())
    }

    /// The next callback of a turn, `None` once the snapshot is exhausted.
    #[inline]
    pub fn pop(&mut self, snapshot: Snapshot) -> Option<T> {
        if self.taken >= snapshot.end {
            return None;
        }
        self.taken += 1;
        self.queue.pop_front()
    }

    // ---- while the callbacks wait elsewhere, lent to a program

    /// Takes everything out, front first, for a queue elsewhere: a turn under way goes on with it.
    #[must_use]
    pub fn lend(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.queue)
    }

    /// As [`Ready::begin`], of a queue elsewhere that has `len` callbacks.
    #[inline]
    pub fn begin_elsewhere(&mut self, len: usize) -> Snapshot {
        Snapshot { end: self.taken + len as u64 }
    }

    /// Whether a turn is to run another callback of the queue elsewhere; counts it as taken.
    pub fn take_elsewhere(&mut self, snapshot: Snapshot) -> bool {
        let more = self.taken < snapshot.end;
        self.taken += u64::from(more);
        more
    }

    /// Everything queued, front first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter()
    }

    /// Empties the queue: the loop closes. The caller drops the callbacks once it holds no borrow, since dropping
    /// one may run code of its owner.
    #[must_use]
    pub fn take_all(&mut self) -> VecDeque<T> {
        self.taken += self.queue.len() as u64;
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
        let turn = ready.begin();
        assert_eq!(ready.pop(turn), Some(1));
        ready.push(2);
        assert_eq!(ready.pop(turn), None);
        let turn = ready.begin();
        assert_eq!((ready.pop(turn), ready.pop(turn)), (Some(2), None));
    }

    #[test]
    fn a_turn_that_was_left_leaves_its_rest_in_front() {
        let mut ready = Ready::new();
        (1..=3).for_each(|item| ready.push(item));
        let left = ready.begin();
        assert_eq!(ready.pop(left), Some(1));
        ready.push(4);
        let turn = ready.begin();
        assert_eq!(
            [ready.pop(turn), ready.pop(turn), ready.pop(turn), ready.pop(turn)],
            [Some(2), Some(3), Some(4), None]
        );
    }

    #[test]
    fn a_turn_within_a_turn_runs_its_rest_and_nothing_twice() {
        let mut ready = Ready::new();
        (1..=3).for_each(|item| ready.push(item));
        let outer = ready.begin();
        assert_eq!(ready.pop(outer), Some(1));
        ready.push(4);
        let inner = ready.begin();
        assert_eq!((ready.pop(inner), ready.pop(inner), ready.pop(inner)), (Some(2), Some(3), Some(4)));
        ready.push(5);
        assert_eq!((ready.pop(inner), ready.pop(outer)), (None, None), "5 is for the next turn");
        assert_eq!(ready.len(), 1);
    }

    #[test]
    fn a_turn_goes_on_with_what_was_lent_and_came_back() {
        let mut ready = Ready::new();
        (1..=3).for_each(|item| ready.push(item));
        let turn = ready.begin();
        assert_eq!(ready.pop(turn), Some(1));
        let mut lent = ready.lend();
        lent.push_back(4);
        assert!(ready.is_empty() && ready.take_elsewhere(turn));
        assert_eq!(lent.pop_front(), Some(2));
        for item in lent {
            ready.push(item);
        }
        assert_eq!((ready.pop(turn), ready.pop(turn)), (Some(3), None));
        assert!(!ready.take_elsewhere(turn));
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many take Miri an hour")]
    fn memory_of_a_burst_is_given_back() {
        let mut ready = Ready::new();
        (0..100_000).for_each(|item| ready.push(item));
        let turn = ready.begin();
        while ready.pop(turn).is_some() {}
        ready.begin();
        assert!(ready.queue.capacity() <= KEEP, "{}", ready.queue.capacity());
    }

    #[test]
    fn a_closed_loop_hands_its_callbacks_out() {
        let mut ready = Ready::new();
        (0..3).for_each(|item| ready.push(item));
        let turn = ready.begin();
        assert_eq!(ready.take_all(), [0, 1, 2]);
        assert!(ready.is_empty() && ready.pop(turn).is_none());
        ready.push(9);
        assert!(ready.pop(turn).is_none(), "9 is of no turn that began before");
    }
}
