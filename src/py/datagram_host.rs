//! A [`DatagramTransport`] as the surroundings of its driver, `core::drive::datagram`: its loop, its reads, its protocol.
//! `datagram_send` has how it sends.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//!
//! What asyncio does with exceptions: an `OSError` of a send or a receive goes to `error_received`, and the transport stays
//! open; what `sendto` raises for other reasons (an address of the wrong type) is fatal; what the protocol raises is
//! reported, or, from within `sendto`, raised there.

use std::io;

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::address;
use super::chunk::Chunk;
use super::datagram::{Arrival, DatagramTransport, Packet, Received, State};
use super::datagram_send::{Message, would_block};
use super::errors::{culprit_message, fault_error, io_error, os_errno, passes_through};
use super::ffi;
use super::loop_core::{Entry, LoopCore, SCRATCH};
use super::slots::Life;
use crate::core::datagram::{BATCH, Datagram};
use crate::core::drive::datagram::{Found, Host};
use crate::core::drive::{self, Culprit, Dir};
use crate::core::fault::Fault;
use crate::io::datagram::Family;
use crate::io::source::{self, Source};
use crate::io::sys::{self, BorrowedRawFd, address_bytes};
use crate::log_debug;

impl DatagramTransport {
    fn callee(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyAny>)> {
        self.state
            .with(py, |state| Some((state.protocol.as_ref()?.clone_ref(py), state.context.as_ref()?.clone_ref(py))))
    }

    /// Calls the protocol in its context, if there is one.
    fn call(&self, method: &Bound<'_, PyString>, arg: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = arg.py();
        let Some((protocol, context)) = self.callee(py) else { return Ok(()) };
        ffi::in_context(py, &context, || protocol.bind(py).call_method1(method, (arg,)).map(drop))
    }

    /// Calls the protocol in the context that is.
    fn tell(&self, py: Python<'_>, method: &str) -> PyResult<()> {
        let Some((protocol, _)) = self.callee(py) else { return Ok(()) };
        protocol.bind(py).call_method0(method).map(drop)
    }

    /// A batch of datagrams, by `recvfrom(2)`: as fast as `recvmmsg(2)` for ten of them, and faster for one.
    fn receive(&self, py: Python<'_>, force: bool) -> PyResult<Found<PyErr>> {
        let ((count, more, error), arrivals) = self.owner.get().scratch.with(py, |scratch| {
            if scratch.is_empty() {
                scratch.resize(SCRATCH, 0);
            }
            self.state.with(py, |state| {
                let State { machine, source, peers, arrivals, .. } = state;
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
        // From a sender who is new on, in their order.
        for Arrival { data, from } in arrivals {
            let from = match from {
                Ok(known) => known,
                Err(address) => {
                    // Tuples are the garbage collector's business, which may run user code before Python 3.12.
                    let shown = address::to_python(py, &address)?.unbind();
                    let kept = shown.clone_ref(py);
                    drop(self.state.with(py, |state| state.peers.keep(*address, kept)));
                    shown
                }
            };
            self.state.with(py, |state| state.machine.handle_received(std::iter::once(Received { data, from })));
        }
        Ok(Found { count, more, error: error.map(|error| io_error(py, &error)) })
    }

    /// One datagram by `socket.recvfrom`, which knows the addresses of every family.
    fn receive_by_python(&self, py: Python<'_>, force: bool) -> PyResult<Found<PyErr>> {
        let sock = self.state.with(py, |state| {
            let ready = state.source.as_ref().is_some_and(Source::arm_read) || force;
            state.sock.as_ref().filter(|_| ready).map(|sock| sock.clone_ref(py))
        });
        let Some(sock) = sock else { return Ok(Found { count: 0, more: false, error: None }) };
        match sock.bind(py).call_method1(intern!(py, "recvfrom"), (SCRATCH,)) {
            Ok(pair) => {
                let (data, from): (Py<PyBytes>, Py<PyAny>) = pair.extract()?;
                self.state.with(py, |state| state.machine.handle_received(std::iter::once(Received { data, from })));
                Ok(Found { count: 1, more: true, error: None })
            }
            Err(error) if would_block(py, &error) => {
                let more = self.state.with(py, |state| state.source.as_ref().is_some_and(Source::clear_read));
                Ok(Found { count: 0, more, error: None })
            }
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                Ok(Found { count: 0, more: true, error: Some(error) })
            }
            Err(error) => Err(error),
        }
    }
}

impl drive::Host for &Bound<'_, DatagramTransport> {
    type Error = PyErr;

    fn is_exit(&self, error: &PyErr) -> bool {
        passes_through(self.py(), error)
    }

    fn os_errno(&self, error: &PyErr) -> Option<Option<i32>> {
        os_errno(self.py(), error)
    }

    #[cold]
    fn report(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        DatagramTransport::report(self, &message(culprit), error)
    }

    #[cold]
    fn log_fatal(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        let (py, owner) = (self.py(), &self.get().owner);
        if !owner.get().is_debug() {
            return Ok(());
        }
        owner.bind(py).call_method1(intern!(py, "_log_fatal"), (*self, message(culprit), error.value(py))).map(drop)
    }

    fn keep_error(&mut self, error: PyErr) {
        let error = error.into_value(self.py());
        drop(self.get().state.with(self.py(), |state| state.error.replace(error)));
    }

    #[inline]
    fn coalesces(&self) -> bool {
        self.get().owner.get().coalesce.wants_now()
    }

    fn cork(&mut self) {
        self.get().owner.get().coalesce.cork(self.py(), DatagramTransport::endpoint(self));
    }

    #[inline]
    fn queue(&mut self, dir: Dir) {
        let this = self.get();
        LoopCore::push(this.owner.bind(self.py()), Entry::Io(source::token(this.slot, dir == Dir::Write)));
    }

    fn queue_lost(&mut self) -> PyResult<()> {
        let owner = self.get().owner.bind(self.py());
        owner.get().check_open()?;
        LoopCore::push(owner, Entry::Life(Life::Lost, Box::new(DatagramTransport::endpoint(self))));
        Ok(())
    }

    fn in_context(&mut self, body: impl FnOnce(&mut Self) -> PyResult<()>) -> PyResult<()> {
        let py = self.py();
        let context = self.get().state.with(py, |state| state.context.as_ref().map(|context| context.clone_ref(py)));
        context.map_or(Ok(()), |context| ffi::in_context(py, &context, || body(self)))
    }
}

fn message(culprit: Culprit) -> String {
    culprit_message(culprit, "datagram")
}

impl<'py> Host for &Bound<'py, DatagramTransport> {
    type Received = Received;
    type Packet = Packet;
    type Message = Message<'py>;
    type File = io::Result<BorrowedRawFd>;

    #[inline]
    fn machine<R>(&mut self, f: impl FnOnce(&mut Datagram<Received, Packet>) -> R) -> R {
        self.get().state.with(self.py(), |state| f(&mut state.machine))
    }

    // ---- the kernel

    #[inline]
    fn check_file(&mut self) -> PyResult<()> {
        self.file().map(drop).map_err(|error| io_error(self.py(), &error))
    }

    #[inline]
    fn file(&mut self) -> io::Result<BorrowedRawFd> {
        self.get().live_fd(self.py())
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
        log_debug!("lost its registration fd={} {error}", self.get().fd);
    }

    fn watch_read(&mut self) -> bool {
        self.get().state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::arm_read))
    }

