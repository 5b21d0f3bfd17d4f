//! Bytes are operations on a transport of one end of a pipe; the invariants are those of the stream's simulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokioloop::sim::Decode;
use tokioloop::sim::stream::{Op, run_as};
use tokioloop::core::stream::Policy;

fuzz_target!(|bytes: &[u8]| {
    let ops = Op::decode(bytes);
    for policy in [Policy::READ_PIPE, Policy::WRITE_PIPE, Policy::WRITE_DEVICE] {
        drop(run_as(policy, &ops));
    }
});
