//! `StreamTransport`: the transport of every stream, as Python sees it. `life` has its events and its end.
//!
//! It passes `isinstance` checks against `asyncio.Transport` by its `__class__`, which is asyncio's class of transports
//! with write flow control: `loop.sendfile` asks for that one.

mod host;
mod life;
pub mod make;
pub mod pipe;

use std::ffi::CStr;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit, intern};

use super::chunk::{self, Chunk};
use super::ffi::{self, FastMethod};
use super::transport::{self, Connection, Transport, transport_methods};
use crate::core::drive::stream as drive;
use crate::core::flow::DEFAULT_HIGH;
use crate::core::stream::{Policy, Stream, WriteError};
use crate::io::endpoint::FileKind;
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::event_loop::patched;
use crate::py::event_loop::slots::Life;
use crate::py::event_loop::waiter;
use crate::py::transport::base::Base;
use crate::py::transport::marks;
use crate::py::transport::protocol::Protocol;

/// What a stream needs beside what every transport has.
#[derive(Debug, Default)]
pub struct More {
    pub server: Option<Py<PyAny>>,
    /// A future of `loop.sendfile`, which writes to the socket itself: done once the outbox is empty, then each time
    /// that the socket takes bytes again.
    pub drain_waiter: Option<Py<PyAny>>,
}

/// A stream transport (`asyncio.Transport`).
#[pyclass(module = "tokioloop", frozen, weakref, subclass, dict)]
#[derive(Debug)]
pub struct StreamTransport {
    pub base: Base<Stream<Chunk>, More>,
    pub kind: FileKind,
}

pub fn write_error(error: WriteError, method: &str) -> PyErr {
    PyRuntimeError::new_err(match error {
        WriteError::AfterEof => format!("Cannot call {method}() after write_eof()"),
        WriteError::DrainAwaited => "unable to write; sendfile is in progress".to_owned(),
    })
}

impl StreamTransport {
    fn policy(&self, py: Python<'_>) -> Policy {
        self.base.state.with(py, |state| state.machine.policy())
    }

    /// The name of its class, as it is shown.
    pub fn name(&self, py: Python<'_>) -> &'static str {
        let policy = self.policy(py);
        match (policy.readable, policy.writable) {
            (true, true) => "StreamTransport",
            (_, false) => "ReadPipeTransport",
            (false, true) => "WritePipeTransport",
        }
    }

    pub fn is_pipe(&self, py: Python<'_>) -> bool {
        let policy = self.policy(py);
        !(policy.readable && policy.writable)
    }

    /// `write`, without its guard.
    pub fn write_now(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        drive::write(&mut &*slf, chunk::bytes_of(data)?)
    }
}

/// `write(data)`, the hottest method of a transport.
struct Write;

impl FastMethod for Write {
    type Class = StreamTransport;
    const NAME: &'static CStr = c"write";
    const DOC: &'static CStr = c"write($self, data)\n--\n\n\
        Write data: at once what the kernel takes, the rest when it can.\n\n\
        Raises TypeError when data is not bytes-like, RuntimeError after write_eof().\n\
        Source: https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.write";

    #[inline]
    fn runs_here(slf: &Bound<'_, StreamTransport>) -> bool {
        slf.get().base.owner.get().coalesce.runs_here(slf.py())
    }

    fn call<'py>(
        slf: &Bound<'py, StreamTransport>,
        args: &[Borrowed<'_, 'py, PyAny>],
        positional: usize,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Py<PyAny>> {
        let named = match names {
            Some(names) if names.len() == 1 => names.get_item(0)?.eq("data")?,
            Some(_) => false,
            None => true,
        };
        let [data] = args else {
            let message = format!("write() takes exactly one argument ({positional} given)");
            return Err(PyTypeError::new_err(message));
        };
        if !named {
            return Err(PyTypeError::new_err("write() got an unexpected keyword argument"));
        }
        StreamTransport::guard(slf, || StreamTransport::write_now(slf, data))?;
        Ok(slf.py().None())
    }
}

/// Puts the fast methods into the class.
///
/// # Errors
/// `MemoryError`.
pub fn define_fast_methods(py: Python<'_>) -> PyResult<()> {
    ffi::define::<Write>(py)
}

transport_methods! {
    StreamTransport:
    #[classattr]
    #[pyo3(name = "_start_tls_compatible")]
    const START_TLS_COMPATIBLE: bool = true;

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import(py, "asyncio.transports", "_FlowControlMixin")
    }

