//! Cryptography without any: records, flights of a handshake, and an engine that follows them as OpenSSL does.
//!
//! A record has a header of TLS (type, version, length), the record's number, a payload with its bits flipped, so that
//! plaintext on the wire is noticed, and a checksum. What OpenSSL does and a machine has to cope with: it may take a part of a record
//! out of what was fed, keep plaintext for which there was no room, answer a record that is no data, write nothing until
//! the peer answered, refuse to shut down meanwhile, and count data behind its own `close_notify` as an error.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::ops::{Setup, Side};
use crate::core::tls::Outcome;

const HEADER: usize = 5;
const NUMBER: usize = 2;
/// The checksum, at the end of a record.
const SUM: usize = 2;
/// Bytes of a record that carries no data: header, number, a payload of this many, checksum.
const PAYLOAD: usize = 8;
/// The longest record that is believed, bytes of its body.
const LONGEST: usize = 1 << 12;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

// What a handshake record says.
const FLIGHT: u8 = 0;
const TICKET: u8 = 1;
const UPDATE: u8 = 2;
const ASK: u8 = 3;
const HELLO: u8 = 4;
const ANSWER: u8 = 5;

// What an alert says.
const NOTIFY: u8 = 0;
const FATAL: u8 = 1;

/// Why an engine gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// What came is no record, or not the next one.
    Garbage,
    /// A record that has no place there.
    Unexpected,
    /// The peer's alert.
    Alert,
    /// Data came behind the `close_notify` that was sent.
    DataAfterNotify,
    /// Asked to write after `close_notify`.
    WriteAfterNotify,
    /// Asked to write or to shut down in a handshake.
    InHandshake,
}

#[derive(Debug)]
struct State {
    setup: Setup,
    side: Side,
    /// The flight that is sent or comes next.
    flight: u8,
    incoming: VecDeque<u8>,
    /// The beginning of a record, taken out of `incoming`.
    partial: Vec<u8>,
    outgoing: Vec<u8>,
    /// Plaintext for which there was no room.
    plain: VecDeque<u8>,
    sent: u16,
    received: u16,
    notify_sent: bool,
    notify_received: bool,
    /// A new handshake is under way, and the peer's turn.
    blocked: bool,
    /// The next record is followed by such a handshake.
    renews: bool,
    failed: Option<EngineError>,
}

/// One end's engine.
#[derive(Debug)]
pub struct Engine(RefCell<State>);

impl Engine {
    pub fn new(setup: Setup, side: Side) -> Self {
        Self(RefCell::new(State {
            setup,
            side,
            flight: 0,
            incoming: VecDeque::new(),
            partial: Vec::new(),
            outgoing: Vec::new(),
            plain: VecDeque::new(),
            sent: 0,
            received: 0,
            notify_sent: false,
            notify_received: false,
            blocked: false,
            renews: false,
            failed: None,
        }))
    }

    pub fn feed(&self, ciphertext: &[u8]) {
        self.0.borrow_mut().incoming.extend(ciphertext);
    }

    pub fn handshake(&self) -> Outcome<(), EngineError> {
        self.0.borrow_mut().handshake()
    }

    pub fn read(&self, max: usize) -> Outcome<Vec<u8>, EngineError> {
        self.0.borrow_mut().read(max)
    }

    /// Encrypts some of `plaintext`: how many bytes, at least one.
    pub fn write(&self, plaintext: &[u8]) -> Outcome<usize, EngineError> {
        self.0.borrow_mut().write(plaintext)
    }

    pub fn shutdown(&self) -> Outcome<(), EngineError> {
        self.0.borrow_mut().shutdown()
    }

    /// Ciphertext that was fed and not yet looked at, bytes.
    pub fn unread(&self) -> usize {
        self.0.borrow().incoming.len()
    }

    /// The ciphertext that is to be sent.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().outgoing)
    }

    /// Ciphertext that is to be sent, bytes.
    pub fn held(&self) -> usize {
        self.0.borrow().outgoing.len()
    }

    /// Plaintext of a record that was read in part, bytes.
    pub fn pending(&self) -> usize {
        self.0.borrow().plain.len()
    }

    pub fn is_made(&self) -> bool {
        self.0.borrow().is_made()
    }

    pub fn is_blocked(&self) -> bool {
        self.0.borrow().blocked
    }

    pub fn failure(&self) -> Option<EngineError> {
        self.0.borrow().failed
    }

    pub fn notify_sent(&self) -> bool {
        self.0.borrow().notify_sent
    }

    pub fn notify_received(&self) -> bool {
        self.0.borrow().notify_received
    }

    /// A whole record, or plaintext, waits to be read.
    pub fn has_record(&self) -> bool {
        let state = self.0.borrow();
        !state.plain.is_empty() || state.whole(0).is_some()
    }

    /// Plaintext waits to be read, in front of everything that could end it.
    pub fn has_plaintext(&self) -> bool {
        let state = self.0.borrow();
        let (mut found, mut skip) = (!state.plain.is_empty(), 0);
        while let Some((kind, len)) = state.whole(skip) {
            found |= kind == DATA && len > HEADER + NUMBER + SUM;
            if kind == ALERT || found {
                break;
            }
            skip += len;
        }
        found
    }

    /// Sends a record without data, if it may: true when it did.
    pub fn say(&self, said: Said) -> bool {
        let mut state = self.0.borrow_mut();
        let may = state.is_made() && state.failed.is_none() && !state.notify_sent && !state.blocked;
        if may {
            match said {
                Said::Ticket => state.emit_control(HANDSHAKE, TICKET, 0),
                Said::Update => state.emit_control(HANDSHAKE, UPDATE, 1),
                Said::Ask => state.emit_control(HANDSHAKE, ASK, 0),
                Said::Renew => state.renews = true,
                Said::Nothing => state.emit(DATA, &[]),
            }
        }
        may
    }
}

