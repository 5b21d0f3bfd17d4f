"""Makers of pipe transports for the stream contract, and the blocking far end of a pipe."""

from __future__ import annotations

import asyncio
import os
import select
from typing import Any, Self

from .._kit import peers

READ, WRITE = frozenset({"read"}), frozenset({"write"})


class End:
    """The blocking end of a pipe or terminal that the loop has not: its operations give up after 15 s."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)

    def sendall(self, data: bytes) -> None:
        """Write everything. BrokenPipeError where nobody can read it any more."""
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            view = view[os.write(self.fd, view) :]

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        self._wait(select.POLLIN)
        return os.read(self.fd, size)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.fd, event)
        if not poll.poll(peers.TIMEOUT * 1000):
            raise TimeoutError(f"nothing happened on fd {self.fd} for {peers.TIMEOUT} s")


def pipe() -> tuple[int, int]:
    """The fds of the reading and the writing end of a new pipe."""
    return os.pipe()


def file(fd: int, mode: str) -> Any:
    """An unbuffered file object that owns `fd`."""
    return open(fd, mode, buffering=0)


async def reading(loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[Any, End]:
    """A transport that reads from a pipe, and the end that writes."""
    theirs, ours = pipe()[::-1]
    transport, _ = await loop.connect_read_pipe(lambda: protocol, file(ours, "rb"))
    return transport, End(theirs)


async def writing(loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[Any, End]:
    """A transport that writes into a pipe, and the end that reads."""
    theirs, ours = pipe()
    transport, _ = await loop.connect_write_pipe(lambda: protocol, file(ours, "wb"))
    return transport, End(theirs)


class Reading:
    """The loop reads: connect_read_pipe()."""

    abilities = READ

    def __repr__(self) -> str:
        return "connect_read_pipe()"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[Any, End]:
        return await reading(loop, protocol)


class Writing:
    """The loop writes: connect_write_pipe()."""

    abilities = WRITE

    def __repr__(self) -> str:
        return "connect_write_pipe()"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[Any, End]:
        return await writing(loop, protocol)
