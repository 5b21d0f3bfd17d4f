//! Drives `core::tls`: what comes from the stream below, from the user, from the loop and from the engine, and the steps that
//! follow.
//!
//! Rules:
//! - Each call of the engine may run user code (callbacks of its context) and other threads: it happens outside of any borrow.
//! - "Nothing to read yet" is dear: the engine is not asked for what has not arrived, by the borders of records.
//! - Whatever is decrypted from one piece of ciphertext is handed out as one; whatever a write makes of ciphertext goes to the
//!   stream below as one, unless it is long.
//! - An exit during a write counts the record in hand as written: the engine looks for signals when it has taken a part.

mod data;
mod host;

pub use data::send;
use data::{Decrypted, decrypt, encrypt_at_once, encrypt_queued, end_write, hand_out, tell, tell_below, tell_buffered};
pub use host::{Culprit, Host};

use crate::core::flow::LimitsError;
use crate::core::tls::{Admit, Outcome, Phase, Step, Tls};

// ---- the stream below

/// The stream below is there; `paused`: it has paused its protocol, with so many bytes buffered.
///
/// # Errors
/// What the protocol above raises in `connection_made`, and an exit.
pub fn handle_made<H: Host>(host: &mut H, paused: Option<usize>) -> Result<(), H::Error> {
    let step = host.machine(|machine| {
        if let Some(below) = paused {
            machine.inherit_pause(below);
        }
        machine.handle_made()
    });
    run_step(host, step)
}

/// Ciphertext came.
///
/// # Errors
/// As [`handle_made`], and what of the protocol's is for the stream below to handle.
pub fn handle_ciphertext<H: Host>(host: &mut H, data: &[u8]) -> Result<(), H::Error> {
    let mut found = Decrypted::nothing();
    for part in data.chunks(H::PART) {
        if let Err(error) = host.feed(part) {
            return fatal(host, error, Culprit::Protocol);
        }
        let reads = host.machine(|machine| {
            machine.handle_part(part);
            machine.wants_read()
        });
        if reads && !found.is_over() && host.takes_bytes() {
            decrypt(host, &mut found);
        }
    }
    let step = host.machine(Tls::handle_fed);
    if step.has(Step::READ) { hand_out(host, found) } else { run_step(host, step) }
}

/// The stream below ended.
///
/// # Errors
/// As [`handle_ciphertext`].
pub fn handle_end<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if let Some(step) = host.machine(Tls::handle_end) {
        return run_step(host, step);
    }
    let error = host.reset_error();
    handshake_failed(host, error)
}

/// The stream below wants no more ciphertext for now.
///
/// # Errors
/// An exit, and what the stream below raises.
pub fn handle_paused<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let below = host.buffered_below()?;
    let signal = host.machine(|machine| machine.handle_paused(below));
    tell(host, signal)
}

/// The stream below wants ciphertext again.
///
/// # Errors
/// As [`handle_ciphertext`].
pub fn handle_unpaused<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Tls::handle_unpaused);
    run_step(host, step)
}

/// The stream below is lost.
///
/// # Errors
/// That the loop is closed.
pub fn handle_lost<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Tls::handle_lost);
    run_step(host, step)
}

// ---- the clock

/// The time of the handshake is over.
///
/// # Errors
/// What telling of it raises.
pub fn handle_handshake_overdue<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if host.machine(|machine| machine.phase()) != Phase::Handshake {
        return Ok(());
    }
    let error = host.handshake_overdue()?;
    fatal(host, error, Culprit::Transport)
}

/// The time of the closing is over.
///
/// # Errors
/// What the stream below raises.
pub fn handle_shutdown_overdue<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if !host.machine(|machine| machine.is_shutdown_overdue()) {
        return Ok(());
    }
    let error = host.shutdown_overdue();
    abort_below(host, Some(&error))
}

/// The turn has come after reading was resumed, or after a buffer was full.
///
/// # Errors
/// As [`handle_ciphertext`].
pub fn handle_resumed<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Tls::handle_resumed);
    run_step(host, step)
}

// ---- the user wants

/// Writes: what the engine takes is encrypted at once, and sent as far as the stream below wants it.
///
/// # Errors
/// An exit, and what is for the stream below to handle.
pub fn write<H: Host>(host: &mut H, plain: H::Plain) -> Result<(), H::Error> {
    match host.machine(Tls::admit) {
        Admit::Encrypt => {
            let (done, error) = encrypt_at_once(host, &plain);
            if done < plain.as_ref().len() {
                let step = host.machine(|machine| machine.enqueue_rest(plain.into(), done));
                run_step(host, step)?;
            }
            end_write(host, error)
        }
        Admit::Queue => {
            let step = host.machine(|machine| machine.enqueue(plain.into()));
            run_step(host, step)?;
            tell_buffered(host)
        }
        Admit::Drop { warn: false } => Ok(()),
        Admit::Drop { warn: true } => host.warn_closed(),
    }
}

/// Closes the connection; what that makes of ciphertext leaves now.
///
/// # Errors
/// As [`handle_ciphertext`].
pub fn close<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Tls::close);
    run_step(host, step).and(host.uncork_below())
}

/// Ends the connection at once, without `close_notify`.
///
/// # Errors
/// What the stream below raises.
pub fn abort<H: Host>(host: &mut H, error: Option<&H::Error>) -> Result<(), H::Error> {
    if host.machine(Tls::abort).has(Step::ABORT) { abort_below(host, error) } else { Ok(()) }
}

