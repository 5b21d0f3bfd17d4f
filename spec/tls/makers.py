"""Makers of TLS connections for the stream contract."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from spec.tls.connections import Peer, connect

ABILITIES = frozenset({"read", "write", "full_duplex"})
"""All but half-close: transports of TLS have none (`can_write_eof()`)."""


class Answering(Peer):
    """A peer that answers a close_notify when it reads it."""

    def recv(self, size: int = 65536) -> bytes:
        """As that of `Peer`; a connection that was reset or cut raises ConnectionResetError."""
        try:
            data = super().recv(size)
        except ssl.SSLEOFError as error:
            raise ConnectionResetError("the stream ended without close_notify") from error
        if not data:
            self.end()
        return data


class Tls:
    """TLS over a connected TCP socket; `side` is what the loop is."""

    abilities = ABILITIES

    def __init__(self, side: str) -> None:
        self.side = side

    def __repr__(self) -> str:
        return f"TLS, the loop's {self.side}"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, Peer]:
        """Hands are shaken when this returns; the peer answers a close_notify when it reads it."""
        return await connect(loop, protocol, self.side, kind=Answering, ssl_shutdown_timeout=0.2)
