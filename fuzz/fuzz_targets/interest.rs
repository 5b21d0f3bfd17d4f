//! Bytes are operations on the table of user fds over a simulated epoll; the invariants are those of the simulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokioloop::sim::Decode;
use tokioloop::sim::interest::{Op, run};

fuzz_target!(|bytes: &[u8]| drop(run(&Op::decode(bytes))));
