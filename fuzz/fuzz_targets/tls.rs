//! Bytes are how two TLS connections with each other are set up, and operations on them; the invariants are those of the
//! simulation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokioloop::sim::tls::{Setup, run};

fuzz_target!(|bytes: &[u8]| {
    let (setup, ops) = Setup::decode(bytes);
    drop(run(setup, &ops));
});
