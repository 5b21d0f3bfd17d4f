"""Connections between a protocol on the loop and a TLS peer that sees, shapes and withholds its ciphertext.

Rules: those of `spec._kit.peers`. A `Peer` may be sent to in one thread while another one receives: the lock is around
what OpenSSL does, never around the socket. The servers of these connections hand out no session tickets, as a
socket closed before it has read one resets the connection instead of ending it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from .._kit import peers
from .._kit.contracts.recording import BufferedRecorder
from .._kit.contracts.stream import aside
from ..tcp.makers import shrink
from . import certificates
from .peer import Wire

SIDES = pytest.mark.parametrize("side", ["client", "server"])
"""What the loop is."""
VERSIONS = pytest.mark.parametrize("version", certificates.VERSIONS.values(), ids=certificates.VERSIONS)

RECORD = 16384
"""Bytes of plaintext that fit into one record (RFC 8446, 5.1)."""


class Peer(Wire):
    """A `Wire` that two threads may use, one to send and one to receive."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(sock, context, **options)
        self._engine = threading.RLock()
        self._wire = threading.Lock()
        self._decrypted = b""

    def run(self, operation: Callable[..., Any], *args: Any, hold: bool = False) -> Any:
        """As that of `Wire`, with the engine to itself."""
        while True:
            with self._engine:
                try:
                    result = operation(*args)
                except ssl.SSLWantReadError:
                    result = None
                except ssl.SSLError:
                    self._flush_quietly()
                    raise
                else:
                    if not hold:
                        break
                    return result
            self.flush()
            self._feed()
        self.flush()
        return result

    def flush(self) -> None:
        """Send what there is to send, in order whoever does it."""
        if not self.outgoing.pending:
            return  # nor wait behind somebody who sends
        with self._wire:
            with self._engine:
                data = self.outgoing.read()
                self.sent += data
            self.sock.sendall(data)

    def _flush_quietly(self) -> None:
        with contextlib.suppress(OSError):  # the one it was for is gone; what it was about is raised
            self.flush()

    def _feed(self) -> None:
        data = self.sock.recv(262144)
        with self._engine:
            self.received += data
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def send(self, data: bytes) -> None:
        """Send `data` encrypted. Whoever receives meanwhile never comes to send any of it, and to wait for that."""
        with self._wire:
            self.sock.sendall(self.seal(data))

    def seal(self, *parts: bytes) -> bytes:
        """The records of `parts`, at least one for each, not sent."""
        with self._engine:
            for part in parts:
                self.tls.write(part)
            return self.outgoing.read()

    def sendall(self, data: bytes) -> None:
        """Send `data` as a program does: a record after the other."""
        for start in range(0, len(data), 16 * RECORD):
            self.send(data[start : start + 16 * RECORD])

    def recv(self, size: int = 65536) -> bytes:
        """As that of `Wire`."""
        try:
            return bytes(self.run(self._read, size))
        except ssl.SSLZeroReturnError:
            return b""

    def _read(self, size: int) -> bytes:
        data, self._decrypted = self._decrypted[:size], self._decrypted[size:]
        return data or self.tls.read(size)

    def end(self) -> None:
        """Send close_notify; the other side's is not waited for."""
        with self._wire:
            self.sock.sendall(self.farewell())

    def farewell(self) -> bytes:
        """The records of close_notify, not sent."""
        with self._engine:
            # OpenSSL gives up on a connection where data comes up while it looks for the other side's close_notify.
            with contextlib.suppress(ssl.SSLError):
                while data := self.tls.read(262144):
                    self._decrypted += data
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
            return self.outgoing.read()

    def unwrap(self) -> None:
        """Send close_notify and wait for the other side's. ssl.SSLError where something else comes."""
        self.run(self.tls.unwrap)

    def exactly(self, size: int) -> bytes:
        """`size` bytes of data. EOFError, with the last of what came, where the stream ends before."""
        got = bytearray()
        while len(got) < size:
            piece = self.recv(min(size - len(got), 262144))
            if not piece:
                raise EOFError(bytes(got[-100:]))
            got += piece
        return bytes(got)

    def until(self, end: bytes) -> bytes:
        """What comes up to and with `end`. EOFError, with what came, where the stream ends before."""
        got = bytearray()
        while not got.endswith(end):
            piece = self.recv()
            if not piece:
                raise EOFError(bytes(got))
            got += piece
        return bytes(got)

    def drain(self) -> bytes:
        """All data up to a close_notify. ssl.SSLEOFError where the stream ends without."""
        got = bytearray()
        while data := self.recv(262144):
            got += data
        return bytes(got)

    def cut(self) -> None:
        """End the connection without close_notify, by a FIN where nothing unread is left."""
        self.sock.close()

    def reset(self) -> None:
        """End the connection by a RST."""
        peers.reset(self.sock)

    def close(self) -> None:
        """End as a well-behaved program does: close_notify, then the socket. Nothing on a socket closed before."""
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):  # the other side may be gone
                self.end()
            self.sock.close()


