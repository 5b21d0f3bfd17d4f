//! File descriptors and one epoll instance, as `epoll(7)` and `fs/eventpoll.c` have them.
//!
//! - A registration belongs to a pair of open file and number. Closing the last descriptor of the file removes it; while
//!   a duplicate keeps the file open it stays, reports on, and cannot be reached by its number (epoll(7), questions 6
//!   and "Closing file descriptors").
//! - A file whose state changes puts its registrations on the ready list, if they ask for that kind of change; so do
//!   ADD and MOD of a file that is ready. A wait takes from the list, asks each file for its state, reports what was
//!   asked for and puts level-triggered ones back, at the end.
//! - The epoll is itself a file watched by an outer, edge-triggered epoll: that edge comes from changes, ADD and MOD only.
//!   Putting a level-triggered registration back makes none. The number of the lowest free descriptor is given out next.

use std::collections::VecDeque;

use crate::core::interest::Registration;
use crate::core::sockop::Dir;

/// Identifies an open file.
pub type FileId = usize;

/// Why `epoll_ctl(2)` failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errno {
    /// EBADF: the number is closed.
    Closed,
    /// EPERM: the file cannot be polled.
    NotPollable,
    /// EEXIST: registered already.
    Exists,
    /// ENOENT: not registered.
    Missing,
}

/// The operation of `epoll_ctl(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    Add,
    Modify,
    Delete,
}

/// One event of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// The data that was registered: number and generation.
    pub data: (u32, u32),
    /// The file it is about; the machine under test does not get to see it.
    pub file: FileId,
    pub read: bool,
    pub write: bool,
}

/// The state of an open file: a socket, or a regular file that cannot be polled.
#[derive(Debug)]
struct File {
    inode: u64,
    descriptors: u32,
    pollable: bool,
    /// Bytes to read, and bytes that can be written.
    unread: u32,
    room: u32,
    /// The peer ended its half (EPOLLRDHUP), or there is an error (EPOLLERR, EPOLLHUP).
    ended: bool,
    error: bool,
}

impl File {
    fn is_ready(&self, dir: Dir) -> bool {
        match dir {
            Dir::Read => self.unread > 0 || self.ended || self.error,
            Dir::Write => self.room > 0 || self.error,
        }
    }
}

/// A registration.
#[derive(Debug)]
struct Item {
    file: FileId,
    fd: u32,
    data: (u32, u32),
    registration: Registration,
    /// It is on the ready list.
    queued: bool,
}

/// The kernel.
#[derive(Debug, Default)]
pub struct Kernel {
    fds: Vec<Option<FileId>>,
    files: Vec<File>,
    /// Registrations by serial number; freed ones are `None`.
    items: Vec<Option<Item>>,
    ready: VecDeque<usize>,
    edge: bool,
}

impl Kernel {
    /// Opens a file at the lowest free number.
    pub fn open(&mut self, pollable: bool, room: u32) -> u32 {
        // The lowest that is free: that of a closed file is given out again.
        let taken = |inode| self.files.iter().any(|file| file.descriptors > 0 && file.inode == inode);
        let mut inode = 1;
        while taken(inode) {
            inode += 1;
        }
        let file = File { inode, descriptors: 0, pollable, unread: 0, room, ended: false, error: false };
        self.files.push(file);
        let at = self.fds.iter().position(Option::is_none).unwrap_or(self.fds.len());
        self.install(at, self.files.len() - 1)
    }

    /// Duplicates a descriptor, at a number that was never used.
    pub fn duplicate(&mut self, fd: u32) -> Option<u32> {
        let file = self.file(fd)?;
        Some(self.install(self.fds.len(), file))
    }

    fn install(&mut self, at: usize, file: FileId) -> u32 {
        if at == self.fds.len() {
            self.fds.push(None);
        }
        self.fds[at] = Some(file);
        self.files[file].descriptors += 1;
        u32::try_from(at).expect("few descriptors")
    }

    /// Closes a descriptor, if it is open. With the last one of its file the registrations go.
    pub fn close(&mut self, fd: u32) {
        let Some(file) = self.fds.get_mut(fd as usize).and_then(Option::take) else { return };
        self.files[file].descriptors -= 1;
        if self.files[file].descriptors == 0 {
            for item in &mut self.items {
                item.take_if(|item| item.file == file);
            }
        }
    }

    /// `dup2(2)`: `onto`, which is closed first, names the file of `fd` from now on. False when that is closed.
    pub fn replace(&mut self, fd: u32, onto: u32) -> bool {
        let Some(file) = self.file(fd) else { return false };
        if fd != onto {
            self.files[file].descriptors += 1;
            self.close(onto);
            self.files[file].descriptors -= 1;
            self.install(onto as usize, file);
        }
        true
    }

