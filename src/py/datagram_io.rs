//! The life of a [`DatagramTransport`]: registration, events, its end. `datagram_host` has what its driver needs.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//! Before each system call a socket that the user handed in is asked for its fd: closed under the transport it has none,
//! and the number may be another file's by then.

use std::any::Any;
use std::io;
use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::address::Peers;
use super::cell::GilCell;
use super::datagram::{DatagramTransport, State};
use super::errors::{close_unclosed, io_error, passes_through, report};
use super::ffi;
use super::loop_core::{Entry, LoopCore};
use super::slots::{EndpointRef, Life, Ops};
use super::stream::{address_or_none, transport_socket};
use super::waiter::settle;
use crate::core::datagram::{Datagram, Policy};
use crate::core::drive::datagram as drive;
use crate::io::counters::{Counters, Kind};
use crate::io::datagram::Family;
use crate::io::source::Source;
use crate::io::sys::BorrowedRawFd;
use crate::log_debug;

static OPS: Ops = Ops {
    handle_io: |transport, write| DatagramTransport::handle_io(transport.cast()?, write),
    handle_life: |transport, life| DatagramTransport::handle_life(transport.cast()?, life),
    uncork: |transport, enter| DatagramTransport::release(transport.cast()?, enter),
    forget_corked: |transport| DatagramTransport::forget_corked(transport.cast()?),
    panicked: |transport, payload| DatagramTransport::panicked(transport.cast()?, payload),
    uses_file: |transport| {
        let (py, this) = (transport.py(), transport.cast::<DatagramTransport>()?.get());
        Ok(!this.is_closing_now(py) && this.owns_fd(py))
    },
    orphan: |transport| {
        transport.cast::<DatagramTransport>()?.get().orphan(transport.py());
        Ok(())
    },
};

impl DatagramTransport {
    /// What the loop knows of it.
    pub fn endpoint(slf: &Bound<'_, Self>) -> EndpointRef {
        EndpointRef::new(slf, &OPS, slf.get().fd)
    }

