//! Making a [`StreamTransport`], over a socket or over a pipe.
//!
//! The file stays the caller's until the transport is registered. From then on it is closed with the transport.

use std::io;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyClassInitializer, intern};

use super::cell::GilCell;
use super::errors::io_error;
use super::ffi;
use super::loop_core::{Entry, LoopCore};
use super::pipe::{ReadPipeTransport, WritePipeTransport};
use super::protocol::Protocol;
use super::slots::Life;
use super::stream::{State, StreamTransport, address_or_none, transport_socket};
use crate::core::stream::{Policy, Stream};
use crate::io::counters::{self as stats, Counters};
use crate::io::endpoint::{self, Kind};
use crate::io::sys::BorrowedRawFd;

/// What every transport is made of.
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

impl<'py> Parts<'_, 'py> {
    /// Checks the parts; the file, its bound `fileno`, and a dict of extra information to add to.
    fn check(&self, owner: &Bound<'py, LoopCore>) -> PyResult<(BorrowedRawFd, Bound<'py, PyAny>, Bound<'py, PyDict>)> {
        let py = owner.py();
        owner.get().check_open()?;
        let fileno = self.file.getattr(intern!(py, "fileno"))?;
        let file = ffi::file_of(self.file)?;
        // A protocol without it is refused here, before anything is scheduled.
        self.protocol.getattr(intern!(py, "connection_made"))?;
        let extra = match self.extra {
            Some(extra) => extra.copy()?,
            None => PyDict::new(py),
        };
        Ok((file, fileno, extra))
    }
}

fn number(py: Python<'_>, file: BorrowedRawFd) -> PyResult<u32> {
    file.number().map_err(|error| io_error(py, &error))
}

impl StreamTransport {
    /// Over a connected stream socket. `private`: nobody else has it, so it is never asked for its number again.
    ///
    /// # Errors
    /// `RuntimeError` when the loop is closed or a transport has the fd, `OSError` when it cannot be registered.
    pub fn create(
        owner: &Bound<'_, LoopCore>,
        parts: Parts<'_, '_>,
        server: Option<&Bound<'_, PyAny>>,
        private: bool,
    ) -> PyResult<Py<Self>> {
        let (py, sock) = (owner.py(), parts.file);
        let (file, fileno, extra) = parts.check(owner)?;
        super::watch::check_no_transport(owner, number(py, file)?, sock)?;
        extra.set_item(intern!(py, "socket"), transport_socket(sock)?)?;
        extra.set_item(intern!(py, "sockname"), address_or_none(sock, "getsockname")?)?;
        if !extra.contains(intern!(py, "peername"))? {
            extra.set_item(intern!(py, "peername"), address_or_none(sock, "getpeername")?)?;
        }
        let (policy, shown) = match endpoint::Protocol::of(file) {
            endpoint::Protocol::Tcp => (Policy::TCP, stats::Kind::Tcp),
            endpoint::Protocol::Unix => (Policy::SOCKET, stats::Kind::Unix),
            endpoint::Protocol::Other => (Policy::SOCKET, stats::Kind::Stream),
        };
        if policy == Policy::TCP {
            endpoint::set_nodelay(file);
        }
        let fileno = (!private).then_some(fileno);
        let stream = Self::register(owner, parts, file, (policy, Kind::Socket, shown), fileno, extra)?;
        if let Some(server) = server {
            // A server that its own protocol factory closed takes no more transports.
            if let Err(error) = owner.call_method1(intern!(py, "_server_attach"), (server, &stream)) {
                stream.get().withdraw(py);
                return Err(error);
            }
            let server = server.clone().unbind();
            stream.get().state.with(py, |state| state.server = Some(server));
        }
        LoopCore::push(owner, Entry::Life(Life::Made, Box::new(Self::endpoint(stream.bind(py)))));
        Ok(stream)
    }

