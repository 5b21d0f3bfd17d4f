//! Sending datagrams: at once, from the outbox, by the kernel's calls or by Python's socket.

use std::io;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::datagram::{DatagramTransport, Destination};
use super::errors::io_error;
use crate::io::datagram;
use crate::log_debug;

pub const WRITE_ERROR: &str = "Fatal write error on datagram transport";

/// A datagram, or several, at the front of the outbox, as the kernel or Python's socket is to send them.
enum Attempt {
    Nothing,
    Kernel(io::Result<usize>),
    Python(Py<PyBytes>, Py<PyAny>),
}

/// The kernel has nothing, or no room, for now.
pub fn would_block(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}

impl DatagramTransport {
    /// Sends to whom the socket is connected, or to one of the last addresses, which most datagrams are for; `None` for
    /// others.
    #[inline]
    pub fn send_known(
        &self,
        py: Python<'_>,
        address: Option<&Bound<'_, PyAny>>,
        bytes: &[u8],
    ) -> Option<io::Result<bool>> {
        let fd = self.live_fd(py);
        if self.connected {
            return Some(fd.and_then(|fd| datagram::send_to(fd, bytes, None)));
        }
        let address = address?;
        self.state.with(py, |state| {
            let known = state.peers.address(address)?;
            Some(fd.and_then(|fd| datagram::send_to(fd, bytes, Some(known))))
        })
    }

    /// Sends one datagram at once, unless it was `tried`; false when the kernel's buffer is full. An error of the kernel is
    /// the protocol's, and what the protocol raises then is the caller's, as with asyncio.
    pub fn send_direct(
        slf: &Bound<'_, Self>,
        bytes: &Bound<'_, PyBytes>,
        to: &Destination,
        tried: Option<io::Result<bool>>,
    ) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let native = match to {
            Destination::Peer => None,
            Destination::Address(address) => Some(address),
            Destination::Object(object, _) => {
                return match Self::send_by_python(slf, bytes, object.bind(py)) {
                    Err(error) => Self::handle_refused(slf, error),
                    sent => sent,
                };
            }
        };
        let sent =
            tried.unwrap_or_else(|| this.live_fd(py).and_then(|fd| datagram::send_to(fd, bytes.as_bytes(), native)));
        match sent {
            Ok(sent) => {
                if sent {
                    this.counters.sent(bytes.as_bytes().len());
                }
                Ok(sent)
            }
            Err(error) => Self::handle_refused(slf, io_error(py, &error)),
        }
    }

    #[cold]
    fn handle_refused(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<bool> {
        if error.is_instance_of::<PyOSError>(slf.py()) {
            slf.get().handle_found(slf.py());
            Self::error_received(slf, error)?;
        } else {
            Self::fatal(slf, error, WRITE_ERROR)?;
        }
        Ok(true)
    }

    fn send_by_python(slf: &Bound<'_, Self>, data: &Bound<'_, PyBytes>, to: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = slf.py();
        let sock = slf.get().state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)));
        let Some(sock) = sock else { return Ok(true) };
        match sock.bind(py).call_method1(intern!(py, "sendto"), (data, to)) {
            Ok(_) => {
                slf.get().counters.sent(data.as_bytes().len());
                Ok(true)
            }
            Err(error) if would_block(py, &error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands an `OSError` to the protocol; what that raises comes back.
    fn error_received(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        log_debug!("error fd={} {error}", this.fd);
        let Some((protocol, _)) = this.callee(py) else { return Ok(()) };
        protocol.bind(py).call_method1(intern!(py, "error_received"), (error.into_value(py),)).map(drop)
    }

    /// As `error_received`, from the loop.
    pub fn error_reported(slf: &Bound<'_, Self>, error: &PyErr) -> PyResult<()> {
        log_debug!("error fd={} {error}", slf.get().fd);
        slf.get().call(slf, "error_received", error.value(slf.py()).as_any())
    }

    /// Sends what is queued, as much as the kernel takes and one flush may.
    pub fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if !this.state.with(py, |state| state.machine.begin_flush()) {
            return Ok(());
        }
        let mut result = Ok(());
        while result.is_ok() {
            let fd = this.live_fd(py);
            let attempt = this.state.with(py, |state| {
                let batch = state.machine.poll_flush();
                let mut front = state.machine.unsent().take(batch).peekable();
                match front.peek().map(|packet| &packet.to) {
                    None => Attempt::Nothing,
                    Some(Destination::Object(object, data)) => {
                        Attempt::Python(data.clone_ref(py), object.clone_ref(py))
                    }
                    Some(_) => {
                        let native = state.machine.unsent().take(batch).map_while(|packet| match &packet.to {
                            Destination::Peer => Some((packet.as_ref(), None)),
                            Destination::Address(address) => Some((packet.as_ref(), Some(address))),
                            Destination::Object(..) => None,
                        });
                        let sent = fd.and_then(|fd| datagram::send_batch(fd, &native));
                        for packet in state.machine.unsent().take(*sent.as_ref().unwrap_or(&0)) {
                            this.counters.sent(packet.as_ref().len());
                        }
                        Attempt::Kernel(sent)
                    }
                }
            });
            let sent = match attempt {
                Attempt::Nothing => break,
                Attempt::Kernel(sent) => sent.map_err(|error| io_error(py, &error)),
                Attempt::Python(data, to) => Self::send_by_python(slf, data.bind(py), to.bind(py)).map(usize::from),
            };
            result = match sent {
                Ok(0) => {
                    this.state.with(py, |state| state.machine.handle_blocked());
                    Ok(())
                }
                Ok(n) => {
                    this.state.with(py, |state| state.machine.handle_sent(n));
                    Ok(())
                }
                Err(error) => {
                    this.state.with(py, |state| state.machine.handle_refused());
                    match Self::handle_refused(slf, error) {
                        Err(error) => this.callback_failed(slf, "error_received", error),
                        Ok(_) => Ok(()),
                    }
                }
            };
        }
        let step = this.state.with(py, |state| state.machine.end_flush());
        let ended = Self::run_step(slf, step);
        let settled = this.state.with(py, |state| state.machine.poll_settled());
        result.and(ended).and(Self::run_step(slf, settled))
    }
}