    /// Asked by `loop.sendfile`: sockets have the system call, pipes are refused, as with asyncio.
    #[getter(_sendfile_compatible)]
    fn sendfile_mode<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static MODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let policy = self.policy(py);
        let mode = if policy.readable && policy.writable { "TRY_NATIVE" } else { "UNSUPPORTED" };
        MODE.import(py, "asyncio.constants", "_SendfileMode")?.getattr(mode)
    }

    /// Asked by the fallback of `loop.sendfile`.
    #[getter(_protocol_paused)]
    fn is_protocol_paused(&self, py: Python<'_>) -> bool {
        self.base.state.with(py, |state| state.machine.is_write_paused())
    }

    /// 0 until the connection is lost, then one more for each write.
    #[getter(_conn_lost)]
    fn lost_count(&self, py: Python<'_>) -> u32 {
        self.base.state.with(py, |state| state.machine.lost_count())
    }

    #[getter(_eof)]
    fn eof(&self, py: Python<'_>) -> bool {
        self.base.state.with(py, |state| state.machine.eof_asked())
    }

    #[getter(_server)]
    fn server(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.base.state.with(py, |state| state.more.server.as_ref().map(|server| server.clone_ref(py)))
    }

    /// `socket`, `sockname`, `peername`, or `default`.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.BaseTransport.get_extra_info>
    #[pyo3(signature = (name, default = None))]
    fn get_extra_info(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        if matches!(slf.get().kind, FileKind::Socket)
            && let Some(said) = patched::extra_info(slf.as_any(), name, default.as_ref())?
        {
            return Ok(Some(said.unbind()));
        }
        // Whoever gets the file may write to it: what was written before goes first.
        if slf.get().base.state.with(py, |state| state.machine.is_corked()) && (name.eq("socket")? || name.eq("pipe")?) {
            Self::guard(slf, || Self::uncork(slf))?;
        }
        let Some(extra) = slf.get().base.extra(py) else { return Ok(default) };
        Ok(extra.bind(py).get_item(name)?.map(Bound::unbind).or(default))
    }

    /// As `abort`, with an exception for `connection_lost`: the hook of `asyncio.sslproto`.
    fn _force_close(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        if exc.is_none() {
            return Self::abort(slf);
        }
        let error = PyErr::from_value(exc.clone());
        Self::guard(slf, || Self::fail(slf, error))
    }

    /// Writes the items of an iterable, in one vectored send where the kernel takes it.
    ///
    /// Raises as `write`.
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.writelines>
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.base.state.with(py, |state| state.machine.check_write()).map_err(|error| write_error(error, "writelines"))?;
        let chunks =
            list_of_data.try_iter()?.map(|data| chunk::bytes_of_buffer(&data?)).collect::<PyResult<Vec<_>>>()?;
        if chunks.iter().all(|bytes| bytes.as_bytes().is_empty()) {
            return Ok(());
        }
        Self::guard(slf, || drive::write_lines(&mut &*slf, chunks))
    }

    /// Closes the writing half once what is buffered is sent.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.write_eof>
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::write_eof(&mut &*slf))
    }

    fn can_write_eof(&self, py: Python<'_>) -> bool {
        self.base.state.with(py, |state| state.machine.can_write_eof())
    }

    /// A future that is done once the outbox is empty; until it is reset, writes raise: for `loop.sendfile`.
    fn _make_empty_waiter<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if this.base.state.with(py, |state| state.machine.is_drain_awaited()) {
            return Err(PyRuntimeError::new_err("Empty waiter is already set"));
        }
        Self::uncork(slf)?;
        let future = waiter::future_of(this.base.owner.bind(py))?;
        if this.base.state.with(py, |state| state.machine.begin_drain_wait()) {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        } else {
            let waiter = future.clone().unbind();
            drop(this.base.state.with(py, |state| state.more.drain_waiter.replace(waiter)));
        }
        Ok(future)
    }

    /// The transport may write again, and does what `write_eof` asked for meanwhile.
    fn _reset_empty_waiter(slf: &Bound<'_, Self>) -> PyResult<()> {
        let waiter = slf.get().base.state.with(slf.py(), |state| state.more.drain_waiter.take());
        let result = Self::guard(slf, || drive::end_drain_wait(&mut &*slf));
        drop(waiter);
        result
    }

    /// Counts bytes that `loop.sendfile` sent itself among what the transport sent: see `loop.stats()`.
    fn _count_sent(&self, n: usize) {
        self.base.counters.sent_some(n);
    }

    /// A future that is done once the full socket takes bytes again; `ConnectionError` when the connection is lost
    /// before. For `loop.sendfile`, which writes to the socket itself.
    fn _make_writable_waiter<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let future = waiter::future_of(this.base.owner.bind(py))?;
        let waiter = future.clone().unbind();
        let old = this.base.state.with(py, |state| state.more.drain_waiter.replace(waiter));
        let result = Self::guard(slf, || drive::handle_blocked(&mut &*slf));
        drop(old);
        result.map(|()| future)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let (name, fd, over) = (self.name(py), self.base.fd, self.base.owner.get().is_closed_now());
        self.base.state.with(py, |state| {
            let machine = &state.machine;
            let life = match (state.sock.is_none(), machine.is_closing()) {
                (true, _) => " closed",
                (false, true) => " closing",
                (false, false) => "",
            };
            let read = if machine.wants_read() { "polling" } else { "idle" };
            let write = if machine.is_watching_write() { "polling" } else { "idle" };
            let size = machine.buffered();
            match (machine.policy().readable, machine.policy().writable) {
                // Of a closed loop, as asyncio shows them: nothing is polled any more.
                (true, true) if over => format!("<{name}{life} fd={fd}>"),
                _ if over && life.is_empty() => format!("<{name} fd={fd} open>"),
                (true, true) => format!("<{name}{life} fd={fd} read={read} write=<{write}, bufsize={size}>>"),
                (_, false) => format!("<{name}{life} fd={fd} {read}>"),
                (false, true) => format!("<{name}{life} fd={fd} {write} bufsize={size}>"),
            }
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.base.traverse(&visit, |state, visit| {
            [&state.more.server, &state.more.drain_waiter].into_iter().flatten().try_for_each(|object| visit.call(object))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        ffi::finalize(py, || self.base.close_unclosed(py, self.name(py)));
        self.base.clear(py);
        drop(self.base.state.with(py, |state| std::mem::take(&mut state.more)));
    }
}

impl Drop for StreamTransport {
    fn drop(&mut self) {
        // Without an interpreter there is nobody to warn, and the socket goes with the process.
        let _finalizing = Python::try_attach(|py| ffi::finalize(py, || self.base.close_unclosed(py, self.name(py))));
    }
}
