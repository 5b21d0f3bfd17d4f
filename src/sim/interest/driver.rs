//! Carries the operations out as the layers above `core::interest` do, and asserts the invariants.

use std::collections::{HashMap, VecDeque};

use super::super::kernel::{Control, Errno, FileId, Kernel};
use super::{Act, Event, FDS, Op, Reaction};
use crate::core::drive::interest::{self as drive, Refusal, Table, Waiting};
use crate::core::drive::sockop::{self, Attempt, Outcome};
use crate::core::interest::{Change, Interest, Keep, Registration, WaitKey};
use crate::core::owners::{Owner, Owners};
use crate::core::sockop::{Dir, Misuse, SockOp};

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
    operation: Option<Operation>,
}

/// A `sock_*` operation of a socket object.
#[derive(Debug)]
struct Operation {
    machine: SockOp,
    socket: u32,
    wait: Option<WaitKey>,
}

#[derive(Debug, Default)]
pub(super) struct Sim {
    interest: Interest<u32>,
    owners: Owners<u32>,
    kernel: Kernel,
    /// The socket object of each open number.
    sockets: HashMap<u32, u32>,
    next_socket: u32,
    parties: Vec<Party>,
    /// What operations have registered: number, file and the generation they found.
    attached: HashMap<(FileId, u32), u32>,
    /// The inode of the file that an operation of each number waited for last.
    inodes: HashMap<u32, u64>,
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
                    self.opened(fd);
                }
            }
            Act::Replace { fd, by } => {
                let (fd, by) = (fd.into(), by.into());
                // A file that comes back to a number where it is still registered, as it lived on elsewhere, shares a
                // generation with the one in between: whoever waits may be told of that, too, as by `selectors`. And
                // Linux counts the inodes of sockets up: two under one socket object differ.
                let came_back = self.kernel.file(by).is_some_and(|file| self.kernel.is_registered(file, fd))
                    || self.inodes.get(&fd).is_some_and(|inode| self.kernel.inode(by) == Some(*inode));
                if self.kernel.file(fd).is_some() && (fd == by || !came_back) {
                    self.kernel.replace(by, fd);
                }
            }
            Act::Close { fd } => self.close(fd.into()),
            Act::Reopen { fd, dir } => {
                self.close(fd.into());
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
        self.opened(fd);
        fd
    }

    fn opened(&mut self, fd: u32) {
        self.next_socket += 1;
        self.sockets.insert(fd, self.next_socket);
        self.events.push(Event::Opened(fd));
    }

    fn close(&mut self, fd: u32) {
        self.sockets.remove(&fd);
        self.kernel.close(fd);
    }

    fn move_bytes(&mut self, file: FileId, dir: Dir, n: u32) -> Option<u32> {
        match dir {
            Dir::Read => self.kernel.recv(file, n),
            Dir::Write => self.kernel.send(file, n),
        }
    }

    fn party(&mut self, fd: u32, file: FileId, dir: Dir, operation: Option<Operation>) -> u32 {
        let id = u32::try_from(self.parties.len()).expect("few parties");
        self.parties.push(Party { fd, file, dir, live: true, operation });
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
        let (Some(file), Some(&socket)) = (self.kernel.file(fd), self.sockets.get(&fd)) else { return };
        let mut machine = SockOp::new(dir);
        if dir == Dir::Write {
            machine.set_total(MESSAGE as usize);
        }
        let id = self.party(fd, file, dir, Some(Operation { machine, socket, wait: None }));
        self.advance(id);
    }

    /// The task of an operation runs.
    fn advance(&mut self, id: u32) {
        self.operation(id).wait = None;
        // Until it waits, the table does not hold it.
        self.parties[id as usize].live = false;
        let outcome = sockop::step(&mut Step { sim: self, id });
        let Party { fd, dir, .. } = self.parties[id as usize];
        match outcome {
            Ok(Outcome::Waits(())) => {
                self.parties[id as usize].live = true;
                self.events.push(Event::Waits { party: id, fd, dir });
            }
            Ok(Outcome::Finished(None)) => {
                let moved = self.operation(id).machine.moved();
                self.events.push(Event::Finished { party: id, moved });
            }
            Ok(Outcome::Finished(Some(moved))) => {
                self.events.push(Event::Finished { party: id, moved });
            }
            Ok(Outcome::Deferred) => unreachable!("no operation connects"),
            Err(_) => {}
        }
        assert!(self.parties[id as usize].live || self.operation(id).machine.is_done());
    }

    fn operation(&mut self, id: u32) -> &mut Operation {
        self.parties[id as usize].operation.as_mut().expect("it is an operation")
    }

    fn cancel(&mut self, nth: u8) {
        let operations = (0..).zip(&self.parties).filter(|(_, party)| party.operation.is_some());
        let live: Vec<u32> = operations.filter(|(_, party)| party.live).map(|(id, _)| id).collect();
        let Some(&id) = live.iter().rev().nth(nth.into()) else { return };
        self.parties[id as usize].live = false;
        sockop::end(&mut Step { sim: self, id });
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
            if fired.doubtful && !self.owners.is_same_file(fd, self.kernel.inode(fd)) {
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

    /// Carries a change out; tells of those who waited for a file that is gone.
    fn settle(&mut self, fd: u32, change: Change, keep: Keep) -> Result<(), Errno> {
        let (result, stale) = Table::settle(self, fd, change, keep);
        self.end_stale(stale);
        result
    }

    fn end_stale(&mut self, stale: Vec<u32>) {
        self.events.extend(stale.iter().map(|&party| Event::Stale { party }));
        self.drop_parties(stale);
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
        let told = self.interest.waiting().count();
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

impl Table<u32> for Sim {
    type Socket = u32;
    type Error = Errno;

    fn interest(&mut self) -> &mut Interest<u32> {
        &mut self.interest
    }

    fn owners(&mut self) -> &mut Owners<u32> {
        &mut self.owners
    }

    fn settle(&mut self, fd: u32, change: Change, keep: Keep) -> (Result<(), Errno>, Vec<u32>) {
        drive::settle(&mut self.interest, &mut Told(&mut self.kernel, &mut self.events), fd, change, keep)
    }
}

/// The kernel, and the events that tell of what it is asked.
struct Told<'a>(&'a mut Kernel, &'a mut Vec<Event>);

impl drive::Kernel for Told<'_> {
    type Error = Errno;

    /// As `Reactor::apply` of the io layer.
    fn control(&mut self, fd: u32, generation: u32, change: Change) -> Result<(), Errno> {
        let mut control = |control, registration| self.0.control(control, fd, registration, (fd, generation));
        let result = match change {
            Change::Keep => unreachable!("nothing changes"),
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
        self.1.push(Event::Told { fd, change, result });
        result
    }

    fn refusal(error: &Errno) -> Refusal {
        match error {
            Errno::Closed => Refusal::Closed,
            Errno::Missing | Errno::NotPollable => Refusal::Reborn,
            Errno::Exists => Refusal::Other,
        }
    }
}

/// An operation of which a step is run.
struct Step<'a> {
    sim: &'a mut Sim,
    id: u32,
}

/// The call failed, or cannot be waited for.
#[derive(Debug)]
struct Failed;

impl sockop::Host for Step<'_> {
    type Error = Failed;
    type Value = usize;
    type Pending = ();

    fn machine<R>(&mut self, f: impl FnOnce(&mut SockOp) -> R) -> R {
        f(&mut self.sim.operation(self.id).machine)
    }

    fn prepare(&mut self, _fresh: bool) -> Result<(), Failed> {
        let (fd, socket) = (self.sim.parties[self.id as usize].fd, self.sim.operation(self.id).socket);
        if self.sim.sockets.get(&fd) != Some(&socket) {
            // The socket was closed.
            return Err(Failed);
        }
        self.sim.parties[self.id as usize].file = self.sim.kernel.file(fd).ok_or(Failed)?;
        Ok(())
    }

    fn attempt(&mut self) -> Result<Attempt<usize>, Failed> {
        let Party { file, dir, .. } = self.sim.parties[self.id as usize];
        let left = MESSAGE - u32::try_from(self.sim.operation(self.id).machine.moved()).unwrap_or(MESSAGE);
        match (self.sim.move_bytes(file, dir, left), dir) {
            (None, _) => Ok(Attempt::Blocked),
            (Some(0), Dir::Write) => Err(Failed),
            (Some(n), Dir::Read) => Ok(Attempt::Done(n as usize)),
            (Some(n), Dir::Write) => Ok(Attempt::Moved(n as usize)),
        }
    }

    fn wait(&mut self, dir: Dir) -> Result<(), Failed> {
        let Self { sim, id } = self;
        let (fd, file) = (sim.parties[*id as usize].fd, sim.parties[*id as usize].file);
        let (socket, inode) = (sim.operation(*id).socket, sim.kernel.inode(fd));
        let known = sim.owners.owns(fd, inode, |owner| *owner == socket);
        let newcomer = (!known).then_some(Owner { socket, inode });
        let Waiting { result, stale, dropped } = drive::wait(&mut **sim, fd, dir, *id, newcomer);
        drop(dropped);
        sim.end_stale(stale);
        let Ok(key) = result else {
            assert_eq!(sim.interest.generation(fd), None, "a refused operation leaves nothing");
            return Err(Failed);
        };
        sim.operation(*id).wait = Some(key);
        let generation = sim.interest.generation(fd).expect("it is registered");
        sim.attached.insert((file, fd), generation);
        sim.inodes.extend(inode.map(|inode| (fd, inode)));
        Ok(())
    }

    fn dispose(&mut self) {
        if let Some(key) = self.sim.operation(self.id).wait.take() {
            let (_waiter, stale) = drive::unwait(&mut *self.sim, key);
            self.sim.end_stale(stale);
        }
    }

    fn misused(&mut self, misuse: Misuse) -> Failed {
        unreachable!("{misuse:?}")
    }
}
