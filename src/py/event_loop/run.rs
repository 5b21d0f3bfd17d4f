//! The turn: plan, look or park, queue what the look found, queue due timers, run the snapshot.
//!
//! The order is `core::turn`'s. Python only ever runs outside the Tokio runtime, and the GIL is let go of for each look
//! and park. A signal ends the park, and its Python handler runs right then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::handle::{Handle, run_call};
use super::loop_core::{Entry, Io, LoopCore, Watcher};
use super::patched::{self, Patches};
use super::slots::EndpointRef;
use super::threadsafe::ThreadSafeHandle;
use super::timer::{Place, TimerHandle};
use super::waiter::resolve;
use crate::core::drive::turn::{Host, prepare};
use crate::core::interest::{Dir, Keep};
use crate::core::ready::{Ready, Snapshot};
use crate::core::time::Time;
use crate::core::timers::Timers;
use crate::core::turn::{Wait, plan};
use crate::io::counters::now;
use crate::io::reactor::{Parker, USER_SLOT};
use crate::io::source;
use crate::io::sys::{inode, monotonic_nanos};
use crate::py::errors::{PANIC, contain, io_error, report, report_panic};
use crate::py::ffi::unless_ended;

/// What a look found, for a program that looks itself: fd, whether it is for writing, and a handle.
pub type Event = (i64, bool, Option<Py<PyAny>>);

/// Runs a turn; or turns until the loop is to stop, where `run_forever` of ours calls and nobody replaced `_run_once`.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of a callback or a signal handler; what is left of the turn stays queued.
pub fn run(slf: &Bound<'_, LoopCore>) -> PyResult<()> {
    let (py, this) = (slf.py(), slf.get());
    let parker = parker_of(slf)?;
    let outer = this.turn();
    if outer.is_none() {
        this.stats.run_begins(slf.as_ptr().addr());
    }
    let mut patched = this.patches.look(slf)?;
    let many = outer.is_none() && this.patches.many.load(Ordering::Relaxed);
    let result = loop {
        let result = unless_ended(|| turn(slf, &parker, patched));
        if !many || result.is_err() || this.is_stopping() {
            break result;
        }
        patched = match this.patches.look(slf) {
            Ok(patched) => patched,
            Err(error) => break Err(error),
        };
        if this.patches.has(Patches::RUN_ONCE) {
            // `run_forever` goes on by the one in its place.
            break Ok(());
        }
    };
    this.end_turns(outer);
    if outer.is_none() {
        this.stats.run_ended();
        // The garbage collector is to see what stays queued.
        this.sched.with(py, |sched| {
            for entry in sched.ready.iter() {
                if let Entry::Handle(handle) = entry {
                    Handle::show_collector(handle.bind(py));
                }
            }
        });
    }
    result
}

fn parker_of(slf: &Bound<'_, LoopCore>) -> PyResult<Arc<Parker>> {
    slf.get().check_open()?;
    let parker = slf.get().io.with(slf.py(), |io| io.reactor.as_ref().map(|reactor| Arc::clone(reactor.parker())));
    parker.ok_or_else(|| PyRuntimeError::new_err("Event loop is closed"))
}

fn turn(slf: &Bound<'_, LoopCore>, parker: &Arc<Parker>, patched: bool) -> PyResult<()> {
    slf.get().begin_turn();
    slf.get().coalesce.turn(slf, || {
        let snapshot = if patched { prepare_patched(slf, parker)? } else { prepare(&mut (slf, parker))? };
        run_snapshot(slf, snapshot)
    })
}

impl Host for (&Bound<'_, LoopCore>, &Arc<Parker>) {
    type Error = PyErr;
    type Entry = Entry;
    type Timer = Py<TimerHandle>;

    #[inline]
    fn scheduled<R>(&mut self, f: impl FnOnce(&mut Ready<Entry>, &mut Timers<Py<TimerHandle>>) -> R) -> R {
        self.0.get().sched.with(self.0.py(), |sched| f(&mut sched.ready, &mut sched.timers))
    }

    #[inline]
    fn is_pressed(&mut self) -> bool {
        let this = self.0.get();
        this.is_stopping() || this.io.with(self.0.py(), |io| io.interest.io_pending())
    }

    #[inline]
    fn clock(&mut self) -> PyResult<Time> {
        LoopCore::clock(self.0)
    }

    #[inline]
    fn look(&mut self, wait: Wait, moment: Time) -> PyResult<()> {
        look_and_queue(self.0, self.1, wait, moment)
    }

    #[inline]
    fn entry(timer: Py<TimerHandle>) -> Entry {
        Entry::Timer(timer)
    }
}

