"""What the tests of sendfile share: files, and the two ways to send one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, BinaryIO

import pytest

from .._kit import peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, turns
from ..tcp.makers import shrink

LARGE = MORE_THAN_THE_KERNEL_TAKES
"""Bytes of a file that cannot be sent while the peer does not read."""


@contextlib.contextmanager
def file_of(content: bytes, buffering: int = -1) -> Iterator[BinaryIO]:
    """A temporary file with `content`, at position 0."""
    with tempfile.TemporaryFile(buffering=buffering) as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield file


class BySock:
    """`loop.sock_sendfile()` on a socket of our own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self.sock = sock

    async def open(self) -> None:
        """Nothing is to be done."""

    async def sendfile(self, file: Any, *args: Any, **kwargs: Any) -> int:
        return await self.loop.sock_sendfile(self.sock, file, *args, **kwargs)

    async def write(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def close(self) -> None:
        self.sock.close()


class ByTransport:
    """`loop.sendfile()` on a transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self.sock = sock
        self.protocol = Recorder(loop)

    async def open(self) -> None:
        self.transport, _ = await self.loop.create_connection(lambda: self.protocol, sock=self.sock)

    async def sendfile(self, file: Any, *args: Any, **kwargs: Any) -> int:
        return await self.loop.sendfile(self.transport, file, *args, **kwargs)

    async def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def close(self) -> None:
        self.transport.close()
        await self.protocol.lost


WAYS = pytest.mark.parametrize("way", [BySock, ByTransport], ids=["sock_sendfile", "sendfile"])
PAIRS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])


@contextlib.asynccontextmanager
async def sender(
    way: Callable[..., Any], loop: asyncio.AbstractEventLoop, make: Callable[[], Any] = peers.pair
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A connected pair with small kernel buffers: the end that sends, and the peer's blocking socket."""
    ours, theirs = make()
    shrink(ours, theirs)
    with ours, theirs:
        end = way(loop, ours)
        await end.open()
        try:
            yield end, theirs
        finally:
            if way is ByTransport and not end.protocol.lost.done():
                end.transport.abort()
                await asyncio.wait([end.protocol.lost], timeout=1)


async def blocked(end: Any, file: Any, *args: Any, **kwargs: Any) -> asyncio.Task[int]:
    """The task that sends `file`, once the kernel took what it takes while the peer does not read."""
    task = asyncio.ensure_future(end.sendfile(file, *args, **kwargs))
    await turns(100)
    assert not task.done(), task
    return task


def late_drain(theirs: socket.socket) -> Any:
    """All that the peer gets to the end of the stream, read in a thread; to be awaited."""
    return aside(drain, theirs)


def read_some_and_go(theirs: socket.socket, size: int = 200_000) -> None:
    """A peer that reads `size` bytes and hangs up with more unread: a reset."""
    peers.recv_exactly(theirs, size)
    theirs.close()


__all__ = [
    "LARGE",
    "PAIRS",
    "WAYS",
    "BySock",
    "ByTransport",
    "aside",
    "blocked",
    "drain",
    "file_of",
    "late_drain",
    "pattern",
    "read_some_and_go",
    "sender",
    "turns",
]
