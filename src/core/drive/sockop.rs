//! Drives `core::sockop`: a step of the awaiting task. `core::drive::interest` has how it waits.
//!
//! Whatever ends the operation, it lets go of what it holds.

use crate::core::interest::Dir;
use crate::core::sockop::{Misuse, Next, SockOp};

/// What an attempt at the system call gave.
#[derive(Debug)]
pub enum Attempt<V> {
    Done(V),
    /// So many of the bytes that are to be sent are.
    Moved(usize),
    Blocked,
    /// The connection was made at once.
    Connected,
}

/// What a step gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<V, P> {
    /// It is done; `None`: with nothing to tell.
    Finished(Option<V>),
    Waits(P),
    /// The next turn goes on.
    Deferred,
}

/// The surroundings of an operation.
pub trait Host {
    type Error;
    /// What the operation is for.
    type Value;
    /// What tells the awaiting task of readiness.
    type Pending;

    /// Lends the machine. In it nothing else of the host is called, nor anything dropped that may run user code.
    fn machine<R>(&mut self, f: impl FnOnce(&mut SockOp) -> R) -> R;

    /// Finds the socket's file. `fresh`: checks what the first step is to check.
    ///
    /// # Errors
    /// What is wrong.
    fn prepare(&mut self, fresh: bool) -> Result<(), Self::Error>;

    /// Makes the system call.
    ///
    /// # Errors
    /// The kernel's, and what user code raises.
    fn attempt(&mut self) -> Result<Attempt<Self::Value>, Self::Error>;

    /// Waits for readiness.
    ///
    /// # Errors
    /// What the kernel has against it.
    fn wait(&mut self, dir: Dir) -> Result<Self::Pending, Self::Error>;

    /// Takes a wait back, and lets go of socket and arguments.
    fn dispose(&mut self);

    /// The error for who misuses it.
    fn misused(&mut self, misuse: Misuse) -> Self::Error;
}

/// The awaiting task runs.
///
/// # Errors
/// The host's.
pub fn step<H: Host>(host: &mut H) -> Result<Outcome<H::Value, H::Pending>, H::Error> {
    let (fresh, next) = host.machine(|machine| (machine.is_fresh(), machine.poll()));
    let next = match next {
        Ok(next) => next,
        Err(misuse) => return Err(host.misused(misuse)),
    };
    let result = advance(host, fresh, next);
    if !matches!(result, Ok(Outcome::Waits(_) | Outcome::Deferred)) {
        end(host);
    }
    result
}

/// It is cancelled, closed or gone.
pub fn end<H: Host>(host: &mut H) {
    host.machine(SockOp::handle_ended);
    host.dispose();
}

fn advance<H: Host>(host: &mut H, fresh: bool, mut next: Next) -> Result<Outcome<H::Value, H::Pending>, H::Error> {
    if next == Next::Try {
        host.prepare(fresh)?;
    }
    loop {
        next = match next {
            Next::Finish => return Ok(Outcome::Finished(None)),
            Next::Wait(dir) => return host.wait(dir).map(Outcome::Waits),
            Next::Defer => return Ok(Outcome::Deferred),
            Next::Try => match host.attempt()? {
                Attempt::Done(value) => return Ok(Outcome::Finished(Some(value))),
                Attempt::Moved(n) => host.machine(|machine| machine.handle_progress(n)),
                Attempt::Blocked => host.machine(SockOp::handle_blocked),
                Attempt::Connected => host.machine(SockOp::handle_connected),
            },
        };
    }
}
