//! The life of a [`StreamTransport`]: registration, events, and carrying out the steps of `core::stream`.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//! Before each system call a socket that the user handed in is asked for its fd: closed under the transport it has
//! none, and the number may be another file's by then.

use std::io;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::{close_unclosed, contain, fault_error, io_error, passes_through, report};
use super::event_loop::SCRATCH;
use super::ffi::{self, Lent};
use super::protocol::Protocol;
use super::slots::Endpoint;
use super::stream::{State, StreamTransport};
use super::tables::Entry;
use super::tls::TlsTransport;
use super::waiter::settle;
use crate::core::fault::Fault;
use crate::core::stream::Step;
use crate::io::endpoint::{self, Kind};
use crate::io::source::{self, Received, Source};
use crate::io::sys::{BorrowedRawFd, RawBuf};
use crate::log_debug;

/// What a call of a protocol needs.
struct Callee {
    protocol: Protocol,
    context: Py<PyAny>,
}

impl State {
    /// Deregisters the file; `ours`: its object still has the fd that was registered.
    pub fn release(&mut self, ours: bool) {
        if let Some(source) = self.source.take() {
            source.release(ours || self.second.is_some());
        }
        drop(self.second.take());
    }

    /// True when the file may be readable; otherwise the waker is armed.
    fn arm_read(&self, kind: Kind) -> bool {
        self.source.as_ref().map_or(kind == Kind::Device, Source::arm_read)
    }

    /// A write could not take all. True when the file is writable again; otherwise the waker is armed.
    fn clear_write(&self, kind: Kind) -> bool {
        self.source.as_ref().map_or(kind == Kind::Device, Source::clear_write)
    }

    /// Reads into `buf` what is there.
    fn receive(&self, kind: Kind, fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<Received> {
        match &self.source {
            Some(source) => source.recv(kind, buf, self.machine.policy().short_read_drains),
            None if kind == Kind::Device => Ok(match endpoint::read(kind, fd, buf)? {
                0 => Received::End,
                n => Received::Data { n, more: true },
            }),
            None => Ok(Received::Nothing),
        }
    }
}

impl StreamTransport {
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

    fn callee(&self, py: Python<'_>) -> Option<Callee> {
        self.state.with(py, |state| {
            Some(Callee {
                protocol: state.protocol.as_ref()?.clone_ref(py),
                context: state.context.as_ref()?.clone_ref(py),
            })
        })
    }

    // ---- events, called by the turn

    pub fn handle_made(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        log_debug!("made fd={}", this.fd);
        let waiter = this.state.with(py, |state| state.waiter.take());
        let mut result = Ok(());
        if let Some(Callee { protocol, context }) = this.callee(py) {
            let arg = slf.clone().into_any();
            let called =
                ffi::in_context(py, &context, || protocol.call1(intern!(py, "connection_made"), arg).map(drop));
            if let Err(error) = called {
                if passes_through(py, &error) {
                    result = Err(error);
                } else {
                    result = this.report(slf, "Exception in callback protocol.connection_made()", &error);
                }
            }
        }
        let step = this.state.with(py, |state| state.machine.handle_open());
        result = result.and(Self::run_step(slf, step));
        let told = waiter.map_or(Ok(()), |waiter| settle(waiter.bind(py), None));
        result.and(told)
    }

    pub fn handle_io(slf: &Bound<'_, Self>, write: bool) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if cfg!(feature = "failpoints") {
            assert!(
                !this.state.with(py, |state| std::mem::take(&mut state.failpoint)),
                "failpoint: the next event of fd={} was to panic",
                this.fd
            );
        }
        if write { Self::handle_writable(slf) } else { Self::handle_readable(slf) }
    }

    fn handle_writable(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (step, hangup, context) = slf.get().state.with(py, |state| {
            let hangup = state.machine.policy().hangup_closes;
            let step = if state.machine.is_watching_write() { state.machine.handle_writable() } else { Step::NONE };
            (step, hangup, state.context.as_ref().map(|context| context.clone_ref(py)))
        });
        let looked = if hangup { Self::look_for_hangup(slf) } else { Ok(()) };
        looked.and(match context {
            // For `resume_writing`.
            Some(context) => ffi::in_context(py, &context, || Self::run_step(slf, step)),
            None => Ok(()),
        })
    }

