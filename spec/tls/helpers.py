"""What tests of handshakes share: servers of the loop, clients of it, and who keeps count of open files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from .._kit import peers
from ..tcp.serving import LOCALHOST, Echo
from . import certificates


@contextlib.asynccontextmanager
async def serving(loop: asyncio.AbstractEventLoop, factory: Any = Echo, **options: Any) -> AsyncIterator[Any]:
    """A TLS server of the loop on loopback; the address. It waits for the end of its connections."""
    server = await loop.create_server(factory, LOCALHOST, 0, **{"ssl": certificates.server(), **options})
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
    await server.wait_closed()


async def connect(loop: asyncio.AbstractEventLoop, addr: Any, protocol: Any, **options: Any) -> Any:
    """A TLS client of the loop, which trusts `certificates.AUTHORITY`; its transport."""
    options = {"ssl": certificates.client(), "server_hostname": certificates.NAME, **options}
    transport, _ = await loop.create_connection(lambda: protocol, *addr[:2], **options)
    return transport


async def ask(transport: Any, protocol: Any) -> tuple[bytes, BaseException | None]:
    """Send a ping over a connection to an echo and close it; what came back, and why the connection was lost."""
    transport.write(b"ping")
    await protocol.received(4)
    transport.close()
    return bytes(protocol.data), await protocol.lost


def dial(addr: Any) -> socket.socket:
    """A blocking socket connected to `addr`."""
    return socket.create_connection(addr[:2], timeout=peers.TIMEOUT)


def to_the_end(sock: socket.socket) -> bytes:
    """What comes before the other side closes its socket, be it by EOF or by a reset."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return bytes(got)


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/dev/fd"))


async def until(predicate: Callable[[], object]) -> None:
    """Let the loop go on until `predicate()` is true; the time-out is that of `run`."""
    while not predicate():
        await asyncio.sleep(0)
