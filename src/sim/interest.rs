//! The table of user fds over a simulated kernel: watchers, `sock_*` operations, and users who close what is watched.
//!
//! The driver does what the layers above `core::interest` do: a look when there may be something, all reports handed to
//! the table first, then the callbacks and operations they found, unless one was cancelled by another. It carries changes
//! out by `core::drive::interest`, as `io` does, and runs operations by `core::drive::sockop`. Fds are closed with and without taking watchers back, and the kernel gives the
//! number and the inode out again.
//!
//! Invariants:
//! - a socket object that has another file now, and a file that is another object's, are registered anew;
//! - whoever is told is told of the file that it waits for, and only when that file is ready;
//! - when the loop may sleep, nobody waits for something that is ready: no edge is lost, and a watcher is told again as
//!   long as its file is ready;
//! - a watcher that was replaced or removed, and an operation that was cancelled, are never told again;
//! - the kernel's registration of every fd is the one that is wanted;
//! - files that are closed here and live on elsewhere do not wake the loop for ever;
//! - no number makes the table large.

mod driver;

use super::Decode;
use super::kernel::Errno;
use crate::core::interest::Change;
use crate::core::sockop::Dir;

/// The numbers that operations speak of.
const FDS: u8 = 8;

/// What a watcher's callback does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    /// Reads so many bytes, or writes them.
    Move(u8),
    /// Removes itself.
    Unwatch,
    /// Does something to another fd, or to its own.
    Do(Act),
}

/// What the user does, from outside of the loop or in a callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Opens a socket; a regular file if not.
    Open {
        socket: bool,
    },
    Duplicate {
        fd: u8,
    },
    /// Has an open fd name the file of another one (`dup2`): the socket object stays.
    Replace {
        fd: u8,
        by: u8,
    },
    /// Closes an fd without telling the loop.
    Close {
        fd: u8,
    },
    /// Closes an fd, opens another file, which gets its number, and watches that.
    Reopen {
        fd: u8,
        dir: Dir,
    },
    Watch {
        fd: u8,
        dir: Dir,
    },
    Unwatch {
        fd: u8,
        dir: Dir,
    },
    /// Begins a `sock_recv` or `sock_sendall`.
    Start {
        fd: u8,
        dir: Dir,
    },
    /// Watches and unwatches a number that no file has.
    Far {
        number: u32,
        dir: Dir,
    },
    /// Cancels an operation, counted from the last.
    Cancel {
        nth: u8,
    },
    /// Reads or writes behind the loop's back.
    Move {
        fd: u8,
        dir: Dir,
        n: u8,
    },
}

/// An operation of the user, of a peer, or of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Act(Act),
    /// Queues a reaction for the next callback.
    React(Reaction),
    Arrive {
        fd: u8,
        n: u8,
    },
    MakeRoom {
        fd: u8,
        n: u8,
    },
    End {
        fd: u8,
    },
    Break {
        fd: u8,
    },
    /// The loop looks and runs what it found.
    Look,
}

fn dir(byte: u8) -> Dir {
    if byte.is_multiple_of(2) { Dir::Read } else { Dir::Write }
}

impl Act {
    fn from_bytes([kind, fd, n]: [u8; 3]) -> Self {
        let (fd, dir) = (fd % FDS, dir(fd / FDS));
        match kind % 16 {
            0 | 1 => Self::Open { socket: n % 8 != 7 },
            2 if n.is_multiple_of(2) => Self::Duplicate { fd },
            2 => Self::Replace { fd, by: n / 2 % FDS },
            3 => Self::Close { fd },
            4 => Self::Reopen { fd, dir },
            5..=7 => Self::Watch { fd, dir },
            8 | 9 => Self::Unwatch { fd, dir },
            10..=12 => Self::Start { fd, dir },
            13 => Self::Cancel { nth: n },
            14 => Self::Far { number: (u32::MAX >> (n % 24)) - u32::from(fd), dir },
            _ => Self::Move { fd, dir, n },
        }
    }
}

impl Decode for Op {
    fn from_bytes([kind, a, b, c]: [u8; 4]) -> Self {
        let fd = b % FDS;
        match kind % 16 {
            0..=5 => Self::Act(Act::from_bytes([a, b, c])),
            6 => Self::React(Reaction::Do(Act::from_bytes([a, b, c]))),
            7 => Self::React(match a % 4 {
                0 => Reaction::Nothing,
                1 | 2 => Reaction::Move(c),
                _ => Reaction::Unwatch,
            }),
            8 | 9 => Self::Arrive { fd, n: c },
            10 => Self::MakeRoom { fd, n: c },
            11 if a.is_multiple_of(2) => Self::End { fd },
            11 => Self::Break { fd },
            _ => Self::Look,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Opened(u32),
    /// `epoll_ctl` was called.
    Told {
        fd: u32,
        change: Change,
        result: Result<(), Errno>,
    },
    /// A watcher's callback ran.
    Ran {
        party: u32,
        fd: u32,
        dir: Dir,
    },
    /// An operation moved so many bytes and ended.
    Finished {
        party: u32,
        moved: usize,
    },
    /// An operation waits.
    Waits {
        party: u32,
        fd: u32,
        dir: Dir,
    },
    /// Whoever waited for a file that is gone was given back.
    Stale {
        party: u32,
    },
    /// The kernel's set was made anew.
    Renewed,
    /// The loop may sleep.
    Idle,
}

/// Carries out `ops`.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(ops: &[Op]) -> Vec<Event> {
    let mut sim = driver::Sim::default();
    for &op in ops {
        sim.apply(op);
        sim.check();
    }
    sim.finish();
    sim.into_events()
}
