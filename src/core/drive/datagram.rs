//! Drives `core::datagram`: what comes from the kernel, from the user and from the loop, and the steps that follow.
//!
//! Rules:
//! - One batch is received per turn, so that other connections get theirs; what may be left is taken in the next one. An
//!   event that may be an error's receives another.
//! - The kernel is asked anew before user code hears of what it said: what that brings about must not be missed.
//! - An error of a send or a receive is the protocol's, from within `sendto` too, and the endpoint stays open; what the
//!   protocol raises then is the caller's. Any other exception of a send is fatal.

use super::{Culprit, Dir, contain};
use crate::core::datagram::{Admit, Datagram, Read, Step};
use crate::core::fault::Fault;
use crate::core::flow::LimitsError;

/// What asking the kernel brought, besides what went to [`Datagram::handle_received`].
#[derive(Debug)]
pub struct Found<E> {
    /// Datagrams.
    pub count: usize,
    /// There may be more, and no event will tell of it.
    pub more: bool,
    pub error: Option<E>,
}

/// The surroundings of an endpoint.
pub trait Host: super::Host {
    type Received;
    type Packet: AsRef<[u8]>;
    /// What is sent, and to whom, before it is queued.
    type Message;
    /// The file, or that it was closed under the transport.
    type File;

    /// Lends the machine.
    fn machine<R>(&mut self, f: impl FnOnce(&mut Datagram<Self::Received, Self::Packet>) -> R) -> R;

    // ---- the kernel

    /// # Errors
    /// The file was closed under the transport.
    fn check_file(&mut self) -> Result<(), Self::Error>;

    /// The file to make a system call on.
    fn file(&mut self) -> Self::File;

    /// Hands a batch to [`Datagram::handle_received`]; `force`: the kernel is asked, whatever is known of readiness.
    ///
    /// # Errors
    /// What is fatal.
    fn receive(&mut self, force: bool) -> Result<Found<Self::Error>, Self::Error>;

    /// Sends one; false when there is no room.
    ///
    /// # Errors
    /// The kernel's, or what is wrong with the address.
    fn send(&mut self, message: &mut Self::Message) -> Result<bool, Self::Error>;

    /// Sends at most `batch` of [`Datagram::unsent`] by one call: how many.
    ///
    /// # Errors
    /// As [`Host::send`], of the first one.
    fn send_queued(&mut self, file: Self::File, batch: usize) -> Result<usize, Self::Error>;

    /// The message to be queued.
    fn packet(&mut self, message: Self::Message) -> Self::Packet;

    /// Registers the file anew: for errors and reading, and for writability, too, with `write`. Whether it is readable, and
    /// whether it is writable or has an error; otherwise the events that tell of it are armed.
    ///
    /// # Errors
    /// The kernel's.
    fn register(&mut self, write: bool) -> Result<(bool, bool), Self::Error>;

    /// Without resources to register nothing more is received; sends still say what is wrong.
    fn note_unregistered(&mut self, error: Self::Error);

    /// True when the file may be readable; otherwise the event that tells of it is armed.
    fn watch_read(&mut self) -> bool;

    /// True when there is an error to be had, or there may be; otherwise the event that tells of it is armed.
    fn watch_error(&mut self) -> bool;

    /// The kernel had no room. True when it has again; otherwise the event that tells of it is armed.
    fn watch_write(&mut self) -> bool;

    // ---- the protocol

