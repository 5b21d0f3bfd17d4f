//! Plaintext and ciphertext of a [`TlsTransport`]: decrypting and handing out, encrypting and sending.

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use super::chunk::{self, Chunk};
use super::errors::passes_through;
use super::protocol::Protocol;
use super::stream::StreamTransport;
use super::tls::TlsTransport;
use super::tls_engine::RECORD;
use super::tls_io::TLS_ERROR;
use super::tls_lower::Lower;
use crate::core::tls::{Admit, Outcome, Phase, RecordEngine, Step, Told};

/// Ciphertext is fed in parts of this many bytes, so that the engine's buffers stay small.
const PART: usize = 2 * RECORD;

/// Of a longer write, parts of this many bytes are handed to the stream below one by one: the engine's buffer never gets
/// smaller, so that one huge write would cost its size for as long as the connection lives.
const SLICE: usize = 64 * RECORD;

/// What one pass over the ciphertext yielded.
#[derive(Default)]
struct Yield<'py> {
    first: Option<Bound<'py, PyBytes>>,
    more: Vec<Bound<'py, PyBytes>>,
    /// The peer's `close_notify` came.
    closed: bool,
    error: Option<PyErr>,
}

impl<'py> Yield<'py> {
    fn push(&mut self, bytes: Bound<'py, PyBytes>) {
        if self.first.is_none() {
            self.first = Some(bytes);
        } else {
            self.more.push(bytes);
        }
    }

    fn is_over(&self) -> bool {
        self.closed || self.error.is_some()
    }

    /// All of the plaintext.
    fn take(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(first) = self.first.take() else { return Ok(None) };
        if self.more.is_empty() {
            return Ok(Some(first));
        }
        let mut parts = vec![first];
        parts.append(&mut self.more);
        chunk::joined(py, parts).map(Some)
    }
}

impl TlsTransport {
    /// Ciphertext came.
    pub fn handle_ciphertext(slf: &Bound<'_, Self>, data: &[u8]) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let engine = this.engine.bind(py);
        let mut found = Yield::default();
        for part in data.chunks(PART) {
            if let Err(error) = engine.feed(part) {
                return Self::fatal(slf, error, TLS_ERROR);
            }
            let pass = this.state.with(py, |state| {
                state.records.handle_fed(part);
                let plain = state.protocol.as_ref().is_some_and(|protocol| !protocol.buffered);
                plain && state.machine.wants_read()
            });
            if pass && !found.is_over() {
                Self::decrypt(slf, &mut found);
            }
        }
        let step = this.state.with(py, |state| state.machine.handle_fed());
        if step.has(Step::READ) {
            Self::hand_out(slf, found)?;
            return Self::step(
                slf,
                |state| if step.has(Step::FLUSHED) { state.machine.begin_unwrap() } else { Step::NONE },
            );
        }
        Self::run_step(slf, step)
    }

    // ---- reading

    /// Decrypts what was fed, up to the beginning of a record that is not whole.
    fn decrypt<'py>(slf: &Bound<'py, Self>, found: &mut Yield<'py>) {
        let (py, this) = (slf.py(), slf.get());
        let engine = this.engine.bind(py);
        let (tail, mut more) = this.state.with(py, |state| (state.records.tail(), state.machine.begin_read()));
        loop {
            // More than a record has, or all that there is: what is read is less, and nothing is left behind, except of a
            // record that was compressed.
            let max = match engine.unread() {
                Ok(_) if std::mem::take(&mut more) => RECORD + 1,
                Ok(unread) if unread > tail => unread.min(RECORD + 1),
                Ok(_) => return,
                Err(error) => return found.error = Some(error),
            };
            loop {
                match engine.read(max) {
                    Outcome::Done(bytes) if bytes.as_bytes().is_empty() => return found.closed = true,
                    Outcome::Done(bytes) => {
                        let full = bytes.as_bytes().len() == max;
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

    /// Decrypts and hands out.
    pub fn read(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::hand_out(slf, Yield::default())
    }

    /// Hands out what was found, and what else there is.
    fn hand_out<'py>(slf: &Bound<'py, Self>, mut found: Yield<'py>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let Some(protocol) = this.protocol_ref(py) else { return Ok(()) };
        let hands_out = this.state.with(py, |state| state.machine.hands_out());
        if protocol.buffered && hands_out {
            found = Self::fill(slf, &protocol)?;
        } else {
            if !found.is_over() && this.state.with(py, |state| state.machine.wants_read()) {
                Self::decrypt(slf, &mut found);
            }
            if let Some(bytes) = found.take(py)?
                && hands_out
            {
                Self::deliver(slf, &protocol, bytes).or_else(|error| Self::callback_failed(slf, error))?;
            }
        }
        if let Some(error) = found.error {
            Self::fatal(slf, error, TLS_ERROR)?;
        }
        if found.closed {
            Self::step(slf, |state| state.machine.handle_close_notify())?;
            Self::step(slf, |state| state.machine.close())?;
        }
        let unread = this.engine.bind(py).unread()?;
        let (step, told) = this.state.with(py, |state| state.machine.end_read(unread));
        // User code that the step runs may have more told.
        Self::tell_lower(slf, told)?;
        Self::run_step(slf, step)
    }

    fn deliver<'py>(slf: &Bound<'py, Self>, protocol: &Protocol, bytes: Bound<'py, PyBytes>) -> PyResult<()> {
        let py = slf.py();
        match &protocol.tls {
            Some(inner) => Self::handle_ciphertext(inner.bind(py), bytes.as_bytes()),
            None => protocol.call1(intern!(py, "data_received"), bytes.into_any()).map(drop),
        }
    }

    /// Decrypts into the protocol's buffer and tells it how much.
    fn fill<'py>(slf: &Bound<'py, Self>, protocol: &Protocol) -> PyResult<Yield<'py>> {
        let (py, this) = (slf.py(), slf.get());
        let mut found = Yield::default();
        if !this.state.with(py, |state| state.machine.wants_read()) {
            return Ok(found);
        }
        match Self::fill_buffer(slf, protocol, &mut found) {
            Ok(()) => Ok(found),
            Err(error) => Self::callback_failed(slf, error).map(|()| Yield::default()),
        }
    }

