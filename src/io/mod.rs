//! Tokio, sockets and file descriptors; no Python, no decisions.
//!
//! - [`reactor`]: the Tokio runtime of a loop, parking, the next deadline, the epoll of the user's own fds.
//! - [`source`]: one file descriptor registered with Tokio.
//! - [`endpoint`]: the system calls of a stream and a listener.
//! - [`datagram`]: those of a datagram endpoint, and addresses.
//! - [`wake`]: how another thread, or a source, wakes a parked loop.
//! - [`log`]: what `RUST_LOG` shows.
//! - [`sys`]: the only unsafe code of this layer.

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
pub mod sys;
#[deny(unsafe_code)]
pub mod wake;