/// As [`prepare`], where programs have a part of the loop in their hands: step by step what asyncio's `_run_once` does.
#[cold]
fn prepare_patched(slf: &Bound<'_, LoopCore>, parker: &Arc<Parker>) -> PyResult<Snapshot> {
    /// Asyncio waits no longer: `MAXIMUM_SELECT_TIMEOUT`.
    const LONGEST: f64 = 24.0 * 3600.0;
    let (py, this) = (slf.py(), slf.get());
    LoopCore::take_back(slf)?;
    let deadline = LoopCore::next_deadline(slf)?;
    let by_selector = this.patches.has(Patches::SELECT);
    let pending = !by_selector && this.io.with(py, |io| io.interest.io_pending());
    let busy = this.ready_len(py)? > 0 || this.is_stopping() || pending;
    let before = if busy || deadline.is_none() { Time::PAST } else { LoopCore::clock(slf)? };
    let wait = plan(busy, deadline.filter(|_| !busy), before);
    if by_selector {
        let timeout = match wait {
            Wait::Poll => Some(0.0),
            Wait::Park(deadline) => deadline.map(|at| (at.secs() - before.secs()).clamp(0.0, LONGEST)),
        };
        let found = slf.getattr(intern!(py, "_selector"))?.call_method1(intern!(py, "select"), (timeout,))?;
        slf.call_method1(intern!(py, "_process_events"), (found,))?;
    } else {
        look_and_queue(slf, parker, wait, before)?;
    }
    LoopCore::queue_due(slf)?;
    this.begin_snapshot(py)
}

/// Looks at I/O, or waits for it, for who calls `_selector.select`: what was found is theirs to queue. One without a
/// handle where something else ended the waiting.
///
/// Raises `RuntimeError` when the loop is closed, and what a signal handler raises: what was found is queued then.
#[pyfunction]
#[pyo3(signature = (owner, timeout = None))]
pub fn look(owner: &Bound<'_, LoopCore>, timeout: Option<f64>) -> PyResult<Vec<Event>> {
    let (py, this) = (owner.py(), owner.get());
    let parker = parker_of(owner)?;
    this.coalesce.leave_early(owner)?;
    let ready = this.ready_len(py)?;
    let moment = now();
    let deadline = timeout.map(|timeout| Time::from_secs(moment.secs() + timeout));
    // The caller worked out how long to wait while nothing was ready: another thread has scheduled since.
    let busy = ready > 0 || this.io.with(py, |io| io.interest.io_pending());
    let waits = timeout.is_none_or(|timeout| timeout > 0.0);
    wait_for_io(owner, &parker, if waits { plan(busy, deadline, moment) } else { Wait::Poll }, moment)?;
    let mut found = Vec::new();
    let collected = collect(owner, &parker, |entry, fd, write| found.push((entry, fd, write)));
    if let Err(error) = collected.and_then(|()| py.check_signals()) {
        for (entry, ..) in found {
            LoopCore::push(owner, entry);
        }
        return Err(error);
    }
    let mut events = Vec::with_capacity(found.len());
    for (entry, fd, write) in found {
        events.push((i64::from(fd), write, entry.into_object(owner)?));
    }
    // As asyncio finds a byte in its socket pair.
    if waits && this.ready_len(py)? > 0 {
        events.push((-1, false, None));
    }
    Ok(events)
}

/// Kept out of `turn`, which is then inlined where the turns are run: 40 instructions less for each.
#[inline(never)]
fn look_and_queue(slf: &Bound<'_, LoopCore>, parker: &Arc<Parker>, wait: Wait, moment: Time) -> PyResult<()> {
    let (py, this) = (slf.py(), slf.get());
    wait_for_io(slf, parker, wait, moment)?;
    if this.patches.has(Patches::QUEUE) {
        let mut found = Vec::new();
        let collected = collect(slf, parker, |entry, _, _| found.push(entry));
        for entry in found {
            LoopCore::push(slf, entry);
        }
        collected?;
    } else {
        collect(slf, parker, |entry, _, _| this.sched.with(py, |sched| sched.ready.push(entry)))?;
    }
    py.check_signals()
}

