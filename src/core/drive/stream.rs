//! Drives `core::stream`: what comes from the kernel, from the user and from the loop, and the steps that follow.
//!
//! Rules:
//! - One read per turn, so that other connections get theirs; what may be left is read in the next one.
//! - Before each system call the host is asked for its file, which the user may have closed under the transport.
//! - A flush goes on until the kernel takes no more, whatever callbacks do meanwhile; an exit is handed up in its end.

use super::{Culprit, Dir, contain};
use crate::core::fault::Fault;
use crate::core::flow::LimitsError;
use crate::core::stream::{Admit, Step, Stream, WriteError};

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes; `more`: there may be more, and no event will tell of it.
    Data { n: usize, more: bool },
    /// The peer ended its half.
    End,
    /// Nothing there; the event that tells of more is armed.
    Nothing,
}

/// The surroundings of a stream.
pub trait Host: super::Host {
    /// What the outbox holds.
    type Chunk: AsRef<[u8]>;
    /// What is written, before it is queued.
    type Bytes: AsRef<[u8]> + Into<Self::Chunk>;
    /// The file, while it is known to be the transport's.
    type File: Copy;
    /// Where a read goes, and who is told of it.
    type Target;

    /// Lends the machine.
    fn machine<R>(&mut self, f: impl FnOnce(&mut Stream<Self::Chunk>) -> R) -> R;

    // ---- the kernel

    /// The file to make a system call on.
    ///
    /// # Errors
    /// It was closed under the transport.
    fn file(&mut self) -> Result<Self::File, Self::Error>;

    /// Reads once.
    ///
    /// # Errors
    /// The kernel's.
    fn receive(&mut self, file: Self::File, target: &mut Self::Target) -> Result<Received, Self::Error>;

    /// Sends what the kernel takes of `bytes`: how much.
    ///
    /// # Errors
    /// The kernel's.
    fn send(&mut self, file: Self::File, bytes: &[u8]) -> Result<usize, Self::Error>;

    /// Sends what the kernel takes of [`Stream::unsent`] by one call: how much, and how much it was offered.
    ///
    /// # Errors
    /// The kernel's.
    fn send_queued(&mut self, file: Self::File) -> Result<(usize, usize), Self::Error>;

    /// Shuts down the writing half.
    ///
    /// # Errors
    /// The kernel's.
    fn shut_down(&mut self, file: Self::File) -> Result<(), Self::Error>;

    /// True when the file may be readable; otherwise the event that tells of it is armed.
    ///
    /// # Errors
    /// That the loop is closed.
    fn watch_read(&mut self) -> Result<bool, Self::Error>;

    /// The kernel took no more. True when it does again; otherwise the event that tells of it is armed.
    ///
    /// # Errors
    /// That the loop is closed.
    fn watch_write(&mut self) -> Result<bool, Self::Error>;

    /// True when the far end is gone; otherwise the event that tells of it is armed.
    fn watch_hangup(&mut self) -> bool;

    // ---- the protocol

    /// Where the protocol wants the next read; `None` without one.
    ///
    /// # Errors
    /// What `get_buffer` raises.
    fn target(&mut self) -> Option<Result<Self::Target, Self::Error>>;

    /// Hands over the `n` bytes that were read.
    ///
    /// # Errors
    /// What the protocol raises.
    fn deliver(&mut self, target: Self::Target, n: usize) -> Result<(), Self::Error>;

    /// The callback that [`Host::deliver`] calls.
    fn callback(target: &Self::Target) -> &'static str;

    /// # Errors
    /// What the protocol raises.
    fn connection_made(&mut self) -> Result<(), Self::Error>;

