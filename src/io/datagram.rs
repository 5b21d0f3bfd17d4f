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

use socket2::{Domain, SockAddr};

use super::sys::{self, BorrowedRawFd, address_bytes};

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
        match sys::option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) {
            Ok(libc::AF_INET) => Self::Inet,
            Ok(libc::AF_INET6) => Self::Inet6,
            Ok(libc::AF_UNIX) => Self::Unix,
            _ => Self::Other,
        }
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
    batch: &(impl Iterator<Item = (&'a [u8], Option<&'a SockAddr>)> + Clone),
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

/// Reads an address.
#[must_use]
pub fn name_of(address: &SockAddr) -> Name<'_> {
    let bytes = address_bytes(address);
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
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::io::sys::DATAGRAM_BATCH;

    fn fd(socket: &impl AsFd) -> BorrowedRawFd {
        BorrowedRawFd::of(socket)
    }

    #[test]
    fn addresses_say_what_they_were_made_of() {
        let cases = [
            (inet("127.0.0.1", 9), Name::Inet(Ipv4Addr::LOCALHOST, 9)),
            (inet6("fe80::1", 9, 5, 3), Name::Inet6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 9, 5, 3)),
            (unix(b"/tmp/x"), Name::Path(b"/tmp/x")),
            (SockAddr::unix("\0x").ok(), Name::Abstract(b"\0x")),
            (SockAddr::unix("").ok(), Name::Path(b"")),
        ];
        for (address, name) in cases {
            assert_eq!(name_of(&address.expect("an address")), name);
        }
        assert_eq!((inet("localhost", 1), inet6("::1", 1, 1 << 20, 0), unix(b"a\0b")), (None, None, None));
    }

    #[test]
    fn ipv6_text_is_that_of_the_c_library() {
        let cases = ["::", "::1", "::1.2.3.4", "::ffff:1.2.3.4", "1:0:0:2::3", "fe80::1", "2001:db8::1:0:0:1"];
        for text in cases {
            assert_eq!(ipv6_text(text.parse().expect("an address")), text);
        }
    }

    #[test]
    fn a_batch_is_sent_in_order_to_its_addressees() {
        let near = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let far = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = near.local_addr().expect("bound").into();
        let data: Vec<Vec<u8>> = (0..DATAGRAM_BATCH + 2).map(|at| vec![7; at * 100]).collect();
        let sent = send_batch(fd(&far), &data.iter().map(|data| (data.as_slice(), Some(&to))));
        assert_eq!(sent.expect("room"), DATAGRAM_BATCH);
        let from = SockAddr::from(far.local_addr().expect("bound"));
        let mut buffer = [0; 4096];
        for expected in data.iter().take(DATAGRAM_BATCH) {
            let (n, sender) = sys::recv_from(fd(&near), buffer.as_mut_slice().into()).expect("a datagram");
            assert_eq!((&buffer[..n], address_bytes(&sender)), (expected.as_slice(), address_bytes(&from)));
        }
        let nothing = sys::recv_from(fd(&near), buffer.as_mut_slice().into()).expect_err("all was taken");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_error_of_a_batch_shows_when_its_datagram_is_first() {
        let near = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = near.local_addr().expect("bound").into();
        let (small, large) = (vec![1; 10], vec![1; 70_000]);
        let all = [&small, &large, &small];
        let offer = |at: usize| send_batch(fd(&near), &all[at..].iter().map(|data| (data.as_slice(), Some(&to))));
        assert_eq!(offer(0).expect("the first goes"), 1);
        assert_eq!(offer(1).expect_err("too long").raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(offer(2).expect("the last goes"), 1);
    }

    #[test]
    fn a_sender_without_a_name_is_nobody_and_a_full_socket_is_no_error() {
        let (near, far) = UnixDatagram::pair().expect("a pair");
        assert_eq!(Family::of(fd(&near)), Family::Unix);
        assert!(send_to(fd(&far), b"hello", None).expect("room"));
        let mut buffer = [0; 16];
        let (n, sender) = sys::recv_from(fd(&near), buffer.as_mut_slice().into()).expect("a datagram");
        assert_eq!((&buffer[..n], name_of(&sender)), (&b"hello"[..], Name::Nobody));
        let mut sent = 0;
        while send_to(fd(&far), b"x", None).expect("no error") {
            sent += 1;
        }
        assert!(sent > 0, "the queue has a length");
    }
}
