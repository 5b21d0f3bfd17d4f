//! `Handle`: a callback that waits for its turn; and what all kinds of handle have in common.
//!
//! They pass `isinstance` checks against asyncio's classes by their `__class__`; the classes themselves are slots-only
//! Python classes that a Rust class cannot extend. One-shot handles let go of callback, arguments and context once they
//! ran or were cancelled, so that a kept handle keeps nothing else alive; a watcher's handle (`add_reader`) runs again
//! and again and is only cleared by its cancellation.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::loop_core::LoopCore;
use super::patched::{self, Patches};
use crate::py::cell::GilCell;
use crate::py::errors::{is_exit, report};
use crate::py::ffi;

/// The arguments of a callback. Most have none or one, which need no tuple.
#[derive(Debug)]
pub enum Args {
    None,
    One(Py<PyAny>),
    Many(Py<PyTuple>),
}

impl Args {
    pub fn new(args: &Bound<'_, PyTuple>) -> Self {
        match args.len() {
            0 => Self::None,
            1 => args.get_item(0).map_or(Self::None, |only| Self::One(only.unbind())),
            _ => Self::Many(args.clone().unbind()),
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::None => Self::None,
            Self::One(only) => Self::One(only.clone_ref(py)),
            Self::Many(args) => Self::Many(args.clone_ref(py)),
        }
    }

    pub fn tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self {
            Self::None => Ok(PyTuple::empty(py)),
            Self::One(only) => PyTuple::new(py, [only]),
            Self::Many(args) => Ok(args.bind(py).clone()),
        }
    }
}

/// What runs.
#[derive(Debug)]
pub struct Call {
    pub callback: Py<PyAny>,
    pub args: Args,
    pub context: Py<PyAny>,
}

impl Call {
    /// Calls it in its context; the result of the callback is dropped, as asyncio does.
    #[inline]
    pub fn run(&self, py: Python<'_>) -> PyResult<()> {
        ffi::in_context(py, &self.context, || match &self.args {
            Args::None => self.callback.call0(py).map(drop),
            Args::One(only) => self.callback.call1(py, (only.bind(py),)).map(drop),
            Args::Many(args) => self.callback.call1(py, args.bind(py)).map(drop),
        })
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            callback: self.callback.clone_ref(py),
            args: self.args.clone_ref(py),
            context: self.context.clone_ref(py),
        }
    }

    /// asyncio's function that says what a callback is. Asked for when the extension is imported: in debug mode a
    /// handle that is cancelled while the interpreter ends needs it, and nothing can be imported then.
    ///
    /// # Errors
    /// What importing raises.
    pub fn formatter(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
        static FORMAT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        FORMAT.import(py, "asyncio.format_helpers", "_format_callback_source")
    }

    /// What it calls and where that is written, as asyncio says it. Later versions of CPython keep the arguments to
    /// themselves outside debug mode, as they may be secrets.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn describe(&self, py: Python<'_>, debug: bool) -> PyResult<String> {
        let format = Self::formatter(py)?;
        let (args, kwargs) = ((&self.callback, self.args.tuple(py)?), PyDict::new(py));
        if debug && !format.getattr(intern!(py, "__kwdefaults__"))?.is_none() {
            kwargs.set_item(intern!(py, "debug"), true)?;
        }
        format.call(args, Some(&kwargs))?.extract()
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callback)?;
        visit.call(&self.context)?;
        match &self.args {
            Args::None => Ok(()),
            Args::One(only) => visit.call(only),
            Args::Many(args) => visit.call(args),
        }
    }
}

/// What every kind of handle is made of.
#[derive(Debug)]
pub struct Body {
    /// `None` while the handle lies in its loop's pool.
    owner: GilCell<Option<Py<LoopCore>>>,
    call: GilCell<Option<Call>>,
    /// Where it was made, in debug mode: a `traceback.StackSummary`.
    trace: GilCell<Option<Py<PyAny>>>,
    /// The repr from the moment of the cancellation, in debug mode.
    repr_at_cancel: GilCell<Option<String>>,
    cancelled: AtomicBool,
    /// The garbage collector sees it: not while it lies in the pool, nor for its turn in a running loop's queue.
    tracked: AtomicBool,
}

