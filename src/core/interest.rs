//! Who waits for which file descriptor, and how the kernel is to be asked.
//!
//! Theory. A user's fd lives in an epoll of our own, because the user may close it at any moment. Two kinds of
//! interest share it:
//! - *watchers* (`add_reader`, `add_writer`): level-triggered. The callback fires on every look while the fd is ready,
//!   and never before it is. Registered level-triggered, exactly in the directions watched.
//! - *waiters* (`sock_*`): one wake-up each, after a call that found nothing. Registered edge-triggered in both directions
//!   and left registered, so that a ping-pong costs no `epoll_ctl`. An edge that came before the wait wakes it for nothing.
//!
//! While an fd has a watcher its registration is level-triggered, and the directions of its waiters are added. Going
//! back to edge-triggered re-arms the fd: epoll reports what is ready at once (`epoll_ctl(2)`, `EPOLL_CTL_MOD`), so no
//! edge is lost.
//!
//! A closed fd leaves the kernel's set by itself and its number may come back as another file. Two things keep whoever
//! waited for the old file from being reached by the new one:
//! - Every entry has a generation, sent to the kernel with the fd and compared when an event comes back: an event of an
//!   older generation reaches nobody.
//! - The kernel knows files, not numbers: `EPOLL_CTL_MOD` of a number that names another file now is `ENOENT`
//!   (`epoll_ctl(2)`), or `EPERM` if that cannot be polled. So whoever comes anew to an fd that has an entry causes a `Modify`, even of what is registered
//!   already, and a `Modify` that finds nothing means [`Interest::handle_reborn`].
//!
//! Not told apart are a file that comes back to a number by which it is still registered, as it lived on elsewhere, and the
//! file that had the number in between: the kernel finds what it knows, so both have the entry's generation.
//!
//! A closed fd stays in the kernel's set while its open file lives on, by a duplicate or in a forked child (`epoll(7)`). Such
//! a *stray* wakes the loop and cannot be deregistered, as its number is gone. It shows by its generation, or, where a
//! closed socket's entry is still there, by its file: that is looked at when events come and nobody waits for any
//! ([`Fired::doubtful`]). More strays than an eighth of the entries, and the kernel's set is to be made anew
//! ([`Interest::poll_renewal`]), so that a stray costs a few calls whatever the number of fds.
//!
//! The *level re-check*: our epoll is itself watched edge-triggered by Tokio, and a level-triggered fd inside makes no
//! new edge outside. So after a look that fired a level-triggered fd, or filled its batch, there must be another look
//! before the loop may sleep ([`Interest::io_pending`]).

use std::collections::VecDeque;

use super::by_fd::ByFd;
pub use super::sockop::Dir;

/// How an fd is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    Absent,
    /// Level-triggered in these directions.
    Level {
        read: bool,
        write: bool,
    },
    /// Edge-triggered in both directions.
    Edge,
}

/// What to tell the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Change {
    Keep,
    Add(Registration),
    Modify(Registration),
    Delete,
}

/// For whom a change was made: who stays when it turns out that the number names another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nobody: somebody left.
    Nobody,
    /// The watcher just set.
    Watcher(Dir),
    /// The `sock_*` operation that attached.
    Operation,
}

/// What an event found: run the watchers, wake the waiters.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Fired<W> {
    pub reader: bool,
    pub writer: bool,
    pub woken: VecDeque<W>,
    pub change: Change,
    /// Nobody waits, and not for the first time: the caller is to see whether the fd still names its file, and if not
    /// to call [`Interest::handle_closed`].
    pub doubtful: bool,
}

impl<W> Fired<W> {
    fn nobody() -> Self {
        Self { reader: false, writer: false, woken: VecDeque::new(), change: Change::Keep, doubtful: false }
    }
}

#[derive(Debug)]
struct Entry<W> {
    generation: u32,
    watchers: [Option<W>; 2],
    waiters: [VecDeque<(u32, W)>; 2],
    /// A `sock_*` operation used it: keep it registered.
    edge: bool,
    /// An event came that nobody waited for, with nobody coming since.
    unclaimed: bool,
    kernel: Registration,
}

