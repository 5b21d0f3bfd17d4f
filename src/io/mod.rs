//! Tokio, sockets and file descriptors; no Python, no decisions.
//!
//! - [`reactor`]: the Tokio runtime of a loop, parking, the next deadline, the epoll of the user's own fds.
//! - [`source`]: one file descriptor registered with Tokio.
//! - [`endpoint`]: the system calls of a stream and a listener.
//! - [`datagram`]: those of a datagram endpoint, and addresses.
//! - [`wake`]: how another thread, or a source, wakes a parked loop.
//! - [`log`]: what `RUST_LOG` shows.
//! - [`counters`]: what loops count, and their live endpoints, for any thread to read.
//! - [`watchdog`], [`stacks`]: the thread that reports a loop which is busy for long, and how it gets at the stacks.
//! - [`sys`]: system calls. The unsafe code of this layer is there and in [`stacks`].

#[deny(unsafe_code)]
pub mod counters;
#[deny(unsafe_code)]
pub mod datagram;
#[deny(unsafe_code)]
pub mod endpoint;
#[deny(unsafe_code)]
pub mod log;
#[deny(unsafe_code)]
pub mod reactor;
#[deny(unsafe_code)]
pub mod source;
pub mod stacks;
pub mod sys;
#[deny(unsafe_code)]
pub mod wake;
#[deny(unsafe_code)]
pub mod watchdog;