    /// The inode of a number's file.
    #[must_use]
    pub fn inode(&self, fd: u32) -> Option<u64> {
        self.file(fd).map(|file| self.files[file].inode)
    }

    /// The open file of a number.
    #[must_use]
    pub fn file(&self, fd: u32) -> Option<FileId> {
        self.fds.get(fd as usize).copied().flatten()
    }

    /// Whether a call in this direction would not block.
    #[must_use]
    pub fn is_ready(&self, file: FileId, dir: Dir) -> bool {
        self.files[file].is_ready(dir)
    }

    /// Whether the file is registered by this number, whatever that names now.
    #[must_use]
    pub fn is_registered(&self, file: FileId, fd: u32) -> bool {
        self.find(file, fd).is_some()
    }

    /// How the number is registered, for the file that it names now.
    #[must_use]
    pub fn registration(&self, fd: u32) -> Registration {
        self.file(fd)
            .and_then(|file| self.find(file, fd))
            .and_then(|at| self.items[at].as_ref())
            .map_or(Registration::Absent, |item| item.registration)
    }

    // ---- the peer, and calls on the file

    /// Bytes arrive.
    pub fn arrive(&mut self, file: FileId, n: u32) {
        self.files[file].unread = self.files[file].unread.saturating_add(n);
        self.wake(file, Dir::Read);
    }

    /// The peer takes bytes, so that there is room for more.
    pub fn make_room(&mut self, file: FileId, n: u32) {
        self.files[file].room = self.files[file].room.saturating_add(n);
        self.wake(file, Dir::Write);
    }

    /// The peer ends its half.
    pub fn end(&mut self, file: FileId) {
        self.files[file].ended = true;
        self.wake(file, Dir::Read);
    }

    /// The connection breaks.
    pub fn break_off(&mut self, file: FileId) {
        self.files[file].error = true;
        self.wake(file, Dir::Read);
        self.wake(file, Dir::Write);
    }

    /// `recv(2)`; `None` is EAGAIN, 0 the end or an error.
    pub fn recv(&mut self, file: FileId, max: u32) -> Option<u32> {
        let state = &mut self.files[file];
        let n = max.min(state.unread);
        state.unread -= n;
        (n > 0 || state.ended || state.error).then_some(n)
    }

    /// `send(2)`; `None` is EAGAIN, 0 an error.
    pub fn send(&mut self, file: FileId, len: u32) -> Option<u32> {
        let state = &mut self.files[file];
        if state.error {
            return Some(0);
        }
        let n = len.min(state.room);
        state.room -= n;
        (n > 0).then_some(n)
    }

    // ---- epoll

    /// `epoll_ctl(2)`.
    ///
    /// # Errors
    /// The errno.
    pub fn control(
        &mut self,
        control: Control,
        fd: u32,
        registration: Registration,
        data: (u32, u32),
    ) -> Result<(), Errno> {
        let file = self.file(fd).ok_or(Errno::Closed)?;
        if !self.files[file].pollable {
            return Err(Errno::NotPollable);
        }
        let at = match (control, self.find(file, fd)) {
            (Control::Add, Some(_)) => return Err(Errno::Exists),
            (Control::Add, None) => {
                self.items.push(Some(Item { file, fd, data, registration, queued: false }));
                self.items.len() - 1
            }
            (_, None) => return Err(Errno::Missing),
            (Control::Delete, Some(at)) => {
                self.items[at] = None;
                return Ok(());
            }
            (Control::Modify, Some(at)) => at,
        };
        if let Some(item) = &mut self.items[at] {
            item.registration = registration;
            item.data = data;
        }
        if self.report(at).is_some() {
            self.queue(at);
        }
        Ok(())
    }

    /// A new epoll instance takes the place of the old one; what was registered there is forgotten.
    pub fn renew(&mut self) {
        self.items.clear();
        self.ready.clear();
        self.edge = false;
    }

    /// Whether the outer epoll has an edge to report.
    #[must_use]
    pub fn has_edge(&self) -> bool {
        self.edge && self.ready.iter().any(|&at| self.report(at).is_some())
    }

    /// Takes that edge.
    pub fn take_edge(&mut self) -> bool {
        let edge = self.has_edge();
        self.edge = false;
        edge
    }

    /// `epoll_wait(2)` without waiting, for at most `max` events.
    pub fn wait(&mut self, max: usize) -> Vec<Report> {
        let mut reports = Vec::new();
        // Each is visited once: what is put back comes behind.
        for _ in 0..self.ready.len() {
            if reports.len() == max {
                break;
            }
            let Some(at) = self.ready.pop_front() else { break };
            let report = self.report(at);
            let Some(item) = &mut self.items[at] else { continue };
            item.queued = report.is_some() && item.registration != Registration::Edge;
            if item.queued {
                self.ready.push_back(at);
            }
            reports.extend(report);
        }
        reports
    }

