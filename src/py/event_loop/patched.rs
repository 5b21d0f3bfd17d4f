//! What programs put in the place of a loop's own: a clock, a turn, a selector, the way that handles are run.
//!
//! Time-warping plugins replace `loop.time` and `loop._selector.select`, `nest_asyncio` replaces `TokioLoop._run_once`,
//! aiodebug `asyncio.events.Handle._run`; `tokioloop/insides.py` says who needs what. asyncio looks these names up each
//! time. Here a turn compares two numbers: CPython gives each class a version (`tp_version_tag`), which is another one
//! once an attribute of the class, or of one that it inherits from, was set. What is set on the loop itself goes by
//! `__setattr__`. Only then are the names looked up, and the turn goes the slow way as long as one of them is not ours.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyString, PyType};

use crate::py::ffi;

/// A version that no class has, so that the next comparison finds a difference.
const UNKNOWN: u32 = u32::MAX;

/// Which parts of a loop are not its own any more.
#[derive(Debug)]
pub struct Patches {
    flags: AtomicU32,
    /// The versions of the loop's class and of asyncio's handles when they were looked at.
    loop_version: AtomicU32,
    handle_version: AtomicU32,
    /// `run_forever` of ours waits for the loop to stop: see `run`.
    pub many: AtomicBool,
}

impl Default for Patches {
    fn default() -> Self {
        Self {
            flags: AtomicU32::new(0),
            loop_version: AtomicU32::new(UNKNOWN),
            handle_version: AtomicU32::new(UNKNOWN),
            many: AtomicBool::new(false),
        }
    }
}

impl Patches {
    /// A program has `_ready`: see `lent`.
    pub const QUEUE: u32 = 1;
    /// A program has `_scheduled`.
    pub const TIMERS: u32 = 1 << 1;
    /// `_selector`, or its `select`, is somebody else's.
    pub const SELECT: u32 = 1 << 2;
    /// `time` is somebody else's.
    pub const CLOCK: u32 = 1 << 3;
    /// `asyncio.events.Handle._run` is not CPython's.
    pub const RUN: u32 = 1 << 4;
    /// `_run_once` is somebody else's.
    pub const RUN_ONCE: u32 = 1 << 5;

    #[inline]
    pub fn has(&self, what: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & what != 0
    }

    pub fn set(&self, what: u32, on: bool) {
        // The GIL guards it.
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(if on { flags | what } else { flags & !what }, Ordering::Relaxed);
    }

    /// Whether anything is not the loop's own, as far as classes and `__setattr__` tell.
    ///
    /// # Errors
    /// What looking the names up raises.
    #[inline]
    pub fn look(&self, slf: &Bound<'_, PyAny>) -> PyResult<bool> {
        let seen = (self.loop_version.load(Ordering::Relaxed), self.handle_version.load(Ordering::Relaxed));
        if seen != (ffi::version_of_class(slf), ffi::version_of(timer_class(slf.py())?)) {
            self.examine(slf)?;
        }
        Ok(self.flags.load(Ordering::Relaxed) != 0)
    }

    /// An attribute of the loop was set or deleted.
    pub fn notice(&self, name: &Bound<'_, PyString>) {
        let py = name.py();
        // CPython interns the names of attributes that it sets.
        if name.is(intern!(py, "time")) || name.is(intern!(py, "_run_once")) {
            self.loop_version.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    #[cold]
    fn examine(&self, slf: &Bound<'_, PyAny>) -> PyResult<()> {
        let timers = timer_class(slf.py())?;
        self.set(Self::CLOCK, !is_own(slf, intern!(slf.py(), "time"))?);
        self.set(Self::RUN_ONCE, !is_own(slf, intern!(slf.py(), "_run_once"))?);
        self.set(Self::RUN, !is_cpythons(&timers.getattr(intern!(slf.py(), "_run"))?)?);
        // Looking up gave them versions. A class that CPython has none left for is looked at each time.
        let known = |version| if version == 0 { UNKNOWN } else { version };
        self.loop_version.store(known(ffi::version_of_class(slf)), Ordering::Relaxed);
        self.handle_version.store(known(ffi::version_of(timers)), Ordering::Relaxed);
        Ok(())
    }
}

/// Looks up what is asked for later, when the interpreter may be ending and imports nothing any more.
///
/// # Errors
/// What importing asyncio raises.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    timer_class(py)?;
    own_extra_info(py)?;
    events_file(py).map(drop)
}

/// What a replaced `asyncio.Transport.get_extra_info` says (a mock, in tests); `None` where it is asyncio's own. Our
/// transports do not inherit from that class, so they ask.
///
/// # Errors
/// What that one raises.
pub fn extra_info<'py>(
    transport: &Bound<'py, PyAny>,
    name: &Bound<'py, PyAny>,
    default: Option<&Py<PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static SEEN: AtomicU32 = AtomicU32::new(UNKNOWN);
    let py = transport.py();
    let class = transport_class(py)?;
    if ffi::version_of(class) == SEEN.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let found = class.getattr(intern!(py, "get_extra_info"))?;
    if found.is(own_extra_info(py)?) {
        // Looking up gave the class a version, if CPython has one left.
        let version = ffi::version_of(class);
        SEEN.store(if version == 0 { UNKNOWN } else { version }, Ordering::Relaxed);
        return Ok(None);
    }
    // As if it were found on the transport's class: a function is bound, a mock is called as it is.
    let method = match found.get_type().getattr_opt(intern!(py, "__get__"))? {
        Some(bind) => bind.call1((&found, transport, class))?,
        None => found,
    };
    match default {
        None => method.call1((name,)),
        Some(default) => method.call1((name, default)),
    }
    .map(Some)
}

fn transport_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "asyncio.transports", "Transport")
}

fn own_extra_info(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static OWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let own =
        OWN.get_or_try_init(py, || transport_class(py)?.getattr(intern!(py, "get_extra_info")).map(Bound::unbind))?;
    Ok(own.bind(py))
}

/// `asyncio.TimerHandle`, which inherits from `asyncio.Handle`: its version is another one once either was changed.
fn timer_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "asyncio.events", "TimerHandle")
}

/// Whether the method that the loop has by this name is the one of the extension.
fn is_own(slf: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    let py = slf.py();
    let method = slf.getattr(name)?;
    Ok(method.is_exact_instance_of::<PyCFunction>()
        && method.getattr(intern!(py, "__self__"))?.is(slf)
        && method.getattr(intern!(py, "__name__"))?.eq(name)?)
}

/// The name of the file `asyncio/events.py`.
fn events_file(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FILE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FILE.import(py, "asyncio.events", "__file__")
}

/// Whether a function is written in `asyncio/events.py`. A patch may have been there first, so none is remembered; one
/// that passes for the original (`functools.wraps`) still has code of its own.
fn is_cpythons(function: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = function.py();
    let Some(code) = function.getattr_opt(intern!(py, "__code__"))? else { return Ok(false) };
    code.getattr(intern!(py, "co_filename"))?.eq(events_file(py)?)
}

/// Runs a handle of ours by the `_run` that somebody put in the place of asyncio's.
///
/// # Errors
/// What that raises; asyncio does not catch it either.
pub fn run_patched(handle: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = handle.py();
    timer_class(py)?.getattr(intern!(py, "_run"))?.call1((handle,)).map(drop)
}
