//! Coalescing: where the user asks for it, what is written in a turn leaves when the turn ends, by one call per endpoint.
//!
//! Rules:
//! - Only what is written by the loop's thread while a turn of it runs is corked. Other writes are sent at once.
//! - However a turn ends, what it corked leaves: also by an exception, or by the turn inside it that a callback runs.
//! - Before a fork the forking thread's turn has what it corked leave. What another thread's turn has corked stays the
//!   parent's: the child forgets it.
//! - What callbacks write while corked writes leave is sent at once, so that this comes to an end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::cell::GilCell;
use super::errors::contain;
use super::loop_core::LoopCore;
use super::slots::EndpointRef;

const VARIABLE: &str = "TOKIOLOOP_COALESCE";

/// What a loop knows of it.
#[derive(Debug, Default)]
pub struct Coalesce {
    on: AtomicBool,
    /// The thread that runs a turn, by [`this_thread`]; 0 between turns, and while corked writes leave.
    thread: AtomicUsize,
    /// The transports that have corked writes.
    corked: GilCell<Vec<EndpointRef>>,
}

/// A number of this thread, never 0, that no other living thread has.
#[inline]
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Coalesce {
    /// As the environment has it: on for `1`, off for `0` or nothing.
    ///
    /// # Errors
    /// `ValueError` for anything else.
    pub fn from_environment() -> PyResult<Self> {
        let value = std::env::var_os(VARIABLE).unwrap_or_default();
        let on = match value.to_str() {
            Some("" | "0") => false,
            Some("1") => true,
            _ => return Err(PyValueError::new_err(format!("{VARIABLE} must be 1 or 0, not {}", value.display()))),
        };
        Ok(Self { on: AtomicBool::new(on), ..Self::default() })
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether what is written now waits for the end of the turn.
    #[inline]
    #[must_use]
    pub fn wants_now(&self) -> bool {
        self.is_on() && self.runs_here()
    }

    /// Whether this thread runs a turn, in which writes may be corked.
    #[inline]
    #[must_use]
    pub fn runs_here(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == this_thread()
    }

    /// Has a transport's writes leave when the turn ends.
    pub fn cork(&self, py: Python<'_>, endpoint: EndpointRef) {
        self.corked.with(py, |corked| corked.push(endpoint));
    }

    /// Runs a turn's body; what it corks leaves, however it ends.
    #[inline]
    pub fn turn(slf: &Bound<'_, LoopCore>, body: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        let this = &slf.get().coalesce;
        let outer = this.thread.load(Ordering::Relaxed);
        // The body may wait.
        let before = if outer == 0 { Ok(()) } else { Self::release(slf, false) };
        this.thread.store(this_thread(), Ordering::Relaxed);
        let result = before.and_then(|()| body());
        let released = Self::release(slf, outer == 0);
        this.thread.store(outer, Ordering::Relaxed);
        result.and(released)
    }

    /// Switches it, from the next write on.
    ///
    /// # Errors
    /// An exit.
    pub fn switch(slf: &Bound<'_, LoopCore>, on: bool) -> PyResult<()> {
        let this = &slf.get().coalesce;
        this.on.store(on, Ordering::Relaxed);
        // Another thread's turn ends by itself.
        if !on && this.runs_here() { Self::release(slf, false) } else { Ok(()) }
    }

    /// This thread forks.
    ///
    /// # Errors
    /// An exit.
    pub fn before_fork(slf: &Bound<'_, LoopCore>) -> PyResult<()> {
        if slf.get().coalesce.runs_here() { Self::release(slf, false) } else { Ok(()) }
    }

    /// This process is the child of a fork: what is corked is the parent's.
    ///
    /// # Errors
    /// `RuntimeError` when the loop is closed.
    pub fn forget_in_child(slf: &Bound<'_, LoopCore>) -> PyResult<()> {
        let this = &slf.get().coalesce;
        if !this.runs_here() {
            // The thread that ran it is not there.
            this.thread.store(0, Ordering::Relaxed);
        }
        let mut result = Ok(());
        for endpoint in this.take(slf.py()) {
            result = result.and((endpoint.ops.forget_corked)(endpoint.object.bind(slf.py())));
        }
        result
    }

    /// Corked writes leave. `enter`: no callback is running, so each protocol's context can be entered.
    #[inline]
    fn release(slf: &Bound<'_, LoopCore>, enter: bool) -> PyResult<()> {
        let this = &slf.get().coalesce;
        let thread = this.thread.swap(0, Ordering::Relaxed);
        let result =
            if this.corked.with(slf.py(), |corked| corked.is_empty()) { Ok(()) } else { Self::uncork_all(slf, enter) };
        this.thread.store(thread, Ordering::Relaxed);
        result
    }

    #[cold]
    fn uncork_all(slf: &Bound<'_, LoopCore>, enter: bool) -> PyResult<()> {
        let mut result = Ok(());
        for endpoint in slf.get().coalesce.take(slf.py()) {
            let released = (endpoint.ops.uncork)(endpoint.object.bind(slf.py()), enter);
            result = result.and(contain(slf, released));
        }
        result
    }

    /// The list of transports, to be dropped outside a borrow.
    #[must_use]
    pub fn take(&self, py: Python<'_>) -> Vec<EndpointRef> {
        self.corked.take(py)
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(corked) = self.corked.traversed(visit) else { return Ok(()) };
        corked.iter().try_for_each(|endpoint| endpoint.traverse(visit))
    }
}
