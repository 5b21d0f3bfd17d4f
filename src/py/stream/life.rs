//! The life of a [`StreamTransport`]: its events, and its end. `host` has what its driver needs.

use pyo3::exceptions::PyConnectionError;
use pyo3::intern;
use pyo3::prelude::*;

use super::{More, StreamTransport};
use crate::core::drive::stream as drive;
use crate::core::stream::Stream;
use crate::py::chunk::Chunk;
use crate::py::errors::contain;
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::event_loop::waiter::resolve;
use crate::py::transport::base::Base;
use crate::py::transport::{Connection, Transport, driven};

impl Connection for StreamTransport {
    fn owner<'a>(slf: &'a Bound<'_, Self>) -> &'a Py<LoopCore> {
        &slf.get().base.owner
    }

    fn protocol(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        slf.get().base.protocol(slf.py())
    }

    fn fail(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        drive::fail(&mut &*slf, error)
    }
}

impl Transport for StreamTransport {
    type Machine = Stream<Chunk>;
    type More = More;

    #[inline]
    fn base<'a>(slf: &'a Bound<'_, Self>) -> &'a Base<Stream<Chunk>, More> {
        &slf.get().base
    }

    fn over(slf: &Bound<'_, Self>) -> &'static str {
        if slf.get().is_pipe(slf.py()) { "pipe" } else { "socket" }
    }

    fn is_closing(machine: &Stream<Chunk>) -> bool {
        machine.is_closing()
    }

    driven! { handle_made handle_readable handle_writable handle_lost handle_forked uncork }
}

impl StreamTransport {
    /// Deregisters and closes the socket, tells the server, and lets go of everything. `error` is for who waits for
    /// room.
    ///
    /// # Errors
    /// Only an exit.
    pub fn dispose(slf: &Bound<'_, Self>, error: Option<&PyErr>) -> PyResult<()> {
        let (py, base) = (slf.py(), &slf.get().base);
        let sock = base.take_file(py);
        base.free_slot(py);
        let (waiter, more) = base.state.with(py, |state| (state.waiter.take(), std::mem::take(&mut state.more)));
        let owner = base.owner.bind(py);
        let closed = sock.map_or(Ok(()), |sock| sock.bind(py).call_method0(intern!(py, "close")).map(drop));
        let mut result = contain(owner, closed);
        for (waiter, error) in [(waiter, None), (more.drain_waiter, error)] {
            let Some(waiter) = waiter else { continue };
            let closed = || PyConnectionError::new_err("Connection is closed by peer");
            let error = error.map_or_else(closed, |error| error.clone_ref(py));
            result = result.and(contain(owner, resolve(waiter.bind(py), Some(&error))));
        }
        if let Some(server) = more.server {
            let detached = owner.call_method1(intern!(py, "_server_detach"), (server, slf)).map(drop);
            result = result.and(contain(owner, detached));
        }
        result
    }
}
