//! Drives `core::accept`: a listener's events, and the steps that follow.
//!
//! Rules:
//! - Before each system call the host is asked for its file: what a protocol factory or a connection does may close it.
//! - A connection's own failure is the host's to report, and the next one's turn comes; only an exit breaks a burst off.

use crate::core::accept::{Accept, AcceptError, Step};

/// The surroundings of a listener.
pub trait Host {
    type Error;
    /// The socket, while it is known to be the listener's.
    type File;
    type Connection;
    /// What the kernel said instead of one.
    type Refusal;

    /// Lends the machine. In it nothing else of the host is called, nor anything dropped that may run user code.
    fn machine<R>(&mut self, f: impl FnOnce(&mut Accept) -> R) -> R;

    /// The socket to make a system call on; `None` once it was closed under the listener.
    fn file(&mut self) -> Option<Self::File>;

    /// Accepts one connection.
    ///
    /// # Errors
    /// What the kernel said, and what that means.
    fn accept(&mut self, file: Self::File) -> Result<Self::Connection, (AcceptError, Self::Refusal)>;

    /// Makes the transport of a connection, and reports what is raised meanwhile.
    ///
    /// # Errors
    /// Only an exit.
    fn connect(&mut self, connection: Self::Connection) -> Result<(), Self::Error>;

    /// True when connections may be queued; otherwise the event that tells of one is armed. `empty`: a call found none.
    fn watch(&mut self, empty: bool) -> bool;

    /// Has the next turn call [`handle_ready`].
    fn queue(&mut self);

    /// Has [`handle_rested`] called after `secs` seconds.
    ///
    /// # Errors
    /// That the loop is closed.
    fn rest(&mut self, secs: f64) -> Result<(), Self::Error>;

    /// Tells the exception handler of what the kernel said.
    ///
    /// # Errors
    /// Only an exit.
    fn report(&mut self, class: AcceptError, refusal: Self::Refusal) -> Result<(), Self::Error>;

    /// Deregisters the socket, which was closed under the listener, and lets go of everything.
    fn dispose(&mut self);
}

/// Begins to listen.
pub fn start<H: Host>(host: &mut H) {
    watch(host, false);
}

/// The event came, or the turn for which the listener was queued.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn handle_ready<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Accept::handle_ready);
    run(host, step)
}

/// The time to rest is over.
///
/// # Errors
/// As [`handle_ready`].
pub fn handle_rested<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Accept::handle_rested);
    run(host, step)
}

fn run<H: Host>(host: &mut H, mut step: Step) -> Result<(), H::Error> {
    loop {
        match step {
            Step::Accept => {}
            Step::Watch => {
                watch(host, true);
                return Ok(());
            }
            Step::Queue => {
                host.queue();
                return Ok(());
            }
            Step::Rest(_) | Step::Nothing => return Ok(()),
        }
        let Some(file) = host.file() else {
            host.machine(Accept::stop);
            host.dispose();
            return Ok(());
        };
        step = match host.accept(file) {
            Ok(connection) => match host.connect(connection) {
                Ok(()) => host.machine(Accept::handle_accepted),
                Err(exit) => {
                    if host.machine(Accept::handle_exit) == Step::Queue {
                        host.queue();
                    }
                    return Err(exit);
                }
            },
            Err((class, refusal)) => {
                let step = host.machine(|machine| machine.handle_error(class));
                if let Step::Rest(delay) = step {
                    host.rest(delay.as_secs_f64())?;
                    return host.report(class, refusal);
                }
                step
            }
        };
    }
}

fn watch<H: Host>(host: &mut H, empty: bool) {
    if host.watch(empty) && host.machine(Accept::handle_unarmed) == Step::Queue {
        host.queue();
    }
}
