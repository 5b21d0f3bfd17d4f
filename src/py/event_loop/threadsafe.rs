//! The handle of `call_soon_threadsafe` since CPython 3.14: one for all threads (`asyncio.events._ThreadSafeHandle`).
//!
//! While its callback runs, `cancel()` and `cancelled()` wait in other threads: after them, what the callback uses may
//! be let go of. CPython gives each such handle an `RLock`; here the GIL guards the handle, and a lock is made only
//! when a thread has to wait.

use std::fmt;
use std::thread::{self, ThreadId};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::handle::{Body, Call, handle_methods};
use super::loop_core::LoopCore;
use crate::py::cell::GilCell;

/// A callback that waits in the ready queue and that any thread may cancel (`asyncio.events._ThreadSafeHandle`).
///
/// ```text
/// waiting ──► running ──► ran          cancel() in another thread: waits for the end of `running`
///    └──► cancelled                    cancel() by the callback itself: does not wait
/// ```
#[pyclass(module = "tokioloop", frozen, weakref)]
#[derive(Debug)]
pub struct ThreadSafeHandle {
    pub body: Body,
    running: GilCell<Option<Run>>,
}

/// A callback that is running.
#[derive(Debug)]
struct Run {
    by: ThreadId,
    /// A lock, made by the first who waits for the callback's end, and held until then.
    end: Option<Py<PyAny>>,
}

/// Ends the run of a callback when dropped, however that ended.
pub struct Running<'a, 'py>(&'a ThreadSafeHandle, Python<'py>);

impl fmt::Debug for Running<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").finish_non_exhaustive()
    }
}

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        let Self(handle, py) = *self;
        let run = handle.running.take(py);
        if let Some(end) = run.and_then(|run| run.end)
            && let Err(error) = end.call_method0(py, intern!(py, "release"))
        {
            error.write_unraisable(py, Some(end.bind(py)));
        }
    }
}

impl ThreadSafeHandle {
    /// Whether asyncio has this kind of handle: since CPython 3.14.
    #[inline]
    pub fn is_known(py: Python<'_>) -> bool {
        static KNOWN: PyOnceLock<bool> = PyOnceLock::new();
        *KNOWN.get_or_init(py, || py.version_info() >= (3, 14))
    }

    /// # Errors
    /// `MemoryError`.
    pub fn create(owner: &Bound<'_, LoopCore>, call: Call) -> PyResult<Py<Self>> {
        let body = Body::new(owner.clone().unbind(), call);
        Py::new(owner.py(), Self { body, running: GilCell::default() })
    }

    /// The callback runs, in this thread, until what this returns is dropped.
    pub fn begin<'py>(&self, py: Python<'py>) -> Running<'_, 'py> {
        self.running.replace(py, Some(Run { by: thread::current().id(), end: None }));
        Running(self, py)
    }

    /// Waits until no other thread runs the callback.
    ///
    /// # Errors
    /// What a signal handler raises meanwhile.
    fn wait_for_end(&self, py: Python<'_>) -> PyResult<()> {
        static LOCK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let me = thread::current().id();
        if !self.running.with(py, |run| run.as_ref().is_some_and(|run| run.by != me)) {
            return Ok(());
        }
        // Made outside the borrow, so the callback may have ended by now.
        let fresh = LOCK.import(py, "threading", "Lock")?.call0()?;
        fresh.call_method0(intern!(py, "acquire"))?;
        let end = self.running.with(py, |run| {
            let run = run.as_mut()?;
            Some(run.end.get_or_insert_with(|| fresh.clone().unbind()).clone_ref(py))
        });
        if let Some(end) = end {
            end.call_method0(py, intern!(py, "acquire"))?;
            end.call_method0(py, intern!(py, "release"))?;
        }
        Ok(())
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
}

handle_methods! {
    ThreadSafeHandle as "_ThreadSafeHandle":
    /// Whether it was cancelled. Waits while another thread runs the callback.
    fn cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        self.wait_for_end(py)?;
        Ok(self.body.is_cancelled())
    }

    /// Cancels the callback; a second time does nothing. Waits while another thread runs it.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.wait_for_end(py)?;
        drop(self.body.cancel(py, || self.body.repr(py, "_ThreadSafeHandle", None))?);
        Ok(())
    }
}
