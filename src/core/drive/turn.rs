//! Drives the first part of a turn: look at I/O or park as [`plan`] has it, queue due timers, fix the snapshot.

use crate::core::ready::{Ready, Snapshot};
use crate::core::time::Time;
use crate::core::timers::Timers;
use crate::core::turn::{Wait, plan};

/// The surroundings of a loop.
pub trait Host {
    type Error;
    /// An entry of the ready queue.
    type Entry;
    type Timer;

    /// Lends what is scheduled. In it nothing else of the host is called, nor anything dropped that may run user code.
    fn scheduled<R>(&mut self, f: impl FnOnce(&mut Ready<Self::Entry>, &mut Timers<Self::Timer>) -> R) -> R;

    /// This is the last turn, or readiness is known that nobody has handled.
    fn is_pressed(&mut self) -> bool;

    /// # Errors
    /// What a clock of the user's raises.
    fn clock(&mut self) -> Result<Time, Self::Error>;

    /// Waits as planned at `moment`, and queues what became ready.
    ///
    /// # Errors
    /// The kernel's, and what a signal handler raises.
    fn look(&mut self, wait: Wait, moment: Time) -> Result<(), Self::Error>;

    /// The entry of a timer that is due.
    fn entry(timer: Self::Timer) -> Self::Entry;
}

/// Runs a turn up to its callbacks.
///
/// # Errors
/// The host's.
#[inline]
pub fn prepare<H: Host>(host: &mut H) -> Result<Snapshot, H::Error> {
    let (ready, timed) = host.scheduled(|ready, timers| (!ready.is_empty(), !timers.is_empty()));
    let busy = ready || host.is_pressed();
    // A turn that has work does not wait: what time it is matters behind the look only.
    let (deadline, before) = if timed && !busy {
        (host.scheduled(|_, timers| timers.next_deadline()), host.clock()?)
    } else {
        (None, Time::PAST)
    };
    host.look(plan(busy, deadline, before), before)?;
    let timed = host.scheduled(|_, timers| !timers.is_empty());
    let moment = if timed { host.clock()? } else { Time::PAST };
    Ok(host.scheduled(|ready, timers| {
        while let Some(timer) = timers.pop_due(moment) {
            ready.push(H::entry(timer));
        }
        ready.begin()
    }))
}
