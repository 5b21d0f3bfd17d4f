//! A [`TlsTransport`] as the surroundings of its driver, `core::drive::tls`: its engine, the stream below, its
//! protocol.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python: the engine runs
//! user code (callbacks of the context), and lets other threads run.
//!
//! What asyncio does with exceptions: what the engine raises, or the user's protocol in `data_received`, ends the
//! connection; an `OSError` (`ssl.SSLError` is one) is logged in debug mode only, anything else is reported. What
//! `connection_made` raises is the stream's to handle.

use pyo3::exceptions::{
    PyConnectionAbortedError, PyConnectionResetError, PyException, PyOSError, PyRuntimeError, PyTimeoutError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyMemoryView, PyType};

use super::TlsTransport;
use super::engine::{Plain, RECORD, ssl_class};
use super::lower::Lower;
use crate::core::drive::tls::{Culprit, Host};
use crate::core::tls::{Outcome, RecordEngine, Tls};
use crate::log_debug;
use crate::py::chunk::{self, Chunk};
use crate::py::errors::is_exit;
use crate::py::event_loop::waiter::resolve;
use crate::py::transport::Connection;
use crate::py::transport::protocol::Protocol;

impl<'py> RecordEngine for &Bound<'py, TlsTransport> {
    type Error = PyErr;
    type Bytes = Bound<'py, PyBytes>;

    fn feed(&mut self, ciphertext: &[u8]) -> PyResult<()> {
        self.get().engine.bind(self.py()).feed(ciphertext)
    }

    fn handshake(&mut self) -> Outcome<(), PyErr> {
        self.get().engine.bind(self.py()).handshake()
    }

    fn read(&mut self, max: usize) -> Outcome<Bound<'py, PyBytes>, PyErr> {
        self.get().engine.bind(self.py()).read(max)
    }

    fn shutdown(&mut self) -> Outcome<(), PyErr> {
        self.get().engine.bind(self.py()).shutdown()
    }

    fn unread(&mut self) -> PyResult<usize> {
        self.get().engine.bind(self.py()).unread()
    }

    fn pending(&mut self) -> PyResult<usize> {
        self.get().engine.bind(self.py()).pending()
    }

    fn take(&mut self) -> PyResult<Bound<'py, PyBytes>> {
        self.get().engine.bind(self.py()).take()
    }

    fn held(&mut self) -> PyResult<usize> {
        self.get().engine.bind(self.py()).held()
    }
}

impl<'py> Host for &Bound<'py, TlsTransport> {
    type Chunk = Chunk;
    type Plain = Plain<'py>;
    type Protocol = Protocol;
    type Buffer = Bound<'py, PyMemoryView>;
    type Waiter = Py<PyAny>;

    const RECORD: usize = RECORD;

    #[inline]
    fn machine<R>(&mut self, f: impl FnOnce(&mut Tls<Chunk>) -> R) -> R {
        self.get().state.with(self.py(), |state| f(&mut state.machine))
    }

    // ---- errors

    fn is_exit(&self, error: &PyErr) -> bool {
        is_exit(self.py(), error)
    }

    fn is_exception(&self, error: &PyErr) -> bool {
        error.is_instance_of::<PyException>(self.py())
    }

    fn report_fatal(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        static CANCELLED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = self.py();
        let message = match culprit {
            Culprit::Handshake => handshake_message(py, error)?,
            Culprit::Protocol => "Fatal error on SSL protocol",
            Culprit::Eof => "Error calling eof_received()",
            Culprit::Transport => "Fatal error on transport",
        };
        if error.is_instance_of::<PyOSError>(py) {
            return TlsTransport::log_fatal(self, message, error);
        }
        if error.is_instance(py, CANCELLED.import(py, "asyncio", "CancelledError")?) {
            return Ok(());
        }
        TlsTransport::report(self, message, error)
    }

    fn report_flow(&mut self, error: &PyErr, method: &'static str) -> PyResult<()> {
        TlsTransport::report(self, &format!("protocol.{method}() failed"), error)
    }

    fn reset_error(&mut self) -> PyErr {
        PyConnectionResetError::new_err(())
    }

    fn handshake_overdue(&mut self) -> PyResult<PyErr> {
        let seconds = self.get().timeouts.handshake.bind(self.py()).str()?;
        let message = format!("SSL handshake is taking longer than {seconds} seconds: aborting the connection");
        Ok(PyConnectionAbortedError::new_err(message))
    }

