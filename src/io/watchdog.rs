//! A thread that reports loops which are busy for long. It is no thread of Python's and never takes the GIL, so it goes
//! on whatever holds that; it reads what `counters` has, and what is to be reported is `core::hang`'s decision.
//!
//! Contract: a fork copies no thread, and what this one has locked or is reading would stay so in the child. So
//! [`Watchdog::stop`] is called before a fork, and [`Watchdog::start`] behind it, in both processes. In the child of a
//! fork that nobody told of, the thread is taken for gone.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::counters::{self, Report};
use super::stacks::{self, Output};
use super::sys::fork_generation;
use crate::core::hang::Hang;

/// Waits are no shorter: the loops' own clock is a coarse one.
const GRAIN: Duration = Duration::from_millis(5);
/// Nor longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// Until the kernel has forgotten a thread that has ended: it has no more to do than to let go of it.
const YIELDS: u32 = 100_000;

/// What the thread knows of the loops, by number; it survives the thread.
type Hangs = HashMap<u64, Hang>;

/// See the top of this file.
#[derive(Debug)]
pub struct Watchdog {
    busy: f64,
    output: Arc<Output>,
    thread: Mutex<Option<Thread>>,
    hangs: Mutex<Hangs>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<(Hangs, i32)>,
    stop: Arc<Stop>,
    /// The process that it is a thread of.
    born: u32,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Watchdog {
    /// Reports loops that are busy for longer than so many seconds to a descriptor. Begins with [`Watchdog::start`].
    ///
    /// # Errors
    /// As [`Output::new`].
    pub fn new(busy: f64, fd: RawFd) -> io::Result<Self> {
        let output = Arc::new(Output::new(fd)?);
        Ok(Self { busy, output, thread: Mutex::default(), hangs: Mutex::default() })
    }

    /// The signal at which stacks are to be written, and the descriptor they go to: see [`stacks`].
    #[must_use]
    pub fn stacks(&self) -> (i32, RawFd) {
        (self.output.signal(), self.output.file().as_raw_fd())
    }

    /// Starts the thread, unless there is one.
    ///
    /// # Errors
    /// The errno: no thread (`EAGAIN`).
    pub fn start(&self) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        if let Some(gone) = thread.take_if(|thread| thread.born != fork_generation()) {
            // To detach it would touch what the parent has of it.
            std::mem::forget(gone.handle);
        }
        if thread.is_none() {
            let stop = Arc::new(Stop::default());
            let hangs = std::mem::take(&mut *lock(&self.hangs));
            let (stopped, output, busy) = (Arc::clone(&stop), Arc::clone(&self.output), self.busy);
            let run = move || (watch(&stopped, hangs, busy, &output), stacks::this_thread());
            let handle = Builder::new().name("tokioloop-watch".into()).spawn(run)?;
            *thread = Some(Thread { handle, stop, born: fork_generation() });
        }
        Ok(())
    }

    /// Ends the thread, if there is one, and waits for its end: for a report that is being written.
    pub fn stop(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        if thread.born != fork_generation() {
            std::mem::forget(thread);
            return;
        }
        *lock(&thread.stop.stopped) = true;
        thread.stop.changed.notify_all();
        // A thread that panicked has nothing to tell.
        let (hangs, number) = thread.handle.join().unwrap_or_default();
        *lock(&self.hangs) = hangs;
        for _ in 0..YIELDS {
            if number == 0 || !stacks::is_counted(number) {
                break;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread does.
fn watch(stop: &Stop, mut hangs: Hangs, busy: f64, output: &Output) -> Hangs {
    stacks::part(output);
    loop {
        let mut wait = busy;
        let loops = counters::loops();
        hangs.retain(|number, _| loops.iter().any(|(each, _)| each == number));
        for (number, stats) in loops {
            // In this order: see `busy_since`.
            let now = counters::now();
            let since = stats.busy_since();
            let (report, again) = hangs.entry(number).or_insert(Hang::UNNOTICED).poll(since, now, busy);
            if let Some(since) = since.filter(|_| report) {
                output.write(&Report { stats: &stats, since }.to_string());
            }
            wait = wait.min(again);
        }
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(LONGEST).clamp(GRAIN, LONGEST);
        let stopped = lock(&stop.stopped);
        let waited = stop.changed.wait_timeout_while(stopped, wait, |stopped| !*stopped);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return hangs;
        }
    }
}

/// A panic elsewhere leaves these small values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
