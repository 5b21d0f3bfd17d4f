//! The park in each order that there is: loom runs every interleaving of the loop's thread and others, and every value
//! that an atomic may have by the orderings it is used with. A wake-up that is lost is a deadlock, which loom reports.
//!
//! Tokio's part is written as Tokio 1.54 has it in `runtime/scheduler/current_thread/mod.rs` (`waker_ref`, `block_on`,
//! `park`, `wake_by_ref_arc`), the driver as a flag that stays until it is consumed, as mio's waker (an eventfd) does.
//! `make loom` runs it.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, ThreadId};

use super::{Shared, TokenWaker};

/// What Tokio has of a runtime.
struct Runtime {
    /// The thread that made it, and runs it here.
    thread: ThreadId,
    woken: AtomicBool,
    unparked: Mutex<bool>,
    unpark: Condvar,
}

impl Runtime {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            thread: thread::current().id(),
            woken: AtomicBool::new(false),
            unparked: Mutex::new(false),
            unpark: Condvar::new(),
        })
    }

    /// The driver, and whoever else ends its wait: a signal does, without a waker.
    fn end_wait(&self) {
        *self.unparked.lock().unwrap() = true;
        self.unpark.notify_one();
    }

    /// Runs `future` to its end; `hook` is the one of `on_thread_unpark`.
    fn block_on(self: &Arc<Self>, future: impl Future<Output = ()>, hook: impl Fn()) {
        let mut future = pin!(future);
        self.woken.store(true, Ordering::Release);
        let waker = Waker::from(Arc::clone(self));
        loop {
            let polls = self.woken.swap(false, Ordering::AcqRel);
            if polls && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                return;
            }
            let waits = !self.woken.load(Ordering::Acquire);
            let mut unparked = self.unparked.lock().unwrap();
            while waits && !*unparked {
                unparked = self.unpark.wait(unparked).unwrap();
            }
            *unparked = false;
            drop(unparked);
            hook();
        }
    }
}

impl Wake for Runtime {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Its own thread polls the future next, and is not parked.
        if !self.woken.swap(true, Ordering::Release) && thread::current().id() != self.thread {
            self.end_wait();
        }
    }
}

/// A loop, and what `py` does with it.
struct Loop {
    runtime: Arc<Runtime>,
    shared: Arc<Shared>,
    /// The GIL, and the length of the ready queue that it guards.
    gil: Mutex<usize>,
}

impl Loop {
    fn new() -> Arc<Self> {
        Arc::new(Self { runtime: Runtime::new(), shared: Arc::default(), gil: Mutex::new(0) })
    }

    /// `call_soon_threadsafe`.
    fn call(&self) {
        let mut queued = self.gil.lock().unwrap();
        *queued += 1;
        self.shared.wake();
    }

    /// One park without the GIL, unless something is queued; then takes what is.
    fn turn(&self) -> usize {
        let mut queued = self.gil.lock().unwrap();
        if *queued == 0 {
            self.shared.park_begins();
            drop(queued);
            self.runtime.block_on(self.shared.park_once(), || self.shared.wake_root());
            queued = self.gil.lock().unwrap();
            self.shared.park_ended();
        }
        std::mem::take(&mut *queued)
    }

    /// Turns until `calls` were made.
    fn run(&self, calls: usize) {
        let mut made = 0;
        while made < calls {
            made += self.turn();
        }
    }
}

/// Breaks the circle of a loop's waker and what it wakes, as its `Drop` does.
fn close(this: &Arc<Loop>) {
    this.shared.forget_root();
    assert_eq!(Arc::strong_count(&this.runtime), 1, "a waker is kept");
}

/// Every order with three preemptions or fewer.
fn most_orders(f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(f);
}

#[test]
fn a_call_of_another_thread_ends_the_park() {
    loom::model(|| {
        let this = Loop::new();
        let other = Arc::clone(&this);
        let calling = thread::spawn(move || other.call());
        this.run(1);
        calling.join().unwrap();
        close(&this);
    });
}

#[test]
fn each_of_two_parks_is_ended() {
    most_orders(|| {
        let this = Loop::new();
        let other = Arc::clone(&this);
        let calling = thread::spawn(move || {
            other.call();
            other.call();
        });
        this.run(2);
        calling.join().unwrap();
        close(&this);
    });
}

#[test]
fn of_two_threads_that_call_at_once_both_are_heard() {
    most_orders(|| {
        let this = Loop::new();
        let calling = [(); 2].map(|()| {
            let other = Arc::clone(&this);
            thread::spawn(move || other.call())
        });
        this.run(2);
        for calling in calling {
            calling.join().unwrap();
        }
        close(&this);
    });
}

#[test]
fn a_signal_ends_the_park() {
    loom::model(|| {
        let this = Loop::new();
        let runtime = Arc::clone(&this.runtime);
        let signal = thread::spawn(move || runtime.end_wait());
        this.turn();
        signal.join().unwrap();
        close(&this);
    });
}

#[test]
fn a_token_that_another_thread_pushes_is_taken_once() {
    loom::model(|| {
        let shared = Arc::<Shared>::default();
        let waker = Waker::from(Arc::new(TokenWaker { token: 7, shared: Arc::clone(&shared) }));
        let pushing = thread::spawn(move || waker.wake());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        shared.take_ready(&mut first);
        pushing.join().unwrap();
        shared.take_ready(&mut second);
        assert_eq!([first, second].concat(), [7]);
    });
}

#[test]
fn a_runtime_that_ends_may_call_its_hook_while_another_thread_wakes_it() {
    /// The last of a runtime's handles: what it lets go of ends a wait, and the hook runs.
    struct Handle(Arc<Shared>);
    impl Wake for Handle {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Handle {
        fn drop(&mut self) {
            self.0.wake_root();
        }
    }

    loom::model(|| {
        let shared = Arc::<Shared>::default();
        let waker = Waker::from(Arc::new(Handle(Arc::clone(&shared))));
        assert!(pin!(shared.park_once()).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        shared.park_begins();
        let other = Arc::clone(&shared);
        let waking = thread::spawn(move || other.wake());
        shared.forget_root();
        waking.join().unwrap();
        assert_eq!(Arc::strong_count(&shared), 1, "the runtime's handle is kept");
    });
}
