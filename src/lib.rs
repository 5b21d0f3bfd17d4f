//! tokioloop: an asyncio event loop for CPython on Tokio.
//!
//! Three of its four layers, each a module, each allowed to know only the ones before it (Cargo features enforce it); the
//! fourth is in Python:
//!
//! - [`core`]: the rules of an event loop as state machines. Std only; no clock, no socket, no lock, no unsafe.
//! - `io`: Tokio, sockets and file descriptors. No Python.
//! - `py`: CPython. Thin: it carries out what `core` decides, and decides nothing itself.
//!
//! Beside them is `sim`, the simulated world in which `core` is tested (feature `sim`): it may know `core` only.

#[forbid(unsafe_code)]
pub mod core;
#[cfg(feature = "io")]
pub mod io;
#[cfg(feature = "py")]
mod py;
#[cfg(feature = "sim")]
#[forbid(unsafe_code)]
pub mod sim;

// By itself in its model: Tokio does not build with loom's cfg.
#[cfg(all(test, loom))]
#[allow(dead_code)]
#[path = "io/wake.rs"]
mod wake;