/// What an engine sends by itself once the handshake is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    Ticket,
    /// A key update that asks for another.
    Update,
    /// The peer is to begin a new handshake.
    Ask,
    /// Not now, but in the middle of the next write: a new handshake.
    Renew,
    /// A record of data that has none.
    Nothing,
}

/// Differs for records that differ in one byte.
fn sum(bytes: &[u8]) -> [u8; SUM] {
    bytes.iter().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())).to_be_bytes()
}

impl State {
    fn is_made(&self) -> bool {
        self.flight >= self.setup.flights
    }

    /// The type and the length of the record that begins behind `skip` bytes, if it is whole.
    fn whole(&self, skip: usize) -> Option<(u8, usize)> {
        let byte = |at: usize| {
            let at = skip + at;
            self.partial.get(at).or_else(|| self.incoming.get(at - self.partial.len())).copied()
        };
        let len = HEADER + usize::from(u16::from_be_bytes([byte(3)?, byte(4)?]));
        (self.partial.len() + self.incoming.len() >= skip + len).then_some((byte(0)?, len))
    }

    fn emit(&mut self, kind: u8, payload: &[u8]) {
        assert!(!self.notify_sent, "close_notify is the last record");
        let len = u16::try_from(NUMBER + payload.len() + SUM).unwrap_or(u16::MAX);
        let from = self.outgoing.len();
        self.outgoing.extend([kind, 3, 3]);
        self.outgoing.extend(len.to_be_bytes());
        self.outgoing.extend(self.sent.to_be_bytes());
        self.outgoing.extend(payload.iter().map(|byte| !byte));
        self.outgoing.extend(sum(&self.outgoing[from..]));
        self.sent = self.sent.wrapping_add(1);
    }

    fn emit_control(&mut self, kind: u8, says: u8, more: u8) {
        let mut payload = [says; PAYLOAD];
        payload[1] = more;
        self.emit(kind, &payload);
    }

    fn fail<T>(&mut self, error: EngineError) -> Outcome<T, EngineError> {
        if self.failed.is_none() && !self.notify_sent && error != EngineError::Alert {
            self.emit_control(ALERT, FATAL, 0);
        }
        Outcome::Failed(*self.failed.get_or_insert(error))
    }

    /// The next record, once it is whole.
    fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, EngineError> {
        loop {
            let need = if self.partial.len() < HEADER { HEADER } else { self.body()? };
            let n = (need - self.partial.len()).min(self.incoming.len());
            if !self.setup.greedy && self.partial.is_empty() && self.whole(0).is_none() {
                return self.peek_header().map(|()| None);
            }
            self.partial.extend(self.incoming.drain(..n));
            if self.partial.len() < need {
                return Ok(None);
            }
            if need > HEADER {
                break;
            }
        }
        let record = std::mem::take(&mut self.partial);
        let (record, told) = record.split_at(record.len() - SUM);
        let number = u16::from_be_bytes([record[HEADER], record[HEADER + 1]]);
        if number != self.received || sum(record) != told {
            return Err(EngineError::Garbage);
        }
        self.received = self.received.wrapping_add(1);
        Ok(Some((record[0], record[HEADER + NUMBER..].iter().map(|byte| !byte).collect())))
    }

