//! Bytes are operations on ready queue, timers and turn under a virtual clock; the invariants are those of the simulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokioloop::sim::Decode;
use tokioloop::sim::turn::{Op, run};

fuzz_target!(|bytes: &[u8]| drop(run(&Op::decode(bytes))));