class Buffered(BufferedRecorder):
    """A `BufferedRecorder` that gives views of its buffer: clauses about buffers look at the others."""

    def get_buffer(self, sizehint: int) -> Any:
        """A view of `buffer`, unless a hook gives something else."""
        given = super().get_buffer(sizehint)
        return memoryview(self.buffer) if given is self.buffer else given


def told(protocol: Any) -> list[str]:
    """The callbacks of a protocol, as those of a Protocol: it may be asked for buffers that nothing comes of."""
    return ["data_received" if name == "buffer_updated" else name for name in protocol.calls if name != "get_buffer"]


def contexts(side: str, version: ssl.TLSVersion | None = None, **options: Any) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The loop's context and the peer's."""
    server = certificates.server(version=version, **options)
    server.num_tickets = 0
    client = certificates.client()
    return (client, server) if side == "client" else (server, client)


async def connect(
    loop: asyncio.AbstractEventLoop,
    protocol: Any,
    side: str = "client",
    version: ssl.TLSVersion | None = None,
    *,
    small: bool = True,
    pair: Callable[[], Any] = peers.pair,
    kind: type[Peer] = Peer,
    **options: Any,
) -> tuple[asyncio.Transport, Peer]:
    """A connection on which hands were shaken; `small` kernel buffers; `options` are those of the loop's method."""
    ours, theirs = pair()
    if small:
        shrink(ours, theirs)
    if theirs.family != socket.AF_UNIX:
        for sock in (ours, theirs):  # the loop's too: asyncio does it itself only where it made the socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours_context, theirs_context = contexts(side, version)
    peer = kind(theirs, theirs_context, server_side=side == "client")
    shaking = loop.create_task(aside(peer.handshake))
    try:
        transport = await start(loop, protocol, ours, ours_context, side, **options)
        await shaking
    except BaseException:
        with contextlib.suppress(OSError):
            theirs.shutdown(socket.SHUT_RDWR)  # wakes the peer
        await asyncio.wait([shaking])
        theirs.close()
        raise
    return transport, peer


async def start(
    loop: asyncio.AbstractEventLoop,
    protocol: Any,
    sock: socket.socket,
    context: ssl.SSLContext,
    side: str = "client",
    **options: Any,
) -> asyncio.Transport:
    """The loop's part of a handshake over a connected socket; its transport."""
    if side == "client":
        options.setdefault("server_hostname", certificates.NAME)
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock, ssl=context, **options)
    else:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context, **options)
    return transport


@contextlib.asynccontextmanager
async def connected(
    loop: asyncio.AbstractEventLoop, protocol: Any, *args: Any, **options: Any
) -> AsyncIterator[tuple[asyncio.Transport, Peer]]:
    """What `connect()` makes, ended at the end: a transport still open is aborted."""
    transport, peer = await connect(loop, protocol, *args, **options)
    try:
        yield transport, peer
    finally:
        if not protocol.lost.done():
            transport.abort()
            await asyncio.wait([protocol.lost], timeout=1)
        peer.cut()
