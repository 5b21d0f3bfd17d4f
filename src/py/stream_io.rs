//! The life of a [`StreamTransport`]: its events, its end, and whose its file is. `stream_host` has what its driver needs.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//! Before each system call a socket that the user handed in is asked for its fd: closed under the transport it has
//! none, and the number may be another file's by then.

use std::any::Any;
use std::io;

use pyo3::intern;
use pyo3::prelude::*;

use super::errors::{self, close_unclosed, contain, report};
use super::slots::{EndpointRef, Life, Ops};
use super::stream::{State, StreamTransport};
use super::waiter::settle;
use crate::core::drive::stream as drive;
use crate::io::sys::BorrowedRawFd;
use crate::log_debug;

impl State {
    /// Deregisters the file; `ours`: its object still has the fd that was registered.
    pub fn release(&mut self, ours: bool) {
        if let Some(source) = self.source.take() {
            source.release(ours || self.second.is_some());
        }
        drop(self.second.take());
    }
}

static OPS: Ops = Ops {
    handle_io: |stream, write| StreamTransport::handle_io(stream.cast()?, write),
    handle_life: |stream, life| StreamTransport::handle_life(stream.cast()?, life),
    uncork: |stream, enter| StreamTransport::release(stream.cast()?, enter),
    forget_corked: |stream| StreamTransport::forget_corked(stream.cast()?),
    panicked: |stream, payload| StreamTransport::panicked(stream.cast()?, payload),
    uses_file: |stream| {
        let (py, this) = (stream.py(), stream.cast::<StreamTransport>()?.get());
        Ok(!this.is_closing_now(py) && this.owns_fd(py))
    },
    orphan: |stream| {
        StreamTransport::orphan(stream.cast()?);
        Ok(())
    },
};

impl StreamTransport {
    /// What the loop knows of it.
    pub fn endpoint(slf: &Bound<'_, Self>) -> EndpointRef {
        EndpointRef::new(slf, &OPS, slf.get().fd)
    }

    /// A panic of ours: reported, and the connection closed.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn panicked(slf: &Bound<'_, Self>, payload: &(dyn Any + Send)) -> PyResult<()> {
        let error = errors::panic_error(payload);
        Self::report(slf, errors::PANIC, &error)?;
        Self::fail_with(slf, error)
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

    /// Closes at once; `connection_lost` gets the exception.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn fail_with(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        drive::fail(&mut &*slf, error)
    }

    /// Deregisters and closes the socket, tells the server, and lets go of everything.
    pub fn dispose(slf: &Bound<'_, Self>, error: Option<&PyErr>) -> PyResult<()> {
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

    pub fn report(slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let protocol = this.state.with(py, |state| state.protocol.as_ref().map(|p| p.object.clone_ref(py)));
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
        let ours = self.owns_fd(py);
        let (sock, rest) = self.state.with(py, |state| {
            state.release(ours);
            (state.sock.take(), (state.fileno.take(), state.protocol.take(), state.context.take(), state.server.take()))
        });
        drop(rest);
        sock.map_or(Ok(()), |sock| close_unclosed(sock.bind(py), &format!("{} fd={}", self.name(py), self.fd)))
    }
}
