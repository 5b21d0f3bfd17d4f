//! `TimerHandle`: a callback that waits for a moment.

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyInt, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::handle::{Body, Call, handle_methods};
use super::loop_core::LoopCore;
use crate::core::time::Time;
use crate::core::timers::TimerKey;
use crate::py::cell::GilCell;
use crate::py::ffi;

/// Where a handle waits, until it is due or cancelled.
#[derive(Clone, Copy, Debug, Default)]
pub enum Place {
    #[default]
    Nowhere,
    /// Among the loop's timers.
    Timers(TimerKey),
    /// In `loop._scheduled`, which is lent.
    Lent,
}

/// A callback that waits for a moment (`asyncio.TimerHandle`).
#[pyclass(module = "tokioloop", frozen, weakref, freelist = 512)]
#[derive(Debug)]
pub struct TimerHandle {
    pub body: Body,
    when: f64,
    /// The number that `call_at` was given, whatever its type: `when` has its value.
    given: GilCell<Option<Py<PyAny>>>,
    place: GilCell<Place>,
}

impl TimerHandle {
    /// # Errors
    /// `MemoryError`.
    pub fn create(py: Python<'_>, owner: Py<LoopCore>, call: Call, when: Due) -> PyResult<Py<Self>> {
        let (when, given) = (when.secs, GilCell::new(when.given));
        let handle = Bound::new(py, Self { body: Body::new(owner, call), when, given, place: GilCell::default() })?;
        ffi::track(&handle);
        Ok(handle.unbind())
    }

    /// When it is due, for the repr.
    #[allow(clippy::unnecessary_wraps)] // the other kinds of handle are never due
    fn shown_when<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        Some(self.due(py))
    }

    /// When it is due, as it was given.
    fn due<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        let given = self.given.with(py, |given| given.as_ref().map(|given| given.bind(py).clone()));
        given.unwrap_or_else(|| PyFloat::new(py, self.when).into_any())
    }

    pub fn traverse_own(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.given.traversed(visit).as_deref().and_then(Option::as_ref).map_or(Ok(()), |given| visit.call(given))
    }

    pub fn clear_own(&self, py: Python<'_>) {
        drop(self.given.take(py));
    }

    pub fn time(&self) -> Time {
        Time::from_secs(self.when)
    }

    pub fn set_place(&self, py: Python<'_>, place: Place) {
        self.place.replace(py, place);
    }
}

handle_methods! {
    TimerHandle as "TimerHandle":
    /// Whether it was cancelled.
    fn cancelled(&self) -> bool {
        self.body.is_cancelled()
    }

    /// Cancels the callback; a second time does nothing. The loop forgets it at once.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (cancelled, call) =
            this.body.cancel(py, || this.body.repr(py, "TimerHandle", Some(this.due(py))))?;
        if cancelled && let Some(owner) = this.body.owner(py) {
            match this.place.with(py, |place| *place) {
                Place::Timers(key) => {
                    this.set_place(py, Place::Nowhere);
                    // The loop's reference is dropped here, after its borrow.
                    drop(owner.get().forget_timer(py, key));
                }
                Place::Lent => drop(owner.bind(py).call_method1(intern!(py, "_timer_handle_cancelled"), (slf,))?),
                Place::Nowhere => {}
            }
        }
        drop(call);
        Ok(())
    }

    /// When it is due: seconds on the clock of `loop.time()`.
    fn when<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.due(py)
    }

    #[getter(_scheduled)]
    fn is_scheduled(&self, py: Python<'_>) -> bool {
        !self.place.with(py, |place| matches!(place, Place::Nowhere))
    }

    /// Told by who takes it out of `loop._scheduled`, or puts it there.
    #[setter(_scheduled)]
    fn set_scheduled(&self, py: Python<'_>, scheduled: &Bound<'_, PyAny>) -> PyResult<()> {
        let scheduled = scheduled.is_truthy()?;
        self.place.with(py, |place| {
            *place = match place {
                Place::Timers(key) => Place::Timers(*key),
                Place::Nowhere | Place::Lent if scheduled => Place::Lent,
                Place::Nowhere | Place::Lent => Place::Nowhere,
            };
        });
        Ok(())
    }

    #[getter(_when)]
    fn when_given<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.due(py)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.due(py).hash()
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let same = || -> PyResult<bool> {
            let (mine, theirs) = (slf.get(), other.get());
            if slf.is(other) {
                return Ok(true);
            }
            if !mine.due(py).eq(theirs.due(py))? || mine.is_cancelled() != theirs.is_cancelled() {
                return Ok(false);
            }
            match (mine.body.peek(py), theirs.body.peek(py)) {
                (Some(mine), Some(theirs)) => Ok(mine.callback.bind(py).eq(&theirs.callback)?
                    && mine.args.tuple(py)?.eq(theirs.args.tuple(py)?)?),
                (None, None) => Ok(true),
                _ => Ok(false),
            }
        };
        let (mine, theirs) = (slf.get().due(py), other.get().due(py));
        let answer = match op {
            CompareOp::Lt => mine.lt(theirs)?,
            CompareOp::Gt => mine.gt(theirs)?,
            CompareOp::Le => mine.lt(theirs)? || same()?,
            CompareOp::Ge => mine.gt(theirs)? || same()?,
            CompareOp::Eq => same()?,
            CompareOp::Ne => !same()?,
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }
}

/// A deadline.
#[derive(Debug)]
pub struct Due {
    secs: f64,
    /// The number it was given as, if it was one of the caller's.
    given: Option<Py<PyAny>>,
}

impl Due {
    /// The moment `when`.
    ///
    /// # Errors
    /// `TypeError` for what is no number, with asyncio's message for `None`.
    pub fn at(when: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { secs: seconds(when, "when cannot be None")?, given: Some(when.clone().unbind()) })
    }

    /// So long after `now`. What is no number of Python's own is added as Python adds it: the sum may be anything.
    ///
    /// # Errors
    /// `TypeError` for what is no number or cannot be added to one, with asyncio's message for `None`.
    pub fn after(now: f64, delay: &Bound<'_, PyAny>) -> PyResult<Self> {
        if delay.is_exact_instance_of::<PyFloat>() || delay.is_exact_instance_of::<PyInt>() || delay.is_none() {
            return Ok(Self { secs: now + seconds(delay, "delay must not be None")?, given: None });
        }
        seconds(delay, "delay must not be None")?;
        Self::at(&PyFloat::new(delay.py(), now).add(delay)?)
    }
}

/// Seconds, from whatever number the caller has.
///
/// # Errors
/// `TypeError` when it is none, with asyncio's message for `None`.
fn seconds(value: &Bound<'_, PyAny>, none_message: &'static str) -> PyResult<f64> {
    if value.is_none() {
        return Err(PyTypeError::new_err(none_message));
    }
    if value.is_instance_of::<PyString>()
        || !value.hasattr(intern!(value.py(), "__float__"))? && !value.hasattr(intern!(value.py(), "__index__"))?
    {
        return Err(PyTypeError::new_err(format!(
            "a number of seconds is required, not {}",
            value.get_type().name()?.repr()?
        )));
    }
    value.extract()
}
