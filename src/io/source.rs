//! One file descriptor registered with Tokio.
//!
//! Contract: registered edge-triggered for both directions, once, and deregistered by [`Source::deregister`] before its
//! owner closes it. Tokio remembers readiness until it is cleared; a direction is cleared when a call found it used up,
//! and then polled once more, which either arms its waker or tells of readiness that came in between. No task: the waker
//! is ours and puts a token on the loop's list.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::endpoint::{self, FileKind};
use super::sys::{self, BorrowedRawFd, RawBuf};
use super::wake::{Shared, TokenWaker};
use crate::core::drive::stream::Received;
use crate::core::stream::Policy;

/// The token of a source's direction: the slot, and the direction in the lowest bit.
#[must_use]
pub const fn token(slot: u32, write: bool) -> u32 {
    (slot << 1) | write as u32
}

/// The slot and direction of a token.
#[must_use]
pub const fn slot(token: u32) -> (u32, bool) {
    (token >> 1, token & 1 == 1)
}

/// A registered file descriptor.
#[derive(Debug)]
pub struct Source {
    /// Dropped by `deregister` only: dropping deregisters by number, which only the owner of the file knows to be right.
    afd: ManuallyDrop<AsyncFd<BorrowedRawFd>>,
    read_waker: Waker,
    write_waker: Waker,
    born: u32,
}

impl Source {
    /// Registers `fd`. Must be called within the runtime's context.
    ///
    /// # Errors
    /// The errno of the registration: `EPERM` for a file that cannot be polled, `EBADF`, `EEXIST`, `ENOSPC`.
    pub fn new(fd: BorrowedRawFd, slot: u32, interest: Interest, shared: &Arc<Shared>) -> io::Result<Self> {
        let waker = |write| Waker::from(Arc::new(TokenWaker { token: token(slot, write), shared: Arc::clone(shared) }));
        Ok(Self {
            afd: ManuallyDrop::new(sys::register(fd, interest)?),
            read_waker: waker(false),
            write_waker: waker(true),
            born: sys::fork_generation(),
        })
    }

    #[must_use]
    pub fn fd(&self) -> BorrowedRawFd {
        *self.afd.get_ref()
    }

    /// Deregisters it. `still_ours`: the number still names the file that was registered. If not, deregistering by number
    /// would hit the file that has it now: the kernel is given a number that no file has, and Tokio then keeps the little
    /// it knows of the registration until the runtime ends. A forked child, which shares the epoll with its parent, leaves
    /// everything as it is.
    pub fn deregister(self, still_ours: bool) {
        let Self { afd, born, .. } = self;
        if born == sys::fork_generation() {
            let mut afd = ManuallyDrop::into_inner(afd);
            if !still_ours {
                *afd.get_mut() = BorrowedRawFd::NONE;
            }
            drop(afd);
        }
    }

    /// True when the source may be readable; otherwise its waker is armed.
    #[must_use]
    pub fn arm_read(&self) -> bool {
        self.afd.poll_read_ready(&mut Context::from_waker(&self.read_waker)).is_ready()
    }

    /// True when the source may be writable; otherwise its waker is armed.
    #[must_use]
    pub fn arm_write(&self) -> bool {
        self.afd.poll_write_ready(&mut Context::from_waker(&self.write_waker)).is_ready()
    }

    /// A call found nothing to read. Forgets the readiness and arms the waker; true when readiness came in between.
    #[must_use]
    pub fn clear_read(&self) -> bool {
        if let Poll::Ready(Ok(mut guard)) = self.afd.poll_read_ready(&mut Context::from_waker(&self.read_waker)) {
            guard.clear_ready();
            return self.arm_read();
        }
        false
    }

    /// A call could not write all. Forgets the readiness and arms the waker; true when readiness came in between.
    #[must_use]
    pub fn clear_write(&self) -> bool {
        if let Poll::Ready(Ok(mut guard)) = self.afd.poll_write_ready(&mut Context::from_waker(&self.write_waker)) {
            guard.clear_ready();
            return self.arm_write();
        }
        false
    }

    /// The peer sent urgent data (`MSG_OOB`), some time.
    fn had_urgent(&self) -> bool {
        self.afd.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    /// True when the far end is gone; otherwise both wakers are armed. Forgets any other readiness: for a source that is
    /// not read, and written to without asking.
    #[must_use]
    pub fn arm_hangup(&self) -> bool {
        let (mut read, mut write) = (Context::from_waker(&self.read_waker), Context::from_waker(&self.write_waker));
        while let Poll::Ready(Ok(mut guard)) = self.afd.poll_read_ready(&mut read) {
            if guard.ready().is_read_closed() {
                return true;
            }
            guard.clear_ready();
        }
        while let Poll::Ready(Ok(mut guard)) = self.afd.poll_write_ready(&mut write) {
            if guard.ready().is_write_closed() {
                return true;
            }
            guard.clear_ready();
        }
        false
    }

    /// Reads into `buf`, if the source is readable. A read after which nothing can be there, by the `policy`, arms the waker.
    ///
    /// # Errors
    /// The errno of `recv(2)` or `read(2)`.
    pub fn recv(&self, kind: FileKind, buf: RawBuf<'_>, policy: Policy) -> io::Result<Received> {
        let mut cx = Context::from_waker(&self.read_waker);
        loop {
            let Poll::Ready(ready) = self.afd.poll_read_ready(&mut cx) else { return Ok(Received::Nothing) };
            let mut guard = ready?;
            match endpoint::read(kind, self.fd(), buf) {
                Ok(0) if !buf.is_empty() => return Ok(Received::End),
                Ok(n) => {
                    if !policy.is_drained(n, buf.len(), guard.ready().is_read_closed(), || self.had_urgent()) {
                        return Ok(Received::Data { n, more: true });
                    }
                    guard.clear_ready();
                    return Ok(Received::Data { n, more: self.arm_read() });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Calls `receive` on the source, if it is readable, until that has nothing more or `max` times: how often it had
    /// something, whether there may be more, and what ended it otherwise. `force`: also if it is not known to be
    /// readable.
    pub fn drain(
        &self,
        max: usize,
        force: bool,
        mut receive: impl FnMut(BorrowedRawFd) -> io::Result<()>,
    ) -> (usize, bool, Option<io::Error>) {
        let mut guard = match self.afd.poll_read_ready(&mut Context::from_waker(&self.read_waker)) {
            Poll::Ready(Ok(guard)) => Some(guard),
            Poll::Ready(Err(error)) => return (0, false, Some(error)),
            Poll::Pending if force => None,
            Poll::Pending => return (0, false, None),
        };
        let mut count = 0;
        while count < max {
            match receive(self.fd()) {
                Ok(()) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let more = guard.as_mut().is_some_and(|guard| {
                        guard.clear_ready();
                        self.arm_read()
                    });
                    return (count, more, None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (count, true, Some(error)),
            }
        }
        (count, true, None)
    }
}