    fn handle_readable(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let callee = this.state.with(py, |state| {
            state.read_queued = false;
            let wants = state.machine.wants_read();
            wants.then(|| {
                Some(Callee {
                    protocol: state.protocol.as_ref()?.clone_ref(py),
                    context: state.context.as_ref()?.clone_ref(py),
                })
            })
        });
        let Some(Some(callee)) = callee else { return Self::look_for_hangup(slf) };
        let fd = match this.live_fd(py) {
            Ok(fd) => fd,
            Err(error) => return Self::fatal_io(slf, &error, "read"),
        };
        if callee.protocol.buffered {
            return Self::read_into_buffer(slf, &callee, fd);
        }
        if let Some(tls) = &callee.protocol.tls {
            return Self::read_ciphertext(slf, &callee.context, tls.bind(py), fd);
        }
        let received = this.owner.get().scratch.with(py, |scratch| {
            if scratch.is_empty() {
                scratch.resize(SCRATCH, 0);
            }
            let received = this.state.with(py, |state| state.receive(this.kind, fd, scratch.as_mut_slice().into()));
            received.map(|received| match received {
                // Copying what is there into a `bytes` of its size costs 28 ns per KiB; a `bytes` of the size of the
                // buffer, to be shrunk, would cost 13 microseconds of page faults.
                Received::Data { n, more } => (received, Some((PyBytes::new(py, &scratch[..n]), more))),
                Received::End | Received::Nothing => (received, None),
            })
        });
        match received {
            Ok((_, Some((bytes, more)))) => {
                this.counters.received(bytes.as_bytes().len());
                let called = ffi::in_context(py, &callee.context, || {
                    callee.protocol.call1(intern!(py, "data_received"), bytes.into_any()).map(drop)
                });
                let result = called.or_else(|error| Self::callback_failed(slf, error, "data_received"));
                this.read_on(py, more);
                result
            }
            Ok((Received::End, _)) => Self::handle_end(slf),
            Ok(_) => Ok(()),
            Err(error) => Self::fatal_io(slf, &error, "read"),
        }
    }

    /// What is there goes to a TLS connection above, without a `bytes` of its own.
    fn read_ciphertext(
        slf: &Bound<'_, Self>,
        context: &Py<PyAny>,
        tls: &Bound<'_, TlsTransport>,
        fd: BorrowedRawFd,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        // Out of its cell, as what reads it calls user code.
        let mut scratch = this.owner.get().scratch.take(py);
        if scratch.is_empty() {
            scratch.resize(SCRATCH, 0);
        }
        let received = this.state.with(py, |state| state.receive(this.kind, fd, scratch.as_mut_slice().into()));
        let called = match received {
            Ok(Received::Data { n, more }) => {
                this.counters.received(n);
                let called = ffi::in_context(py, context, || TlsTransport::handle_ciphertext(tls, &scratch[..n]));
                Ok(Some((called, more)))
            }
            Ok(Received::End) => Ok(None),
            Ok(Received::Nothing) => Ok(Some((Ok(()), false))),
            Err(error) => Err(error),
        };
        drop(this.owner.get().scratch.replace(py, scratch));
        match called {
            Ok(Some((called, more))) => {
                let result = called.or_else(|error| Self::callback_failed(slf, error, "buffer_updated"));
                this.read_on(py, more);
                result
            }
            Ok(None) => Self::handle_end(slf),
            Err(error) => Self::fatal_io(slf, &error, "read"),
        }
    }

