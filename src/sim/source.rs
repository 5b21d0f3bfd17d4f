//! What the loop knows of a file's readiness: a registration with Tokio, edge-triggered, with a waker for each direction.
//!
//! The loop learns of the kernel's edges when it looks, and forgets a direction's readiness when a call found it used up. The
//! end of a direction is never forgotten.

use crate::core::drive::Dir;

/// What is ready, as an `epoll_wait(2)` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    pub read: bool,
    pub write: bool,
    /// Nothing follows what can be read.
    pub read_closed: bool,
    /// Nothing can be sent any more.
    pub write_closed: bool,
}

/// The registration.
#[derive(Debug, Default)]
pub struct Source {
    known: Edge,
    read_armed: bool,
    write_armed: bool,
}

impl Source {
    /// The look found an edge: which wakers it wakes.
    pub fn handle_edge(&mut self, edge: Edge) -> impl Iterator<Item = Dir> + use<> {
        let known = &mut self.known;
        known.read |= edge.read;
        known.write |= edge.write;
        known.read_closed |= edge.read_closed;
        known.write_closed |= edge.write_closed;
        let read = (edge.read || edge.read_closed) && std::mem::take(&mut self.read_armed);
        let write = (edge.write || edge.write_closed) && std::mem::take(&mut self.write_armed);
        [(read, Dir::Read), (write, Dir::Write)].into_iter().filter_map(|(woken, dir)| woken.then_some(dir))
    }

    /// True when the file may be readable; otherwise the waker is armed.
    pub fn arm_read(&mut self) -> bool {
        let ready = self.known.read || self.known.read_closed;
        self.read_armed |= !ready;
        ready
    }

    /// True when the file may be writable; otherwise the waker is armed.
    pub fn arm_write(&mut self) -> bool {
        let ready = self.known.write || self.known.write_closed;
        self.write_armed |= !ready;
        ready
    }

    /// A call found nothing to read.
    pub fn clear_read(&mut self) -> bool {
        self.known.read = false;
        self.arm_read()
    }

    /// A call could not write all.
    pub fn clear_write(&mut self) -> bool {
        self.known.write = false;
        self.arm_write()
    }

    /// True when the far end is gone; otherwise both wakers are armed, and any other readiness is forgotten.
    pub fn arm_hangup(&mut self) -> bool {
        self.clear_read() || self.clear_write()
    }

    /// Whether the end of what can be read is known.
    #[must_use]
    pub fn is_read_closed(&self) -> bool {
        self.known.read_closed
    }

    #[must_use]
    pub fn is_read_armed(&self) -> bool {
        self.read_armed
    }

    #[must_use]
    pub fn is_write_armed(&self) -> bool {
        self.write_armed
    }
}