    fn fill_buffer<'py>(slf: &Bound<'py, Self>, protocol: &Protocol, found: &mut Yield<'py>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let engine = this.engine.bind(py);
        let unread = engine.unread()?;
        let pending = engine.pending()?;
        let (tail, _more) = this.state.with(py, |state| (state.records.tail(), state.machine.begin_read()));
        if unread <= tail && pending == 0 {
            // No buffer is asked for in vain.
            return Ok(());
        }
        let hint = (unread + pending).into_pyobject(py)?.into_any();
        let view = PyMemoryView::from(&protocol.call1(intern!(py, "get_buffer"), hint)?)?;
        let view = view.call_method1(intern!(py, "cast"), ("B",))?.cast_into::<PyMemoryView>()?;
        let size = view.len()?;
        if size == 0 {
            return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
        }
        let mut filled = 0;
        while filled < size {
            match engine.read_into(&view, filled, size - filled) {
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
        drop(view);
        if filled == size && !found.is_over() {
            this.state.with(py, |state| state.machine.handle_full());
            let resumed = slf.getattr(intern!(py, "_resumed"))?;
            this.owner.bind(py).call_method1(intern!(py, "call_soon"), (resumed,))?;
        }
        if filled > 0 {
            protocol.call1(intern!(py, "buffer_updated"), filled.into_pyobject(py)?.into_any())?;
        }
        Ok(())
    }

    /// The user's protocol raised: the end of the connection, unless it is for the stream below to handle.
    fn callback_failed(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        if error.is_instance_of::<PyException>(slf.py()) { Self::fatal(slf, error, TLS_ERROR) } else { Err(error) }
    }

    /// What of the ciphertext is unread may call for a pause of the stream below.
    pub fn tell_unread(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let unread = this.engine.bind(py).unread()?;
        let told = this.state.with(py, |state| state.machine.poll_unread(unread));
        Self::tell_lower(slf, told)
    }

    fn tell_lower(slf: &Bound<'_, Self>, told: Told) -> PyResult<()> {
        let py = slf.py();
        let method = match told {
            Told::Nothing => return Ok(()),
            Told::Pause => intern!(py, "pause_reading"),
            Told::Resume => intern!(py, "resume_reading"),
        };
        let Some(lower) = slf.get().lower(py) else { return Ok(()) };
        let told = lower.object(py).bind(py).call_method0(method).map(drop);
        told.or_else(|error| Self::fatal(slf, error, TLS_ERROR))
    }

    // ---- writing

    pub fn write_now(slf: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        match this.state.with(py, |state| state.machine.admit()) {
            Admit::Encrypt => {
                let (done, error) = Self::encrypt_at_once(slf, &data);
                let lives = error.as_ref().is_none_or(|error| passes_through(py, error));
                if done < data.as_bytes().len() && lives {
                    Self::step(slf, |state| state.machine.enqueue_rest(Chunk::from(data), done))?;
                }
                let step = this.state.with(py, |state| state.machine.end_write());
                let sent = Self::run_step(slf, step);
                match error {
                    Some(error) => sent.and(Self::fatal(slf, error, TLS_ERROR)),
                    None => sent,
                }
            }
            Admit::Queue => {
                Self::queue(slf, data)?;
                Self::tell_buffered(slf)
            }
            Admit::Drop { warn: false } => Ok(()),
            Admit::Drop { warn: true } => this.owner.bind(py).call_method0(intern!(py, "_warn_closed_tls")).map(drop),
        }
    }

    /// Encrypts a write: up to where, and what ended it early.
    fn encrypt_at_once<'py>(slf: &Bound<'py, Self>, data: &Bound<'py, PyBytes>) -> (usize, Option<PyErr>) {
        let (py, this, len) = (slf.py(), slf.get(), data.as_bytes().len());
        let engine = this.engine.bind(py);
        let sliced = len > SLICE
            && this.state.with(py, |state| state.machine.may_send() && matches!(state.lower, Some(Lower::Stream(_))));
        let mut done = 0;
        loop {
            let end = if sliced { len.min(done + SLICE) } else { len };
            let (reached, error) = if sliced { engine.write_part(data, done, end) } else { engine.write_all(data) };
            done = reached;
            if error.as_ref().is_some_and(|error| passes_through(py, error)) {
                // The connection lives on, and Python looks for signals when OpenSSL has taken a part.
                return (done + RECORD, error);
            }
            if error.is_some() || done < end || done == len {
                return (done, error);
            }
            match Self::send_slice(slf) {
                Ok(true) => {}
                Ok(false) => return (len, None),
                Err(error) => return (done, Some(error)),
            }
        }
    }