impl Body {
    pub fn new(owner: Py<LoopCore>, call: Call) -> Self {
        Self {
            owner: GilCell::new(Some(owner)),
            call: GilCell::new(Some(call)),
            trace: GilCell::new(None),
            repr_at_cancel: GilCell::new(None),
            cancelled: AtomicBool::new(false),
            tracked: AtomicBool::new(false),
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn owner(&self, py: Python<'_>) -> Option<Py<LoopCore>> {
        self.owner.with(py, |owner| owner.as_ref().map(|owner| owner.clone_ref(py)))
    }

    /// What to run, taken out; `None` when it was cancelled.
    #[inline]
    pub fn take(&self, py: Python<'_>) -> Option<Call> {
        self.call.take(py)
    }

    /// What to run, left in place: for a handle that runs again, and for debug mode, which shows it while it runs.
    pub fn peek(&self, py: Python<'_>) -> Option<Call> {
        self.call.with(py, |call| call.as_ref().map(|call| call.clone_ref(py)))
    }

    /// Puts a call back, for the repr in a report.
    pub fn restore(&self, py: Python<'_>, call: Call) {
        drop(self.call.replace(py, Some(call)));
    }

    pub fn set_trace(&self, py: Python<'_>, trace: Py<PyAny>) {
        drop(self.trace.replace(py, Some(trace)));
    }

    pub fn trace<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.trace.with(py, |trace| trace.as_ref().map(|trace| trace.bind(py).clone()))
    }

    /// Cancels it: whether it was not cancelled before, and what it would have called, for the caller to drop last.
    pub fn cancel(&self, py: Python<'_>, repr: impl FnOnce() -> PyResult<String>) -> PyResult<(bool, Option<Call>)> {
        if self.is_cancelled() {
            return Ok((false, None));
        }
        // First, as the repr may let another thread run: the loop's may be about to run this handle.
        self.cancelled.store(true, Ordering::Relaxed);
        let repr = self.owner(py).is_some_and(|owner| owner.get().is_debug()).then(repr);
        let call = self.call.take(py);
        if let Some(repr) = repr {
            self.repr_at_cancel.replace(py, Some(repr?));
        }
        Ok((true, call))
    }

    pub fn repr(&self, py: Python<'_>, kind: &str, when: Option<Bound<'_, PyAny>>) -> PyResult<String> {
        if let Some(repr_at_cancel) = self.repr_at_cancel.with(py, |repr_at_cancel| repr_at_cancel.clone()) {
            return Ok(repr_at_cancel);
        }
        Ok(format!("<{}>", self.repr_parts(py, kind, when)?.join(" ")))
    }

    /// What the repr is made of.
    pub fn repr_parts(&self, py: Python<'_>, kind: &str, when: Option<Bound<'_, PyAny>>) -> PyResult<Vec<String>> {
        let mut parts = vec![kind.to_owned()];
        if self.is_cancelled() {
            parts.push("cancelled".to_owned());
        }
        if let Some(when) = when {
            parts.push(format!("when={}", when.str()?));
        }
        if let Some(call) = self.peek(py) {
            parts.push(call.describe(py, self.owner(py).is_some_and(|owner| owner.get().is_debug()))?);
        }
        if let Some(trace) = self.trace(py).filter(|trace| trace.len().is_ok_and(|len| len > 0)) {
            let frame = trace.get_item(-1)?;
            parts.push(format!("created at {}:{}", frame.get_item(0)?, frame.get_item(1)?));
        }
        Ok(parts)
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(owner) = self.owner.traversed(visit).as_deref().and_then(Option::as_ref) {
            visit.call(owner)?;
        }
        if let Some(call) = self.call.traversed(visit).as_deref().and_then(Option::as_ref) {
            call.traverse(visit)?;
        }
        if let Some(trace) = self.trace.traversed(visit).as_deref().and_then(Option::as_ref) {
            visit.call(trace)?;
        }
        Ok(())
    }

    pub fn clear(&self, py: Python<'_>) {
        drop(self.owner.take(py));
        drop(self.call.take(py));
        drop(self.trace.take(py));
    }

    pub fn callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call.with(py, |call| call.as_ref().map(|call| call.callback.clone_ref(py)))
    }

