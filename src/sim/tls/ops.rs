//! How two ends are set up, what can happen to them, and what is seen of them.

use super::engine::Said;
use crate::sim::Decode;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What two ends are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties of an engine")]
pub struct Setup {
    /// TLS inside TLS.
    pub stacked: bool,
    /// The protocols have their `connection_made` behind them.
    pub made: bool,
    /// The streams below have more plain data to send than their high mark allows; only where they are `made` and not `stacked`.
    pub late: bool,
    /// Flights of a handshake, at least 2; the client has the first.
    pub flights: u8,
    /// Plaintext that a record takes, bytes.
    pub fragment: u16,
    /// Data behind the `close_notify` that was sent is an error, as with OpenSSL; otherwise it is skipped.
    pub strict: bool,
    /// What is the beginning of a record is taken out of what was fed.
    pub greedy: bool,
    /// The server sends a record without data after the handshake.
    pub tickets: bool,
    /// The end that closes does not wait for the peer's `close_notify`: the client, the server.
    pub quick: [bool; 2],
    /// Bytes of the buffer of a protocol with one, 0 for a protocol that takes bytes: the client's, the server's.
    pub buffers: [u16; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            stacked: false,
            made: false,
            late: false,
            flights: 3,
            fragment: 256,
            strict: false,
            greedy: false,
            tickets: false,
            quick: [false; 2],
            buffers: [0; 2],
        }
    }
}

impl Setup {
    #[must_use]
    pub fn is_quick(self, side: Side) -> bool {
        self.quick[side as usize]
    }

    #[must_use]
    pub fn from_bytes([flags, more, fragment, buffer]: [u8; 4]) -> Self {
        let has = |bit: u8| flags & (1 << bit) != 0;
        let buffer = 1 + u16::from(buffer) * 4;
        Self {
            stacked: has(0),
            made: more & 0x80 != 0,
            late: more & 0x40 != 0,
            flights: 2 + more % 3,
            // Zeros are no tiny records: those take long.
            fragment: 1 + u16::from(fragment ^ 0x80) * 2,
            strict: has(1),
            greedy: has(2),
            tickets: has(3),
            quick: [has(4), has(5)],
            buffers: [has(6), has(7)].map(|has| if has { buffer } else { 0 }),
        }
    }

    /// A setup from the first four bytes, the operations from the others.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> (Self, Vec<Op>) {
        let mut setup = [0; 4];
        let n = bytes.len().min(4);
        setup[..n].copy_from_slice(&bytes[..n]);
        (Self::from_bytes(setup), Op::decode(&bytes[n..]))
    }
}

/// What a callback of the protocol does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    Write(u32),
    WriteTwice(u32),
    Close,
    Abort,
    PauseReading,
    ResumeReading,
    /// Sets the marks of writing.
    SetLimits(u8, u8),
    /// Sets the marks of reading.
    SetReadLimits(u8, u8),
    /// Raises: fatal in `connection_made`, `data_received` and `eof_received`, reported and no more elsewhere.
    Raise,
    /// Raises what ends the run of the loop (`KeyboardInterrupt`), in flow control or once the engine has taken a part of a
    /// write; elsewhere nothing.
    Exit,
}

impl Reaction {
    fn from_bytes([kind, low, high]: [u8; 3]) -> Self {
        let len = length([kind >> 4, low, high]);
        match kind % 16 {
            0..=2 => Self::Nothing,
            3 => Self::Exit,
            4..=6 => Self::Write(len),
            7 => Self::WriteTwice(len),
            8 | 9 => Self::Close,
            10 => Self::Abort,
            11 | 12 => Self::PauseReading,
            13 => Self::ResumeReading,
            14 if kind & 0x80 == 0 => Self::SetLimits(low, high),
            14 => Self::SetReadLimits(low, high),
            _ => Self::Raise,
        }
    }
}

