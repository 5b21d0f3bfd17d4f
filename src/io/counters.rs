//! What a loop counts, and the table of its live endpoints: read by any thread, with the GIL or without, while the loop
//! runs or hangs.
//!
//! Rules:
//! - A counter has one writer at a time, the loop's thread, so counting is a relaxed load and a relaxed store: what a
//!   plain addition costs, where a locked one costs 5 ns. A reader sees each counter whole, and two counters not
//!   necessarily at the same moment.
//! - The table of endpoints is written when one is registered and deregistered, never per event. Readers take no lock:
//!   not against the loop, which may hang, nor against each other. Nor does the table of loops have one.
//! - The clock is not read per callback: that would cost a quarter of a callback. The loop notes a coarse time at each
//!   look and after a park. So how long a loop has been busy is an upper bound for its current callback, good to the
//!   callbacks that ran in this turn before it, which are counted.
//! - The end of a park is noted before the thread takes the GIL, so a loop that waits for it is busy.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use papaya::HashMap;

use super::sys::{fork_generation, monotonic_coarse_nanos, monotonic_nanos};
use crate::core::time::Time;

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
pub enum EndpointKind {
    Tcp,
    Unix,
    /// A stream socket of another protocol: MPTCP, SCTP, vsock, ...
    Stream,
    Udp,
    Pipe,
    Listener,
}

impl EndpointKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
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
    pub fd: u32,
    pub kind: EndpointKind,
    /// When it began.
    pub since: Time,
    pub messages_in: Counter,
    pub bytes_in: Counter,
    pub messages_out: Counter,
    pub bytes_out: Counter,
}

impl Counters {
    /// An endpoint that begins now.
    #[must_use]
    pub fn new(fd: u32, kind: EndpointKind) -> Arc<Self> {
        let zero = Counter::default;
        Arc::new(Self {
            fd,
            kind,
            since: now(),
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
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fd, messages_in, bytes_in, messages_out, bytes_out, .. } = self;
        let [bytes_in, messages_in, bytes_out, messages_out] =
            [bytes_in, messages_in, bytes_out, messages_out].map(Counter::get);
        write!(f, "fd {fd} {}, in {bytes_in} B / {messages_in}, out {bytes_out} B / {messages_out}", self.kind.name())?;
        write!(f, ", for {:.3} s", seconds(self.since, now()))
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

    /// By descriptor.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Counters>> {
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
    pub looks: Counter,
    pub parks: Counter,
    pub endpoints: Arc<Table>,
    /// Turns are being run.
    running: AtomicBool,
    parked: AtomicBool,
    /// When the loop last noted the time: seconds on the monotonic clock, the bits of an `f64`.
    noted: AtomicU64,
    /// How many callbacks had been begun by then.
    callbacks_noted: AtomicU64,
    /// The thread that runs the loop, by the number that Python gives it; 0 while there is none.
    thread: AtomicU64,
    /// The address of the loop's object.
    object: AtomicU64,
    /// The process that it lives in.
    born: u32,
}

impl Stats {
    /// The counters of a new loop, in the table of loops for as long as what is returned lives.
    #[must_use]
    pub fn listed() -> Listed {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stats = Arc::new(Self { born: fork_generation(), ..Self::default() });
        LOOPS.pin().insert(number, Arc::clone(&stats));
        Listed { stats, number }
    }

    #[inline]
    fn note_time(&self) {
        let now = Time::from_nanos(monotonic_coarse_nanos());
        self.callbacks_noted.store(self.callbacks.get(), Ordering::Relaxed);
        self.noted.store(now.secs().to_bits(), Ordering::Relaxed);
    }

    /// Turns begin, of the loop at this address.
    pub fn run_begins(&self, object: usize) {
        self.object.store(object as u64, Ordering::Relaxed);
        self.note_time();
        // Who sees that the loop runs sees since when.
        self.running.store(true, Ordering::Release);
    }

    pub fn run_ended(&self) {
        self.running.store(false, Ordering::Relaxed);
    }

    pub fn set_thread(&self, thread: u64) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The loop looks at I/O without waiting.
    #[inline]
    pub fn looks(&self) {
        self.looks.add(1);
        self.note_time();
    }

    #[inline]
    pub fn park_begins(&self) {
        self.parks.add(1);
        self.note_time();
        self.parked.store(true, Ordering::Relaxed);
    }

    /// To be called before the thread waits for the GIL.
    #[inline]
    pub fn park_ended(&self) {
        self.note_time();
        // As above.
        self.parked.store(false, Ordering::Release);
    }

    /// Whether the loop waits for I/O, if it runs, and since when it does what it does.
    pub fn activity(&self) -> (bool, Time) {
        let parked = self.parked.load(Ordering::Acquire);
        (parked, Time::from_secs(f64::from_bits(self.noted.load(Ordering::Relaxed))))
    }

    /// Since when the loop has been busy, if it is. To be asked after the clock was read: what the loop notes in
    /// between is later, and nobody takes a loop for busy that was waiting.
    #[must_use]
    pub fn busy_since(&self) -> Option<Time> {
        // A loop that was running when its process forked runs in the parent.
        if !self.running.load(Ordering::Acquire) || self.born != fork_generation() {
            return None;
        }
        let (parked, since) = self.activity();
        (!parked).then_some(since)
    }
}

/// What is written of a loop that has been busy since then.
#[derive(Debug)]
pub struct Report<'a> {
    pub stats: &'a Stats,
    pub since: Time,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Endpoints that are shown, as by `dump()`.
        const SHOWN: usize = 200;
        let Self { stats, since } = self;
        let [object, thread, noted] =
            [&stats.object, &stats.thread, &stats.callbacks_noted].map(|number| number.load(Ordering::Relaxed));
        let busy = seconds(*since, now());
        let begun = stats.callbacks.get().saturating_sub(noted);
        // As `faulthandler` writes the number of a thread.
        writeln!(f, "tokioloop: the loop at {object:#x} has been busy for {busy:.3} s in thread {thread:#018x}")?;
        let [turns, callbacks, looks, parks] =
            [&stats.turns, &stats.callbacks, &stats.looks, &stats.parks].map(Counter::get);
        writeln!(f, "  {begun} callback{} begun in this time", plural(begun))?;
        writeln!(f, "  {turns} turns, {callbacks} callbacks, {looks} looks, {parks} parks")?;
        let endpoints = stats.endpoints.all();
        writeln!(f, "  {} endpoint{}", endpoints.len(), plural(endpoints.len() as u64))?;
        for endpoint in endpoints.iter().take(SHOWN) {
            writeln!(f, "    {endpoint}")?;
        }
        match endpoints.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "    and {more} more"),
        }
    }
}

