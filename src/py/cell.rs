//! Interior state of a frozen pyclass, guarded by the GIL. A fence: holds unsafe code.
//!
//! Contract: a borrow wants a [`Python`] token or the visitor of a traversal, which only the thread that holds the GIL
//! has and which cannot be sent to another. So only that thread touches the value, and its flag of borrows, and handing
//! the GIL over orders the accesses of two threads. The value sits in a `RefCell`, so even code that calls Python while
//! it borrows (a bug: the house's rule is that nothing calls Python while it holds state) meets a panic, not a data
//! race.
//!
//! A `Mutex` costs 10 ns per access where this costs 1; `PyRef` costs as much as the mutex.

use std::cell::{Ref, RefCell};
use std::fmt;

use pyo3::{PyVisit, Python};

/// A value that the GIL guards.
#[derive(Default)]
pub struct GilCell<T>(RefCell<T>);

// SAFETY: every access takes a `Python` token or the visitor of a traversal by the garbage collector, and both mean
// that this thread holds the GIL: no two threads are in here at once. `Debug` has neither, and touches nothing. Builds
// without a GIL are not declared as supported, so importing the module there switches the GIL on.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Runs `f` on the value. `f` must not call Python, nor drop an object whose finalizer may be user code.
    #[allow(clippy::inline_always)] // it is a flag and a call; not inlined it costs 40 instructions each time
    #[inline(always)]
    pub fn with<R>(&self, _py: Python<'_>, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }

    /// As [`GilCell::with`]; `None` when the value is borrowed.
    pub fn try_with<R>(&self, _py: Python<'_>, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut value| f(&mut value))
    }

    /// Puts `value` in; gives back what was there, for the caller to drop outside.
    #[inline]
    pub fn replace(&self, _py: Python<'_>, value: T) -> T {
        self.0.replace(value)
    }

    /// The value for a traversal by the garbage collector, which runs with the GIL held but without a token: PyO3 makes
    /// a visitor for nothing else. `None` when it is borrowed: then somebody is in the middle of a change, and what it
    /// holds is alive.
    pub fn traversed<'a>(&'a self, _visit: &'a PyVisit<'_>) -> Option<Ref<'a, T>> {
        self.0.try_borrow().ok()
    }
}

impl<T: Default> GilCell<T> {
    /// Takes the value out.
    #[inline]
    pub fn take(&self, _py: Python<'_>) -> T {
        self.0.take()
    }
}

impl<T> fmt::Debug for GilCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GilCell").finish_non_exhaustive()
    }
}
