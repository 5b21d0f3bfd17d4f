//! The system calls of a datagram endpoint on a borrowed fd, and what an address says.
//!
//! Contract: a call never blocks and never raises SIGPIPE. A datagram goes whole or not at all.
//!
//! How an error without data shows: an edge of EPOLLERR alone counts as writability closed (mio), for good (Tokio). So an
//! endpoint is registered for reading only and keeps its write waker armed: what wakes it is an error. The registration is
//! then renewed, which also asks the kernel anew. While datagrams wait for writability it is registered for both.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use socket2::{Domain, SockAddr, SockRef};

use super::sys::{self, BorrowedRawFd};

/// No datagram of UDP is longer; and a distance between two rooms that is no power of two, so that the first bytes of all
/// the rooms do not compete for the same lines of the cache.
const ROOM_OF_UDP: usize = 0x1_0000 + 0x440;
/// Asyncio's `max_size`, for sockets that may carry more.
const ROOM_OF_OTHERS: usize = 256 * 1024;

/// Bytes that one datagram of a [`sys::DatagramBatch`] may have at least, so that the batch serves every family.
pub const BATCH_ROOM: usize = ROOM_OF_UDP;

/// The address family of a socket, as far as addresses are ours to convert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Inet,
    Inet6,
    Unix,
    /// Netlink, packet, CAN, Bluetooth, ...: Python's `socket` knows their addresses.
    Other,
}

impl Family {
    #[must_use]
    pub fn of(fd: BorrowedRawFd) -> Self {
        match SockRef::from(&fd).domain() {
            Ok(Domain::IPV4) => Self::Inet,
            Ok(Domain::IPV6) => Self::Inet6,
            Ok(Domain::UNIX) => Self::Unix,
            _ => Self::Other,
        }
    }

    /// Bytes to receive a datagram into.
    #[must_use]
    pub fn room(self) -> usize {
        if matches!(self, Self::Inet | Self::Inet6) { ROOM_OF_UDP } else { ROOM_OF_OTHERS }
    }
}

