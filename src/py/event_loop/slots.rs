//! The table of a loop's registered endpoints: a slot's number is the token that Tokio's wakers push.
//!
//! The loop knows none of their classes: each gives it a table of what it does.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::io::counters::{Counters, Table};

/// What the loop asks of an endpoint, which is the first argument of each function.
#[derive(Debug)]
pub struct Ops {
    /// Its file is ready: readable, or (true) writable.
    pub handle_io: fn(&Bound<'_, PyAny>, bool) -> PyResult<()>,
    /// Its protocol is to be told `connection_made`, or `connection_lost`.
    pub handle_life: fn(&Bound<'_, PyAny>, Life) -> PyResult<()>,
    /// Sends what it has coalesced. True: no callback is running, so the context of its protocol can be entered.
    pub uncork: fn(&Bound<'_, PyAny>, bool) -> PyResult<()>,
    /// In the child of a fork: forgets what it has coalesced, which is the parent's to send.
    pub forget_corked: fn(&Bound<'_, PyAny>) -> PyResult<()>,
    /// Reports a panic that was caught, and closes the connection that it happened on.
    pub panicked: fn(&Bound<'_, PyAny>, &(dyn Any + Send)) -> PyResult<()>,
    /// Whether it is a transport in the middle of its life, whose file nobody else may watch.
    pub uses_file: fn(&Bound<'_, PyAny>) -> PyResult<bool>,
    /// The loop closes: deregisters the file, so that no event will come.
    pub deregister: fn(&Bound<'_, PyAny>) -> PyResult<()>,
}

/// The two ends of a transport's life, of which its protocol is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Made,
    Lost,
}

/// What can be registered.
#[derive(Debug)]
pub struct EndpointRef {
    pub object: Py<PyAny>,
    pub ops: &'static Ops,
    /// The number it was registered by.
    pub fd: u32,
}

impl EndpointRef {
    pub fn new<T>(object: &Bound<'_, T>, ops: &'static Ops, fd: u32) -> Self {
        Self { object: object.as_any().clone().unbind(), ops, fd }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), ..*self }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)
    }
}

/// A slab. Slots are reused; a stale token of a slot's earlier owner makes the new one look at its own readiness, which
/// is harmless.
#[derive(Debug, Default)]
pub struct Slots {
    endpoints: Vec<Option<EndpointRef>>,
    free: Vec<u32>,
    by_fd: HashMap<u32, u32>,
    /// What other threads read of it.
    table: Arc<Table>,
}

impl Slots {
    pub fn new(table: Arc<Table>) -> Self {
        Self { table, ..Self::default() }
    }

    /// A free slot's number; it stays reserved until [`Slots::remove`].
    pub fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.endpoints.push(None);
            // A process has far fewer than 2^30 fds.
            u32::try_from(self.endpoints.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Registers the endpoint that has its file now.
    pub fn fill(&mut self, slot: u32, counters: &Arc<Counters>, endpoint: EndpointRef) {
        self.by_fd.insert(endpoint.fd, slot);
        self.table.insert(slot, Arc::clone(counters));
        if let Some(place) = self.endpoints.get_mut(slot as usize) {
            *place = Some(endpoint);
        }
    }

    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&EndpointRef> {
        self.endpoints.get(slot as usize)?.as_ref()
    }

    /// The endpoint that was registered for `fd` last.
    #[must_use]
    pub fn by_fd(&self, fd: u32) -> Option<&EndpointRef> {
        self.at(*self.by_fd.get(&fd)?)
    }

    /// Frees a slot; the endpoint is given back to be dropped outside the borrow.
    #[must_use]
    pub fn remove(&mut self, slot: u32, fd: u32) -> Option<EndpointRef> {
        if self.by_fd.get(&fd) == Some(&slot) {
            self.by_fd.remove(&fd);
        }
        self.table.remove(slot);
        let endpoint = self.endpoints.get_mut(slot as usize)?.take();
        self.free.push(slot);
        endpoint
    }

    pub fn iter(&self) -> impl Iterator<Item = &EndpointRef> {
        self.endpoints.iter().flatten()
    }
}
