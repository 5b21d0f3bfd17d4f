//! `LoopCore`: what a loop is made of, and what all its parts ask of it. `face` has its methods in Python.
//!
//! `TokioLoop(LoopCore, asyncio.BaseEventLoop)` inherits everything that is not hot. The attributes that
//! `BaseEventLoop` sets and reads (`_closed`, `_debug`, `_stopping`, `_thread_id`) are here, so that both halves see
//! one value.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::coalesce::Coalesce;
use super::handle::{Args, Call, Handle};
use super::patched::Patches;
use super::slots::{EndpointRef, Life, Slots};
use super::threadsafe::ThreadSafeHandle;
use super::timer::TimerHandle;
use crate::core::drive::interest::Table;
use crate::core::interest::{Change, Interest, Keep};
use crate::core::owners::Owners;
use crate::core::ready::Ready;
use crate::core::time::Time;
use crate::core::timers::{TimerKey, Timers};
use crate::io::counters::{Listed, Stats, now};
use crate::io::reactor::{Reactor, UserEvent};
use crate::io::source;
use crate::py::cell::GilCell;
use crate::py::errors::io_error;
use crate::py::ffi;

/// What waits in the ready queue.
#[derive(Debug)]
pub enum Entry {
    Handle(Py<Handle>),
    /// As `Handle`; other threads may cancel it.
    Shared(Py<ThreadSafeHandle>),
    /// A watcher of a user's fd: it runs again and again.
    Watch(Py<Handle>),
    Timer(Py<TimerHandle>),
    /// A registered endpoint has readiness; the token names slot and direction.
    Io(u32),
    /// A handle that is none of ours: whatever somebody put into `loop._ready`.
    Foreign(Py<PyAny>),
    /// A transport is to tell its protocol that the connection is made, or lost.
    Life(Life, Box<EndpointRef>),
}

impl Entry {
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Handle(handle) | Self::Watch(handle) => visit.call(handle),
            Self::Shared(handle) => visit.call(handle),
            Self::Foreign(handle) => visit.call(handle),
            Self::Timer(handle) => visit.call(handle),
            Self::Io(_) => Ok(()),
            Self::Life(_, endpoint) => endpoint.traverse(visit),
        }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Handle(handle) => Self::Handle(handle.clone_ref(py)),
            Self::Shared(handle) => Self::Shared(handle.clone_ref(py)),
            Self::Watch(handle) => Self::Watch(handle.clone_ref(py)),
            Self::Timer(handle) => Self::Timer(handle.clone_ref(py)),
            Self::Foreign(handle) => Self::Foreign(handle.clone_ref(py)),
            Self::Io(token) => Self::Io(*token),
            Self::Life(life, endpoint) => Self::Life(*life, Box::new(endpoint.clone_ref(py))),
        }
    }

    /// The handle that programs see: what waits for a transport becomes one. `None`: there is nothing to run any more.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn into_object(self, owner: &Bound<'_, LoopCore>) -> PyResult<Option<Py<PyAny>>> {
        let py = owner.py();
        let (endpoint, method) = match self {
            Self::Handle(handle) | Self::Watch(handle) => {
                Handle::show_collector(handle.bind(py));
                return Ok(Some(handle.into_any()));
            }
            Self::Shared(handle) => return Ok(Some(handle.into_any())),
            Self::Timer(handle) => return Ok(Some(handle.into_any())),
            Self::Foreign(handle) => return Ok(Some(handle)),
            Self::Io(token) => {
                let (slot, write) = source::slot(token);
                let endpoint = owner.get().io.with(py, |io| io.slots.at(slot).map(|endpoint| endpoint.clone_ref(py)));
                let Some(endpoint) = endpoint else { return Ok(None) };
                (endpoint, if write { intern!(py, "_write_ready") } else { intern!(py, "_read_ready") })
            }
            Self::Life(Life::Made, endpoint) => (*endpoint, intern!(py, "_tell_made")),
            Self::Life(Life::Lost, endpoint) => (*endpoint, intern!(py, "_tell_lost")),
        };
        let callback = endpoint.object.getattr(py, method)?;
        // Any context but the transport's own, which the transport enters itself.
        let call = Call { callback, args: Args::None, context: ffi::copy_context(py)? };
        let handle = Handle::create(owner, call)?;
        Handle::show_collector(handle.bind(py));
        Ok(Some(handle.into_any()))
    }

    /// The entry of what a program has put into the queue. A handle keeps its callback when it runs, as the program may
    /// still have the handle.
    pub fn from_object(object: Bound<'_, PyAny>) -> Self {
        if let Ok(handle) = object.cast_exact::<Handle>() {
            Self::Watch(handle.clone().unbind())
        } else if let Ok(handle) = object.cast_exact::<TimerHandle>() {
            Self::Timer(handle.clone().unbind())
        } else if let Ok(handle) = object.cast_exact::<ThreadSafeHandle>() {
            Self::Shared(handle.clone().unbind())
        } else {
            Self::Foreign(object.unbind())
        }
    }
}

