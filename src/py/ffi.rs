//! Calls into CPython that PyO3 does not wrap. A fence: holds unsafe code.
//!
//! Contract: every function takes a [`Python`] token or a `Bound`, so the GIL is held.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyBytes, PyString, PyTuple, PyType};
use pyo3::{Borrowed, Py, PyAny, PyClass, PyClassInitializer, Python, ffi, intern};

use crate::io::sys::{BorrowedRawFd, RawBuf};

/// A copy of the current context.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }.map(Bound::unbind)
}

/// A copy of `context`.
///
/// # Errors
/// `TypeError` when it is no context, `MemoryError`.
#[inline]
pub fn copy_of_context(py: Python<'_>, context: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    // SAFETY: a live object, checked by the callee; returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr())) }.map(Bound::unbind)
}

/// Keeps the end of the interpreter from unwinding a thread: runs `f`, which calls Python.
///
/// Before CPython 3.14, a thread that wants the GIL of an interpreter that is ending is ended by `pthread_exit`
/// (`Python/ceval_gil.c`, `take_gil`): a daemon thread, in the middle of Python code. That unwinds our frames, whose
/// destructors would then touch objects without the GIL. The thread hangs here instead, as CPython 3.14 has it hang
/// (gh-87135) and `PyO3` does where it takes the GIL itself.
#[inline]
pub fn unless_ended<R>(f: impl FnOnce() -> R) -> R {
    struct Hang;
    impl Drop for Hang {
        fn drop(&mut self) {
            while !has_gil() {
                std::thread::park();
            }
        }
    }
    let hang = Hang;
    let result = f();
    std::mem::forget(hang);
    result
}

/// Whether this thread holds the GIL. `PyGILState_Check` says so of every thread once there was a second interpreter
/// (`Python/pystate.c`, `check_enabled`).
fn has_gil() -> bool {
    // SAFETY: both may be called by any thread, with the GIL or without. The states are compared, not looked at. Before
    // CPython 3.12 the current one is that of whichever thread has the GIL; since then it is this thread's, or null.
    unsafe {
        let current = ffi::compat::PyThreadState_GetUnchecked();
        !current.is_null() && current == ffi::PyGILState_GetThisThreadState()
    }
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
    let result = unless_ended(f);
    // An exception is in `result` by now, not set in the thread, so leaving meets none.
    drop(leave);
    result
}

/// Runs the end of an object, which may be user code's, and keeps an exception that is on its way through this thread.
///
/// `tp_dealloc` runs wherever the last reference goes, so also while CPython unwinds: code that Python runs then must
/// not meet the exception, and must leave it as it was (`Objects/typeobject.c`, `slot_tp_finalize`, keeps it likewise).
/// Nobody is there to be told what `f` raises, so it goes to `sys.unraisablehook`.
pub fn finalize(py: Python<'_>, f: impl FnOnce() -> PyResult<()>) {
    struct Pending([*mut ffi::PyObject; 3]);
    impl Drop for Pending {
        fn drop(&mut self) {
            let [class, value, trace] = self.0;
            #[allow(deprecated)] // its successor came with CPython 3.12
            // SAFETY: what was fetched below, owned, goes back once; the thread has the GIL, as `finalize` has its
            // token.
            unsafe {
                ffi::PyErr_Restore(class, value, trace);
            }
        }
    }
    let mut pending = Pending([std::ptr::null_mut(); 3]);
    let [class, value, trace] = &mut pending.0;
    #[allow(deprecated)] // its successor came with CPython 3.12
    // SAFETY: three live places, filled with owned references or nulls. `PyErr::take` would panic on a panic's
    // exception.
    unsafe {
        ffi::PyErr_Fetch(class, value, trace);
    }
    let result = catch_unwind(AssertUnwindSafe(f));
    if let Err(error) = result.unwrap_or_else(|payload| Err(super::errors::panic_error(payload.as_ref()))) {
        error.write_unraisable(py, None);
    }
}

