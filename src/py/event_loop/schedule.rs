//! Scheduling: `call_soon` (in CPython's fast calling convention) and what its kin share.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{Borrowed, intern};

use super::handle::{Args, Body, Call, Handle};
use super::loop_core::{Entry, LoopCore};
use super::patched::Patches;
use super::threadsafe::ThreadSafeHandle;
use super::timer::{Due, Place, TimerHandle};
use crate::py::ffi::{self, FastMethod};

impl LoopCore {
    #[inline]
    pub fn schedule(
        slf: &Bound<'_, Self>,
        method: &str,
        callback: &Bound<'_, PyAny>,
        args: Args,
        context: Option<&Bound<'_, PyAny>>,
        own_thread: bool,
    ) -> PyResult<Py<Handle>> {
        let handle = Handle::create(slf, Self::admit(slf, method, callback, args, context, own_thread)?)?;
        Self::trace(slf, &handle.get().body)?;
        Self::push(slf, Entry::Handle(handle.clone_ref(slf.py())));
        Ok(handle)
    }

    /// Schedules from any thread, and wakes the loop. The handle is of the kind that asyncio has for that since 3.14.
    pub fn schedule_threadsafe(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: Args,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        const METHOD: &str = "call_soon_threadsafe";
        let (py, this) = (slf.py(), slf.get());
        let handle = if ThreadSafeHandle::is_known(py) {
            let call = Self::admit(slf, METHOD, callback, args, context, false)?;
            let handle = ThreadSafeHandle::create(slf, call)?;
            Self::trace(slf, &handle.get().body)?;
            Self::push(slf, Entry::Shared(handle.clone_ref(py)));
            handle.into_any()
        } else {
            Self::schedule(slf, METHOD, callback, args, context, false)?.into_any()
        };
        this.wake(py);
        Ok(handle)
    }

    pub fn schedule_at(
        slf: &Bound<'_, Self>,
        method: &str,
        when: Due,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<TimerHandle>> {
        let (py, this) = (slf.py(), slf.get());
        let call = Self::admit(slf, method, callback, Args::new(args), context, true)?;
        let handle = TimerHandle::create(py, slf.clone().unbind(), call, when)?;
        Self::trace(slf, &handle.get().body)?;
        if this.patches.has(Patches::TIMERS) {
            Self::push_timer(slf, handle.bind(py))?;
            return Ok(handle);
        }
        let (time, entry) = (handle.get().time(), handle.clone_ref(py));
        let key = this.sched.with(py, |sched| sched.timers.insert(time, entry));
        handle.get().set_place(py, Place::Timers(key));
        Ok(handle)
    }

    /// What to run, if it may be scheduled. Checked in debug mode only: a callable callback, the loop's own thread.
    #[inline]
    fn admit(
        slf: &Bound<'_, Self>,
        method: &str,
        callback: &Bound<'_, PyAny>,
        args: Args,
        context: Option<&Bound<'_, PyAny>>,
        own_thread: bool,
    ) -> PyResult<Call> {
        slf.get().check_open()?;
        if slf.get().is_debug() {
            slf.call_method1(intern!(slf.py(), "_debug_check"), (callback, method, own_thread))?;
        }
        let context = match context {
            Some(context) => context.clone().unbind(),
            None => ffi::copy_context(slf.py())?,
        };
        Ok(Call { callback: callback.clone().unbind(), args, context })
    }

    /// Notes in debug mode where a handle was made.
    #[inline]
    fn trace(slf: &Bound<'_, Self>, body: &Body) -> PyResult<()> {
        if slf.get().is_debug() {
            body.set_trace(slf.py(), slf.call_method0(intern!(slf.py(), "_debug_stack"))?.unbind());
        }
        Ok(())
    }
}

/// `call_soon(callback, *args, context=None)`, the hottest method there is.
struct CallSoon;

impl FastMethod for CallSoon {
    type Class = LoopCore;
    const NAME: &'static CStr = c"call_soon";
    const DOC: &'static CStr = c"call_soon($self, callback, *args, context=None)\n--\n\n\
        Schedule callback(*args) for the next iteration of the loop.\n\n\
        Returns an asyncio.Handle. Raises RuntimeError when the loop is closed; in debug mode also when called from\n\
        another thread, and TypeError when callback is a coroutine or not callable.\n\
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_soon";

    #[inline]
    fn runs_here(slf: &Bound<'_, LoopCore>) -> bool {
        slf.get().coalesce.runs_here(slf.py())
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
