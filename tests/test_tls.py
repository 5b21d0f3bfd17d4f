"""TLS connections where a clause of the suite would not look: whose the memory is, and whose the streams are."""

from __future__ import annotations

import array
import asyncio
import gc
import ssl
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from spec._kit import peers
from spec.tls import certificates, helpers, peer
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
        self.broken: Exception | None = None

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
        if self.broken is not None:
            raise self.broken
        for at in range(0, len(data), 1000):
            self.other.waiting.append(bytes(data[at : at + 1000]))
        self.other.pump()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, exc)


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


def test_a_stream_below_whose_write_raises_ends_the_connection(loop: Loop) -> None:
    # Nothing of it is the writer's fault, and without that record the peer cannot make sense of the next one.
    async def main() -> None:
        client, server = await over_bare_streams(loop)
        client.transport._ssl_protocol._transport.broken = OSError("out of order")
        client.transport.write(b"lost")
        client.transport.write(b"lost, too")
        exc = await asyncio.wait_for(client.over, 15)
        assert isinstance(exc, OSError) and str(exc) == "out of order"
        server.transport.abort()
        await asyncio.wait_for(server.over, 15)
        assert not server.data

    loop.run_until_complete(main())


def test_an_interrupt_while_a_record_is_encrypted_neither_loses_nor_repeats_it(loop: Loop) -> None:
    context = certificates.client()
    interrupts: list[int] = []

    def on_record(*_: Any) -> None:
        # As with a signal, OpenSSL has encrypted the record when Python raises.
        if interrupts and not interrupts.pop(0):
            raise KeyboardInterrupt

    data = bytes(range(256)) * 400

    async def main(addr: Any) -> bytes:
        reader, writer = await asyncio.open_connection(*addr, ssl=context, server_hostname=certificates.NAME)
        interrupts.extend([1, 1, 1, 0])
        with pytest.raises(KeyboardInterrupt):
            writer.write(data)
        writer.write(data[::-1])
        got = await asyncio.wait_for(reader.readexactly(2 * len(data)), 15)
        writer.close()
        await writer.wait_closed()
        return got

    context._msg_callback = on_record  # type: ignore[attr-defined]
    with peer.serve(certificates.server(), peer.echo) as addr:
        assert loop.run_until_complete(main(addr)) == data + data[::-1]


def test_a_failed_upgrade_leaves_no_cycle(loop: Loop) -> None:
    async def main(addr: Any) -> weakref.ref[Any]:
        transport, _ = await loop.create_connection(asyncio.Protocol, *addr)
        context = certificates.client()
        try:
            await loop.start_tls(transport, asyncio.Protocol(), context, server_hostname="other.example")
        except ssl.SSLError:
            return weakref.ref(context)
        raise AssertionError("the name was none of the certificate's")

    gc.collect()
    gc.disable()
    try:
        with peers.serve(lambda sock: peer.refusal(sock, certificates.server(), server_side=True)) as addr:
            held = loop.run_until_complete(main(addr))
            loop.run_until_complete(asyncio.wait_for(helpers.until(lambda: held() is None), 10))
    finally:
        gc.enable()


def test_writelines_takes_what_has_bytes(loop: Loop) -> None:
    async def main() -> None:
        client, server = await over_bare_streams(loop)
        client.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c"), array.array("B", b"d"), b""])
        client.transport.close()
        await asyncio.wait_for(server.over, 15)
        assert bytes(server.data) == b"abcd"
        await asyncio.wait_for(client.over, 15)

    loop.run_until_complete(main())


def test_closing_with_data_unread_is_an_end_without_an_error(loop: Loop) -> None:
    # Asyncio has OpenSSL complain of data behind its own close_notify, which came before it.
    async def main() -> None:
        client, server = await over_bare_streams(loop)
        client.transport.pause_reading()
        server.transport.write(b"unread" * 1000)
        client.transport.close()
        assert await asyncio.wait_for(client.over, 15) is None
        assert await asyncio.wait_for(server.over, 15) is None
        assert not client.data

    loop.run_until_complete(main())
