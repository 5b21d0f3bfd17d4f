"""Peers of a loop under test: plain blocking sockets in daemon threads, never the loop itself.

Rules: a peer's socket times out after 15 s; every thread is joined by the `with` that started it; an exception in a
peer is raised in the test on leaving the `with`, unless the test's own is already on its way.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

TIMEOUT = 15.0
"""Seconds a peer waits on its socket, and a test on its peer."""

_refusing: list[socket.socket] = []


def thread(fn: Callable[..., Any], *args: Any) -> PeerThread:
    """Run `fn(*args)` in a daemon thread, started at once; use it in a `with`, or call `.result()`."""
    return PeerThread(fn, *args)


class PeerThread:
    """A started daemon thread that keeps its result."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._fn = fn
        self._args = args
        self._value: Any = None
        self._error: BaseException | None = None
        self._retrieved = False
        self._thread = threading.Thread(target=self._main, name=f"peer {getattr(fn, '__name__', fn)}", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            self._value = self._fn(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            self._fn, self._args = None, ()  # type: ignore[assignment]

    def done(self) -> bool:
        """Has the function returned or raised?"""
        return not self._thread.is_alive()

    def result(self, timeout: float = TIMEOUT) -> Any:
        """Join for at most `timeout` seconds; return what the function returned or raise what it raised.

        TimeoutError where it still runs.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._thread.name} still runs after {timeout} s")
        self._retrieved = True
        if self._error is not None:
            raise self._error
        return self._value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _tb: object) -> None:
        _finish(self, error)


class PeerClient(PeerThread):
    """A thread with a connected socket; leaving its `with` on an error ends the connection, and with it the thread."""

    def __init__(self, addr: Any, fn: Callable[[socket.socket], Any]) -> None:
        self._sock: socket.socket | None = None
        self._unwanted = False
        super().__init__(self._talk, addr, fn)

    def _talk(self, addr: Any, fn: Callable[[socket.socket], Any]) -> Any:
        with _socket_for(addr) as sock:
            self._sock = sock
            sock.settimeout(TIMEOUT)
            sock.connect(addr)
            if self._unwanted:  # set before the shutdown below, which fails on a socket that is not connected yet
                raise ConnectionAbortedError("the test ended before the connection was made")
            return fn(sock)

    def __exit__(self, _type: object, error: BaseException | None, _tb: object) -> None:
        if error is not None:
            self._unwanted = True
            if self._sock is not None:
                _hang_up(self._sock)
        _finish(self, error)


def press_ctrl_c(running: threading.Event, noticed: threading.Event) -> None:
    """Send this process SIGINT once `running` is set; again, as a user would, each second in which `noticed` is not.

    asyncio's loop misses a signal that arrives between the interpreter's last look and the wait, until the wait ends.
    """
    assert running.wait(TIMEOUT)
    for _ in range(int(TIMEOUT)):
        os.kill(os.getpid(), signal.SIGINT)
        if noticed.wait(1.0):
            return


def client(addr: Any, fn: Callable[[socket.socket], Any]) -> PeerClient:
    """Connect to `addr` in a thread, once, and run `fn(sock)` there; the socket is closed when `fn` returns.

    `addr` is what `getsockname()` of the other side returned: a tuple (IPv4, IPv6) or a path (Unix).
    """
    return PeerClient(addr, fn)


@contextlib.contextmanager
def serve(
    handler: Callable[[socket.socket], Any],
    family: int = socket.AF_INET,
    backlog: int = 128,
) -> Iterator[Any]:
    """Listen on loopback and run `handler(conn)` in a thread per accepted connection; yields the address.

    On leaving, the listener is closed, every handler joined (15 s) and the first handler's exception raised.
    """
    listening = _listen(family, backlog)
    wake, waker = socket.socketpair()
    conns: list[socket.socket] = []
    threads: list[PeerThread] = []

    def talk(conn: socket.socket) -> None:
        with conn:
            handler(conn)

    def accept() -> None:
        while True:
            readable, _, _ = select.select([listening, wake], [], [])
            if listening not in readable:
                return  # told to end, and nobody waits to be accepted
            conn, _ = listening.accept()
            conn.settimeout(TIMEOUT)
            conns.append(conn)
            threads.append(PeerThread(talk, conn))

    acceptor = PeerThread(accept)
    error: BaseException | None = None
    try:
        yield listening.getsockname()
    except BaseException as caught:
        error = caught
        raise
    finally:
        waker.close()
        try:
            _finish(acceptor, error)
            if error is not None:
                for conn in conns:
                    _hang_up(conn)
            first: BaseException | None = None
            for peer in threads:
                try:
                    _finish(peer, error)
                except BaseException as caught:
                    first = first or caught
            if first is not None:
                raise first
        finally:
            wake.close()
            listening.close()


def listener(family: int = socket.AF_INET, backlog: int = 128) -> socket.socket:
    """A TCP socket bound to a free loopback port, listening, non-blocking."""
    sock = _listen(family, backlog)
    sock.setblocking(False)
    return sock


def pair(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """A connected TCP pair over loopback: the first non-blocking (the loop's), the second blocking (the peer's)."""
    with _listen(family, 1) as listening:
        ours = socket.socket(family, socket.SOCK_STREAM)
        try:
            ours.settimeout(TIMEOUT)
            ours.connect(listening.getsockname())
            theirs, _ = listening.accept()
        except BaseException:
            ours.close()
            raise
    return _as_pair(ours, theirs)


def unix_pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """A connected Unix pair: the first non-blocking (the loop's), the second blocking (the peer's)."""
    return _as_pair(*socket.socketpair(socket.AF_UNIX, kind))


def recv_exactly(sock: socket.socket, n: int) -> bytes:
    """Receive exactly `n` bytes. EOFError, with what came, where the other side ends before."""
    chunks: list[bytes] = []
    missing = n
    while missing:
        chunk = sock.recv(min(missing, 1 << 20))
        if not chunk:
            raise EOFError(f"end of stream after {n - missing} of {n} bytes: {b''.join(chunks)[-100:]!r}")
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def recv_all(sock: socket.socket) -> bytes:
    """Receive up to the end of the stream."""
    chunks: list[bytes] = []
    while chunk := sock.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that the other side gets a reset (RST): SO_LINGER with a time of 0."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def free_port(family: int = socket.AF_INET) -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with _bound(family) as sock:
        return int(sock.getsockname()[1])


def closed_port(family: int = socket.AF_INET) -> int:
    """A TCP port on loopback that refuses connections: bound until the test ends, never listening."""
    sock = _bound(family)
    _refusing.append(sock)
    return int(sock.getsockname()[1])


def give_ports_back() -> None:
    """The test has ended: its closed ports are free again."""
    while _refusing:
        _refusing.pop().close()


def has_ipv6() -> bool:
    """Can this machine bind ::1?"""
    if not socket.has_ipv6:
        return False
    try:
        _bound(socket.AF_INET6).close()
    except OSError:
        return False
    return True


def _finish(peer: PeerThread, error: BaseException | None) -> None:
    """Join `peer`; raise its exception, or note it on `error` where the test's own is on its way."""
    try:
        if not peer._retrieved:
            peer.result()
    except BaseException as caught:
        if error is None:
            raise
        error.add_note(f"peer: {caught!r}")


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _socket_for(addr: Any) -> socket.socket:
    if isinstance(addr, (str, bytes)):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    return socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET, socket.SOCK_STREAM)


def _as_pair(ours: socket.socket, theirs: socket.socket) -> tuple[socket.socket, socket.socket]:
    ours.setblocking(False)
    theirs.settimeout(TIMEOUT)
    return ours, theirs


def _bound(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _listen(family: int, backlog: int) -> socket.socket:
    sock = _bound(family)
    try:
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock
