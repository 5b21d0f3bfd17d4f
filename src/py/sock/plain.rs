//! Sockets that may be read and written by their number: those whose methods are `socket.socket`'s own.
//!
//! asyncio calls the methods of the socket object, so a class below `socket.socket` may override them (to count, to
//! encrypt, to delay), and a test may replace them on the class. Such a socket is asked by its methods. An instance of
//! exactly `socket.socket` has no attributes of its own.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::py::errors::socket_class;
use crate::py::ffi;

/// The methods that a plain socket is not asked by.
const METHODS: [&str; 3] = ["recv", "recv_into", "send"];

/// Whether a socket need not be asked by its methods.
///
/// # Errors
/// What looking them up raises.
#[inline]
pub fn is_plain(sock: &Bound<'_, PyAny>) -> PyResult<bool> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    // The GIL guards both.
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static OWN: AtomicBool = AtomicBool::new(false);
    let py = sock.py();
    let class = CLASS.import(py, "socket", "socket")?;
    if !sock.get_type().is(class) {
        return Ok(false);
    }
    let version = ffi::version_of(class);
    if version == 0 || version != SEEN.load(Ordering::Relaxed) {
        let base = socket_class(py)?;
        let mut own = true;
        for name in METHODS {
            own &= class.getattr(name)?.is(&base.getattr(name)?);
        }
        OWN.store(own, Ordering::Relaxed);
        // Looking up gave it a version.
        SEEN.store(ffi::version_of(class), Ordering::Relaxed);
    }
    Ok(OWN.load(Ordering::Relaxed))
}
