//! System calls. With `stacks`, the only unsafe code of this layer.
//!
//! Contract: a [`BorrowedRawFd`] is a number, not an owner: Python's socket owns the file. Every function here may be
//! called with a number that is closed (the answer is `EBADF`); that it is not *another* file by then is what whoever
//! made the number promised (`py` asks the socket object for its number before each use).

use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{SockAddr, SockAddrStorage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file descriptor that somebody else owns. It is no [`BorrowedFd`], which promises to be open: a program may close a
/// socket under its transport, and another thread may be about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BorrowedRawFd(RawFd);

impl BorrowedRawFd {
    /// The number of no file: each call on it is `EBADF`.
    pub const NONE: Self = Self(-1);

    /// The file that `raw` names.
    ///
    /// # Safety
    /// No call is made on it once its owner has closed the file, as the number may be another's by then. Where the
    /// owner may do so unseen, whoever keeps this asks the owner for its number before each call.
    #[must_use]
    pub const unsafe fn new(raw: RawFd) -> Self {
        Self(raw)
    }

    /// The number, as tables of files have it.
    ///
    /// # Errors
    /// `EBADF` for [`BorrowedRawFd::NONE`].
    pub fn number(self) -> io::Result<u32> {
        u32::try_from(self.0).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// A file of the loop's own. It is kept beside whatever is made of this, and dropped after it.
    pub(super) fn of(owned: &impl AsFd) -> Self {
        // SAFETY: open as long as `owned` is, which the caller keeps, as said above.
        unsafe { Self::new(owned.as_fd().as_raw_fd()) }
    }
}

impl AsRawFd for BorrowedRawFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// Memory for the kernel to fill, by pointer and length. It is no `&mut [u8]`, which promises that nobody else looks:
/// Python lends one buffer to several, some of which read or write it without the GIL.
#[derive(Clone, Copy, Debug)]
pub struct RawBuf<'a> {
    start: *mut u8,
    len: usize,
    memory: PhantomData<&'a [MaybeUninit<u8>]>,
}

impl RawBuf<'_> {
    /// `len` bytes from `start`.
    ///
    /// # Safety
    /// They are allocated and writable as long as the lifetime says; what is in them does not matter.
    #[must_use]
    pub const unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self { start, len, memory: PhantomData }
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<'a> From<&'a mut [u8]> for RawBuf<'a> {
    fn from(memory: &'a mut [u8]) -> Self {
        Self { start: memory.as_mut_ptr(), len: memory.len(), memory: PhantomData }
    }
}

/// Registers a file with the runtime of the current context.
///
/// # Errors
/// The errno of `epoll_ctl(2)`: `EPERM` for a file that cannot be polled, `EBADF`, `EEXIST`, `ENOSPC`.
pub fn register<T: AsRawFd>(file: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: the number must name the same open file until the `AsyncFd` is dropped or forgotten. For the loop's own
    // files it does, as the `AsyncFd` owns them. For a socket of Python's, `Source` is dropped only while the socket
    // still has the number (`Source::deregister`), and forgotten otherwise; between a user's close and that, the kernel
    // has removed the file from the epoll, and every call of ours asks the socket for its number first.
    Ok(unsafe { AsyncFd::register_with_interest(file, interest) }?)
}

