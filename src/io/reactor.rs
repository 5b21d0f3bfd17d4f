//! The Tokio runtime of one loop: parking, looking, the next deadline, and the epoll of the user's own fds.
//!
//! Contract:
//! - One current-thread runtime per loop, with I/O and without Tokio's timers (they fire up to 1.1 ms late). It is only
//!   entered for a park or a look: one small `block_on` each. Whatever runs Python runs *outside* of it, so that a fork,
//!   another loop, or this loop's end inside a callback find no runtime entered.
//! - [`Reactor::look`] and [`Parker::park`] only fill the list of ready tokens; what they mean is the caller's business.
//! - A park ends on every unpark of the thread, also on a signal: Tokio swallows `EINTR`, so the runtime's
//!   `on_thread_unpark` hook has the parked future polled again.
//! - The user's fds live in an epoll of our own behind one `AsyncFd`, because the user may close them first: Tokio would
//!   leak, or deregister the file that has the number by then.
//! - The deadline is a timerfd on the monotonic clock, rounded up to [`TIMER_GRAIN_NANOS`] so that spread timers share
//!   wake-ups. It expires late by the grain at most and never early.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest as TokioInterest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use super::source::{self, Source};
use super::sys::{self, BorrowedRawFd};
use super::wake::{LookOnce, Shared};
use crate::core::drive::interest::{self as drive, Refusal};
use crate::core::interest::{Change, Interest, Keep, Registration};

/// Deadlines are rounded up to multiples of this.
pub const TIMER_GRAIN_NANOS: u64 = 125_000;

/// The slot of the epoll of user fds; slots of other sources are below.
pub const USER_SLOT: u32 = (1 << 30) - 1;

/// One event of a user fd, as `core::interest` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserEvent {
    pub fd: u32,
    pub generation: u32,
    pub read: bool,
    pub write: bool,
}

/// What parks: separate from the rest, as a park lets other Python threads run.
#[derive(Debug)]
pub struct Parker {
    runtime: Option<Runtime>,
    pub shared: Arc<Shared>,
    born: u32,
}

impl Parker {
    /// Waits until something happens: readiness, a wake-up, the deadline, a signal.
    pub fn park(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(self.shared.park_once());
        }
    }

    /// Looks at I/O without waiting.
    pub fn look(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(LookOnce::default());
        }
    }
}

impl Drop for Parker {
    fn drop(&mut self) {
        self.shared.forget_root();
        if self.born != sys::fork_generation() {
            // The epoll and the timer are the parent's too: leave them be.
            std::mem::forget(self.runtime.take());
        }
    }
}

/// The reactor of one loop.
#[derive(Debug)]
pub struct Reactor {
    timer: Option<AsyncFd<OwnedFd>>,
    /// When the timer expires, nanoseconds; `None` when it did.
    armed: Option<u64>,
    user: Option<(OwnedFd, Source)>,
    parker: Arc<Parker>,
}

