//! The rules of an event loop as state machines. No clock, socket, lock, thread or Python: time is an argument, an
//! event is a method call, and what to do next is a returned step.

pub mod accept;
pub mod datagram;
pub mod fault;
pub mod flow;
pub mod interest;
pub mod outbox;
pub mod ready;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sockop;
pub mod stream;
pub mod time;
pub mod timers;
pub mod turn;
