//! One `sock_*` operation: try, wait for readiness, try again. `core::drive::sockop` carries it out.
//!
//! ```text
//!                    ┌──────────── moved some ────────────┐
//!                    ▼                                    │
//!   Fresh ──poll──► Trying ──would block──► Waiting ──poll──► Trying ... ──done──► Done
//!                    └──connected at once──► Deferred ──poll──► Done
//!     \_________________ cancelled, closed, failed at any moment _________________/
//! ```
//!
//! Theory: readiness only wakes the operation; the system call is made when the awaiting task runs again. So a task
//! that is cancelled between readiness and its turn has taken nothing from the socket: no byte, no connection is lost.
//!
//! Each time that the task runs the call is made, whatever the last one found: what came since then is the task's without
//! giving up its turn, as in asyncio. Only a connect is not asked for twice: whatever it waited for has come, and a connection
//! that was made at once takes a turn, in which a server of the loop accepts.

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
    /// Go on in the next turn.
    Defer,
    /// It is done; the result is the caller's.
    Finish,
}

/// Why an operation cannot be awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// It ended before.
    Reused,
    /// It runs: its own user code awaits it.
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    Trying,
    Waiting,
    Deferred,
    Done,
}

/// One operation on a socket.
#[derive(Clone, Copy, Debug)]
pub struct SockOp {
    dir: Dir,
    phase: Phase,
    /// It is a connect, which is over once it was waited for.
    connects: bool,
    /// Bytes to move in all (`sendall`), 0 where the first success ends it.
    total: usize,
    moved: usize,
}

impl SockOp {
    #[must_use]
    pub fn new(dir: Dir) -> Self {
        Self { dir, phase: Phase::Fresh, connects: false, total: 0, moved: 0 }
    }

    /// A connect that is under way.
    #[must_use]
    pub fn connecting() -> Self {
        Self { connects: true, ..Self::new(Dir::Write) }
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

    /// The awaiting task runs it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Trying
    }

    /// `sendall`: the operation ends when `total` bytes are moved.
    pub fn set_total(&mut self, total: usize) {
        self.total = total;
    }

    /// The awaiting task runs.
    ///
    /// # Errors
    /// [`Misuse`] where it cannot.
    pub fn poll(&mut self) -> Result<Next, Misuse> {
        match self.phase {
            Phase::Done => Err(Misuse::Reused),
            Phase::Trying => Err(Misuse::Running),
            Phase::Waiting | Phase::Deferred if self.connects => Ok(self.end()),
            Phase::Fresh | Phase::Waiting | Phase::Deferred => {
                self.phase = Phase::Trying;
                Ok(Next::Try)
            }
        }
    }

    /// The call would block.
    pub fn handle_blocked(&mut self) -> Next {
        if self.is_done() {
            return Next::Finish;
        }
        self.phase = Phase::Waiting;
        Next::Wait(self.dir)
    }

    /// The connection was made at once.
    pub fn handle_connected(&mut self) -> Next {
        if self.is_done() {
            return Next::Finish;
        }
        self.phase = Phase::Deferred;
        Next::Defer
    }

    /// The call moved `n` bytes, or simply succeeded.
    pub fn handle_progress(&mut self, n: usize) -> Next {
        self.moved = self.moved.saturating_add(n);
        if self.moved >= self.total || self.is_done() { self.end() } else { Next::Try }
    }

    /// It failed, was cancelled or closed. True when it was waiting, so that the wait is to be taken back.
    pub fn handle_ended(&mut self) -> bool {
        let waiting = self.phase == Phase::Waiting;
        self.phase = Phase::Done;
        waiting
    }

    fn end(&mut self) -> Next {
        self.phase = Phase::Done;
        Next::Finish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sendall_goes_on_until_all_is_moved() {
        let mut op = SockOp::new(Dir::Write);
        op.set_total(10);
        assert!(op.is_fresh() && !op.is_running());
        assert_eq!(op.poll(), Ok(Next::Try));
        assert!(!op.is_fresh() && op.is_running());
        assert_eq!(op.handle_progress(4), Next::Try);
        assert_eq!(op.handle_blocked(), Next::Wait(Dir::Write));
        assert!(!op.is_fresh() && !op.is_running());
        assert_eq!(op.poll(), Ok(Next::Try));
        assert_eq!(op.handle_progress(6), Next::Finish);
        assert_eq!(op.poll(), Err(Misuse::Reused));
    }

    #[test]
    fn an_operation_cancelled_while_waiting_takes_its_wait_back() {
        let mut op = SockOp::new(Dir::Read);
        assert_eq!((op.poll(), op.handle_blocked()), (Ok(Next::Try), Next::Wait(Dir::Read)));
        assert!(op.handle_ended());
        assert!(!op.handle_ended());
    }

    #[test]
    fn a_connect_is_not_asked_for_twice_and_takes_a_turn_where_it_is_made_at_once() {
        let mut op = SockOp::connecting();
        assert_eq!((op.poll(), op.handle_blocked()), (Ok(Next::Try), Next::Wait(Dir::Write)));
        assert_eq!((op.poll(), op.poll()), (Ok(Next::Finish), Err(Misuse::Reused)));
        let mut op = SockOp::connecting();
        assert_eq!((op.poll(), op.handle_connected()), (Ok(Next::Try), Next::Defer));
        assert_eq!((op.poll(), op.is_done()), (Ok(Next::Finish), true));
    }

    #[test]
    fn an_operation_that_its_own_user_code_ends_or_awaits_stays_as_it_is() {
        let mut op = SockOp::new(Dir::Read);
        assert_eq!((op.poll(), op.poll()), (Ok(Next::Try), Err(Misuse::Running)));
        assert!(op.is_running() && !op.handle_ended());
        assert_eq!(
            (op.handle_blocked(), op.handle_connected(), op.poll()),
            (Next::Finish, Next::Finish, Err(Misuse::Reused))
        );
        let mut op = SockOp::new(Dir::Write);
        op.set_total(9);
        assert_eq!((op.poll(), op.handle_ended()), (Ok(Next::Try), false));
        assert_eq!(op.handle_progress(3), Next::Finish);
    }
}
