//! What can happen to a simulated datagram endpoint, and what is seen of it.

use crate::core::fault::Fault;
use crate::sim::Decode;

/// What a callback of the protocol does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    Send(u32),
    SendTwice(u32),
    Close,
    Abort,
    PauseReading,
    ResumeReading,
    /// Raises what ends the run of the loop (`KeyboardInterrupt`): what follows waits for the next run.
    Interrupt,
}

impl Reaction {
    fn from_bytes([kind, scale, low, high]: [u8; 4]) -> Self {
        let len = length([scale, low, high]);
        match kind % 16 {
            0..=3 => Self::Nothing,
            4..=7 => Self::Send(len),
            8 | 9 => Self::SendTwice(len),
            10 => Self::Close,
            11 => Self::Abort,
            12 | 13 => Self::PauseReading,
            14 => Self::ResumeReading,
            _ => Self::Interrupt,
        }
    }
}

/// An operation of the user, of the network, or of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// The endpoint is a connected one: counts as the first operation, and does nothing later.
    Connect {
        header: u8,
    },
    Send(u32),
    /// So many small datagrams in a row.
    Burst(u8),
    /// The user asks for the size of the buffer: the cork comes off.
    Size,
    Close,
    Abort,
    /// The layer above found the endpoint broken.
    Fail,
    PauseReading,
    ResumeReading,
    /// Sets the marks; a zero stands for "not given".
    SetLimits {
        high: u8,
        low: u8,
    },
    /// Queues a reaction for the next callback.
    React(Reaction),
    /// So many datagrams arrive.
    Arrive(u8),
    /// The kernel hands over so many of the datagrams that it took.
    Drain(u8),
    /// The kernel refuses the datagram that is so many sends away, whenever it is offered.
    Refuse(u8),
    /// The datagram that is so many sends away has an address that is none: the end of the endpoint.
    Misaddress(u8),
    /// The socket keeps an error that nobody takes (`IP_RECVERR`), and tells of it with each registration; or no longer.
    ErrorQueue(bool),
    /// An earlier datagram was refused by its receiver: the next call on the socket tells, once.
    Icmp,
    /// Datagrams that the kernel holds at most.
    Bound(u8),
    /// The loop runs one turn.
    Turn,
    /// The loop stops: what follows is called from outside of it, until the next turn.
    Stop,
    /// Sends are coalesced from now on, or no longer.
    Coalesce(bool),
    /// The process forks, and what follows happens in the child.
    Fork,
}

/// A length: mostly small, at times over the default high mark, at times zero.
fn length([scale, low, high]: [u8; 3]) -> u32 {
    let wide = u32::from(u16::from_le_bytes([low, high]));
    match scale % 8 {
        0 => 0,
        1..=4 => u32::from(low),
        5 | 6 => wide % 4096,
        _ => wide * 2,
    }
}

impl Decode for Op {
    fn from_bytes([kind, a, low, high]: [u8; 4]) -> Self {
        match kind % 32 {
            0..=4 => Self::Send(length([a, low, high])),
            5 | 6 => Self::Burst(a),
            7 => Self::Size,
            8 if a.is_multiple_of(4) => Self::Close,
            8 if a.is_multiple_of(5) => Self::Abort,
            8 if a.is_multiple_of(7) => Self::Fail,
            8 | 9 => Self::PauseReading,
            10 | 11 => Self::ResumeReading,
            12 => Self::SetLimits { high: low, low: high },
            13..=15 => Self::React(Reaction::from_bytes([a, a >> 4, low, high])),
            16..=18 => Self::Arrive(a),
            19..=21 => Self::Drain(a),
            22 if a.is_multiple_of(16) => Self::Misaddress(low),
            22 | 23 => Self::Refuse(a),
            24 if a.is_multiple_of(4) => Self::ErrorQueue(low.is_multiple_of(2)),
            24 => Self::Icmp,
            25 => Self::Bound(a),
            26 if a.is_multiple_of(4) => Self::Fork,
            26 => Self::Stop,
            28 => Self::Coalesce(a.is_multiple_of(2)),
            27 => Self::Connect { header: a },
            _ => Self::Turn,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The kernel took so many of so many datagrams offered by one call.
    Sent(usize, usize),
    /// A datagram of this length was queued.
    Queued(u32),
    /// A send came after the loss; true if it is to be warned of.
    Dropped(bool),
    /// Callbacks of the protocol.
    Datagram(u64),
    Error(i32),
    Pause,
    Resume,
    Lost(Fault),
}