/// An operation of one of the ends or of its stream below, of the loop, or of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// The stream below is there.
    Start(Side),
    Write(Side, u32),
    Close(Side),
    Abort(Side),
    PauseReading(Side),
    ResumeReading(Side),
    /// The marks of writing, in units of 16 bytes.
    SetLimits(Side, u8, u8),
    /// The marks of reading, in units of 4 bytes.
    SetReadLimits(Side, u8, u8),
    /// Another protocol takes over, with a buffer of so many bytes, or with none.
    SetBuffer(Side, u16),
    /// Queues a reaction for the next callback.
    React(Side, Reaction),
    /// Queues what user code does that the engine runs in its next write.
    Inside(Side, Reaction),
    /// The engine of the user's connection sends a record of its own.
    Say(Side, Said),
    /// At most so many bytes reach the other end.
    Deliver(Side, u32),
    /// The marks of the stream below, in units of 16 bytes.
    Bound(Side, u8, u8),
    /// What this end sends ends here, without a `close_notify`.
    Cut(Side),
    /// The connection breaks, which the next write finds out.
    Break(Side),
    /// The connection breaks, at both ends.
    Reset,
    /// One byte that waits to reach the other end is another one.
    Flip(Side, u16),
    /// So many bytes that are no records follow what waits to reach the other end.
    Garbage(Side, u8),
    /// The time of whatever is watched is over.
    Clock(Side),
    /// The loop runs one turn.
    Turn,
}

/// A length: mostly small, at times several records long.
fn length([scale, low, high]: [u8; 3]) -> u32 {
    let wide = u32::from(u16::from_le_bytes([low, high]));
    match scale % 4 {
        0 => u32::from(low % 16),
        1 => u32::from(low),
        2 => wide % 1024,
        _ => wide % 8192,
    }
}

impl Decode for Op {
    fn from_bytes([kind, a, low, high]: [u8; 4]) -> Self {
        let side = if kind & 0x80 == 0 { Side::Client } else { Side::Server };
        let len = length([a, low, high]);
        match kind % 32 {
            0..=3 => Self::Write(side, len),
            4 if a & 0x40 == 0 => Self::Inside(side, Reaction::Write(len)),
            4 => Self::Inside(side, Reaction::from_bytes([low, high, 0])),
            5 if a.is_multiple_of(2) => Self::Close(side),
            6 if a.is_multiple_of(4) => Self::Abort(side),
            5 | 6 => Self::PauseReading(side),
            7 | 8 => Self::ResumeReading(side),
            9 => Self::SetLimits(side, low, high),
            10 => Self::SetReadLimits(side, low, high),
            11 if a.is_multiple_of(4) => Self::SetBuffer(side, u16::from(low)),
            11..=14 => Self::React(side, Reaction::from_bytes([a, low, high])),
            15 => Self::Bound(side, low, high),
            16 => {
                Self::Say(side, [Said::Ticket, Said::Update, Said::Ask, Said::Renew, Said::Nothing][usize::from(a % 5)])
            }
            17 => match a % 16 {
                0 => Self::Cut(side),
                1 => Self::Reset,
                2 => Self::Flip(side, u16::from_le_bytes([low, high])),
                3 => Self::Garbage(side, low),
                4..=6 => Self::Clock(side),
                7 => Self::Break(side),
                _ => Self::Say(side, Said::Ask),
            },
            18 | 19 => Self::Start(side),
            20..=25 => Self::Deliver(side, len),
            _ => Self::Turn,
        }
    }
}

/// What happened at one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event(pub Side, pub What);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The stream below got so many bytes.
    Sent(usize),
    /// The protocol's callbacks.
    Made,
    Data(usize),
    Eof,
    Pause,
    Resume,
    Lost,
    /// A write came too late; true if it is to be warned of.
    Dropped(bool),
    /// The stream below was closed, or aborted.
    Closed,
    Aborted,
    /// An exception ended the connection.
    Failed,
}
