//! What a loop tells of itself: the counters and the table of endpoints as Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::loop_core::LoopCore;
use crate::core::time::Time;
use crate::io::counters::{Counter, Counters, now};

fn endpoint<'py>(py: Python<'py>, counters: &Counters) -> PyResult<Bound<'py, PyDict>> {
    let shown = PyDict::new(py);
    shown.set_item("fd", counters.fd)?;
    shown.set_item("kind", counters.kind.name())?;
    shown.set_item("since", counters.since.secs())?;
    let Counters { messages_in, bytes_in, messages_out, bytes_out, .. } = counters;
    let names = ["messages_in", "bytes_in", "messages_out", "bytes_out"];
    for (name, counter) in names.into_iter().zip([messages_in, bytes_in, messages_out, bytes_out]) {
        shown.set_item(name, Counter::get(counter))?;
    }
    Ok(shown)
}

/// Behind `loop.stats()`.
///
/// # Errors
/// `MemoryError`.
pub fn show<'py>(slf: &Bound<'py, LoopCore>) -> PyResult<Bound<'py, PyDict>> {
    let (py, this) = (slf.py(), slf.get());
    let stats = &this.stats;
    let running = this.turn().is_some();
    let (parked, since) = stats.activity();
    let spent = (now().secs() - since.secs()).max(0.0);
    // Nobody holds these borrows across Python code. Were it so after all, this of all methods is not to fail.
    let queues = this.sched.try_with(py, |sched| {
        let next = sched.timers.next_deadline().map(Time::secs);
        (sched.ready.len(), sched.timers.len(), next)
    });
    let spare = this.pool.try_with(py, |pool| pool.len());
    let watched = this.io.try_with(py, |io| io.interest.watched().collect::<Vec<_>>());
    let shown = PyDict::new(py);
    shown.set_item("running", running)?;
    shown.set_item("thread", this.thread_id.with(py, |id| id.as_ref().map(|id| id.clone_ref(py))))?;
    shown.set_item("parked_for", (running && parked).then_some(spent))?;
    shown.set_item("busy_for", (running && !parked).then_some(spent))?;
    shown.set_item("turns", stats.turns.get())?;
    shown.set_item("looks", stats.looks.get())?;
    shown.set_item("parks", stats.parks.get())?;
    shown.set_item("callbacks", stats.callbacks.get())?;
    shown.set_item("ready", queues.map(|(ready, ..)| ready))?;
    shown.set_item("timers", queues.map(|(_, timers, _)| timers))?;
    shown.set_item("next_deadline", queues.and_then(|(.., next)| next))?;
    shown.set_item("spare_handles", spare)?;
    let endpoints = PyList::empty(py);
    for counters in stats.endpoints.all() {
        endpoints.append(endpoint(py, &counters)?)?;
    }
    for (fd, reader, writer) in watched.into_iter().flatten() {
        let watcher = PyDict::new(py);
        watcher.set_item("fd", fd)?;
        watcher.set_item("kind", "watcher")?;
        watcher.set_item("reader", reader)?;
        watcher.set_item("writer", writer)?;
        endpoints.append(watcher)?;
    }
    shown.set_item("endpoints", endpoints)?;
    Ok(shown)
}
