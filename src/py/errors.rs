//! Exceptions: of the operating system, of user code, of bugs.

use std::any::Any;
use std::ffi::CString;
use std::io;

use pyo3::exceptions::PySystemExit as SystemExit;
use pyo3::exceptions::{
    PyException, PyKeyboardInterrupt as KeyboardInterrupt, PyOSError, PyResourceWarning, PyRuntimeError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::core::drive::Culprit;
use crate::core::fault::Fault;

/// The `OSError` of an errno; Python picks the subclass (`ConnectionResetError`, ...).
pub fn os_error(py: Python<'_>, errno: i32) -> PyErr {
    let message = py
        .import(intern!(py, "os"))
        .and_then(|os| os.call_method1(intern!(py, "strerror"), (errno,)))
        .and_then(|text| text.extract::<String>())
        .unwrap_or_else(|_| io::Error::from_raw_os_error(errno).to_string());
    PyOSError::new_err((errno, message))
}

/// As [`os_error`]; an error without an errno keeps its text.
pub fn io_error(py: Python<'_>, error: &io::Error) -> PyErr {
    error.raw_os_error().map_or_else(|| PyOSError::new_err(error.to_string()), |errno| os_error(py, errno))
}

/// The errno of an `OSError`, `Some(None)` where it has none; `None` of any other exception.
#[expect(clippy::option_option, reason = "what `drive::Host::os_errno` tells")]
pub fn os_errno(py: Python<'_>, error: &PyErr) -> Option<Option<i32>> {
    let errno = || error.value(py).getattr(intern!(py, "errno")).and_then(|errno| errno.extract()).ok();
    error.is_instance_of::<PyOSError>(py).then(errno)
}

/// What asyncio's reports say of an error of a transport over a "socket", a "pipe", a "datagram" one.
pub fn culprit_message(culprit: Culprit, over: &str) -> String {
    match culprit {
        Culprit::Callback(name) => format!("Exception in callback protocol.{name}()"),
        Culprit::Flow(name) => format!("protocol.{name}() failed"),
        Culprit::Fatal(name) => format!("Fatal error: protocol.{name}() call failed."),
        Culprit::Read => format!("Fatal read error on {over} transport"),
        Culprit::Write => format!("Fatal write error on {over} transport"),
    }
}

/// The argument of `connection_lost` for a fault that has no exception of its own.
pub fn fault_error(py: Python<'_>, fault: Fault) -> Option<PyErr> {
    match fault {
        Fault::Closed => None,
        Fault::Os(errno) => Some(os_error(py, errno)),
        Fault::User => Some(PyException::new_err("an exception of user code")),
        Fault::Panic => Some(PyRuntimeError::new_err(PANIC)),
    }
}

/// What a caught panic is called.
pub const PANIC: &str = "internal error in tokioloop (a panic was caught)";

/// The exception for a caught panic.
pub fn panic_error(payload: &(dyn Any + Send)) -> PyErr {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    PyRuntimeError::new_err(format!("{PANIC}: {text}"))
}

/// Reports a caught panic that no connection is to blame for.
///
/// # Errors
/// Only an exit.
pub fn report_panic(owner: &Bound<'_, PyAny>, payload: &(dyn Any + Send)) -> PyResult<()> {
    report(owner, PANIC, Some(&panic_error(payload)), &[])
}

/// As `BaseEventLoop.default_exception_handler` calls what says nothing of itself.
const UNHANDLED: &str = "Unhandled exception in event loop";

/// An exit (`SystemExit`, `KeyboardInterrupt`) ends the run of the loop; everything else is handled.
pub fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<KeyboardInterrupt>(py) || error.is_instance_of::<SystemExit>(py)
}

/// A transport goes unclosed: warns of it, as asyncio does.
///
/// # Errors
/// The warning, where a filter makes it an exception.
pub fn warn_unclosed(py: Python<'_>, what: &str) -> PyResult<()> {
    let message = CString::new(format!("unclosed transport <{what}>"))?;
    PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
}

/// A transport goes with its socket or pipe open: warns of it, and closes it whatever becomes of the warning.
///
/// This may happen while the interpreter ends, when nothing can be imported any more.
///
/// # Errors
/// The warning's, or what closing raises.
pub fn close_unclosed(sock: &Bound<'_, PyAny>, what: &str) -> PyResult<()> {
    let py = sock.py();
    let warned = warn_unclosed(py, what);
    // The collector may have emptied the socket object: its base class needs none of what is gone.
    let class = socket_class(py)?;
    let closed = if sock.is_instance(class)? {
        class.call_method1(intern!(py, "close"), (sock,))
    } else {
        sock.call_method0(intern!(py, "close"))
    };
    if let Err(error) = closed {
        error.write_unraisable(py, Some(sock));
    }
    warned
}

/// `_socket.socket`. The module asks for it once while it is imported, so that it is there to the end.
///
/// # Errors
/// What the import raises.
pub fn socket_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "_socket", "socket")
}

/// What a part of a turn raised: an exit ends the run of the loop, anything else is reported. Every part goes through
/// here, so that no exception of user code, of a hook or of the kernel keeps another part from running.
///
/// # Errors
/// Only an exit.
pub fn contain(owner: &Bound<'_, PyAny>, result: PyResult<()>) -> PyResult<()> {
    match result {
        Err(error) if !is_exit(owner.py(), &error) => report(owner, UNHANDLED, Some(&error), &[]),
        result => result,
    }
}

/// Hands a report to `loop.call_exception_handler`.
///
/// # Errors
/// Only an exit.
pub fn report(
    owner: &Bound<'_, PyAny>,
    message: &str,
    error: Option<&PyErr>,
    more: &[(&str, Option<Bound<'_, PyAny>>)],
) -> PyResult<()> {
    let py = owner.py();
    let context = PyDict::new(py);
    context.set_item(intern!(py, "message"), message)?;
    if let Some(error) = error {
        context.set_item(intern!(py, "exception"), error.value(py))?;
    }
    for (name, value) in more {
        if let Some(value) = value {
            context.set_item(*name, value)?;
        }
    }
    match owner.call_method1(intern!(py, "call_exception_handler"), (context,)) {
        Err(error) if is_exit(py, &error) => Err(error),
        Err(error) => {
            error.write_unraisable(py, Some(owner));
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
