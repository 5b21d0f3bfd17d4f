//! Sending datagrams: at once, from the outbox, by the kernel's calls or by Python's socket.

use std::io;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{DatagramTransport, Destination};
use crate::io::datagram;
use crate::io::sys::BorrowedRawFd;
use crate::py::errors::io_error;

/// What is sent, and to whom.
#[derive(Debug)]
pub struct Message<'py> {
    pub bytes: Bound<'py, PyBytes>,
    pub address: Option<Bound<'py, PyAny>>,
    /// The same address as the kernel has it, once it was looked up.
    pub to: Option<Destination>,
}

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
    /// Sends one datagram; false when the kernel's buffer is full.
    ///
    /// # Errors
    /// The kernel's, or what `socket.sendto` raises.
    #[inline]
    pub fn send_message(&self, message: &mut Message<'_>) -> PyResult<bool> {
        let py = message.bytes.py();
        let tried = self.send_known(py, message.address.as_ref(), message.bytes.as_bytes());
        if matches!(tried, Some(Ok(true))) {
            self.base.counters.sent(message.bytes.as_bytes().len());
            return Ok(true);
        }
        self.send_direct(message, tried)
    }

    /// Sends to whom the socket is connected, or to one of the last addresses, which most datagrams are for; `None` for
    /// others.
    #[inline]
    fn send_known(&self, py: Python<'_>, address: Option<&Bound<'_, PyAny>>, bytes: &[u8]) -> Option<io::Result<bool>> {
        let fd = self.base.live_fd(py);
        if self.connected {
            return Some(fd.and_then(|fd| datagram::send_to(fd, bytes, None)));
        }
        let address = address?;
        self.base.state.with(py, |state| {
            let known = state.more.peers.address(address)?;
            Some(fd.and_then(|fd| datagram::send_to(fd, bytes, Some(known))))
        })
    }

    /// Sends to an address that is not among the last ones. `tried`: what the kernel said, where it was asked already.
    fn send_direct(&self, message: &mut Message<'_>, tried: Option<io::Result<bool>>) -> PyResult<bool> {
        let py = message.bytes.py();
        let to = self.destination(message.address.take(), &message.bytes);
        let bytes = message.bytes.as_bytes();
        let sent = match &to {
            Destination::Object(object, _) => self.send_by_python(&message.bytes, object.bind(py)),
            Destination::Peer | Destination::Address(_) => {
                let native = if let Destination::Address(address) = &to { Some(address) } else { None };
                let send = || self.base.live_fd(py).and_then(|fd| datagram::send_to(fd, bytes, native));
                let sent = tried.unwrap_or_else(send).map_err(|error| io_error(py, &error));
                if matches!(sent, Ok(true)) {
                    self.base.counters.sent(bytes.len());
                }
                sent
            }
        };
        message.to = Some(to);
        sent
    }

    fn send_by_python(&self, data: &Bound<'_, PyBytes>, to: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = data.py();
        let sock = self.base.state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)));
        let Some(sock) = sock else { return Ok(true) };
        match sock.bind(py).call_method1(intern!(py, "sendto"), (data, to)) {
            Ok(_) => {
                self.base.counters.sent(data.as_bytes().len());
                Ok(true)
            }
            Err(error) if would_block(py, &error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends at most `batch` datagrams from the front of the outbox by one call: how many.
    ///
    /// # Errors
    /// The kernel's, or what `socket.sendto` raises, of the first one.
    pub fn send_front(&self, py: Python<'_>, fd: io::Result<BorrowedRawFd>, batch: usize) -> PyResult<usize> {
        let attempt = self.base.state.with(py, |state| match state.machine.unsent().next().map(|packet| &packet.to) {
            None => Attempt::Nothing,
            Some(Destination::Object(object, data)) => Attempt::Python(data.clone_ref(py), object.clone_ref(py)),
            Some(_) => {
                let native = state.machine.unsent().take(batch).map_while(|packet| match &packet.to {
                    Destination::Peer => Some((packet.as_ref(), None)),
                    Destination::Address(address) => Some((packet.as_ref(), Some(address))),
                    Destination::Object(..) => None,
                });
                let sent = fd.and_then(|fd| datagram::send_batch(fd, &native));
                for packet in state.machine.unsent().take(*sent.as_ref().unwrap_or(&0)) {
                    self.base.counters.sent(packet.as_ref().len());
                }
                Attempt::Kernel(sent)
            }
        });
        match attempt {
            Attempt::Nothing => Ok(0),
            Attempt::Kernel(sent) => sent.map_err(|error| io_error(py, &error)),
            Attempt::Python(data, to) => self.send_by_python(data.bind(py), to.bind(py)).map(usize::from),
        }
    }
}
