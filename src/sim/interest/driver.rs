//! Carries the operations out as the layers above `core::interest` do, and asserts the invariants.

use std::collections::{HashMap, VecDeque};

use super::super::kernel::{Control, Errno, FileId, Kernel};
use super::{Act, Event, FDS, Op, Reaction};
use crate::core::interest::{Change, Interest, Keep, Registration, WaitKey};
use crate::core::sockop::{Dir, Next, SockOp};

/// Events that one look takes: small, so that full batches are common.
const BATCH: usize = 3;
/// No number of a user's makes the table larger.
const ROOM: usize = 1 << 15;
/// Reports that nobody waits for, until the loop gets rid of them.
const STRAYS: usize = 2 * FDS as usize;
/// Bytes that an operation moves.
const MESSAGE: u32 = 16;

/// Somebody who waits for a file: a watcher's callback, or an operation.
#[derive(Debug)]
struct Party {
    fd: u32,
    file: FileId,
    dir: Dir,
    /// It may be told: in the table, not cancelled.
    live: bool,
    operation: Option<(SockOp, Option<WaitKey>)>,
}

#[derive(Debug, Default)]
pub(super) struct Sim {
    interest: Interest<u32>,
    kernel: Kernel,
    parties: Vec<Party>,
    /// The sockets that attached, and the generation they found. A file stands for its socket object.
    attached: HashMap<(FileId, u32), u32>,
    reactions: VecDeque<Reaction>,
    events: Vec<Event>,
    /// Reports that reached nobody since the last look that had none.
    strays: usize,
}

