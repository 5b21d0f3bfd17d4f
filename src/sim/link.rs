//! A connected byte stream with a peer at its other end, as one process sees it through a non-blocking socket.
//!
//! Writes are bounded twice: by the free space of the send buffer and by what one call takes, so that partial sends and
//! EAGAIN come at every offset. The link checks the bytes it is given against the [`pattern`]: what arrives is what was
//! written, in order, or the simulation ends there and then. Bytes themselves are not kept.
//!
//! Errors as on Linux: after a reset the received data is still read, then comes ECONNRESET once, then the end; the first
//! send fails with ECONNRESET if nobody was told yet, any other with EPIPE.

use super::source::Edge;
use super::{pattern, patterned};

/// ECONNRESET of Linux; in a simulation only its identity matters.
pub const ECONNRESET: i32 = 104;
/// EPIPE of Linux.
pub const EPIPE: i32 = 32;

/// What a read finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// Bytes, at least one.
    Data(Vec<u8>),
    /// The peer ended its half.
    End,
    /// EAGAIN.
    Nothing,
}

/// The simulated socket and its peer.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "plain facts about both ends")]
pub struct Link {
    /// Bytes the send buffer holds.
    capacity: usize,
    /// Bytes one call takes at most.
    per_call: usize,
    /// Bytes accepted from the sender so far.
    accepted: u64,
    /// Bytes the peer has read so far.
    taken: u64,
    shut: bool,
    /// Bytes the peer has sent, and those that were received here.
    offered: u64,
    received: u64,
    peer_ended: bool,
    reset: bool,
    reset_told: bool,
    closed: bool,
    /// A send was refused, or cut short, since room was told of.
    blocked: bool,
    /// Something happened that the next `epoll_wait(2)` tells of.
    edge: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            capacity: 1 << 14,
            per_call: usize::MAX,
            accepted: 0,
            taken: 0,
            shut: false,
            offered: 0,
            received: 0,
            peer_ended: false,
            reset: false,
            reset_told: false,
            closed: false,
            blocked: false,
            // Registering a file tells of what is ready.
            edge: true,
        }
    }
}

impl Link {
    // ---- the socket

