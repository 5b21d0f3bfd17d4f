//! What the TLS machine answers.

use crate::core::flow::Flow;

step_flags! {
    /// What the caller has to do, in the order of the flags.
    Step(u16) {
        /// Neither time-out counts any more.
        UNWATCH,
        /// Count the time of the handshake.
        WATCH_HANDSHAKE,
        /// Count the time of the closing.
        WATCH_SHUTDOWN,
        /// Call [`super::RecordEngine::handshake`], then [`super::Tls::handle_handshake`].
        HANDSHAKE,
        /// Call `protocol.connection_made`.
        MADE,
        /// The handshake succeeded: whoever waits for that is to be told.
        READY,
        /// Decrypt and hand out what has arrived, then [`super::Tls::end_read`].
        READ,
        /// Encrypt what is queued, then [`super::Tls::end_write`].
        WRITE,
        /// Take ciphertext and hand it to the stream below, then [`super::Tls::handle_taken`].
        SEND,
        /// What has arrived was handed out: [`super::Tls::begin_unwrap`].
        FLUSHED,
        /// Call [`super::RecordEngine::shutdown`], then [`super::Tls::handle_unwrapped`].
        UNWRAP,
        /// Call `protocol.eof_received`.
        EOF,
        /// Close the stream below, which sends what it has first.
        CLOSE,
        /// Abort the stream below.
        ABORT,
        /// Drop [`super::Tls::take_discarded`] outside the borrow.
        DISCARD,
        /// Schedule `protocol.connection_lost` for the next turn, never inline.
        LOSE,
    }
}

/// What flow control asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSignal {
    Nothing,
    Pause,
    Resume,
}

impl FlowSignal {
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
