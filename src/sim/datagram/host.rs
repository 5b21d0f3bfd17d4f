//! The simulation as the surroundings of the datagram driver: its kernel, its loop, its reports, and the user's protocol.

use super::{BATCH, Entry, Event, FLUSH_MAX, Packet, Raised, Reaction, Run, Sim, Source};
use crate::core::coalesce::{Coalesce, Thread};
use crate::core::datagram::Datagram;
use crate::core::drive::datagram::{self, Found, Host};
use crate::core::drive::{self, Culprit, Dir, coalesce};
use crate::core::fault::Fault;

impl drive::Host for Sim {
    type Error = Raised;

    fn is_exit(&self, error: &Raised) -> bool {
        *error == Raised::Exit
    }

    fn os_errno(&self, error: &Raised) -> Option<Option<i32>> {
        if let Raised::Os(errno) = *error { Some(Some(errno)) } else { None }
    }

    fn report(&mut self, error: &Raised, culprit: Culprit) -> Run {
        assert_eq!((*error, culprit), (Raised::User, Culprit::Write), "nothing else is to be reported");
        self.unreported = self.unreported.checked_sub(1).expect("reported twice");
        Ok(())
    }

    fn log_fatal(&mut self, error: &Raised, culprit: Culprit) -> Run {
        unreachable!("no error of the kernel's is fatal: {error:?}, {culprit:?}")
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
        assert!(self.coalesces_now() && self.policy.batches, "corked with no turn that will end");
        self.coalesce.cork(());
    }

    fn queue(&mut self, dir: Dir) {
        assert!(dir == Dir::Write || self.endpoint.wants_read(), "a read that nobody wants");
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
        self.tried = Some(0);
        datagram::uncork(self)
    }

    fn forget(&mut self, (): ()) -> Run {
        datagram::handle_forked(self)
    }

    fn contain(&mut self, result: Run) -> Run {
        assert!(result.is_ok() || result == Err(Raised::Exit), "{result:?} is nobody's");
        result
    }
}

impl Host for Sim {
    type Received = u64;
    type Packet = Packet;
    type Message = Packet;
    type File = ();

    fn machine<R>(&mut self, f: impl FnOnce(&mut Datagram<u64, Packet>) -> R) -> R {
        f(&mut self.endpoint)
    }

    // ---- the kernel

    fn check_file(&mut self) -> Run {
        Ok(())
    }

    fn file(&mut self) {}

    fn receive(&mut self, force: bool) -> Result<Found<Raised>, Raised> {
        let ready = self.source.arm_read();
        if !ready && !force {
            return Ok(Found { count: 0, more: false, error: None });
        }
        for count in 0..BATCH {
            match self.socket.receive() {
                Ok(Some(number)) => self.endpoint.handle_received(std::iter::once(number)),
                Ok(None) => {
                    let more = ready && self.source.clear_read();
                    return Ok(Found { count, more, error: None });
                }
                Err(errno) => return Ok(Found { count, more: true, error: Some(Raised::Os(errno)) }),
            }
        }
        Ok(Found { count: BATCH, more: true, error: None })
    }

    fn send(&mut self, packet: &mut Packet) -> Result<bool, Raised> {
        assert!(self.queue.is_empty(), "sent past the queue");
        let coalesces = self.coalesces_now() && self.policy.batches && !self.endpoint.is_lost();
        assert!(!coalesces, "sent what was to be coalesced");
        let sent = self.socket.send(std::iter::once(&*packet)).map_err(|raised| self.note_raised(raised))?;
        if sent > 0 {
            self.events.push(Event::Sent(sent, 1));
        }
        Ok(sent > 0)
    }

    fn send_queued(&mut self, (): (), batch: usize) -> Result<usize, Raised> {
        self.offers += 1;
        let sent = self.socket.send(self.endpoint.unsent().take(batch));
        let tried = sent.unwrap_or(1);
        if let Some(all) = &mut self.tried {
            *all += tried;
            assert!(*all <= FLUSH_MAX, "a flush of {all}");
        }
        self.queue.drain(..tried);
        if let Ok(sent @ 1..) = sent {
            self.events.push(Event::Sent(sent, batch));
        }
        sent.map_err(|raised| self.note_raised(raised))
    }

    fn packet(&mut self, packet: Packet) -> Packet {
        if !self.endpoint.is_lost() {
            self.queue.push_back((packet.number, packet.bytes.len()));
        }
        packet
    }

