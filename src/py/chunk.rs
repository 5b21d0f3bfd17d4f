//! Bytes on their way out: a `bytes` object of the user's, kept by reference.
//!
//! Mutable buffers are copied when they are written: what the user does to them afterwards does not reach the wire.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::ffi;

/// A queued chunk. Dropping one runs no user code: it holds an exact `bytes`.
#[derive(Debug)]
pub struct Chunk(PyBackedBytes);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bound<'_, PyBytes>> for Chunk {
    fn from(bytes: Bound<'_, PyBytes>) -> Self {
        Self(PyBackedBytes::from(bytes))
    }
}

/// As [`bytes_of`], of any object with the buffer protocol: asyncio's `writelines` takes it by `memoryview(data)`.
///
/// # Errors
/// `TypeError` for anything else.
pub fn bytes_of_buffer<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match data.cast_exact::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => ffi::copy_bytes(PyMemoryView::from(data)?.as_any()),
    }
}

/// What was written, as an exact `bytes`: itself, or a copy of a bytearray, memoryview or subclass.
///
/// # Errors
/// `TypeError` for anything else, with asyncio's message.
pub fn bytes_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    exact(data, || {
        if data.py().version_info() >= (3, 14) { "bytes, bytearray, or memoryview object" } else { "bytes-like object" }
    })
}

/// As [`bytes_of`], of what is sent as a datagram.
///
/// # Errors
/// `TypeError` for anything else, with asyncio's message.
pub fn bytes_of_datagram<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    exact(data, || "bytes-like object")
}

fn exact<'py>(data: &Bound<'py, PyAny>, wanted: impl FnOnce() -> &'static str) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if data.is_instance_of::<PyByteArray>() || data.is_instance_of::<PyMemoryView>() || data.is_instance_of::<PyBytes>()
    {
        return ffi::copy_bytes(data);
    }
    let name = data.get_type().name()?;
    Err(PyTypeError::new_err(format!("data argument must be a {}, not {}", wanted(), name.repr()?)))
}

/// The parts in one.
///
/// # Errors
/// `MemoryError`.
pub fn joined<'py>(py: Python<'py>, mut parts: Vec<Bound<'py, PyBytes>>) -> PyResult<Bound<'py, PyBytes>> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    PyBytes::new_with(py, parts.iter().map(|part| part.as_bytes().len()).sum(), |whole| {
        let mut at = 0;
        for part in parts.iter().map(PyBytesMethods::as_bytes) {
            whole[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    })
}
