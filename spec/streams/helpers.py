"""What the tests of streams share: a stream over a connected socket, and its peer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from .._kit import peers
from ..tcp.makers import shrink

PAIRS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])


@contextlib.asynccontextmanager
async def stream(
    make: Callable[[], Any] = peers.pair, *, small: bool = False, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]]:
    """A reader and a writer over a connected socket, and the peer's blocking socket; `small` kernel buffers."""
    ours, theirs = make()
    if small:
        shrink(ours, theirs)
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours, **options)
        try:
            yield reader, writer, theirs
        finally:
            # Whoever closes but has not sent all yet finds the peer gone.
            theirs.close()
            if not writer.is_closing():
                writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def waiting(coroutine: Any) -> asyncio.Task[Any]:
    """A task that was started and waits."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done(), task
    return task


class Tcp:
    """Servers and clients over TCP."""

    def __init__(self, _directory: Any) -> None:
        pass

    async def serve(self, callback: Any, **options: Any) -> Any:
        """`start_server()` on loopback; `self.addr` is its address."""
        server = await asyncio.start_server(callback, "127.0.0.1", 0, **options)
        self.addr = server.sockets[0].getsockname()
        return server

    async def open(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`open_connection()` to the server."""
        return await asyncio.open_connection(*self.addr, **options)


class Unix:
    """Servers and clients over Unix sockets."""

    def __init__(self, directory: Any) -> None:
        self.addr = str(directory / "s")

    async def serve(self, callback: Any, **options: Any) -> Any:
        """`start_unix_server()`."""
        return await asyncio.start_unix_server(callback, self.addr, **options)

    async def open(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`open_unix_connection()` to the server."""
        return await asyncio.open_unix_connection(self.addr, **options)


def connect(addr: Any) -> socket.socket:
    """A blocking client."""
    if not isinstance(addr, str):
        return socket.create_connection(addr[:2], timeout=peers.TIMEOUT)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(peers.TIMEOUT)
    try:
        sock.connect(addr)
    except BaseException:
        sock.close()
        raise
    return sock