    pub fn args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.peek(py).map(|call| call.args.tuple(py)).transpose()
    }

    pub fn context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call.with(py, |call| call.as_ref().map(|call| call.context.clone_ref(py)))
    }
}

/// Runs a handle's callback, unless it was cancelled. `once`: it runs no more, so the handle lets go of it.
///
/// # Errors
/// Only an exit.
#[inline]
pub fn run_call<T>(slf: &Bound<'_, LoopCore>, handle: &Bound<'_, T>, body: &Body, once: bool) -> PyResult<()> {
    let py = slf.py();
    let Some(call) = (if once { body.take(py) } else { body.peek(py) }) else { return Ok(()) };
    match call.run(py) {
        Ok(()) => Ok(()),
        Err(error) => callback_failed(slf, handle, body, call, &error, once),
    }
}

/// Runs a handle's callback for a program that calls `_run`; the handle keeps the callback.
///
/// # Errors
/// An exit, and what a `_run` of somebody else's raises.
pub fn run_by_hand<T>(handle: &Bound<'_, T>, body: &Body) -> PyResult<()> {
    let py = handle.py();
    let Some(owner) = body.owner(py) else { return Ok(()) };
    let owner = owner.bind(py);
    if owner.get().patches.look(owner)? && owner.get().patches.has(Patches::RUN) {
        return patched::run_patched(handle.as_any());
    }
    run_call(owner, handle, body, false)
}

/// Reports the exception of a callback as `asyncio.Handle._run` does.
#[cold]
fn callback_failed<T>(
    slf: &Bound<'_, LoopCore>,
    handle: &Bound<'_, T>,
    body: &Body,
    call: Call,
    error: &PyErr,
    once: bool,
) -> PyResult<()> {
    let py = slf.py();
    if is_exit(py, error) {
        return Err(error.clone_ref(py));
    }
    let what = call.describe(py, slf.get().is_debug()).inspect_err(|failed| {
        // The callback has a repr that raises: its exception is not lost over that.
        failed.set_context(py, Some(error.clone_ref(py)));
    })?;
    // The report shows the handle, and the handle its callback.
    if once {
        body.restore(py, call);
    }
    let result = report(
        slf,
        &format!("Exception in callback {what}"),
        Some(error),
        &[("handle", Some(handle.clone().into_any())), ("source_traceback", body.trace(py))],
    );
    if once {
        drop(body.take(py));
    }
    result
}