/// Sends one datagram; false when the kernel's buffer is full.
///
/// # Errors
/// The errno of `sendto(2)`, except `EAGAIN` and `EINTR`.
pub fn send_to(fd: BorrowedRawFd, bytes: &[u8], to: Option<&SockAddr>) -> io::Result<bool> {
    loop {
        match sys::send_to(fd, bytes, to) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Sends datagrams from the front; how many the kernel took, 0 when its buffer is full. Fewer than were offered says
/// nothing about why: the next call does.
///
/// # Errors
/// The errno that the first one met.
pub fn send_batch<'a>(
    fd: BorrowedRawFd,
    batch: impl Iterator<Item = (&'a [u8], Option<&'a SockAddr>)> + Clone,
) -> io::Result<usize> {
    let mut all = batch.clone();
    if let (Some((bytes, to)), None) = (all.next(), all.next()) {
        return send_to(fd, bytes, to).map(usize::from);
    }
    loop {
        match sys::send_batch(fd, batch.clone()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

/// What an address says, in Python's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A sender without an address.
    Nobody,
    Inet(Ipv4Addr, u16),
    /// Host, port, flow information (of the host's byte order), scope.
    Inet6(Ipv6Addr, u16, u32, u32),
    /// The path of a Unix socket; empty for one that was never bound.
    Path(&'a [u8]),
    /// The name of a Unix socket in the abstract namespace, with the zero that it begins with.
    Abstract(&'a [u8]),
    Other,
}

/// Reads the address of these bytes, which are the kernel's or those of a [`SockAddr`].
#[must_use]
pub fn name_of<'a>(bytes: &'a [u8], address: &SockAddr) -> Name<'a> {
    if bytes.is_empty() {
        return Name::Nobody;
    }
    if let Some(v4) = address.as_socket_ipv4() {
        return Name::Inet(*v4.ip(), v4.port());
    }
    if let Some(v6) = address.as_socket_ipv6() {
        // The kernel's, and std's as it comes from there, is of the network's byte order.
        return Name::Inet6(*v6.ip(), v6.port(), u32::from_be(v6.flowinfo()), v6.scope_id());
    }
    if address.domain() == Domain::UNIX {
        let path = bytes.get(size_of::<libc::sa_family_t>()..).unwrap_or_default();
        if path.first() == Some(&0) {
            return Name::Abstract(path);
        }
        return Name::Path(path.split(|&byte| byte == 0).next().unwrap_or_default());
    }
    Name::Other
}

/// The text of an IPv6 address as `inet_ntop(3)` has it, which writes addresses of the deprecated IPv4-compatible kind
/// with a dotted end.
#[must_use]
pub fn ipv6_text(ip: Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            format!("::{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => ip.to_string(),
    }
}

/// The address of an IPv4 host, given by number.
#[must_use]
pub fn inet(host: &str, port: u16) -> Option<SockAddr> {
    host.parse().ok().map(|ip| SocketAddrV4::new(ip, port).into())
}

/// The address of an IPv6 host, given by number; `flow` of the host's byte order, 20 bits at most.
#[must_use]
pub fn inet6(host: &str, port: u16, flow: u32, scope: u32) -> Option<SockAddr> {
    let ip = host.parse().ok().filter(|_| flow <= 0xf_ffff)?;
    Some(SocketAddrV6::new(ip, port, flow.to_be(), scope).into())
}

/// The address of a Unix socket with this path, which holds no zero.
#[must_use]
pub fn unix(path: &[u8]) -> Option<SockAddr> {
    if path.is_empty() || path.contains(&0) {
        return None;
    }
    SockAddr::unix(std::ffi::OsStr::from_bytes(path)).ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::io::sys::{DATAGRAM_BATCH, DatagramBatch, address_bytes, address_of};

    fn fd(socket: &impl AsRawFd) -> BorrowedRawFd {
        BorrowedRawFd(socket.as_raw_fd())
    }

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        let cases =
            [inet("127.0.0.1", 9), inet6("fe80::1", 9, 5, 3), unix(b"/tmp/x"), inet6("::ffff:1.2.3.4", 1, 0, 0)];
        for address in cases.into_iter().flatten() {
            let bytes = address_bytes(&address).to_vec();
            let back = address_of(&bytes);
            assert_eq!(address_bytes(&back), bytes);
            assert_eq!(name_of(&bytes, &back), name_of(address_bytes(&address), &address));
        }
        let v6 = inet6("fe80::1", 9, 5, 3).expect("a number");
        assert_eq!(name_of(address_bytes(&v6), &v6), Name::Inet6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 9, 5, 3));
        assert_eq!(name_of(&[], &address_of(&[])), Name::Nobody);
        assert_eq!((inet("localhost", 1), inet6("::1", 1, 1 << 20, 0), unix(b"a\0b")), (None, None, None));
    }

    #[test]
    fn unix_names_are_a_path_an_abstract_name_or_empty() {
        let family = libc::sa_family_t::try_from(libc::AF_UNIX).expect("a small number").to_ne_bytes();
        let cases: [(&[u8], Name<'_>); 3] =
            [(b"", Name::Path(b"")), (b"/a\0", Name::Path(b"/a")), (b"\0name\0", Name::Abstract(b"\0name\0"))];
        for (path, name) in cases {
            let bytes = [&family, path].concat();
            assert_eq!(name_of(&bytes, &address_of(&bytes)), name);
        }
    }

    #[test]
    fn ipv6_text_is_that_of_the_c_library() {
        let cases = ["::", "::1", "::1.2.3.4", "::ffff:1.2.3.4", "1:0:0:2::3", "fe80::1", "2001:db8::1:0:0:1"];
        for text in cases {
            assert_eq!(ipv6_text(text.parse().expect("an address")), text);
        }
    }

    #[test]
    fn a_batch_is_received_in_order_with_its_senders() {
        let near = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let far = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = near.local_addr().expect("bound").into();
        let sizes: Vec<usize> = (0..DATAGRAM_BATCH + 2).map(|at| at * 100).collect();
        let data: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![7; size]).collect();
        let (first, rest) = data.split_at(DATAGRAM_BATCH);
        let pairs = |part: &'_ [Vec<u8>]| part.iter().map(|data| data.clone()).collect::<Vec<_>>();
        for part in [pairs(first), pairs(rest)] {
            let sent = send_batch(fd(&far), part.iter().map(|data| (data.as_slice(), Some(&to))));
            assert_eq!(sent.expect("room"), part.len());
        }
        let mut batch = DatagramBatch::new(BATCH_ROOM);
        let from = SockAddr::from(far.local_addr().expect("bound"));
        for expected in [&sizes[..DATAGRAM_BATCH], &sizes[DATAGRAM_BATCH..]] {
            let n = batch.receive(fd(&near), Family::Inet.room()).expect("datagrams");
            let found: Vec<_> = (0..n)
                .map(|at| {
                    let (data, name) = batch.take(at);
                    assert_eq!(name, address_bytes(&from));
                    data.len()
                })
                .collect();
            assert_eq!(found, expected);
        }
        let nothing = batch.receive(fd(&near), Family::Inet.room()).expect_err("all was taken");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_batch_serves_sockets_with_larger_datagrams_and_senders_without_a_name() {
        let (near, far) = UnixDatagram::pair().expect("a pair");
        let large = vec![9; 100_000];
        assert_eq!(Family::of(fd(&near)), Family::Unix);
        assert!(send_to(fd(&far), &large, None).expect("room"));
        let mut batch = DatagramBatch::new(BATCH_ROOM);
        assert_eq!(batch.receive(fd(&near), Family::Unix.room()).expect("a datagram"), 1);
        let (data, name) = batch.take(0);
        assert_eq!((data.len(), name_of(name, &address_of(name))), (large.len(), Name::Nobody));
        let mut sent = 0;
        while send_to(fd(&far), b"x", None).expect("no error") {
            sent += 1;
        }
        assert!(sent > 0, "the queue has a length");
    }
}
