//! Coalescing: where the user asks for it, what is written in a turn leaves when the turn ends, by one call per
//! endpoint. The rules are `core::coalesce`'s.

use std::collections::VecDeque;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::slots::EndpointRef;
use crate::core::coalesce::{Coalesce as Machine, Thread};
use crate::core::drive::coalesce::{self as drive, Host};
use crate::py::cell::GilCell;
use crate::py::errors::contain;

const VARIABLE: &str = "TOKIOLOOP_COALESCE";

/// What a loop knows of it.
#[derive(Debug)]
pub struct Coalesce(GilCell<Machine<EndpointRef>>);

/// A number that tells threads apart: the address of something that each has.
#[inline]
fn this_thread() -> Thread {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::NonNull::from(here).addr())
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
        Ok(Self(GilCell::new(Machine::new(on))))
    }

    #[must_use]
    pub fn is_on(&self, py: Python<'_>) -> bool {
        self.0.with(py, |machine| machine.is_on())
    }

    /// Whether what is written now waits for the end of the turn.
    #[inline]
    #[must_use]
    pub fn wants_now(&self, py: Python<'_>) -> bool {
        self.0.with(py, |machine| machine.wants(this_thread()))
    }

    /// Whether this thread runs a turn, in which writes may be corked.
    #[inline]
    #[must_use]
    pub fn runs_here(&self, py: Python<'_>) -> bool {
        self.0.with(py, |machine| machine.runs_in(this_thread()))
    }

    /// Has a transport's writes leave when the turn ends.
    pub fn cork(&self, py: Python<'_>, endpoint: EndpointRef) {
        self.0.with(py, |machine| machine.cork(endpoint));
    }

    /// Runs a turn's body; what it corks leaves, however it ends.
    #[inline]
    pub fn turn(&self, owner: &Bound<'_, PyAny>, body: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        drive::turn(&mut (self, owner), |_| body())
    }

    /// Switches it, from the next write on.
    ///
    /// # Errors
    /// An exit.
    pub fn switch(&self, owner: &Bound<'_, PyAny>, on: bool) -> PyResult<()> {
        drive::switch(&mut (self, owner), on)
    }

    /// What this thread's turn has corked leaves now: the thread forks, or a callback waits for I/O.
    ///
    /// # Errors
    /// An exit.
    pub fn leave_early(&self, owner: &Bound<'_, PyAny>) -> PyResult<()> {
        drive::leave_early(&mut (self, owner))
    }

    /// This process is the child of a fork: what is corked is the parent's.
    ///
    /// # Errors
    /// `RuntimeError` when the loop is closed.
    pub fn forget_in_child(&self, owner: &Bound<'_, PyAny>) -> PyResult<()> {
        drive::handle_forked(&mut (self, owner))
    }

    /// The list of transports, to be dropped outside a borrow.
    #[must_use]
    pub fn take(&self, py: Python<'_>) -> VecDeque<EndpointRef> {
        self.0.with(py, Machine::take)
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(machine) = self.0.traversed(visit) else { return Ok(()) };
        machine.corked().iter().try_for_each(|endpoint| endpoint.traverse(visit))
    }
}

/// What a loop knows, and the loop itself.
impl Host for (&Coalesce, &Bound<'_, PyAny>) {
    type Error = PyErr;
    type Endpoint = EndpointRef;

    #[inline]
    fn machine<R>(&mut self, f: impl FnOnce(&mut Machine<EndpointRef>) -> R) -> R {
        self.0.0.with(self.1.py(), f)
    }

    #[inline]
    fn thread(&self) -> Thread {
        this_thread()
    }

    fn uncork(&mut self, endpoint: EndpointRef, enter: bool) -> PyResult<()> {
        (endpoint.ops.uncork)(endpoint.object.bind(self.1.py()), enter)
    }

    fn forget(&mut self, endpoint: EndpointRef) -> PyResult<()> {
        (endpoint.ops.forget_corked)(endpoint.object.bind(self.1.py()))
    }

    fn contain(&mut self, result: PyResult<()>) -> PyResult<()> {
        contain(self.1, result)
    }
}
