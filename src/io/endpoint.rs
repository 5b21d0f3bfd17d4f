//! The system calls of a stream and of a listener, on a [`Source`] or a borrowed fd.
//!
//! Contract: a call says what the kernel took; whoever gets less than was offered arms the source for writing. On sockets
//! no call blocks or raises SIGPIPE, whatever their mode. A pipe has no flags for that: it is written in the mode it has,
//! which whoever made the transport set to non-blocking, and SIGPIPE comes if the program has asked for it (Python ignores
//! it from the start). Reads do not rely on the mode, as it belongs to all that share the open file: a shell that ends
//! sets its terminal back to blocking.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, SockAddr, SockRef, Type};

use super::sys::{self, BorrowedRawFd};
use crate::core::accept::AcceptError;

/// How many slices one vectored send takes at most. Linux allows 1024 (`IOV_MAX`).
pub const MAX_SLICES: usize = 64;

/// What a stream is made over: which system calls move its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `recv(2)` and `send(2)`.
    Socket,
    /// A pipe or terminal: `read(2)` and `write(2)`.
    File,
    /// A device that cannot be polled, as `/dev/null`: the same, and always ready.
    Device,
}

/// Reads what is there, once.
///
/// # Errors
/// The errno of `recv(2)` or `read(2)`; `EAGAIN` when nothing is there.
pub fn read(kind: Kind, fd: BorrowedRawFd, buf: &mut [u8]) -> io::Result<usize> {
    match kind {
        Kind::Socket => sys::recv(fd, buf),
        Kind::File if !sys::is_readable(fd)? => Err(io::ErrorKind::WouldBlock.into()),
        Kind::File | Kind::Device => sys::read(fd, buf),
    }
}

/// Writes what the kernel takes of `bytes`; 0 when its buffer is full.
///
/// # Errors
/// The errno of `send(2)` or `write(2)`, except `EAGAIN` and `EINTR`.
pub fn write(kind: Kind, fd: BorrowedRawFd, bytes: &[u8]) -> io::Result<usize> {
    match kind {
        Kind::Socket => send(fd, bytes),
        Kind::File | Kind::Device => retried(|| sys::write(fd, bytes)),
    }
}

/// Makes a call again that a signal interrupted; 0 when the kernel's buffer is full.
fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

/// Sends what the kernel takes of `bytes`; 0 when its buffer is full.
///
/// # Errors
/// The errno of `send(2)`, except `EAGAIN` and `EINTR`.
pub fn send(fd: BorrowedRawFd, bytes: &[u8]) -> io::Result<usize> {
    retried(|| sys::send(fd, bytes))
}

/// Writes what the kernel takes of the first [`MAX_SLICES`] slices; tells how much was offered, too.
///
/// # Errors
/// As [`write`].
pub fn write_vectored<'a>(
    kind: Kind,
    fd: BorrowedRawFd,
    slices: impl Iterator<Item = &'a [u8]>,
) -> io::Result<(usize, usize)> {
    let mut iov = [IoSlice::new(&[]); MAX_SLICES];
    let mut count = 0;
    let mut offered = 0;
    for (slot, bytes) in iov.iter_mut().zip(slices) {
        *slot = IoSlice::new(bytes);
        offered += bytes.len();
        count += 1;
    }
    let iov = &iov[..count];
    if let [only] = iov {
        return write(kind, fd, only).map(|sent| (sent, offered));
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let sent = retried(|| match kind {
        Kind::Socket => SockRef::from(&fd).send_vectored_with_flags(iov, flags),
        Kind::File | Kind::Device => sys::write_vectored(fd, iov),
    })?;
    Ok((sent, offered))
}

/// A second descriptor of the same open file, closed on exec.
///
/// # Errors
/// The errno of `fcntl(2)`.
pub fn duplicate(fd: BorrowedRawFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// Shuts down the writing half.
///
/// # Errors
/// The errno of `shutdown(2)`.
pub fn shutdown_write(fd: BorrowedRawFd) -> io::Result<()> {
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// Switches Nagle's algorithm off, as asyncio does on every TCP transport. A socket that is not TCP is left alone.
pub fn set_nodelay(fd: BorrowedRawFd) {
    // Not worth a connection: asyncio's `_set_nodelay` only asks sockets that have the option.
    let _not_tcp = SockRef::from(&fd).set_tcp_nodelay(true);
}

/// Accepts one connection.
///
/// # Errors
/// The error, classed by what it means for the listener, and as it came.
pub fn accept(fd: BorrowedRawFd) -> Result<(OwnedFd, SockAddr), (AcceptError, io::Error)> {
    sys::accept(fd).map_err(|error| {
        let class = match error.raw_os_error() {
            Some(libc::EAGAIN) => AcceptError::WouldBlock,
            Some(libc::EINTR) => AcceptError::Interrupted,
            // accept(2): errors already pending on the new connection are reported here; treat them like EAGAIN.
            Some(
                libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EPERM,
            ) => AcceptError::Aborted,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => AcceptError::OutOfResources,
            errno => AcceptError::Other(errno.unwrap_or(0)),
        };
        (class, error)
    })
}

/// Whether a read shorter than asked for means that the socket is drained: TCP, and only TCP. Datagrams are short by
/// nature, and ancillary data splits the reads of a Unix socket.
#[must_use]
pub fn short_read_drains(fd: BorrowedRawFd) -> bool {
    let socket = SockRef::from(&fd);
    socket.domain().is_ok_and(|domain| matches!(domain, Domain::IPV4 | Domain::IPV6))
        && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
}
