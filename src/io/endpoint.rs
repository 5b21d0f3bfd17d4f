//! The system calls of a stream and of a listener, on a [`Source`] or a borrowed fd.
//!
//! Contract: a call never blocks and never raises SIGPIPE. `Sent` says what the kernel took; whoever gets less than was
//! offered arms the source for writing.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use socket2::{Domain, SockAddr, SockRef, Type};

use super::sys::{self, BorrowedRawFd};
use crate::core::accept::AcceptError;

/// How many slices one vectored send takes at most. Linux allows 1024 (`IOV_MAX`).
pub const MAX_SLICES: usize = 64;

/// Sends what the kernel takes of `bytes`; 0 when its buffer is full.
///
/// # Errors
/// The errno of `send(2)`, except `EAGAIN` and `EINTR`.
pub fn send(fd: BorrowedRawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match sys::send(fd, bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

/// Sends what the kernel takes of the first [`MAX_SLICES`] slices; tells how much was offered, too.
///
/// # Errors
/// As [`send`].
pub fn send_vectored<'a>(fd: BorrowedRawFd, slices: impl Iterator<Item = &'a [u8]>) -> io::Result<(usize, usize)> {
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
        return send(fd, only).map(|sent| (sent, offered));
    }
    loop {
        match SockRef::from(&fd).send_vectored_with_flags(iov, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
            Ok(sent) => return Ok((sent, offered)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((0, offered)),
            Err(error) => return Err(error),
        }
    }
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