    fn watch_error(&mut self) -> bool {
        self.get().state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::arm_write))
    }

    fn watch_write(&mut self) -> bool {
        self.get().state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::clear_write))
    }

    // ---- the protocol

    fn connection_made(&mut self) -> PyResult<()> {
        self.get().call(intern!(self.py(), "connection_made"), self.as_any())
    }

    #[inline]
    fn datagram_received(&mut self, Received { data, from }: Received) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        this.counters.received(data.as_bytes(py).len());
        let Some((protocol, context)) = this.callee(py) else { return Ok(()) };
        ffi::in_context(py, &context, || {
            protocol.bind(py).call_method1(intern!(py, "datagram_received"), (data, from)).map(drop)
        })
    }

    fn error_received(&mut self, error: PyErr, from_loop: bool) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        log_debug!("error fd={} {error}", this.fd);
        let name = intern!(py, "error_received");
        if from_loop {
            return this.call(name, error.value(py).as_any());
        }
        let Some((protocol, _)) = this.callee(py) else { return Ok(()) };
        protocol.bind(py).call_method1(name, (error.into_value(py),)).map(drop)
    }

    fn pause_writing(&mut self) -> PyResult<()> {
        log_debug!("paused fd={}", self.get().fd);
        self.get().tell(self.py(), "pause_writing")
    }

    fn resume_writing(&mut self) -> PyResult<()> {
        log_debug!("resumed fd={}", self.get().fd);
        self.get().tell(self.py(), "resume_writing")
    }

    fn connection_lost(&mut self) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        let (kept, fault) = this.state.with(py, |state| (state.error.take(), state.machine.fault()));
        let error = kept.map(|kept| PyErr::from_value(kept.into_bound(py).into_any()));
        let error = error.or_else(|| fault_error(py, fault));
        log_debug!("lost fd={} {}", this.fd, error.as_ref().map_or_else(String::new, ToString::to_string));
        let arg = match &error {
            Some(error) => error.value(py).clone().into_any(),
            None => py.None().into_bound(py),
        };
        this.call(intern!(py, "connection_lost"), &arg)
    }

    // ---- others

    fn dispose(&mut self) -> PyResult<()> {
        DatagramTransport::dispose(self)
    }

    #[cold]
    fn warn_lost_write(&mut self) -> PyResult<()> {
        let py = self.py();
        self.get().owner.bind(py).call_method1(intern!(py, "_warn_lost_write"), (false,)).map(drop)
    }

    #[inline]
    fn fault(_error: &PyErr) -> Fault {
        Fault::User
    }
}
