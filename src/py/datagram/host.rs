//! A [`DatagramTransport`] as the surroundings of its driver, `core::drive::datagram`: its loop, its reads, its
//! protocol. `send` has how it sends.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//!
//! What asyncio does with exceptions: an `OSError` of a send or a receive goes to `error_received`, and the transport
//! stays open; what `sendto` raises for other reasons (an address of the wrong type) is fatal; what the protocol raises
//! is reported, or, from within `sendto`, raised there.

use std::io;

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::address;
use super::send::{Message, would_block};
use super::{Arrival, DatagramTransport, More, Packet, Received};
use crate::core::datagram::{BATCH, Datagram};
use crate::core::drive::datagram::{Found, Host};
use crate::core::fault::Fault;
use crate::io::datagram::Family;
use crate::io::source::Source;
use crate::io::sys::{self, BorrowedRawFd, address_bytes};
use crate::log_debug;
use crate::py::chunk::Chunk;
use crate::py::errors::io_error;
use crate::py::event_loop::loop_core::SCRATCH;
use crate::py::ffi;
use crate::py::transport::base::{Callee, State};

impl DatagramTransport {
    /// A batch of datagrams, by `recvfrom(2)`: as fast as `recvmmsg(2)` for ten of them, and faster for one.
    fn receive(&self, py: Python<'_>, force: bool) -> PyResult<Found<PyErr>> {
        let ((count, more, error), arrivals) = self.base.owner.get().scratch.with(py, |scratch| {
            if scratch.is_empty() {
                scratch.resize(SCRATCH, 0);
            }
            self.base.state.with(py, |state| {
                let State { machine, source, more: More { peers, arrivals, .. }, .. } = state;
                let drained = source.as_ref().map_or((0, false, None), |source| {
                    source.drain(BATCH, force, |fd| {
                        let (n, address) = sys::recv_from(fd, scratch.as_mut_slice().into())?;
                        let known = peers.shown(address_bytes(&address)).map(|shown| shown.clone_ref(py));
                        let data = PyBytes::new(py, &scratch[..n]).unbind();
                        match known {
                            Some(from) if arrivals.is_empty() => {
                                machine.handle_received(std::iter::once(Received { data, from }));
                            }
                            known => arrivals.push(Arrival { data, from: known.ok_or_else(|| Box::new(address)) }),
                        }
                        Ok(())
                    })
                });
                (drained, std::mem::take(arrivals))
            })
        });
        // In their order, so those behind a new sender's have waited, too.
        for Arrival { data, from } in arrivals {
            let from = match from {
                Ok(known) => known,
                Err(address) => {
                    // Outside of a borrow: making a tuple may run the garbage collector, and before Python 3.12 that
                    // runs user code.
                    let shown = address::to_python(py, &address)?.unbind();
                    let kept = shown.clone_ref(py);
                    drop(self.base.state.with(py, |state| state.more.peers.keep(*address, kept)));
                    shown
                }
            };
            self.base.state.with(py, |state| state.machine.handle_received(std::iter::once(Received { data, from })));
        }
        Ok(Found { count, more, error: error.map(|error| io_error(py, &error)) })
    }

    /// One datagram by `socket.recvfrom`, which knows the addresses of every family.
    fn receive_by_python(&self, py: Python<'_>, force: bool) -> PyResult<Found<PyErr>> {
        let sock = self.base.state.with(py, |state| {
            let ready = state.source.as_ref().is_some_and(Source::arm_read) || force;
            state.sock.as_ref().filter(|_| ready).map(|sock| sock.clone_ref(py))
        });
        let Some(sock) = sock else { return Ok(Found { count: 0, more: false, error: None }) };
        match sock.bind(py).call_method1(intern!(py, "recvfrom"), (SCRATCH,)) {
            Ok(pair) => {
                let (data, from): (Py<PyBytes>, Py<PyAny>) = pair.extract()?;
                self.base
                    .state
                    .with(py, |state| state.machine.handle_received(std::iter::once(Received { data, from })));
                Ok(Found { count: 1, more: true, error: None })
            }
            Err(error) if would_block(py, &error) => {
                let more = self.base.state.with(py, |state| state.source.as_ref().is_some_and(Source::clear_read));
                Ok(Found { count: 0, more, error: None })
            }
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                Ok(Found { count: 0, more: true, error: Some(error) })
            }
            Err(error) => Err(error),
        }
    }
}

