"""Loads that are not echoes: connections made and left, one direction only, and connections that only are there.

Each looks like `Load` to `client.measure`, but for `Idle`.
"""

import contextlib
import functools
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from load import GRACE, PATIENCE, READABLE, connect
from server import Addr

MEBIBYTE = 1024 * 1024
DONE = object()


class Visits:
    """Visits to an echo server, `concurrency` at a time: connect, have one message echoed, close."""

    def __init__(self, addr: Addr, concurrency: int, msize: int, spin: bool = False) -> None:
        self._addr, self._concurrency, self._message, self._spin = addr, concurrency, bytes(msize), spin
        self._poller = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._visits: dict[int, tuple[int, socket.socket, Iterator[None]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, sock, _ in self._visits.values():
            sock.close()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def start(self) -> None:
        """Begin the first visits. Raises OSError."""
        for _ in range(self._concurrency):
            self._begin()

    def _begin(self) -> None:
        began = time.perf_counter_ns()
        sock = connect(self._addr)  # at once: the kernel accepts, not the server
        visit = self._visit(sock)
        next(visit)
        self._visits[sock.fileno()] = began, sock, visit
        self._poller.register(sock, READABLE)

    def _visit(self, sock: socket.socket) -> Iterator[None]:
        """A visit, which ends when the server has closed its end, too; it yields where it has to wait for the server.

        Raises OSError, ValueError for a wrong answer.
        """
        size = len(self._message)
        sock.send(self._message)
        yield
        if len(sock.recv(size)) != size:
            raise ValueError("the server did not echo what it was sent")
        sock.shutdown(socket.SHUT_WR)
        yield
        if sock.recv(size):
            raise ValueError("the echo is too long")

    def run(self, seconds: float) -> tuple[list[int], float]:
        """Keep visiting for that long: how long each visit took (nanoseconds), the seconds taken.

        Visits that last beyond the end are counted by the next run. Raises OSError, and ValueError for a wrong answer.
        """
        latencies: list[int] = []
        poll, clock = self._poller.poll, time.perf_counter_ns
        if self._spin:
            poll = functools.partial(poll, 0)
        opened = now = clock()
        deadline = opened + round(seconds * 1e9)
        while now < deadline or (not latencies and now < deadline + GRACE):
            for fd, _ in poll():
                began, sock, visit = self._visits[fd]
                if next(visit, DONE) is DONE:
                    del self._visits[fd]
                    self._poller.unregister(fd)
                    sock.close()
                    latencies.append(clock() - began)
                    self._begin()
            now = clock()
        return latencies, (now - opened) / 1e9


class Poured:
    """One connection to a server that reads: a request is a mebibyte that it took."""

    _piece = bytes(256 * 1024)

    def __init__(self, addr: Addr, spin: bool = False) -> None:
        self._sock = connect(addr)
        self._sock.setblocking(False)
        self._spin, self._left = spin, MEBIBYTE
        self._buffer = bytearray(256 * 1024)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def start(self) -> None:
        """Nothing: `run` is all."""

    def _wait(self) -> None:
        """Wait until the socket can go on. Raises TimeoutError."""
        if not self._spin and not select.select([], [self._sock], [], PATIENCE)[1]:
            raise TimeoutError("the server does not read")

    def _step(self) -> int:
        """Move some bytes; how many. Raises OSError."""
        return self._sock.send(self._piece)

    def run(self, seconds: float) -> tuple[list[int], float]:
        """Keep it up for that long: the time (nanoseconds) of each mebibyte, the seconds taken. Raises OSError."""
        latencies: list[int] = []
        clock = time.perf_counter_ns
        opened = now = last = clock()
        deadline = opened + round(seconds * 1e9)
        while now < deadline or (not latencies and now < deadline + GRACE):
            try:
                self._left -= self._step()
            except BlockingIOError:
                self._wait()
            now = clock()
            if self._left <= 0:
                self._left += MEBIBYTE
                latencies.append(now - last)
                last = now
        return latencies, (now - opened) / 1e9


class Flooded(Poured):
    """One connection to a server that writes."""

    def _wait(self) -> None:
        if not self._spin and not select.select([self._sock], [], [], PATIENCE)[0]:
            raise TimeoutError("the server does not write")

    def _step(self) -> int:
        count = self._sock.recv_into(self._buffer)
        if not count:
            raise ConnectionError("the server closed a connection")
        return count


def resident_kib(pid: int) -> int:
    """Resident memory of a process. Raises OSError; Linux only."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise OSError("the kernel does not tell the memory of a process")


class Idle:
    """Connections that had one message echoed each and then say nothing more."""

    def __init__(self, addr: Addr, concurrency: int, msize: int) -> None:
        self._addr, self._concurrency, self._message = addr, concurrency, bytes(msize)

    def _visit(self) -> socket.socket:
        sock = connect(self._addr)
        sock.sendall(self._message)
        if sock.recv(len(self._message), socket.MSG_WAITALL) != self._message:
            raise ValueError("the server did not echo what it was sent")
        return sock

    def kib_each(self, pid: int) -> float:
        """How much the memory of the server grows by, per connection, in KiB. Raises OSError, ValueError."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._visit())
            before = resident_kib(pid)
            for _ in range(self._concurrency):
                stack.enter_context(self._visit())
            return (resident_kib(pid) - before) / self._concurrency