    /// The protocol's answer: the transport stays open.
    ///
    /// # Errors
    /// What the protocol raises.
    fn eof_received(&mut self) -> Result<bool, Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn pause_writing(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn resume_writing(&mut self) -> Result<(), Self::Error>;

    /// The exception for `connection_lost`, if there is one.
    fn lost_error(&mut self) -> Option<Self::Error>;

    /// # Errors
    /// What the protocol raises.
    fn connection_lost(&mut self, error: Option<&Self::Error>) -> Result<(), Self::Error>;

    // ---- others

    /// Closes the file and lets go of everything; `error` is for who waits for what cannot come any more.
    ///
    /// # Errors
    /// An exit.
    fn dispose(&mut self, error: Option<&Self::Error>) -> Result<(), Self::Error>;

    /// Tells who waits for the empty outbox, or for room in the socket that it was lent.
    ///
    /// # Errors
    /// What telling raises.
    fn tell_drained(&mut self) -> Result<(), Self::Error>;

    /// The user goes on writing after the loss.
    ///
    /// # Errors
    /// What the log raises.
    fn warn_lost_write(&mut self) -> Result<(), Self::Error>;

    /// The exception for a write that is refused.
    fn refused(&mut self, error: WriteError, method: &'static str) -> Self::Error;

    /// The fault that stands for an error.
    fn fault(error: &Self::Error) -> Fault;
}

// ---- events

/// The loop got to the new transport.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn handle_made<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let called = host.connection_made();
    let result = contain(host, called, Culprit::Callback("connection_made"));
    let step = host.machine(Stream::handle_open);
    result.and(run_step(host, step))
}

/// The file is readable, or a read was queued.
///
/// # Errors
/// An exit.
pub fn handle_readable<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let turn = host.turn();
    if !host.machine(|machine| machine.begin_read(turn)) {
        return look_for_hangup(host);
    }
    let file = match host.file() {
        Ok(file) => file,
        Err(error) => return fatal(host, error, Culprit::Read),
    };
    let mut target = match host.target() {
        Some(Ok(target)) => target,
        Some(Err(error)) => {
            let result = fatal(host, error, Culprit::Fatal("get_buffer"));
            read_on(host, true);
            return result;
        }
        None => return Ok(()),
    };
    // `get_buffer` may have closed or paused the transport.
    if !host.machine(|machine| machine.wants_read()) {
        return Ok(());
    }
    match host.receive(file, &mut target) {
        Ok(Received::Data { n, more }) => {
            let callback = H::callback(&target);
            let result = match host.deliver(target, n) {
                Ok(()) => Ok(()),
                Err(error) => read_failed(host, error, callback),
            };
            read_on(host, more);
            result
        }
        Ok(Received::End) => {
            let step = host.machine(Stream::handle_end);
            run_step(host, step)
        }
        Ok(Received::Nothing) => Ok(()),
        Err(error) => fatal(host, error, Culprit::Read),
    }
}

/// The file is writable, or a write was queued.
///
/// # Errors
/// An exit.
pub fn handle_writable<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(|machine| if machine.is_watching_write() { machine.handle_writable() } else { Step::NONE });
    let looked = look_for_hangup(host);
    // For `resume_writing`.
    looked.and(host.in_context(|host| run_step(host, step)))
}

/// The loop got to the end of the transport.
///
/// # Errors
/// An exit.
pub fn handle_lost<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let error = host.lost_error();
    let called = host.connection_lost(error.as_ref());
    let result = contain(host, called, Culprit::Callback("connection_lost"));
    result.and(host.dispose(error.as_ref()))
}

/// The child of a fork goes on without what its parent has corked.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn handle_forked<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Stream::handle_forked);
    run_step(host, step)
}

// ---- the user wants

