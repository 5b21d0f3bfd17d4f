//! Making a [`StreamTransport`], over a socket or over a pipe.
//!
//! The file stays the caller's until the transport is registered. From then on it is closed with the transport.

use pyo3::prelude::*;
use pyo3::{PyClassInitializer, intern};

use super::pipe::{ReadPipeTransport, WritePipeTransport};
use super::{More, StreamTransport};
use crate::core::stream::{Policy, Stream};
use crate::io::counters::EndpointKind;
use crate::io::endpoint::{self, FileKind};
use crate::py::errors::io_error;
use crate::py::event_loop::loop_core::{Entry, LoopCore};
use crate::py::event_loop::slots::Life;
use crate::py::ffi;
use crate::py::transport::Transport;
use crate::py::transport::base::{Base, Checked, Parts};

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
        let py = owner.py();
        let checked = parts.check_socket(owner)?;
        let file = checked.file;
        let (policy, shown) = match endpoint::Protocol::of(file) {
            endpoint::Protocol::Tcp => (Policy::TCP, EndpointKind::Tcp),
            endpoint::Protocol::Unix => (Policy::SOCKET, EndpointKind::Unix),
            endpoint::Protocol::Other => (Policy::SOCKET, EndpointKind::Stream),
        };
        if policy == Policy::TCP {
            endpoint::set_nodelay(file);
        }
        let stream = Self::register(owner, parts, checked, private, (policy, FileKind::Socket, shown))?;
        if let Some(server) = server {
            // A server that its own protocol factory closed takes no more transports.
            if let Err(error) = owner.call_method1(intern!(py, "_server_attach"), (server, &stream)) {
                stream.get().base.withdraw(py);
                return Err(error);
            }
            let server = server.clone().unbind();
            stream.get().base.state.with(py, |state| state.more.server = Some(server));
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
        kind: FileKind,
    ) -> PyResult<Py<Self>> {
        let py = owner.py();
        let checked = parts.check(owner)?;
        checked.extra.set_item(intern!(py, "pipe"), parts.file)?;
        let stream = Self::register(owner, parts, checked, false, (policy, kind, EndpointKind::Pipe))?;
        LoopCore::push(owner, Entry::Life(Life::Made, Box::new(Self::endpoint(stream.bind(py)))));
        Ok(stream)
    }

    /// Registers the file, and makes its transport.
    fn register(
        owner: &Bound<'_, LoopCore>,
        parts: Parts<'_, '_>,
        checked: Checked<'_>,
        private: bool,
        (policy, kind, shown): (Policy, FileKind, EndpointKind),
    ) -> PyResult<Py<Self>> {
        let (py, file) = (owner.py(), checked.file);
        let base = Base::new(owner, parts, checked, private, shown, (Stream::new(policy), More::default()))?;
        let registered = match base.register(py, file, policy.writable) {
            // Another transport has registered the file by this descriptor: an epoll takes it again by a second one.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && !(policy.readable && policy.writable) => {
                endpoint::duplicate(file)
                    .and_then(|(second, number)| Ok((base.register(py, number, policy.writable)?, Some(second))))
            }
            result => result.map(|source| (source, None)),
        };
        let (source, second, kind) = match registered {
            Ok((source, second)) => (Some(source), second, kind),
            // epoll_ctl(2): the file does not support epoll.
            Err(error) if kind == FileKind::File && error.raw_os_error() == Some(libc::EPERM) => {
                (None, None, FileKind::Device)
            }
            Err(error) => {
                base.free_slot(py);
                return Err(io_error(py, &error));
            }
        };
        base.state.with(py, |state| (state.source, state.second) = (source, second));
        let stream = Self { base, kind };
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
        let (base, endpoint) = (&stream.get().base, Self::endpoint(stream.bind(py)));
        owner.get().io.with(py, |io| io.slots.fill(base.slot, &base.counters, endpoint));
        Ok(stream)
    }
}
