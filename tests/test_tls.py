"""TLS connections where a clause of the suite would not look: whose the memory is, and whose the streams are."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from spec.tls import certificates, peer
from tests import support

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that lives through the test."""
    loop = support.new_loop()
    yield loop
    loop.close()


class Recorder(asyncio.Protocol):
    """Notes what it is told, as names; `over` is done once the connection is lost."""

    def __init__(self, loop: Loop) -> None:
        self.told: list[str] = []
        self.data = bytearray()
        self.over: asyncio.Future[BaseException | None] = loop.create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.over.set_result(exc)


class Bare(asyncio.Transport):
    """A stream in Python, with what `start_tls` needs and no more: the other end gets what is written at once."""

    _start_tls_compatible = True

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop
        self.protocol: Any = asyncio.Protocol()
        self.other: Any = None
        self.waiting: list[bytes] = []
        self.paused = self.closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.pump()

    def pump(self) -> None:
        while self.waiting and not self.paused:
            data, protocol = self.waiting.pop(0), self.protocol
            if isinstance(protocol, asyncio.BufferedProtocol):
                protocol.get_buffer(len(data))[: len(data)] = data
                protocol.buffer_updated(len(data))
            else:
                protocol.data_received(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        for at in range(0, len(data), 1000):
            self.other.waiting.append(bytes(data[at : at + 1000]))
        self.other.pump()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    abort = close


async def over_bare_streams(loop: Loop) -> tuple[Recorder, Recorder]:
    """A client and a server that have done their handshake over two `Bare` streams."""
    ends = Bare(loop), Bare(loop)
    ends[0].other, ends[1].other = ends[1], ends[0]
    client, server = Recorder(loop), Recorder(loop)
    client.transport, server.transport = await asyncio.gather(
        loop.start_tls(ends[0], client, certificates.client(), server_hostname=certificates.NAME),
        loop.start_tls(ends[1], server, certificates.server(), server_side=True),
    )
    return client, server


def test_a_loop_closed_with_a_connection_open_is_collected_with_it() -> None:
    async def leave_open(loop: Loop, addr: Any) -> list[weakref.ref[Any]]:
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), *addr, ssl=certificates.client(), server_hostname=certificates.NAME
        )
        return [weakref.ref(each) for each in (loop, transport, protocol, transport.get_extra_info("ssl_object"))]

    with warnings.catch_warnings(), peer.serve(certificates.server(), peer.part) as addr:
        # Dropped open, it warns, as it should.
        warnings.simplefilter("ignore")
        closed = support.new_loop()
        held = closed.run_until_complete(leave_open(closed, addr))
        closed.close()
        del closed
        # The stream's own finalizer may bring back what it holds, once.
        gc.collect()
        gc.collect()
        assert [each() for each in held] == [None] * 4


def test_a_stream_below_that_has_no_marks_and_tells_no_sizes_carries_tls(loop: Loop) -> None:
    async def main() -> None:
        client, server = await over_bare_streams(loop)
        client.transport.set_write_buffer_limits(10)
        client.transport.write(b"x" * 100_000)
        assert client.transport.get_write_buffer_size() == 0
        client.transport.close()
        assert await asyncio.wait_for(server.over, 15) is None
        assert await asyncio.wait_for(client.over, 15) is None
        assert bytes(server.data) == b"x" * 100_000

    loop.run_until_complete(main())
