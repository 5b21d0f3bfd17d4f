//! A [`StreamTransport`] as the surroundings of its driver, `core::drive::stream`: its file, its loop, its protocol.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::chunk::Chunk;
use super::errors::{culprit_message, fault_error, io_error, os_errno, passes_through};
use super::ffi::{self, Lent};
use super::loop_core::{Entry, LoopCore, SCRATCH};
use super::protocol::Protocol;
use super::slots::Life;
use super::stream::{State, StreamTransport, write_error};
use super::waiter::settle;
use crate::core::drive::stream::{Host, Received};
use crate::core::drive::{self, Culprit, Dir};
use crate::core::fault::Fault;
use crate::core::stream::{Stream, WriteError};
use crate::io::endpoint::{self, Kind};
use crate::io::source::{self, Source};
use crate::io::sys::{BorrowedRawFd, RawBuf};
use crate::log_debug;

/// What a call of a protocol needs.
struct Callee {
    protocol: Protocol,
    context: Py<PyAny>,
}

/// Where a read goes, and whose it is.
#[expect(missing_debug_implementations, reason = "what lends its memory has none")]
pub struct Target<'py> {
    callee: Callee,
    place: Place<'py>,
}

enum Place<'py> {
    /// Into a `bytes` of its size.
    Bytes(Option<Bound<'py, PyBytes>>),
    /// To a protocol of ours, in the loop's buffer, without a `bytes` of its own.
    Taken(Vec<u8>),
    /// Into the protocol's own buffer.
    Lent(Lent),
}

impl State {
    /// Reads into `buf` what is there.
    fn receive(&self, kind: Kind, fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<Received> {
        match &self.source {
            Some(source) => source.recv(kind, buf, self.machine.policy()),
            None if kind == Kind::Device => Ok(match endpoint::read(kind, fd, buf)? {
                0 => Received::End,
                n => Received::Data { n, more: true },
            }),
            None => Ok(Received::Nothing),
        }
    }
}

impl StreamTransport {
    fn callee(&self, py: Python<'_>) -> Option<Callee> {
        self.state.with(py, |state| {
            Some(Callee {
                protocol: state.protocol.as_ref()?.clone_ref(py),
                context: state.context.as_ref()?.clone_ref(py),
            })
        })
    }

    /// Calls the protocol in its context, if there is one.
    fn call(&self, method: &Bound<'_, PyString>, arg: Bound<'_, PyAny>) -> PyResult<()> {
        let py = arg.py();
        let Some(Callee { protocol, context }) = self.callee(py) else { return Ok(()) };
        ffi::in_context(py, &context, || protocol.call1(method, arg).map(drop))
    }

    /// Calls the protocol in the context that is.
    fn tell(&self, py: Python<'_>, method: &str) -> PyResult<()> {
        let protocol = self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)));
        protocol.map_or(Ok(()), |protocol| protocol.object.bind(py).call_method0(method).map(drop))
    }

    fn message(&self, py: Python<'_>, culprit: Culprit) -> String {
        culprit_message(culprit, if self.is_pipe(py) { "pipe" } else { "socket" })
    }
}

impl drive::Host for &Bound<'_, StreamTransport> {
    type Error = PyErr;

    fn is_exit(&self, error: &PyErr) -> bool {
        passes_through(self.py(), error)
    }

    fn os_errno(&self, error: &PyErr) -> Option<Option<i32>> {
        os_errno(self.py(), error)
    }

    #[cold]
    fn report(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        let message = self.get().message(self.py(), culprit);
        StreamTransport::report(self, &message, error)
    }

    #[cold]
    fn log_fatal(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        if !this.owner.get().is_debug() {
            return Ok(());
        }
        let message = this.message(py, culprit);
        this.owner.bind(py).call_method1(intern!(py, "_log_fatal"), (*self, message, error.value(py))).map(drop)
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
        self.get().owner.get().coalesce.cork(self.py(), StreamTransport::endpoint(self));
    }

    #[inline]
    fn queue(&mut self, dir: Dir) {
        let this = self.get();
        LoopCore::push(this.owner.bind(self.py()), Entry::Io(source::token(this.slot, dir == Dir::Write)));
    }

    fn queue_lost(&mut self) -> PyResult<()> {
        let owner = self.get().owner.bind(self.py());
        owner.get().check_open()?;
        LoopCore::push(owner, Entry::Life(Life::Lost, Box::new(StreamTransport::endpoint(self))));
        Ok(())
    }

    fn in_context(&mut self, body: impl FnOnce(&mut Self) -> PyResult<()>) -> PyResult<()> {
        let py = self.py();
        let context = self.get().state.with(py, |state| state.context.as_ref().map(|context| context.clone_ref(py)));
        context.map_or(Ok(()), |context| ffi::in_context(py, &context, || body(self)))
    }
}

