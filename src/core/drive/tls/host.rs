//! What a TLS connection's driver needs of its surroundings.

use crate::core::tls::{Outcome, RecordEngine, Tls};

/// Where an error came from, which its report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    Handshake,
    /// The engine, the user's protocol given data, or the stream below.
    Protocol,
    /// `eof_received` of the user's protocol.
    Eof,
    /// The closing, or the clock.
    Transport,
}

/// The surroundings of a connection, and its engine.
pub trait Host: RecordEngine {
    type Chunk: AsRef<[u8]>;
    /// Plaintext that is written, before it is queued.
    type Plain: AsRef<[u8]> + Into<Self::Chunk>;
    /// The protocol above.
    type Protocol;
    /// What that lends for one read.
    type Buffer;
    /// Who waits for the handshake.
    type Waiter;

    /// Plaintext of one record, bytes.
    const RECORD: usize;
    /// Ciphertext is fed in parts of this many bytes, so that the engine's buffers stay small.
    const PART: usize = 2 * Self::RECORD;
    /// Of a longer write, parts of this many bytes are handed to the stream below one by one: the engine's buffer never gets
    /// smaller, so that one huge write would cost its size for as long as the connection lives.
    const SLICE: usize = 64 * Self::RECORD;

    /// Lends the machine. In it nothing else of the host is called, nor anything dropped that may run user code.
    fn machine<R>(&mut self, f: impl FnOnce(&mut Tls<Self::Chunk>) -> R) -> R;

    // ---- errors

    /// The error ends the run of the loop.
    fn is_exit(&self, error: &Self::Error) -> bool;

    /// The error ends the connection; any other one of the protocol's is for the stream below to handle.
    fn is_exception(&self, error: &Self::Error) -> bool;

    /// Tells of an error that ended the connection.
    ///
    /// # Errors
    /// An exit.
    fn report_fatal(&mut self, error: &Self::Error, culprit: Culprit) -> Result<(), Self::Error>;

    /// Tells of what `pause_writing` or `resume_writing` raised.
    ///
    /// # Errors
    /// An exit.
    fn report_flow(&mut self, error: &Self::Error, method: &'static str) -> Result<(), Self::Error>;

    /// The stream below ended in the handshake.
    fn reset_error(&mut self) -> Self::Error;

    /// # Errors
    /// What becomes of asking how long it should have taken.
    fn handshake_overdue(&mut self) -> Result<Self::Error, Self::Error>;

    fn shutdown_overdue(&mut self) -> Self::Error;

    // ---- the engine, besides

    /// Reads at most `max` bytes into what was lent, from `offset` on.
    fn read_into(&mut self, buffer: &mut Self::Buffer, offset: usize, max: usize) -> Outcome<usize, Self::Error>;

    /// Encrypts what of `plain` is between `from` and `to`, a record at most, as much as the engine takes: how much.
    fn write(&mut self, plain: &Self::Plain, from: usize, to: usize) -> Outcome<usize, Self::Error>;

    /// A copy of what is queued in front, of one record at most: user code that the engine runs may change the queue.
    fn front(&mut self) -> Option<Self::Plain>;

    /// Several pieces of plaintext in one.
    ///
    /// # Errors
    /// Want of memory.
    fn join(&mut self, first: Self::Bytes, more: Vec<Self::Bytes>) -> Result<Self::Bytes, Self::Error>;

    // ---- the stream below

    /// There is one.
    fn has_below(&mut self) -> bool;

    /// It takes long writes in slices, and tells at once when it is paused or closed by one.
    fn below_takes_slices(&mut self) -> bool;

    fn is_below_closing(&mut self) -> bool;

    /// Bytes that it has buffered.
    ///
    /// # Errors
    /// What it raises.
    fn buffered_below(&mut self) -> Result<usize, Self::Error>;

    /// # Errors
    /// What it raises.
    fn write_below(&mut self, ciphertext: &Self::Bytes) -> Result<(), Self::Error>;

    /// What it has coalesced leaves now.
    ///
    /// # Errors
    /// An exit.
    fn uncork_below(&mut self) -> Result<(), Self::Error>;

    /// Gives it marks of writing that are no higher than these.
    ///
    /// # Errors
    /// What it raises.
    fn limit_below(&mut self, high: usize, low: usize) -> Result<(), Self::Error>;

    /// # Errors
    /// What it raises.
    fn pause_below(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What it raises.
    fn resume_below(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What it raises.
    fn close_below(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What it raises.
    fn abort_below(&mut self, error: Option<&Self::Error>) -> Result<(), Self::Error>;

    // ---- the protocol above

    /// `None` once it is let go of.
    fn protocol(&mut self) -> Option<Self::Protocol>;

    /// There is one, and it lends no buffers.
    fn takes_bytes(&mut self) -> bool;

    fn lends_buffers(protocol: &Self::Protocol) -> bool;

    /// # Errors
    /// What it raises.
    fn deliver(&mut self, protocol: &Self::Protocol, plaintext: Self::Bytes) -> Result<(), Self::Error>;

    /// Has it lend a buffer, and how large that is: never empty.
    ///
    /// # Errors
    /// What it raises.
    fn get_buffer(&mut self, protocol: &Self::Protocol, hint: usize) -> Result<(Self::Buffer, usize), Self::Error>;

    /// # Errors
    /// What it raises.
    fn buffer_updated(&mut self, protocol: &Self::Protocol, n: usize) -> Result<(), Self::Error>;

    /// # Errors
    /// What it raises.
    fn connection_made(&mut self) -> Result<(), Self::Error>;

    /// True when it wants the connection to stay open, which TLS does not offer.
    ///
    /// # Errors
    /// What it raises.
    fn eof_received(&mut self) -> Result<bool, Self::Error>;

    /// # Errors
    /// What it raises.
    fn pause_writing(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// What it raises.
    fn resume_writing(&mut self) -> Result<(), Self::Error>;

    /// Queues `connection_lost`.
    ///
    /// # Errors
    /// That the loop is closed.
    fn queue_lost(&mut self) -> Result<(), Self::Error>;

    // ---- others

    /// Neither time-out counts any more.
    ///
    /// # Errors
    /// What the timer raises.
    fn unwatch(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// That the loop is closed.
    fn watch_handshake(&mut self) -> Result<(), Self::Error>;

    /// # Errors
    /// That the loop is closed.
    fn watch_shutdown(&mut self) -> Result<(), Self::Error>;

    /// Has the next turn call [`handle_resumed`].
    ///
    /// # Errors
    /// That the loop is closed.
    fn queue_resumed(&mut self) -> Result<(), Self::Error>;

    /// The handshake is done: notes what is known of the peer.
    ///
    /// # Errors
    /// What asking for it raises.
    fn note_peer(&mut self) -> Result<(), Self::Error>;

    fn take_waiter(&mut self) -> Option<Self::Waiter>;

    /// # Errors
    /// What telling raises.
    fn wake(&mut self, waiter: Self::Waiter, error: Option<&Self::Error>) -> Result<(), Self::Error>;

    /// The protocol wanted the connection to stay open.
    ///
    /// # Errors
    /// What the log raises.
    fn warn_kept_open(&mut self) -> Result<(), Self::Error>;

    /// The user goes on writing after the end.
    ///
    /// # Errors
    /// What the log raises.
    fn warn_closed(&mut self) -> Result<(), Self::Error>;
}