fn cvt(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `recv(2)`. Never blocks, whatever the socket's flags say.
///
/// # Errors
/// The errno.
pub fn recv(fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<usize> {
    // SAFETY: pointer and length are those of live memory, which the kernel may write to.
    cvt(unsafe { libc::recv(fd.0, buf.start.cast(), buf.len, libc::MSG_DONTWAIT) })
}

/// `send(2)` without SIGPIPE. Never blocks.
///
/// # Errors
/// The errno.
pub fn send(fd: BorrowedRawFd, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live slice.
    cvt(unsafe { libc::send(fd.0, buf.as_ptr().cast(), buf.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// `sendmsg(2)` of some slices: as [`send`].
///
/// # Errors
/// The errno; `EMSGSIZE` for more than `IOV_MAX` slices.
pub fn send_vectored(fd: BorrowedRawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a header of zeros is one without address, data and control.
    let mut header = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len();
    // SAFETY: an `IoSlice` has the layout of an `iovec`, which std guarantees. The header and the slices live through
    // the call, which only reads them.
    cvt(unsafe { libc::sendmsg(fd.0, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// `sendto(2)` of one datagram without SIGPIPE, to the peer of the socket where no address is given. Never blocks.
///
/// # Errors
/// The errno.
pub fn send_to(fd: BorrowedRawFd, buf: &[u8], to: Option<&SockAddr>) -> io::Result<()> {
    let (name, len) = to.map_or((std::ptr::null(), 0), |to| (to.as_ptr(), to.len()));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointers and lengths are those of a live slice and a live address, which the kernel copies.
    cvt(unsafe { libc::sendto(fd.0, buf.as_ptr().cast(), buf.len(), flags, name.cast(), len) }).map(drop)
}

/// Datagrams that one system call sends at most.
pub const DATAGRAM_BATCH: usize = 16;

/// `sendmmsg(2)` of the first [`DATAGRAM_BATCH`] datagrams without SIGPIPE: how many the kernel took. Never blocks.
///
/// # Errors
/// The errno that the first datagram met. What a later one meets shows when that one is first.
pub fn send_batch<'a>(
    fd: BorrowedRawFd,
    batch: impl Iterator<Item = (&'a [u8], Option<&'a SockAddr>)>,
) -> io::Result<usize> {
    let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; DATAGRAM_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::zeroed() }; DATAGRAM_BATCH];
    let mut count = 0;
    for ((slice, header), (bytes, to)) in slices.iter_mut().zip(&mut headers).zip(batch) {
        let slice = slice.write(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        // SAFETY: a header of zeros is one without address, data and control.
        let header = unsafe { header.assume_init_mut() };
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = to {
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
        }
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers are filled, with pointers to slices and addresses that live through the call; the
    // kernel writes to the headers only.
    cvt(unsafe { libc::sendmmsg(fd.0, headers.as_mut_ptr().cast(), count, flags) } as isize)
}

/// `recvfrom(2)`: bytes, and the sender's address (of length 0 for a sender without one). Never blocks.
///
/// # Errors
/// The errno.
pub fn recv_from(fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<(usize, SockAddr)> {
    let mut storage = SockAddrStorage::zeroed();
    let mut len = storage.size_of();
    let name = (&raw mut storage).cast();
    // SAFETY: buffer, storage and len are live, and len is the storage's size.
    let n = cvt(unsafe { libc::recvfrom(fd.0, buf.start.cast(), buf.len, libc::MSG_DONTWAIT, name, &raw mut len) })?;
    // The kernel tells how long the address is, though it had no room for all of it.
    let len = len.min(storage.size_of());
    // SAFETY: the kernel filled `len` bytes of the storage.
    Ok((n, unsafe { SockAddr::new(storage, len) }))
}

/// The bytes of an address, as the kernel takes and gives them.
#[must_use]
pub fn address_bytes(address: &SockAddr) -> &[u8] {
    // SAFETY: `len` bytes of it are filled, as its maker has said.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), usize::try_from(address.len()).unwrap_or(0)) }
}

/// `read(2)`. Blocks if nothing is there and the file is in blocking mode.
///
/// # Errors
/// The errno.
pub fn read(fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<usize> {
    // SAFETY: pointer and length are those of live memory, which the kernel may write to.
    cvt(unsafe { libc::read(fd.0, buf.start.cast(), buf.len) })
}

/// `write(2)`, with SIGPIPE as the process has it. Blocks if there is no room and the file is in blocking mode.
///
/// # Errors
/// The errno.
pub fn write(fd: BorrowedRawFd, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live slice.
    cvt(unsafe { libc::write(fd.0, buf.as_ptr().cast(), buf.len()) })
}

/// `writev(2)`: as [`write`].
///
/// # Errors
/// The errno; `EINVAL` for more than `IOV_MAX` slices.
pub fn write_vectored(fd: BorrowedRawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = libc::c_int::try_from(slices.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: an `IoSlice` has the layout of an `iovec`, which std guarantees, and `count` of them are live.
    cvt(unsafe { libc::writev(fd.0, slices.as_ptr().cast(), count) })
}

/// `poll(2)` without waiting: whether a write would not block nor fail, as on a socket whose connection is made.
///
/// # Errors
/// The errno; `EBADF` for a closed number.
pub fn is_writable(fd: BorrowedRawFd) -> io::Result<bool> {
    Ok(ready(fd, libc::POLLOUT)? == libc::POLLOUT)
}

/// `poll(2)` without waiting: whether a read would not block, or fail at once.
///
/// # Errors
/// The errno; `EBADF` for a closed number.
pub fn is_readable(fd: BorrowedRawFd) -> io::Result<bool> {
    Ok(ready(fd, libc::POLLIN)? != 0)
}

fn ready(fd: BorrowedRawFd, events: libc::c_short) -> io::Result<libc::c_short> {
    let mut polled = libc::pollfd { fd: fd.0, events, revents: 0 };
    loop {
        // SAFETY: one live `pollfd`.
        match cvt(unsafe { libc::poll(&raw mut polled, 1, 0) } as isize) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            found => {
                found?;
                break;
            }
        }
    }
    if polled.revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(polled.revents)
}

/// `accept4(2)`: the connection is non-blocking and closed on exec.
///
/// # Errors
/// The errno.
pub fn accept(fd: BorrowedRawFd) -> io::Result<(OwnedFd, SockAddr)> {
    let mut storage = SockAddrStorage::zeroed();
    let mut len = storage.size_of();
    // SAFETY: storage and len are live, and len is the storage's size.
    let conn = unsafe {
        libc::accept4(fd.0, (&raw mut storage).cast(), &raw mut len, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
    };
    if conn < 0 {
        return Err(io::Error::last_os_error());
    }
    let len = len.min(storage.size_of());
    // SAFETY: the kernel gave this number to us just now, and filled `len` bytes of the storage.
    Ok(unsafe { (OwnedFd::from_raw_fd(conn), SockAddr::new(storage, len)) })
}

/// `shutdown(2)` of the writing half.
///
/// # Errors
/// The errno.
pub fn shutdown_write(fd: BorrowedRawFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    cvt(unsafe { libc::shutdown(fd.0, libc::SHUT_WR) } as isize).map(drop)
}

/// `getsockopt(2)` of an option that is a number.
///
/// # Errors
/// The errno; `ENOTSOCK` for a file that is no socket.
pub fn option(fd: BorrowedRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = SIZE_OF_INT;
    // SAFETY: value and len are live, and len is the value's size.
    cvt(unsafe { libc::getsockopt(fd.0, level, name, (&raw mut value).cast(), &raw mut len) } as isize)?;
    Ok(value)
}

/// `setsockopt(2)` of an option that is a number.
///
/// # Errors
/// The errno; `ENOTSOCK` for a file that is no socket.
pub fn set_option(fd: BorrowedRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is live, and of that size.
    cvt(unsafe { libc::setsockopt(fd.0, level, name, (&raw const value).cast(), SIZE_OF_INT) } as isize).map(drop)
}

#[allow(clippy::cast_possible_truncation)] // 4
const SIZE_OF_INT: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

/// A second descriptor of the same open file, closed on exec.
///
/// # Errors
/// The errno of `fcntl(2)`.
pub fn duplicate(fd: BorrowedRawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let second = unsafe { libc::fcntl(fd.0, libc::F_DUPFD_CLOEXEC, 3) };
    if second < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave this number to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(second) })
}

/// The number of the file that has this number, which `dup2` over it changes; `None` for a closed one.
#[must_use]
pub fn inode(fd: u32) -> Option<u64> {
    let fd = RawFd::try_from(fd).ok()?;
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for a stat.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the kernel filled it.
    Some(unsafe { stat.assume_init() }.st_ino)
}

/// A new epoll instance, closed on exec.
///
/// # Errors
/// The errno (`EMFILE`, `ENFILE`, `ENOMEM`).
pub fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave this number to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `epoll_ctl(2)`.
///
/// # Errors
/// The errno; `EPERM` when the file cannot be polled.
pub fn epoll_ctl(epoll: BorrowedFd<'_>, op: libc::c_int, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the event is live; the kernel copies it.
    cvt(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd, &raw mut event) } as isize).map(drop)
}

/// How many events one look takes.
pub const EPOLL_BATCH: usize = 256;

/// `epoll_wait(2)` with a time-out of zero: hands `(events, data)` of each event to `each`, and tells how many there were.
///
/// # Errors
/// The errno.
pub fn epoll_poll(epoll: BorrowedFd<'_>, mut each: impl FnMut(u32, u64)) -> io::Result<usize> {
    const EMPTY: MaybeUninit<libc::epoll_event> = MaybeUninit::uninit();
    let mut events = [EMPTY; EPOLL_BATCH];
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // 256
    let room = EPOLL_BATCH as libc::c_int;
    // SAFETY: there is room for as many events as are asked for.
    let n = cvt(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr().cast(), room, 0) } as isize)?;
    for event in &events[..n] {
        // SAFETY: the kernel filled the first `n`.
        let event = unsafe { event.assume_init() };
        each(event.events, event.u64);
    }
    Ok(n)
}

/// A timerfd on the monotonic clock, which is the clock of Python's `time.monotonic()`.
///
/// # Errors
/// The errno (`EMFILE`, `ENFILE`, `ENOMEM`).
pub fn timer_create() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave this number to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the timer expire at this moment, nanoseconds on the monotonic clock.
///
/// # Errors
/// The errno.
pub fn timer_arm(timer: BorrowedFd<'_>, nanos: u64) -> io::Result<()> {
    let at = libc::timespec {
        tv_sec: libc::time_t::try_from(nanos / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(nanos % 1_000_000_000).unwrap_or(0),
    };
    let spec = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    // SAFETY: the spec is live; the old value is not asked for.
    cvt(unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const spec, std::ptr::null_mut())
    } as isize)
    .map(drop)
}

/// Nanoseconds on the monotonic clock.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is live. The clock exists on every Linux, so the call does not fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// As [`monotonic_nanos`], for an eighth of the price and late by the kernel's tick, 10 ms at most.
#[must_use]
pub fn monotonic_coarse_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

static FORKS: AtomicU32 = AtomicU32::new(0);
static FORK_HANDLER: Once = Once::new();

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between the first process of this program that asked and this one. What was registered in
/// another process must not be deregistered in this one: both share one epoll.
#[must_use]
pub fn fork_generation() -> u32 {
    FORK_HANDLER.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is async-signal-safe. The call fails only without memory;
        // then forks go uncounted.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
    });
    FORKS.load(Ordering::Relaxed)
}
