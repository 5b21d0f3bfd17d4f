"""Makers of TLS connections for the stream contract."""

from __future__ import annotations

import asyncio
from typing import Any

from spec.tls.connections import Peer, connect

ABILITIES = frozenset({"read", "write", "full_duplex"})
"""All but half-close: transports of TLS have none (`can_write_eof()`)."""


class Tls:
    """TLS over a connected TCP socket; `side` is what the loop is."""

    abilities = ABILITIES

    def __init__(self, side: str) -> None:
        self.side = side

    def __repr__(self) -> str:
        return f"TLS, the loop's {self.side}"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, Peer]:
        """Hands are shaken when this returns; the peer answers a close_notify when it reads it."""
        return await connect(loop, protocol, self.side)
