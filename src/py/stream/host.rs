//! A [`StreamTransport`] as the surroundings of its driver, `core::drive::stream`: its file, its loop, its protocol.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{StreamTransport, write_error};
use crate::core::drive::stream::{Host, Received};
use crate::core::fault::Fault;
use crate::core::stream::{Stream, WriteError};
use crate::io::endpoint::{self, FileKind};
use crate::io::source::Source;
use crate::io::sys::{BorrowedRawFd, RawBuf};
use crate::log_debug;
use crate::py::chunk::Chunk;
use crate::py::errors::io_error;
use crate::py::event_loop::loop_core::SCRATCH;
use crate::py::event_loop::waiter::resolve;
use crate::py::ffi::{self, Lent};
use crate::py::transport::base::Callee;

/// Where a read puts its bytes, and the protocol that is told of them.
#[expect(missing_debug_implementations, reason = "what lends its memory has none")]
pub struct Target<'py> {
    callee: Callee,
    place: Place<'py>,
}

enum Place<'py> {
    /// Into a `bytes` of its size.
    Bytes(Option<Bound<'py, PyBytes>>),
    /// Into the loop's own buffer, for a protocol that is fed from it.
    Shared(Vec<u8>),
    /// Into the protocol's own buffer.
    Lent(Lent),
}

/// Reads into `buf` what is there.
fn receive(this: &StreamTransport, py: Python<'_>, fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<Received> {
    this.base.state.with(py, |state| match &state.source {
        Some(source) => source.recv(this.kind, buf, state.machine.policy()),
        None if this.kind == FileKind::Device => Ok(match endpoint::read(this.kind, fd, buf)? {
            0 => Received::End,
            n => Received::Data { n, more: true },
        }),
        None => Ok(Received::Nothing),
    })
}

impl<'py> Host for &Bound<'py, StreamTransport> {
    type Chunk = Chunk;
    type Bytes = Bound<'py, PyBytes>;
    type File = BorrowedRawFd;
    type Target = Target<'py>;

    #[inline]
    fn machine<R>(&mut self, f: impl FnOnce(&mut Stream<Chunk>) -> R) -> R {
        self.get().base.state.with(self.py(), |state| f(&mut state.machine))
    }

    // ---- the kernel

    #[inline]
    fn file(&mut self) -> PyResult<BorrowedRawFd> {
        self.get().base.live_fd(self.py()).map_err(|error| io_error(self.py(), &error))
    }

    #[inline]
    fn receive(&mut self, fd: BorrowedRawFd, target: &mut Target<'py>) -> PyResult<Received> {
        let (py, this) = (self.py(), self.get());
        let received = match &mut target.place {
            Place::Bytes(bytes) => this.base.owner.get().scratch.with(py, |scratch| {
                if scratch.is_empty() {
                    scratch.resize(SCRATCH, 0);
                }
                let received = receive(this, py, fd, scratch.as_mut_slice().into());
                if let Ok(Received::Data { n, .. }) = received {
                    // Copying what is there into a `bytes` of its size costs 28 ns per KiB; a `bytes` of the size of
                    // the buffer, to be shrunk, would cost 13 microseconds of page faults.
                    *bytes = Some(PyBytes::new(py, &scratch[..n]));
                }
                received
            }),
            Place::Shared(taken) => {
                // Taken out of its cell, as the protocol calls user code while it has it.
                let mut scratch = this.base.owner.get().scratch.take(py);
                if scratch.is_empty() {
                    scratch.resize(SCRATCH, 0);
                }
                let received = receive(this, py, fd, scratch.as_mut_slice().into());
                if matches!(received, Ok(Received::Data { .. })) {
                    *taken = scratch;
                } else {
                    drop(this.base.owner.get().scratch.replace(py, scratch));
                }
                received
            }
            Place::Lent(lent) => receive(this, py, fd, lent.memory()),
        };
        if let Ok(Received::Data { n, .. }) = received {
            this.base.counters.received(n);
        }
        received.map_err(|error| io_error(py, &error))
    }

