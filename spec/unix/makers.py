"""Makers of Unix connections for the stream contract, and paths short enough for an address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from .._kit import peers

ABILITIES = frozenset({"read", "write", "half_close", "full_duplex"})


class Connected:
    """The loop is the client: create_unix_connection() to a listening peer."""

    abilities = ABILITIES

    def __repr__(self) -> str:
        return "create_unix_connection()"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, socket.socket]:
        with folder() as path, listening(path) as listener:
            transport, _ = await loop.create_unix_connection(lambda: protocol, path)
            theirs, _ = listener.accept()
        theirs.settimeout(peers.TIMEOUT)
        return transport, theirs


class Accepted:
    """The loop is the server: create_unix_server() accepts the peer."""

    abilities = ABILITIES

    def __repr__(self) -> str:
        return "create_unix_server()"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, socket.socket]:
        with folder() as path:
            server = await loop.create_unix_server(lambda: protocol, path)
            # The kernel completes the connection by itself, so this does not wait for the loop.
            theirs = dial(path)
            await protocol.called("connection_made")
            server.close()
        return protocol.transport, theirs


@contextlib.contextmanager
def folder(name: str = "socket") -> Iterator[str]:
    """A path that is free, in a directory of its own that goes afterwards.

    An address has room for 108 bytes (unix(7)), which pytest's directories may exceed.
    """
    with tempfile.TemporaryDirectory(prefix="spec") as directory:
        yield os.path.join(directory, name)


@contextlib.contextmanager
def listening(path: str | bytes) -> Iterator[socket.socket]:
    """A blocking peer that listens at `path`, or at the abstract address that begins with a zero byte."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.settimeout(peers.TIMEOUT)
        listener.bind(path)
        listener.listen(8)
        yield listener


def dial(path: str | bytes) -> socket.socket:
    """A blocking peer connected to `path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(peers.TIMEOUT)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def exchange(path: str | bytes, data: bytes = b"ping") -> bytes:
    """Send `data` to an echoing server and receive as much."""
    with dial(path) as sock:
        sock.sendall(data)
        return peers.recv_exactly(sock, len(data))


def abstract(name: str) -> str:
    """An abstract address of this process: one that names no file."""
    return f"\0spec-{os.getpid()}-{name}"


def exists(path: str) -> bool:
    """Is there a file at `path`?"""
    return os.path.exists(path)


def put(path: str, text: str) -> None:
    """Make a regular file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class Echo(asyncio.Protocol):
    """Sends back what comes in."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