impl<W> Entry<W> {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            watchers: [None, None],
            waiters: [VecDeque::new(), VecDeque::new()],
            edge: false,
            unclaimed: false,
            kernel: Registration::Absent,
        }
    }

    fn wanted(&self) -> Registration {
        if self.watchers.iter().any(Option::is_some) {
            let wants = |dir: Dir| self.watchers[dir as usize].is_some() || !self.waiters[dir as usize].is_empty();
            Registration::Level { read: wants(Dir::Read), write: wants(Dir::Write) }
        } else if self.edge {
            Registration::Edge
        } else {
            Registration::Absent
        }
    }

    /// Nobody waits.
    fn is_idle(&self) -> bool {
        self.watchers.iter().all(Option::is_none) && self.waiters.iter().all(VecDeque::is_empty)
    }

    fn settle(&mut self) -> Change {
        let wanted = self.wanted();
        let change = match (self.kernel, wanted) {
            (was, is) if was == is => Change::Keep,
            (Registration::Absent, is) => Change::Add(is),
            (_, Registration::Absent) => Change::Delete,
            (_, is) => Change::Modify(is),
        };
        self.kernel = wanted;
        change
    }

    /// Somebody came anew: has the kernel asked even if nothing changes, since only it knows whether `fd` still names
    /// the file that was registered.
    fn settle_anew(&mut self) -> Change {
        match self.settle() {
            Change::Keep => Change::Modify(self.kernel),
            change => change,
        }
    }
}

/// The table of a loop's user fds. `W` is who is told: a callback's handle, or the future of a waiter.
#[derive(Debug)]
pub struct Interest<W> {
    fds: ByFd<Box<Entry<W>>>,
    /// How many entries there are.
    entries: usize,
    /// Events of registrations that are nobody's, since the kernel's set was made.
    strays: usize,
    next_generation: u32,
    next_key: u32,
    pending: bool,
}

impl<W> Default for Interest<W> {
    fn default() -> Self {
        Self { fds: ByFd::default(), entries: 0, strays: 0, next_generation: 0, next_key: 0, pending: false }
    }
}

/// Names a waiter, so that it can take its wait back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitKey {
    pub fd: u32,
    generation: u32,
    key: u32,
    dir: Dir,
}

impl<W> Interest<W> {
    // ---- getters

    /// The generation of the fd's entry, which the kernel gets as part of its event data.
    #[must_use]
    pub fn generation(&self, fd: u32) -> Option<u32> {
        self.entry(fd).map(|entry| entry.generation)
    }

    #[must_use]
    pub fn watcher(&self, fd: u32, dir: Dir) -> Option<&W> {
        self.entry(fd)?.watchers[dir as usize].as_ref()
    }

    /// The registration that the kernel has been asked for.
    #[must_use]
    pub fn registration(&self, fd: u32) -> Registration {
        self.entry(fd).map_or(Registration::Absent, |entry| entry.kernel)
    }

    /// There must be another look before the loop may sleep.
    #[must_use]
    pub fn io_pending(&self) -> bool {
        self.pending
    }

    /// The fds that have a watcher, and in which directions: reading, writing.
    pub fn watched(&self) -> impl Iterator<Item = (u32, bool, bool)> {
        self.fds.iter().filter_map(|(fd, entry)| {
            let [read, write] = entry.watchers.each_ref().map(Option::is_some);
            (read || write).then_some((fd, read, write))
        })
    }

    /// Everybody in the table, for a garbage collector's traversal.
    pub fn waiting(&self) -> impl Iterator<Item = &W> {
        self.fds.iter().flat_map(|(_, entry)| {
            let waiters = entry.waiters.iter().flatten().map(|(_, waiter)| waiter);
            entry.watchers.iter().flatten().chain(waiters)
        })
    }

    /// What is registered: fd, how, and its generation.
    pub fn registrations(&self) -> impl Iterator<Item = (u32, Registration, u32)> {
        let registered = self.fds.iter().filter(|(_, entry)| entry.kernel != Registration::Absent);
        registered.map(|(fd, entry)| (fd, entry.kernel, entry.generation))
    }