    #[inline]
    fn send(&mut self, fd: BorrowedRawFd, bytes: &[u8]) -> PyResult<usize> {
        let sent = endpoint::write(self.get().kind, fd, bytes).map_err(|error| io_error(self.py(), &error))?;
        self.get().base.counters.sent_some(sent);
        Ok(sent)
    }

    fn send_queued(&mut self, fd: BorrowedRawFd) -> PyResult<(usize, usize)> {
        let (py, this) = (self.py(), self.get());
        let sent = this.base.state.with(py, |state| endpoint::write_vectored(this.kind, fd, state.machine.unsent()));
        let sent = sent.map_err(|error| io_error(py, &error))?;
        this.base.counters.sent_some(sent.0);
        Ok(sent)
    }

    fn shut_down(&mut self, fd: BorrowedRawFd) -> PyResult<()> {
        endpoint::shutdown_write(fd).map_err(|error| io_error(self.py(), &error))
    }

    fn watch_read(&mut self) -> PyResult<bool> {
        let this = self.get();
        this.base.owner.get().check_open()?;
        let always = this.kind == FileKind::Device;
        Ok(this.base.state.with(self.py(), |state| state.source.as_ref().map_or(always, Source::arm_read)))
    }

    fn watch_write(&mut self) -> PyResult<bool> {
        let this = self.get();
        this.base.owner.get().check_open()?;
        let always = this.kind == FileKind::Device;
        Ok(this.base.state.with(self.py(), |state| state.source.as_ref().map_or(always, Source::clear_write)))
    }

    fn watch_hangup(&mut self) -> bool {
        self.get().base.state.with(self.py(), |state| state.source.as_ref().is_some_and(Source::arm_hangup))
    }

    // ---- the protocol

    #[inline]
    fn target(&mut self) -> Option<PyResult<Target<'py>>> {
        let py = self.py();
        let callee = self.get().base.callee(py)?;
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
        } else if callee.protocol.feed.is_some() {
            Place::Shared(Vec::new())
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
            Place::Shared(scratch) => {
                let called = protocol.feed.map_or(Ok(()), |feed| {
                    ffi::in_context(py, &context, || feed(protocol.object.bind(py), &scratch[..n]))
                });
                drop(self.get().base.owner.get().scratch.replace(py, scratch));
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
        self.get().base.call(intern!(py, "connection_made"), (*self).clone().into_any())
    }

    fn eof_received(&mut self) -> Result<bool, PyErr> {
        let (py, this) = (self.py(), self.get());
        log_debug!("eof fd={}", this.base.fd);
        let Some(Callee { protocol, context }) = this.base.callee(py) else { return Ok(true) };
        ffi::in_context(py, &context, || protocol.call0(intern!(py, "eof_received"))?.is_truthy())
    }

    fn pause_writing(&mut self) -> PyResult<()> {
        log_debug!("paused fd={}", self.get().base.fd);
        self.get().base.tell(intern!(self.py(), "pause_writing"))
    }

    fn resume_writing(&mut self) -> PyResult<()> {
        log_debug!("resumed fd={}", self.get().base.fd);
        self.get().base.tell(intern!(self.py(), "resume_writing"))
    }

    fn lost_error(&mut self) -> Option<PyErr> {
        let fault = self.machine(|machine| machine.fault());
        self.get().base.lost_error(self.py(), fault)
    }

    fn connection_lost(&mut self, error: Option<&PyErr>) -> PyResult<()> {
        self.get().base.tell_lost(self.py(), error)
    }

    // ---- others

    fn dispose(&mut self, error: Option<&PyErr>) -> PyResult<()> {
        StreamTransport::dispose(self, error)
    }

    fn tell_drained(&mut self) -> PyResult<()> {
        let py = self.py();
        let waiter = self.get().base.state.with(py, |state| state.more.drain_waiter.take());
        waiter.map_or(Ok(()), |waiter| resolve(waiter.bind(py), None))
    }

    #[cold]
    fn warn_lost_write(&mut self) -> PyResult<()> {
        let (py, this) = (self.py(), self.get());
        this.base.owner.bind(py).call_method1(intern!(py, "_warn_lost_write"), (this.is_pipe(py),)).map(drop)
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
