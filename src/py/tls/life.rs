//! The life of a [`TlsTransport`]: what the stream below says. `host` has what its driver needs.

use pyo3::intern;
use pyo3::prelude::*;

use super::TlsTransport;
use super::lower::Lower;
use crate::core::drive::tls as drive;
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::event_loop::waiter::resolve;
use crate::py::transport::Connection;
use crate::py::transport::protocol::Protocol;

impl Connection for TlsTransport {
    fn owner<'a>(slf: &'a Bound<'_, Self>) -> &'a Py<LoopCore> {
        &slf.get().owner
    }

    fn protocol(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        slf.get().protocol_ref(slf.py()).map(|protocol| protocol.object)
    }

    fn fail(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        drive::abort_below(&mut &*slf, Some(&error))
    }
}

impl TlsTransport {
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
        drop(slf.get().state.with(py, |state| state.lower.replace(lower)));
        drive::handle_made(&mut &*slf, paused)
    }

    pub fn handle_lost(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let error = (!exc.is_none()).then(|| PyErr::from_value(exc.clone()).into_value(py));
        let old = this.state.with(py, |state| std::mem::replace(&mut state.error, error));
        let result = drive::handle_lost(&mut &*slf);
        drop(old);
        let (waiter, error, rest) = this.state.with(py, |state| {
            (state.waiter.take(), state.error.take(), (state.lower.take(), state.protocol.take(), state.below.take()))
        });
        drop(rest);
        let error = error.map(|error| PyErr::from_value(error.into_bound(py).into_any()));
        result.and(waiter.map_or(Ok(()), |waiter| resolve(waiter.bind(py), error.as_ref())))
    }

    // ---- the connection

    /// What `get_extra_info` tells once the handshake is done.
    pub fn note_peer(&self, py: Python<'_>) -> PyResult<()> {
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

    /// Starts the time-out of a part of the connection, in place of the one before.
    pub fn start_timeout(slf: &Bound<'_, Self>, seconds: &Py<PyAny>, method: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let overdue = slf.getattr(method)?;
        let timer = this.owner.bind(py).call_method1(intern!(py, "call_later"), (seconds, overdue))?.unbind();
        let old = this.state.with(py, |state| state.timer.replace(timer));
        old.map_or(Ok(()), |old| old.bind(py).call_method0(intern!(py, "cancel")).map(drop))
    }
}