/// Writes, at once if nothing waits.
///
/// # Errors
/// That it is refused, and an exit.
pub fn write<H: Host>(host: &mut H, bytes: H::Bytes) -> Result<(), H::Error> {
    let len = bytes.as_ref().len();
    let coalesce = host.coalesces();
    let admitted =
        host.machine(
            |machine| {
                if len == 0 { machine.check_write().map(|()| None) } else { machine.admit(coalesce).map(Some) }
            },
        );
    let step = match admitted {
        Err(error) => return Err(host.refused(error, "write")),
        Ok(None | Some(Admit::Drop { warn: false })) => return Ok(()),
        Ok(Some(Admit::Send)) => {
            let sent = match host.file() {
                Ok(file) => host.send(file, bytes.as_ref()),
                Err(error) => Err(error),
            };
            match sent {
                Ok(sent) if sent == len => return Ok(()),
                Ok(sent) => host.machine(|machine| machine.enqueue_rest(bytes.into(), sent)),
                Err(error) => return fatal(host, error, Culprit::Write),
            }
        }
        Ok(Some(Admit::Queue)) => host.machine(|machine| machine.enqueue([bytes.into()], coalesce)),
        Ok(Some(Admit::Drop { warn: true })) => return host.warn_lost_write(),
    };
    run_step(host, step)
}

/// Writes several, by one vectored send where nothing waits and the kernel takes it.
///
/// # Errors
/// As [`write`].
pub fn write_lines<H: Host>(host: &mut H, chunks: impl IntoIterator<Item = H::Bytes>) -> Result<(), H::Error> {
    let coalesce = host.coalesces();
    match host.machine(|machine| machine.admit(coalesce)) {
        Ok(Admit::Send | Admit::Queue) => {
            let step = host.machine(|machine| machine.enqueue(chunks.into_iter().map(Into::into), coalesce));
            run_step(host, step)
        }
        Ok(Admit::Drop { warn: true }) => host.warn_lost_write(),
        Ok(Admit::Drop { warn: false }) => Ok(()),
        Err(error) => Err(host.refused(error, "writelines")),
    }
}

/// What is coalesced leaves now.
///
/// # Errors
/// An exit.
pub fn uncork<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Stream::uncork);
    run_step(host, step)
}

/// Closes the writing half once all is sent.
///
/// # Errors
/// An exit, and the kernel's error of the shutdown.
pub fn write_eof<H: Host>(host: &mut H) -> Result<(), H::Error> {
    uncork_before(host, Stream::write_eof)
}

/// Closes once all is sent.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn close<H: Host>(host: &mut H) -> Result<(), H::Error> {
    uncork_before(host, Stream::close)
}

/// Ends the connection now. What is coalesced was written before.
///
/// # Errors
/// An exit, or that the loop is closed.
pub fn abort<H: Host>(host: &mut H) -> Result<(), H::Error> {
    uncork_before(host, |machine| machine.fail(Fault::Closed))
}

/// What is coalesced leaves before the rest; an exit of its callbacks keeps nothing open.
fn uncork_before<H: Host>(host: &mut H, rest: impl FnOnce(&mut Stream<H::Chunk>) -> Step) -> Result<(), H::Error> {
    let left = uncork(host);
    let step = host.machine(rest);
    left.and(run_step(host, step))
}

/// Goes on reading.
///
/// # Errors
/// That the loop is closed.
pub fn resume_reading<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Stream::resume_reading);
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

/// Who was lent the socket gives it back.
///
/// # Errors
/// The kernel's error of the shutdown.
pub fn end_drain_wait<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Stream::end_drain_wait);
    run_step(host, step)
}

/// Who was lent the socket found it full.
///
/// # Errors
/// That the loop is closed.
pub fn handle_blocked<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let step = host.machine(Stream::handle_blocked);
    run_step(host, step)
}

// ---- the end

/// Ends the connection because of an error: reports it, unless the network is to blame.
///
/// # Errors
/// The error itself when it is an exit.
#[cold]
pub fn fatal<H: Host>(host: &mut H, error: H::Error, culprit: Culprit) -> Result<(), H::Error> {
    if host.is_exit(&error) {
        return Err(error);
    }
    let policy = host.machine(|machine| machine.policy());
    let told = if host.os_errno(&error).is_some_and(|errno| policy.is_quiet(errno)) {
        host.log_fatal(&error, culprit)
    } else {
        host.report(&error, culprit)
    };
    told.and(fail(host, error))
}