/// Goes on reading, from the next turn on.
///
/// # Errors
/// That the loop is closed.
pub fn resume_reading<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if host.machine(Tls::resume_reading) { host.queue_resumed() } else { Ok(()) }
}

/// Sets the marks of writing.
///
/// # Errors
/// What the stream below raises, and an exit; inside, that the marks contradict each other.
pub fn set_limits<H: Host>(host: &mut H, high: usize, low: usize) -> Result<Result<(), LimitsError>, H::Error> {
    if let Err(error) = host.machine(|machine| machine.set_limits(high, low)) {
        return Ok(Err(error));
    }
    host.limit_below(high, low)?;
    tell_buffered(host).map(Ok)
}

/// Sets the marks of ciphertext that may wait while reading is paused.
///
/// # Errors
/// What the stream below raises; inside, that the marks contradict each other.
pub fn set_read_limits<H: Host>(host: &mut H, high: usize, low: usize) -> Result<Result<(), LimitsError>, H::Error> {
    if let Err(error) = host.machine(|machine| machine.set_read_limits(high, low)) {
        return Ok(Err(error));
    }
    let unread = host.unread()?;
    let signal = host.machine(|machine| machine.poll_unread(unread));
    tell_below(host, signal).map(Ok)
}

// ---- the end

/// Ends the connection because of an error, and tells of it.
///
/// # Errors
/// The error itself when it is an exit; what the stream below raises.
#[cold]
fn fatal<H: Host>(host: &mut H, error: H::Error, culprit: Culprit) -> Result<(), H::Error> {
    if host.is_exit(&error) {
        return Err(error);
    }
    end(host, &error, culprit)
}

#[cold]
fn end<H: Host>(host: &mut H, error: &H::Error, culprit: Culprit) -> Result<(), H::Error> {
    let result = abort_below(host, Some(error));
    result.and(host.report_fatal(error, culprit))
}

/// Aborts the stream below, which takes the connection with it.
///
/// # Errors
/// What the stream below raises.
pub fn abort_below<H: Host>(host: &mut H, error: Option<&H::Error>) -> Result<(), H::Error> {
    host.machine(Tls::handle_aborted);
    host.abort_below(error)
}

// ---- steps

/// Carries out a step, in the order of its flags.
fn run_step<H: Host>(host: &mut H, step: Step) -> Result<(), H::Error> {
    if step.is_none() {
        return Ok(());
    }
    if step.has(Step::UNWATCH) {
        host.unwatch()?;
    }
    if step.has(Step::WATCH_HANDSHAKE) {
        host.watch_handshake()?;
    }
    if step.has(Step::WATCH_SHUTDOWN) {
        host.watch_shutdown()?;
    }
    if step.has(Step::HANDSHAKE) {
        handshake(host)?;
    }
    if step.has(Step::MADE) {
        host.connection_made()?;
    }
    if step.has(Step::READY)
        && let Some(waiter) = host.take_waiter()
    {
        host.wake(waiter, None)?;
    }
    // Neither an exit nor what `eof_received` raises keeps a connection from being closed.
    let mut told = Ok(());
    if step.has(Step::READ) {
        told = hand_out(host, Decrypted::nothing());
        // What is for the stream below to handle breaks the connection off.
        if told.as_ref().is_err_and(|error| !host.is_exit(error)) {
            return told;
        }
    }
    if step.has(Step::WRITE) {
        told = told.and(encrypt_queued(host));
    }
    if step.has(Step::SEND) {
        told = told.and(send(host));
    }
    if step.has(Step::FLUSHED) {
        let step = host.machine(Tls::begin_unwrap);
        told = told.and(run_step(host, step));
    }
    if step.has(Step::UNWRAP) {
        told = told.and(shut_down(host));
    }
    if step.has(Step::EOF) {
        told = told.and(deliver_eof(host));
    }
    if step.has(Step::CLOSE) {
        host.close_below()?;
    }
    if step.has(Step::ABORT) {
        abort_below(host, None)?;
    }
    if step.has(Step::DISCARD) {
        drop(host.machine(Tls::take_discarded));
    }
    if step.has(Step::LOSE) {
        host.queue_lost()?;
    }
    told
}

fn handshake<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let done = match host.handshake() {
        Outcome::Again => false,
        Outcome::Done(()) => match host.note_peer() {
            Ok(()) => true,
            Err(error) => return handshake_failed(host, error),
        },
        Outcome::Failed(error) => return handshake_failed(host, error),
    };
    let step = host.machine(|machine| machine.handle_handshake(done));
    run_step(host, step)
}

#[cold]
fn handshake_failed<H: Host>(host: &mut H, error: H::Error) -> Result<(), H::Error> {
    if host.is_exit(&error) {
        return Err(error);
    }
    if !host.machine(Tls::fail_handshake) {
        return Ok(());
    }
    // The alert that tells the peer why.
    let told = send(host);
    let waiter = host.take_waiter();
    let result = told.and(end(host, &error, Culprit::Handshake));
    result.and(waiter.map_or(Ok(()), |waiter| host.wake(waiter, Some(&error))))
}

fn shut_down<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let done = match host.shutdown() {
        Outcome::Done(()) => true,
        Outcome::Again => false,
        Outcome::Failed(error) => return fatal(host, error, Culprit::Transport),
    };
    let step = host.machine(|machine| machine.handle_unwrapped(done));
    run_step(host, step)
}

fn deliver_eof<H: Host>(host: &mut H) -> Result<(), H::Error> {
    match host.eof_received() {
        Ok(false) => Ok(()),
        Ok(true) => host.warn_kept_open(),
        Err(error) => fatal(host, error, Culprit::Eof),
    }
}