impl Reactor {
    /// # Errors
    /// The errno: no fd or no memory for the runtime's epoll, the user epoll, the timer.
    pub fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let hook = Arc::clone(&shared);
        let runtime = Builder::new_current_thread().enable_io().on_thread_unpark(move || hook.wake_root()).build()?;
        let timer = {
            let _entered = runtime.enter();
            sys::register(sys::timer_create()?, TokioInterest::READABLE)?
        };
        let user = user_epoll(&runtime, &shared)?;
        if user.1.arm_read() {
            shared.push(source::token(USER_SLOT, false));
        }
        let parker = Parker { runtime: Some(runtime), shared, born: sys::fork_generation() };
        Ok(Self { timer: Some(timer), armed: None, user: Some(user), parker: Arc::new(parker) })
    }

    #[must_use]
    pub fn parker(&self) -> &Arc<Parker> {
        &self.parker
    }

    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.parker.shared
    }

    /// Registers a stream's or listener's fd.
    ///
    /// # Errors
    /// The errno of the registration; `NotConnected` when the reactor is closed.
    pub fn register(&self, fd: BorrowedRawFd, slot: u32, listener: bool) -> io::Result<Source> {
        let Some(runtime) = &self.parker.runtime else { return Err(io::ErrorKind::NotConnected.into()) };
        let _entered = runtime.enter();
        let interest = if listener {
            TokioInterest::READABLE
        } else {
            TokioInterest::READABLE.add(TokioInterest::WRITABLE).add(TokioInterest::PRIORITY)
        };
        Source::new(fd, slot, interest, self.shared())
    }

    /// Sees to it that a park ends at `nanos` (monotonic clock) at the latest, give or take the grain.
    ///
    /// A timer armed for an earlier moment is left: it costs one idle wake-up, less than arming anew for each time-out
    /// that is set and cancelled.
    ///
    /// # Errors
    /// The errno of `timerfd_settime(2)`.
    pub fn set_deadline(&mut self, nanos: u64, now: u64) -> io::Result<()> {
        let at = nanos.div_ceil(TIMER_GRAIN_NANOS).saturating_mul(TIMER_GRAIN_NANOS).max(1);
        if self.armed.is_some_and(|armed| armed <= at && armed > now) {
            return Ok(());
        }
        if let Some(timer) = &self.timer {
            sys::timer_arm(timer.get_ref().as_fd(), at)?;
            self.armed = Some(at);
        }
        Ok(())
    }

    /// Carries out a change of a user fd's registration: [`drive::settle`].
    ///
    /// # Errors
    /// As [`Reactor::apply`], if the change was for somebody; the table is as if it had not been asked for.
    pub fn settle<W>(
        &self,
        interest: &mut Interest<W>,
        fd: u32,
        change: Change,
        keep: Keep,
    ) -> (io::Result<()>, Vec<W>) {
        drive::settle(interest, &mut &*self, fd, change, keep)
    }

    /// Carries out a change of a user fd's registration, as it stands.
    ///
    /// # Errors
    /// The errno of `epoll_ctl(2)`: `EPERM` for a file that cannot be polled, `EBADF` for a closed one, `ENOENT` for a
    /// number that names another file than the one that was registered.
    pub fn apply(&self, fd: u32, generation: u32, change: Change) -> io::Result<()> {
        let Some((epoll, _)) = &self.user else { return Ok(()) };
        let ctl = |op, registration| control(epoll, op, fd, registration, generation);
        match change {
            Change::Keep => Ok(()),
            Change::Add(registration) => match ctl(libc::EPOLL_CTL_ADD, registration) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => ctl(libc::EPOLL_CTL_MOD, registration),
                result => result,
            },
            Change::Modify(registration) => ctl(libc::EPOLL_CTL_MOD, registration),
            Change::Delete => match ctl(libc::EPOLL_CTL_DEL, Registration::Absent) {
                // The user closed it first: the kernel has forgotten it.
                Err(error) if is_gone(&error) => Ok(()),
                result => result,
            },
        }
    }

    /// Makes the epoll of user fds anew, where `interest` asks for that: without the closed fds whose files live on elsewhere.
    ///
    /// # Errors
    /// The errno: no fd or no memory. Then all is as it was.
    pub fn renew_user<W>(&mut self, interest: &mut Interest<W>) -> io::Result<()> {
        let (Some((old, _)), Some(runtime)) = (&self.user, &self.parker.runtime) else { return Ok(()) };
        // In a forked child the old one is the parent's, too.
        if self.parker.born != sys::fork_generation() || !interest.poll_renewal() {
            return Ok(());
        }
        let (new, source) = user_epoll(runtime, self.shared())?;
        let mut registrations = interest.registrations();
        let moved = registrations.try_for_each(|(fd, registration, generation)| {
            // The old one knows whether the number still names the file that was registered.
            match control(old, libc::EPOLL_CTL_MOD, fd, registration, generation) {
                Ok(()) => control(&new, libc::EPOLL_CTL_ADD, fd, registration, generation),
                Err(error) if is_gone(&error) => Ok(()),
                Err(error) => Err(error),
            }
        });
        if let Err(error) = moved {
            source.deregister(true);
            return Err(error);
        }
        if source.arm_read() {
            self.shared().push(source::token(USER_SLOT, false));
        }
        if let Some((old, source)) = self.user.replace((new, source)) {
            source.deregister(true);
            drop(old);
        }
        Ok(())
    }

    /// Forgets that the epoll of user fds was readable, before it is looked at; its next edge puts its token on the
    /// list. True when there was an edge in between.
    #[must_use]
    pub fn clear_user(&self) -> bool {
        self.user.as_ref().is_some_and(|(_, source)| source.clear_read())
    }

    /// Looks at the user's fds without waiting. Tells whether the batch was full.
    ///
    /// # Errors
    /// The errno of `epoll_wait(2)`.
    pub fn look_user(&self, events: &mut Vec<UserEvent>) -> io::Result<bool> {
        let Some((epoll, _)) = &self.user else { return Ok(false) };
        let n = sys::epoll_poll(epoll.as_fd(), |bits, data| {
            let [read_bit, write_bit] = [libc::EPOLLIN, libc::EPOLLOUT].map(i32::cast_unsigned);
            let read_only = (libc::EPOLLRDHUP | libc::EPOLLPRI).cast_unsigned();
            #[allow(clippy::cast_possible_truncation)] // two halves of 32 bits each
            events.push(UserEvent {
                fd: data as u32,
                generation: (data >> 32) as u32,
                // As `selectors` has it: everything that is not plainly the other direction.
                read: bits & !write_bit != 0,
                write: bits & !(read_bit | read_only) != 0,
            });
        })?;
        Ok(n == sys::EPOLL_BATCH)
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        let ours = self.parker.born == sys::fork_generation();
        if let Some((epoll, source)) = self.user.take() {
            source.deregister(ours);
            drop(epoll);
        }
        if !ours {
            std::mem::forget(self.timer.take());
        }
    }
}