/// Who waits for a user's fd.
#[derive(Debug)]
pub enum Watcher {
    /// Of `add_reader` or `add_writer`.
    Handle(Py<Handle>),
    /// The future that a `sock_*` operation waits for.
    Future(Py<PyAny>),
}

impl Watcher {
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Handle(handle) => visit.call(handle),
            Self::Future(future) => visit.call(future),
        }
    }

    /// Those who waited for a file that is gone: handles are cancelled, as their queued callbacks must not run for the
    /// file that has the number now. A `sock_*` operation on a closed socket waits for ever, as with asyncio.
    pub fn end_stale(stale: Vec<Self>, py: Python<'_>) -> PyResult<()> {
        stale
            .into_iter()
            .filter(|watcher| matches!(watcher, Self::Handle(_)))
            .try_for_each(|watcher| watcher.cancel(py))
    }

    pub fn cancel(self, py: Python<'_>) -> PyResult<()> {
        let object = match self {
            Self::Handle(handle) => handle.into_any(),
            Self::Future(future) => future,
        };
        object.bind(py).call_method0(intern!(py, "cancel")).map(drop)
    }
}

/// What is scheduled.
#[derive(Debug, Default)]
pub struct Sched {
    pub ready: Ready<Entry>,
    pub timers: Timers<Py<TimerHandle>>,
    /// What programs have of them: see `lent`.
    pub lent: Lent,
}

/// What waits for the kernel.
#[derive(Debug, Default)]
pub struct Io {
    pub reactor: Option<Reactor>,
    pub interest: Interest<Watcher>,
    pub slots: Slots,
    /// Whose fds the registrations of `sock_*` operations are, by weak references: a kept one keeps no socket alive.
    pub owners: Owners<Py<PyWeakrefReference>>,
    /// The file objects by which watchers were set, by fd, kept as the `selectors` module keeps them.
    pub files: HashMap<u32, Py<PyAny>>,
    /// Spare lists, kept for their memory.
    pub tokens: Vec<u32>,
    pub events: Vec<UserEvent>,
}

impl Table<Watcher> for Io {
    type Socket = Py<PyWeakrefReference>;
    type Error = io::Error;

    fn interest(&mut self) -> &mut Interest<Watcher> {
        &mut self.interest
    }

    fn owners(&mut self) -> &mut Owners<Py<PyWeakrefReference>> {
        &mut self.owners
    }

    fn settle(&mut self, fd: u32, change: Change, keep: Keep) -> (io::Result<()>, Vec<Watcher>) {
        match &self.reactor {
            Some(reactor) => reactor.settle(&mut self.interest, fd, change, keep),
            None => (Ok(()), Vec::new()),
        }
    }
}

/// What programs have of it.
#[derive(Debug, Default)]
pub struct Lent {
    /// A `collections.deque` of handles, or what somebody put in its place.
    pub queue: Option<Py<PyAny>>,
    /// A list of handles that is a heap, or what somebody put in its place.
    pub timers: Option<Py<PyAny>>,
}

impl Lent {
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.queue, &self.timers].into_iter().flatten().try_for_each(|lent| visit.call(lent))
    }

    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// One read takes this much at most: asyncio's `max_size`.
pub const SCRATCH: usize = 256 * 1024;

/// The Rust half of an event loop.
#[pyclass(module = "tokioloop._tokioloop", subclass, frozen)]
#[derive(Debug)]
pub struct LoopCore {
    pub closed: AtomicBool,
    pub debug: AtomicBool,
    pub stopping: AtomicBool,
    /// The number of the running turn; 0 while the loop does not run.
    turn: AtomicU64,
    pub stats: Listed,
    /// What programs have changed of the loop.
    pub patches: Patches,
    pub thread_id: GilCell<Option<Py<PyAny>>>,
    pub sched: GilCell<Sched>,
    pub io: GilCell<Io>,
    pub scratch: GilCell<Vec<u8>>,
    pub coalesce: Coalesce,
    /// The socket of the next datagram transport is the loop's own: nobody else closes it.
    pub private_datagrams: AtomicBool,
    /// Handles that ran, to be used again.
    pub pool: GilCell<Vec<Py<Handle>>>,
    pub future_kwargs: GilCell<Option<Py<PyDict>>>,
}

impl LoopCore {
    /// # Errors
    /// `OSError` when there are no descriptors left, `ValueError` for what the environment says.
    pub fn create(py: Python<'_>) -> PyResult<Self> {
        let coalesce = Coalesce::from_environment()?;
        let reactor = Reactor::new().map_err(|error| io_error(py, &error))?;
        let stats = Stats::listed();
        let slots = Slots::new(Arc::clone(&stats.endpoints));
        Ok(Self {
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            patches: Patches::default(),
            turn: AtomicU64::new(0),
            stats,
            thread_id: GilCell::default(),
            sched: GilCell::default(),
            io: GilCell::new(Io { reactor: Some(reactor), slots, ..Io::default() }),
            scratch: GilCell::default(),
            coalesce,
            private_datagrams: AtomicBool::new(false),
            pool: GilCell::default(),
            future_kwargs: GilCell::default(),
        })
    }

