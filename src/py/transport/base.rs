//! What the transports of files are made of: their file, their loop, their protocol.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//! Before each system call a socket that the user handed in is asked for its fd: closed under the transport it has
//! none, and the number may be another file's by then.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::protocol::Protocol;
use crate::core::fault::Fault;
use crate::io::counters::{Counters, EndpointKind};
use crate::io::source::Source;
use crate::io::sys::BorrowedRawFd;
use crate::log_debug;
use crate::py::cell::GilCell;
use crate::py::errors::{close_unclosed, fault_error, io_error};
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::event_loop::watch;
use crate::py::ffi;

/// What a transport is made from.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a, 'py> {
    /// The socket or pipe object.
    pub file: &'a Bound<'py, PyAny>,
    pub protocol: &'a Bound<'py, PyAny>,
    pub waiter: Option<&'a Bound<'py, PyAny>>,
    pub extra: Option<&'a Bound<'py, PyDict>>,
    /// The context of the protocol's callbacks; a copy of the current one if there is none.
    pub context: Option<&'a Bound<'py, PyAny>>,
}

/// Parts that have been checked.
#[derive(Debug)]
pub struct Checked<'py> {
    pub file: BorrowedRawFd,
    pub fd: u32,
    /// The file's bound method.
    pub fileno: Bound<'py, PyAny>,
    /// What `get_extra_info` will tell; to be added to.
    pub extra: Bound<'py, PyDict>,
}

impl<'py> Parts<'_, 'py> {
    /// # Errors
    /// `RuntimeError` when the loop is closed; what the file or the protocol lacks.
    pub fn check(&self, owner: &Bound<'py, LoopCore>) -> PyResult<Checked<'py>> {
        let py = owner.py();
        owner.get().check_open()?;
        let fileno = self.file.getattr(intern!(py, "fileno"))?;
        let file = ffi::file_of(self.file)?;
        // A protocol without it is refused here, before anything is scheduled.
        self.protocol.getattr(intern!(py, "connection_made"))?;
        let extra = self.extra.map_or_else(|| Ok(PyDict::new(py)), PyDictMethods::copy)?;
        let fd = file.number().map_err(|error| io_error(py, &error))?;
        Ok(Checked { file, fd, fileno, extra })
    }

    /// As [`Parts::check`], of a socket: no other transport has it, and its addresses are known.
    ///
    /// # Errors
    /// `RuntimeError` also when a transport has the fd.
    pub fn check_socket(&self, owner: &Bound<'py, LoopCore>) -> PyResult<Checked<'py>> {
        let (py, sock) = (owner.py(), self.file);
        let checked = self.check(owner)?;
        watch::check_no_transport(owner, checked.fd, sock)?;
        let extra = &checked.extra;
        extra.set_item(intern!(py, "socket"), transport_socket(sock)?)?;
        extra.set_item(intern!(py, "sockname"), address_or_none(sock, "getsockname")?)?;
        if !extra.contains(intern!(py, "peername"))? {
            extra.set_item(intern!(py, "peername"), address_or_none(sock, "getpeername")?)?;
        }
        Ok(checked)
    }
}

/// Asyncio's read-only view of a socket.
///
/// # Errors
/// Whatever `TransportSocket` raises.
pub fn transport_socket<'py>(sock: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CLASS.import(sock.py(), "asyncio.trsock", "TransportSocket")?.call1((sock,))
}

/// The socket's address by this method; `None` where there is none, as asyncio has it.
fn address_or_none<'py>(sock: &Bound<'py, PyAny>, method: &str) -> PyResult<Bound<'py, PyAny>> {
    static ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = sock.py();
    match sock.call_method0(method) {
        Err(error) if error.matches(py, ERROR.import(py, "socket", "error")?)? => Ok(py.None().into_bound(py)),
        result => result,
    }
}

/// What a transport is, besides its class: a machine `M`, and more `X` that its kind needs.
#[derive(Debug)]
pub struct Base<M, X> {
    pub owner: Py<LoopCore>,
    pub slot: u32,
    pub fd: u32,
    /// The same, for calls on it.
    pub file: BorrowedRawFd,
    pub counters: Arc<Counters>,
    pub state: GilCell<State<M, X>>,
}

