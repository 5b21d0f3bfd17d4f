//! Bytes are operations on a datagram transport between its user and a socket; the invariants are those of the simulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokioloop::sim::Decode;
use tokioloop::sim::datagram::{Op, run};

fuzz_target!(|bytes: &[u8]| drop(run(&Op::decode(bytes))));