    /// Over a pipe, terminal, or socket of which one direction is used; non-blocking by now. The other direction may be
    /// another transport's: a terminal is read and written by one descriptor.
    ///
    /// # Errors
    /// `RuntimeError` when the loop is closed, `OSError` when it cannot be registered.
    pub fn create_pipe(
        owner: &Bound<'_, LoopCore>,
        parts: Parts<'_, '_>,
        policy: Policy,
        kind: Kind,
    ) -> PyResult<Py<Self>> {
        let py = owner.py();
        let (file, fileno, extra) = parts.check(owner)?;
        extra.set_item(intern!(py, "pipe"), parts.file)?;
        let stream = Self::register(owner, parts, file, (policy, kind, stats::Kind::Pipe), Some(fileno), extra)?;
        LoopCore::push(owner, Entry::Life(Life::Made, Box::new(Self::endpoint(stream.bind(py)))));
        Ok(stream)
    }

    /// Makes the transport of a file that was registered just now.
    fn register(
        owner: &Bound<'_, LoopCore>,
        parts: Parts<'_, '_>,
        file: BorrowedRawFd,
        (policy, kind, shown): (Policy, Kind, stats::Kind),
        fileno: Option<Bound<'_, PyAny>>,
        extra: Bound<'_, PyDict>,
    ) -> PyResult<Py<Self>> {
        let py = owner.py();
        let fd = number(py, file)?;
        let protocol = Protocol::new(parts.protocol)?;
        let context = match parts.context {
            Some(context) => context.clone().unbind(),
            None => ffi::copy_context(py)?,
        };
        let is_pipe = !(policy.readable && policy.writable);
        let (slot, registered) = owner.get().io.with(py, |io| {
            let slot = io.slots.reserve();
            let register = |fd| match &io.reactor {
                Some(reactor) => reactor.register(fd, slot, !policy.writable),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            let registered = match register(file) {
                // An epoll takes a file once by each descriptor.
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) && is_pipe => {
                    endpoint::duplicate(file).and_then(|(second, number)| Ok((register(number)?, Some(second))))
                }
                result => result.map(|source| (source, None)),
            };
            (slot, registered)
        });
        let (source, second, kind) = match registered {
            Ok((source, second)) => (Some(source), second, kind),
            // epoll_ctl(2): the file does not support epoll.
            Err(error) if kind == Kind::File && error.raw_os_error() == Some(libc::EPERM) => (None, None, Kind::Device),
            Err(error) => {
                drop(owner.get().io.with(py, |io| io.slots.remove(slot, fd)));
                return Err(io_error(py, &error));
            }
        };
        let state = GilCell::new(State {
            machine: Stream::new(policy),
            source,
            second,
            sock: Some(parts.file.clone().unbind()),
            fileno: fileno.map(Bound::unbind),
            protocol: Some(protocol),
            extra: Some(extra.unbind()),
            server: None,
            waiter: parts.waiter.map(|waiter| waiter.clone().unbind()),
            drain_waiter: None,
            context: Some(context),
            error: None,
            failpoint: false,
        });
        let counters = Counters::new(fd, shown);
        let stream = Self { owner: owner.clone().unbind(), slot, fd, file, kind, counters, state };
        let stream = match policy {
            Policy { writable: false, .. } => {
                let class = PyClassInitializer::from(stream).add_subclass(ReadPipeTransport);
                ffi::make_with_dict(py, class)?.into_super().unbind()
            }
            Policy { readable: false, .. } => {
                let class = PyClassInitializer::from(stream).add_subclass(WritePipeTransport);
                ffi::make_with_dict(py, class)?.into_super().unbind()
            }
            _ => ffi::make_with_dict(py, stream)?.unbind(),
        };
        let endpoint = Self::endpoint(stream.bind(py));
        owner.get().io.with(py, |io| io.slots.fill(slot, &stream.get().counters, endpoint));
        Ok(stream)
    }

    /// It came to nothing: deregisters it, and the file stays the caller's.
    fn withdraw(&self, py: Python<'_>) {
        let ours = self.owns_fd(py);
        let file = self.state.with(py, |state| {
            state.release(ours);
            state.sock.take()
        });
        let endpoint = self.owner.get().io.with(py, |io| io.slots.remove(self.slot, self.fd));
        drop((file, endpoint));
    }
}
