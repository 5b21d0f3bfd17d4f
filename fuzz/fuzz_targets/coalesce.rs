//! Bytes are operations on a loop that coalesces; the invariants are those of the simulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokioloop::sim::Decode;
use tokioloop::sim::coalesce::{Op, run};

fuzz_target!(|bytes: &[u8]| drop(run(&Op::decode(bytes))));