/// The methods of a handle class, a stand-in for `asyncio.events.$name`: those that all have and its own.
macro_rules! handle_methods {
    ($class:ident as $name:literal: $($own:tt)*) => {
        #[pymethods]
        impl $class {
            $($own)*

            #[getter(__class__)]
            fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
                static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
                CLASS.import(py, "asyncio.events", $name)
            }

            /// The `contextvars.Context` in which the callback runs; `None` once it ran or was cancelled.
            fn get_context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.body.context(py)
            }

            #[getter(_callback)]
            fn callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.body.callback(py)
            }

            #[getter(_args)]
            fn args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
                self.body.args(py)
            }

            #[getter(_context)]
            fn own_context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.body.context(py)
            }

            #[getter(_loop)]
            fn owner(&self, py: Python<'_>) -> Option<Py<LoopCore>> {
                self.body.owner(py)
            }

            #[getter(_cancelled)]
            fn is_cancelled(&self) -> bool {
                self.body.is_cancelled()
            }

            #[getter(_source_traceback)]
            fn trace<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
                self.body.trace(py)
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                self.body.repr(py, $name, self.shown_when(py))
            }

            /// What the repr is made of.
            fn _repr_info(&self, py: Python<'_>) -> PyResult<Vec<String>> {
                self.body.repr_parts(py, $name, self.shown_when(py))
            }

            /// Runs the callback, as asyncio does: what it raises is reported to the loop.
            fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
                super::handle::run_by_hand(slf, &slf.get().body)
            }

            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                self.traverse_own(&visit)?;
                self.body.traverse(&visit)
            }

            fn __clear__(&self, py: Python<'_>) {
                self.clear_own(py);
                self.body.clear(py);
            }
        }
    };
}

pub(super) use handle_methods;

/// A callback that waits in the ready queue (`asyncio.Handle`).
#[pyclass(module = "tokioloop", frozen, weakref)]
#[derive(Debug)]
pub struct Handle {
    pub body: Body,
}

/// How many handles a loop keeps.
const POOL: usize = 1024;

impl Handle {
    /// A handle, out of the loop's pool where there is one.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn create(owner: &Bound<'_, LoopCore>, call: Call) -> PyResult<Py<Self>> {
        let py = owner.py();
        let Some(handle) = owner.get().pool.with(py, Vec::pop) else {
            let handle = Py::new(py, Self { body: Body::new(owner.clone().unbind(), call) })?;
            handle.get().body.tracked.store(true, Ordering::Relaxed);
            return Ok(handle);
        };
        let body = &handle.get().body;
        body.owner.replace(py, Some(owner.clone().unbind()));
        body.call.replace(py, Some(call));
        // While the loop runs, what waits in its queue is reachable anyway, and soon gone.
        if owner.get().turn().is_none() {
            Self::show_collector(handle.bind(py));
        }
        Ok(handle)
    }

    /// When it is due, for the repr: only timers are.
    const fn shown_when<'py>(&self, _py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        None
    }

    #[allow(clippy::unnecessary_wraps)] // timers have something to show
    const fn traverse_own(&self, _visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        Ok(())
    }

    const fn clear_own(&self, _py: Python<'_>) {}

    /// Has the garbage collector see a handle that came out of the pool.
    pub fn show_collector(handle: &Bound<'_, Self>) {
        if !handle.get().body.tracked.swap(true, Ordering::Relaxed) {
            ffi::track(handle);
        }
    }

    /// A handle that ran goes back to the pool if nobody else has it: a new one costs ten times as much. In the pool it
    /// holds nothing and the garbage collector does not see it.
    #[inline]
    pub fn recycle(owner: &Bound<'_, LoopCore>, handle: Py<Self>) {
        let py = owner.py();
        let bound = handle.bind(py);
        let body = &handle.get().body;
        if !ffi::is_unshared(bound) || body.is_cancelled() || body.trace.with(py, |trace| trace.is_some()) {
            Self::show_collector(bound);
            return;
        }
        if body.tracked.load(Ordering::Relaxed) {
            ffi::untrack(bound);
            body.tracked.store(false, Ordering::Relaxed);
        }
        let owned = body.owner.take(py);
        let refused = owner.get().pool.with(py, |pool| {
            if pool.len() < POOL {
                pool.push(handle);
                None
            } else {
                Some(handle)
            }
        });
        // The loop itself is alive: its turn is running.
        drop((owned, refused));
    }
}

handle_methods! {
    Handle as "Handle":
    /// Whether it was cancelled.
    fn cancelled(&self) -> bool {
        self.body.is_cancelled()
    }

    /// Cancels the callback; a second time does nothing.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.body.cancel(py, || self.body.repr(py, "Handle", None))?);
        Ok(())
    }
}