    /// Hands over the ciphertext of a part of a write: false when there is nobody any more to take the rest.
    fn send_slice(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let Some(Lower::Stream(stream)) = this.lower(py) else { return Ok(false) };
        let bytes = this.engine.bind(py).take()?;
        let sent = StreamTransport::write_now(stream.bind(py), bytes.as_any());
        sent.or_else(|error| Self::fatal(slf, error, TLS_ERROR))?;
        let open = this.state.with(py, |state| matches!(state.machine.phase(), Phase::Wrapped | Phase::Flushing));
        Ok(open && !stream.get().is_closing_now(py))
    }

    fn queue(slf: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        Self::step(slf, |state| state.machine.enqueue(Chunk::from(data)))
    }

    /// Encrypts what is queued.
    pub fn encrypt(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if !this.state.with(py, |state| state.machine.begin_write()) {
            return Ok(());
        }
        let engine = this.engine.bind(py);
        let mut failure = None;
        loop {
            // A copy: user code that the engine runs may change the queue.
            let front = this.state.with(py, |state| {
                state.machine.backlog().next().map(|front| PyBytes::new(py, &front[..front.len().min(RECORD)]))
            });
            let Some(front) = front else { break };
            match engine.write_all(&front) {
                (_, Some(error)) => {
                    if passes_through(py, &error) {
                        let n = front.as_bytes().len();
                        this.state.with(py, |state| state.machine.handle_written(n));
                    }
                    failure = Some(error);
                }
                (0, None) => {}
                (n, None) => {
                    this.state.with(py, |state| state.machine.handle_written(n));
                    continue;
                }
            }
            break;
        }
        let step = this.state.with(py, |state| state.machine.end_write());
        let sent = Self::run_step(slf, step);
        match failure {
            Some(error) => sent.and(Self::fatal(slf, error, TLS_ERROR)),
            None => sent,
        }
    }

    /// Hands ciphertext to the stream below, if that wants any.
    pub fn send(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let engine = this.engine.bind(py);
        let lower = this.state.with(py, |state| match &state.lower {
            Some(lower) if state.machine.may_send() => Some(lower.clone_ref(py)),
            _ => None,
        });
        if let Some(lower) = &lower {
            let bytes = engine.take()?;
            if !bytes.as_bytes().is_empty() {
                // Without it all that follows would be garbage to the peer.
                lower.write(&bytes).or_else(|error| Self::fatal(slf, error, TLS_ERROR))?;
            }
        }
        // The stream below may have asked for a pause, and the user written.
        let held = if this.state.with(py, |state| state.machine.may_send()) { 0 } else { engine.held()? };
        let below = this.buffered_below(py)?;
        let told = this.state.with(py, |state| state.machine.handle_taken(held, below));
        Self::tell(slf, told)
    }

    /// What the stream below has buffered, bytes, if it asked for a pause: what is coalesced does not count.
    fn buffered_below(&self, py: Python<'_>) -> PyResult<usize> {
        let lower = self.state.with(py, |state| match &state.lower {
            Some(lower) if state.machine.is_send_paused() => Some(lower.clone_ref(py)),
            _ => None,
        });
        lower.map_or(Ok(0), |lower| lower.buffered(py))
    }

    pub fn handle_paused(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let below = this.lower(py).map_or(Ok(0), |lower| lower.buffered(py))?;
        let told = this.state.with(py, |state| state.machine.handle_paused(below));
        Self::tell(slf, told)
    }

    /// What is buffered may call for a pause of the user's protocol.
    pub fn tell_buffered(slf: &Bound<'_, Self>) -> PyResult<()> {
        let told = slf.get().state.with(slf.py(), |state| state.machine.poll_buffered());
        Self::tell(slf, told)
    }

    fn tell(slf: &Bound<'_, Self>, told: Told) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (method, message) = match told {
            Told::Nothing => return Ok(()),
            Told::Pause => (intern!(py, "pause_writing"), "protocol.pause_writing() failed"),
            Told::Resume => (intern!(py, "resume_writing"), "protocol.resume_writing() failed"),
        };
        let Some(protocol) = this.protocol_ref(py) else { return Ok(()) };
        match protocol.call0(method) {
            Ok(_) => Ok(()),
            Err(error) if passes_through(py, &error) => Err(error),
            Err(error) => Self::report(slf, message, &error),
        }
    }
}
