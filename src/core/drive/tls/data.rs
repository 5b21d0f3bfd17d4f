//! Plaintext and ciphertext: decrypting and handing out, encrypting and sending.

use super::{Culprit, Host, fatal, run_step};
use crate::core::tls::{FlowSignal, Outcome, Phase, Tls};

/// What one pass over the ciphertext yielded.
pub(super) struct Decrypted<H: Host> {
    first: Option<H::Bytes>,
    more: Vec<H::Bytes>,
    /// The peer's `close_notify` came.
    closed: bool,
    error: Option<H::Error>,
}

impl<H: Host> Decrypted<H> {
    pub(super) fn nothing() -> Self {
        Self { first: None, more: Vec::new(), closed: false, error: None }
    }

    fn push(&mut self, bytes: H::Bytes) {
        if self.first.is_none() {
            self.first = Some(bytes);
        } else {
            self.more.push(bytes);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed || self.error.is_some()
    }

    /// All of the plaintext.
    fn take(&mut self, host: &mut H) -> Result<Option<H::Bytes>, H::Error> {
        let Some(first) = self.first.take() else { return Ok(None) };
        if self.more.is_empty() {
            return Ok(Some(first));
        }
        host.join(first, std::mem::take(&mut self.more)).map(Some)
    }
}

// ---- reading

/// Decrypts what was fed, up to the beginning of a record that is not whole.
pub(super) fn decrypt<H: Host>(host: &mut H, found: &mut Decrypted<H>) {
    let (tail, mut more) = host.machine(|machine| (machine.tail(), machine.begin_read()));
    // More than a record has, or all that there is: what is read is less, and nothing is left behind, except of a record
    // that was compressed.
    let most = H::RECORD + 1;
    loop {
        let max = match host.unread() {
            Ok(_) if std::mem::take(&mut more) => most,
            Ok(unread) if unread > tail => unread.min(most),
            Ok(_) => return,
            Err(error) => return found.error = Some(error),
        };
        loop {
            match host.read(max) {
                Outcome::Done(bytes) if bytes.as_ref().is_empty() => return found.closed = true,
                Outcome::Done(bytes) => {
                    let full = bytes.as_ref().len() == max;
                    found.push(bytes);
                    if !full {
                        break;
                    }
                }
                Outcome::Again => return,
                Outcome::Failed(error) => return found.error = Some(error),
            }
        }
    }
}

/// Hands out what was found, and what else there is.
pub(super) fn hand_out<H: Host>(host: &mut H, mut found: Decrypted<H>) -> Result<(), H::Error> {
    let Some(protocol) = host.protocol() else { return Ok(()) };
    let hands_out = host.machine(|machine| machine.hands_out());
    if hands_out && H::lends_buffers(&protocol) {
        found = fill(host, &protocol)?;
    } else {
        if !found.is_over() && host.machine(|machine| machine.wants_read()) {
            decrypt(host, &mut found);
        }
        if let Some(bytes) = found.take(host)?
            && hands_out
            && let Err(error) = host.deliver(&protocol, bytes)
        {
            callback_failed(host, error)?;
        }
    }
    if let Some(error) = found.error {
        fatal(host, error, Culprit::Protocol)?;
    }
    if found.closed {
        let step = host.machine(Tls::handle_close_notify);
        run_step(host, step)?;
        let step = host.machine(Tls::close);
        run_step(host, step)?;
    }
    let unread = host.unread()?;
    let (step, signal) = host.machine(|machine| machine.end_read(unread));
    // Before the step, whose user code may change what there is to tell.
    tell_below(host, signal)?;
    run_step(host, step)
}

/// Decrypts into the protocol's buffer and tells it how much.
fn fill<H: Host>(host: &mut H, protocol: &H::Protocol) -> Result<Decrypted<H>, H::Error> {
    let mut found = Decrypted::nothing();
    if !host.machine(|machine| machine.wants_read()) {
        return Ok(found);
    }
    match fill_buffer(host, protocol, &mut found) {
        Ok(()) => Ok(found),
        Err(error) => callback_failed(host, error).map(|()| Decrypted::nothing()),
    }
}

fn fill_buffer<H: Host>(host: &mut H, protocol: &H::Protocol, found: &mut Decrypted<H>) -> Result<(), H::Error> {
    let unread = host.unread()?;
    let pending = host.pending()?;
    let (tail, _more) = host.machine(|machine| (machine.tail(), machine.begin_read()));
    if unread <= tail && pending == 0 {
        // No buffer is asked for in vain.
        return Ok(());
    }
    let (mut buffer, size) = host.get_buffer(protocol, unread + pending)?;
    let mut filled = 0;
    while filled < size {
        match host.read_into(&mut buffer, filled, size - filled) {
            Outcome::Done(0) => found.closed = true,
            Outcome::Done(n) => {
                filled += n;
                continue;
            }
            Outcome::Again => {}
            Outcome::Failed(error) => found.error = Some(error),
        }
        break;
    }
    drop(buffer);
    if filled == size {
        host.machine(Tls::handle_full);
        host.queue_resumed()?;
    }
    if filled > 0 { host.buffer_updated(protocol, filled) } else { Ok(()) }
}

/// The user's protocol raised: the end of the connection, unless it is for the stream below to handle.
#[cold]
pub(super) fn callback_failed<H: Host>(host: &mut H, error: H::Error) -> Result<(), H::Error> {
    if host.is_exception(&error) { fatal(host, error, Culprit::Protocol) } else { Err(error) }
}

pub(super) fn tell_below<H: Host>(host: &mut H, signal: FlowSignal) -> Result<(), H::Error> {
    let called = match signal {
        FlowSignal::Nothing => return Ok(()),
        FlowSignal::Pause => host.pause_below(),
        FlowSignal::Resume => host.resume_below(),
    };
    called.or_else(|error| fatal(host, error, Culprit::Protocol))
}

// ---- writing

/// Encrypts a write: up to where, and what ended it early.
pub(super) fn encrypt_at_once<H: Host>(host: &mut H, plain: &H::Plain) -> (usize, Option<H::Error>) {
    let len = plain.as_ref().len();
    let sliced = len > H::SLICE && host.machine(|machine| machine.may_send()) && host.below_takes_slices();
    let mut done = 0;
    loop {
        let end = if sliced { len.min(done + H::SLICE) } else { len };
        let (reached, error) = encrypt(host, plain, done, end);
        done = reached;
        if error.as_ref().is_some_and(|error| host.is_exit(error)) {
            // The connection lives on, and has this record.
            return (done + H::RECORD, error);
        }
        if error.is_some() || done < end || done == len {
            return (done, error);
        }
        match send_slice(host) {
            Ok(true) => {}
            Ok(false) => return (len, None),
            Err(error) => return (done, Some(error)),
        }
    }
}

/// Encrypts what of `plain` is between `done` and `end`, record by record, as much as the engine takes: up to where, and
/// what ended it early.
fn encrypt<H: Host>(host: &mut H, plain: &H::Plain, mut done: usize, end: usize) -> (usize, Option<H::Error>) {
    while done < end {
        match host.write(plain, done, end.min(done + H::RECORD)) {
            Outcome::Done(n) => done += n,
            Outcome::Again => break,
            Outcome::Failed(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Hands over the ciphertext of a part of a write: false when there is nobody any more to take the rest.
fn send_slice<H: Host>(host: &mut H) -> Result<bool, H::Error> {
    if !host.has_below() {
        return Ok(false);
    }
    let bytes = host.take()?;
    let sent = host.write_below(&bytes);
    sent.or_else(|error| fatal(host, error, Culprit::Protocol))?;
    let open = host.machine(|machine| matches!(machine.phase(), Phase::Wrapped | Phase::Flushing));
    Ok(open && !host.is_below_closing())
}

/// Encrypts what is queued.
pub(super) fn encrypt_queued<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if !host.machine(Tls::begin_write) {
        return Ok(());
    }
    let mut failure = None;
    while let Some(front) = host.front() {
        let len = front.as_ref().len();
        let (n, error) = encrypt(host, &front, 0, len);
        // What an exit broke off is written; behind any other error nothing is.
        let n = if error.is_some() { len } else { n };
        host.machine(|machine| machine.handle_written(n));
        if error.is_some() || n == 0 {
            failure = error;
            break;
        }
    }
    end_write(host, failure)
}

/// Sends what a write made of ciphertext, whatever ended it.
pub(super) fn end_write<H: Host>(host: &mut H, failure: Option<H::Error>) -> Result<(), H::Error> {
    let exits = failure.as_ref().is_some_and(|error| host.is_exit(error));
    let step = host.machine(|machine| machine.end_write(exits));
    let sent = run_step(host, step);
    match failure {
        Some(error) => sent.and(fatal(host, error, Culprit::Protocol)),
        None => sent,
    }
}

/// Hands ciphertext to the stream below, if that wants any.
///
/// # Errors
/// An exit, and what the stream below raises.
pub fn send<H: Host>(host: &mut H) -> Result<(), H::Error> {
    if host.machine(|machine| machine.may_send()) && host.has_below() {
        let bytes = host.take()?;
        if !bytes.as_ref().is_empty() {
            // Without it all that follows would be garbage to the peer.
            let sent = host.write_below(&bytes);
            sent.or_else(|error| fatal(host, error, Culprit::Protocol))?;
        }
    }
    // The stream below may have asked for a pause, and the user written.
    let (sends, paused) = host.machine(|machine| (machine.may_send(), machine.is_send_paused()));
    let held = if sends { 0 } else { host.held()? };
    let below = if paused { host.buffered_below()? } else { 0 };
    let signal = host.machine(|machine| machine.handle_taken(held, below));
    tell(host, signal)
}

/// What is buffered may call for a pause of the user's protocol.
pub(super) fn tell_buffered<H: Host>(host: &mut H) -> Result<(), H::Error> {
    let signal = host.machine(Tls::poll_buffered);
    tell(host, signal)
}

pub(super) fn tell<H: Host>(host: &mut H, signal: FlowSignal) -> Result<(), H::Error> {
    let (called, method) = match signal {
        FlowSignal::Nothing => return Ok(()),
        FlowSignal::Pause => (host.pause_writing(), "pause_writing"),
        FlowSignal::Resume => (host.resume_writing(), "resume_writing"),
    };
    match called {
        Err(error) if !host.is_exit(&error) => host.report_flow(&error, method),
        result => result,
    }
}
