//! Calls into CPython that PyO3 does not wrap. A fence: holds unsafe code.
//!
//! Contract: every function takes a [`Python`] token or a `Bound`, so the GIL is held.

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{Py, PyAny, Python, ffi};

/// A copy of the current context.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }.map(Bound::unbind)
}

/// Runs `f` inside `context` (an exact `contextvars.Context`). Entering and leaving costs 5 ns, `Context.run` 27.
///
/// # Errors
/// `RuntimeError` when the context is entered already, `TypeError` when it is none; `f` then did not run.
#[inline]
pub fn in_context<R>(py: Python<'_>, context: &Py<PyAny>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    struct Leave<'a>(&'a Py<PyAny>);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            // SAFETY: the context was entered below, by this thread, which holds the GIL until `in_context` returns.
            // Leaving fails only if it is not the current context; user code that entered others has left them, as
            // `Context.run` does.
            unsafe {
                if ffi::PyContext_Exit(self.0.as_ptr()) != 0 {
                    ffi::PyErr_WriteUnraisable(self.0.as_ptr());
                }
            }
        }
    }
    // SAFETY: a live object; what is no context gets a `TypeError`.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    let leave = Leave(context);
    let result = f();
    // An exception is in `result` by now, not set in the thread, so leaving meets none.
    drop(leave);
    result
}

/// A `bytes` copy of a bytes-like object, contiguous or not.
///
/// # Errors
/// `TypeError` for an object without the buffer protocol.
pub fn copy_bytes<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: returns a new reference or null with an exception set; what it returns is a `bytes`.
    unsafe {
        Bound::from_owned_ptr_or_err(data.py(), ffi::PyBytes_FromObject(data.as_ptr()))
            .map(|bytes| bytes.cast_into_unchecked())
    }
}

/// Puts an object back under the garbage collector's eyes: an instance reused from PyO3's free list is untracked.
#[inline]
pub fn track<T>(object: &Bound<'_, T>) {
    // SAFETY: a live object of a class with a traverse function, fully initialised by now.
    unsafe {
        if ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0 {
            ffi::PyObject_GC_Track(object.as_ptr().cast());
        }
    }
}

/// A writable, contiguous buffer that a protocol lends for one read.
pub struct Lent {
    view: Box<ffi::Py_buffer>,
}

impl Lent {
    /// # Errors
    /// `BufferError` or `TypeError` when the object lends no writable contiguous buffer.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: `view` is live; on success it is filled and owned by us until released in `drop`.
        let failed = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, ffi::PyBUF_WRITABLE) };
        if failed != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        if view.buf.is_null() && view.len > 0 {
            return Err(PyBufferError::new_err("buffer has no memory"));
        }
        Ok(Self { view })
    }

    pub fn len(&self) -> usize {
        usize::try_from(self.view.len).unwrap_or(0)
    }

    /// Lends the memory to `f`, which fills it from the kernel.
    pub fn fill<R>(&mut self, _py: Python<'_>, f: impl FnOnce(&mut [u8]) -> R) -> R {
        if self.len() == 0 {
            return f(&mut []);
        }
        // SAFETY: the exporter guarantees `len` writable bytes at `buf` while the view is held. Other views may exist,
        // but nobody reads or writes through them meanwhile, as that takes the GIL.
        f(unsafe { std::slice::from_raw_parts_mut(self.view.buf.cast(), self.len()) })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: the view was filled by `PyObject_GetBuffer` and is released once; callers hold the GIL, as they were
        // given the object with it and do not detach while they have the buffer.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}
