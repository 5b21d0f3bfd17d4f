//! `DatagramTransport`: the transport of a UDP or Unix datagram socket, as Python sees it. `datagram_io` has its life.
//!
//! It passes `isinstance` checks against `asyncio.DatagramTransport` by its `__class__`, and against `asyncio.Transport`,
//! as asyncio's own does.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pyo3::exceptions::{PyBaseException, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit, intern};
use socket2::SockAddr;

use super::address::{self, Peers};
use super::cell::GilCell;
use super::chunk::{self, Chunk};
use super::datagram_send::Message;
use super::ffi::{self, FastMethod};
use super::loop_core::LoopCore;
use super::marks;
use super::slots::Life;
use crate::core::datagram::Datagram;
use crate::core::drive::datagram as drive;
use crate::core::fault::Fault;
use crate::core::flow::DEFAULT_HIGH;
use crate::io::counters::Counters;
use crate::io::datagram::Family;
use crate::io::source::Source;
use crate::io::sys::BorrowedRawFd;

/// A datagram that came in.
#[derive(Debug)]
pub struct Received {
    pub data: Py<PyBytes>,
    pub from: Py<PyAny>,
}

/// A datagram just received, from a sender who is known, or by address.
#[derive(Debug)]
pub struct Arrival {
    pub data: Py<PyBytes>,
    pub from: Result<Py<PyAny>, Box<SockAddr>>,
}

/// Where a datagram goes.
#[derive(Debug)]
pub enum Destination {
    /// To the peer of a connected socket.
    Peer,
    Address(SockAddr),
    /// To what only the socket's `sendto` understands; the datagram, once more, to call it with.
    Object(Py<PyAny>, Py<PyBytes>),
}

/// A datagram that waits to be sent.
#[derive(Debug)]
pub struct Packet {
    pub data: Chunk,
    pub to: Destination,
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        self.data.as_ref()
    }
}

/// What a transport is made of.
#[derive(Debug)]
pub struct State {
    pub machine: Datagram<Received, Packet>,
    pub source: Option<Source>,
    pub sock: Option<Py<PyAny>>,
    /// The bound `fileno` of a socket that the user has, too, and may close under the transport.
    pub fileno: Option<Py<PyAny>>,
    pub protocol: Option<Py<PyAny>>,
    pub extra: Option<Py<PyDict>>,
    /// The one address that datagrams may be sent to.
    pub address: Option<Py<PyAny>>,
    /// Told once `connection_made` ran.
    pub waiter: Option<Py<PyAny>>,
    /// The context of every callback of the protocol.
    pub context: Option<Py<PyAny>>,
    /// The exception for `connection_lost`.
    pub error: Option<Py<PyBaseException>>,
    pub peers: Peers,
    /// What a batch brings, from a sender who is new on: on its way to the machine.
    pub arrivals: Vec<Arrival>,
    pub failpoint: bool,
}

/// A datagram transport (`asyncio.DatagramTransport`).
#[pyclass(module = "tokioloop", frozen, weakref, dict)]
#[derive(Debug)]
pub struct DatagramTransport {
    pub owner: Py<LoopCore>,
    pub slot: u32,
    pub fd: u32,
    /// The same, for calls on it.
    pub file: BorrowedRawFd,
    pub family: Family,
    /// Sends need no address, and one that is given counts for nothing: asyncio asks whether the peer has a name.
    pub connected: bool,
    /// Connected to a peer without a name (a Unix socket): an address that is given counts.
    pub paired: bool,
    pub counters: Arc<Counters>,
    pub state: GilCell<State>,
}

impl DatagramTransport {
    pub fn is_closing_now(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.machine.is_closing())
    }

    /// Runs a method's body; a panic in it is reported and closes the endpoint.
    pub fn guard(slf: &Bound<'_, Self>, body: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Self::panicked(slf, payload.as_ref()))
    }

    /// The object that a datagram to `given` is for, by the rules of asyncio; `None` where the socket knows.
    fn addressee<'py>(
        &self,
        py: Python<'py>,
        given: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let fixed = self.state.with(py, |state| state.address.as_ref().map(|address| address.clone_ref(py)));
        let Some(fixed) = fixed else { return Ok(given.cloned()) };
        let fixed = fixed.into_bound(py);
        if let Some(given) = given
            && !given.is(&fixed)
            && !given.eq(&fixed)?
        {
            return Err(PyValueError::new_err(format!("Invalid address: must be None or {}", fixed.str()?)));
        }
        Ok(Some(fixed))
    }

    pub fn destination<'py>(&self, address: Option<Bound<'py, PyAny>>, data: &Bound<'py, PyBytes>) -> Destination {
        let py = data.py();
        if self.connected || (self.paired && address.is_none()) {
            return Destination::Peer;
        }
        let address = address.unwrap_or_else(|| py.None().into_bound(py));
        if let Some(known) = self.state.with(py, |state| state.peers.address(&address).cloned()) {
            return Destination::Address(known);
        }
        match address::from_python(self.family, &address) {
            Some(native) => {
                let object = address.unbind();
                drop(self.state.with(py, |state| state.peers.keep(native.clone(), object)));
                Destination::Address(native)
            }
            None => Destination::Object(address.unbind(), data.clone().unbind()),
        }
    }

    #[inline]
    fn send_now<'py>(
        slf: &Bound<'py, Self>,
        data: &Bound<'py, PyAny>,
        address: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let bytes = chunk::bytes_of_datagram(data)?;
        if bytes.as_bytes().is_empty() && !sends_empty(py) {
            return Ok(());
        }
        let address = slf.get().addressee(py, address.filter(|address| !address.is_none()))?;
        drive::send(&mut &*slf, Message { bytes, address, to: None })
    }
}

