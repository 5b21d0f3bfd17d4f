//! The table of a loop's registered endpoints: a slot's number is the token that Tokio's wakers push.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::datagram::DatagramTransport;
use super::listener::Listener;
use super::stats::{Counters, Table};
use super::stream::StreamTransport;

/// What can be registered.
#[derive(Debug)]
pub enum Endpoint {
    Stream(Py<StreamTransport>),
    Listener(Py<Listener>),
    Datagram(Py<DatagramTransport>),
}

impl Endpoint {
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(stream.clone_ref(py)),
            Self::Listener(listener) => Self::Listener(listener.clone_ref(py)),
            Self::Datagram(transport) => Self::Datagram(transport.clone_ref(py)),
        }
    }

    /// The number it was registered by.
    pub fn fd(&self) -> u32 {
        match self {
            Self::Stream(stream) => stream.get().fd,
            Self::Listener(listener) => listener.get().fd,
            Self::Datagram(transport) => transport.get().fd,
        }
    }

    fn counters(&self) -> &Arc<Counters> {
        match self {
            Self::Stream(stream) => &stream.get().counters,
            Self::Listener(listener) => &listener.get().counters,
            Self::Datagram(transport) => &transport.get().counters,
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Stream(stream) => visit.call(stream),
            Self::Listener(listener) => visit.call(listener),
            Self::Datagram(transport) => visit.call(transport),
        }
    }
}

/// A slab. Slots are reused; a stale token of a slot's earlier owner makes the new one look at its own readiness, which
/// is harmless.
#[derive(Debug, Default)]
pub struct Slots {
    endpoints: Vec<Option<Endpoint>>,
    free: Vec<u32>,
    by_fd: HashMap<u32, u32>,
    /// What every thread may read of it.
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

    /// Registers the endpoint that has `fd` now.
    pub fn fill(&mut self, slot: u32, fd: u32, endpoint: Endpoint) {
        self.by_fd.insert(fd, slot);
        self.table.insert(slot, Arc::clone(endpoint.counters()));
        if let Some(place) = self.endpoints.get_mut(slot as usize) {
            *place = Some(endpoint);
        }
    }

    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&Endpoint> {
        self.endpoints.get(slot as usize)?.as_ref()
    }

    /// The endpoint that was registered for `fd` last.
    #[must_use]
    pub fn by_fd(&self, fd: u32) -> Option<&Endpoint> {
        self.at(*self.by_fd.get(&fd)?)
    }

    /// Frees a slot; the endpoint is given back to be dropped outside the borrow.
    #[must_use]
    pub fn remove(&mut self, slot: u32, fd: u32) -> Option<Endpoint> {
        if self.by_fd.get(&fd) == Some(&slot) {
            self.by_fd.remove(&fd);
        }
        self.table.remove(slot);
        let endpoint = self.endpoints.get_mut(slot as usize)?.take();
        self.free.push(slot);
        endpoint
    }

    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flatten()
    }
}
