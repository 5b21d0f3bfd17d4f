//! The simulation as the surroundings of the stream's driver: its kernel, its loop and its reports.

use super::{EBADF, ENOTCONN, Entry, Event, READ_MAX, Raised, Reaction, Run, SLICES_MAX, Sim};
use crate::core::coalesce::{Coalesce, Thread};
use crate::core::drive::stream::{self, Host, Received};
use crate::core::drive::{self, Culprit, Dir, coalesce};
use crate::core::fault::Fault;
use crate::core::stream::{Stream, WriteError};
use crate::sim::link;

/// Where a read goes.
#[derive(Debug, Default)]
pub struct Target(Vec<u8>);

impl drive::Host for Sim {
    type Error = Raised;

    fn is_exit(&self, error: &Raised) -> bool {
        *error == Raised::Exit
    }

    fn os_errno(&self, error: &Raised) -> Option<Option<i32>> {
        if let Raised::Os(errno) = *error { Some(Some(errno)) } else { None }
    }

    fn report(&mut self, error: &Raised, _culprit: Culprit) -> Run {
        match *error {
            Raised::Os(errno) => {
                assert!(!self.policy.is_quiet(Some(errno)), "reported, though the network is to blame");
                self.break_off(*error);
            }
            Raised::User => self.unreported = self.unreported.checked_sub(1).expect("reported twice"),
            Raised::Exit | Raised::Refused(_) => unreachable!("{error:?} was reported"),
        }
        // The exception handler is user code.
        if self.reactions.front() == Some(&Reaction::Exit) { self.react() } else { Ok(()) }
    }

    fn log_fatal(&mut self, error: &Raised, _culprit: Culprit) -> Run {
        assert!(matches!(error, Raised::Os(errno) if self.policy.is_quiet(Some(*errno))), "{error:?} was not reported");
        self.break_off(*error);
        Ok(())
    }

    fn keep_error(&mut self, error: Raised) {
        assert!(self.kept.replace(error).is_none(), "lost twice");
    }

    fn turn(&self) -> u64 {
        self.turns
    }

    fn coalesces(&self) -> bool {
        self.coalesces_now()
    }

    fn cork(&mut self) {
        assert!(self.coalesces_now(), "corked with no turn that will end");
        self.coalesce.cork(());
    }

    fn queue(&mut self, dir: Dir) {
        assert!(dir == Dir::Write || self.stream.wants_read(), "a read that nobody wants");
        self.ready.push(Entry::Io(dir));
    }

    fn queue_lost(&mut self) -> Run {
        assert!(!self.losing && !self.lost, "lost twice");
        self.losing = true;
        self.ready.push(Entry::Lost);
        Ok(())
    }

    fn in_context(&mut self, body: impl FnOnce(&mut Self) -> Run) -> Run {
        body(self)
    }
}

impl coalesce::Host for Sim {
    type Error = Raised;
    type Endpoint = ();

    fn machine<R>(&mut self, f: impl FnOnce(&mut Coalesce<()>) -> R) -> R {
        f(&mut self.coalesce)
    }

    fn thread(&self) -> Thread {
        self.thread
    }

    fn uncork(&mut self, (): (), _enter: bool) -> Run {
        stream::uncork(self)
    }

    fn forget(&mut self, (): ()) -> Run {
        stream::handle_forked(self)
    }

    fn contain(&mut self, result: Run) -> Run {
        assert!(result.is_ok() || result == Err(Raised::Exit), "{result:?} is nobody's");
        result
    }
}

impl Host for Sim {
    type Chunk = Vec<u8>;
    type Bytes = Vec<u8>;
    type File = ();
    type Target = Target;

    fn machine<R>(&mut self, f: impl FnOnce(&mut Stream<Vec<u8>>) -> R) -> R {
        f(&mut self.stream)
    }

    fn file(&mut self) -> Result<(), Raised> {
        if self.file_closed { Err(Raised::Os(EBADF)) } else { Ok(()) }
    }

    fn receive(&mut self, (): (), target: &mut Target) -> Result<Received, Raised> {
        assert!(!self.file_closed, "read from what is another's by now");
        assert!(!std::mem::replace(&mut self.has_read, true), "more than one read in a turn");
        if !self.source.arm_read() {
            return Ok(Received::Nothing);
        }
        match self.link.recv(READ_MAX) {
            Ok(link::Received::Data(bytes)) => {
                let n = bytes.len();
                target.0 = bytes;
                let drained = self.policy.is_drained(n, READ_MAX, self.source.is_read_closed(), || false);
                Ok(Received::Data { n, more: !drained || self.source.clear_read() })
            }
            Ok(link::Received::End) => {
                if self.policy.end_closes {
                    (self.closed, self.fault) = (true, Some(Fault::Closed));
                }
                Ok(Received::End)
            }
            Ok(link::Received::Nothing) => {
                let _never = self.source.clear_read();
                Ok(Received::Nothing)
            }
            Err(errno) => Err(self.break_off(Raised::Os(errno))),
        }
    }

