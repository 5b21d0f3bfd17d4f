//! Drivers: how events become calls of a machine, and how its steps are carried out, in which order.
//!
//! A driver knows a [`Host`] and no more. The transports of the loop are hosts, and so are those of the simulator: what the
//! fuzzers and the properties run is what ships.
//!
//! Contract:
//! - A host lends its machine for as long as a closure runs, in which nothing else of the host is called. So whatever user
//!   code the host runs finds the machine whole.
//! - Nothing that may run user code when it is dropped is dropped in such a closure.
//! - An error is what user code raised, or what the kernel said. One that [`Host::is_exit`] is never reported: it is handed
//!   up, once what was under way is done.

pub mod accept;
pub mod coalesce;
pub mod datagram;
pub mod interest;
pub mod sockop;
pub mod stream;
pub mod tls;
pub mod turn;

pub use super::interest::Dir;

/// What every transport's driver needs of its surroundings.
pub trait Host {
    type Error;

    /// The error ends the run of the loop.
    fn is_exit(&self, error: &Self::Error) -> bool;

    /// The errno of an error of the operating system, `Some(None)` where it has none; `None` of any other error.
    fn os_errno(&self, error: &Self::Error) -> Option<Option<i32>>;

    /// Tells the exception handler.
    ///
    /// # Errors
    /// Only an exit.
    fn report(&mut self, error: &Self::Error, culprit: Culprit) -> Result<(), Self::Error>;

    /// The network is to blame: only who debugs wants to know.
    ///
    /// # Errors
    /// What the log raises.
    fn log_fatal(&mut self, error: &Self::Error, culprit: Culprit) -> Result<(), Self::Error>;

    /// Keeps the exception for `connection_lost`.
    fn keep_error(&mut self, error: Self::Error);

    /// The number of the turn that runs; 0 outside of one.
    fn turn(&self) -> u64;

    /// What is written now waits for the end of the turn.
    fn coalesces(&self) -> bool;

    /// Has the turn that ends call the driver's `uncork`.
    fn cork(&mut self);

    /// Queues an event of the file, as if the kernel had told of it, for the next turn.
    fn queue(&mut self, dir: Dir);

    /// Queues the end of the transport for the next turn.
    ///
    /// # Errors
    /// That the loop is closed.
    fn queue_lost(&mut self) -> Result<(), Self::Error>;

    /// Runs `body` as a callback of the protocol, unless that is gone.
    ///
    /// # Errors
    /// Those of `body`.
    fn in_context(&mut self, body: impl FnOnce(&mut Self) -> Result<(), Self::Error>) -> Result<(), Self::Error>;
}

/// Where an error came from, which its report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// A callback of the protocol whose exception ends nothing.
    Callback(&'static str),
    /// `pause_writing` or `resume_writing`: the same.
    Flow(&'static str),
    /// A callback of the protocol whose exception ends the connection.
    Fatal(&'static str),
    /// The kernel, asked for what was received.
    Read,
    /// The kernel, given what is to be sent.
    Write,
}

/// Reports what a callback raised that ends nothing.
///
/// # Errors
/// Only an exit.
fn contain<H: Host>(host: &mut H, called: Result<(), H::Error>, culprit: Culprit) -> Result<(), H::Error> {
    match called {
        Err(error) if !host.is_exit(&error) => host.report(&error, culprit),
        result => result,
    }
}
