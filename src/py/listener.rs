//! A listening socket: accepts in bursts, makes a transport of each connection.
//!
//! What a server's `protocol_factory` raises is reported to the exception handler, and that connection is closed; the
//! server goes on. Without resources to accept (EMFILE and its like) the listener rests for a second, as asyncio's
//! does.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use socket2::SockAddr;

use super::cell::GilCell;
use super::errors::{contain, io_error, is_exit, report, report_panic};
use super::ffi;
use super::stream::StreamTransport;
use crate::core::accept::{Accept, AcceptError};
use crate::core::drive::accept::{self as drive, Host};
use crate::io::counters::{Counters, EndpointKind};
use crate::io::endpoint;
use crate::io::source::{self, Source};
use crate::io::sys::BorrowedRawFd;
use crate::log_debug;
use crate::py::event_loop::loop_core::{Entry, LoopCore};
use crate::py::event_loop::slots::{EndpointRef, Ops};
use crate::py::transport::base::{Parts, transport_socket};

#[derive(Debug)]
struct State {
    machine: Accept,
    source: Option<Source>,
    sock: Option<Py<PyAny>>,
    server: Option<Py<PyAny>>,
    factory: Option<Py<PyAny>>,
    /// Called as `(conn, address, context)` for connections that get TLS.
    accept_secure: Option<Py<PyAny>>,
    /// Each connection gets a copy: for its protocol factory and its callbacks.
    context: Option<Py<PyAny>>,
}

/// Accepts the connections of one listening socket.
#[pyclass(module = "tokioloop._tokioloop", frozen, weakref)]
#[derive(Debug)]
pub struct Listener {
    pub owner: Py<LoopCore>,
    slot: u32,
    pub fd: u32,
    /// Family, type (non-blocking) and protocol of the connections' socket objects.
    kind: (i32, i32, i32),
    pub counters: Arc<Counters>,
    state: GilCell<State>,
}

static OPS: Ops = Ops {
    handle_io: |listener, _| Listener::handle_io(listener.cast()?),
    panicked: |listener, payload| report_panic(listener.cast::<Listener>()?.get().owner.bind(listener.py()), payload),
    deregister: |listener| {
        listener.cast::<Listener>()?.get().let_go(listener.py());
        Ok(())
    },
    // It has no protocol, and writes nothing.
    handle_life: |_, _| Ok(()),
    uncork: |_, _| Ok(()),
    forget_corked: |_| Ok(()),
    uses_file: |_| Ok(false),
};

impl Listener {
    pub fn start(
        owner: &Bound<'_, LoopCore>,
        sock: &Bound<'_, PyAny>,
        backlog: u32,
        server: Option<Py<PyAny>>,
        factory: Py<PyAny>,
        accept_secure: Option<Py<PyAny>>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = owner.py();
        owner.get().check_open()?;
        let file = ffi::file_of(sock)?;
        let fd = file.number().map_err(|error| io_error(py, &error))?;
        let int = |name| -> PyResult<i32> { sock.getattr(name)?.extract() };
        let kind = (int("family")?, int("type")? | libc::SOCK_NONBLOCK, int("proto")?);
        let context = context.map_or_else(|| ffi::copy_context(py), Ok)?;
        let slot = owner.get().io.with(py, |io| io.slots.reserve());
        let state = State {
            machine: Accept::new(backlog),
            source: None,
            sock: Some(sock.clone().unbind()),
            server,
            factory: Some(factory),
            accept_secure,
            context: Some(context),
        };
        let counters = Counters::new(fd, EndpointKind::Listener);
        let this = Self { owner: owner.clone().unbind(), slot, fd, kind, counters, state: GilCell::new(state) };
        let listener = Py::new(py, this)?;
        let registered = owner.get().io.with(py, |io| match &io.reactor {
            Some(reactor) => reactor.register(file, slot, true),
            None => Err(io::ErrorKind::NotConnected.into()),
        });
        match registered {
            Ok(source) => listener.get().state.with(py, |state| state.source = Some(source)),
            Err(error) => {
                drop(owner.get().io.with(py, |io| io.slots.remove(slot, fd)));
                return Err(io_error(py, &error));
            }
        }
        let endpoint = EndpointRef::new(listener.bind(py), &OPS, fd);
        owner.get().io.with(py, |io| io.slots.fill(slot, &listener.get().counters, endpoint));
        drive::start(&mut listener.bind(py));
        log_debug!("listening fd={fd}");
        Ok(())
    }