/// Ends the connection now; `connection_lost` gets the error.
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
    if step.has(Step::WATCH_WRITE) && host.watch_write()? {
        host.queue(Dir::Write);
    }
    if step.has(Step::WATCH_READ) {
        let ready = host.watch_read()?;
        read_on(host, ready);
    }
    if step.has(Step::WATCH_HANGUP) {
        look_for_hangup(host)?;
    }
    if step.has(Step::PAUSE) {
        let called = host.pause_writing();
        contain(host, called, Culprit::Flow("pause_writing"))?;
    }
    if step.has(Step::RESUME) {
        let called = host.resume_writing();
        contain(host, called, Culprit::Flow("resume_writing"))?;
    }
    // An exit does not keep a stream from ending.
    let told = if step.has(Step::EOF) { deliver_eof(host) } else { Ok(()) };
    let drained = if step.has(Step::DRAINED) { host.tell_drained() } else { Ok(()) };
    let shut = if step.has(Step::SHUTDOWN) { host.file().and_then(|file| host.shut_down(file)) } else { Ok(()) };
    if step.has(Step::DISCARD) {
        drop(host.machine(Stream::take_discarded));
    }
    if step.has(Step::LOSE) {
        host.queue_lost()?;
    }
    told.and(drained).and(shut)
}

/// Sends what is queued, as much as the kernel takes. An exit keeps no byte back, nor what comes behind the last one.
fn flush<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let mut told = Ok(());
    loop {
        let file = match host.file() {
            Ok(file) => file,
            Err(error) => return told.and(fatal(host, error, Culprit::Write)),
        };
        // A callback may have flushed what was left.
        if host.machine(|machine| machine.buffered()) == 0 {
            break;
        }
        let (sent, offered) = match host.send_queued(file) {
            Ok(sent) => sent,
            Err(error) => return told.and(fatal(host, error, Culprit::Write)),
        };
        let (step, done) = host.machine(|machine| {
            let resume = machine.handle_sent(sent);
            if sent < offered {
                return (resume | machine.handle_blocked() | machine.poll_grown(), true);
            }
            (resume, machine.buffered() == 0)
        });
        // One step: whatever `resume_writing` raises, the watch is set before it.
        told = told.and(run_step(host, step));
        if done {
            break;
        }
    }
    let settled = host.machine(Stream::poll_settled);
    match run_step(host, settled) {
        // Nobody waits for this shutdown's outcome: a peer that is gone shows in the next event.
        Err(error) if host.os_errno(&error).is_some() => told,
        result => told.and(result),
    }
}

/// There may be more to read: next turn, so that others get theirs first.
fn read_on<H: Host>(host: &mut H, more: bool) {
    if more && host.machine(Stream::poll_read_on) {
        host.queue(Dir::Read);
    }
}

fn deliver_eof<H: Host>(host: &mut H) -> Result<(), H::Error> {
    match host.eof_received() {
        Ok(keep_open) => {
            let step = host.machine(|machine| machine.handle_eof_answer(keep_open));
            run_step(host, step)
        }
        Err(error) if host.is_exit(&error) => {
            let step = host.machine(Stream::handle_eof_untold);
            run_step(host, step).and(Err(error))
        }
        Err(error) => read_failed(host, error, "eof_received"),
    }
}

/// A callback of reading raised: the end of the connection, except where the kind survives that.
#[cold]
fn read_failed<H: Host>(host: &mut H, error: H::Error, callback: &'static str) -> Result<(), H::Error> {
    if host.machine(|machine| machine.policy().survives_data) && !host.is_exit(&error) {
        return host.report(&error, Culprit::Callback(callback));
    }
    fatal(host, error, Culprit::Fatal(callback))
}

/// The far end of a stream that is only written may be gone; if not, its end will show.
fn look_for_hangup<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if !host.machine(|machine| machine.policy().hangup_closes) || !host.watch_hangup() {
        return Ok(());
    }
    // What is coalesced was written before.
    uncork_before(host, Stream::handle_hangup)
}
