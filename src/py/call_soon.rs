//! `call_soon` in CPython's fast calling convention.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{Borrowed, intern};

use super::event_loop::LoopCore;
use super::ffi::{self, FastMethod};
use super::handle::Args;

/// `call_soon(callback, *args, context=None)`, the hottest method there is.
struct CallSoon;

impl FastMethod for CallSoon {
    type Class = LoopCore;
    const NAME: &'static CStr = c"call_soon";
    const DOC: &'static CStr = c"call_soon($self, callback, /, *args, context=None)\n--\n\n\
        Schedule callback(*args) for the next iteration of the loop.\n\n\
        Returns an asyncio.Handle. Raises RuntimeError when the loop is closed; in debug mode also when called from\n\
        another thread, and TypeError when callback is a coroutine or not callable.\n\
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_soon";

    #[inline]
    fn is_running(slf: &Bound<'_, LoopCore>) -> bool {
        slf.get().turn().is_some()
    }

    #[inline]
    fn call<'py>(
        slf: &Bound<'py, LoopCore>,
        args: &[Borrowed<'_, 'py, PyAny>],
        positional: usize,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let (args, named) = args.split_at(positional);
        let (mut callback, mut context) = (args.first().map(|callback| &**callback), None);
        for (name, value) in names.into_iter().flatten().zip(named) {
            let name = name.cast_into::<PyString>()?;
            if name.is(intern!(py, "context")) || name.to_str()? == "context" {
                context = Some(&**value).filter(|context| !context.is_none());
            } else if callback.is_none() && name.to_str()? == "callback" {
                callback = Some(value);
            } else {
                let message = format!("call_soon() got an unexpected keyword argument {}", name.repr()?);
                return Err(PyTypeError::new_err(message));
            }
        }
        let Some(callback) = callback else {
            return Err(PyTypeError::new_err("call_soon() missing 1 required positional argument: 'callback'"));
        };
        let args = match args {
            [] | [_] => Args::None,
            [_, only] => Args::One((**only).clone().unbind()),
            [_, rest @ ..] => Args::Many(PyTuple::new(py, rest)?.unbind()),
        };
        LoopCore::schedule(slf, "call_soon", callback, args, context, true).map(Py::into_any)
    }
}

/// Puts the fast methods into the class.
///
/// # Errors
/// `MemoryError`.
pub fn define_fast_methods(py: Python<'_>) -> PyResult<()> {
    ffi::define::<CallSoon>(py)
}