    fn of(py: Python<'_>, endpoint: &EndpointRef) -> Option<Py<Self>> {
        endpoint.object.bind(py).cast_exact::<Self>().ok().map(|listener| listener.clone().unbind())
    }

    /// Stops accepting on a listening socket; one that is not served is left alone.
    pub fn stop(owner: &Bound<'_, LoopCore>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = owner.py();
        let raw: i32 = sock.call_method0(intern!(py, "fileno"))?.extract()?;
        let listener = owner.get().io.with(py, |io| match u32::try_from(raw) {
            Ok(fd) => io.slots.by_fd(fd).and_then(|endpoint| Self::of(py, endpoint)),
            // Its owner has closed it, so it is known by its object only; its slot is still to be freed.
            Err(_) => io
                .slots
                .iter()
                .filter_map(|endpoint| Self::of(py, endpoint))
                .find(|listener| listener.get().serves(sock)),
        });
        if let Some(listener) = listener {
            listener.get().let_go(py);
            let this = listener.get();
            drop(owner.get().io.with(py, |io| io.slots.remove(this.slot, this.fd)));
            log_debug!("listening ended fd={}", this.fd);
        }
        Ok(())
    }

    /// Deregisters it and lets go of everything.
    pub fn let_go(&self, py: Python<'_>) {
        let ours = self.owns_fd(py);
        let dropped = self.state.with(py, |state| {
            state.machine.stop();
            if let Some(source) = state.source.take() {
                source.deregister(ours);
            }
            (
                state.sock.take(),
                state.server.take(),
                state.factory.take(),
                state.accept_secure.take(),
                state.context.take(),
            )
        });
        drop(dropped);
    }

    fn serves(&self, sock: &Bound<'_, PyAny>) -> bool {
        self.state.with(sock.py(), |state| state.sock.as_ref().is_some_and(|own| own.is(sock)))
    }

    fn owns_fd(&self, py: Python<'_>) -> bool {
        let sock = self.state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)));
        sock.is_some_and(|sock| {
            sock.bind(py)
                .call_method0(intern!(py, "fileno"))
                .and_then(|fd| fd.extract::<i64>())
                .is_ok_and(|fd| fd == i64::from(self.fd))
        })
    }

    /// There may be connections to accept.
    pub fn handle_io(slf: &Bound<'_, Self>) -> PyResult<()> {
        drive::handle_ready(&mut &*slf)
    }

    fn shown_socket<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let sock = self.state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)));
        sock.map(|sock| transport_socket(sock.bind(py))).transpose()
    }

    /// Makes the transport of a connection.
    ///
    /// # Errors
    /// Only an exit.
    fn connect(slf: &Bound<'_, Self>, conn: OwnedFd, address: &SockAddr) -> PyResult<()> {
        static SOCKET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let owner = this.owner.bind(py);
        let parts = this.state.with(py, |state| {
            Some((
                state.factory.as_ref()?.clone_ref(py),
                state.context.as_ref()?.clone_ref(py),
                state.server.as_ref().map(|server| server.clone_ref(py)),
                state.accept_secure.as_ref().map(|accept| accept.clone_ref(py)),
            ))
        });
        // A listener that was stopped accepts no more.
        let Some((factory, context, server, accept_secure)) = parts else { return Ok(()) };
        let context = ffi::copy_of_context(py, &context)?;
        let (family, kind, proto) = this.kind;
        let sock = SOCKET.import(py, "socket", "socket");
        let sock = match sock.and_then(|class| class.call1((family, kind, proto, conn.as_raw_fd()))) {
            Ok(sock) => sock,
            // An audit hook refused it: `conn` is closed as it is dropped.
            Err(error) => return Self::refused(owner, &context, error),
        };
        // The socket object closes it from now on.
        let _fd = conn.into_raw_fd();
        let made = ffi::in_context(py, &context, || {
            let peer = match peer_name(py, address)? {
                Some(peer) => peer.into_any(),
                None => sock.call_method0(intern!(py, "getpeername"))?,
            };
            if let Some(accept) = accept_secure {
                return accept.call1(py, (&sock, peer, &context)).map(drop);
            }
            let protocol = factory.bind(py).call0()?;
            let extra = PyDict::new(py);
            extra.set_item(intern!(py, "peername"), peer)?;
            let server = server.as_ref().map(|server| server.bind(py));
            let context = Some(context.bind(py));
            let parts = Parts { file: &sock, protocol: &protocol, waiter: None, extra: Some(&extra), context };
            StreamTransport::create(owner, parts, server, true).map(drop)
        });
        match made {
            Ok(()) => Ok(()),
            Err(error) => {
                let closed = contain(owner, sock.call_method0(intern!(py, "close")).map(drop));
                Self::refused(owner, &context, error).and(closed)
            }
        }
    }

    /// Reports that there is no transport for a connection.
    fn refused(owner: &Bound<'_, LoopCore>, context: &Py<PyAny>, error: PyErr) -> PyResult<()> {
        let py = owner.py();
        if is_exit(py, &error) {
            return Err(error);
        }
        ffi::in_context(py, context, || {
            report(owner, "Error on transport creation for incoming connection", Some(&error), &[])
        })
    }
}