    fn send(&mut self, (): (), bytes: &[u8]) -> Result<usize, Raised> {
        assert!(!self.coalesces_now() && self.stream.buffered() == 0, "sent past the queue");
        self.try_send(bytes.len(), |sim| sim.link.send(std::iter::once(bytes)))
    }

    fn send_queued(&mut self, (): ()) -> Result<(usize, usize), Raised> {
        let offered = self.stream.unsent().take(SLICES_MAX).map(<[u8]>::len).sum();
        let sent = self.try_send(offered, |sim| sim.link.send(sim.stream.unsent().take(SLICES_MAX)))?;
        Ok((sent, offered))
    }

    fn shut_down(&mut self, (): ()) -> Run {
        assert!(!self.file_closed, "shut down what is another's by now");
        assert!(self.stream.eof_asked() && !self.link.is_shut(), "the writing half is shut down once");
        assert_eq!(self.link.accepted(), self.written, "shut down before the last byte");
        self.link.shutdown();
        self.events.push(Event::Shutdown);
        if self.shutdown_fails { Err(Raised::Os(ENOTCONN)) } else { Ok(()) }
    }

    fn watch_read(&mut self) -> Result<bool, Raised> {
        Ok(self.source.arm_read())
    }

    fn watch_write(&mut self) -> Result<bool, Raised> {
        assert!(self.stream.is_watching_write());
        Ok(self.source.clear_write())
    }

    fn watch_hangup(&mut self) -> bool {
        let gone = self.source.arm_hangup();
        if gone && !self.stream.is_lost() && !self.stream.is_corked() {
            self.broken = self.stream.buffered() > 0;
            self.fault = Some(if self.broken { Fault::Os(link::EPIPE) } else { Fault::Closed });
        }
        self.closed |= gone;
        gone
    }

    fn target(&mut self) -> Option<Result<Target, Raised>> {
        Some(if self.buffered { self.get_buffer().map(|()| Target::default()) } else { Ok(Target::default()) })
    }

    fn deliver(&mut self, target: Target, n: usize) -> Run {
        assert_eq!(target.0.len(), n);
        self.data_received(&target.0)
    }

    fn callback(_target: &Target) -> &'static str {
        "data_received"
    }

    fn connection_made(&mut self) -> Run {
        self.react()
    }

    fn eof_received(&mut self) -> Result<bool, Raised> {
        self.eof_answer()
    }

    fn pause_writing(&mut self) -> Run {
        self.paused_by_mark()
    }

    fn resume_writing(&mut self) -> Run {
        self.resumed_by_mark()
    }

    fn lost_error(&mut self) -> Option<Raised> {
        // A machine that fails by itself keeps no error.
        self.kept.take().or_else(|| self.stream.fault().errno().map(Raised::Os))
    }

    fn connection_lost(&mut self, error: Option<&Raised>) -> Run {
        assert_eq!(error.map_or(Fault::Closed, Self::fault), self.stream.fault(), "lost by another error");
        self.lost_to_user()
    }

    fn dispose(&mut self, _error: Option<&Raised>) -> Run {
        self.link.close();
        Ok(())
    }

    fn tell_drained(&mut self) -> Run {
        assert!(self.drain_awaited && self.stream.buffered() == 0);
        self.drain_owed = false;
        self.events.push(Event::Drained);
        // Only an exit is for anybody else.
        if self.reactions.front() == Some(&Reaction::Exit) { self.react() } else { Ok(()) }
    }

    fn warn_lost_write(&mut self) -> Run {
        self.warned += 1;
        Ok(())
    }

    fn refused(&mut self, error: WriteError, _method: &'static str) -> Raised {
        assert_eq!(self.stream.check_write(), Err(error));
        Raised::Refused(error)
    }

    fn fault(error: &Raised) -> Fault {
        if let Raised::Os(errno) = *error { Fault::Os(errno) } else { Fault::User }
    }
}

impl Sim {
    pub(super) fn coalesces_now(&self) -> bool {
        self.coalesce.wants(self.thread)
    }

    fn try_send(
        &mut self,
        offered: usize,
        send: impl FnOnce(&mut Self) -> Result<usize, i32>,
    ) -> Result<usize, Raised> {
        assert!(!self.file_closed, "sent to what is another's by now");
        self.offers += 1;
        match send(self) {
            Ok(sent) => {
                self.events.push(Event::Sent(sent, offered));
                Ok(sent)
            }
            Err(errno) => Err(self.break_off(Raised::Os(errno))),
        }
    }
}
