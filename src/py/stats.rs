//! What a loop tells of itself, to any thread, while it runs or hangs: counters, and the table of its live endpoints.
//!
//! Rules:
//! - A counter has one writer at a time, the loop's thread, so counting is a relaxed load and a relaxed store: what a
//!   plain addition costs, where a locked one costs 5 ns. A reader sees each counter whole, and two counters not
//!   necessarily at the same moment.
//! - The table is written when an endpoint is registered and deregistered, never per event, and by [`Slots`] alone, so
//!   that the two cannot differ. Readers take no lock: not against the loop, which may hang, nor against each other.
//! - The clock is not read per callback: that would cost a quarter of a callback. The loop notes a coarse time at each look
//!   and after a park. So how long a loop has been busy is an upper bound for its current callback, good to the callbacks
//!   that ran in this turn before it.
//!
//! [`Slots`]: super::slots::Slots

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use papaya::HashMap;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::event_loop::LoopCore;
use crate::core::time::Time;
use crate::io::sys::{monotonic_coarse_nanos, monotonic_nanos};

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Unix,
    /// A stream socket of another protocol: MPTCP, SCTP, vsock, ...
    Stream,
    Udp,
    Pipe,
    Listener,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Stream => "stream",
            Self::Udp => "udp",
            Self::Pipe => "pipe",
            Self::Listener => "listener",
        }
    }
}

/// What an endpoint has done.
#[derive(Debug)]
pub struct Counters {
    fd: u32,
    kind: Kind,
    /// Monotonic clock.
    since: u64,
    messages_in: Counter,
    bytes_in: Counter,
    messages_out: Counter,
    bytes_out: Counter,
}

impl Counters {
    /// An endpoint that begins now.
    #[must_use]
    pub fn new(fd: u32, kind: Kind) -> Arc<Self> {
        let zero = Counter::default;
        Arc::new(Self {
            fd,
            kind,
            since: monotonic_nanos(),
            messages_in: zero(),
            bytes_in: zero(),
            messages_out: zero(),
            bytes_out: zero(),
        })
    }

    /// A read, a datagram or a connection came in.
    #[inline]
    pub fn received(&self, bytes: usize) {
        self.messages_in.add(1);
        self.bytes_in.add(bytes as u64);
    }

    /// The kernel took a datagram, or these bytes of a stream.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.messages_out.add(1);
        self.bytes_out.add(bytes as u64);
    }

    /// As [`Counters::sent`], of a stream: a send of none found the kernel's buffer full, and was none.
    #[inline]
    pub fn sent_some(&self, bytes: usize) {
        if bytes != 0 {
            self.sent(bytes);
        }
    }

    fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shown = PyDict::new(py);
        shown.set_item("fd", self.fd)?;
        shown.set_item("kind", self.kind.name())?;
        shown.set_item("since", Time::from_nanos(self.since).secs())?;
        shown.set_item("messages_in", self.messages_in.get())?;
        shown.set_item("bytes_in", self.bytes_in.get())?;
        shown.set_item("messages_out", self.messages_out.get())?;
        shown.set_item("bytes_out", self.bytes_out.get())?;
        Ok(shown)
    }
}

/// The live endpoints of a loop, by slot.
#[derive(Debug, Default)]
pub struct Table(HashMap<u32, Arc<Counters>>);

impl Table {
    pub fn insert(&self, slot: u32, counters: Arc<Counters>) {
        self.0.pin().insert(slot, counters);
    }

    pub fn remove(&self, slot: u32) {
        self.0.pin().remove(&slot);
    }

    pub fn clear(&self) {
        self.0.pin().clear();
    }

    fn all(&self) -> Vec<Arc<Counters>> {
        let mut all: Vec<_> = self.0.pin().values().map(Arc::clone).collect();
        all.sort_unstable_by_key(|counters| counters.fd);
        all
    }
}

/// What a loop has done, and what it is at.
#[derive(Debug, Default)]
pub struct Stats {
    /// Turns that were begun.
    pub turns: Counter,
    /// Callbacks and events that were begun.
    pub callbacks: Counter,
    looks: Counter,
    parks: Counter,
    parked: AtomicBool,
    /// When the loop last noted the time: seconds on the monotonic clock, the bits of an `f64`.
    noted: AtomicU64,
    pub endpoints: Arc<Table>,
}

impl Stats {
    #[inline]
    fn note_time(&self) {
        let now = Time::from_nanos(monotonic_coarse_nanos());
        self.noted.store(now.secs().to_bits(), Ordering::Relaxed);
    }

    fn noted(&self) -> f64 {
        f64::from_bits(self.noted.load(Ordering::Relaxed))
    }

    /// The loop looks at I/O without waiting.
    pub fn looks(&self) {
        self.looks.add(1);
        self.note_time();
    }

    pub fn park_begins(&self) {
        self.parks.add(1);
        self.note_time();
        self.parked.store(true, Ordering::Relaxed);
    }

    pub fn park_ended(&self) {
        self.note_time();
        self.parked.store(false, Ordering::Relaxed);
    }
}

/// Behind `loop.stats()`.
///
/// # Errors
/// `MemoryError`.
pub fn show<'py>(slf: &Bound<'py, LoopCore>) -> PyResult<Bound<'py, PyDict>> {
    let (py, this) = (slf.py(), slf.get());
    let stats = &this.stats;
    let running = this.turn().is_some();
    let parked = stats.parked.load(Ordering::Relaxed);
    let spent = (Time::from_nanos(monotonic_nanos()).secs() - stats.noted()).max(0.0);
    // Nobody holds these borrows across Python code. Were it so after all, this of all methods is not to fail.
    let queues = this.sched.try_with(py, |sched| {
        let next = sched.timers.next_deadline().map(Time::secs);
        (sched.ready.len(), sched.timers.len(), next)
    });
    let spare = this.pool.try_with(py, |pool| pool.len());
    let watched = this.io.try_with(py, |io| io.interest.watched().collect::<Vec<_>>());
    let shown = PyDict::new(py);
    shown.set_item("running", running)?;
    shown.set_item("thread", this.thread_id.with(py, |id| id.as_ref().map(|id| id.clone_ref(py))))?;
    shown.set_item("parked_for", (running && parked).then_some(spent))?;
    shown.set_item("busy_for", (running && !parked).then_some(spent))?;
    shown.set_item("turns", stats.turns.get())?;
    shown.set_item("looks", stats.looks.get())?;
    shown.set_item("parks", stats.parks.get())?;
    shown.set_item("callbacks", stats.callbacks.get())?;
    shown.set_item("ready", queues.map(|(ready, ..)| ready))?;
    shown.set_item("timers", queues.map(|(_, timers, _)| timers))?;
    shown.set_item("next_deadline", queues.and_then(|(.., next)| next))?;
    shown.set_item("spare_handles", spare)?;
    let endpoints = PyList::empty(py);
    for counters in stats.endpoints.all() {
        endpoints.append(counters.show(py)?)?;
    }
    for (fd, reader, writer) in watched.into_iter().flatten() {
        let watcher = PyDict::new(py);
        watcher.set_item("fd", fd)?;
        watcher.set_item("kind", "watcher")?;
        watcher.set_item("reader", reader)?;
        watcher.set_item("writer", writer)?;
        endpoints.append(watcher)?;
    }
    shown.set_item("endpoints", endpoints)?;
    Ok(shown)
}
