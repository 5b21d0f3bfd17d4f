//! Waking a parked loop, and the list of sources that became ready.
//!
//! Contract: [`Shared::park_begins`] is called by the loop's thread while it still keeps other Python threads out (it
//! holds the GIL). A thread that then hands work to the loop calls [`Shared::wake`], which does nothing unless the loop
//! is parked or about to be. A wake-up is never lost: the park registers its waker, then looks at `woken`; a waker sets
//! `woken`, then calls the waker.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What the loop's thread shares with wakers.
#[derive(Debug, Default)]
pub struct Shared {
    /// Tokens of the sources that became ready, in the order in which the kernel reported them.
    ready: Mutex<Vec<u32>>,
    root: Mutex<Option<Waker>>,
    parked: AtomicBool,
    woken: AtomicBool,
}

impl Shared {
    /// The loop is about to park: from now on [`Shared::wake`] counts.
    pub fn park_begins(&self) {
        self.woken.store(false, Ordering::SeqCst);
        self.parked.store(true, Ordering::SeqCst);
    }

    /// The loop runs again.
    pub fn park_ended(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Ends the park, if there is one. From any thread.
    pub fn wake(&self) {
        if self.parked.load(Ordering::SeqCst) && !self.woken.swap(true, Ordering::SeqCst) {
            self.wake_root();
        }
    }

    /// Has the parked future polled again; the thread that parks calls this on every unpark.
    pub fn wake_root(&self) {
        if let Some(waker) = lock(&self.root).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// A source became ready.
    pub fn push(&self, token: u32) {
        lock(&self.ready).push(token);
    }

    #[must_use]
    pub fn has_ready(&self) -> bool {
        !lock(&self.ready).is_empty()
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
        {
            let mut root = lock(&self.shared.root);
            if !root.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *root = Some(cx.waker().clone());
            }
        }
        if self.shared.woken.load(Ordering::SeqCst) || self.shared.has_ready() {
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
