"""Makers of TLS connections for the stream contract, and their peer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import Any

from .._kit import peers
from .connections import Peer, connect

ABILITIES = frozenset({"read", "write", "full_duplex"})
"""All but half-close: transports of TLS have none (`can_write_eof()`)."""


class Answering(Peer):
    """A peer that answers a close_notify by itself, as a TCP stack does a FIN: also while nobody receives.

    A thread looks at what has come. As long as that is anything but one small record, the size of an alert, it takes
    nothing, so a peer that does not read stalls the other side.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(sock, context, **options)
        self._receiving = threading.Lock()
        self._looked = threading.Event()
        self._early = b""
        self._watcher: peers.PeerThread | None = None
        self._closing = False

    def handshake(self, *, hold: bool = False) -> None:
        """As that of `Wire`; from then on a close_notify is answered."""
        super().handshake(hold=hold)
        self._watcher = peers.thread(self._watch)

    def recv(self, size: int = 65536) -> bytes:
        """As that of `Wire`; ConnectionResetError where the stream ends without close_notify."""
        with self._receiving:
            early, self._early = self._early[:size], self._early[size:]
            if early:
                return early
            try:
                data = super().recv(size)
            except ssl.SSLEOFError as error:
                raise ConnectionResetError("the stream ended without close_notify") from error
        self._looked.set()
        if not data:
            self.end()
        return data

    def close(self) -> None:
        """As that of `Peer`."""
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):  # the other side may be gone
                self.end()
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self._closing = True
            self._looked.set()
            if self._watcher is not None:
                self._watcher.result()
            self.sock.close()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # reset, closed, or nothing for 15 s
            while head := self.sock.recv(64, socket.MSG_PEEK):
                if _is_small_record(head) and self._receiving.acquire(blocking=False):
                    try:
                        if self._take_small_record():
                            return
                    finally:
                        self._receiving.release()
                else:
                    self._looked.wait(peers.TIMEOUT)
                    self._looked.clear()
                    if self._closing:
                        return

    def _take_small_record(self) -> bool:
        """Take what has come if it still is one small record, and answer it if it is close_notify: was it?"""
        with contextlib.suppress(BlockingIOError):  # taken by a recv() that has returned meanwhile
            if _is_small_record(self.sock.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)):
                self._feed()
                with self._engine:
                    data = self.tls.read(64)
                if not data:
                    self.end()
                    return True
                self._early += data
        return False


def _is_small_record(data: bytes) -> bool:
    """Is this one whole record as large as an alert? TLS 1.3 does not show what is in it, maybe two bytes of data."""
    return data[:5] in (b"\x15\x03\x03\x00\x1a", b"\x17\x03\x03\x00\x13") and len(data) == 5 + data[4]


class Tls:
    """TLS over a connected TCP socket; `side` is what the loop is."""

    abilities = ABILITIES

    def __init__(self, side: str) -> None:
        self.side = side

    def __repr__(self) -> str:
        return f"TLS, the loop's {self.side}"

    async def connect(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> tuple[asyncio.Transport, Peer]:
        """A connection on which hands were shaken."""
        return await connect(loop, protocol, self.side, kind=Answering)
