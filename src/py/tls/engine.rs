//! The cryptography of a TLS connection: the user's `ssl.SSLObject` between two `ssl.MemoryBIO`s.
//!
//! Where nobody overrode `read` and `write` of `ssl.SSLObject`, what those call is called without them, which saves a
//! frame of the interpreter for each record.

use std::cell::OnceCell;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyMemoryView, PySlice, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::core::tls::Outcome;
use crate::py::chunk::Chunk;

/// Plaintext of one record, bytes.
pub const RECORD: usize = 16 * 1024;

/// An SSL object and its two ends.
#[derive(Debug)]
pub struct Engine {
    pub object: Py<PyAny>,
    /// What has `read` and `write`.
    calls: Py<PyAny>,
    incoming: Py<PyAny>,
    outgoing: Py<PyAny>,
}

/// A class of the module `ssl`.
///
/// # Errors
/// What the import raises.
pub fn ssl_class<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<Bound<'py, PyType>> {
    cell.import(py, "ssl", name).cloned()
}

/// OpenSSL needs more from the peer. A failed system call means the same: over memory there are none.
fn is_again(py: Python<'_>, error: &PyErr) -> bool {
    static WANT_READ: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static SYSCALL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    [(&WANT_READ, "SSLWantReadError"), (&SYSCALL, "SSLSyscallError")]
        .into_iter()
        .any(|(cell, name)| ssl_class(py, cell, name).is_ok_and(|class| error.is_instance(py, &class)))
}

fn outcome<T>(py: Python<'_>, result: PyResult<T>) -> Outcome<T, PyErr> {
    match result {
        Ok(value) => Outcome::Done(value),
        Err(error) if is_again(py, &error) => Outcome::Again,
        Err(error) => Outcome::Failed(error),
    }
}

impl Engine {
    pub fn new(object: Py<PyAny>, calls: Py<PyAny>, incoming: Py<PyAny>, outgoing: Py<PyAny>) -> Self {
        Self { object, calls, incoming, outgoing }
    }

    pub fn bind<'a, 'py>(&'a self, py: Python<'py>) -> Driven<'a, 'py> {
        Driven { engine: self, py }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.object, &self.calls, &self.incoming, &self.outgoing]
            .into_iter()
            .try_for_each(|object| visit.call(object))
    }
}

/// An engine, with the interpreter at hand. Every call may run user code (callbacks of the context) and other threads.
#[expect(missing_debug_implementations, reason = "the interpreter's token has none")]
#[derive(Clone, Copy)]
pub struct Driven<'a, 'py> {
    engine: &'a Engine,
    py: Python<'py>,
}

impl<'py> Driven<'_, 'py> {
    /// Ciphertext that is to be sent, bytes.
    ///
    /// # Errors
    /// What the attribute raises.
    pub fn held(self) -> PyResult<usize> {
        self.engine.outgoing.bind(self.py).getattr(intern!(self.py, "pending"))?.extract()
    }

    /// Plaintext of a record that was read in part, bytes.
    ///
    /// # Errors
    /// What `pending` raises.
    pub fn pending(self) -> PyResult<usize> {
        self.engine.calls.bind(self.py).call_method0(intern!(self.py, "pending"))?.extract()
    }

    /// Reads at most `max` bytes into a buffer of the user's, from `offset` on.
    pub fn read_into(self, buffer: &Bound<'py, PyMemoryView>, offset: usize, max: usize) -> Outcome<usize, PyErr> {
        outcome(self.py, self.try_read_into(buffer, offset, max))
    }

    fn try_read_into(self, buffer: &Bound<'py, PyMemoryView>, offset: usize, max: usize) -> PyResult<usize> {
        let part = part(buffer, offset, offset + max)?;
        self.engine.calls.bind(self.py).call_method1(intern!(self.py, "read"), (max, part))?.extract()
    }

    /// Encrypts a part of `plain`, as much as the engine takes: how many bytes.
    pub fn write(self, plain: &Plain<'py>, from: usize, to: usize) -> Outcome<usize, PyErr> {
        outcome(self.py, self.try_write(plain, from, to))
    }

    fn try_write(self, plain: &Plain<'py>, from: usize, to: usize) -> PyResult<usize> {
        let write = |data: &Bound<'py, PyAny>| -> PyResult<usize> {
            self.engine.calls.bind(self.py).call_method1(intern!(self.py, "write"), (data,))?.extract()
        };
        if from == 0 && to == plain.as_ref().len() {
            return write(plain.bytes.as_any());
        }
        let view = if let Some(view) = plain.view.get() {
            view
        } else {
            let view = PyMemoryView::from(plain.bytes.as_any())?;
            plain.view.get_or_init(|| view)
        };
        write(&part(view, from, to)?)
    }
}

/// Plaintext that is written, with the view of which parts are written, once there are any.
#[derive(Debug)]
pub struct Plain<'py> {
    bytes: Bound<'py, PyBytes>,
    view: OnceCell<Bound<'py, PyMemoryView>>,
}

impl<'py> From<Bound<'py, PyBytes>> for Plain<'py> {
    fn from(bytes: Bound<'py, PyBytes>) -> Self {
        Self { bytes, view: OnceCell::new() }
    }
}

impl AsRef<[u8]> for Plain<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_bytes()
    }
}

impl From<Plain<'_>> for Chunk {
    fn from(plain: Plain<'_>) -> Self {
        plain.bytes.into()
    }
}

fn part<'py>(view: &Bound<'py, PyMemoryView>, from: usize, to: usize) -> PyResult<Bound<'py, PyAny>> {
    // Sizes of memory objects fit.
    let index = |n: usize| isize::try_from(n).unwrap_or(isize::MAX);
    view.get_item(PySlice::new(view.py(), index(from), index(to), 1))
}

/// As in `core::tls::RecordEngine`.
impl<'py> Driven<'_, 'py> {
    pub fn feed(self, ciphertext: &[u8]) -> PyResult<()> {
        let bytes = PyBytes::new(self.py, ciphertext);
        self.engine.incoming.bind(self.py).call_method1(intern!(self.py, "write"), (bytes,)).map(drop)
    }

    pub fn handshake(self) -> Outcome<(), PyErr> {
        outcome(self.py, self.engine.object.bind(self.py).call_method0(intern!(self.py, "do_handshake")).map(drop))
    }

    pub fn read(self, max: usize) -> Outcome<Bound<'py, PyBytes>, PyErr> {
        let read = self.engine.calls.bind(self.py).call_method1(intern!(self.py, "read"), (max,));
        outcome(self.py, read.and_then(|bytes| Ok(bytes.cast_into()?)))
    }

    pub fn shutdown(self) -> Outcome<(), PyErr> {
        outcome(self.py, self.engine.object.bind(self.py).call_method0(intern!(self.py, "unwrap")).map(drop))
    }

    pub fn unread(self) -> PyResult<usize> {
        self.engine.incoming.bind(self.py).getattr(intern!(self.py, "pending"))?.extract()
    }

    pub fn take(self) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.engine.outgoing.bind(self.py).call_method0(intern!(self.py, "read"))?;
        Ok(bytes.cast_into()?)
    }
}
