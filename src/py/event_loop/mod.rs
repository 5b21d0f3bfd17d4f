//! The loop: what it is made of, what it runs, what it waits for. It knows no class of transport.
//!
//! [`loop_core`] has its parts and what all of them ask of it, [`schedule`] how callbacks get into its queue, [`run`]
//! the turn.

pub mod coalesce;
pub mod handle;
pub mod lent;
pub mod loop_core;
pub mod patched;
pub mod run;
pub mod schedule;
pub mod slots;
pub mod stats;
pub mod threadsafe;
pub mod timer;
pub mod waiter;
pub mod watch;