/// A listener as the surroundings of its driver.
impl Host for &Bound<'_, Listener> {
    type Error = PyErr;
    type File = BorrowedRawFd;
    type Connection = (OwnedFd, SockAddr);
    type Refusal = io::Error;

    fn machine<R>(&mut self, f: impl FnOnce(&mut Accept) -> R) -> R {
        self.get().state.with(self.py(), |state| f(&mut state.machine))
    }

    fn file(&mut self) -> Option<BorrowedRawFd> {
        let (py, this) = (self.py(), self.get());
        let ours = this.owns_fd(py);
        this.state.with(py, |state| state.source.as_ref().map(Source::fd)).filter(|_| ours)
    }

    fn accept(&mut self, fd: BorrowedRawFd) -> Result<(OwnedFd, SockAddr), (AcceptError, io::Error)> {
        let accepted = endpoint::accept(fd)?;
        self.get().counters.received(0);
        Ok(accepted)
    }

    fn connect(&mut self, (conn, address): (OwnedFd, SockAddr)) -> PyResult<()> {
        Listener::connect(self, conn, &address)
    }

    fn watch(&mut self, empty: bool) -> bool {
        let arm = if empty { Source::clear_read } else { Source::arm_read };
        self.get().state.with(self.py(), |state| state.source.as_ref().is_some_and(arm))
    }

    fn queue(&mut self) {
        let this = self.get();
        LoopCore::push(this.owner.bind(self.py()), Entry::Io(source::token(this.slot, false)));
    }

    fn rest(&mut self, secs: f64) -> PyResult<()> {
        let py = self.py();
        let resume = self.getattr(intern!(py, "_resume"))?;
        self.get().owner.bind(py).call_method1(intern!(py, "call_later"), (secs, resume)).map(drop)
    }

    fn report(&mut self, class: AcceptError, refusal: io::Error) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        let error = io_error(py, &refusal);
        let message = match class {
            AcceptError::OutOfResources => "socket.accept() out of system resource",
            _ => "socket.accept() failed",
        };
        report(this.owner.bind(py), message, Some(&error), &[("socket", this.shown_socket(py)?)])
    }

    fn dispose(&mut self) {
        self.get().let_go(self.py());
    }
}

/// The address as Python's `socket` gives it; `None` for the kinds left to Python.
fn peer_name<'py>(py: Python<'py>, address: &SockAddr) -> PyResult<Option<Bound<'py, PyTuple>>> {
    if let Some(v4) = address.as_socket_ipv4() {
        return (v4.ip().to_string(), v4.port()).into_pyobject(py).map(Some);
    }
    if let Some(v6) = address.as_socket_ipv6().filter(|v6| v6.scope_id() == 0 && v6.ip().to_ipv4_mapped().is_none()) {
        return (v6.ip().to_string(), v6.port(), u32::from_be(v6.flowinfo()), v6.scope_id())
            .into_pyobject(py)
            .map(Some);
    }
    Ok(None)
}

#[pymethods]
impl Listener {
    /// There may be connections to accept, for who has the loop's queue in hand.
    fn _read_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::handle_io(slf)
    }

    /// The pause after an error is over.
    fn _resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        drive::handle_rested(&mut &*slf)
    }

    fn __repr__(&self) -> String {
        format!("<Listener fd={}>", self.fd)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        if let Some(state) = self.state.traversed(&visit) {
            let objects = [&state.sock, &state.server, &state.factory, &state.accept_secure, &state.context];
            objects.into_iter().flatten().try_for_each(|object| visit.call(object))?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        self.let_go(py);
    }
}
