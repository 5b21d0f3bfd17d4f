//! The life of a [`TlsTransport`]: what the stream below says, and carrying out the steps of `core::tls`.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python: the engine runs user
//! code (callbacks of the context), and lets other threads run.
//!
//! What asyncio does with exceptions: what the engine raises, or the user's protocol in `data_received`, ends the connection;
//! an `OSError` (`ssl.SSLError` is one) is logged in debug mode only, anything else is reported. What `connection_made`
//! raises is the stream's to handle.

use std::any::Any;

use pyo3::exceptions::{PyConnectionAbortedError, PyConnectionResetError, PyOSError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::errors::{passes_through, report};
use super::protocol::Protocol;
use super::tls::TlsTransport;
use super::tls_engine::ssl_class;
use super::tls_lower::Lower;
use super::waiter::settle;
use crate::core::tls::{Outcome, Phase, RecordEngine, Step};
use crate::log_debug;

pub const TLS_ERROR: &str = "Fatal error on SSL protocol";

impl TlsTransport {
    pub fn step(slf: &Bound<'_, Self>, f: impl FnOnce(&mut super::tls::State) -> Step) -> PyResult<()> {
        let step = slf.get().state.with(slf.py(), f);
        Self::run_step(slf, step)
    }

    pub fn lower(&self, py: Python<'_>) -> Option<Lower> {
        self.state.with(py, |state| state.lower.as_ref().map(|lower| lower.clone_ref(py)))
    }

    pub fn protocol_ref(&self, py: Python<'_>) -> Option<Protocol> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    // ---- the stream below

    pub fn handle_made(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let lower = Lower::new(transport);
        let paused = if lower.is_write_paused(py)? { Some(lower.buffered(py)?) } else { None };
        let (step, old) = slf.get().state.with(py, |state| {
            let old = state.lower.replace(lower);
            if let Some(below) = paused {
                state.machine.inherit_pause(below);
            }
            (state.machine.handle_made(), old)
        });
        drop(old);
        Self::run_step(slf, step)
    }

    pub fn handle_end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let step = slf.get().state.with(slf.py(), |state| state.machine.handle_end());
        match step {
            Some(step) => Self::run_step(slf, step),
            None => Self::handshake_failed(slf, PyConnectionResetError::new_err(())),
        }
    }

    pub fn handle_unpaused(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::step(slf, |state| state.machine.handle_unpaused())
    }

    pub fn handle_lost(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let error = (!exc.is_none()).then(|| PyErr::from_value(exc.clone()).into_value(py));
        let (step, old) =
            this.state.with(py, |state| (state.machine.handle_lost(), std::mem::replace(&mut state.error, error)));
        drop(old);
        let result = Self::run_step(slf, step);
        let (waiter, error, rest) = this.state.with(py, |state| {
            (state.waiter.take(), state.error.take(), (state.lower.take(), state.protocol.take(), state.below.take()))
        });
        drop(rest);
        let error = error.map(|error| PyErr::from_value(error.into_bound(py).into_any()));
        result.and(Self::wake(py, waiter.as_ref(), error.as_ref()))
    }

    // ---- the handshake

    fn handshake(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        match this.engine.bind(py).handshake() {
            Outcome::Again => Self::step(slf, |state| state.machine.handle_handshake(false)),
            Outcome::Done(()) => match this.note_peer(py) {
                Ok(()) => Self::step(slf, |state| state.machine.handle_handshake(true)),
                Err(error) => Self::handshake_failed(slf, error),
            },
            Outcome::Failed(error) => Self::handshake_failed(slf, error),
        }
    }

    /// What `get_extra_info` tells once the handshake is done.
    fn note_peer(&self, py: Python<'_>) -> PyResult<()> {
        let object = self.engine.object.bind(py);
        let peercert = object.call_method0(intern!(py, "getpeercert"))?;
        let cipher = object.call_method0(intern!(py, "cipher"))?;
        let compression = object.call_method0(intern!(py, "compression"))?;
        let extra = self.state.with(py, |state| state.extra.as_ref().map(|extra| extra.clone_ref(py)));
        let Some(extra) = extra.as_ref().map(|extra| extra.bind(py)) else { return Ok(()) };
        extra.set_item(intern!(py, "peercert"), peercert)?;
        extra.set_item(intern!(py, "cipher"), cipher)?;
        extra.set_item(intern!(py, "compression"), compression)?;
        extra.set_item(intern!(py, "ssl_object"), object)
    }

    fn handshake_failed(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        static CERTIFICATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        if passes_through(py, &error) {
            return Err(error);
        }
        if !this.state.with(py, |state| state.machine.fail_handshake()) {
            return Ok(());
        }
        let certificate = ssl_class(py, &CERTIFICATE, "CertificateError")?;
        let message = if error.is_instance(py, &certificate) {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        // The alert that tells the peer why.
        let told = Self::send(slf);
        let waiter = this.state.with(py, |state| state.waiter.take());
        let cause = error.clone_ref(py);
        let result = told.and(Self::fatal(slf, error, message));
        result.and(Self::wake(py, waiter.as_ref(), Some(&cause)))
    }

    pub fn handle_handshake_overdue(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if this.state.with(py, |state| state.machine.phase()) != Phase::Handshake {
            return Ok(());
        }
        let seconds = this.timeouts.handshake.bind(py).str()?;
        let message = format!("SSL handshake is taking longer than {seconds} seconds: aborting the connection");
        Self::fatal(slf, PyConnectionAbortedError::new_err(message), "Fatal error on transport")
    }

    pub fn handle_shutdown_overdue(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if !this.state.with(py, |state| state.machine.is_shutdown_overdue()) {
            return Ok(());
        }
        Self::abort_lower(slf, Some(PyTimeoutError::new_err("SSL shutdown timed out")))
    }

    /// Tells who waits for the handshake.
    fn wake(py: Python<'_>, waiter: Option<&Py<PyAny>>, error: Option<&PyErr>) -> PyResult<()> {
        waiter.map_or(Ok(()), |waiter| settle(waiter.bind(py), error))
    }

    // ---- the end

    fn shut_down(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().engine.bind(slf.py()).shutdown() {
            Outcome::Done(()) => Self::step(slf, |state| state.machine.handle_unwrapped(true)),
            Outcome::Again => Self::step(slf, |state| state.machine.handle_unwrapped(false)),
            Outcome::Failed(error) => Self::fatal(slf, error, "Fatal error on transport"),
        }
    }

    fn deliver_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        log_debug!("eof over TLS");
        let Some(protocol) = this.protocol_ref(py) else { return Ok(()) };
        match protocol.call0(intern!(py, "eof_received")).and_then(|keep_open| keep_open.is_truthy()) {
            Ok(false) => Ok(()),
            Ok(true) => this.owner.bind(py).call_method0(intern!(py, "_warn_tls_kept_open")).map(drop),
            Err(error) => Self::fatal(slf, error, "Error calling eof_received()"),
        }
    }

    /// Ends the connection at once, without `close_notify`.
    pub fn abort_with(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let step = slf.get().state.with(slf.py(), |state| state.machine.abort());
        if step.has(Step::ABORT) { Self::abort_lower(slf, error) } else { Ok(()) }
    }

    fn abort_lower(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = slf.py();
        slf.get().state.with(py, |state| state.machine.handle_aborted());
        let Some(lower) = slf.get().lower(py) else { return Ok(()) };
        let lower = lower.object(py);
        let lower = lower.bind(py);
        match error {
            Some(error) if lower.hasattr(intern!(py, "_force_close"))? => {
                lower.call_method1(intern!(py, "_force_close"), (error.value(py),)).map(drop)
            }
            _ => lower.call_method0(intern!(py, "abort")).map(drop),
        }
    }

    /// Ends the connection because of an exception: reports it, unless the network or the peer is to blame, and aborts.
    ///
    /// # Errors
    /// The exception itself when it passes through the loop.
    pub fn fatal(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        static CANCELLED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        if passes_through(py, &error) {
            return Err(error);
        }
        let result = Self::abort_lower(slf, Some(error.clone_ref(py)));
        let told = if error.is_instance_of::<PyOSError>(py) {
            if this.owner.get().is_debug() {
                let logged = (slf, message, error.value(py));
                this.owner.bind(py).call_method1(intern!(py, "_log_fatal"), logged).map(drop)
            } else {
                Ok(())
            }
        } else if error.is_instance(py, CANCELLED.import(py, "asyncio", "CancelledError")?) {
            Ok(())
        } else {
            Self::report(slf, message, &error)
        };
        result.and(told)
    }

    /// A panic of ours: reported, and the connection aborted.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn panicked(slf: &Bound<'_, Self>, payload: &(dyn Any + Send)) -> PyResult<()> {
        let error = super::errors::panic_error(payload);
        let result = Self::report(slf, super::errors::PANIC, &error);
        result.and(Self::abort_lower(slf, Some(error)))
    }

    pub fn report(slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let more = [
            ("transport", Some(slf.clone().into_any())),
            ("protocol", this.protocol_ref(py).map(|protocol| protocol.object.into_bound(py))),
        ];
        report(this.owner.bind(py), message, Some(error), &more)
    }

    // ---- steps

    /// Carries out a step, in the order of its flags.
    ///
    /// # Errors
    /// What passes through the loop, and what is for the stream below to handle.
    pub fn run_step(slf: &Bound<'_, Self>, step: Step) -> PyResult<()> {
        if step.is_none() {
            return Ok(());
        }
        let (py, this) = (slf.py(), slf.get());
        if step.has(Step::UNWATCH)
            && let Some(timer) = this.state.with(py, |state| state.timer.take())
        {
            timer.bind(py).call_method0(intern!(py, "cancel"))?;
        }
        if step.has(Step::WATCH_HANDSHAKE) {
            Self::watch(slf, &this.timeouts.handshake, "_handshake_overdue")?;
        }
        if step.has(Step::WATCH_SHUTDOWN) {
            Self::watch(slf, &this.timeouts.shutdown, "_shutdown_overdue")?;
        }
        if step.has(Step::HANDSHAKE) {
            Self::handshake(slf)?;
        }
        if step.has(Step::MADE) {
            log_debug!("made over TLS");
            if let Some(protocol) = this.protocol_ref(py) {
                protocol.call1(intern!(py, "connection_made"), slf.clone().into_any())?;
            }
        }
        if step.has(Step::READY) {
            let waiter = this.state.with(py, |state| state.waiter.take());
            Self::wake(py, waiter.as_ref(), None)?;
        }
        if step.has(Step::READ) {
            Self::read(slf)?;
        }
        if step.has(Step::WRITE) {
            Self::encrypt(slf)?;
        }
        if step.has(Step::SEND) {
            Self::send(slf)?;
        }
        if step.has(Step::FLUSHED) {
            Self::step(slf, |state| state.machine.begin_unwrap())?;
        }
        if step.has(Step::UNWRAP) {
            Self::shut_down(slf)?;
        }
        let told = if step.has(Step::EOF) { Self::deliver_eof(slf) } else { Ok(()) };
        if step.has(Step::CLOSE)
            && let Some(lower) = this.lower(py)
        {
            lower.object(py).bind(py).call_method0(intern!(py, "close"))?;
        }
        if step.has(Step::ABORT) {
            Self::abort_lower(slf, None)?;
        }
        if step.has(Step::DISCARD) {
            drop(this.state.with(py, |state| state.machine.take_discarded()));
        }
        if step.has(Step::LOSE)
            && let Some(protocol) = this.protocol_ref(py)
        {
            let lost = protocol.object.bind(py).getattr(intern!(py, "connection_lost"))?;
            let exc = this.state.with(py, |state| state.error.as_ref().map(|error| error.clone_ref(py)));
            this.owner.bind(py).call_method1(intern!(py, "call_soon"), (lost, exc))?;
        }
        told
    }

    fn watch(slf: &Bound<'_, Self>, seconds: &Py<PyAny>, method: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let overdue = slf.getattr(method)?;
        let timer = this.owner.bind(py).call_method1(intern!(py, "call_later"), (seconds, overdue))?.unbind();
        let old = this.state.with(py, |state| state.timer.replace(timer));
        match old {
            Some(old) => old.bind(py).call_method0(intern!(py, "cancel")).map(drop),
            None => Ok(()),
        }
    }
}
