//! `TlsTransport`, what the user of a TLS connection has, and `TlsProtocol`, what the stream below has. `life` has
//! what the stream says, `host` what their driver needs, `engine` the cryptography.
//!
//! The stream below may be any transport: a [`StreamTransport`], which hands its ciphertext over without Python in
//! between, another [`TlsTransport`], or anybody's.

mod engine;
mod host;
mod life;
mod lower;

use pyo3::exceptions::{PyBaseException, PyNotImplementedError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::cell::GilCell;
use super::chunk::{self, Chunk};
use super::errors::warn_unclosed;
use super::ffi;
use super::transport::{Connection, connection_methods};
use crate::core::drive::tls as drive;
use crate::core::tls::{READ_HIGH, Tls, WRITE_HIGH};
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::transport::marks;
use crate::py::transport::protocol::{self, Protocol};
use engine::Engine;
use lower::{Lower, has_it};

/// What a TLS connection is made of.
#[derive(Debug)]
pub struct State {
    pub machine: Tls<Chunk>,
    pub lower: Option<Lower>,
    pub protocol: Option<Protocol>,
    /// What the lower stream has as its protocol.
    pub below: Option<Py<TlsProtocol>>,
    /// Told once the handshake is over.
    pub waiter: Option<Py<PyAny>>,
    /// The timer of the part of the connection that is under way.
    pub timer: Option<Py<PyAny>>,
    pub extra: Option<Py<PyDict>>,
    /// What `connection_lost` gets.
    pub error: Option<Py<PyBaseException>>,
}

/// How long the handshake and the shutdown may take, seconds; as the user gave them.
#[derive(Debug)]
pub struct Timeouts {
    pub handshake: Py<PyAny>,
    pub shutdown: Py<PyAny>,
}

/// A TLS transport (`asyncio.Transport`).
#[pyclass(module = "tokioloop", frozen, weakref, dict)]
#[derive(Debug)]
pub struct TlsTransport {
    pub owner: Py<LoopCore>,
    pub engine: Engine,
    pub timeouts: Timeouts,
    pub state: GilCell<State>,
}

/// The protocol of the stream that carries the ciphertext (in asyncio, `SSLProtocol`).
#[pyclass(module = "tokioloop", frozen, weakref, dict)]
#[derive(Debug)]
pub struct TlsProtocol {
    pub tls: Py<TlsTransport>,
}

/// Has streams hand their ciphertext over in the buffer of the loop.
pub fn define_feed(py: Python<'_>) {
    protocol::define_feed::<TlsProtocol>(py, |protocol, ciphertext| {
        let tls = &protocol.cast::<TlsProtocol>()?.get().tls;
        drive::handle_ciphertext(&mut tls.bind(protocol.py()), ciphertext)
    });
}

/// What may be written, as an exact `bytes`.
fn bytes_to_write<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return Ok(bytes.clone());
    }
    let taken = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if taken {
        return chunk::bytes_of_buffer(data);
    }
    let name = data.get_type().name()?;
    Err(PyTypeError::new_err(format!("data: expecting a bytes-like instance, got {name}")))
}

