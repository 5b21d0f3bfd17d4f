"""Blocking TLS peers: `ssl.SSLContext.wrap_socket` in threads of `spec._kit.peers`, and `Wire`, which sees the bytes.

Rules: those of `spec._kit.peers`. One thread at a time uses one `SSLSocket`, so a peer that both sends and receives
much does so by turns.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from .._kit import peers
from . import certificates


def wrap(
    sock: socket.socket,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    name: str | None = certificates.NAME,
    **options: Any,
) -> ssl.SSLSocket:
    """Shake hands over a blocking socket, which the result replaces. ssl.SSLError or OSError where that fails."""
    if not server_side:
        options["server_hostname"] = name
    try:
        return context.wrap_socket(sock, server_side=server_side, **options)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def serve(context: ssl.SSLContext, handler: Callable[[ssl.SSLSocket], Any], **options: Any) -> Iterator[Any]:
    """A TLS server: each connection shakes hands and is then given to `handler`, in a thread; yields the address."""

    def talk(conn: socket.socket) -> None:
        with wrap(conn, context, server_side=True) as tls:
            handler(tls)

    with peers.serve(talk, **options) as addr:
        yield addr


@contextlib.contextmanager
def serve_refused(context: ssl.SSLContext) -> Iterator[tuple[Any, list[OSError]]]:
    """A TLS server no client of which gets anywhere: yields the address, and the list of what ended the connections.

    An AssertionError on leaving the `with`, where a client sent data or ended its connection in an orderly way.
    """
    failures: list[OSError] = []

    def talk(conn: socket.socket) -> None:
        failures.append(refusal(conn, context, server_side=True))

    with peers.serve(talk) as addr:
        yield addr, failures


def refusal(sock: socket.socket, context: ssl.SSLContext, **options: Any) -> OSError:
    """Shake hands with somebody who will have none of it; what that raised. The socket is closed.

    With TLS 1.3 a client has done its part before the server has looked at its certificate: what the server thinks of
    it comes with the first read (RFC 8446, 4.4.2.4 and 2).
    """
    try:
        with wrap(sock, context, suppress_ragged_eofs=False, **options) as tls:
            got = tls.recv(1)
    except OSError as error:
        return error
    raise AssertionError(f"the other side had no objection and sent {got!r}")


def client(addr: Any, context: ssl.SSLContext, fn: Callable[[ssl.SSLSocket], Any], **options: Any) -> peers.PeerClient:
    """Connect to `addr` in a thread, shake hands and run `fn(tls)`; see `peers.client`."""

    def talk(sock: socket.socket) -> Any:
        with wrap(sock, context, **options) as tls:
            return fn(tls)

    return peers.client(addr, talk)


def exchange(addr: Any, context: ssl.SSLContext, data: bytes = b"ping", **options: Any) -> bytes:
    """Connect, send `data`, and return as much of what comes back."""
    sock = socket.socket(socket.AF_UNIX) if isinstance(addr, (str, bytes)) else socket.socket()
    with sock:
        sock.settimeout(peers.TIMEOUT)
        sock.connect(addr if isinstance(addr, (str, bytes)) else addr[:2])
        with wrap(sock, context, **options) as tls:
            tls.sendall(data)
            got = peers.recv_exactly(tls, len(data))
            part(tls)
            return got


def part(tls: ssl.SSLSocket) -> None:
    """End a connection in an orderly way: a close_notify in each direction, so that closing resets nothing."""
    with contextlib.suppress(OSError):
        tls.unwrap()


def echo(tls: ssl.SSLSocket) -> None:
    """A handler that sends back what comes, up to the other side's end."""
    with contextlib.suppress(ssl.SSLEOFError, ConnectionError):  # an end is an end: the clauses about ends look closer
        while data := tls.recv(65536):
            tls.sendall(data)


class Vanished(Exception):
    """A `Wire` has sent all that it may."""


class Wire:
    """A TLS peer over memory, on a blocking socket: what goes over the wire is seen, held back, and cut off.

    `sent` and `received` are the bytes on the wire. With `limit`, `Vanished` is raised once that many were sent. What
    `hold` keeps stays in `outgoing` until the next `flush()`, so two things may go out in one segment.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        name: str | None = certificates.NAME,
        limit: int | None = None,
    ) -> None:
        self.sock = sock
        self.sent = bytearray()
        self.received = bytearray()
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=None if server_side else name
        )
        self._limit = limit

    def handshake(self, *, hold: bool = False) -> None:
        """Shake hands; with `hold`, the last flight stays in `outgoing`. ssl.SSLEOFError where the other side ends."""
        self.run(self.tls.do_handshake, hold=hold)

    def hello(self) -> bytes:
        """The first flight of a client, not sent."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.outgoing.read()
        raise AssertionError("a handshake was complete without a peer")

    def send(self, data: bytes) -> None:
        """Send `data` encrypted."""
        self.run(self.tls.write, data)

    def recv(self, size: int = 65536) -> bytes:
        """Decrypted data, empty after a close_notify. ssl.SSLEOFError where there was none."""
        try:
            return bytes(self.run(self.tls.read, size))
        except ssl.SSLZeroReturnError:
            return b""

    def run(self, operation: Callable[..., Any], *args: Any, hold: bool = False) -> Any:
        """Call an operation of `tls` until it needs nothing from the wire any more; its result."""
        while True:
            try:
                result = operation(*args)
            except ssl.SSLWantReadError:
                self.flush()
                self._feed()
            except ssl.SSLError:
                self.flush()  # the alert
                raise
            else:
                if not hold:
                    self.flush()
                return result

    def flush(self) -> None:
        """Send what there is to send. Vanished at the limit."""
        data = self.outgoing.read()
        if self._limit is not None:
            data = data[: self._limit - len(self.sent)]
        self.sock.sendall(data)
        self.sent += data
        if len(self.sent) == self._limit:
            raise Vanished(f"after {self._limit} bytes")

    def _feed(self) -> None:
        data = self.sock.recv(65536)
        self.received += data
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