/// Waits as planned; what is ready by then is known to the reactor.
#[inline]
fn wait_for_io(slf: &Bound<'_, LoopCore>, parker: &Arc<Parker>, wait: Wait, moment: Time) -> PyResult<()> {
    let (py, this) = (slf.py(), slf.get());
    if let Wait::Park(deadline) = wait {
        if let Some(deadline) = deadline {
            this.io
                .with(py, |io| match &mut io.reactor {
                    Some(reactor) => {
                        // The kernel's clock, whatever the loop's is.
                        let real = monotonic_nanos();
                        let wait = nanos(Time::from_secs((deadline.secs() - moment.secs()).max(0.0)));
                        reactor.set_deadline(real.saturating_add(wait), real)
                    }
                    None => Ok(()),
                })
                .map_err(|error| io_error(py, &error))?;
        }
        parker.shared.park_begins();
        this.stats.park_begins();
        let parked = py.detach(|| {
            let parked = catch_unwind(AssertUnwindSafe(|| parker.park()));
            this.stats.park_ended();
            parked
        });
        parker.shared.park_ended();
        parked.map_err(|_| PyRuntimeError::new_err(PANIC))?;
    } else {
        this.stats.looks();
        // Without the GIL, as each look of asyncio's: it is then that other threads get on beside a busy loop.
        py.detach(|| catch_unwind(AssertUnwindSafe(|| parker.look()))).map_err(|_| PyRuntimeError::new_err(PANIC))?;
    }
    Ok(())
}

/// A deadline in whole nanoseconds, rounded up: never early.
fn nanos(time: Time) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the cast saturates
    let nanos = (time.secs() * 1e9).ceil() as u64;
    nanos
}

/// Queues what became ready: endpoints in the kernel's order, then the user's fds, each with its fd and whether it is
/// for writing. `queue` is called within a borrow.
#[inline]
fn collect(slf: &Bound<'_, LoopCore>, parker: &Arc<Parker>, mut queue: impl FnMut(Entry, u32, bool)) -> PyResult<()> {
    let (py, this) = (slf.py(), slf.get());
    let (woken, stale, error) = this.io.with(py, |io| {
        let Io { reactor, interest, owners, tokens, events, slots, .. } = io;
        parker.shared.take_ready(tokens);
        for token in tokens.drain(..) {
            let (slot, write) = source::slot(token);
            if slot == USER_SLOT {
                interest.handle_edge();
            } else {
                queue(Entry::Io(token), slots.at(slot).map_or(0, |endpoint| endpoint.fd), write);
            }
        }
        let (mut woken, mut stale) = (Vec::new(), Vec::new());
        let Some(reactor) = reactor.as_mut().filter(|_| interest.io_pending()) else { return (woken, stale, None) };
        let again = reactor.clear_user();
        interest.begin_look();
        events.clear();
        let mut error = None;
        match reactor.look_user(events) {
            Ok(full) if full || again => interest.handle_full(),
            Ok(_) => {}
            Err(failed) => error = Some(failed),
        }
        for event in events.drain(..) {
            let fired = interest.handle_event(event.fd, event.generation, event.read, event.write);
            for (fires, dir) in [(fired.reader, Dir::Read), (fired.writer, Dir::Write)] {
                if fires && let Some(Watcher::Handle(handle)) = interest.watcher(event.fd, dir) {
                    queue(Entry::Watch(handle.clone_ref(py)), event.fd, dir == Dir::Write);
                }
            }
            woken.extend(fired.woken);
            if fired.doubtful && !owners.is_same_file(event.fd, inode(event.fd)) {
                stale.extend(interest.handle_closed(event.fd));
            }
            let (settled, gone) = reactor.settle(interest, event.fd, fired.change, Keep::Nobody);
            error = settled.err().or(error);
            stale.extend(gone);
        }
        error = reactor.renew_user(interest).err().or(error);
        (woken, stale, error)
    });
    let mut result = contain(slf, Watcher::end_stale(stale, py));
    for watcher in woken {
        if let Watcher::Future(future) = watcher {
            result = result.and(contain(slf, resolve(future.bind(py), None)));
        }
    }
    result.and(match error {
        Some(error) => report(slf, "Looking at file descriptors failed", Some(&io_error(py, &error)), &[]),
        None => Ok(()),
    })
}