impl Sim {
    /// What happened.
    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }

    pub(super) fn apply(&mut self, op: Op) {
        let file = |fd: u8| self.kernel.file(fd.into());
        match op {
            Op::Act(act) => self.act(act),
            Op::React(reaction) => self.reactions.push_back(reaction),
            Op::Arrive { fd, n } => {
                if let Some(file) = file(fd) {
                    self.kernel.arrive(file, n.into());
                }
            }
            Op::MakeRoom { fd, n } => {
                if let Some(file) = file(fd) {
                    self.kernel.make_room(file, n.into());
                }
            }
            Op::End { fd } => {
                if let Some(file) = file(fd) {
                    self.kernel.end(file);
                }
            }
            Op::Break { fd } => {
                if let Some(file) = file(fd) {
                    self.kernel.break_off(file);
                }
            }
            Op::Look => self.look(),
        }
    }

    // ---- the user

    fn act(&mut self, act: Act) {
        match act {
            Act::Open { socket } => {
                self.open(socket);
            }
            Act::Duplicate { fd } => {
                if let Some(fd) = self.kernel.duplicate(fd.into()) {
                    self.events.push(Event::Opened(fd));
                }
            }
            Act::Close { fd } => self.kernel.close(fd.into()),
            Act::Reopen { fd, dir } => {
                self.kernel.close(fd.into());
                let fd = self.open(true);
                self.watch(fd, dir);
            }
            Act::Watch { fd, dir } => self.watch(fd.into(), dir),
            Act::Unwatch { fd, dir } => self.unwatch(fd.into(), dir),
            Act::Start { fd, dir } => self.start(fd.into(), dir),
            Act::Far { number, dir } => {
                self.watch(number, dir);
                self.unwatch(number, dir);
            }
            Act::Cancel { nth } => self.cancel(nth),
            Act::Move { fd, dir, n } => {
                if let Some(file) = self.kernel.file(fd.into()) {
                    self.move_bytes(file, dir, n.into());
                }
            }
        }
    }

    fn open(&mut self, socket: bool) -> u32 {
        let fd = self.kernel.open(socket, 8);
        self.events.push(Event::Opened(fd));
        fd
    }

    fn move_bytes(&mut self, file: FileId, dir: Dir, n: u32) -> Option<u32> {
        match dir {
            Dir::Read => self.kernel.recv(file, n),
            Dir::Write => self.kernel.send(file, n),
        }
    }

    fn party(&mut self, fd: u32, file: FileId, dir: Dir, operation: Option<SockOp>) -> u32 {
        let id = u32::try_from(self.parties.len()).expect("few parties");
        self.parties.push(Party { fd, file, dir, live: true, operation: operation.map(|op| (op, None)) });
        id
    }

    fn watch(&mut self, fd: u32, dir: Dir) {
        // A closed number is watched too: the kernel says EBADF.
        let file = self.kernel.file(fd).unwrap_or(FileId::MAX);
        let id = self.party(fd, file, dir, None);
        let (change, old) = self.interest.set_watcher(fd, dir, id);
        self.drop_parties(old);
        let told = self.settle(fd, change, Keep::Watcher(dir));
        assert_eq!(told.is_ok(), self.parties[id as usize].live, "a refused watcher is gone, another one stays");
        assert_eq!(told.is_ok(), self.interest.watcher(fd, dir) == Some(&id));
    }

    fn unwatch(&mut self, fd: u32, dir: Dir) {
        let watcher = self.interest.watcher(fd, dir).copied();
        let (change, old) = self.interest.clear_watcher(fd, dir);
        assert_eq!(old, watcher);
        self.drop_parties(old);
        assert_eq!(self.settle(fd, change, Keep::Nobody), Ok(()));
    }

    fn drop_parties(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            let live = std::mem::replace(&mut self.parties[id as usize].live, false);
            assert!(live, "party {id} was given back twice");
        }
    }

    // ---- sock_* operations

    fn start(&mut self, fd: u32, dir: Dir) {
        let Some(file) = self.kernel.file(fd) else { return };
        let generation = self.interest.generation(fd);
        if generation.is_none() || self.attached.get(&(file, fd)).copied() != generation {
            let change = self.interest.attach(fd);
            if self.settle(fd, change, Keep::Operation).is_err() {
                assert_eq!(self.interest.generation(fd), None, "a refused attachment leaves nothing");
                return;
            }
            let generation = self.interest.generation(fd).expect("it is attached");
            self.attached.insert((file, fd), generation);
        }
        let mut op = SockOp::new(dir);
        if dir == Dir::Write {
            op.set_total(MESSAGE as usize);
        }
        let id = self.party(fd, file, dir, Some(op));
        self.advance(id);
    }

    /// The task of an operation runs.
    fn advance(&mut self, id: u32) {
        let Party { fd, file, dir, .. } = self.parties[id as usize];
        loop {
            let Some((op, _)) = &mut self.parties[id as usize].operation else { return };
            if self.kernel.file(fd) != Some(file) {
                // The socket was closed: the call raises.
                op.handle_ended();
                self.parties[id as usize].live = false;
                return;
            }
            let next = op.poll().expect("it is not done");
            let next = match next {
                Next::Try => {
                    let left = MESSAGE - u32::try_from(op.moved()).unwrap_or(MESSAGE);
                    let moved = self.move_bytes(file, dir, left);
                    let Some((op, _)) = &mut self.parties[id as usize].operation else { return };
                    match moved {
                        None => op.handle_blocked(),
                        // An error of the socket ends the operation.
                        Some(0) if dir == Dir::Write => {
                            op.handle_ended();
                            Next::Finish
                        }
                        Some(n) => op.handle_progress(n as usize),
                    }
                }
                next => next,
            };
            match next {
                Next::Try => {}
                Next::Wait(dir) => {
                    let (change, key) = self.interest.wait(fd, dir, id);
                    if let Some((_, wait)) = &mut self.parties[id as usize].operation {
                        *wait = Some(key);
                    }
                    assert_eq!(self.settle(fd, change, Keep::Nobody), Ok(()));
                    self.events.push(Event::Waits { party: id, fd, dir });
                    return;
                }
                Next::Finish => {
                    let party = &mut self.parties[id as usize];
                    party.live = false;
                    let moved = party.operation.as_ref().map_or(0, |(op, _)| op.moved());
                    self.events.push(Event::Finished { party: id, moved });
                    return;
                }
            }
        }
    }

    fn cancel(&mut self, nth: u8) {
        let operations = self.parties.iter_mut().rev().filter(|party| party.operation.is_some());
        let Some(party) = operations.skip(nth.into()).find(|party| party.live) else { return };
        party.live = false;
        let fd = party.fd;
        let Some((op, key)) = &mut party.operation else { return };
        if op.handle_ended()
            && let Some(key) = key.take()
        {
            let (change, _) = self.interest.unwait(key);
            assert_eq!(self.settle(fd, change, Keep::Nobody), Ok(()));
        }
    }

    // ---- the loop

    fn look(&mut self) {
        if self.kernel.take_edge() {
            self.interest.handle_edge();
        }
        if !self.interest.io_pending() {
            self.events.push(Event::Idle);
            return;
        }
        self.interest.begin_look();
        let reports = self.kernel.wait(BATCH);
        if reports.len() == BATCH {
            self.interest.handle_full();
        }
        let mut found = VecDeque::new();
        for report in reports {
            let (fd, generation) = report.data;
            let lives = self.kernel.file(fd) == Some(report.file);
            let fired = self.interest.handle_event(fd, generation, report.read, report.write);
            if fired.doubtful && !lives {
                let stale = self.interest.handle_closed(fd);
                assert!(stale.is_empty(), "nobody waited");
            }
            let waits = |party: &Party| party.live && (party.fd, party.file) == (fd, report.file);
            self.strays += usize::from(!lives && !self.parties.iter().any(waits));
            let watchers = [(fired.reader, Dir::Read), (fired.writer, Dir::Write)];
            let watchers = watchers.into_iter().filter(|(fired, _)| *fired);
            let watchers = watchers.filter_map(|(_, dir)| self.interest.watcher(fd, dir).copied());
            for id in watchers.chain(fired.woken) {
                let party = &self.parties[id as usize];
                assert!(party.live, "party {id} was told after it left");
                assert_eq!((party.fd, party.file), (fd, report.file), "party {id} was told of another file");
                assert!(self.kernel.is_ready(party.file, party.dir), "party {id} was told too early");
                found.push_back(id);
            }
            assert_eq!(self.settle(fd, fired.change, Keep::Nobody), Ok(()));
        }
        if self.interest.poll_renewal() {
            self.renew();
        }
        for id in found {
            if self.parties[id as usize].live {
                self.tell(id);
            }
        }
    }

    /// As `Reactor::renew_user` of the io layer.
    fn renew(&mut self) {
        self.strays = 0;
        let registrations: Vec<_> = self.interest.registrations().collect();
        let mut kept = Vec::new();
        for (fd, registration, generation) in registrations {
            if self.kernel.control(Control::Modify, fd, registration, (fd, generation)).is_ok() {
                kept.push((fd, registration, generation));
            }
        }
        self.kernel.renew();
        for (fd, registration, generation) in kept {
            let added = self.kernel.control(Control::Add, fd, registration, (fd, generation));
            assert_eq!(added, Ok(()));
        }
        self.events.push(Event::Renewed);
    }

    fn tell(&mut self, id: u32) {
        let Party { fd, file, dir, ref operation, .. } = self.parties[id as usize];
        if operation.is_some() {
            self.advance(id);
            return;
        }
        self.events.push(Event::Ran { party: id, fd, dir });
        match self.reactions.pop_front().unwrap_or(Reaction::Move(u8::MAX)) {
            Reaction::Nothing => {}
            Reaction::Move(n) => {
                self.move_bytes(file, dir, n.into());
            }
            Reaction::Unwatch => self.unwatch(fd, dir),
            Reaction::Do(act) => self.act(act),
        }
    }

    /// As `Reactor::settle` of the io layer.
    fn settle(&mut self, fd: u32, change: Change, keep: Keep) -> Result<(), Errno> {
        if change == Change::Keep {
            return Ok(());
        }
        let mut stale = Vec::new();
        let mut result = self.control(fd, change);
        let reborn = matches!(result, Err(Errno::Missing | Errno::NotPollable));
        if matches!(change, Change::Modify(_)) && reborn {
            let change;
            (change, stale) = self.interest.handle_reborn(fd, keep);
            result = self.control(fd, change);
        }
        match (result, keep) {
            (Ok(()), _) => {}
            (Err(Errno::Closed), _) | (_, Keep::Operation) => stale.extend(self.interest.forget(fd)),
            (_, Keep::Watcher(dir)) => stale.extend(self.interest.handle_refused(fd, dir)),
            (_, Keep::Nobody) => {}
        }
        self.events.extend(stale.iter().map(|&party| Event::Stale { party }));
        self.drop_parties(stale);
        if keep == Keep::Nobody { Ok(()) } else { result }
    }

    /// As `Reactor::apply` of the io layer.
    fn control(&mut self, fd: u32, change: Change) -> Result<(), Errno> {
        let data = (fd, self.interest.generation(fd).unwrap_or(0));
        let mut control = |control, registration| self.kernel.control(control, fd, registration, data);
        let result = match change {
            Change::Keep => return Ok(()),
            Change::Add(registration) => match control(Control::Add, registration) {
                Err(Errno::Exists) => control(Control::Modify, registration),
                result => result,
            },
            Change::Modify(registration) => control(Control::Modify, registration),
            Change::Delete => match control(Control::Delete, Registration::Absent) {
                Err(Errno::Missing | Errno::Closed | Errno::NotPollable) => Ok(()),
                result => result,
            },
        };
        self.events.push(Event::Told { fd, change, result });
        result
    }

    // ---- invariants

    /// Whether the party waits for the file that its number names.
    fn waits(&self, party: &Party) -> bool {
        party.live && self.kernel.file(party.fd) == Some(party.file)
    }

    pub(super) fn check(&self) {
        if !self.interest.io_pending() && !self.kernel.has_edge() {
            for (id, party) in self.parties.iter().enumerate().filter(|(_, party)| self.waits(party)) {
                let ready = self.kernel.is_ready(party.file, party.dir);
                assert!(!ready, "the loop may sleep while party {id} waits for a file that is ready");
            }
        }
        for fd in 0..u32::from(FDS) {
            self.check_registration(fd);
        }
        assert!(self.interest.room() <= ROOM, "room for {} fds", self.interest.room());
        assert!(self.strays <= STRAYS, "files that are closed here wake the loop for ever");
        let told = self.interest.parties().count();
        assert_eq!(told, self.parties.iter().filter(|party| party.live).count(), "the table holds who is to be told");
    }

    fn check_registration(&self, fd: u32) {
        let Some(file) = self.kernel.file(fd) else { return };
        let here = self.parties.iter().filter(|party| party.live && party.fd == fd);
        if here.clone().any(|party| party.file != file) {
            // Closed under its watchers: nobody has come since who could find out.
            return;
        }
        let generation = self.interest.generation(fd);
        let attached = generation.is_some() && self.attached.get(&(file, fd)).copied() == generation;
        let wants = |dir| here.clone().any(|party| party.dir == dir);
        let wanted = if here.clone().any(|party| party.operation.is_none()) {
            Registration::Level { read: wants(Dir::Read), write: wants(Dir::Write) }
        } else if attached {
            Registration::Edge
        } else {
            // An entry without parties may be left of a socket that was closed.
            return;
        };
        assert_eq!(self.kernel.registration(fd), wanted, "fd {fd} is not registered as wanted");
    }

    /// Whatever is ready is told, and then the loop sleeps.
    pub(super) fn finish(&mut self) {
        self.reactions.clear();
        for _ in 0..4 * self.parties.len() + 64 {
            self.look();
            self.check();
        }
    }
}
