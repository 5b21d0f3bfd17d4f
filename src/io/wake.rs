//! Waking a parked loop, and the list of sources that became ready.
//!
//! Contract: [`Shared::park_begins`] is called by the loop's thread while it still keeps other Python threads out (it
//! holds the GIL). A thread that then hands work to the loop holds the GIL, too, and calls [`Shared::wake`], which does
//! nothing unless the loop is parked or about to be. So the GIL orders `parked`.
//!
//! A wake-up is never lost. A waker sets `woken`, then has Tokio poll the parked future again. If that poll is the
//! future's first, it finds `woken`: Tokio's own flag, which it took to make the poll, was set behind it. If it comes
//! later, the future is done. `model` tries it in each order that there is.

#[cfg(all(test, loom))]
#[path = "wake/model.rs"]
mod model;

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
#[cfg(not(all(test, loom)))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(all(test, loom))]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

/// What the loop's thread shares with wakers.
#[derive(Debug)]
pub struct Shared {
    /// Tokens of the sources that became ready, in the order in which the kernel reported them.
    ready: Mutex<Vec<u32>>,
    /// The waker of the runtime's `block_on`: one for all of its calls. It keeps the runtime's handle alive, which keeps
    /// this alive (through its unpark hook): [`Shared::forget_root`] parts them.
    root: Mutex<Option<Waker>>,
    rooted: AtomicBool,
    parked: AtomicBool,
    woken: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            ready: Mutex::default(),
            root: Mutex::default(),
            rooted: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// The loop is about to park: from now on [`Shared::wake`] counts.
    pub fn park_begins(&self) {
        self.woken.store(false, Ordering::Relaxed);
        self.parked.store(true, Ordering::Relaxed);
    }

    /// The loop runs again.
    pub fn park_ended(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Ends the park, if there is one. From any thread.
    pub fn wake(&self) {
        if self.parked.load(Ordering::Relaxed) && !self.woken.swap(true, Ordering::AcqRel) {
            self.wake_root();
        }
    }

    /// Has the parked future polled again; the thread that parks calls this on every unpark.
    pub fn wake_root(&self) {
        if let Some(waker) = lock(&self.root).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The runtime ends: lets go of its handle, and with it of the runtime's fds.
    pub fn forget_root(&self) {
        let waker = lock(&self.root).take();
        // Dropped outside the lock: the runtime's last breath may call the hook.
        drop(waker);
    }

    /// A source became ready.
    pub fn push(&self, token: u32) {
        lock(&self.ready).push(token);
    }

    /// Swaps the list of ready sources for `empty`.
    pub fn take_ready(&self, empty: &mut Vec<u32>) {
        std::mem::swap(&mut *lock(&self.ready), empty);
    }

    /// A future that is done when the runtime was parked once, or at once if somebody woke the loop before.
    pub fn park_once(&self) -> ParkOnce<'_> {
        ParkOnce { shared: self, parked: false }
    }
}

/// See [`Shared::park_once`].
#[derive(Debug)]
pub struct ParkOnce<'a> {
    shared: &'a Shared,
    parked: bool,
}

impl Future for ParkOnce<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.parked {
            return Poll::Ready(());
        }
        self.parked = true;
        if !self.shared.rooted.load(Ordering::Relaxed) {
            *lock(&self.shared.root) = Some(cx.waker().clone());
            self.shared.rooted.store(true, Ordering::Relaxed);
        }
        if self.shared.woken.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// A future that is done when the runtime has looked at I/O once, without waiting. It wakes itself, so the runtime
/// polls its driver with a time-out of zero; Tokio's `yield_now` does the same with an allocation.
#[derive(Debug, Default)]
pub struct LookOnce {
    looked: bool,
}

impl Future for LookOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.looked {
            return Poll::Ready(());
        }
        self.looked = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The waker of one direction of one source: it puts the source's token on the list.
#[derive(Debug)]
pub struct TokenWaker {
    pub token: u32,
    pub shared: Arc<Shared>,
}

impl Wake for TokenWaker {
    fn wake(self: Arc<Self>) {
        self.shared.push(self.token);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.push(self.token);
    }
}

/// A panic elsewhere leaves these small values whole, so a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
