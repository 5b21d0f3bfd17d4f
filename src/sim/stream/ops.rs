//! What can happen to a simulated stream, and what is seen of it.

use crate::core::fault::Fault;
use crate::core::stream::WriteError;
use crate::sim::Decode;

/// What a callback of the protocol does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    Write(u32),
    WriteTwice(u32),
    WriteEof,
    Close,
    Abort,
    PauseReading,
    ResumeReading,
    /// Raises: fatal in `data_received` and `eof_received`, reported and no more elsewhere.
    Raise,
    /// Raises what passes through the loop, which breaks `eof_received` off and ends no connection.
    Exit,
}

impl Reaction {
    fn from_bytes([kind, scale, low, high]: [u8; 4]) -> Self {
        let len = length([scale, low, high]);
        match kind % 16 {
            0..=2 => Self::Nothing,
            3 => Self::Exit,
            4..=6 => Self::Write(len),
            7 | 8 => Self::WriteTwice(len),
            9 => Self::WriteEof,
            10 | 11 => Self::Close,
            12 => Self::Abort,
            13 => Self::PauseReading,
            14 => Self::ResumeReading,
            _ => Self::Raise,
        }
    }
}

/// An operation of the user, of the peer, or of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Write(u32),
    /// `writelines` of three chunks, some of them empty at times.
    WriteLines([u8; 3]),
    /// The user asks for the size of the buffer: the cork comes off.
    Size,
    WriteEof,
    Close,
    Abort,
    /// The layer above found the connection broken.
    Fail,
    PauseReading,
    ResumeReading,
    /// Sets the marks; a zero stands for "not given".
    SetLimits {
        high: u8,
        low: u8,
    },
    /// Somebody waits for the buffer to drain, or no longer.
    DrainWait(bool),
    /// Who waited for that, and has the socket, sends so many bytes past the stream.
    Lent(u32),
    /// What `eof_received` answers.
    KeepOpen(bool),
    /// The protocol lends its own buffers from now on, or no longer.
    Buffered(bool),
    /// The user closes the file under the transport.
    CloseFile,
    /// Shutting down the writing half fails from now on: who asked for it is told, unless it came later.
    FailShutdown,
    /// Queues a reaction for the next callback.
    React(Reaction),
    /// Has the loop call the user, who does this, in its next turn.
    CallSoon(Reaction),
    PeerSend(u32),
    PeerRead(u32),
    PeerEnd,
    PeerReset,
    /// Bounds the link's send buffer, and what one send takes.
    Bound {
        capacity: u16,
        per_call: u8,
    },
    /// The loop runs one turn.
    Turn,
    /// The loop stops: what follows is called from outside of it, until the next turn.
    Stop,
    /// Writes are coalesced from now on, or no longer.
    Coalesce(bool),
    /// The process forks, and what follows happens in the child.
    Fork,
}

/// A length: mostly small, at times over the default high mark.
fn length([scale, low, high]: [u8; 3]) -> u32 {
    let wide = u32::from(u16::from_le_bytes([low, high]));
    match scale % 4 {
        0 => u32::from(low),
        1 => wide % 4096,
        2 => wide,
        _ => wide * 2,
    }
}

impl Decode for Op {
    fn from_bytes([kind, a, low, high]: [u8; 4]) -> Self {
        match kind % 32 {
            0..=4 => Self::Write(length([a, low, high])),
            5 if a.is_multiple_of(8) => Self::Size,
            5 => Self::WriteLines([a, low, high]),
            6 => Self::WriteEof,
            7 => Self::Close,
            8 if a.is_multiple_of(4) => Self::Abort,
            9 if a.is_multiple_of(4) => Self::Fail,
            9 if a == 1 => Self::CloseFile,
            9 if a == 2 => Self::FailShutdown,
            8..=10 => Self::PauseReading,
            11 | 12 => Self::ResumeReading,
            13 if a.is_multiple_of(8) => Self::Buffered(low.is_multiple_of(2)),
            13 => Self::SetLimits { high: low, low: high },
            14 if a.is_multiple_of(8) => Self::Lent(length([a >> 3, low, high])),
            14 => Self::DrainWait(a.is_multiple_of(2)),
            15 => Self::KeepOpen(a.is_multiple_of(2)),
            16 | 17 => Self::React(Reaction::from_bytes([a, a >> 4, low, high])),
            18 => Self::CallSoon(Reaction::from_bytes([a, a >> 4, low, high])),
            19 | 20 => Self::PeerSend(length([a, low, high])),
            21..=23 => Self::PeerRead(length([a, low, high])),
            24 if a.is_multiple_of(4) => Self::PeerEnd,
            24 if a.is_multiple_of(5) => Self::PeerReset,
            24 | 25 => Self::Bound { capacity: u16::from_le_bytes([low, high]), per_call: a },
            26 if a.is_multiple_of(4) => Self::Fork,
            26 => Self::Stop,
            27 => Self::Coalesce(a.is_multiple_of(2)),
            _ => Self::Turn,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The link took so many of so many bytes offered.
    Sent(usize, usize),
    /// A write was queued.
    Queued(u32),
    /// A write came after the loss; true if it is to be warned of.
    Dropped(bool),
    /// A write was refused.
    Refused(WriteError),
    /// Callbacks of the protocol.
    Buffer,
    Data(usize),
    Pause,
    Resume,
    Eof,
    /// `eof_received` was broken off: it is called again if the stream reads on.
    EofUntold,
    Lost(Fault),
    /// The writing half was shut down.
    Shutdown,
    /// Who waited for the buffer to drain was told.
    Drained,
}