fn run_snapshot(slf: &Bound<'_, LoopCore>, snapshot: Snapshot) -> PyResult<()> {
    let (py, this) = (slf.py(), slf.get());
    loop {
        let entry = if this.patches.has(Patches::QUEUE) {
            this.pop_lent(py, snapshot)?
        } else {
            this.sched.with(py, |sched| sched.ready.pop(snapshot))
        };
        let Some(entry) = entry else { return Ok(()) };
        this.stats.callbacks.add(1);
        let foreign = this.patches.has(Patches::RUN) || matches!(entry, Entry::Foreign(_));
        let result = if this.is_debug() { run_timed(slf, &entry) } else { run_entry(slf, &entry) };
        if let Entry::Handle(handle) = entry {
            Handle::recycle(slf, handle);
        }
        // What is not the loop's own may end its run, as in asyncio.
        if foreign { result? } else { contain(slf, result)? }
    }
}

/// Runs one entry. A panic of ours ends here: it is reported, and the connection it happened on is closed.
#[inline]
fn run_entry(slf: &Bound<'_, LoopCore>, entry: &Entry) -> PyResult<()> {
    match catch_unwind(AssertUnwindSafe(|| dispatch(slf, entry))) {
        Ok(result) => result,
        Err(payload) => match endpoint(slf, entry) {
            Some(EndpointRef { object, ops, .. }) => (ops.panicked)(object.bind(slf.py()), payload.as_ref()),
            None => report_panic(slf, payload.as_ref()),
        },
    }
}

/// The endpoint that an entry is for.
fn endpoint(slf: &Bound<'_, LoopCore>, entry: &Entry) -> Option<EndpointRef> {
    let py = slf.py();
    match entry {
        Entry::Io(token) => registered(slf, *token),
        Entry::Life(_, endpoint) => Some(endpoint.clone_ref(py)),
        Entry::Handle(_) | Entry::Shared(_) | Entry::Watch(_) | Entry::Timer(_) | Entry::Foreign(_) => None,
    }
}

fn registered(slf: &Bound<'_, LoopCore>, token: u32) -> Option<EndpointRef> {
    let py = slf.py();
    slf.get().io.with(py, |io| io.slots.at(source::slot(token).0).map(|endpoint| endpoint.clone_ref(py)))
}

#[inline]
fn dispatch(slf: &Bound<'_, LoopCore>, entry: &Entry) -> PyResult<()> {
    let py = slf.py();
    if slf.get().patches.has(Patches::RUN) {
        return run_as_asyncio(slf, entry);
    }
    match entry {
        Entry::Handle(handle) => run_call(slf, handle.bind(py), &handle.get().body, true),
        Entry::Shared(handle) => run_shared(slf, handle.bind(py)),
        Entry::Foreign(handle) => run_foreign(handle.bind(py)),
        Entry::Watch(handle) => run_call(slf, handle.bind(py), &handle.get().body, false),
        Entry::Timer(handle) => {
            handle.get().set_place(py, Place::Nowhere);
            run_call(slf, handle.bind(py), &handle.get().body, true)
        }
        Entry::Io(token) => match registered(slf, *token) {
            Some(EndpointRef { object, ops, .. }) => (ops.handle_io)(object.bind(py), source::slot(*token).1),
            None => Ok(()),
        },
        Entry::Life(life, endpoint) => (endpoint.ops.handle_life)(endpoint.object.bind(py), *life),
    }
}

