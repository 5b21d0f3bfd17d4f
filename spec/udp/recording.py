"""A datagram protocol that writes down every callback, and the far ends it talks to.

    connection_made  ( datagram_received | error_received | pause_writing | resume_writing )*  connection_lost

Loopback takes every datagram at once and drops what the receiver has no room for. To fill a sender, the tests of flow
control use a pair of Unix datagram sockets that are connected to each other, where Linux makes the sender wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from .._kit import peers
from .._kit.contracts.recording import Recording
from .._kit.contracts.stream import turns

LOCALHOST = "127.0.0.1"


class Datagrams(Recording, asyncio.DatagramProtocol):
    """Writes down its callbacks. `received` holds (data, address), `failures` the exceptions of error_received."""

    CALLBACKS = frozenset(
        {"connection_made", "datagram_received", "error_received", "pause_writing", "resume_writing", "connection_lost"}
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, **hooks: Callable[..., Any]) -> None:
        super().__init__(loop, **hooks)
        self.received: list[tuple[bytes, Any]] = []
        self.failures: list[Exception] = []

    @property
    def data(self) -> list[bytes]:
        """What was received, without the addresses."""
        return [data for data, _ in self.received]

    async def got(self, count: int) -> None:
        """Wait until at least `count` datagrams were received."""
        await self.until(lambda: len(self.received) >= count)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        self._called("datagram_received", data, addr)

    def error_received(self, exc: Exception) -> None:
        self.failures.append(exc)
        self._called("error_received", exc)


@contextlib.asynccontextmanager
async def endpoint(
    loop: asyncio.AbstractEventLoop, protocol: Datagrams | None = None, **arguments: Any
) -> AsyncIterator[Datagrams]:
    """An endpoint with a recording protocol, on a free loopback port unless told otherwise; aborted at the end."""
    made = protocol if protocol is not None else Datagrams(loop)
    transport, _ = await loop.create_datagram_endpoint(lambda: made, **(arguments or {"local_addr": (LOCALHOST, 0)}))
    try:
        yield made
    finally:
        made.calls = list(made.calls)  # those a test returns end before this end
        transport.abort()
        await made.lost


def name_of(protocol: Datagrams) -> Any:
    """The address that the endpoint of `protocol` is bound to."""
    return protocol.transport.get_extra_info("sockname")


def far_end(family: int = socket.AF_INET) -> socket.socket:
    """A blocking UDP socket on loopback, for the far end; its operations give up after 15 s."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(("::1" if family == socket.AF_INET6 else LOCALHOST, 0))
        sock.settimeout(peers.TIMEOUT)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def refusing() -> Iterator[socket.socket]:
    """A far end that refuses: it is connected to somebody else. `connect()` it to an endpoint and it takes what comes.

    Its port stays taken meanwhile, so nobody else on the machine can answer there.
    """
    with far_end() as other, far_end() as sock:
        sock.connect(other.getsockname())
        yield sock


def needs_a_full_sender() -> None:
    """Skip the test where nothing makes a sender of datagrams wait."""
    if sys.platform != "linux":
        pytest.skip("only Linux's Unix datagram sockets make the sender wait")


@contextlib.contextmanager
def filling_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two Unix datagram sockets that are bound, and connected to each other: the first has a small send buffer.

    Both have names, because CPython sends on a connected socket only where getpeername() is not empty.
    """
    needs_a_full_sender()
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs,
    ):
        names = [os.path.join(directory, name) for name in ("ours", "theirs")]
        ours.bind(names[0])
        theirs.bind(names[1])
        ours.connect(names[1])
        theirs.connect(names[0])
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        ours.setblocking(False)
        theirs.settimeout(peers.TIMEOUT)
        yield ours, theirs


async def fill(transport: Any, size: int = 1000) -> list[bytes]:
    """Send numbered datagrams until one has to wait in the transport; all of them, the waiting one included."""
    sent: list[bytes] = []
    while len(sent) < 10_000:
        sent.append(numbered(len(sent), size))
        transport.sendto(sent[-1])
        if transport.get_write_buffer_size():
            await turns()
            if transport.get_write_buffer_size():
                return sent
    raise AssertionError("the kernel takes everything")


def numbered(number: int, size: int) -> bytes:
    """A datagram of `size` bytes that tells its number."""
    return b"%06d" % number + bytes(size - 6)


def receive(sock: socket.socket, count: int) -> list[bytes]:
    """Receive `count` datagrams on a blocking socket."""
    return [sock.recv(65536) for _ in range(count)]