/// Makes an object of a class whose objects have a `__dict__`, and keeps the garbage collector from running meanwhile.
///
/// Before CPython 3.13 `object.__new__` makes the dict itself (`Objects/typeobject.c`, `object_new`), when the
/// collector sees the object already and its contents are not there yet. Before 3.12 that allocation may run the
/// collector, which would traverse zeros.
///
/// # Errors
/// `MemoryError`.
pub fn make_with_dict<T: PyClass>(py: Python<'_>, init: impl Into<PyClassInitializer<T>>) -> PyResult<Bound<'_, T>> {
    struct Enable(bool);
    impl Drop for Enable {
        fn drop(&mut self) {
            if self.0 {
                // SAFETY: as below.
                unsafe { ffi::PyGC_Enable() };
            }
        }
    }
    // SAFETY: may be called by any thread that has the GIL, as this one has by its token.
    let _enable = Enable(unsafe { ffi::PyGC_Disable() } != 0);
    Bound::new(py, init)
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

/// Takes an object out of the garbage collector's sight, until [`track`].
#[inline]
pub fn untrack<T>(object: &Bound<'_, T>) {
    // SAFETY: a live object of a class with a traverse function; untracking an untracked one does nothing.
    unsafe { ffi::PyObject_GC_UnTrack(object.as_ptr().cast()) };
}

/// True when nobody else can reach the object: one reference, the caller's, and no weak one.
#[inline]
pub fn is_unshared<T>(object: &Bound<'_, T>) -> bool {
    // SAFETY: a live object; the offset is that of its class's list of weak references, a pointer inside the object.
    unsafe {
        if ffi::Py_REFCNT(object.as_ptr()) != 1 {
            return false;
        }
        let offset = (*ffi::Py_TYPE(object.as_ptr())).tp_weaklistoffset;
        offset <= 0 || (*object.as_ptr().byte_offset(offset).cast::<*mut ffi::PyObject>()).is_null()
    }
}

/// The number that CPython gives a class, a new one for each change of the class or of one that it inherits from
/// (`Objects/typeobject.c`, `PyType_Modified`); 0 when it has none.
#[inline]
pub fn version_of(class: &Bound<'_, PyType>) -> u32 {
    // SAFETY: a live class, whose fields the GIL guards.
    unsafe { (*class.as_type_ptr()).tp_version_tag }
}

/// As [`version_of`], of an object's class; without a reference to it, which would cost more than the rest.
#[inline]
pub fn version_of_class<T>(object: &Bound<'_, T>) -> u32 {
    // SAFETY: a live object, which keeps its class alive; the GIL guards the field.
    unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_version_tag }
}

/// Sets an attribute, or deletes it, as `object.__setattr__` and `object.__delattr__` do.
///
/// # Errors
/// As those.
pub fn set_attribute<T>(
    object: &Bound<'_, T>,
    name: &Bound<'_, PyString>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: live objects, and null, which means deleting.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } != 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}

/// A method in CPython's own fast calling convention, without PyO3's parsing of arguments (a third of the price of
/// `call_soon`).
pub trait FastMethod {
    /// The class that the method is defined in.
    type Class;
    const NAME: &'static CStr;
    const DOC: &'static CStr;

    /// True while this thread runs a turn of the loop behind `self`, which a method of PyO3's has begun: then PyO3
    /// knows that this thread has the GIL. Of other threads it knows nothing, whether or not the loop runs.
    fn runs_here(slf: &Bound<'_, Self::Class>) -> bool;

    /// Called with `self`, the positional arguments and the values of the keyword arguments behind them, and the names
    /// of the latter.
    ///
    /// # Errors
    /// What the method raises.
    fn call<'py>(
        slf: &Bound<'py, Self::Class>,
        args: &[Borrowed<'_, 'py, PyAny>],
        positional: usize,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Py<PyAny>>;
}

unsafe extern "C" fn fast_call<M: FastMethod>(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let call = |py: Python<'_>| {
        // SAFETY: CPython calls this with a live `self`, as many live arguments as it says, and a tuple of names or
        // null.
        unsafe { fast_call_attached::<M>(py, slf, args, positional, names) }
    };
    // SAFETY: CPython calls this by a thread that holds the GIL, with a `self` that the method descriptor has checked.
    let (py, runs_here) = unsafe {
        let py = Python::assume_attached();
        (py, M::runs_here(&Borrowed::from_ptr(py, slf).cast_unchecked::<M::Class>()))
    };
    if runs_here {
        return call(py);
    }
    // PyO3 has to know that the GIL is held, or references dropped now are only given back later. It refuses while the
    // interpreter ends, when a finalizer may still call.
    Python::try_attach(call).unwrap_or_else(|| call(py))
}

#[inline]
unsafe fn fast_call_attached<M: FastMethod>(
    py: Python<'_>,
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller promises.
    unsafe {
        // The method descriptor has checked that `self` is of the class (or of one below it) that it was made for.
        let slf = Borrowed::from_ptr(py, slf).cast_unchecked::<M::Class>();
        let names = (!names.is_null()).then(|| Borrowed::from_ptr(py, names).cast_unchecked::<PyTuple>());
        let positional = usize::try_from(positional).unwrap_or(0);
        let count = positional + names.map_or(0, |names| names.len());
        // `Borrowed` is a pointer without more, so an array of pointers is an array of it.
        let args: &[Borrowed<'_, '_, PyAny>] =
            if count == 0 { &[] } else { std::slice::from_raw_parts(args.cast(), count) };
        let result = catch_unwind(AssertUnwindSafe(|| M::call(&slf, args, positional, names.as_deref())));
        match result {
            Ok(Ok(value)) => value.into_ptr(),
            Ok(Err(error)) => {
                error.restore(py);
                std::ptr::null_mut()
            }
            Err(_) => {
                PyRuntimeError::new_err(super::errors::PANIC).restore(py);
                std::ptr::null_mut()
            }
        }
    }
}

/// Puts a fast method into a class, in place of one that has its name.
///
/// # Errors
/// `MemoryError`.
pub fn define<M: FastMethod<Class: PyTypeInfo>>(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<M::Class>();
    // CPython keeps the definition as long as the class, which is as long as the process.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: fast_call::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: M::DOC.as_ptr(),
    }));
    // SAFETY: a live class and a definition that outlives it; returns a new reference or null with an exception set.
    let descriptor =
        unsafe { Bound::from_owned_ptr_or_err(class.py(), ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))? };
    let name = M::NAME.to_str().map_err(|_| PyRuntimeError::new_err("a method's name is ASCII"))?;
    class.setattr(name, descriptor)
}

