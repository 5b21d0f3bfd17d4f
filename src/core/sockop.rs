//! One `sock_*` operation: try, wait for readiness, try again.
//!
//! ```text
//!   Fresh --poll--> Try --would block--> Wait(dir) --ready--> Try ... --done--> Done
//!     \______________ cancelled, closed, failed at any moment ______________/
//! ```
//!
//! Theory: readiness only wakes the operation; the system call is made when the awaiting task runs again. So a task
//! that is cancelled between readiness and its turn has taken nothing from the socket: no byte, no connection is lost.

/// The direction of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    Read = 0,
    Write = 1,
}

/// What the operation wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make the system call now.
    Try,
    /// Wait until the socket is ready in this direction.
    Wait(Dir),
    /// It is done; the result is the caller's.
    Finish,
}

/// An operation was awaited again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    Trying,
    Waiting,
    Done,
}

/// One operation on a socket.
#[derive(Clone, Copy, Debug)]
pub struct SockOp {
    dir: Dir,
    phase: Phase,
    /// Bytes to move in all (`sendall`), 0 where the first success ends it.
    total: usize,
    moved: usize,
}

impl SockOp {
    #[must_use]
    pub fn new(dir: Dir) -> Self {
        Self { dir, phase: Phase::Fresh, total: 0, moved: 0 }
    }

    #[must_use]
    pub fn dir(&self) -> Dir {
        self.dir
    }

    /// Bytes moved so far.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.moved
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.phase == Phase::Fresh
    }

    /// `sendall`: the operation ends when `total` bytes are moved.
    pub fn set_total(&mut self, total: usize) {
        self.total = total;
    }

    /// The awaiting task runs: the call is made, whatever the last one found. What came since then is the task's without
    /// giving up its turn, as in asyncio.
    ///
    /// # Errors
    /// [`Reused`] after it ended.
    pub fn poll(&mut self) -> Result<Next, Reused> {
        if self.phase == Phase::Done {
            return Err(Reused);
        }
        self.phase = Phase::Trying;
        Ok(Next::Try)
    }

    /// The call would block.
    pub fn handle_blocked(&mut self) -> Next {
        self.phase = Phase::Waiting;
        Next::Wait(self.dir)
    }

    /// The call moved `n` bytes, or simply succeeded.
    pub fn handle_progress(&mut self, n: usize) -> Next {
        self.moved = self.moved.saturating_add(n);
        if self.moved >= self.total {
            self.phase = Phase::Done;
            Next::Finish
        } else {
            Next::Try
        }
    }

    /// It failed, was cancelled or closed. True when it was waiting, so that the wait is to be taken back.
    pub fn handle_ended(&mut self) -> bool {
        let waiting = self.phase == Phase::Waiting;
        self.phase = Phase::Done;
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sendall_goes_on_until_all_is_moved() {
        let mut op = SockOp::new(Dir::Write);
        op.set_total(10);
        assert_eq!(op.poll(), Ok(Next::Try));
        assert_eq!(op.handle_progress(4), Next::Try);
        assert_eq!(op.handle_blocked(), Next::Wait(Dir::Write));
        assert_eq!(op.poll(), Ok(Next::Try));
        assert_eq!(op.handle_progress(6), Next::Finish);
        assert_eq!(op.poll(), Err(Reused));
    }

    #[test]
    fn an_operation_cancelled_while_waiting_takes_its_wait_back() {
        let mut op = SockOp::new(Dir::Read);
        assert_eq!((op.poll(), op.handle_blocked()), (Ok(Next::Try), Next::Wait(Dir::Read)));
        assert!(op.handle_ended());
        assert!(!op.handle_ended());
    }
}
