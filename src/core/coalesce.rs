//! Coalescing: where the user asks for it, what is written in a turn leaves when the turn ends, by one call per endpoint.
//! `core::drive::coalesce` carries it out.
//!
//! ```text
//!   Nothing ──turn begins──► Turn ──it ends; before a fork, or a look within; switched off──► Leaving
//!      ▲  ▲                  │  ▲                                                              │  │
//!      │  └──a fork: the     │  └────────────────────────────all has left──────────────────────┘  │
//!      │     child of another thread's                                                            │
//!      └───────────────────────────────────the turn has ended─────────────────────────────────────┘
//! ```
//! A callback may run a turn in any of them, which goes back to it in its end.
//!
//! Rules:
//! - Only what is written by the loop's thread while a turn of it runs is corked. Other writes are sent at once.
//! - However a turn ends, what it corked leaves: also by an exception, or by the turn inside it that a callback runs.
//! - Before its thread forks, or looks at I/O in a callback, a turn has what it corked leave. What another thread's turn
//!   has corked stays the parent's: the child of a fork forgets it.
//! - What callbacks write while corked writes leave is sent at once, so that this comes to an end.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

/// A thread, by a number that no other living one has.
pub type Thread = NonZeroUsize;

/// What a loop is at, as far as it matters to writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum State {
    Nothing,
    /// The thread runs a turn.
    Turn(Thread),
    /// What the thread's turn has corked leaves, and the callbacks that this calls run.
    Leaving(Thread),
}

impl State {
    fn is_of(self, thread: Thread) -> bool {
        matches!(self, Self::Turn(of) | Self::Leaving(of) if of == thread)
    }
}

/// What a loop knows of it. `E` is an endpoint.
#[derive(Debug)]
pub struct Coalesce<E> {
    on: bool,
    state: State,
    /// The endpoints that have corked writes.
    corked: VecDeque<E>,
}

impl<E> Coalesce<E> {
    #[must_use]
    pub fn new(on: bool) -> Self {
        Self { on, state: State::Nothing, corked: VecDeque::new() }
    }

    // ---- getters

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether what `thread` writes now waits for the end of the turn.
    #[inline]
    #[must_use]
    pub fn wants(&self, thread: Thread) -> bool {
        self.on && self.runs_in(thread)
    }

    /// Whether `thread` runs a turn, in which writes may be corked.
    #[inline]
    #[must_use]
    pub fn runs_in(&self, thread: Thread) -> bool {
        self.state == State::Turn(thread)
    }

    /// The endpoints that have corked writes.
    #[must_use]
    pub fn corked(&self) -> &VecDeque<E> {
        &self.corked
    }

    // ---- the caller wants

    /// Has an endpoint's writes leave when the turn ends.
    pub fn cork(&mut self, endpoint: E) {
        self.corked.push_back(endpoint);
    }

    /// Switches it, from the next write on. True when what is corked is to leave now; another thread's turn ends by itself.
    #[must_use]
    pub fn switch(&mut self, on: bool, thread: Thread) -> bool {
        self.on = on;
        !on && self.runs_in(thread)
    }

    /// The endpoints that have corked writes, for who closes the loop.
    #[must_use]
    pub fn take(&mut self) -> VecDeque<E> {
        std::mem::take(&mut self.corked)
    }

    // ---- something happened

    /// A turn begins; what to go back to in its end. Within a callback, of a turn or of what leaves, what is corked is to
    /// leave first: the turn may wait.
    #[inline]
    pub fn begin(&mut self, thread: Thread) -> State {
        std::mem::replace(&mut self.state, State::Turn(thread))
    }

    /// A turn ended; `outer`: what it goes back to. False when what it corked is to leave before.
    #[inline]
    #[must_use]
    pub fn handle_end(&mut self, outer: State) -> bool {
        let clear = self.corked.is_empty();
        if clear {
            self.state = outer;
        }
        clear
    }

    /// Corked writes leave, those of [`Coalesce::poll_corked`]; what to go back to when they have.
    pub fn begin_leaving(&mut self, thread: Thread) -> State {
        std::mem::replace(&mut self.state, State::Leaving(thread))
    }

    /// An endpoint whose writes are to leave now. One by one: a turn that a callback of one runs has the others leave.
    pub fn poll_corked(&mut self) -> Option<E> {
        self.corked.pop_front()
    }

    /// Corked writes have left.
    pub fn end_leaving(&mut self, outer: State) {
        self.state = outer;
    }

    /// The process is the child of a fork that `thread` made: the only one that is left. What is corked of these endpoints
    /// is the parent's.
    #[must_use]
    pub fn handle_forked(&mut self, thread: Thread) -> VecDeque<E> {
        if !self.state.is_of(thread) {
            self.state = State::Nothing;
        }
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Thread = Thread::MIN;

    #[test]
    fn a_turn_that_corked_nothing_ends_by_itself() {
        let mut coalesce = Coalesce::new(true);
        let outer = coalesce.begin(HERE);
        assert!(coalesce.handle_end(outer) && !coalesce.runs_in(HERE));
        let outer = coalesce.begin(HERE);
        coalesce.cork(7);
        assert!(!coalesce.handle_end(outer) && coalesce.runs_in(HERE));
    }

    #[test]
    fn what_is_corked_leaves_early_only_where_its_own_thread_switches_it_off() {
        let mut coalesce = Coalesce::<u8>::new(true);
        let elsewhere = HERE.saturating_add(1);
        assert_eq!(coalesce.begin(HERE), State::Nothing);
        assert!(!coalesce.switch(true, HERE) && coalesce.switch(false, HERE) && !coalesce.switch(false, elsewhere));
    }
}