connection_methods! {
    TlsTransport:
    #[classattr]
    #[pyo3(name = "_start_tls_compatible")]
    const START_TLS_COMPATIBLE: bool = true;

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import(py, "asyncio.sslproto", "_SSLProtocolTransport")
    }

    /// Asked by `loop.sendfile`: what is sent has to be encrypted.
    #[getter(_sendfile_compatible)]
    fn sendfile_mode<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static MODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        MODE.import(py, "asyncio.constants", "_SendfileMode")?.getattr(intern!(py, "FALLBACK"))
    }

    /// Asked by the fallback of `loop.sendfile`.
    #[getter(_protocol_paused)]
    fn is_protocol_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.machine.is_write_paused())
    }

    #[getter(_ssl_protocol)]
    fn below(&self, py: Python<'_>) -> Option<Py<TlsProtocol>> {
        self.state.with(py, |state| state.below.as_ref().map(|below| below.clone_ref(py)))
    }

    /// `sslcontext`; after the handshake `ssl_object`, `peercert`, `cipher` and `compression`; what the stream below
    /// has.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.BaseTransport.get_extra_info>
    #[pyo3(signature = (name, default = None))]
    fn get_extra_info(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        if let Some(extra) = self.extra(py)
            && let Some(found) = extra.bind(py).get_item(name)?
        {
            return Ok(Some(found.unbind()));
        }
        let lower = self.state.with(py, |state| state.lower.as_ref().map(|lower| lower.object(py)));
        let Some(lower) = lower else { return Ok(default) };
        lower.call_method1(py, intern!(py, "get_extra_info"), (name, default)).map(Some)
    }

    /// True once it is closed, or the stream below is.
    fn is_closing(&self, py: Python<'_>) -> PyResult<bool> {
        let lower = self.state.with(py, |state| match &state.lower {
            Some(lower) if !state.machine.is_closing() => Some(lower.clone_ref(py)),
            _ => None,
        });
        match lower {
            None => Ok(self.state.with(py, |state| state.machine.is_closing())),
            Some(Lower::Stream(stream)) => Ok(stream.get().base.state.with(py, |state| state.machine.is_closing())),
            Some(Lower::Other(transport)) => transport.bind(py).call_method0(intern!(py, "is_closing"))?.is_truthy(),
        }
    }

    fn is_reading(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| !state.machine.is_read_paused())
    }

    /// Closes the connection at once, without `close_notify`; what is buffered is lost, and `connection_lost(None)`
    /// follows.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.abort>
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::abort(&mut &*slf, None))
    }

    /// As `abort`, with an exception for `connection_lost`: the hook of a TLS connection above this one.
    fn _force_close(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        let error = (!exc.is_none()).then(|| PyErr::from_value(exc.clone()));
        Self::guard(slf, || drive::abort(&mut &*slf, error.as_ref()))
    }

    /// Encrypts data and sends it: at once what the stream below takes, the rest when it can.
    ///
    /// Raises `TypeError` when data is not bytes-like.
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.write>
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = bytes_to_write(data)?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        Self::guard(slf, || drive::write(&mut &*slf, data.into()))
    }

    /// Writes the items of an iterable.
    ///
    /// Raises as `write`, before anything is written.
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.writelines>
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let chunks =
            list_of_data.try_iter()?.map(|data| chunk::bytes_of_buffer(&data?)).collect::<PyResult<Vec<_>>>()?;
        // One write: what it makes of ciphertext goes to the stream below in one.
        let data = chunk::joined(slf.py(), chunks)?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        Self::guard(slf, || drive::write(&mut &*slf, data.into()))
    }

    /// Queues data and leaves it to the next event to encrypt it: a hook of asyncio's that CPython's own tests call.
    #[cfg(feature = "failpoints")]
    #[pyo3(name = "_test__append_write_backlog")]
    fn queue_only(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let chunk = Chunk::from(bytes_to_write(data)?);
        let _later = self.state.with(py, |state| state.machine.enqueue(chunk));
        Ok(())
    }

    /// TLS has no half that could be closed here, as with asyncio.
    #[expect(clippy::unused_self, reason = "a method of transports")]
    fn write_eof(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    #[expect(clippy::unused_self, reason = "a method of transports")]
    fn can_write_eof(&self) -> bool {
        false
    }

    /// Bytes that are buffered, here and by the stream below.
    fn get_write_buffer_size(&self, py: Python<'_>) -> PyResult<usize> {
        let (ours, lower) =
            self.state.with(py, |state| (state.machine.buffered(), state.lower.as_ref().map(|lower| lower.object(py))));
        let Some(lower) = lower else { return Ok(ours) };
        // By its method, which has what is coalesced leave.
        let below = has_it(py, lower.bind(py).call_method0(intern!(py, "get_write_buffer_size")))?;
        Ok(ours + below.map_or(Ok(0), |below| below.extract::<usize>())?)
    }

    /// Sets the marks of write flow control, bytes.
    ///
    /// Raises `ValueError` unless `high >= low >= 0`.
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.set_write_buffer_limits>
    #[pyo3(signature = (high = None, low = None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<&Bound<'_, PyAny>>,
        low: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (high, low) = marks::marks(slf.py(), high, low, WRITE_HIGH)?;
        Self::guard(slf, || drive::set_limits(&mut &*slf, high, low)?.map_err(marks::refused))
    }

    /// Bytes of ciphertext that have arrived and are not decrypted.
    fn get_read_buffer_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.engine.bind(py).unread()
    }

    /// `(low, high)`, bytes.
    fn get_read_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| state.machine.read_limits())
    }

    /// Sets the marks of ciphertext that may wait while reading is paused, bytes.
    ///
    /// Raises `ValueError` unless `high >= low >= 0`.
    #[pyo3(signature = (high = None, low = None))]
    fn set_read_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<&Bound<'_, PyAny>>,
        low: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (high, low) = marks::marks(slf.py(), high, low, READ_HIGH)?;
        Self::guard(slf, || drive::set_read_limits(&mut &*slf, high, low)?.map_err(marks::refused))
    }

    // ---- called by the loop

    fn _resumed(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::handle_resumed(&mut &*slf))
    }

    fn _handshake_overdue(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::handle_handshake_overdue(&mut &*slf))
    }

    fn _shutdown_overdue(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::handle_shutdown_overdue(&mut &*slf))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (life, lower) = self.state.with(py, |state| {
            let life = match (state.machine.is_lost(), state.machine.is_closing()) {
                (true, _) => " closed",
                (false, true) => " closing",
                (false, false) => "",
            };
            (life, state.lower.as_ref().map(|lower| lower.object(py)))
        });
        let over = match lower {
            Some(lower) => format!(" over {}", lower.bind(py).repr()?),
            None => String::new(),
        };
        Ok(format!("<TlsTransport{life}{over}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        self.engine.traverse(&visit)?;
        visit.call(&self.timeouts.handshake)?;
        visit.call(&self.timeouts.shutdown)?;
        let Some(state) = self.state.traversed(&visit) else { return Ok(()) };
        [&state.waiter, &state.timer].into_iter().flatten().try_for_each(|object| visit.call(object))?;
        match &state.lower {
            Some(Lower::Stream(stream)) => visit.call(stream)?,
            Some(Lower::Other(transport)) => visit.call(transport)?,
            None => {}
        }
        if let Some(protocol) = &state.protocol {
            protocol.traverse(&visit)?;
        }
        if let Some(below) = &state.below {
            visit.call(below)?;
        }
        if let Some(extra) = &state.extra {
            visit.call(extra)?;
        }
        if let Some(error) = &state.error {
            visit.call(error)?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        ffi::finalize(py, || self.warn_unclosed(py));
        let rest = self.state.with(py, |state| {
            let told = (state.waiter.take(), state.timer.take(), state.error.take());
            (told, state.lower.take(), state.protocol.take(), state.below.take(), state.extra.take())
        });
        drop(rest);
    }
}

impl TlsTransport {
    /// The transport goes and was not closed: says so, as asyncio does. The stream below closes itself.
    ///
    /// # Errors
    /// The warning, where a filter makes it an exception.
    fn warn_unclosed(&self, py: Python<'_>) -> PyResult<()> {
        let unclosed = self.state.with(py, |state| !state.machine.is_closed() && state.lower.is_some());
        if !unclosed {
            return Ok(());
        }
        // So that it is said once; nothing is left to carry the step out.
        let _step = self.state.with(py, |state| state.machine.handle_lost());
        warn_unclosed(py, "TlsTransport")
    }
}

impl Drop for TlsTransport {
    fn drop(&mut self) {
        // Without an interpreter there is nobody to warn.
        let _finalizing = Python::try_attach(|py| ffi::finalize(py, || self.warn_unclosed(py)));
    }
}

#[pymethods]
impl TlsProtocol {
    /// A connection over a stream that is told to use this protocol. `calls`: what has `read` and `write` of the
    /// engine.
    #[new]
    #[expect(clippy::too_many_arguments, reason = "called in one place, by name")]
    #[pyo3(signature = (*, owner, protocol, sslcontext, ssl_object, calls, incoming, outgoing, waiter, made, handshake, shutdown))]
    fn new(
        py: Python<'_>,
        owner: Py<LoopCore>,
        protocol: &Bound<'_, PyAny>,
        sslcontext: &Bound<'_, PyAny>,
        ssl_object: Py<PyAny>,
        calls: Py<PyAny>,
        incoming: Py<PyAny>,
        outgoing: Py<PyAny>,
        waiter: Option<Py<PyAny>>,
        made: bool,
        handshake: Py<PyAny>,
        shutdown: Py<PyAny>,
    ) -> PyResult<Py<Self>> {
        let extra = PyDict::new(py);
        extra.set_item(intern!(py, "sslcontext"), sslcontext)?;
        let state = State {
            machine: Tls::new(made),
            lower: None,
            protocol: Some(Protocol::new(protocol)?),
            below: None,
            waiter,
            timer: None,
            extra: Some(extra.unbind()),
            error: None,
        };
        let engine = Engine::new(ssl_object, calls, incoming, outgoing);
        let timeouts = Timeouts { handshake, shutdown };
        let tls = TlsTransport { owner, engine, timeouts, state: GilCell::new(state) };
        let tls = ffi::make_with_dict(py, tls)?.unbind();
        let below = ffi::make_with_dict(py, Self { tls: tls.clone_ref(py) })?.unbind();
        tls.get().state.with(py, |state| state.below = Some(below.clone_ref(py)));
        Ok(below)
    }

    /// The transport of the user.
    #[getter(_app_transport)]
    fn transport(&self, py: Python<'_>) -> Py<TlsTransport> {
        self.tls.clone_ref(py)
    }

    /// The user's protocol; `None` once the connection is lost.
    #[getter(_app_protocol)]
    fn protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.tls.get().get_protocol(py)
    }

    /// The stream below; `None` before it is there and after it is lost.
    #[getter(_transport)]
    fn lower(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.tls.get().state.with(py, |state| state.lower.as_ref().map(|lower| lower.object(py)))
    }

    /// What the transport knows besides the stream below.
    #[getter(_extra)]
    fn extra(&self, py: Python<'_>) -> Option<Py<PyDict>> {
        self.tls.get().extra(py)
    }

    #[getter(_sslcontext)]
    fn context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(extra) = self.tls.get().extra(py) else { return Ok(None) };
        Ok(extra.bind(py).get_item(intern!(py, "sslcontext"))?.map(Bound::unbind))
    }

    #[getter(_server_side)]
    fn is_server_side(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.ssl_object(py).getattr(py, intern!(py, "server_side"))
    }

    /// The name that the certificate is checked for; `None` of a server, and where none was given.
    #[getter(_server_hostname)]
    fn server_hostname(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.ssl_object(py).getattr(py, intern!(py, "server_hostname"))
    }

    #[getter(_loop)]
    fn owner(&self, py: Python<'_>) -> Py<LoopCore> {
        self.tls.get().owner(py)
    }

    #[getter(_sslobj)]
    fn ssl_object(&self, py: Python<'_>) -> Py<PyAny> {
        self.tls.get().engine.object.clone_ref(py)
    }

    /// The handshake begins.
    fn connection_made(&self, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let tls = self.tls.bind(transport.py());
        TlsTransport::guard(tls, || TlsTransport::handle_made(tls, transport))
    }

    fn data_received(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let tls = self.tls.bind(data.py());
        let bytes = chunk::bytes_of_buffer(data)?;
        TlsTransport::guard(tls, || drive::handle_ciphertext(&mut &*tls, bytes.as_bytes()))
    }

    /// True when the stream below is to stay open, as the user has not read all of it.
    fn eof_received(&self, py: Python<'_>) -> PyResult<bool> {
        let tls = self.tls.bind(py);
        TlsTransport::guard(tls, || drive::handle_end(&mut &*tls))?;
        Ok(self.tls.get().state.with(py, |state| state.machine.keeps_open()))
    }

    fn connection_lost(&self, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        let tls = self.tls.bind(exc.py());
        TlsTransport::guard(tls, || TlsTransport::handle_lost(tls, exc))
    }

    fn pause_writing(&self, py: Python<'_>) -> PyResult<()> {
        let tls = self.tls.bind(py);
        TlsTransport::guard(tls, || drive::handle_paused(&mut &*tls))
    }

    fn resume_writing(&self, py: Python<'_>) -> PyResult<()> {
        let tls = self.tls.bind(py);
        TlsTransport::guard(tls, || drive::handle_unpaused(&mut &*tls))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<TlsProtocol of {}>", self.tls.bind(py).repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.tls)
    }
}