    fn find(&self, file: FileId, fd: u32) -> Option<usize> {
        self.items.iter().position(|item| item.as_ref().is_some_and(|item| item.file == file && item.fd == fd))
    }

    /// The state of the file in this direction changed: `ep_poll_callback`.
    fn wake(&mut self, file: FileId, dir: Dir) {
        for at in 0..self.items.len() {
            let concerned = self.items[at].as_ref().is_some_and(|item| {
                item.file == file
                    && match item.registration {
                        Registration::Absent => false,
                        Registration::Edge => true,
                        // EPOLLERR and EPOLLHUP are reported whether asked for or not.
                        Registration::Level { read, write } => {
                            self.files[file].error || if dir == Dir::Read { read } else { write }
                        }
                    }
            });
            if concerned {
                self.queue(at);
            }
        }
    }

    fn queue(&mut self, at: usize) {
        self.edge = true;
        if let Some(item) = &mut self.items[at]
            && !std::mem::replace(&mut item.queued, true)
        {
            self.ready.push_back(at);
        }
    }

    /// What a wait reports of a registration: `ep_item_poll`, and the reading of the bits by the `selectors` module.
    fn report(&self, at: usize) -> Option<Report> {
        let item = self.items[at].as_ref()?;
        let file = &self.files[item.file];
        let (read, write, ended) = match item.registration {
            Registration::Absent => (false, false, false),
            Registration::Edge => (true, true, file.ended),
            Registration::Level { read, write } => (read, write, false),
        };
        let report = Report {
            data: item.data,
            file: item.file,
            read: (read && file.is_ready(Dir::Read)) || ended || file.error,
            write: (write && file.room > 0) || file.error,
        };
        (report.read || report.write).then_some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Registration = Registration::Level { read: true, write: false };

    fn registered(registration: Registration) -> (Kernel, u32, FileId) {
        let mut kernel = Kernel::default();
        let fd = kernel.open(true, 0);
        assert_eq!(kernel.control(Control::Add, fd, registration, (fd, 1)), Ok(()));
        let file = kernel.file(fd).expect("it is open");
        (kernel, fd, file)
    }

    #[test]
    fn level_reports_while_it_is_ready_and_makes_one_outer_edge() {
        let (mut kernel, _, file) = registered(READ);
        kernel.arrive(file, 1);
        assert!(kernel.take_edge());
        assert_eq!((kernel.wait(9).len(), kernel.wait(9).len(), kernel.take_edge()), (1, 1, false));
        assert_eq!(kernel.recv(file, 9), Some(1));
        assert_eq!((kernel.wait(9).len(), kernel.recv(file, 9)), (0, None));
    }

    #[test]
    fn an_edge_is_reported_once_per_change_and_again_when_modified() {
        let (mut kernel, fd, file) = registered(Registration::Edge);
        kernel.arrive(file, 1);
        assert_eq!((kernel.wait(9).len(), kernel.wait(9).len()), (1, 0));
        kernel.arrive(file, 1);
        assert_eq!((kernel.wait(9).len(), kernel.wait(9).len()), (1, 0));
        assert_eq!(kernel.control(Control::Modify, fd, Registration::Edge, (fd, 2)), Ok(()));
        assert_eq!(kernel.wait(9).first().map(|report| report.data), Some((fd, 2)));
    }

    #[test]
    fn a_closed_file_is_forgotten_and_a_duplicated_one_is_not() {
        let (mut kernel, fd, file) = registered(READ);
        kernel.arrive(file, 1);
        let copy = kernel.duplicate(fd);
        kernel.close(fd);
        assert_eq!(kernel.wait(9).len(), 1);
        assert_eq!(kernel.open(true, 0), fd);
        assert_eq!(kernel.control(Control::Modify, fd, READ, (fd, 2)), Err(Errno::Missing));
        kernel.close(copy.expect("it was open"));
        assert_eq!(kernel.wait(9).len(), 0);
    }

    #[test]
    fn a_full_batch_leaves_the_rest_in_front() {
        let mut kernel = Kernel::default();
        for generation in 0..3 {
            let fd = kernel.open(true, 1);
            assert_eq!(kernel.control(Control::Add, fd, Registration::Edge, (fd, generation)), Ok(()));
        }
        let fds = |reports: Vec<Report>| reports.iter().map(|report| report.data.0).collect::<Vec<_>>();
        assert_eq!((fds(kernel.wait(2)), fds(kernel.wait(2))), (vec![0, 1], vec![2]));
    }
}