/// The loops of this process, by number.
static LOOPS: LazyLock<HashMap<u64, Arc<Stats>>> = LazyLock::new(HashMap::new);

/// The loops of this process, by number.
#[must_use]
pub fn loops() -> Vec<(u64, Arc<Stats>)> {
    LOOPS.pin().iter().map(|(number, stats)| (*number, Arc::clone(stats))).collect()
}

/// The counters of a loop that is in the table of loops.
#[derive(Debug)]
pub struct Listed {
    stats: Arc<Stats>,
    number: u64,
}

impl Deref for Listed {
    type Target = Stats;

    #[inline]
    fn deref(&self) -> &Stats {
        &self.stats
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        LOOPS.pin().remove(&self.number);
    }
}

/// Now, on the clock of the loops.
#[must_use]
pub fn now() -> Time {
    Time::from_nanos(monotonic_nanos())
}

fn seconds(since: Time, now: Time) -> f64 {
    (now.secs() - since.secs()).max(0.0)
}

const fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_busy_while_it_runs_and_does_not_wait() {
        let stats = Stats::listed();
        assert_eq!(stats.busy_since(), None);
        let before = Time::from_nanos(monotonic_coarse_nanos());
        stats.run_begins(1);
        assert!(stats.busy_since().is_some_and(|since| before <= since && since <= now()));
        stats.park_begins();
        assert_eq!(stats.busy_since(), None);
        stats.park_ended();
        assert!(stats.busy_since().is_some());
        stats.run_ended();
        assert_eq!(stats.busy_since(), None);
    }

    #[test]
    fn a_loop_is_in_the_table_for_as_long_as_it_lives() {
        let there = |number| loops().iter().any(|(each, _)| *each == number);
        let stats = Stats::listed();
        let number = stats.number;
        assert!(there(number));
        drop(stats);
        assert!(!there(number));
    }

    #[test]
    fn a_report_has_the_callbacks_of_this_time_and_the_endpoints() {
        let stats = Stats::listed();
        stats.callbacks.add(5);
        stats.run_begins(0xabc);
        stats.set_thread(0x12);
        stats.callbacks.add(1);
        stats.endpoints.insert(0, Counters::new(9, EndpointKind::Udp));
        stats.endpoints.insert(1, Counters::new(7, EndpointKind::Tcp));
        let report = Report { stats: &stats, since: now() };
        let text = report.to_string();
        assert!(text.starts_with("tokioloop: the loop at 0xabc has been busy for 0.0"), "{text}");
        assert!(text.contains(" s in thread 0x0000000000000012\n  1 callback begun in this time\n"), "{text}");
        assert!(text.contains("  2 endpoints\n    fd 7 tcp, in 0 B / 0, out 0 B / 0, for 0.0"), "{text}");
        let all: Vec<_> = (0..300).map(|fd| Counters::new(fd, EndpointKind::Pipe)).collect();
        all.iter().zip(0..).for_each(|(endpoint, slot)| stats.endpoints.insert(slot, Arc::clone(endpoint)));
        assert!(report.to_string().ends_with("\n    and 100 more\n"));
    }
}