/// Runs an entry by the `_run` that a program put in the place of asyncio's. What that raises is not caught, as in
/// asyncio.
#[cold]
fn run_as_asyncio(slf: &Bound<'_, LoopCore>, entry: &Entry) -> PyResult<()> {
    let py = slf.py();
    let Some(handle) = entry.clone_ref(py).into_object(slf)? else { return Ok(()) };
    let handle = handle.bind(py);
    if handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
        return Ok(());
    }
    match entry {
        Entry::Foreign(_) => handle.call_method0(intern!(py, "_run")).map(drop),
        Entry::Shared(shared) => {
            let running = shared.get().begin(py);
            let result = patched::run_patched(handle);
            drop(running);
            drop(shared.get().body.take(py));
            result
        }
        Entry::Timer(timer) => {
            timer.get().set_place(py, Place::Nowhere);
            let result = patched::run_patched(handle);
            drop(timer.get().body.take(py));
            result
        }
        Entry::Handle(once) => {
            let result = patched::run_patched(handle);
            drop(once.get().body.take(py));
            result
        }
        _ => patched::run_patched(handle),
    }
}

/// Runs a handle that is none of ours, as asyncio does: it reports what its callback raises itself.
#[cold]
fn run_foreign(handle: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = handle.py();
    if handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
        return Ok(());
    }
    handle.call_method0(intern!(py, "_run")).map(drop)
}

/// As `run_call`, for a handle that other threads may cancel meanwhile: one that is cancelled may still have its
/// callback.
#[inline(never)]
fn run_shared(slf: &Bound<'_, LoopCore>, handle: &Bound<'_, ThreadSafeHandle>) -> PyResult<()> {
    let this = handle.get();
    if this.body.is_cancelled() {
        return Ok(());
    }
    let running = this.begin(slf.py());
    let result = run_call(slf, handle, &this.body, true);
    drop(running);
    result
}

/// Debug mode: the loop knows its current handle, and slow callbacks are reported.
#[cold]
fn run_timed(slf: &Bound<'_, LoopCore>, entry: &Entry) -> PyResult<()> {
    let py = slf.py();
    let (what, body) = match entry {
        Entry::Handle(handle) | Entry::Watch(handle) => (handle.bind(py).clone().into_any(), Some(&handle.get().body)),
        Entry::Shared(handle) => (handle.bind(py).clone().into_any(), Some(&handle.get().body)),
        Entry::Foreign(handle) => (handle.bind(py).clone(), None),
        Entry::Timer(handle) => (handle.bind(py).clone().into_any(), Some(&handle.get().body)),
        Entry::Io(_) | Entry::Life(..) => match endpoint(slf, entry) {
            Some(EndpointRef { object, .. }) => (object.into_bound(py), None),
            None => return Ok(()),
        },
    };
    let call = body.and_then(|body| body.peek(py));
    if body.is_some() && call.is_none() {
        return Ok(());
    }
    let is_handle = body.is_some() || matches!(entry, Entry::Foreign(_));
    slf.setattr(intern!(py, "_current_handle"), if is_handle { what.clone() } else { py.None().into_bound(py) })?;
    let begun = now();
    let result = run_entry(slf, entry);
    let took = now().secs() - begun.secs();
    slf.setattr(intern!(py, "_current_handle"), py.None())?;
    result?;
    if took >= slf.getattr(intern!(py, "slow_callback_duration"))?.extract::<f64>()? {
        if let (Some(body), Some(call)) = (body, call) {
            // The report shows the callback, which a one-shot handle has let go of.
            let gone = body.peek(py).is_none() && !body.is_cancelled();
            if gone {
                body.restore(py, call);
            }
            let reported = slf.call_method1(intern!(py, "_report_slow"), (&what, took));
            if gone {
                drop(body.take(py));
            }
            return reported.map(drop);
        }
        return slf.call_method1(intern!(py, "_report_slow"), (what, took)).map(drop);
    }
    Ok(())
}

/// `run_forever` of ours begins or ends: the hook it calls may run many turns.
#[pyfunction]
pub fn expect_turns(owner: &Bound<'_, LoopCore>, many: bool) {
    owner.get().patches.many.store(many, Ordering::Relaxed);
}

/// Whether looking at I/O goes by `_selector.select`.
#[pyfunction]
pub fn look_by_selector(owner: &Bound<'_, LoopCore>, on: bool) {
    owner.get().patches.set(Patches::SELECT, on);
}
