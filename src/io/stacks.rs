//! A report with the stacks of all Python threads, written without the GIL and without a risk for this process. A
//! fence: holds unsafe code.
//!
//! CPython's `faulthandler` walks the frames of threads while these run, and in this process that ends in a crash: 8 of
//! 9 programs that called functions while its watchdog wrote a thousand times a second were dead within 5 s (CPython
//! 3.11 to 3.13). So a child process writes. `clone(2)` copies memory as it is at one moment, and of all threads only
//! the one that called it goes on in the child: nothing changes while it is read. What was being changed at that moment
//! can crash the child; then another one is made.
//!
//! Contract:
//! - `faulthandler.register` has set the handler of an [`Output`]'s signal before it is written to; the child raises
//!   the signal in itself, and what the handler writes is the report's second half. Where nobody registered one, the
//!   handler is one that does nothing, so the signal ends no process, whatever becomes of the interpreter.
//! - The child is made without hooks (`pthread_atfork`, `os.register_at_fork`), and nobody is told when it ends: no
//!   SIGCHLD, and no `wait()` of the program finds it. It calls nothing that allocates or locks. All signals are
//!   blocked in it but that one and the alarm that ends it, so none is delivered twice; it leaves no core file.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, c_uint, c_ulong, c_void};

/// Seconds that a child may take: it waits where the file is a pipe that nobody reads.
const PATIENCE: c_uint = 10;
/// Children that are made until one gets to the end.
const ATTEMPTS: usize = 3;

/// Where reports go: a file, and a signal that nobody else uses.
#[derive(Debug)]
pub struct Output {
    file: OwnedFd,
    signal: c_int,
}

impl Output {
    /// A duplicate of the descriptor, and the last of the real-time signals that are as the kernel set them.
    ///
    /// # Errors
    /// The errno: no such descriptor (`EBADF`), none left (`EMFILE`); `ENOSPC` when no signal is left.
    pub fn new(fd: RawFd) -> io::Result<Self> {
        // SAFETY: no memory is passed; the kernel says so if there is no such descriptor.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel gave this number to us just now.
        let file = unsafe { OwnedFd::from_raw_fd(copy) };
        let free = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|signal| handler(*signal) == Some(libc::SIG_DFL));
        let signal = free.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        set_handler(signal, do_nothing())?;
        Ok(Self { file, signal })
    }

    #[must_use]
    pub fn signal(&self) -> c_int {
        self.signal
    }

    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes `report` and the stacks, from a thread that has called [`part`], and waits until that is done.
    ///
    /// That there are no stacks is said in the file, too.
    pub fn write(&self, report: &str) {
        const ZERO: c_long = 0;
        let mut text = report.to_owned();
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            // SAFETY: as `fork(2)`: the child goes on in a copy of this memory, with a copy of this stack. All
            // arguments are zeros, whatever their order is on this architecture: no flags, no signal at the end, the
            // stack as it is.
            let child = unsafe { libc::syscall(libc::SYS_clone, ZERO, ZERO, ZERO, ZERO, ZERO) };
            match libc::pid_t::try_from(child) {
                Ok(0) => self.write_and_exit(text.as_bytes()),
                Ok(child) if child > 0 => match wait(child) {
                    Some(crashed) => {
                        reason = format!("they were being changed (signal {crashed})");
                        text = format!("  {reason}; once more:\n");
                    }
                    None => return,
                },
                _ => {
                    reason = format!("no process to write them ({})", io::Error::last_os_error());
                    write_all(self.file(), text.as_bytes());
                    break;
                }
            }
        }
        write_all(self.file(), format!("  no stacks: {reason}\n").as_bytes());
    }

    /// What the child does. It has no other threads, and the locks of those it had may be held for ever.
    fn write_and_exit(&self, text: &[u8]) -> ! {
        const ZERO: c_ulong = 0;
        let wanted = signals(&[self.signal, libc::SIGALRM], false);
        // SAFETY: system calls with numbers, or with a live set. The handler of the alarm is the kernel's, which ends
        // the process; the signal's is `faulthandler`'s, which is made to be called whatever a process is in, or does
        // nothing. `_exit` runs no hooks.
        unsafe {
            libc::prctl(libc::PR_SET_DUMPABLE, ZERO, ZERO, ZERO, ZERO);
            libc::signal(libc::SIGALRM, libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const wanted, ptr::null_mut());
            libc::alarm(PATIENCE);
            write_all(self.file(), text);
            // By number, as the C library may still take this thread for the one that it is a copy of.
            libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), self.signal);
            libc::_exit(0)
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Somebody may have taken the signal over. There is nobody to tell of one that cannot be set, and none such.
        if handler(self.signal) == Some(do_nothing()) {
            let _there_is_the_signal = set_handler(self.signal, libc::SIG_DFL);
        }
    }
}

