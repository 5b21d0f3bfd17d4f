"""Connections that have one message under way each, from plain sockets: never from an event loop, so that every loop
meets the same client.
"""

import functools
import select
import socket
import time
from collections.abc import Callable
from typing import Self

from server import Addr, family, no_delay

# Longest silence of a server, in seconds, before the client gives up.
PATIENCE = 10
# How much longer a window lasts, in nanoseconds, in which nothing was answered yet: other work may have the CPU.
GRACE = 1_000_000_000
READABLE, WRITABLE = select.POLLIN, select.POLLOUT  # the same bits in epoll


def connect(addr: Addr) -> socket.socket:
    """A blocking stream socket, connected. Raises OSError."""
    sock = socket.socket(family(addr))
    sock.settimeout(PATIENCE)
    try:
        sock.connect(addr)
        no_delay(sock)
    except OSError:
        sock.close()
        raise
    return sock


def connect_datagrams(addr: Addr) -> socket.socket:
    """A connected UDP socket. Raises OSError."""
    sock = socket.socket(family(addr), socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(addr)
    return sock


class Load:
    """`concurrency` connections that echo messages of `msize` bytes."""

    def __init__(self, addr: Addr, concurrency: int, msize: int, spin: bool = False) -> None:
        self.msize = msize
        self.spin = spin
        self.message = (bytes(range(256)) * (msize // 256 + 1))[:msize]
        self.socks: dict[int, socket.socket] = {}
        for _ in range(concurrency):
            sock = self._connect(addr)
            self.socks[sock.fileno()] = sock
            self._verify(sock)
            sock.setblocking(False)
        self._began = dict.fromkeys(self.socks, 0)
        self._missing = dict.fromkeys(self.socks, 0)
        self._unsent: dict[int, memoryview] = {}
        self._poller = select.epoll() if hasattr(select, "epoll") else select.poll()
        for fd in self.socks:
            self._poller.register(fd, READABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.socks.values():
            sock.close()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def _connect(self, addr: Addr) -> socket.socket:
        """A blocking socket, connected. Raises OSError."""
        return connect(addr)

    def _verify(self, sock: socket.socket) -> None:
        """Exchange one message and compare it. Raises ConnectionError, or ValueError for a wrong echo."""
        view, answer = memoryview(self.message), bytearray()
        sent = 0
        while len(answer) < self.msize:
            # In pieces that any socket buffers hold, so that both ends never wait in send at once.
            if sent < self.msize:
                sent += sock.send(view[sent : sent + 65536])
            data = sock.recv(self.msize)
            if not data:
                raise ConnectionError("the server closed a connection before it answered")
            answer += data
        if answer != self.message:
            raise ValueError("the server did not echo what it was sent")

    def _receivers(self) -> dict[int, Callable[[bytearray], int]]:
        """What takes the bytes that came on a connection."""
        return {fd: sock.recv_into for fd, sock in self.socks.items()}

    def _senders(self) -> dict[int, Callable[[bytes], int]]:
        """What sends a message on a connection, as much of it as goes."""
        return {fd: sock.send for fd, sock in self.socks.items()}

    def start(self) -> None:
        """Send the first message on every connection. Raises OSError."""
        for fd, send in self._senders().items():
            self._missing[fd] = self.msize
            self._began[fd] = time.perf_counter_ns()
            if (sent := send(self.message)) != self.msize:
                self._send(fd, memoryview(self.message)[sent:])

    def _send(self, fd: int, data: memoryview) -> None:
        """Send what the socket takes; the rest goes when it is writable."""
        try:
            sent = self.socks[fd].send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent[fd] = data[sent:]
            self._poller.modify(fd, READABLE | WRITABLE)
        elif self._unsent.pop(fd, None) is not None:
            self._poller.modify(fd, READABLE)

    def run(self, seconds: float) -> tuple[list[int], float]:
        """Keep the load up for that long: the latencies (nanoseconds) of the messages answered, the seconds taken.

        Messages still in flight at the end are counted by the next run. Raises ConnectionError when the server closes
        a connection, TimeoutError when it falls silent (main thread only).
        """
        latencies: list[int] = []
        # Everything the inner loop touches is a local: the client must cost less than the server it measures.
        poll, clock, record = self._poller.poll, time.perf_counter_ns, latencies.append
        if self.spin:
            poll = functools.partial(poll, 0)
        receive, send = self._receivers(), self._senders()
        began, missing, msize, message = self._began, self._missing, self.msize, self.message
        buffer = bytearray(max(msize, 65536))
        opened = now = clock()
        deadline = opened + round(seconds * 1e9)
        while now < deadline or (not latencies and now < deadline + GRACE):
            for fd, mask in poll():
                if mask & ~READABLE:
                    if mask & ~(READABLE | WRITABLE) and not mask & READABLE:
                        raise ConnectionError("the server reset a connection")
                    if mask & WRITABLE and fd in self._unsent:
                        self._send(fd, self._unsent[fd])
                    if not mask & READABLE:
                        continue
                try:
                    count = receive[fd](buffer)
                except BlockingIOError:
                    continue
                rest = missing[fd] - count
                if rest > 0 and count:
                    missing[fd] = rest
                elif rest == 0:
                    now = clock()
                    record(now - began[fd])
                    began[fd] = now
                    missing[fd] = msize
                    if (sent := send[fd](message)) != msize:
                        self._send(fd, memoryview(message)[sent:])
                else:
                    raise ConnectionError("the server closed a connection" if not count else "the echo is too long")
            now = clock()
        return latencies, (now - opened) / 1e9


class DatagramLoad(Load):
    """The same with datagrams."""

    def _connect(self, addr: Addr) -> socket.socket:
        return connect_datagrams(addr)

    def _verify(self, sock: socket.socket) -> None:
        """Exchange one datagram and compare it. Raises OSError, or ValueError for a wrong echo."""
        sock.send(self.message)
        if sock.recv(65536) != self.message:
            raise ValueError("the server did not echo what it was sent")