/// What of a transport changes.
#[derive(Debug)]
pub struct State<M, X> {
    pub machine: M,
    pub source: Option<Source>,
    /// A second descriptor of the file, where another transport has registered it by its first.
    pub second: Option<OwnedFd>,
    pub sock: Option<Py<PyAny>>,
    /// The bound `fileno` of a socket that the user has, too, and may close under the transport.
    pub fileno: Option<Py<PyAny>>,
    pub protocol: Option<Protocol>,
    pub extra: Option<Py<PyDict>>,
    /// A future that is done once `connection_made` ran.
    pub waiter: Option<Py<PyAny>>,
    /// The context of every callback of the protocol.
    pub context: Option<Py<PyAny>>,
    /// The exception for `connection_lost`.
    pub error: Option<Py<PyBaseException>>,
    pub failpoint: bool,
    pub more: X,
}

impl<M, X> State<M, X> {
    /// Deregisters the file; `ours`: its object still has the fd that was registered.
    fn deregister(&mut self, ours: bool) {
        if let Some(source) = self.source.take() {
            source.deregister(ours || self.second.is_some());
        }
        drop(self.second.take());
    }
}

/// What a call of a protocol needs.
#[derive(Debug)]
pub struct Callee {
    pub protocol: Protocol,
    pub context: Py<PyAny>,
}

impl<M, X> Base<M, X> {
    /// Reserves a slot in the loop; the file is not registered yet. `private`: nobody else has the socket, so it is
    /// never asked for its number again.
    ///
    /// # Errors
    /// Whatever the protocol's `__class__` raises, `MemoryError`.
    pub fn new(
        owner: &Bound<'_, LoopCore>,
        parts: Parts<'_, '_>,
        checked: Checked<'_>,
        private: bool,
        kind: EndpointKind,
        (machine, more): (M, X),
    ) -> PyResult<Self> {
        let py = owner.py();
        let Checked { file, fd, fileno, extra } = checked;
        let protocol = Protocol::new(parts.protocol)?;
        let context = parts.context.map_or_else(|| ffi::copy_context(py), |context| Ok(context.clone().unbind()))?;
        let state = State {
            machine,
            source: None,
            second: None,
            sock: Some(parts.file.clone().unbind()),
            fileno: (!private).then(|| fileno.unbind()),
            protocol: Some(protocol),
            extra: Some(extra.unbind()),
            waiter: parts.waiter.map(|waiter| waiter.clone().unbind()),
            context: Some(context),
            error: None,
            failpoint: false,
            more,
        };
        let slot = owner.get().io.with(py, |io| io.slots.reserve());
        let counters = Counters::new(fd, kind);
        Ok(Self { owner: owner.clone().unbind(), slot, fd, file, counters, state: GilCell::new(state) })
    }