impl<'py> Host for &Bound<'py, DatagramTransport> {
    type Received = Received;
    type Packet = Packet;
    type Message = Message<'py>;
    type File = io::Result<BorrowedRawFd>;

    #[inline]
    fn machine<R>(&mut self, f: impl FnOnce(&mut Datagram<Received, Packet>) -> R) -> R {
        self.get().base.state.with(self.py(), |state| f(&mut state.machine))
    }

    // ---- the kernel

    #[inline]
    fn check_file(&mut self) -> PyResult<()> {
        self.file().map(drop).map_err(|error| io_error(self.py(), &error))
    }

    #[inline]
    fn file(&mut self) -> io::Result<BorrowedRawFd> {
        self.get().base.live_fd(self.py())
    }

    #[inline]
    fn receive(&mut self, force: bool) -> PyResult<Found<PyErr>> {
        let (py, this) = (self.py(), self.get());
        if this.family == Family::Other { this.receive_by_python(py, force) } else { this.receive(py, force) }
    }

    #[inline]
    fn send(&mut self, message: &mut Message<'py>) -> PyResult<bool> {
        self.get().send_message(message)
    }

    fn send_queued(&mut self, fd: io::Result<BorrowedRawFd>, batch: usize) -> PyResult<usize> {
        self.get().send_front(self.py(), fd, batch)
    }

    fn packet(&mut self, message: Message<'py>) -> Packet {
        let Message { bytes, address, to } = message;
        let to = to.unwrap_or_else(|| self.get().destination(address, &bytes));
        Packet { data: Chunk::from(bytes), to }
    }

    fn register(&mut self, write: bool) -> PyResult<(bool, bool)> {
        self.get().register_anew(self.py(), write).map_err(|error| io_error(self.py(), &error))
    }

    fn note_unregistered(&mut self, error: PyErr) {
        log_debug!("lost its registration fd={} {error}", self.get().base.fd);
    }

    fn watch_read(&mut self) -> bool {
        self.get().base.state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::arm_read))
    }

    fn watch_error(&mut self) -> bool {
        self.get().base.state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::arm_write))
    }

    fn watch_write(&mut self) -> bool {
        self.get().base.state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::clear_write))
    }

    // ---- the protocol

    fn connection_made(&mut self) -> PyResult<()> {
        self.get().base.call(intern!(self.py(), "connection_made"), (*self).clone().into_any())
    }

    #[inline]
    fn datagram_received(&mut self, Received { data, from }: Received) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        this.base.counters.received(data.as_bytes(py).len());
        let Some(Callee { protocol, context }) = this.base.callee(py) else { return Ok(()) };
        ffi::in_context(py, &context, || {
            protocol.object.bind(py).call_method1(intern!(py, "datagram_received"), (data, from)).map(drop)
        })
    }

    fn error_received(&mut self, error: PyErr, from_loop: bool) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        log_debug!("error fd={} {error}", this.base.fd);
        let name = intern!(py, "error_received");
        if from_loop {
            return this.base.call(name, error.into_value(py).into_bound(py).into_any());
        }
        let protocol = this.base.protocol(py);
        protocol.map_or(Ok(()), |protocol| protocol.bind(py).call_method1(name, (error.into_value(py),)).map(drop))
    }

    fn pause_writing(&mut self) -> PyResult<()> {
        log_debug!("paused fd={}", self.get().base.fd);
        self.get().base.tell(intern!(self.py(), "pause_writing"))
    }

    fn resume_writing(&mut self) -> PyResult<()> {
        log_debug!("resumed fd={}", self.get().base.fd);
        self.get().base.tell(intern!(self.py(), "resume_writing"))
    }

    fn connection_lost(&mut self) -> PyResult<()> {
        let fault = self.machine(|machine| machine.fault());
        let error = self.get().base.lost_error(self.py(), fault);
        self.get().base.tell_lost(self.py(), error.as_ref())
    }

    // ---- others

    fn dispose(&mut self) -> PyResult<()> {
        DatagramTransport::dispose(self)
    }

    #[cold]
    fn warn_lost_write(&mut self) -> PyResult<()> {
        let py = self.py();
        self.get().base.owner.bind(py).call_method1(intern!(py, "_warn_lost_write"), (false,)).map(drop)
    }

    #[inline]
    fn fault(_error: &PyErr) -> Fault {
        Fault::User
    }
}