    /// # Errors
    /// What the protocol raises.
    fn connection_made(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn datagram_received(&mut self, received: Self::Received) -> Result<(), Self::Error>;

    /// From the loop, or from within a method of the transport, whose context is the caller's.
    ///
    /// # Errors
    /// What the protocol raises.
    fn error_received(&mut self, error: Self::Error, from_loop: bool) -> Result<(), Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn pause_writing(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn resume_writing(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn connection_lost(&mut self) -> Result<(), Self::Error>;

    // ---- others

    /// Closes the file and lets go of everything.
    ///
    /// # Errors
    /// An exit.
    fn dispose(&mut self) -> Result<(), Self::Error>;

    /// The user goes on sending after the loss.
    ///
    /// # Errors
    /// What the log raises.
    fn warn_lost_write(&mut self) -> Result<(), Self::Error>;

    /// The fault that stands for an error.
    fn fault(error: &Self::Error) -> Fault;
}

// ---- events

/// The loop got to the new transport.
///
/// # Errors
/// An exit.
pub fn handle_made<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let called = host.connection_made();
    let result = contain(host, called, Culprit::Callback("connection_made"));
    // Before anything is received: what wakes the event of writing is an error.
    if host.watch_error() {
        host.queue(Dir::Write);
    }
    let step = host.machine(Datagram::handle_open);
    result.and(run_step(host, step))
}

/// The file is readable, or a read was queued.
///
/// # Errors
/// An exit.
pub fn handle_readable<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let turn = host.turn();
    read(host, turn)
}

fn read<H: Host>(host: &mut H, turn: u64) -> Result<(), H::Error> {
    let (force, errored) = match host.machine(|machine| machine.begin_read(turn)) {
        Read::Nothing => return Ok(()),
        Read::Deliver => {
            let result = deliver(host);
            read_on(host, true);
            return result;
        }
        Read::Receive { force, errored } => (force, errored),
    };
    if let Err(error) = host.check_file() {
        return tell_error(host, error);
    }
    let received = host.receive(force);
    let found = !matches!(received, Ok(Found { count: 0, error: None, .. }));
    if found {
        handle_found(host);
    }
    if errored && host.machine(|machine| machine.handle_asked(found)) {
        renew_for_errors(host);
    }
    let (more, error) = match received {
        Ok(Found { more, error, .. }) => (more, error),
        Err(error) => return fatal(host, error, Culprit::Read),
    };
    let mut result = deliver(host);
    if let Some(error) = error
        && !host.machine(|machine| machine.is_closing())
    {
        result = result.and(tell_error(host, error));
    }
    read_on(host, more || result.is_err());
    result
}

/// The file is writable, or has an error, or a write was queued.
///
/// # Errors
/// An exit.
pub fn handle_writable<H: Host>(host: &mut H) -> Result<(), H::Error> {
    match host.machine(Datagram::handle_write_event) {
        Some(step) => host.in_context(|host| run_step(host, step)),
        // An error is asked for, whatever the turn has read.
        None => read(host, 0),
    }
}

/// The loop got to the end of the transport.
///
/// # Errors
/// An exit.
pub fn handle_lost<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let called = host.connection_lost();
    let result = contain(host, called, Culprit::Callback("connection_lost"));
    host.machine(Datagram::handle_lost);
    result.and(host.dispose())
}

/// The child of a fork goes on without what its parent has corked.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn handle_forked<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Datagram::handle_forked);
    run_step(host, step)
}

// ---- the user wants

/// Sends, at once if nothing waits.
///
/// # Errors
/// What the protocol raises in `error_received`, and an exit.
#[inline]
pub fn send<H: Host>(host: &mut H, mut message: H::Message) -> Result<(), H::Error> {
    let coalesce = host.coalesces();
    let step = match host.machine(|machine| machine.admit(coalesce)) {
        Admit::Send => match host.send(&mut message) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                let packet = host.packet(message);
                host.machine(|machine| machine.enqueue_blocked(packet))
            }
            Err(error) => return handle_refused(host, error),
        },
        Admit::Queue => {
            let packet = host.packet(message);
            host.machine(|machine| machine.enqueue(packet, coalesce))
        }
        Admit::Drop { warn: true } => return host.warn_lost_write(),
        Admit::Drop { warn: false } => return Ok(()),
    };
    run_step(host, step)
}

/// What is coalesced leaves now.
///
/// # Errors
/// An exit.
pub fn uncork<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Datagram::uncork);
    run_step(host, step)
}

/// Closes once all is sent.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn close<H: Host>(host: &mut H) -> Result<(), H::Error> {
    uncork_before(host, Datagram::close)
}

/// Ends the endpoint now. What is coalesced was sent before.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn abort<H: Host>(host: &mut H) -> Result<(), H::Error> {
    uncork_before(host, |machine| machine.fail(Fault::Closed))
}

/// What is coalesced leaves before the rest; an exit of its callbacks keeps nothing open.
fn uncork_before<H: Host>(
    host: &mut H,
    rest: impl FnOnce(&mut Datagram<H::Received, H::Packet>) -> Step,
) -> Result<(), H::Error> {
    let left = uncork(host);
    let step = host.machine(rest);
    left.and(run_step(host, step))
}

/// Goes on delivering.
///
/// # Errors
/// None, as nothing of the user's runs.
pub fn resume_reading<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Datagram::resume_reading);
    run_step(host, step)
}