    fn shutdown_overdue(&mut self) -> PyErr {
        PyTimeoutError::new_err("SSL shutdown timed out")
    }

    // ---- the engine, besides

    fn read_into(&mut self, buffer: &mut Bound<'py, PyMemoryView>, offset: usize, max: usize) -> Outcome<usize, PyErr> {
        self.get().engine.bind(self.py()).read_into(buffer, offset, max)
    }

    fn write(&mut self, plain: &Plain<'py>, from: usize, to: usize) -> Outcome<usize, PyErr> {
        self.get().engine.bind(self.py()).write(plain, from, to)
    }

    fn front(&mut self) -> Option<Plain<'py>> {
        let py = self.py();
        self.get().state.with(py, |state| {
            state.machine.backlog().next().map(|front| PyBytes::new(py, &front[..front.len().min(RECORD)]).into())
        })
    }

    fn join(&mut self, first: Bound<'py, PyBytes>, more: Vec<Bound<'py, PyBytes>>) -> PyResult<Bound<'py, PyBytes>> {
        let mut parts = vec![first];
        parts.extend(more);
        chunk::joined(self.py(), parts)
    }

    // ---- the stream below

    fn has_below(&mut self) -> bool {
        self.get().state.with(self.py(), |state| state.lower.is_some())
    }

    fn below_takes_slices(&mut self) -> bool {
        self.get().state.with(self.py(), |state| matches!(state.lower, Some(Lower::Stream(_))))
    }

    fn is_below_closing(&mut self) -> bool {
        let py = self.py();
        match self.get().lower(py) {
            Some(Lower::Stream(stream)) => stream.get().base.state.with(py, |state| state.machine.is_closing()),
            _ => false,
        }
    }

    fn buffered_below(&mut self) -> PyResult<usize> {
        let py = self.py();
        self.get().lower(py).map_or(Ok(0), |lower| lower.buffered(py))
    }

    fn write_below(&mut self, ciphertext: &Bound<'py, PyBytes>) -> PyResult<()> {
        self.get().lower(self.py()).map_or(Ok(()), |lower| lower.write(ciphertext))
    }

    fn uncork_below(&mut self) -> PyResult<()> {
        let py = self.py();
        self.get().lower(py).map_or(Ok(()), |lower| lower.uncork(py))
    }

    fn limit_below(&mut self, high: usize, low: usize) -> PyResult<()> {
        let py = self.py();
        self.get().lower(py).map_or(Ok(()), |lower| lower.limit(py, high, low))
    }

    fn pause_below(&mut self) -> PyResult<()> {
        call_below(self, "pause_reading")
    }

    fn resume_below(&mut self) -> PyResult<()> {
        call_below(self, "resume_reading")
    }

    fn close_below(&mut self) -> PyResult<()> {
        call_below(self, "close")
    }

    fn abort_below(&mut self, error: Option<&PyErr>) -> PyResult<()> {
        let py = self.py();
        let Some(lower) = self.get().lower(py) else { return Ok(()) };
        let lower = lower.object(py).into_bound(py);
        match error {
            Some(error) if lower.hasattr(intern!(py, "_force_close"))? => {
                lower.call_method1(intern!(py, "_force_close"), (error.value(py),)).map(drop)
            }
            _ => lower.call_method0(intern!(py, "abort")).map(drop),
        }
    }

    // ---- the protocol above

    fn protocol(&mut self) -> Option<Protocol> {
        self.get().protocol_ref(self.py())
    }

    fn takes_bytes(&mut self) -> bool {
        self.get().state.with(self.py(), |state| state.protocol.as_ref().is_some_and(|protocol| !protocol.buffered))
    }

    fn lends_buffers(protocol: &Protocol) -> bool {
        protocol.buffered
    }

    fn deliver(&mut self, protocol: &Protocol, plaintext: Bound<'py, PyBytes>) -> PyResult<()> {
        let py = self.py();
        match protocol.feed {
            Some(feed) => feed(protocol.object.bind(py), plaintext.as_bytes()),
            None => protocol.call1(intern!(py, "data_received"), plaintext.into_any()).map(drop),
        }
    }

    fn get_buffer(&mut self, protocol: &Protocol, hint: usize) -> PyResult<(Bound<'py, PyMemoryView>, usize)> {
        let py = self.py();
        let hint = hint.into_pyobject(py)?.into_any();
        let view = PyMemoryView::from(&protocol.call1(intern!(py, "get_buffer"), hint)?)?;
        let view = view.call_method1(intern!(py, "cast"), ("B",))?.cast_into::<PyMemoryView>()?;
        match view.len()? {
            0 => Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer")),
            size => Ok((view, size)),
        }
    }

    fn buffer_updated(&mut self, protocol: &Protocol, n: usize) -> PyResult<()> {
        let py = self.py();
        protocol.call1(intern!(py, "buffer_updated"), n.into_pyobject(py)?.into_any()).map(drop)
    }

    fn connection_made(&mut self) -> PyResult<()> {
        log_debug!("made over TLS");
        let py = self.py();
        let Some(protocol) = self.protocol() else { return Ok(()) };
        protocol.call1(intern!(py, "connection_made"), (*self).clone().into_any()).map(drop)
    }

    fn eof_received(&mut self) -> PyResult<bool> {
        log_debug!("eof over TLS");
        let py = self.py();
        let Some(protocol) = self.protocol() else { return Ok(false) };
        protocol.call0(intern!(py, "eof_received"))?.is_truthy()
    }

    fn pause_writing(&mut self) -> PyResult<()> {
        let py = self.py();
        self.protocol().map_or(Ok(()), |protocol| protocol.call0(intern!(py, "pause_writing")).map(drop))
    }

    fn resume_writing(&mut self) -> PyResult<()> {
        let py = self.py();
        self.protocol().map_or(Ok(()), |protocol| protocol.call0(intern!(py, "resume_writing")).map(drop))
    }

    fn queue_lost(&mut self) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        let Some(protocol) = self.protocol() else { return Ok(()) };
        let lost = protocol.object.bind(py).getattr(intern!(py, "connection_lost"))?;
        let exc = this.state.with(py, |state| state.error.as_ref().map(|error| error.clone_ref(py)));
        this.owner.bind(py).call_method1(intern!(py, "call_soon"), (lost, exc)).map(drop)
    }

    // ---- others

    fn unwatch(&mut self) -> PyResult<()> {
        let py = self.py();
        let timer = self.get().state.with(py, |state| state.timer.take());
        timer.map_or(Ok(()), |timer| timer.bind(py).call_method0(intern!(py, "cancel")).map(drop))
    }

    fn watch_handshake(&mut self) -> PyResult<()> {
        TlsTransport::start_timeout(self, &self.get().timeouts.handshake, "_handshake_overdue")
    }

    fn watch_shutdown(&mut self) -> PyResult<()> {
        TlsTransport::start_timeout(self, &self.get().timeouts.shutdown, "_shutdown_overdue")
    }

    fn queue_resumed(&mut self) -> PyResult<()> {
        let py = self.py();
        let resumed = self.getattr(intern!(py, "_resumed"))?;
        self.get().owner.bind(py).call_method1(intern!(py, "call_soon"), (resumed,)).map(drop)
    }

    fn note_peer(&mut self) -> PyResult<()> {
        self.get().note_peer(self.py())
    }

    fn take_waiter(&mut self) -> Option<Py<PyAny>> {
        self.get().state.with(self.py(), |state| state.waiter.take())
    }

    fn wake(&mut self, waiter: Py<PyAny>, error: Option<&PyErr>) -> PyResult<()> {
        resolve(waiter.bind(self.py()), error)
    }

    fn warn_kept_open(&mut self) -> PyResult<()> {
        let py = self.py();
        self.get().owner.bind(py).call_method0(intern!(py, "_warn_tls_kept_open")).map(drop)
    }

    fn warn_closed(&mut self) -> PyResult<()> {
        let py = self.py();
        self.get().owner.bind(py).call_method0(intern!(py, "_warn_closed_tls")).map(drop)
    }
}

fn handshake_message(py: Python<'_>, error: &PyErr) -> PyResult<&'static str> {
    static CERTIFICATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let certificate = ssl_class(py, &CERTIFICATE, "CertificateError")?;
    Ok(if error.is_instance(py, &certificate) {
        "SSL handshake failed on verifying the certificate"
    } else {
        "SSL handshake failed"
    })
}

fn call_below(slf: &Bound<'_, TlsTransport>, method: &str) -> PyResult<()> {
    let py = slf.py();
    let lower = slf.get().lower(py);
    lower.map_or(Ok(()), |lower| lower.object(py).bind(py).call_method0(method).map(drop))
}
