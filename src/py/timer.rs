//! `TimerHandle`: a callback that waits for a moment.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::cell::GilCell;
use super::event_loop::LoopCore;
use super::ffi;
use super::handle::{Body, Call, handle_methods};
use crate::core::time::Time;
use crate::core::timers::TimerKey;

/// A callback that waits for a moment (`asyncio.TimerHandle`).
#[pyclass(module = "tokioloop", frozen, weakref, freelist = 512)]
#[derive(Debug)]
pub struct TimerHandle {
    pub body: Body,
    when: f64,
    /// Its place among the loop's timers, until it is due or cancelled.
    key: GilCell<Option<TimerKey>>,
}

impl TimerHandle {
    /// # Errors
    /// `MemoryError`.
    pub fn create(py: Python<'_>, owner: Py<LoopCore>, call: Call, when: f64) -> PyResult<Py<Self>> {
        let handle = Bound::new(py, Self { body: Body::new(owner, call), when, key: GilCell::new(None) })?;
        ffi::track(&handle);
        Ok(handle.unbind())
    }

    /// When it is due, for the repr.
    #[allow(clippy::unnecessary_wraps)] // the other kind of handle is never due
    const fn shown_when(&self) -> Option<f64> {
        Some(self.when)
    }

    pub fn time(&self) -> Time {
        Time::from_secs(self.when)
    }

    pub fn set_key(&self, py: Python<'_>, key: Option<TimerKey>) {
        self.key.replace(py, key);
    }
}

handle_methods! {
    TimerHandle as "TimerHandle":
    /// Whether it was cancelled.
    fn cancelled(&self) -> bool {
        self.body.is_cancelled()
    }

    /// Cancels the callback; a second time does nothing. The loop forgets it at once.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let (cancelled, call) =
            self.body.cancel(py, || self.body.repr(py, "TimerHandle", Some(self.when)))?;
        if cancelled
            && let Some(key) = self.key.take(py)
            && let Some(owner) = self.body.owner(py)
        {
            // The loop's reference is dropped here, after its borrow.
            drop(owner.get().forget_timer(py, key));
        }
        drop(call);
        Ok(())
    }

    /// When it is due: seconds on the clock of `loop.time()`.
    fn when(&self) -> f64 {
        self.when
    }

    #[getter(_scheduled)]
    fn is_scheduled(&self, py: Python<'_>) -> bool {
        self.key.with(py, |key| key.is_some())
    }

    #[getter(_when)]
    fn due(&self) -> f64 {
        self.when
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.when.to_bits().hash(&mut hasher);
        hasher.finish()
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let same = || -> PyResult<bool> {
            let (mine, theirs) = (slf.get(), other.get());
            if slf.is(other) {
                return Ok(true);
            }
            if mine.when.to_bits() != theirs.when.to_bits() || mine.is_cancelled() != theirs.is_cancelled() {
                return Ok(false);
            }
            match (mine.body.peek(py), theirs.body.peek(py)) {
                (Some(mine), Some(theirs)) => Ok(mine.callback.bind(py).eq(&theirs.callback)?
                    && mine.args.tuple(py)?.eq(theirs.args.tuple(py)?)?),
                (None, None) => Ok(true),
                _ => Ok(false),
            }
        };
        let (mine, theirs) = (slf.get().when, other.get().when);
        let answer = match op {
            CompareOp::Lt => mine < theirs,
            CompareOp::Gt => mine > theirs,
            CompareOp::Le => mine < theirs || same()?,
            CompareOp::Ge => mine > theirs || same()?,
            CompareOp::Eq => same()?,
            CompareOp::Ne => !same()?,
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }
}

/// Seconds, from whatever number the caller has.
///
/// # Errors
/// `TypeError` when it is none, with asyncio's message for `None`.
pub fn seconds(value: &Bound<'_, PyAny>, none_message: &'static str) -> PyResult<f64> {
    if value.is_none() {
        return Err(PyTypeError::new_err(none_message));
    }
    if value.is_instance_of::<pyo3::types::PyString>()
        || !value.hasattr(intern!(value.py(), "__float__"))? && !value.hasattr(intern!(value.py(), "__index__"))?
    {
        return Err(PyTypeError::new_err(format!(
            "a number of seconds is required, not {}",
            value.get_type().name()?.repr()?
        )));
    }
    value.extract()
}
