//! The system calls of a stream and of a listener, on a [`Source`] or a borrowed fd.
//!
//! Contract: a call says what the kernel took; whoever gets less than was offered arms the source for writing. On sockets
//! no call blocks or raises SIGPIPE, whatever their mode. A pipe has no flags for that: it is written in the mode it has,
//! which whoever made the transport set to non-blocking, and SIGPIPE comes if the program has asked for it (Python ignores
//! it from the start). Reads do not rely on the mode, as it belongs to all that share the open file: a shell that ends
//! sets its terminal back to blocking.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use socket2::SockAddr;

pub use super::sys::shutdown_write;
use super::sys::{self, BorrowedRawFd, RawBuf};
use crate::core::accept::AcceptError;
use crate::core::outbox::SLICES_MAX;

/// What a stream is made over: which system calls move its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
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
pub fn read(kind: FileKind, fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<usize> {
    match kind {
        FileKind::Socket => sys::recv(fd, buf),
        FileKind::File if !sys::is_readable(fd)? => Err(io::ErrorKind::WouldBlock.into()),
        FileKind::File | FileKind::Device => sys::read(fd, buf),
    }
}

/// Writes what the kernel takes of `bytes`; 0 when its buffer is full.
///
/// # Errors
/// The errno of `send(2)` or `write(2)`, except `EAGAIN` and `EINTR`.
pub fn write(kind: FileKind, fd: BorrowedRawFd, bytes: &[u8]) -> io::Result<usize> {
    match kind {
        FileKind::Socket => send(fd, bytes),
        FileKind::File | FileKind::Device => retried(|| sys::write(fd, bytes)),
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

/// Writes what the kernel takes of the first [`SLICES_MAX`] slices; tells how much was offered, too.
///
/// # Errors
/// As [`write`].
pub fn write_vectored<'a>(
    kind: FileKind,
    fd: BorrowedRawFd,
    slices: impl Iterator<Item = &'a [u8]>,
) -> io::Result<(usize, usize)> {
    let mut iov = [IoSlice::new(&[]); SLICES_MAX];
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
    let sent = retried(|| match kind {
        FileKind::Socket => sys::send_vectored(fd, iov),
        FileKind::File | FileKind::Device => sys::write_vectored(fd, iov),
    })?;
    Ok((sent, offered))
}

/// A second descriptor of the same open file, closed on exec: its owner, and its number.
///
/// # Errors
/// The errno of `fcntl(2)`.
pub fn duplicate(fd: BorrowedRawFd) -> io::Result<(OwnedFd, BorrowedRawFd)> {
    let second = sys::duplicate(fd)?;
    let number = BorrowedRawFd::of(&second);
    Ok((second, number))
}

/// Switches Nagle's algorithm off, as asyncio does on every TCP transport.
pub fn set_nodelay(fd: BorrowedRawFd) {
    // Not worth a connection: what is wrong with it shows when it is used.
    let _shows_later = sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
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

/// What a stream socket speaks, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP itself. The protocol says so: MPTCP and SCTP have the family and type of TCP, and other rules.
    Tcp,
    /// A Unix socket.
    Unix,
    Other,
}

impl Protocol {
    #[must_use]
    pub fn of(fd: BorrowedRawFd) -> Self {
        let option = |name| sys::option(fd, libc::SOL_SOCKET, name).ok();
        Self::named(option(libc::SO_DOMAIN), option(libc::SO_TYPE), option(libc::SO_PROTOCOL))
    }

    fn named(domain: Option<i32>, kind: Option<i32>, protocol: Option<i32>) -> Self {
        match (domain, kind, protocol) {
            (Some(libc::AF_INET | libc::AF_INET6), Some(libc::SOCK_STREAM), Some(libc::IPPROTO_TCP)) => Self::Tcp,
            (Some(libc::AF_UNIX), ..) => Self::Unix,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_what_says_so_by_all_three() {
        let of = |domain, kind, protocol| Protocol::named(Some(domain), Some(kind), Some(protocol));
        for domain in [libc::AF_INET, libc::AF_INET6] {
            assert_eq!(of(domain, libc::SOCK_STREAM, libc::IPPROTO_TCP), Protocol::Tcp);
            for protocol in [libc::IPPROTO_MPTCP, libc::IPPROTO_SCTP, libc::IPPROTO_IP] {
                assert_eq!(of(domain, libc::SOCK_STREAM, protocol), Protocol::Other);
            }
            assert_eq!(of(domain, libc::SOCK_RAW, libc::IPPROTO_TCP), Protocol::Other);
        }
        assert_eq!(of(libc::AF_UNIX, libc::SOCK_STREAM, 0), Protocol::Unix);
        // Netlink counts its protocols anew: 6 is that of IPsec.
        assert_eq!(of(libc::AF_NETLINK, libc::SOCK_STREAM, libc::IPPROTO_TCP), Protocol::Other);
        assert_eq!(Protocol::named(None, None, None), Protocol::Other);
        assert_eq!(Protocol::of(BorrowedRawFd::NONE), Protocol::Other);
    }
}
