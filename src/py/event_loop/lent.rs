//! `_ready` and `_scheduled`: what is scheduled, in the hands of programs.
//!
//! asyncio's loop has its callbacks in a deque and its timers in a list, a heap, and libraries take both for granted:
//! `tokioloop/insides.py` says which. Nobody else pays for that: the loop has its own queue and timers until somebody
//! asks. From then on the deque, or the list, *is* the queue, or the timers, whatever is done to it and by whomever,
//! and the turn does with it what asyncio's does. Once nobody else holds it, the next turn takes everything back.
//!
//! ```text
//! own ──► lent              somebody asked for `_ready` (or `_scheduled`), or put one of their own in its place
//!  ▲        │
//!  └────────┘               a turn begins, and the loop alone holds it
//! ```

use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use super::loop_core::{Entry, LoopCore};
use super::patched::Patches;
use super::timer::{Place, TimerHandle};
use crate::core::ready::Snapshot;
use crate::core::time::Time;
use crate::py::ffi;

/// `collections.deque`. The module asks for it once while it is imported, so that it is there to the end: a loop that
/// is closed has its queue cleared.
///
/// # Errors
/// What the import raises.
pub fn deque_class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CLASS.import(py, "collections", "deque")
}

/// The queue.
impl LoopCore {
    /// `_ready`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn lend_queue<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(queue) = this.lent_queue(py) {
            return Ok(queue);
        }
        let queue = deque_class(py)?.call0()?;
        // Again, until nothing was added meanwhile: making objects may run the garbage collector, and that finalizers,
        // which may schedule.
        loop {
            let entries = this.sched.with(py, |sched| {
                let entries = sched.ready.lend();
                if entries.is_empty() {
                    sched.lent.queue = Some(queue.clone().unbind());
                    this.patches.set(Patches::QUEUE, true);
                }
                entries
            });
            if entries.is_empty() {
                return Ok(queue);
            }
            for entry in entries {
                if let Some(handle) = entry.into_object(slf)? {
                    queue.call_method1(intern!(py, "append"), (handle,))?;
                }
            }
        }
    }

    /// Puts a queue of somebody's in the place of `_ready`; what the old one has is the caller's to run.
    pub fn replace_queue(&self, py: Python<'_>, queue: Py<PyAny>) {
        let old = self.sched.with(py, |sched| (sched.ready.take_all(), sched.lent.queue.replace(queue)));
        self.patches.set(Patches::QUEUE, true);
        drop(old);
    }

    /// The next entry of a turn.
    ///
    /// # Errors
    /// What the `popleft` of somebody's queue raises, except `IndexError`: a callback took what was left.
    #[cold]
    pub fn pop_lent(&self, py: Python<'_>, snapshot: Snapshot) -> PyResult<Option<Entry>> {
        let Some(queue) = self.lent_queue(py) else { return Ok(None) };
        if !self.sched.with(py, |sched| sched.ready.take_elsewhere(snapshot)) {
            return Ok(None);
        }
        match queue.call_method0(intern!(py, "popleft")) {
            Ok(handle) => Ok(Some(Entry::from_object(handle))),
            Err(error) if error.is_instance_of::<PyIndexError>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many callbacks are ready.
    ///
    /// # Errors
    /// What the `__len__` of somebody's queue raises.
    pub fn ready_len(&self, py: Python<'_>) -> PyResult<usize> {
        match self.lent_queue(py) {
            Some(queue) => queue.len(),
            None => Ok(self.sched.with(py, |sched| sched.ready.len())),
        }
    }

    /// Fixes the snapshot of a turn.
    ///
    /// # Errors
    /// As [`LoopCore::ready_len`].
    pub fn begin_snapshot(&self, py: Python<'_>) -> PyResult<Snapshot> {
        if !self.patches.has(Patches::QUEUE) {
            return Ok(self.sched.with(py, |sched| sched.ready.begin()));
        }
        let len = self.ready_len(py)?;
        Ok(self.sched.with(py, |sched| sched.ready.begin_elsewhere(len)))
    }
}

/// The timers.
impl LoopCore {
    /// `_scheduled`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn lend_timers<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let lent = this.sched.with(py, |sched| sched.lent.timers.as_ref().map(|timers| timers.bind(py).clone()));
        if let Some(timers) = lent {
            return Ok(timers);
        }
        // By deadline: a sorted list is a heap.
        let set = this.sched.with(py, |sched| sched.timers.take_all());
        for timer in &set {
            timer.get().set_place(py, Place::Lent);
        }
        let timers = PyList::new(py, set)?.into_any();
        drop(this.sched.with(py, |sched| sched.lent.timers.replace(timers.clone().unbind())));
        this.patches.set(Patches::TIMERS, true);
        Ok(timers)
    }

    /// Puts timers of somebody's in the place of `_scheduled`.
    pub fn replace_timers(&self, py: Python<'_>, timers: Py<PyAny>) {
        let old = self.sched.with(py, |sched| (sched.timers.take_all(), sched.lent.timers.replace(timers)));
        self.patches.set(Patches::TIMERS, true);
        for timer in &old.0 {
            timer.get().set_place(py, Place::Nowhere);
        }
        drop(old);
    }

    /// Sets a timer among those that are lent.
    ///
    /// # Errors
    /// `TypeError` when they are no list, or when what is in there cannot be compared.
    #[cold]
    pub fn push_timer(slf: &Bound<'_, Self>, handle: &Bound<'_, TimerHandle>) -> PyResult<()> {
        static PUSH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        PUSH.import(py, "heapq", "heappush")?.call1((Self::lend_timers(slf)?, handle))?;
        handle.get().set_place(py, Place::Lent);
        Ok(())
    }

    /// Takes back what nobody else holds.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn take_back(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        // Out of its place while it is looked at, so that the reference is the only one.
        if let Some(queue) = this.sched.with(py, |sched| sched.lent.queue.take()) {
            let queue = queue.into_bound(py);
            if ffi::is_unshared(&queue) {
                this.patches.set(Patches::QUEUE, false);
                for handle in queue.try_iter()? {
                    Self::push(slf, Entry::from_object(handle?));
                }
            } else {
                drop(this.sched.with(py, |sched| sched.lent.queue.replace(queue.unbind())));
            }
        }
        let Some(timers) = this.sched.with(py, |sched| sched.lent.timers.take()) else { return Ok(()) };
        let timers = timers.into_bound(py);
        let ours = ffi::is_unshared(&timers)
            && timers
                .cast_exact::<PyList>()
                .is_ok_and(|list| list.iter().all(|timer| timer.is_exact_instance_of::<TimerHandle>()));
        if !ours {
            drop(this.sched.with(py, |sched| sched.lent.timers.replace(timers.unbind())));
            return Ok(());
        }
        this.patches.set(Patches::TIMERS, false);
        timers.call_method0(intern!(py, "sort"))?;
        for timer in timers.try_iter()? {
            let timer = timer?.cast_into::<TimerHandle>()?;
            if timer.get().body.is_cancelled() {
                timer.get().set_place(py, Place::Nowhere);
                continue;
            }
            let (time, entry) = (timer.get().time(), timer.clone().unbind());
            let key = this.sched.with(py, |sched| sched.timers.insert(time, entry));
            timer.get().set_place(py, Place::Timers(key));
        }
        slf.setattr(intern!(py, "_timer_cancelled_count"), 0)
    }

    /// The first deadline of all timers. Forgets those that are lent and were cancelled, as asyncio's turn begins.
    ///
    /// # Errors
    /// What the objects in `_scheduled` raise.
    pub fn next_deadline(slf: &Bound<'_, Self>) -> PyResult<Option<Time>> {
        let (py, this) = (slf.py(), slf.get());
        let own = this.sched.with(py, |sched| sched.timers.next_deadline());
        if !this.patches.has(Patches::TIMERS) {
            return Ok(own);
        }
        let lent: Option<f64> = slf.call_method0(intern!(py, "_tidy_lent_timers"))?.extract()?;
        let lent = lent.map(Time::from_secs);
        Ok(own.into_iter().chain(lent).min())
    }

    /// Queues the timers that are due, after the look. Where timers are lent, or the clock is a program's, a timer is
    /// due one resolution of asyncio's clock early, as in asyncio: the sum of a time and a delay may be a little more
    /// than what the program's clock then says.
    ///
    /// # Errors
    /// What the objects in `_scheduled`, or the clock, raise.
    pub fn queue_due(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let lent = this.patches.has(Patches::TIMERS);
        if !lent && this.sched.with(py, |sched| sched.timers.is_empty()) {
            return Ok(());
        }
        let mut due = Self::clock(slf)?;
        if lent || this.patches.has(Patches::CLOCK) {
            let end = due.secs() + slf.getattr(intern!(py, "_clock_resolution"))?.extract::<f64>()?;
            due = Time::from_secs(end.next_down());
            if lent {
                slf.call_method1(intern!(py, "_queue_lent_timers"), (end,))?;
            }
        }
        while let Some(timer) = this.sched.with(py, |sched| sched.timers.pop_due(due)) {
            Self::push(slf, Entry::Timer(timer));
        }
        Ok(())
    }
}

/// Takes back what was lent and nobody else holds.
#[pyfunction]
pub fn take_back(owner: &Bound<'_, LoopCore>) -> PyResult<()> {
    LoopCore::take_back(owner)
}

/// Queues a handle, of whatever kind.
#[pyfunction]
pub fn queue_handle(owner: &Bound<'_, LoopCore>, handle: Bound<'_, PyAny>) {
    LoopCore::push(owner, Entry::from_object(handle));
}