    /// Bytes of the record whose header is in `partial`.
    fn body(&self) -> Result<usize, EngineError> {
        let [kind, _, _, high, low] = self.partial[..HEADER] else { return Err(EngineError::Garbage) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let known = (ALERT..=DATA).contains(&kind) && (NUMBER + SUM..=LONGEST).contains(&len);
        if known { Ok(HEADER + len) } else { Err(EngineError::Garbage) }
    }

    /// A header that is no header is known before its body came.
    fn peek_header(&mut self) -> Result<(), EngineError> {
        if self.incoming.len() < HEADER {
            return Ok(());
        }
        self.partial.extend(self.incoming.iter().take(HEADER));
        let result = self.body().map(drop);
        self.partial.clear();
        result
    }

    /// A handshake record after the handshake.
    fn handle_control(&mut self, payload: &[u8]) -> Result<(), EngineError> {
        match payload {
            [UPDATE, 1, ..] if !self.notify_sent => self.emit_control(HANDSHAKE, UPDATE, 0),
            [ASK, ..] if !self.notify_sent && !self.blocked => {
                self.emit_control(HANDSHAKE, HELLO, 0);
                self.blocked = true;
            }
            [HELLO, ..] if !self.notify_sent => self.emit_control(HANDSHAKE, ANSWER, 0),
            [ANSWER, ..] => self.blocked = false,
            [TICKET | UPDATE | ASK | HELLO, ..] => {}
            _ => return Err(EngineError::Unexpected),
        }
        Ok(())
    }

    fn handshake(&mut self) -> Outcome<(), EngineError> {
        if let Some(error) = self.failed {
            return Outcome::Failed(error);
        }
        while !self.is_made() {
            if self.flight.is_multiple_of(2) == (self.side == Side::Client) {
                self.emit_control(HANDSHAKE, FLIGHT, self.flight);
                self.flight += 1;
                continue;
            }
            match self.next() {
                Ok(None) => return Outcome::Again,
                Ok(Some((HANDSHAKE, payload))) if payload.starts_with(&[FLIGHT, self.flight]) => self.flight += 1,
                Ok(Some((ALERT, _))) => return self.fail(EngineError::Alert),
                Ok(Some(_)) => return self.fail(EngineError::Unexpected),
                Err(error) => return self.fail(error),
            }
        }
        if self.setup.tickets && self.side == Side::Server {
            self.emit_control(HANDSHAKE, TICKET, 0);
        }
        Outcome::Done(())
    }

    fn read(&mut self, max: usize) -> Outcome<Vec<u8>, EngineError> {
        if let Some(error) = self.failed {
            return Outcome::Failed(error);
        }
        if !self.is_made() {
            return self.fail(EngineError::InHandshake);
        }
        while self.plain.is_empty() && !self.notify_received {
            let handled = match self.next() {
                Ok(None) => return Outcome::Again,
                Ok(Some((DATA, payload))) => {
                    self.plain.extend(payload);
                    Ok(())
                }
                Ok(Some((HANDSHAKE, payload))) => self.handle_control(&payload),
                Ok(Some((_, payload))) if payload.first() == Some(&NOTIFY) => {
                    self.notify_received = true;
                    Ok(())
                }
                Ok(Some(_)) => Err(EngineError::Alert),
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                return self.fail(error);
            }
        }
        let n = max.min(self.plain.len());
        Outcome::Done(self.plain.drain(..n).collect())
    }

    fn write(&mut self, plaintext: &[u8]) -> Outcome<usize, EngineError> {
        if let Some(error) = self.failed {
            return Outcome::Failed(error);
        }
        if self.notify_sent {
            return self.fail(EngineError::WriteAfterNotify);
        }
        if !self.is_made() {
            return self.fail(EngineError::InHandshake);
        }
        while self.blocked && self.whole(0).is_some_and(|(kind, _)| kind == HANDSHAKE) {
            match self.next().and_then(|record| self.handle_control(&record.unwrap_or_default().1)) {
                Ok(()) => {}
                Err(error) => return self.fail(error),
            }
        }
        if self.blocked {
            return Outcome::Again;
        }
        let n = plaintext.len().min(self.setup.fragment.into());
        self.emit(DATA, &plaintext[..n]);
        if std::mem::take(&mut self.renews) {
            self.emit_control(HANDSHAKE, HELLO, 0);
            self.blocked = true;
        }
        Outcome::Done(n)
    }

    fn shutdown(&mut self) -> Outcome<(), EngineError> {
        if let Some(error) = self.failed {
            return Outcome::Failed(error);
        }
        if !self.is_made() || self.blocked {
            return self.fail(EngineError::InHandshake);
        }
        if !self.notify_sent {
            self.emit_control(ALERT, NOTIFY, 0);
            self.notify_sent = true;
        }
        if self.setup.is_quick(self.side) {
            return Outcome::Done(());
        }
        if self.setup.strict && !self.plain.is_empty() {
            return self.fail(EngineError::DataAfterNotify);
        }
        self.plain.clear();
        while !self.notify_received {
            let handled = match self.next() {
                Ok(None) => return Outcome::Again,
                Ok(Some((DATA, payload))) if self.setup.strict && !payload.is_empty() => {
                    Err(EngineError::DataAfterNotify)
                }
                Ok(Some((DATA, _))) => Ok(()),
                Ok(Some((HANDSHAKE, payload))) => self.handle_control(&payload),
                Ok(Some((_, payload))) if payload.first() == Some(&NOTIFY) => {
                    self.notify_received = true;
                    Ok(())
                }
                Ok(Some(_)) => Err(EngineError::Alert),
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                return self.fail(error);
            }
        }
        Outcome::Done(())
    }
}