    #[inline]
    pub fn is_closed_now(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn is_debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The number of the running turn.
    #[inline]
    pub fn turn(&self) -> Option<u64> {
        Some(self.turn.load(Ordering::Relaxed)).filter(|turn| *turn != 0)
    }

    pub fn begin_turn(&self) {
        self.stats.turns.add(1);
        self.turn.store(self.stats.turns.get(), Ordering::Relaxed);
    }

    /// Turns end, within the turn `outer` if there is one.
    pub fn end_turns(&self, outer: Option<u64>) {
        self.turn.store(outer.unwrap_or(0), Ordering::Relaxed);
    }

    /// Now, on the loop's clock.
    ///
    /// # Errors
    /// What a `time()` of somebody else's raises.
    #[inline]
    pub fn clock(slf: &Bound<'_, Self>) -> PyResult<Time> {
        if slf.get().patches.look(slf)? && slf.get().patches.has(Patches::CLOCK) {
            let secs = slf.call_method0(intern!(slf.py(), "time"))?;
            return Ok(Time::from_secs(secs.extract()?));
        }
        Ok(now())
    }

    /// # Errors
    /// `RuntimeError` when the loop is closed.
    #[inline]
    pub fn check_open(&self) -> PyResult<()> {
        if self.is_closed_now() { Err(PyRuntimeError::new_err("Event loop is closed")) } else { Ok(()) }
    }

    #[inline]
    pub fn push(slf: &Bound<'_, Self>, entry: Entry) {
        if slf.get().patches.has(Patches::QUEUE) {
            return Self::push_lent(slf, entry);
        }
        slf.get().sched.with(slf.py(), |sched| sched.ready.push(entry));
    }

    /// Ends a park, if another thread has the loop parked.
    pub fn wake(&self, py: Python<'_>) {
        self.io.with(py, |io| {
            if let Some(reactor) = &io.reactor {
                reactor.shared().wake();
            }
        });
    }

    /// A cancelled timer leaves; gives back the loop's reference to it.
    pub fn forget_timer(&self, py: Python<'_>, key: TimerKey) -> Option<Py<TimerHandle>> {
        self.sched.with(py, |sched| sched.timers.cancel(key))
    }

    /// `_ready`, where a program has it.
    pub fn lent_queue<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.sched.with(py, |sched| sched.lent.queue.as_ref().map(|queue| queue.bind(py).clone()))
    }

    /// Queues an entry behind what is lent.
    #[cold]
    pub fn push_lent(slf: &Bound<'_, Self>, entry: Entry) {
        let py = slf.py();
        let pushed = entry.into_object(slf).and_then(|handle| match (handle, slf.get().lent_queue(py)) {
            (Some(handle), Some(queue)) => queue.call_method1(intern!(py, "append"), (handle,)).map(drop),
            _ => Ok(()),
        });
        if let Err(error) = pushed {
            error.write_unraisable(py, None);
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(sched) = self.sched.traversed(visit) {
            sched.ready.iter().try_for_each(|entry| entry.traverse(visit))?;
            sched.timers.iter().try_for_each(|timer| visit.call(timer))?;
            sched.lent.traverse(visit)?;
        }
        if let Some(io) = self.io.traversed(visit) {
            io.interest.waiting().try_for_each(|watcher| watcher.traverse(visit))?;
            io.slots.iter().try_for_each(|endpoint| endpoint.traverse(visit))?;
            io.files.values().try_for_each(|file| visit.call(file))?;
        }
        self.coalesce.traverse(visit)?;
        if let Some(pool) = self.pool.traversed(visit) {
            pool.iter().try_for_each(|handle| visit.call(handle))?;
        }
        if let Some(kwargs) = self.future_kwargs.traversed(visit).as_deref().and_then(Option::as_ref) {
            visit.call(kwargs)?;
        }
        if let Some(id) = self.thread_id.traversed(visit).as_deref().and_then(Option::as_ref) {
            visit.call(id)?;
        }
        Ok(())
    }

    /// Lets go of everything that is scheduled and registered; the last part of a loop's end.
    pub fn let_go(slf: &Bound<'_, Self>) {
        let (py, this) = (slf.py(), slf.get());
        let sched = this.sched.with(py, |sched| (sched.ready.take_all(), sched.timers.take_all(), sched.lent.take()));
        this.patches.set(Patches::QUEUE | Patches::TIMERS, false);
        let io = this.io.take(py);
        this.stats.endpoints.clear();
        for endpoint in io.slots.iter() {
            if let Err(error) = (endpoint.ops.deregister)(endpoint.object.bind(py)) {
                error.write_unraisable(py, None);
            }
        }
        let corked = this.coalesce.take(py);
        let scratch = this.scratch.take(py);
        // Dropped last, one by one: finalizers may run user code, which finds a closed loop.
        drop((sched.0, sched.1, sched.2, io, corked, scratch, this.pool.take(py)));
    }
}
