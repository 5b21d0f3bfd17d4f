//! Drives `core::coalesce`: turns, and when what they have corked leaves.
//!
//! What an endpoint's callbacks raise keeps no other endpoint's writes back; an exit is handed up in the end.

use crate::core::coalesce::{Coalesce, State, Thread};

/// The surroundings of a loop that coalesces.
pub trait Host {
    type Error;
    type Endpoint;

    /// Lends the machine. In it nothing else of the host is called, nor anything dropped that may run user code.
    fn machine<R>(&mut self, f: impl FnOnce(&mut Coalesce<Self::Endpoint>) -> R) -> R;

    /// The thread that calls.
    fn thread(&self) -> Thread;

    /// Has what the endpoint has corked leave. `enter`: no callback is running, so its protocol's context can be entered.
    ///
    /// # Errors
    /// What its callbacks raise.
    fn uncork(&mut self, endpoint: Self::Endpoint, enter: bool) -> Result<(), Self::Error>;

    /// Has the endpoint forget what it has corked.
    ///
    /// # Errors
    /// An exit, or that the loop is closed.
    fn forget(&mut self, endpoint: Self::Endpoint) -> Result<(), Self::Error>;

    /// Reports an error.
    ///
    /// # Errors
    /// Only an exit.
    fn contain(&mut self, result: Result<(), Self::Error>) -> Result<(), Self::Error>;
}

/// Runs a turn's body; what it corks leaves, however it ends.
///
/// # Errors
/// The body's, and an exit.
#[inline]
pub fn turn<H: Host>(host: &mut H, body: impl FnOnce(&mut H) -> Result<(), H::Error>) -> Result<(), H::Error> {
    let (outer, before) = begin(host);
    let result = before.and_then(|()| body(host));
    result.and(end(host, outer))
}

/// A turn begins: the first part of [`turn`]. What its end goes back to.
///
/// # Errors
/// An exit of what leaves before.
#[inline]
pub fn begin<H: Host>(host: &mut H) -> (State, Result<(), H::Error>) {
    let thread = host.thread();
    let outer = host.machine(|machine| machine.begin(thread));
    // The body may wait.
    let before = if outer == State::Nothing { Ok(()) } else { leave(host, None) };
    (outer, before)
}

/// A turn ended: the last part of [`turn`].
///
/// # Errors
/// An exit.
#[inline]
pub fn end<H: Host>(host: &mut H, outer: State) -> Result<(), H::Error> {
    if host.machine(|machine| machine.handle_end(outer)) { Ok(()) } else { leave(host, Some(outer)) }
}

/// Switches it, from the next write on.
///
/// # Errors
/// An exit.
pub fn switch<H: Host>(host: &mut H, on: bool) -> Result<(), H::Error> {
    let thread = host.thread();
    if host.machine(|machine| machine.switch(on, thread)) { leave(host, None) } else { Ok(()) }
}

/// What this thread's turn has corked leaves now: the thread forks, or a callback waits for I/O.
///
/// # Errors
/// An exit.
pub fn leave_early<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let thread = host.thread();
    if host.machine(|machine| machine.runs_in(thread)) { leave(host, None) } else { Ok(()) }
}

/// This process is the child of a fork: what is corked is the parent's.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn handle_forked<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let thread = host.thread();
    let mut result = Ok(());
    for endpoint in host.machine(|machine| machine.handle_forked(thread)) {
        result = result.and(host.forget(endpoint));
    }
    result
}

/// What is corked leaves: in the end of a turn that goes back to `outer`, or in the middle of one.
#[cold]
fn leave<H: Host>(host: &mut H, outer: Option<State>) -> Result<(), H::Error> {
    let thread = host.thread();
    let turn = host.machine(|machine| machine.begin_leaving(thread));
    let mut result = Ok(());
    while let Some(endpoint) = host.machine(Coalesce::poll_corked) {
        let left = host.uncork(endpoint, outer == Some(State::Nothing));
        result = result.and(host.contain(left));
    }
    host.machine(|machine| machine.end_leaving(outer.unwrap_or(turn)));
    result
}