/// Gives `class` methods of its own in place of those that it inherits from `base` and does not override. CPython calls
/// a built-in method directly only if `self` is exactly of the class that has it (`CALL_METHOD_DESCRIPTOR_*`).
///
/// # Errors
/// `TypeError` when `class` is not below `base`; `MemoryError`.
pub fn adopt_methods(class: &Bound<'_, PyType>, base: &Bound<'_, PyType>) -> PyResult<()> {
    if !class.is_subclass(base)? {
        return Err(PyTypeError::new_err("methods can be adopted from a base class only"));
    }
    for item in base.getattr("__dict__")?.call_method0("items")?.try_iter()? {
        let (name, method) = item?.extract::<(Bound<'_, PyString>, Bound<'_, PyAny>)>()?;
        let is_method = method.get_type().as_ptr() == (&raw mut ffi::PyMethodDescr_Type).cast();
        if !is_method || !class.getattr(&name)?.is(&method) {
            continue;
        }
        // SAFETY: a live object of the exact class `method_descriptor`, which is this struct. Its definition lives as
        // long as `base`, which `class` keeps alive. Returns a new reference or null with an exception set.
        let adopted = unsafe {
            let definition = (*method.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method;
            Bound::from_owned_ptr_or_err(class.py(), ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))?
        };
        class.setattr(name, adopted)?;
    }
    Ok(())
}

/// The file that an object says is its own; [`BorrowedRawFd::NONE`] if it is closed.
///
/// # Errors
/// What its `fileno()` raises, or `TypeError`.
pub fn file_of(object: &Bound<'_, PyAny>) -> PyResult<BorrowedRawFd> {
    let raw = object.call_method0(intern!(object.py(), "fileno"))?.extract()?;
    // SAFETY: its owner has the file now. What keeps the number asks again before each use (`live_fd`, `owns_fd`),
    // unless it owns the object and nobody else has it.
    Ok(unsafe { BorrowedRawFd::new(raw) })
}

/// A writable, contiguous buffer that a protocol lends for one read.
pub struct Lent {
    view: Box<ffi::Py_buffer>,
}

impl Lent {
    /// # Errors
    /// `TypeError` when the object lends no writable contiguous buffer.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: `view` is live; on success it is filled and owned by us until released in `drop`.
        let failed = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, ffi::PyBUF_WRITABLE) };
        if failed != 0 {
            let error = PyErr::fetch(object.py());
            if error.is_instance_of::<PyBufferError>(object.py()) {
                // As the methods of `socket` say it.
                let name = object.get_type().name()?;
                let message = format!("a read-write bytes-like object is required, not {}", name.repr()?);
                return Err(PyTypeError::new_err(message));
            }
            return Err(error);
        }
        if view.buf.is_null() && view.len > 0 {
            return Err(PyBufferError::new_err("buffer has no memory"));
        }
        Ok(Self { view })
    }

    /// The memory, for the kernel to fill. Others may have views of it, and use them meanwhile, with the GIL or
    /// without.
    pub fn memory(&mut self) -> RawBuf<'_> {
        let len = usize::try_from(self.view.len).unwrap_or(0);
        // SAFETY: the exporter guarantees `len` writable bytes at `buf` while the view is held.
        unsafe { RawBuf::new(self.view.buf.cast(), len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: the view was filled by `PyObject_GetBuffer` and is released once. This thread holds the GIL: it did
        // in `of`, a `Lent` is not `Send`, and who has one does not detach.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}
