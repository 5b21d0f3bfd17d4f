//! `DatagramTransport`: the transport of a UDP or Unix datagram socket, as Python sees it. `life` has its
//! events and its end.
//!
//! It passes `isinstance` checks against `asyncio.DatagramTransport` by its `__class__`, and against
//! `asyncio.Transport`, as asyncio's own does.

mod address;
mod host;
mod life;
mod send;

use std::ffi::CStr;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit, intern};
use socket2::SockAddr;

use super::chunk::{self, Chunk};
use super::ffi::{self, FastMethod};
use super::transport::{self, Connection, Transport, transport_methods};
use crate::core::datagram::Datagram;
use crate::core::drive::datagram as drive;
use crate::core::fault::Fault;
use crate::core::flow::DEFAULT_HIGH;
use crate::io::datagram::Family;
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::event_loop::slots::Life;
use crate::py::transport::base::Base;
use crate::py::transport::marks;
use crate::py::transport::protocol::Protocol;
use address::Peers;
use send::Message;

/// The name of its class, as it is shown.
const NAME: &str = "DatagramTransport";

/// A datagram that came in.
#[derive(Debug)]
pub struct Received {
    pub data: Py<PyBytes>,
    pub from: Py<PyAny>,
}

/// A datagram just received. Its sender is one of the last peers, or an address that is yet to be made an object.
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

/// What a datagram transport needs beside what every transport has.
#[derive(Debug)]
pub struct More {
    /// The one address that datagrams may be sent to.
    pub address: Option<Py<PyAny>>,
    pub peers: Peers,
    /// What a batch brings from the first new sender on: it waits there until that one's address is an object.
    pub arrivals: Vec<Arrival>,
}

/// A datagram transport (`asyncio.DatagramTransport`).
#[pyclass(module = "tokioloop", frozen, weakref, dict)]
#[derive(Debug)]
pub struct DatagramTransport {
    pub base: Base<Datagram<Received, Packet>, More>,
    pub family: Family,
    /// Sends need no address, and one that is given counts for nothing: asyncio asks whether the peer has a name.
    pub connected: bool,
    /// Connected to a peer without a name (a Unix socket): an address that is given counts.
    pub paired: bool,
}

impl DatagramTransport {
    /// The object that a datagram to `given` is for, by the rules of asyncio; `None` where the socket knows.
    fn addressee<'py>(
        &self,
        py: Python<'py>,
        given: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let fixed = self.base.state.with(py, |state| state.more.address.as_ref().map(|address| address.clone_ref(py)));
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
        if let Some(known) = self.base.state.with(py, |state| state.more.peers.address(&address).cloned()) {
            return Destination::Address(known);
        }
        match address::from_python(self.family, &address) {
            Some(native) => {
                let object = address.unbind();
                drop(self.base.state.with(py, |state| state.more.peers.keep(native.clone(), object)));
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
        slf.get().base.owner.get().coalesce.runs_here(slf.py())
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

transport_methods! {
    DatagramTransport:
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

    /// Whether the connection is lost.
    #[getter(_conn_lost)]
    fn lost_count(&self, py: Python<'_>) -> u32 {
        self.base.state.with(py, |state| u32::from(state.machine.is_lost()))
    }

    #[getter(_address)]
    fn address(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.base.state.with(py, |state| state.more.address.as_ref().map(|address| address.clone_ref(py)))
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
        if slf.get().base.state.with(py, |state| state.machine.is_corked()) && name.eq("socket")? {
            Self::guard(slf, || Self::uncork(slf))?;
        }
        let Some(extra) = slf.get().base.extra(py) else { return Ok(default) };
        Ok(extra.bind(py).get_item(name)?.map(Bound::unbind).or(default))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
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
            format!("<DatagramTransport{life} fd={} read={read} write=<{write}, bufsize={size}>>", self.base.fd)
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.base.traverse(&visit, |state, visit| {
            if let Some(address) = &state.more.address {
                visit.call(address)?;
            }
            state.more.peers.traverse(visit)?;
            state.machine.undelivered().try_for_each(|received| visit.call(&received.from))?;
            state.machine.unsent().try_for_each(|packet| match &packet.to {
                Destination::Object(address, _) => visit.call(address),
                Destination::Peer | Destination::Address(_) => Ok(()),
            })
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        ffi::finalize(py, || self.base.close_unclosed(py, NAME));
        self.base.clear(py);
        let rest = self.base.state.with(py, |state| {
            // Without its machine's contents nothing refers to user objects any more.
            let step = state.machine.fail(Fault::Closed);
            (state.more.address.take(), step, state.machine.take_dropped())
        });
        drop(rest);
    }
}

impl Drop for DatagramTransport {
    fn drop(&mut self) {
        // Without an interpreter there is nobody to warn, and the socket goes with the process.
        let _finalizing = Python::try_attach(|py| ffi::finalize(py, || self.base.close_unclosed(py, NAME)));
    }
}
