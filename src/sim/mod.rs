//! The world in which the machines of `core` are tested: operations, a simulated kernel, a virtual clock, invariants.
//!
//! One simulation per machine: [`stream`] (a transport between its user and a [`link`]), [`datagram`] (another between its
//! user and a socket of datagrams), [`tls`] (two TLS connections with each other), [`interest`] (the table of user fds over
//! a [`kernel`] that behaves as `epoll(7)`), [`turn`] (ready queue, timers and turn under a virtual clock), [`accept`] (a
//! listener and its backlog) and [`coalesce`] (turns, threads and forks of a loop that coalesces).
//! Each has an `Op`, decoded from bytes, and a `run(&[Op])` that carries the operations out, asserts the invariants after
//! each of them and returns what happened as a list of `Event`s. The properties of `spec/`, the transcripts and the fuzz
//! targets all end there: a crash found by the fuzzer is a corpus file here and a property there.
//!
//! A driver does what the layers above `core` do, with a model beside it that is as plain as can be (a sorted list, a
//! counter) and is compared with the machine. User code is scripted: operations queue *reactions*, which callbacks take
//! in turn, so that re-entrant calls are part of every run.
//!
//! Decoding is total, four bytes an operation: any bytes are operations, and cutting four bytes out is cutting an
//! operation out, which is what a fuzzer and a shrinker like to do.

use std::fmt::Debug;

pub mod accept;
pub mod coalesce;
pub mod datagram;
pub mod interest;
pub mod kernel;
pub mod link;
pub mod source;
pub mod stream;
pub mod tls;
pub mod turn;

/// Bytes per operation.
pub const OP_BYTES: usize = 4;

/// Operations per run at most: keeps a fuzzer's runs short.
pub const OPS_MAX: usize = 4096;

/// An operation that any four bytes mean.
pub trait Decode: Sized {
    /// The operation of these bytes.
    fn from_bytes(bytes: [u8; OP_BYTES]) -> Self;

    /// The operations of `bytes`, the last one filled up with zeros, the first [`OPS_MAX`] of them.
    #[must_use]
    fn decode(bytes: &[u8]) -> Vec<Self> {
        let op = |chunk: &[u8]| {
            let mut bytes = [0; OP_BYTES];
            bytes[..chunk.len()].copy_from_slice(chunk);
            Self::from_bytes(bytes)
        };
        bytes.chunks(OP_BYTES).take(OPS_MAX).map(op).collect()
    }
}

/// The events of a run, one a line.
pub fn transcript<E: Debug>(events: impl IntoIterator<Item = E>) -> String {
    events.into_iter().fold(String::new(), |text, event| text + &format!("{event:?}\n"))
}

/// The `index`-th byte of every simulated byte stream: neighbours differ, and so do positions a power of two apart, so
/// that a lost, repeated or moved byte is noticed.
#[must_use]
pub fn pattern(index: u64) -> u8 {
    let [low, high, higher, ..] = index.to_le_bytes();
    low.wrapping_mul(31) ^ high.wrapping_mul(17) ^ higher
}

/// `len` bytes of the [`pattern`] from `start` on.
#[must_use]
pub fn patterned(start: u64, len: usize) -> Vec<u8> {
    (start..).take(len).map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Raw([u8; OP_BYTES]);

    impl Decode for Raw {
        fn from_bytes(bytes: [u8; OP_BYTES]) -> Self {
            Self(bytes)
        }
    }

    #[test]
    fn any_bytes_are_operations() {
        assert_eq!(Raw::decode(&[]), []);
        assert_eq!(Raw::decode(&[1, 2, 3, 4, 5]), [Raw([1, 2, 3, 4]), Raw([5, 0, 0, 0])]);
        assert_eq!(Raw::decode(&vec![7; 3 * OP_BYTES * OPS_MAX]).len(), OPS_MAX);
    }

    #[test]
    fn the_pattern_tells_near_and_round_distances_apart() {
        for distance in [1, 2, 255, 256, 4096, 65_536] {
            assert!((0..4).any(|index| pattern(index) != pattern(index + distance)), "{distance}");
        }
    }
}
