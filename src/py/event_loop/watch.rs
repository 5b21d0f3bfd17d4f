//! `add_reader`, `add_writer` and their removal.

use pyo3::exceptions::{PyAttributeError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};

use super::handle::{Args, Call, Handle};
use super::loop_core::{LoopCore, Watcher};
use super::slots::EndpointRef;
use crate::core::drive::interest::Table;
use crate::core::interest::{Dir, Keep};
use crate::py::errors::io_error;
use crate::py::ffi;

/// The number of an fd or file object.
///
/// # Errors
/// As asyncio and the `selectors` module give them: `ValueError`, `OverflowError` for a number that no descriptor has,
/// and what `fileno` raises other than `AttributeError`, `TypeError` and `ValueError`.
pub fn fd_of(file: &Bound<'_, PyAny>) -> PyResult<u32> {
    let py = file.py();
    let number = if file.is_instance_of::<PyInt>() {
        file.clone()
    } else {
        let asked = file.call_method0(intern!(py, "fileno"));
        match asked.and_then(|number| py.get_type::<PyInt>().call1((number,))) {
            Ok(number) => number,
            Err(error)
                if error.is_instance_of::<PyAttributeError>(py)
                    || error.is_instance_of::<PyTypeError>(py)
                    || error.is_instance_of::<PyValueError>(py) =>
            {
                return Err(PyValueError::new_err(format!("Invalid file object: {}", file.repr()?)));
            }
            Err(error) => return Err(error),
        }
    };
    if number.lt(0)? {
        return Err(PyValueError::new_err(format!("Invalid file descriptor: {}", number.str()?)));
    }
    number.extract::<i32>().map(i32::cast_unsigned)
}

/// Refuses an fd that a live transport has.
///
/// # Errors
/// `RuntimeError`.
pub fn check_no_transport(slf: &Bound<'_, LoopCore>, fd: u32, file: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = slf.py();
    let endpoint = slf.get().io.with(py, |io| io.slots.by_fd(fd).map(|endpoint| endpoint.clone_ref(py)));
    let Some(EndpointRef { object, ops, .. }) = endpoint else { return Ok(()) };
    let transport = object.bind(py);
    if !(ops.uses_file)(transport)? {
        return Ok(());
    }
    let message = format!("File descriptor {} is used by transport {}", file.repr()?, transport.repr()?);
    Err(PyRuntimeError::new_err(message))
}

/// Sets a watcher of a fd that no transport has.
///
/// # Errors
/// `RuntimeError` when a transport has the fd, and as [`add_unchecked`].
pub fn add(
    slf: &Bound<'_, LoopCore>,
    file: &Bound<'_, PyAny>,
    dir: Dir,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    check_no_transport(slf, fd_of(file)?, file)?;
    add_unchecked(slf, file, dir, callback, args, None).map(drop)
}

/// Refuses a context for a watcher where asyncio's own methods take none: before CPython 3.15.
///
/// # Errors
/// `TypeError`, as they do.
pub fn check_context(py: Python<'_>, method: &str, context: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if context.is_some() && py.version_info() < (3, 15) {
        return Err(PyTypeError::new_err(format!("{method}() got an unexpected keyword argument 'context'")));
    }
    Ok(())
}

/// Sets a watcher, called in `context` or in a copy of the current one; its handle.
///
/// # Errors
/// `ValueError` for what is no fd, `RuntimeError` when the loop is closed, `OSError` when it cannot be watched
/// (`PermissionError` for a regular file).
pub fn add_unchecked(
    slf: &Bound<'_, LoopCore>,
    file: &Bound<'_, PyAny>,
    dir: Dir,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<Handle>> {
    let (py, this) = (slf.py(), slf.get());
    let fd = fd_of(file)?;
    this.check_open()?;
    let context = context.map_or_else(|| ffi::copy_context(py), |context| Ok(context.clone().unbind()))?;
    let call = Call { callback: callback.clone().unbind(), args: Args::new(args), context };
    let handle = Handle::create(slf, call)?;
    // It stays for longer than a turn.
    Handle::show_collector(handle.bind(py));
    let watcher = handle.clone_ref(py);
    let (result, old, stale) = this.io.with(py, |io| {
        let (change, old) = io.interest.set_watcher(fd, dir, Watcher::Handle(watcher));
        let (result, stale) = io.settle(fd, change, Keep::Watcher(dir));
        (result, old, stale)
    });
    if let Some(old) = old {
        old.cancel(py)?;
    }
    Watcher::end_stale(stale, py)?;
    result.map_err(|error| io_error(py, &error))?;
    if !file.is_instance_of::<PyInt>() {
        let file = file.clone().unbind();
        drop(this.io.with(py, |io| io.files.insert(fd, file)));
    }
    Ok(handle)
}

/// Removes a watcher; false when there was none.
///
/// # Errors
/// `RuntimeError` when a transport has the fd, and as [`remove_unchecked`].
pub fn remove(slf: &Bound<'_, LoopCore>, file: &Bound<'_, PyAny>, dir: Dir) -> PyResult<bool> {
    if let Ok(fd) = fd_of(file) {
        check_no_transport(slf, fd, file)?;
    }
    remove_unchecked(slf, file, dir)
}

/// Removes a watcher; false when there was none.
///
/// # Errors
/// `ValueError` for what is no fd.
pub fn remove_unchecked(slf: &Bound<'_, LoopCore>, file: &Bound<'_, PyAny>, dir: Dir) -> PyResult<bool> {
    let (py, this) = (slf.py(), slf.get());
    let fd = match fd_of(file) {
        Ok(fd) => fd,
        // No file has such a number, so it is not watched.
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Ok(false),
        // A closed file object has no number any more, but is known by the one it was watched with.
        Err(error) => {
            let known = this.io.with(py, |io| io.files.iter().find(|(_, of)| of.is(file)).map(|(fd, _)| *fd));
            known.ok_or(error)?
        }
    };
    let (result, old, stale, file) = this.io.with(py, |io| {
        let (change, old) = io.interest.clear_watcher(fd, dir);
        let (result, stale) = io.settle(fd, change, Keep::Nobody);
        let watched = [Dir::Read, Dir::Write].into_iter().any(|dir| io.interest.watcher(fd, dir).is_some());
        let file = if watched { None } else { io.files.remove(&fd) };
        (result, old, stale, file)
    });
    drop(file);
    let removed = old.is_some();
    if let Some(old) = old {
        old.cancel(py)?;
    }
    Watcher::end_stale(stale, py)?;
    result.map_err(|error| io_error(py, &error))?;
    Ok(removed)
}