    /// Bytes accepted from the sender so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Whether the writing half was shut down.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether the socket was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// A send would not block.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.reset || self.free() > 0
    }

    /// A read would not block.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.unread() > 0 || self.peer_ended || self.reset
    }

    /// Sends what fits of `slices`; 0 is EAGAIN.
    ///
    /// # Errors
    /// The errno.
    ///
    /// # Panics
    /// On a byte that is not the next one of the pattern, and on a send after a shutdown or a close.
    pub fn send<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) -> Result<usize, i32> {
        assert!(!self.closed && !self.shut, "sent on a socket that was closed or shut down");
        if self.reset {
            let told = std::mem::replace(&mut self.reset_told, true);
            return Err(if told { EPIPE } else { ECONNRESET });
        }
        let room = self.free().min(self.per_call);
        let mut sent = 0;
        let mut bytes = slices.flatten();
        for &byte in bytes.by_ref().take(room) {
            assert_eq!(byte, pattern(self.accepted), "byte {} was lost, repeated or moved", self.accepted);
            self.accepted += 1;
            sent += 1;
        }
        if bytes.next().is_some() {
            self.blocked = true;
            self.tell_of_room();
        }
        Ok(sent)
    }

    /// Reads at most `max` bytes.
    ///
    /// # Errors
    /// The errno.
    ///
    /// # Panics
    /// On a closed socket.
    pub fn recv(&mut self, max: usize) -> Result<Received, i32> {
        assert!(!self.closed, "read from a closed socket");
        let n = max.min(usize::try_from(self.unread()).unwrap_or(usize::MAX));
        if n > 0 {
            let bytes = patterned(self.received, n);
            self.received += n as u64;
            return Ok(Received::Data(bytes));
        }
        if self.reset && !std::mem::replace(&mut self.reset_told, true) {
            return Err(ECONNRESET);
        }
        Ok(if self.reset || self.peer_ended { Received::End } else { Received::Nothing })
    }

    /// Shuts down the writing half.
    ///
    /// # Panics
    /// On a closed socket.
    pub fn shutdown(&mut self) {
        assert!(!self.closed, "shut down a closed socket");
        self.shut = true;
    }

    /// Closes the socket.
    ///
    /// # Panics
    /// When it was closed before.
    pub fn close(&mut self) {
        assert!(!std::mem::replace(&mut self.closed, true), "closed twice");
    }

    // ---- the peer

    /// Bounds the send buffer and the single call. At least one byte each.
    pub fn bound(&mut self, capacity: usize, per_call: usize) {
        self.capacity = capacity.max(1);
        self.per_call = per_call.max(1);
        self.tell_of_room();
    }

    /// The peer sends `len` bytes, unless it ended.
    pub fn peer_send(&mut self, len: u64) {
        if !self.peer_ended && !self.reset {
            self.offered += len;
            self.edge |= len > 0;
        }
    }

    /// The peer ends its half.
    pub fn peer_end(&mut self) {
        self.peer_ended = true;
        self.edge = true;
    }

    /// The peer resets the connection.
    pub fn peer_reset(&mut self) {
        self.reset = true;
        self.edge = true;
    }

    /// The peer reads at most `max` bytes.
    pub fn peer_read(&mut self, max: u64) {
        self.taken = self.accepted.min(self.taken.saturating_add(max));
        self.tell_of_room();
    }

    /// Bytes that the peer sent and nobody has read.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.offered - self.received
    }

    /// Whether the connection was reset.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    // ---- the kernel's readiness

    /// Whether the next look finds something.
    #[must_use]
    pub fn has_edge(&self) -> bool {
        self.edge
    }

    /// What a look finds, edge-triggered: all that is ready, if something happened since the last one.
    pub fn take_edge(&mut self) -> Option<Edge> {
        let ready = Edge {
            read: self.is_readable(),
            write: self.is_writable(),
            read_closed: self.peer_ended || self.reset,
            write_closed: self.reset,
        };
        // As `tcp_poll` of Linux: who asks while there is no room is told of it.
        self.blocked |= !ready.write;
        std::mem::take(&mut self.edge).then_some(ready)
    }

    fn tell_of_room(&mut self) {
        if self.free() > 0 {
            self.edge |= std::mem::take(&mut self.blocked);
        }
    }

    fn free(&self) -> usize {
        let queued = usize::try_from(self.accepted - self.taken).unwrap_or(usize::MAX);
        self.capacity.saturating_sub(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(link: &mut Link, bytes: &[u8]) -> Result<usize, i32> {
        link.send(std::iter::once(bytes))
    }

    #[test]
    fn sends_are_partial_then_block_until_the_peer_reads() {
        let mut link = Link::default();
        link.bound(5, 3);
        let bytes = patterned(0, 8);
        assert_eq!(send(&mut link, &bytes), Ok(3));
        assert_eq!(send(&mut link, &bytes[3..]), Ok(2));
        assert_eq!((send(&mut link, &bytes[5..]), link.is_writable()), (Ok(0), false));
        link.peer_read(1);
        assert_eq!(send(&mut link, &bytes[5..]), Ok(1));
    }

    #[test]
    #[should_panic(expected = "byte 1 was lost, repeated or moved")]
    fn a_repeated_byte_is_noticed() {
        let mut link = Link::default();
        let bytes = patterned(0, 1);
        let _sent = send(&mut link, &[bytes[0], bytes[0]]);
    }

    #[test]
    fn a_reset_is_told_once_after_the_data() {
        let mut link = Link::default();
        link.peer_send(1);
        link.peer_reset();
        assert_eq!(link.recv(9), Ok(Received::Data(patterned(0, 1))));
        assert_eq!(link.recv(9), Err(ECONNRESET));
        assert_eq!((link.recv(9), send(&mut link, &[])), (Ok(Received::End), Err(EPIPE)));
    }
}