    pub fn create(
        owner: &Bound<'_, LoopCore>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        address: Option<&Bound<'_, PyAny>>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Self>> {
        let py = owner.py();
        owner.get().check_open()?;
        let private = owner.get().private_datagrams.swap(false, Ordering::Relaxed);
        let fileno = sock.getattr(intern!(py, "fileno"))?;
        let file = ffi::file_of(sock)?;
        let fd = file.number().map_err(|error| io_error(py, &error))?;
        super::watch::check_no_transport(owner, fd, sock)?;
        // A protocol without it is refused here, before anything is scheduled.
        protocol.getattr(intern!(py, "connection_made"))?;
        let extra = match extra {
            Some(extra) => extra.copy()?,
            None => PyDict::new(py),
        };
        extra.set_item(intern!(py, "socket"), transport_socket(sock)?)?;
        extra.set_item(intern!(py, "sockname"), address_or_none(sock, "getsockname")?)?;
        if !extra.contains(intern!(py, "peername"))? {
            extra.set_item(intern!(py, "peername"), address_or_none(sock, "getpeername")?)?;
        }
        let peer = extra.get_item(intern!(py, "peername"))?;
        let connected = peer.as_ref().map_or(Ok(false), PyAnyMethods::is_truthy)?;
        let paired = !connected && peer.is_some_and(|peer| !peer.is_none());
        let address = match address {
            Some(address) if address.is_truthy()? => Some(address.clone().unbind()),
            _ => None,
        };
        let header = if py.version_info() >= (3, 13) { 8 } else { 0 };
        let policy = Policy { header, batches: !connected && !paired, fixed: address.is_some() };
        let context = ffi::copy_context(py)?;
        let slot = owner.get().io.with(py, |io| io.slots.reserve());
        let state = State {
            machine: Datagram::new(policy),
            source: None,
            sock: Some(sock.clone().unbind()),
            fileno: (!private).then(|| fileno.unbind()),
            protocol: Some(protocol.clone().unbind()),
            extra: Some(extra.unbind()),
            address,
            waiter: waiter.map(|waiter| waiter.clone().unbind()),
            context: Some(context),
            error: None,
            peers: Peers::default(),
            arrivals: Vec::new(),
            failpoint: false,
        };
        let family = Family::of(file);
        let counters = Counters::new(fd, Kind::Udp);
        let (owned, state) = (owner.clone().unbind(), GilCell::new(state));
        let this = Self { owner: owned, slot, fd, file, family, connected, paired, counters, state };
        let transport = ffi::make_with_dict(py, this)?.unbind();
        match transport.get().register(py, false) {
            Ok(source) => transport.get().state.with(py, |state| state.source = Some(source)),
            Err(error) => {
                transport.get().withdraw(py);
                return Err(io_error(py, &error));
            }
        }
        let (endpoint, counters) = (Self::endpoint(transport.bind(py)), &transport.get().counters);
        owner.get().io.with(py, |io| io.slots.fill(slot, counters, endpoint));
        LoopCore::push(owner, Entry::Life(Life::Made, Box::new(Self::endpoint(transport.bind(py)))));
        Ok(transport)
    }

    fn register(&self, py: Python<'_>, write: bool) -> io::Result<Source> {
        self.owner.get().io.with(py, |io| match &io.reactor {
            Some(reactor) => reactor.register(self.file, self.slot, !write),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// Registers the socket anew, for writability, too, or for reading and errors only: whether it is readable and writable;
    /// otherwise the wakers are armed.
    ///
    /// # Errors
    /// That it was closed, or the kernel's.
    pub fn register_anew(&self, py: Python<'_>, write: bool) -> io::Result<(bool, bool)> {
        let fd = self.live_fd(py);
        let old = self.state.with(py, |state| state.source.take());
        if let Some(source) = old {
            source.release(fd.is_ok());
        }
        fd?;
        let source = self.register(py, write)?;
        let ready = (source.arm_read(), source.arm_write());
        self.state.with(py, |state| state.source = Some(source));
        Ok(ready)
    }

    /// It came to nothing: deregisters it, and the socket stays the caller's.
    fn withdraw(&self, py: Python<'_>) {
        self.orphan(py);
        let sock = self.state.with(py, |state| state.sock.take());
        let endpoint = self.owner.get().io.with(py, |io| io.slots.remove(self.slot, self.fd));
        drop((sock, endpoint));
    }

    /// True when the socket object still has the fd that was registered.
    pub fn owns_fd(&self, py: Python<'_>) -> bool {
        let (open, fileno) = self
            .state
            .with(py, |state| (state.sock.is_some(), state.fileno.as_ref().map(|fileno| fileno.clone_ref(py))));
        let Some(fileno) = fileno else { return open };
        open && { fileno.bind(py).call0().and_then(|fd| fd.extract::<i64>()).is_ok_and(|fd| fd == i64::from(self.fd)) }
    }

    pub fn live_fd(&self, py: Python<'_>) -> io::Result<BorrowedRawFd> {
        if self.owns_fd(py) { Ok(self.file) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }

    // ---- events, called by the turn

    pub fn handle_life(slf: &Bound<'_, Self>, life: Life) -> PyResult<()> {
        match life {
            Life::Made => Self::handle_made(slf),
            Life::Lost => drive::handle_lost(&mut &*slf),
        }
    }

    fn handle_made(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        log_debug!("made fd={}", slf.get().fd);
        let waiter = slf.get().state.with(py, |state| state.waiter.take());
        let result = drive::handle_made(&mut &*slf);
        let told = waiter.map_or(Ok(()), |waiter| settle(waiter.bind(py), None));
        result.and(told)
    }

    pub fn handle_io(slf: &Bound<'_, Self>, write: bool) -> PyResult<()> {
        let this = slf.get();
        if cfg!(feature = "failpoints") {
            assert!(
                !this.state.with(slf.py(), |state| std::mem::take(&mut state.failpoint)),
                "failpoint: the next event of fd={} was to panic",
                this.fd
            );
        }
        if write { drive::handle_writable(&mut &*slf) } else { drive::handle_readable(&mut &*slf) }
    }

    /// Deregisters and closes the socket, and lets go of everything.
    pub fn dispose(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.orphan(py);
        let (sock, rest) = this.state.with(py, |state| {
            let rest =
                (state.fileno.take(), state.protocol.take(), state.context.take(), std::mem::take(&mut state.peers));
            (state.sock.take(), rest)
        });
        let endpoint = this.owner.get().io.with(py, |io| io.slots.remove(this.slot, this.fd));
        drop((endpoint, rest));
        match sock.map_or(Ok(()), |sock| sock.bind(py).call_method0(intern!(py, "close")).map(drop)) {
            Err(error) if !passes_through(py, &error) => Self::report(slf, "Closing a socket failed", &error),
            result => result,
        }
    }

    /// Deregisters it, and no callback will come: the loop closes with the endpoint open.
    pub fn orphan(&self, py: Python<'_>) {
        let ours = self.owns_fd(py);
        if let Some(source) = self.state.with(py, |state| state.source.take()) {
            source.release(ours);
        }
    }

    /// A panic of ours: reported, and the endpoint closed.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn panicked(slf: &Bound<'_, Self>, payload: &(dyn Any + Send)) -> PyResult<()> {
        let error = super::errors::panic_error(payload);
        Self::report(slf, super::errors::PANIC, &error)?;
        drive::fail(&mut &*slf, error)
    }

    pub fn report(slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let protocol = this.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)));
        let more = [
            ("transport", Some(slf.clone().into_any())),
            ("protocol", protocol.map(|protocol| protocol.into_bound(py))),
        ];
        report(this.owner.bind(py), message, Some(error), &more)
    }

    /// The transport goes with its socket open: says so, as asyncio does, and closes it.
    ///
    /// # Errors
    /// As [`close_unclosed`].
    pub fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.orphan(py);
        let (sock, rest) = self
            .state
            .with(py, |state| (state.sock.take(), (state.fileno.take(), state.protocol.take(), state.context.take())));
        drop(rest);
        sock.map_or(Ok(()), |sock| close_unclosed(sock.bind(py), &format!("DatagramTransport fd={}", self.fd)))
    }
}