/// Parts this thread, which then may write, from what the process shares: see [`Output::write`].
///
/// All signals are blocked, so that it is other threads that get those of the process. And the table of descriptors is
/// copied, with that of the output alone: the kernel counts the users of a table, and for a single one leaves out two
/// atomic operations with each system call on a descriptor. A second thread that shares the table costs a loop of one
/// thread 4 % of an echo and 12 % of a callback, this one nothing that could be measured. Before Linux 5.9 it shares it.
pub fn part(output: &Output) {
    let all = signals(&[], true);
    let kept = output.file.as_raw_fd().cast_unsigned();
    // SAFETY: a live set; the old one is not asked for. The descriptors that are closed are this thread's copies. It
    // uses none but the one that is kept: it owns no file, as it runs nothing but `watchdog`.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
        if close_range(0, kept - 1, CLOSE_RANGE_UNSHARE) {
            close_range(kept + 1, c_uint::MAX, 0);
        }
    }
}

/// The kernel's number of this thread.
#[must_use]
pub fn this_thread() -> libc::pid_t {
    // SAFETY: no memory is passed.
    unsafe { libc::gettid() }
}

/// Whether the kernel still counts a thread of this process. It does for a moment when the thread has been joined, and
/// CPython warns of a fork when there is more than one.
#[must_use]
pub fn is_counted(thread: libc::pid_t) -> bool {
    // SAFETY: no memory is passed; no signal is sent.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) == 0 }
}

const CLOSE_RANGE_UNSHARE: c_uint = 1 << 1;

/// `close_range(2)`: whether the kernel has it.
///
/// # Safety
/// Nobody owns one of the descriptors.
unsafe fn close_range(first: c_uint, last: c_uint, flags: c_uint) -> bool {
    // SAFETY: no memory is passed; the rest is the caller's promise.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// Waits for the end of a child; gives the signal that it crashed by.
fn wait(child: libc::pid_t) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: a live place for the status.
    while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
    // One whose time is up has written what it could.
    (libc::WIFSIGNALED(status) && libc::WTERMSIG(status) != libc::SIGALRM).then(|| libc::WTERMSIG(status))
}

/// Allocates nothing. There is nobody to tell that a file cannot be written to.
fn write_all(file: BorrowedFd<'_>, mut text: &[u8]) {
    while !text.is_empty() {
        // SAFETY: pointer and length are those of a live slice.
        let written = unsafe { libc::write(file.as_raw_fd(), text.as_ptr().cast::<c_void>(), text.len()) };
        match usize::try_from(written) {
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => {
                let mut polled = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                // SAFETY: one live `pollfd`.
                unsafe { libc::poll(&raw mut polled, 1, -1) };
            }
            Err(_) => return,
        }
    }
}

/// The handler that is set while `faulthandler` has none.
fn do_nothing() -> usize {
    extern "C" fn nothing(_signal: c_int) {}
    nothing as *const () as usize
}

fn signals(wanted: &[c_int], full: bool) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: a place for a set, which the first call fills.
    unsafe {
        if full {
            libc::sigfillset(set.as_mut_ptr())
        } else {
            libc::sigemptyset(set.as_mut_ptr())
        };
        for signal in wanted {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn handler(signal: c_int) -> Option<usize> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a place for an action, which the call fills if it succeeds; nothing is set.
    unsafe {
        (libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0).then(|| action.assume_init().sa_sigaction)
    }
}

fn set_handler(signal: c_int, handler: usize) -> io::Result<()> {
    // SAFETY: an action of zeros is one without flags, mask and restorer; the handler is the kernel's, or a function
    // that does nothing. The old one is not asked for.
    let failed = unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler;
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