/// Sets the marks of writing. What is coalesced does not count.
///
/// # Errors
/// An exit; inside, that the marks contradict each other.
pub fn set_limits<H: Host>(
    host: &mut H,
    high: Option<usize>,
    low: Option<usize>,
) -> Result<Result<(), LimitsError>, H::Error> {
    uncork(host)?;
    match host.machine(|machine| machine.set_limits(high, low)) {
        Ok(step) => run_step(host, step).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

// ---- the end

/// Ends the endpoint because of an error: reports it, unless the network is to blame.
///
/// # Errors
/// The error itself when it is an exit.
#[cold]
pub fn fatal<H: Host>(host: &mut H, error: H::Error, culprit: Culprit) -> Result<(), H::Error> {
    if host.is_exit(&error) {
        return Err(error);
    }
    let told =
        if host.os_errno(&error).is_some() { host.log_fatal(&error, culprit) } else { host.report(&error, culprit) };
    told.and(fail(host, error))
}

/// Ends the endpoint now; `connection_lost` gets the error.
///
/// # Errors
/// That the loop is closed.
#[cold]
pub fn fail<H: Host>(host: &mut H, error: H::Error) -> Result<(), H::Error> {
    let step = host.machine(|machine| machine.fail(H::fault(&error)));
    // Lost before: the exception is of no more use.
    if step.has(Step::LOSE) {
        host.keep_error(error);
    }
    run_step(host, step)
}

// ---- steps

/// Carries out a step, in the order of its flags.
fn run_step<H: Host>(host: &mut H, step: Step) -> Result<(), H::Error> {
    if step.is_none() {
        return Ok(());
    }
    if step.has(Step::SEND) {
        flush(host)?;
    }
    if step.has(Step::CORK) {
        host.cork();
    }
    // Readiness that came in between may be an error's, which only a new registration takes away.
    if step.has(Step::WATCH_WRITE)
        && (!host.machine(|machine| machine.is_registered_for_write()) || host.watch_write())
        && let Err(error) = renew(host, true)
    {
        fatal(host, error, Culprit::Write)?;
    }
    if step.has(Step::UNWATCH_WRITE)
        && !step.has(Step::LOSE)
        && let Err(error) = renew(host, false)
    {
        fatal(host, error, Culprit::Write)?;
    }
    if step.has(Step::AGAIN) {
        host.queue(Dir::Write);
    }
    if step.has(Step::WATCH_READ) {
        let ready = host.watch_read() || host.machine(|machine| machine.forces_recv());
        read_on(host, ready);
    }
    let mut result = Ok(());
    if step.has(Step::PAUSE) {
        let called = host.pause_writing();
        result = contain(host, called, Culprit::Flow("pause_writing"));
    }
    if step.has(Step::RESUME) {
        let called = host.resume_writing();
        result = result.and(contain(host, called, Culprit::Flow("resume_writing")));
    }
    if step.has(Step::DISCARD) {
        drop(host.machine(Datagram::take_dropped));
    }
    if step.has(Step::LOSE) {
        host.queue_lost()?;
    }
    result
}

/// Sends what is queued, as much as the kernel takes and one flush may.
fn flush<H: Host>(host: &mut H) -> Result<(), H::Error> {
    host.machine(Datagram::begin_flush);
    let mut result = Ok(());
    while result.is_ok() {
        let file = host.file();
        let batch = host.machine(|machine| machine.poll_flush());
        if batch == 0 {
            break;
        }
        match host.send_queued(file, batch) {
            Ok(0) => host.machine(Datagram::handle_blocked),
            Ok(n) => host.machine(|machine| machine.handle_sent(n)),
            Err(error) => {
                host.machine(Datagram::handle_refused);
                let called = handle_refused(host, error);
                result = contain(host, called, Culprit::Callback("error_received"));
            }
        }
    }
    let step = host.machine(Datagram::end_flush);
    let ended = run_step(host, step);
    let settled = host.machine(Datagram::poll_settled);
    result.and(ended).and(run_step(host, settled))
}

/// A datagram could not be sent.
#[cold]
fn handle_refused<H: Host>(host: &mut H, error: H::Error) -> Result<(), H::Error> {
    if host.os_errno(&error).is_some() {
        handle_found(host);
        host.error_received(error, false)
    } else {
        fatal(host, error, Culprit::Write)
    }
}

/// Hands out what was received, as long as the protocol wants it.
fn deliver<H: Host>(host: &mut H) -> Result<(), H::Error> {
    while let Some(received) = host.machine(Datagram::poll_deliver) {
        let called = host.datagram_received(received);
        contain(host, called, Culprit::Callback("datagram_received"))?;
    }
    Ok(())
}

/// Tells the protocol of an error, from the loop.
fn tell_error<H: Host>(host: &mut H, error: H::Error) -> Result<(), H::Error> {
    let called = host.error_received(error, true);
    contain(host, called, Culprit::Callback("error_received"))
}

/// There may be more to read: next turn, so that others get theirs first.
fn read_on<H: Host>(host: &mut H, more: bool) {
    if more && host.machine(Datagram::poll_read_on) {
        host.queue(Dir::Read);
    }
}

/// The kernel had something to say.
#[inline]
fn handle_found<H: Host>(host: &mut H) {
    if host.machine(Datagram::handle_found) {
        renew_for_errors(host);
    }
}

#[cold]
fn renew_for_errors<H: Host>(host: &mut H) {
    if let Err(error) = renew(host, false) {
        host.note_unregistered(error);
    }
}

/// Registers the file anew: the kernel says once per registration that there is an error.
fn renew<H: Host>(host: &mut H, write: bool) -> Result<(), H::Error> {
    let (readable, writable) = host.register(write)?;
    host.machine(|machine| machine.handle_registered(write));
    if writable {
        host.queue(Dir::Write);
    }
    read_on(host, readable);
    Ok(())
}