impl<'py> Host for &Bound<'py, StreamTransport> {
    type Chunk = Chunk;
    type Bytes = Bound<'py, PyBytes>;
    type File = BorrowedRawFd;
    type Target = Target<'py>;

    #[inline]
    fn machine<R>(&mut self, f: impl FnOnce(&mut Stream<Chunk>) -> R) -> R {
        self.get().state.with(self.py(), |state| f(&mut state.machine))
    }

    // ---- the kernel

    #[inline]
    fn file(&mut self) -> PyResult<BorrowedRawFd> {
        self.get().live_fd(self.py()).map_err(|error| io_error(self.py(), &error))
    }

    #[inline]
    fn receive(&mut self, fd: BorrowedRawFd, target: &mut Target<'py>) -> PyResult<Received> {
        let (py, this) = (self.py(), self.get());
        let received = match &mut target.place {
            Place::Bytes(bytes) => this.owner.get().scratch.with(py, |scratch| {
                if scratch.is_empty() {
                    scratch.resize(SCRATCH, 0);
                }
                let received = this.state.with(py, |state| state.receive(this.kind, fd, scratch.as_mut_slice().into()));
                if let Ok(Received::Data { n, .. }) = received {
                    // Copying what is there into a `bytes` of its size costs 28 ns per KiB; a `bytes` of the size of the
                    // buffer, to be shrunk, would cost 13 microseconds of page faults.
                    *bytes = Some(PyBytes::new(py, &scratch[..n]));
                }
                received
            }),
            Place::Taken(taken) => {
                // Out of its cell, as what reads it calls user code.
                let mut scratch = this.owner.get().scratch.take(py);
                if scratch.is_empty() {
                    scratch.resize(SCRATCH, 0);
                }
                let received = this.state.with(py, |state| state.receive(this.kind, fd, scratch.as_mut_slice().into()));
                if matches!(received, Ok(Received::Data { .. })) {
                    *taken = scratch;
                } else {
                    drop(this.owner.get().scratch.replace(py, scratch));
                }
                received
            }
            Place::Lent(lent) => this.state.with(py, |state| state.receive(this.kind, fd, lent.memory())),
        };
        if let Ok(Received::Data { n, .. }) = received {
            this.counters.received(n);
        }
        received.map_err(|error| io_error(py, &error))
    }

    #[inline]
    fn send(&mut self, fd: BorrowedRawFd, bytes: &[u8]) -> PyResult<usize> {
        let sent = endpoint::write(self.get().kind, fd, bytes).map_err(|error| io_error(self.py(), &error))?;
        self.get().counters.sent_some(sent);
        Ok(sent)
    }

    fn send_queued(&mut self, fd: BorrowedRawFd) -> PyResult<(usize, usize)> {
        let (py, this) = (self.py(), self.get());
        let sent = this.state.with(py, |state| endpoint::write_vectored(this.kind, fd, state.machine.unsent()));
        let sent = sent.map_err(|error| io_error(py, &error))?;
        this.counters.sent_some(sent.0);
        Ok(sent)
    }

    fn shut_down(&mut self, fd: BorrowedRawFd) -> PyResult<()> {
        endpoint::shutdown_write(fd).map_err(|error| io_error(self.py(), &error))
    }

    fn watch_read(&mut self) -> PyResult<bool> {
        let this = self.get();
        this.owner.get().check_open()?;
        let arm = |state: &mut State| state.source.as_ref().map_or(this.kind == Kind::Device, Source::arm_read);
        Ok(this.state.with(self.py(), arm))
    }

    fn watch_write(&mut self) -> PyResult<bool> {
        let this = self.get();
        this.owner.get().check_open()?;
        let clear = |state: &mut State| state.source.as_ref().map_or(this.kind == Kind::Device, Source::clear_write);
        Ok(this.state.with(self.py(), clear))
    }