    fn register(&mut self, write: bool) -> Result<(bool, bool), Raised> {
        let tells = self.socket.tells_of_room && !std::mem::take(&mut self.found_room);
        assert!(!write || !tells, "registered anew, though it is told of room");
        self.source = Source::default();
        self.socket.tells_of_room = write;
        self.socket.edge = true;
        Ok((self.source.arm_read(), self.source.arm_write()))
    }

    fn note_unregistered(&mut self, error: Raised) {
        unreachable!("registering does not fail: {error:?}");
    }

    fn watch_read(&mut self) -> bool {
        self.source.arm_read()
    }

    fn watch_error(&mut self) -> bool {
        self.source.arm_write()
    }

    fn watch_write(&mut self) -> bool {
        assert!(self.endpoint.is_watching_write());
        self.found_room = self.source.clear_write();
        self.found_room
    }

    // ---- the protocol

    fn connection_made(&mut self) -> Run {
        self.react()
    }

    fn datagram_received(&mut self, number: u64) -> Run {
        assert!(!self.closed && !self.reading_paused && !self.lost, "delivered what nobody wants");
        assert_eq!(number, self.delivered, "delivered out of order");
        self.delivered += 1;
        self.delivered_in_turn += 1;
        assert!(self.delivered_in_turn <= self.batches * BATCH, "more than a batch in a turn");
        self.events.push(Event::Datagram(number));
        self.react()
    }

    fn error_received(&mut self, error: Raised, from_loop: bool) -> Run {
        assert!(!self.socket.closed, "an error after the loss");
        assert!(!from_loop || self.depth == 0, "told by the loop from within a callback");
        assert!(!from_loop || !self.closed, "told of an error that nobody caused after close");
        let Raised::Os(errno) = error else { unreachable!("{error:?} is no error of the kernel") };
        self.events.push(Event::Error(errno));
        self.react()
    }

    fn pause_writing(&mut self) -> Run {
        assert!(!self.lost && !self.losing, "paused after the loss");
        assert!(!std::mem::replace(&mut self.paused, true), "paused twice");
        self.limits_moved = false;
        self.events.push(Event::Pause);
        self.react()
    }

    fn resume_writing(&mut self) -> Run {
        assert!(!self.lost && !self.losing, "resumed after the loss");
        assert!(std::mem::replace(&mut self.paused, false), "resumed without a pause");
        self.events.push(Event::Resume);
        self.react()
    }

    fn connection_lost(&mut self) -> Run {
        assert_eq!(self.depth, 0, "lost from within a callback");
        assert!(!self.lost, "lost twice");
        assert_eq!(Some(self.endpoint.fault()), self.fault, "the first fault counts");
        assert_eq!(self.kept.map(|error| Self::fault(&error)), self.fault.filter(|fault| fault.is_error()));
        assert!(self.broken || self.queue.is_empty(), "closed before the last datagram was sent");
        // Who has no fixed address may send as long as the socket is open: the last time from within this callback.
        let result = self.react();
        self.events.push(Event::Lost(self.endpoint.fault()));
        result
    }

    // ---- others

    fn dispose(&mut self) -> Run {
        self.socket.closed = true;
        self.lost = true;
        Ok(())
    }

    fn warn_lost_write(&mut self) -> Run {
        self.warned += 1;
        Ok(())
    }

    fn fault(error: &Raised) -> Fault {
        if let Raised::Os(errno) = *error { Fault::Os(errno) } else { Fault::User }
    }
}

impl Sim {
    pub(super) fn coalesces_now(&self) -> bool {
        self.coalesce.wants(self.thread)
    }

    /// What is no error of the kernel's is the end of the endpoint.
    fn note_raised(&mut self, raised: Raised) -> Raised {
        if raised == Raised::User {
            self.unreported += 1;
            self.break_off(raised);
        }
        raised
    }

    /// User code runs.
    fn react(&mut self) -> Run {
        let reaction = self.reactions.pop_front().unwrap_or(Reaction::Nothing);
        if reaction != Reaction::Nothing {
            self.tried = None;
        }
        self.depth += 1;
        let result = match reaction {
            Reaction::Nothing => Ok(()),
            Reaction::Interrupt => {
                self.exits += 1;
                Err(Raised::Exit)
            }
            Reaction::Send(len) => self.send(len),
            Reaction::SendTwice(len) => self.send(len).and_then(|()| self.send(len)),
            Reaction::Close => self.close(),
            Reaction::Abort => self.abort(),
            Reaction::PauseReading => {
                self.pause_reading();
                Ok(())
            }
            Reaction::ResumeReading => self.resume_reading(),
        };
        self.depth -= 1;
        result
    }
}