    fn read_into_buffer(slf: &Bound<'_, Self>, callee: &Callee, fd: BorrowedRawFd) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let lent = ffi::in_context(py, &callee.context, || {
            let hint = (-1_i32).into_pyobject(py)?.into_any();
            let buffer = callee.protocol.call1(intern!(py, "get_buffer"), hint)?;
            if buffer.len()? == 0 {
                return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
            }
            Lent::of(&buffer)
        });
        let mut lent = match lent {
            Ok(lent) => lent,
            Err(error) => {
                let result = Self::fatal(slf, error, "Fatal error: protocol.get_buffer() call failed.");
                this.read_on(py, true);
                return result;
            }
        };
        // `get_buffer` may have closed or paused the transport.
        if !this.state.with(py, |state| state.machine.wants_read()) {
            return Ok(());
        }
        let received = this.state.with(py, |state| state.receive(this.kind, fd, lent.memory()));
        drop(lent);
        match received {
            Ok(Received::Data { n, more }) => {
                this.counters.received(n);
                let called = ffi::in_context(py, &callee.context, || {
                    let n = n.into_pyobject(py)?.into_any();
                    callee.protocol.call1(intern!(py, "buffer_updated"), n).map(drop)
                });
                let result = called.or_else(|error| Self::callback_failed(slf, error, "buffer_updated"));
                this.read_on(py, more);
                result
            }
            Ok(Received::End) => Self::handle_end(slf),
            Ok(Received::Nothing) => Ok(()),
            Err(error) => Self::fatal_io(slf, &error, "read"),
        }
    }

    /// There may be more to read: next turn, so that others get theirs first. Once, however often a protocol pauses and
    /// resumes meanwhile: each read asks for the next, so two would stay two.
    fn read_on(&self, py: Python<'_>, more: bool) {
        let wants = |state: &mut State| state.machine.wants_read() && !std::mem::replace(&mut state.read_queued, true);
        if more && self.state.with(py, wants) {
            self.owner.get().push(py, Entry::Io(source::token(self.slot, false)));
        }
    }

    fn handle_end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let step = slf.get().state.with(slf.py(), |state| state.machine.handle_end());
        Self::run_step(slf, step)
    }

    fn deliver_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        log_debug!("eof fd={}", this.fd);
        let Some(Callee { protocol, context }) = this.callee(py) else { return Ok(()) };
        let answer = ffi::in_context(py, &context, || protocol.call0(intern!(py, "eof_received"))?.is_truthy());
        match answer {
            Ok(keep_open) => {
                let step = this.state.with(py, |state| state.machine.handle_eof_answer(keep_open));
                Self::run_step(slf, step)
            }
            Err(error) if passes_through(py, &error) => {
                let step = this.state.with(py, |state| state.machine.handle_eof_untold());
                Self::run_step(slf, step).and(Err(error))
            }
            Err(error) => Self::callback_failed(slf, error, "eof_received"),
        }
    }

    /// The far end of a stream that is only written may be gone; if not, its end will show.
    fn look_for_hangup(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let gone = slf.get().state.with(py, |state| {
            state.machine.policy().hangup_closes && state.source.as_ref().is_some_and(Source::arm_hangup)
        });
        if !gone {
            return Ok(());
        }
        // What is coalesced was written before.
        Self::uncork(slf)?;
        let step = slf.get().state.with(py, |state| state.machine.handle_hangup());
        Self::run_step(slf, step)
    }

    pub fn handle_lost(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let fault = this.state.with(py, |state| state.machine.fault());
        let kept = this.state.with(py, |state| state.error.take());
        let error = kept.map(|kept| PyErr::from_value(kept.into_bound(py).into_any()));
        let error = error.or_else(|| fault_error(py, fault));
        log_debug!("lost fd={} {}", this.fd, error.as_ref().map_or_else(String::new, ToString::to_string));
        let mut result = Ok(());
        if let Some(Callee { protocol, context }) = this.callee(py) {
            let arg = match &error {
                Some(error) => error.value(py).clone().into_any(),
                None => py.None().into_bound(py),
            };
            let called =
                ffi::in_context(py, &context, || protocol.call1(intern!(py, "connection_lost"), arg).map(drop));
            if let Err(error) = called {
                result = if passes_through(py, &error) {
                    Err(error)
                } else {
                    this.report(slf, "Exception in callback protocol.connection_lost()", &error)
                };
            }
        }
        this.state.with(py, |state| state.machine.handle_lost());
        result.and(Self::dispose(slf, error.as_ref()))
    }

    /// Deregisters and closes the socket, tells the server, and lets go of everything.
    fn dispose(slf: &Bound<'_, Self>, error: Option<&PyErr>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let ours = this.owns_fd(py);
        let (sock, server, waiter, drain_waiter, rest) = this.state.with(py, |state| {
            state.release(ours);
            let rest = (state.fileno.take(), state.protocol.take(), state.context.take());
            (state.sock.take(), state.server.take(), state.waiter.take(), state.drain_waiter.take(), rest)
        });
        let endpoint = this.owner.get().io.with(py, |io| io.slots.remove(this.slot, this.fd));
        drop((endpoint, rest));
        let owner = this.owner.bind(py);
        let closed = sock.map_or(Ok(()), |sock| sock.bind(py).call_method0(intern!(py, "close")).map(drop));
        let mut result = contain(owner, closed);
        for (waiter, error) in [(waiter, None), (drain_waiter, error)] {
            let Some(waiter) = waiter else { continue };
            let closed = || pyo3::exceptions::PyConnectionError::new_err("Connection is closed by peer");
            let error = error.map_or_else(closed, |error| error.clone_ref(py));
            result = result.and(contain(owner, settle(waiter.bind(py), Some(&error))));
        }
        if let Some(server) = server {
            let detached = owner.call_method1(intern!(py, "_server_detach"), (server, slf)).map(drop);
            result = result.and(contain(owner, detached));
        }
        result
    }

    /// The loop closes with the connection open: deregisters it, and no callback will come.
    pub fn orphan(slf: &Bound<'_, Self>) {
        let (py, this) = (slf.py(), slf.get());
        let ours = this.owns_fd(py);
        this.state.with(py, |state| {
            state.release(ours);
        });
    }

    // ---- steps

    /// Carries out a step, in the order of its flags.
    ///
    /// # Errors
    /// What passes through the loop, and the `OSError` of a shutdown that failed.
    pub fn run_step(slf: &Bound<'_, Self>, step: Step) -> PyResult<()> {
        if step.is_none() {
            return Ok(());
        }
        let (py, this) = (slf.py(), slf.get());
        if step.has(Step::SEND) {
            Self::flush(slf)?;
        }
        if step.has(Step::CORK) {
            this.owner.get().coalesce.cork(py, Endpoint::Stream(slf.clone().unbind()));
        }
        if step.has(Step::WATCH_WRITE) {
            this.owner.get().check_open()?;
            let ready = this.state.with(py, |state| state.clear_write(this.kind));
            if ready {
                this.owner.get().push(py, Entry::Io(source::token(this.slot, true)));
            }
        }
        if step.has(Step::WATCH_READ) {
            this.owner.get().check_open()?;
            let ready = this.state.with(py, |state| state.arm_read(this.kind));
            this.read_on(py, ready);
        }
        if step.has(Step::WATCH_HANGUP) {
            Self::look_for_hangup(slf)?;
        }
        if step.has(Step::PAUSE) {
            log_debug!("paused fd={}", this.fd);
            Self::tell(slf, "pause_writing", "protocol.pause_writing() failed")?;
        }
        if step.has(Step::RESUME) {
            log_debug!("resumed fd={}", this.fd);
            Self::tell(slf, "resume_writing", "protocol.resume_writing() failed")?;
        }
        // What passes through does not keep a stream that ends with its input from ending.
        let told = if step.has(Step::EOF) { Self::deliver_eof(slf) } else { Ok(()) };
        if step.has(Step::DRAINED)
            && let Some(waiter) = this.state.with(py, |state| state.drain_waiter.take())
        {
            // Cancelled, its task has not run yet.
            settle(waiter.bind(py), None)?;
        }
        let shutdown = if step.has(Step::SHUTDOWN) {
            this.live_fd(py).and_then(endpoint::shutdown_write).map_err(|error| io_error(py, &error))
        } else {
            Ok(())
        };
        if step.has(Step::DISCARD) {
            drop(this.state.with(py, |state| state.machine.take_discarded()));
        }
        if step.has(Step::LOSE) {
            this.owner.get().check_open()?;
            this.owner.get().push(py, Entry::Lost(slf.clone().unbind()));
        }
        told.and(shutdown)
    }

    fn tell(slf: &Bound<'_, Self>, method: &str, message: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let protocol = this.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)));
        let Some(protocol) = protocol else { return Ok(()) };
        match protocol.object.bind(py).call_method0(method) {
            Ok(_) => Ok(()),
            Err(error) if passes_through(py, &error) => Err(error),
            Err(error) => this.report(slf, message, &error),
        }
    }

    /// Sends what is queued, as much as the kernel takes. What passes through is raised in the end: it keeps no byte back,
    /// nor what comes behind the last one.
    pub fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut told = Ok(());
        loop {
            let fd = match this.live_fd(py) {
                Ok(fd) => fd,
                Err(error) => return told.and(Self::fatal_io(slf, &error, "write")),
            };
            let sent = this.state.with(py, |state| {
                if state.machine.buffered() == 0 {
                    return Ok((Step::NONE, Step::NONE, true));
                }
                let (sent, offered) = endpoint::write_vectored(this.kind, fd, state.machine.unsent())?;
                this.counters.sent_some(sent);
                let resume = state.machine.handle_sent(sent);
                if sent < offered {
                    let watch = state.machine.handle_blocked();
                    return Ok((resume, watch | state.machine.poll_grown(), true));
                }
                Ok::<_, io::Error>((resume, Step::NONE, state.machine.buffered() == 0))
            });
            let (resume, after, done) = match sent {
                Ok(sent) => sent,
                Err(error) => return told.and(Self::fatal_io(slf, &error, "write")),
            };
            // One step: whatever `resume_writing` raises, the watch is set before it.
            told = told.and(Self::run_step(slf, resume | after));
            if done {
                let settled = this.state.with(py, |state| state.machine.poll_settled());
                return match Self::run_step(slf, settled) {
                    // Nobody waits for this shutdown's outcome: a peer that is gone shows in the next event.
                    Err(error) if error.is_instance_of::<PyOSError>(py) => told,
                    result => told.and(result),
                };
            }
        }
    }

    /// Ends the connection because of the kernel.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn fatal_io(slf: &Bound<'_, Self>, error: &io::Error, what: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let over = if this.is_pipe(py) { "pipe" } else { "socket" };
        Self::fatal(slf, io_error(py, error), &format!("Fatal {what} error on {over} transport"))
    }

    /// A callback of reading raised: the end of the connection, except where the kind survives that.
    fn callback_failed(slf: &Bound<'_, Self>, error: PyErr, name: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if this.state.with(py, |state| state.machine.policy().survives_data) && !passes_through(py, &error) {
            return this.report(slf, &format!("Exception in callback protocol.{name}()"), &error);
        }
        Self::fatal(slf, error, &format!("Fatal error: protocol.{name}() call failed."))
    }

    /// Ends the connection because of an exception: reports it, unless the network is to blame, and closes.
    ///
    /// # Errors
    /// The exception itself when it passes through the loop.
    pub fn fatal(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if passes_through(py, &error) {
            return Err(error);
        }
        let policy = this.state.with(py, |state| state.machine.policy());
        let errno = || error.value(py).getattr(intern!(py, "errno")).and_then(|errno| errno.extract()).ok();
        if error.is_instance_of::<PyOSError>(py) && policy.is_quiet(errno()) {
            if this.owner.get().is_debug() {
                this.owner.bind(py).call_method1(intern!(py, "_log_fatal"), (slf, message, error.value(py)))?;
            }
        } else {
            this.report(slf, message, &error)?;
        }
        Self::fail_with(slf, error)
    }

    /// Closes at once; `connection_lost` gets the exception.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn fail_with(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let error = error.into_value(py);
        // Lost before: the exception is dropped outside the borrow, as it may hold anything.
        let (step, _unwanted) = this.state.with(py, |state| {
            let step = state.machine.fail(Fault::User);
            (step, if step.has(Step::LOSE) { state.error.replace(error) } else { Some(error) })
        });
        Self::run_step(slf, step)
    }

    fn report(&self, slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        let protocol = self.state.with(py, |state| state.protocol.as_ref().map(|p| p.object.clone_ref(py)));
        let more = [
            ("transport", Some(slf.clone().into_any())),
            ("protocol", protocol.map(|protocol| protocol.into_bound(py))),
        ];
        report(self.owner.bind(py), message, Some(error), &more)
    }

    /// The transport goes with its socket open: says so, as asyncio does, and closes it.
    ///
    /// # Errors
    /// As [`close_unclosed`].
    pub fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let ours = self.owns_fd(py);
        let (sock, rest) = self.state.with(py, |state| {
            state.release(ours);
            (state.sock.take(), (state.fileno.take(), state.protocol.take(), state.context.take(), state.server.take()))
        });
        drop(rest);
        sock.map_or(Ok(()), |sock| close_unclosed(sock.bind(py), &format!("{} fd={}", self.name(py), self.fd)))
    }
}