    fn watch_hangup(&mut self) -> bool {
        self.get().state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::arm_hangup))
    }

    // ---- the protocol

    #[inline]
    fn target(&mut self) -> Option<PyResult<Target<'py>>> {
        let py = self.py();
        let callee = self.get().callee(py)?;
        let place = if callee.protocol.buffered {
            let lent = ffi::in_context(py, &callee.context, || {
                let hint = (-1_i32).into_pyobject(py)?.into_any();
                let buffer = callee.protocol.call1(intern!(py, "get_buffer"), hint)?;
                if buffer.len()? == 0 {
                    return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
                }
                Lent::of(&buffer)
            });
            match lent {
                Ok(lent) => Place::Lent(lent),
                Err(error) => return Some(Err(error)),
            }
        } else if callee.protocol.take.is_some() {
            Place::Taken(Vec::new())
        } else {
            Place::Bytes(None)
        };
        Some(Ok(Target { callee, place }))
    }

    #[inline]
    fn deliver(&mut self, target: Target<'py>, n: usize) -> PyResult<()> {
        let py = self.py();
        let Target { callee: Callee { protocol, context }, place } = target;
        match place {
            Place::Bytes(None) => Ok(()),
            Place::Bytes(Some(bytes)) => ffi::in_context(py, &context, || {
                protocol.call1(intern!(py, "data_received"), bytes.into_any()).map(drop)
            }),
            Place::Taken(scratch) => {
                let called = protocol.take.map_or(Ok(()), |take| {
                    ffi::in_context(py, &context, || take(protocol.object.bind(py), &scratch[..n]))
                });
                drop(self.get().owner.get().scratch.replace(py, scratch));
                called
            }
            Place::Lent(lent) => {
                // Before the call: the protocol may resize it.
                drop(lent);
                ffi::in_context(py, &context, || {
                    let n = n.into_pyobject(py)?.into_any();
                    protocol.call1(intern!(py, "buffer_updated"), n).map(drop)
                })
            }
        }
    }

    #[inline]
    fn callback(target: &Target<'py>) -> &'static str {
        if matches!(target.place, Place::Bytes(_)) { "data_received" } else { "buffer_updated" }
    }

    fn connection_made(&mut self) -> PyResult<()> {
        let py = self.py();
        self.get().call(intern!(py, "connection_made"), (*self).clone().into_any())
    }

    fn eof_received(&mut self) -> Result<bool, PyErr> {
        let (py, this) = (self.py(), self.get());
        log_debug!("eof fd={}", this.fd);
        let Some(Callee { protocol, context }) = this.callee(py) else { return Ok(true) };
        ffi::in_context(py, &context, || protocol.call0(intern!(py, "eof_received"))?.is_truthy())
    }

    fn pause_writing(&mut self) -> PyResult<()> {
        log_debug!("paused fd={}", self.get().fd);
        self.get().tell(self.py(), "pause_writing")
    }

    fn resume_writing(&mut self) -> PyResult<()> {
        log_debug!("resumed fd={}", self.get().fd);
        self.get().tell(self.py(), "resume_writing")
    }

    fn lost_error(&mut self) -> Option<PyErr> {
        let (py, this) = (self.py(), self.get());
        let (kept, fault) = this.state.with(py, |state| (state.error.take(), state.machine.fault()));
        let error = kept.map(|kept| PyErr::from_value(kept.into_bound(py).into_any()));
        error.or_else(|| fault_error(py, fault))
    }

    fn connection_lost(&mut self, error: Option<&PyErr>) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        log_debug!("lost fd={} {}", this.fd, error.map_or_else(String::new, ToString::to_string));
        let arg = match error {
            Some(error) => error.value(py).clone().into_any(),
            None => py.None().into_bound(py),
        };
        this.call(intern!(py, "connection_lost"), arg)
    }

    // ---- others

    fn dispose(&mut self, error: Option<&PyErr>) -> PyResult<()> {
        StreamTransport::dispose(self, error)
    }

    fn tell_drained(&mut self) -> PyResult<()> {
        let py = self.py();
        let waiter = self.get().state.with(py, |state| state.drain_waiter.take());
        // Cancelled, its task has not run yet.
        waiter.map_or(Ok(()), |waiter| settle(waiter.bind(py), None))
    }

    #[cold]
    fn warn_lost_write(&mut self) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        this.owner.bind(py).call_method1(intern!(py, "_warn_lost_write"), (this.is_pipe(py),)).map(drop)
    }

    #[cold]
    fn refused(&mut self, error: WriteError, method: &'static str) -> PyErr {
        write_error(error, method)
    }

    #[inline]
    fn fault(_error: &PyErr) -> Fault {
        Fault::User
    }
}