    /// Registers a file for reading, and (`write`) for writing.
    ///
    /// # Errors
    /// The kernel's, or that the loop is closed.
    pub fn register(&self, py: Python<'_>, file: BorrowedRawFd, write: bool) -> io::Result<Source> {
        self.owner.get().io.with(py, |io| match &io.reactor {
            Some(reactor) => reactor.register(file, self.slot, !write),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// True when the socket object still has the fd that was registered.
    pub fn owns_fd(&self, py: Python<'_>) -> bool {
        let (open, fileno) = self
            .state
            .with(py, |state| (state.sock.is_some(), state.fileno.as_ref().map(|fileno| fileno.clone_ref(py))));
        let Some(fileno) = fileno else { return open };
        open && { fileno.bind(py).call0().and_then(|fd| fd.extract::<i64>()).is_ok_and(|fd| fd == i64::from(self.fd)) }
    }

    /// The fd to make a system call on.
    ///
    /// # Errors
    /// `EBADF` when the socket was closed under the transport.
    pub fn live_fd(&self, py: Python<'_>) -> io::Result<BorrowedRawFd> {
        if self.owns_fd(py) { Ok(self.file) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }

    /// Deregisters the file: no event will come.
    pub fn deregister(&self, py: Python<'_>) {
        let ours = self.owns_fd(py);
        self.state.with(py, |state| state.deregister(ours));
    }

    /// Deregisters the file, lets go of the protocol, and gives back the file's object, to be closed.
    pub fn take_file(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.deregister(py);
        let (sock, rest) = self
            .state
            .with(py, |state| (state.sock.take(), (state.fileno.take(), state.protocol.take(), state.context.take())));
        drop(rest);
        sock
    }

    /// Frees its slot in the loop.
    pub fn free_slot(&self, py: Python<'_>) {
        drop(self.owner.get().io.with(py, |io| io.slots.remove(self.slot, self.fd)));
    }

    /// It came to nothing: deregisters it, and the file stays the caller's.
    pub fn withdraw(&self, py: Python<'_>) {
        drop(self.take_file(py));
        self.free_slot(py);
    }

    /// The transport goes with its file open: warns of it, as asyncio does, and closes it.
    ///
    /// # Errors
    /// As [`close_unclosed`].
    pub fn close_unclosed(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let sock = self.take_file(py);
        sock.map_or(Ok(()), |sock| close_unclosed(sock.bind(py), &format!("{name} fd={}", self.fd)))
    }

    // ---- the protocol

    pub fn protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.object.clone_ref(py)))
    }

    pub fn extra(&self, py: Python<'_>) -> Option<Py<PyDict>> {
        self.state.with(py, |state| state.extra.as_ref().map(|extra| extra.clone_ref(py)))
    }

    #[inline]
    pub fn callee(&self, py: Python<'_>) -> Option<Callee> {
        self.state.with(py, |state| {
            Some(Callee {
                protocol: state.protocol.as_ref()?.clone_ref(py),
                context: state.context.as_ref()?.clone_ref(py),
            })
        })
    }

    /// Calls the protocol in its context, if there is one.
    ///
    /// # Errors
    /// What the method raises.
    pub fn call(&self, method: &Bound<'_, PyString>, arg: Bound<'_, PyAny>) -> PyResult<()> {
        let py = arg.py();
        let Some(Callee { protocol, context }) = self.callee(py) else { return Ok(()) };
        ffi::in_context(py, &context, || protocol.call1(method, arg).map(drop))
    }

    /// Calls the protocol in the context that is.
    ///
    /// # Errors
    /// What the method raises.
    pub fn tell(&self, method: &Bound<'_, PyString>) -> PyResult<()> {
        let protocol = self.protocol(method.py());
        protocol.map_or(Ok(()), |protocol| protocol.bind(method.py()).call_method0(method).map(drop))
    }

    /// The exception for `connection_lost`: the one that was kept, or what stands for a fault of the machine.
    pub fn lost_error(&self, py: Python<'_>, fault: Fault) -> Option<PyErr> {
        let kept = self.state.with(py, |state| state.error.take());
        let error = kept.map(|kept| PyErr::from_value(kept.into_bound(py).into_any()));
        error.or_else(|| fault_error(py, fault))
    }

    /// Calls `connection_lost`.
    ///
    /// # Errors
    /// What the protocol raises.
    pub fn tell_lost(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        log_debug!("lost fd={} {}", self.fd, error.map_or_else(String::new, ToString::to_string));
        let arg = match error {
            Some(error) => error.value(py).clone().into_any(),
            None => py.None().into_bound(py),
        };
        self.call(intern!(py, "connection_lost"), arg)
    }

    // ---- the garbage collector

    /// Visits the objects that every transport has; `rest` visits the others.
    ///
    /// # Errors
    /// What the visitor says.
    pub fn traverse(
        &self,
        visit: &PyVisit<'_>,
        rest: fn(&State<M, X>, &PyVisit<'_>) -> Result<(), PyTraverseError>,
    ) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        let Some(state) = self.state.traversed(visit) else { return Ok(()) };
        let objects = [&state.sock, &state.fileno, &state.waiter, &state.context];
        objects.into_iter().flatten().try_for_each(|object| visit.call(object))?;
        if let Some(error) = &state.error {
            visit.call(error)?;
        }
        if let Some(protocol) = &state.protocol {
            protocol.traverse(visit)?;
        }
        if let Some(extra) = &state.extra {
            visit.call(extra)?;
        }
        rest(&state, visit)
    }

    /// Lets go of the objects that are left when the file is closed.
    pub fn clear(&self, py: Python<'_>) {
        drop(self.state.with(py, |state| (state.extra.take(), state.waiter.take(), state.error.take())));
    }
}