/// Whether a datagram may be empty: since Python 3.13; earlier, asyncio drops it.
fn sends_empty(py: Python<'_>) -> bool {
    static SENDS: PyOnceLock<bool> = PyOnceLock::new();
    *SENDS.get_or_init(py, || py.version_info() >= (3, 13))
}

/// `sendto(data, addr=None)`, the hottest method of a transport.
struct SendTo;

impl FastMethod for SendTo {
    type Class = DatagramTransport;
    const NAME: &'static CStr = c"sendto";
    const DOC: &'static CStr = c"sendto($self, /, data, addr=None)\n--\n\n\
        Send a datagram, at once where the kernel takes it.\n\n\
        What the kernel says against it goes to the protocol's error_received().\n\
        Raises TypeError when data is not bytes-like, ValueError when addr is not the remote address.\n\
        Source: https://docs.python.org/3/library/asyncio-protocol.html#asyncio.DatagramTransport.sendto";

    #[inline]
    fn runs_here(slf: &Bound<'_, DatagramTransport>) -> bool {
        slf.get().owner.get().coalesce.runs_here()
    }

    fn call<'py>(
        slf: &Bound<'py, DatagramTransport>,
        args: &[Borrowed<'_, 'py, PyAny>],
        positional: usize,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Py<PyAny>> {
        if positional > 2 {
            let message = format!("sendto() takes from 1 to 2 positional arguments but {positional} were given");
            return Err(PyTypeError::new_err(message));
        }
        let (by_place, by_name) = args.split_at(positional.min(args.len()));
        let (mut data, mut addr) = (by_place.first(), by_place.get(1));
        if let Some(names) = names {
            for (name, value) in names.iter().zip(by_name) {
                let place = if name.eq("data")? {
                    &mut data
                } else if name.eq("addr")? {
                    &mut addr
                } else {
                    let message = format!("sendto() got an unexpected keyword argument {}", name.repr()?);
                    return Err(PyTypeError::new_err(message));
                };
                if place.replace(value).is_some() {
                    let message = format!("sendto() got multiple values for argument {}", name.repr()?);
                    return Err(PyTypeError::new_err(message));
                }
            }
        }
        let Some(data) = data else {
            return Err(PyTypeError::new_err("sendto() missing 1 required positional argument: 'data'"));
        };
        DatagramTransport::guard(slf, || DatagramTransport::send_now(slf, data, addr.map(|addr| &**addr)))?;
        Ok(slf.py().None())
    }
}

/// Puts the fast methods into the class.
///
/// # Errors
/// `MemoryError`.
pub fn define_fast_methods(py: Python<'_>) -> PyResult<()> {
    ffi::define::<SendTo>(py)
}

