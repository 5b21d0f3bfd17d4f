"""Makers of TCP connections for the stream contract: one for each way a loop comes to have a TCP transport."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from .._kit import peers

ABILITIES = frozenset({"read", "write", "half_close", "full_duplex"})
SMALL_BUFFER = 32768


class Connected:
    """The loop is the client: create_connection() over a connected socket."""

    abilities = ABILITIES

    def __repr__(self) -> str:
        return "create_connection()"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, socket.socket]:
        ours, theirs = peers.pair()
        shrink(ours, theirs)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        return transport, theirs


class Accepted:
    """The loop is the server: create_server() accepts the peer."""

    abilities = ABILITIES

    def __repr__(self) -> str:
        return "create_server()"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, socket.socket]:
        listener = peers.listener()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)  # accepted sockets inherit it
        addr = listener.getsockname()
        server = await loop.create_server(lambda: protocol, sock=listener)
        # A kernel completes the handshake by itself, so this does not wait for the loop.
        theirs = socket.create_connection(addr, timeout=peers.TIMEOUT)
        await protocol.called("connection_made")
        server.close()
        transport = protocol.transport
        shrink(theirs)
        return transport, theirs


def shrink(*socks: socket.socket) -> None:
    """Ask for small kernel buffers, so that a peer that does not read stalls the other end soon."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
