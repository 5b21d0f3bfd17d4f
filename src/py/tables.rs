//! What a loop holds: the ready queue and the timers, the registrations and the endpoints.

use std::collections::HashMap;
use std::io;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::event_loop::LoopCore;
use super::handle::Handle;
use super::lent::Lent;
use super::patched::Patches;
use super::slots::{EndpointRef, Life, Slots};
use super::sockops::Owners;
use super::threadsafe::ThreadSafeHandle;
use super::timer::TimerHandle;
use super::watch::Party;
use crate::core::interest::{Change, Interest, Keep};
use crate::core::ready::Ready;
use crate::core::timers::Timers;
use crate::io::reactor::{Reactor, UserEvent};

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
    /// A transport is to be told of its life.
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
    pub interest: Interest<Party>,
    pub slots: Slots,
    /// Whose fds the registrations of `sock_*` operations are.
    pub owners: Owners,
    /// The file objects by which watchers were set, by fd, kept as the `selectors` module keeps them.
    pub files: HashMap<u32, Py<PyAny>>,
    /// Spare lists, kept for their memory.
    pub tokens: Vec<u32>,
    pub events: Vec<UserEvent>,
}

impl Io {
    /// Carries out a change of a user fd's registration, see [`Reactor::settle`].
    pub fn settle(&mut self, fd: u32, change: Change, keep: Keep) -> (io::Result<()>, Vec<Party>) {
        match &self.reactor {
            Some(reactor) => reactor.settle(&mut self.interest, fd, change, keep),
            None => (Ok(()), Vec::new()),
        }
    }
}

/// Lets go of everything scheduled and registered; the last part of a loop's end.
pub fn let_go(slf: &Bound<'_, LoopCore>) {
    let (py, this) = (slf.py(), slf.get());
    let sched = this.sched.with(py, |sched| (sched.ready.take_all(), sched.timers.take_all(), sched.lent.take()));
    this.patches.set(Patches::QUEUE | Patches::TIMERS, false);
    let io = this.io.take(py);
    this.stats.endpoints.clear();
    for endpoint in io.slots.iter() {
        if let Err(error) = (endpoint.ops.orphan)(endpoint.object.bind(py)) {
            error.write_unraisable(py, None);
        }
    }
    let corked = this.coalesce.take(py);
    let scratch = this.scratch.take(py);
    // Dropped last, one by one: finalizers may run user code, which finds a closed loop.
    drop((sched.0, sched.1, sched.2, io, corked, scratch, this.pool.take(py)));
}