#[pymethods]
impl DatagramTransport {
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = CLASS.get_or_try_init(py, || {
            let asyncio = py.import(intern!(py, "asyncio"))?;
            let bases =
                (asyncio.getattr(intern!(py, "Transport"))?, asyncio.getattr(intern!(py, "DatagramTransport"))?);
            let class = py.get_type::<PyType>().call1(("DatagramTransport", bases, PyDict::new(py)))?;
            Ok::<_, PyErr>(class.unbind())
        })?;
        Ok(class.bind(py))
    }

    #[getter(_loop)]
    fn owner(&self, py: Python<'_>) -> Py<LoopCore> {
        self.owner.clone_ref(py)
    }

    #[getter(_extra)]
    fn extra(&self, py: Python<'_>) -> Option<Py<PyDict>> {
        self.state.with(py, |state| state.extra.as_ref().map(|extra| extra.clone_ref(py)))
    }

    #[getter(_sock)]
    fn sock(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)))
    }

    #[getter(_sock_fd)]
    fn sock_fd(&self) -> u32 {
        self.fd
    }

    #[getter(_protocol)]
    fn own_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.get_protocol(py)
    }

    #[setter(_protocol)]
    fn replace_protocol(&self, py: Python<'_>, protocol: Py<PyAny>) {
        self.set_protocol(py, protocol);
    }

    #[getter(_closing)]
    fn closing(&self, py: Python<'_>) -> bool {
        self.is_closing_now(py)
    }

    #[getter(_paused)]
    fn paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.machine.is_paused())
    }

    /// Whether the connection is lost.
    #[getter(_conn_lost)]
    fn lost_count(&self, py: Python<'_>) -> u32 {
        self.state.with(py, |state| u32::from(state.machine.is_lost()))
    }

    #[getter(_address)]
    fn address(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.address.as_ref().map(|address| address.clone_ref(py)))
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
        // Who has the socket may send, too.
        if slf.get().state.with(py, |state| state.machine.is_corked()) && name.eq("socket")? {
            Self::guard(slf, || Self::uncork(slf))?;
        }
        let Some(extra) = slf.get().extra(py) else { return Ok(default) };
        Ok(extra.bind(py).get_item(name)?.map(Bound::unbind).or(default))
    }

    fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    /// Datagrams go to `protocol` from now on.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.BaseTransport.set_protocol>
    fn set_protocol(&self, py: Python<'_>, protocol: Py<PyAny>) {
        drop(self.state.with(py, |state| state.protocol.replace(protocol)));
    }

    fn is_closing(&self, py: Python<'_>) -> bool {
        self.is_closing_now(py)
    }

    fn is_reading(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.machine.is_reading())
    }

    /// Stops calling `datagram_received`.
    fn pause_reading(&self, py: Python<'_>) {
        self.state.with(py, |state| state.machine.pause_reading());
    }

    /// Goes on calling `datagram_received`.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::resume_reading(&mut &*slf))
    }

    /// Closes the transport; what is queued is sent first, and `connection_lost(None)` follows.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.BaseTransport.close>
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::close(&mut &*slf))
    }

    /// Closes the transport at once; what is queued is lost, and `connection_lost(None)` follows.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.DatagramTransport.abort>
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || drive::abort(&mut &*slf))
    }

    /// Bytes that are queued; since Python 3.13 with 8 more for each datagram, as asyncio counts them.
    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Self::guard(slf, || Self::uncork(slf))?;
        Ok(slf.get().state.with(slf.py(), |state| state.machine.buffered()))
    }

    /// `(low, high)`, bytes.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| state.machine.limits())
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
        let (high, low) = marks::marks(slf.py(), high, low, DEFAULT_HIGH)?;
        Self::guard(slf, || drive::set_limits(&mut &*slf, Some(high), Some(low))?.map_err(marks::refused))
    }

    // ---- what the loop calls, as callbacks for who has its queue in hand

    fn _read_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || Self::handle_io(slf, false))
    }

    fn _write_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || Self::handle_io(slf, true))
    }

    fn _tell_made(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || Self::handle_life(slf, Life::Made))
    }

    fn _tell_lost(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::guard(slf, || Self::handle_life(slf, Life::Lost))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.state.with(py, |state| {
            let machine = &state.machine;
            let life = match (state.sock.is_none(), machine.is_closing()) {
                (true, _) => " closed",
                (false, true) => " closing",
                (false, false) => "",
            };
            let read = if machine.wants_read() { "polling" } else { "idle" };
            let write = if machine.is_watching_write() { "polling" } else { "idle" };
            let size = machine.buffered();
            format!("<DatagramTransport{life} fd={} read={read} write=<{write}, bufsize={size}>>", self.fd)
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        let Some(state) = self.state.traversed(&visit) else { return Ok(()) };
        let objects = [&state.sock, &state.fileno, &state.protocol, &state.address, &state.waiter, &state.context];
        objects.into_iter().flatten().try_for_each(|object| visit.call(object))?;
        if let Some(error) = &state.error {
            visit.call(error)?;
        }
        if let Some(extra) = &state.extra {
            visit.call(extra)?;
        }
        state.peers.traverse(&visit)?;
        state.machine.undelivered().try_for_each(|received| visit.call(&received.from))?;
        state.machine.unsent().try_for_each(|packet| match &packet.to {
            Destination::Object(address, _) => visit.call(address),
            Destination::Peer | Destination::Address(_) => Ok(()),
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        ffi::finalize(py, || self.abandon(py));
        let rest = self.state.with(py, |state| {
            // Without its machine's contents nothing refers to user objects any more.
            let step = state.machine.fail(Fault::Closed);
            let dropped = state.machine.take_dropped();
            (state.extra.take(), state.waiter.take(), state.error.take(), state.address.take(), step, dropped)
        });
        drop(rest);
    }
}

impl Drop for DatagramTransport {
    fn drop(&mut self) {
        // Without an interpreter there is nobody to warn, and the socket goes with the process.
        let _finalizing = Python::try_attach(|py| ffi::finalize(py, || self.abandon(py)));
    }
}