/// The epoll of user fds, watched by Tokio.
fn user_epoll(runtime: &Runtime, shared: &Arc<Shared>) -> io::Result<(OwnedFd, Source)> {
    let _entered = runtime.enter();
    let epoll = sys::epoll_create()?;
    let source = Source::new(BorrowedRawFd::of(&epoll), USER_SLOT, TokioInterest::READABLE, shared)?;
    Ok((epoll, source))
}

fn control(epoll: &OwnedFd, op: i32, fd: u32, registration: Registration, generation: u32) -> io::Result<()> {
    let Ok(raw) = i32::try_from(fd) else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
    sys::epoll_ctl(epoll.as_fd(), op, raw, mask(registration), u64::from(fd) | (u64::from(generation) << 32))
}

/// The kernel has forgotten the file, or the number is another one's by now.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBADF | libc::EPERM))
}

impl drive::Kernel for &Reactor {
    type Error = io::Error;

    fn control(&mut self, fd: u32, generation: u32, change: Change) -> io::Result<()> {
        self.apply(fd, generation, change)
    }

    fn refusal(error: &io::Error) -> Refusal {
        match error.raw_os_error() {
            Some(libc::EBADF) => Refusal::Closed,
            Some(libc::ENOENT | libc::EPERM) => Refusal::Reborn,
            _ => Refusal::Other,
        }
    }
}

fn mask(registration: Registration) -> u32 {
    let bit = |on: bool, bit: i32| if on { bit.cast_unsigned() } else { 0 };
    match registration {
        Registration::Absent => 0,
        Registration::Level { read, write } => bit(read, libc::EPOLLIN) | bit(write, libc::EPOLLOUT),
        Registration::Edge => {
            (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET).cast_unsigned()
        }
    }
}
