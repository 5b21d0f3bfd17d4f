//! What the TLS machine answers.

use crate::core::flow::Flow;

/// What the caller has to do, in the order of the bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Step(u16);

impl Step {
    /// Neither time-out counts any more.
    pub const UNWATCH: Self = Self(1);
    /// Count the time of the handshake.
    pub const WATCH_HANDSHAKE: Self = Self(1 << 1);
    /// Count the time of the closing.
    pub const WATCH_SHUTDOWN: Self = Self(1 << 2);
    /// Call [`super::RecordEngine::handshake`], then [`super::Tls::handle_handshake`].
    pub const HANDSHAKE: Self = Self(1 << 3);
    /// Call `protocol.connection_made`.
    pub const MADE: Self = Self(1 << 4);
    /// The handshake succeeded: whoever waits for that is to be told.
    pub const READY: Self = Self(1 << 5);
    /// Decrypt and hand out what has arrived, then [`super::Tls::end_read`].
    pub const READ: Self = Self(1 << 6);
    /// Encrypt what is queued, then [`super::Tls::end_write`].
    pub const WRITE: Self = Self(1 << 7);
    /// Take ciphertext and hand it to the stream below, then [`super::Tls::handle_taken`].
    pub const SEND: Self = Self(1 << 8);
    /// What has arrived was handed out: [`super::Tls::begin_unwrap`].
    pub const FLUSHED: Self = Self(1 << 9);
    /// Call [`super::RecordEngine::shutdown`], then [`super::Tls::handle_unwrapped`].
    pub const UNWRAP: Self = Self(1 << 10);
    /// Call `protocol.eof_received`.
    pub const EOF: Self = Self(1 << 11);
    /// Close the stream below, which sends what it has first.
    pub const CLOSE: Self = Self(1 << 12);
    /// Abort the stream below.
    pub const ABORT: Self = Self(1 << 13);
    /// Drop [`super::Tls::take_discarded`] outside the borrow.
    pub const DISCARD: Self = Self(1 << 14);
    /// Schedule `protocol.connection_lost` for the next turn, never inline.
    pub const LOSE: Self = Self(1 << 15);
}

step_flags!(Step);

/// What flow control asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Pause,
    Resume,
}

impl Told {
    /// What a buffer of this size calls for.
    pub(super) fn by(flow: &mut Flow, size: usize) -> Self {
        if flow.handle_grown(size) {
            Self::Pause
        } else if flow.handle_shrunk(size) {
            Self::Resume
        } else {
            Self::Nothing
        }
    }
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Encrypt it at once; what the engine does not take goes through [`super::Tls::enqueue_rest`].
    Encrypt,
    /// Hand it to [`super::Tls::enqueue`].
    Queue,
    /// The connection is closed: the data goes nowhere. `warn` from the sixth time on, or the fifth after the loss, as
    /// asyncio does.
    Drop { warn: bool },
}