    /// How many fds there is memory for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.fds.room()
    }

    // ---- the caller wants

    /// Watches `fd`; gives back the watcher that was replaced.
    pub fn set_watcher(&mut self, fd: u32, dir: Dir, watcher: W) -> (Change, Option<W>) {
        let entry = self.entry_or_new(fd);
        let old = entry.watchers[dir as usize].replace(watcher);
        (entry.settle_anew(), old)
    }

    /// Stops watching; gives back the watcher.
    pub fn clear_watcher(&mut self, fd: u32, dir: Dir) -> (Change, Option<W>) {
        let Some(entry) = self.entry_mut(fd) else { return (Change::Keep, None) };
        let old = entry.watchers[dir as usize].take();
        let change = if old.is_some() { entry.settle() } else { Change::Keep };
        self.reap(fd);
        (change, old)
    }

    /// A socket's first `sock_*` operation: from now on edges are remembered. Later operations of the same socket object
    /// need not attach, as long as [`Interest::generation`] is what it was.
    pub fn attach(&mut self, fd: u32) -> Change {
        let entry = self.entry_or_new(fd);
        entry.edge = true;
        entry.settle_anew()
    }

    /// Waits once for readiness.
    pub fn wait(&mut self, fd: u32, dir: Dir, waiter: W) -> (Change, WaitKey) {
        self.next_key = self.next_key.wrapping_add(1);
        let key = self.next_key;
        let entry = self.entry_or_new(fd);
        (entry.edge, entry.unclaimed) = (true, false);
        entry.waiters[dir as usize].push_back((key, waiter));
        (entry.settle(), WaitKey { fd, generation: entry.generation, key, dir })
    }

    /// Takes a wait back.
    pub fn unwait(&mut self, key: WaitKey) -> (Change, Option<W>) {
        let Some(entry) = self.entry_mut(key.fd) else { return (Change::Keep, None) };
        if entry.generation != key.generation {
            return (Change::Keep, None);
        }
        let waiters = &mut entry.waiters[key.dir as usize];
        let Some(at) = waiters.iter().position(|(of, _)| *of == key.key) else { return (Change::Keep, None) };
        let waiter = waiters.remove(at).map(|(_, waiter)| waiter);
        (entry.settle(), waiter)
    }

    /// Forgets `fd` wholly: it was closed, or its number names another file now. Gives back everybody who waited.
    pub fn forget(&mut self, fd: u32) -> Vec<W> {
        let Some(entry) = self.fds.remove(fd) else { return Vec::new() };
        self.entries -= 1;
        let Entry { watchers, waiters, .. } = *entry;
        let waiters = waiters.into_iter().flatten().map(|(_, waiter)| waiter);
        watchers.into_iter().flatten().chain(waiters).collect()
    }

    // ---- something happened

    /// The kernel refused a change for a watcher just set: it is gone again, and so is the registration.
    pub fn handle_refused(&mut self, fd: u32, dir: Dir) -> Option<W> {
        let entry = self.entry_mut(fd)?;
        entry.kernel = Registration::Absent;
        let watcher = entry.watchers[dir as usize].take();
        self.reap(fd);
        watcher
    }

    /// The kernel knows nothing of what was to be modified, so `fd` names another file than it did. Whoever waited for
    /// the old file is given back; whom the change was for gets a new entry, and this change.
    pub fn handle_reborn(&mut self, fd: u32, keep: Keep) -> (Change, Vec<W>) {
        let kept = match keep {
            Keep::Watcher(dir) => self.entry_mut(fd).and_then(|entry| entry.watchers[dir as usize].take()),
            Keep::Nobody | Keep::Operation => None,
        };
        let stale = self.forget(fd);
        let change = match (keep, kept) {
            (Keep::Watcher(dir), Some(watcher)) => self.set_watcher(fd, dir, watcher).0,
            (Keep::Operation, _) => self.attach(fd),
            _ => Change::Keep,
        };
        (change, stale)
    }

    /// The kernel reports `fd` as ready to `read` and to `write` (an error or a hang-up makes it both, as the `selectors`
    /// module has it).
    pub fn handle_event(&mut self, fd: u32, generation: u32, read: bool, write: bool) -> Fired<W> {
        let Some(entry) = self.entry_mut(fd).filter(|entry| entry.generation == generation) else {
            self.strays += 1;
            return Fired::nobody();
        };
        let mut fired = Fired::nobody();
        for (dir, ready) in [(Dir::Read, read), (Dir::Write, write)] {
            if !ready {
                continue;
            }
            fired.woken.extend(entry.waiters[dir as usize].drain(..).map(|(_, waiter)| waiter));
            let watched = entry.watchers[dir as usize].is_some();
            match dir {
                Dir::Read => fired.reader = watched,
                Dir::Write => fired.writer = watched,
            }
        }
        if !fired.woken.is_empty() {
            fired.change = entry.settle();
        } else if entry.is_idle() {
            // Each second time, as a live socket may well be written to and not be read.
            fired.doubtful = entry.unclaimed;
            entry.unclaimed = !entry.unclaimed;
        }
        if matches!(entry.kernel, Registration::Level { .. }) {
            self.pending = true;
        }
        fired
    }

    /// The fd of an event does not name the file any more that it did.
    #[must_use]
    pub fn handle_closed(&mut self, fd: u32) -> Vec<W> {
        self.strays += 1;
        self.forget(fd)
    }

    /// Whether the kernel's set is to be made anew, from [`Interest::registrations`], without what is nobody's.
    #[must_use]
    pub fn poll_renewal(&mut self) -> bool {
        let renew = self.strays > self.entries / 8;
        if renew {
            self.strays = 0;
        }
        renew
    }

    /// A look begins.
    pub fn begin_look(&mut self) {
        self.pending = false;
    }

    /// The look's batch was full: there may be more.
    pub fn handle_full(&mut self) {
        self.pending = true;
    }

    /// Our epoll became readable.
    pub fn handle_edge(&mut self) {
        self.pending = true;
    }

    // ---- helpers

    fn entry(&self, fd: u32) -> Option<&Entry<W>> {
        self.fds.at(fd).map(AsRef::as_ref)
    }

    fn entry_mut(&mut self, fd: u32) -> Option<&mut Entry<W>> {
        self.fds.at_mut(fd).map(AsMut::as_mut)
    }

    fn entry_or_new(&mut self, fd: u32) -> &mut Entry<W> {
        let (next, entries) = (&mut self.next_generation, &mut self.entries);
        self.fds.at_or_insert_with(fd, || {
            *entries += 1;
            *next = next.wrapping_add(1);
            Box::new(Entry::new(*next))
        })
    }

    /// Removes an entry that holds nothing any more.
    fn reap(&mut self, fd: u32) {
        let empty = self.entry(fd).is_some_and(|entry| !entry.edge && entry.is_idle());
        if empty {
            self.fds.remove(fd);
            self.entries -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_told_by_direction_and_waiters_are_not() {
        let mut interest = Interest::default();
        for (fd, dir) in [(3, Dir::Read), (5, Dir::Write), (8, Dir::Read), (8, Dir::Write)] {
            assert_eq!(interest.set_watcher(fd, dir, ()).1, None);
        }
        assert_ne!(interest.attach(9), Change::Keep);
        assert_eq!(interest.wait(9, Dir::Read, ()).0, Change::Keep);
        assert_eq!(interest.watched().collect::<Vec<_>>(), [(3, true, false), (5, false, true), (8, true, true)]);
    }

    #[test]
    fn the_set_is_made_anew_once_more_than_an_eighth_of_the_entries_are_strays() {
        let mut interest = Interest::default();
        assert_eq!(interest.room(), 0);
        for fd in 0..40 {
            assert_eq!(interest.set_watcher(fd, Dir::Read, fd).1, None);
        }
        assert!(interest.room() >= 40);
        assert_eq!(interest.waiting().copied().collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        let strays = |interest: &mut Interest<u32>, n: usize| {
            for _ in 0..n {
                assert!(interest.handle_closed(1000).is_empty());
            }
            interest.poll_renewal()
        };
        assert!(!strays(&mut interest, 5) && strays(&mut interest, 1));
        assert!(!strays(&mut interest, 5) && strays(&mut interest, 1), "and counted anew");
        // Neither who is forgotten nor who stops watching counts.
        (24..40).for_each(|fd| assert_eq!(interest.forget(fd), [fd]));
        (8..24).for_each(|fd| assert_eq!(interest.clear_watcher(fd, Dir::Read).1, Some(fd)));
        assert!(!strays(&mut interest, 1) && strays(&mut interest, 1));
    }

    #[test]
    fn there_is_more_to_come_behind_an_edge_and_a_full_batch() {
        let mut interest = Interest::<()>::default();
        assert!(!interest.io_pending());
        for told in [Interest::handle_edge, Interest::handle_full] {
            told(&mut interest);
            assert!(interest.io_pending());
            interest.begin_look();
            assert!(!interest.io_pending());
        }
    }
}
