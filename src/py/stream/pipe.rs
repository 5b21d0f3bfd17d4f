//! The transports of one end of a pipe: a [`StreamTransport`] of which the methods of the other direction are gone.
//!
//! They pass `isinstance` checks as CPython's do: a reading end is a `ReadTransport` and has nothing to write with; a
//! writing end is a `Transport` with write flow control, whose methods of reading are not implemented
//! (`unix_events._UnixReadPipeTransport`, `_UnixWritePipeTransport`).

use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple, PyType};

use super::StreamTransport;
use crate::core::stream::Policy;
use crate::io::endpoint::FileKind;
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::transport::base::Parts;

/// The transport of a reading end (`asyncio.ReadTransport`).
#[pyclass(module = "tokioloop", frozen, extends = StreamTransport)]
#[derive(Debug)]
pub struct ReadPipeTransport;

#[pymethods]
impl ReadPipeTransport {
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import(py, "asyncio.transports", "ReadTransport")
    }
}

/// The transport of a writing end (`asyncio.WriteTransport`).
#[pyclass(module = "tokioloop", frozen, extends = StreamTransport)]
#[derive(Debug)]
pub struct WritePipeTransport;

#[pymethods]
impl WritePipeTransport {
    /// `asyncio.StreamReader` buffers without bounds where a transport says this.
    fn pause_reading(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err("a writing end is not read"))
    }

    fn resume_reading(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err("a writing end is not read"))
    }

    fn is_reading(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err("a writing end is not read"))
    }
}

/// What a reading end lacks.
const OF_WRITING: [&str; 11] = [
    "write",
    "writelines",
    "write_eof",
    "can_write_eof",
    "abort",
    "get_write_buffer_size",
    "get_write_buffer_limits",
    "set_write_buffer_limits",
    "_protocol_paused",
    "_make_empty_waiter",
    "_reset_empty_waiter",
];
/// What is for transports over sockets only: `loop.start_tls` and `loop.sendfile` ask for it.
const OF_SOCKETS: [&str; 3] = ["_start_tls_compatible", "_sendfile_compatible", "_sock"];

/// Takes from the classes what their kind has not.
///
/// # Errors
/// `MemoryError`.
pub fn take_foreign_methods(py: Python<'_>) -> PyResult<()> {
    let (read, write) = (py.get_type::<ReadPipeTransport>(), py.get_type::<WritePipeTransport>());
    for name in OF_WRITING {
        take(&read, name)?;
    }
    for name in OF_SOCKETS {
        take(&read, name)?;
        take(&write, name)?;
    }
    Ok(())
}

/// Puts a property in the place of an inherited attribute that says there is none.
fn take(class: &Bound<'_, PyType>, name: &'static str) -> PyResult<()> {
    let py = class.py();
    let message = format!("'{}' object has no attribute '{name}'", class.name()?);
    let getter = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        Err(PyAttributeError::new_err(message.clone()))
    };
    let getter = PyCFunction::new_closure(py, None, None, getter)?;
    class.setattr(name, py.import("builtins")?.getattr("property")?.call1((getter,))?)
}

/// The transport of a pipe: `writes`, or reads; over a `socket`, a `device`, or else a pipe.
///
/// # Errors
/// As [`StreamTransport::create_pipe`].
pub fn make(
    owner: &Bound<'_, LoopCore>,
    parts: Parts<'_, '_>,
    writes: bool,
    socket: bool,
    device: bool,
) -> PyResult<Py<StreamTransport>> {
    let policy = match (writes, device) {
        (false, _) => Policy::READ_PIPE,
        (true, false) => Policy::WRITE_PIPE,
        (true, true) => Policy::WRITE_DEVICE,
    };
    StreamTransport::create_pipe(owner, parts, policy, if socket { FileKind::Socket } else { FileKind::File })
}
