"""Data over TLS: however it is cut into records and segments, it arrives whole, in order, and at once."""

from __future__ import annotations

import asyncio
import ssl
import warnings

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern, pieces
from .._kit.contracts.stream import aside, turns
from .connections import RECORD, SIDES, VERSIONS, Buffered, Peer, connected, contexts, start
from .helpers import connect, serving

SIZES = [1, 2, RECORD - 1, RECORD, RECORD + 1, 16 * RECORD, 1_000_003]
KINDS = pytest.mark.parametrize("kind", [Recorder, Buffered])


@clause("tls.data.both-ways")
@pytest.mark.parametrize("size", SIZES)
@VERSIONS
@SIDES
def test_what_goes_out_comes_back_whole(loop, run, side, version, size):
    data = pattern(size)

    def echo(peer):
        left = size
        while left:
            piece = peer.recv(65536)
            peer.sendall(piece)
            left -= len(piece)

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, version) as (transport, peer):
            echoing = loop.create_task(aside(echo, peer))
            transport.write(data)
            await protocol.received(size)
            await echoing
        return bytes(protocol.data)

    assert run(main()) == data


@clause("tls.data.both-ways")
@SIDES
def test_sixteen_mebibytes_go_both_ways_at_once(loop, run, side):
    size = 16 * 1024 * 1024
    there, back = pattern(size), pattern(size + 7)[7:]

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, small=False) as (transport, peer):
            sending = loop.create_task(aside(peer.sendall, back))
            receiving = loop.create_task(aside(peer.exactly, size))
            transport.write(there)
            await protocol.received(size)
            await sending
            return await receiving == there, bytes(protocol.data) == back

    assert run(main()) == (True, True)


@clause("tls.data.both-ends-in-one-loop")
def test_both_ends_of_a_connection_live_in_one_loop(loop, run):
    data = pattern(3_000_001)

    async def main():
        protocol = Recorder(loop)
        async with serving(loop) as addr:
            transport = await connect(loop, addr, protocol)
            for piece in pieces(data, 100_000):
                transport.write(piece)
            await protocol.received(len(data))
            transport.close()
            return bytes(protocol.data) == data, await protocol.lost

    assert run(main()) == (True, None)


@clause("tls.data.tiny-writes")
@SIDES
def test_thousands_of_writes_of_a_byte_arrive_in_order(loop, run, side):
    data = pattern(5000)

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            for at in range(len(data)):
                transport.write(data[at : at + 1])
                if at % 1000 == 999:
                    await asyncio.sleep(0)
            return await aside(peer.exactly, len(data))

    assert run(main()) == data


@clause("tls.data.write-in-callbacks")
@KINDS
def test_writes_from_within_callbacks_are_sent_in_order(loop, run, kind):
    async def main():
        protocol = kind(loop, connection_made=lambda transport: transport.write(b"made "))
        name = "data_received" if kind is Recorder else "buffer_updated"
        protocol.hooks[name] = lambda _: protocol.transport.writelines([b"da", b"ta "])
        protocol.hooks["connection_lost"] = lambda _: protocol.transport.write(b"lost")
        async with connected(loop, protocol) as (_, peer):

            def talk():
                greeting = peer.exactly(5)
                peer.send(b"x")
                rest = peer.exactly(5)
                peer.end()
                return greeting + rest + peer.drain()

            got = await aside(talk)
            return got, await protocol.lost

    assert run(main()) == (b"made data ", None)


@clause("tls.data.small-records")
@pytest.mark.parametrize("count", [2, 50, 3000])
@KINDS
@VERSIONS
def test_records_that_come_in_one_segment_are_all_delivered(loop, run, version, kind, count):
    """The socket has nothing more to say after the first read: what is left waits inside OpenSSL."""
    data = pattern(count)

    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol, version=version, small=False) as (_, peer):
            await aside(peer.sock.sendall, peer.seal(*(data[at : at + 1] for at in range(count))))
            await protocol.received(count)
            await turns(5)
            return bytes(protocol.data)

    assert run(main()) == data


@clause("tls.data.small-records")
@pytest.mark.parametrize("size", [1, 100, RECORD - 1])
def test_a_record_larger_than_the_buffer_of_a_protocol_is_delivered_whole(loop, run, size):
    data = pattern(RECORD * (1 if size > 1 else 0) + 3000)

    async def main():
        protocol = Buffered(loop, size)
        async with connected(loop, protocol) as (_, peer):
            await aside(peer.sock.sendall, peer.seal(data))
            await protocol.received(len(data))
            return bytes(protocol.data)

    assert run(main()) == data


@clause("tls.data.split-record")
@VERSIONS
@SIDES
def test_a_record_that_comes_byte_by_byte_is_delivered_when_it_is_whole(loop, run, side, version):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, version) as (_, peer):
            for word in (b"first", b"second"):
                record = peer.seal(word)
                before = bytes(protocol.data)
                for at in range(len(record)):
                    assert bytes(protocol.data) == before
                    peer.sock.sendall(record[at : at + 1])
                    await turns(3)
                await protocol.received(len(before + word))
            return bytes(protocol.data)

    assert run(main()) == b"firstsecond"


@clause("tls.data.split-record")
def test_records_cut_anywhere_are_put_together(loop, run, dice):
    data = pattern(300_000)

    def dribble(peer):
        records = peer.seal(*pieces(data, 5003))
        while records:
            size = dice.choice([1, 4, 5, 6, 100, 5000, 17_000])
            peer.sock.sendall(records[:size])
            records = records[size:]

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, small=False) as (_, peer):
            await aside(dribble, peer)
            await protocol.received(len(data))
            return bytes(protocol.data)

    assert run(main()) == data


@clause("tls.data.split-record")
def test_half_a_record_is_not_delivered(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (_, peer):
            whole, half = peer.seal(b"whole"), peer.seal(pattern(5000))[:-1]
            await aside(peer.sock.sendall, whole + half)
            await protocol.received(5)
            await turns(50)
            return bytes(protocol.data)

    assert run(main()) == b"whole"


@clause("tls.data.empty-record")
@pytest.mark.skipif(not ssl.HAS_TLSv1, reason="this OpenSSL has no TLS 1.0, whose CBC ciphers alone send empty records")
def test_an_empty_record_is_not_delivered_and_is_no_end(loop, run):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = peers.pair()
        context, other = contexts("client")
        for each in (context, other):
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                each.minimum_version = each.maximum_version = ssl.TLSVersion.TLSv1
            each.set_ciphers("ALL:@SECLEVEL=0")
        with theirs:
            peer = Peer(theirs, other, server_side=True)
            shaking = loop.create_task(aside(peer.handshake))
            transport = await start(loop, protocol, ours, context)
            await shaking
            records = peer.seal(b"data")
            size = int.from_bytes(records[3:5])
            empty, data = records[: 5 + size], records[5 + size :]
            assert data and empty  # OpenSSL has put one before the data
            await aside(theirs.sendall, empty)
            await turns(20)
            before = list(protocol.calls)
            await aside(theirs.sendall, data)
            await protocol.received(4)
            transport.abort()
            await protocol.lost
        return before, bytes(protocol.data)

    assert run(main()) == (["connection_made"], b"data")


@clause("tls.data.at-once")
@SIDES
def test_a_write_is_on_the_wire_before_anything_else_happens(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.write(b"now")
            await asyncio.sleep(0)
            return peer.recv()  # blocks the loop: only what was sent already can come

    assert run(main()) == b"now"


@clause("tls.data.one-record")
def test_a_small_write_is_one_record_and_no_more_bytes_than_needed(loop, run):
    """RFC 8446, 5.2: a header of 5 bytes, the data, a byte for its type, and 16 bytes of authentication."""

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            before = len(peer.received)
            transport.write(b"x" * 100)
            await aside(peer.exactly, 100)
            return len(peer.received) - before

    assert run(main()) == 5 + 100 + 1 + 16


@clause("tls.write.empty-sends-nothing")
def test_an_empty_write_puts_nothing_on_the_wire(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            before = len(peer.received)
            for empty in (b"", bytearray(), memoryview(b"")):
                transport.write(empty)
            transport.writelines([])
            transport.writelines([b"", b""])
            transport.write(b"x")
            await aside(peer.exactly, 1)
            return len(peer.received) - before

    assert run(main()) == 5 + 1 + 1 + 16


@clause("tls.write.wrong-type")
@pytest.mark.parametrize("data", ["text", 7, None, ["list"]], ids=lambda data: type(data).__name__)
def test_a_wrong_type_raises_at_once_and_harms_nothing(loop, run, data):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            with pytest.raises(TypeError):
                transport.write(data)
            transport.write(b"unharmed")
            return await aside(peer.exactly, 8)

    assert run(main()) == b"unharmed"


@clause("tls.write.wrong-element")
def test_a_wrong_element_of_writelines_raises_or_ends_the_connection(loop, run, errors, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            try:
                transport.writelines([b"sent?", "text"])
            except TypeError:
                transport.write(b"end")
                got = await aside(peer.until, b"end")
                saw("tls.write.wrong-element", "TypeError from writelines(), the connection unharmed")
                return got in (b"end", b"sent?end")
            reason = await protocol.lost
            contexts = errors.take()
            saw("tls.write.wrong-element", "connection_lost(TypeError)")
            return isinstance(reason, TypeError) and all(each["exception"] is reason for each in contexts)

    assert run(main())
    errors.take()


@clause("tls.write.non-contiguous")
def test_a_view_that_is_not_contiguous_is_sent_refused_or_ends_the_connection(loop, run, errors, saw):
    view = memoryview(pattern(1000))[::2]

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            try:
                transport.write(view)
            except (BufferError, TypeError, ValueError):
                transport.write(b"end")
                saw(
                    "tls.write.non-contiguous",
                    "BufferError, TypeError or ValueError from write(), the connection unharmed",
                )
                return await aside(peer.until, b"end") == b"end"
            await turns(20)
            if protocol.lost.done():
                saw("tls.write.non-contiguous", "connection_lost(BufferError), reported")
                return isinstance(protocol.lost.result(), BufferError) and len(errors.take()) == 1
            saw("tls.write.non-contiguous", "sent")
            return await aside(peer.exactly, 500) == bytes(view)

    assert run(main())


@clause("tls.write.unread-peer-data")
def test_writing_goes_on_while_the_peer_sends_and_nobody_reads(loop, run):
    """TLS has one engine for both directions; neither must wait for the other."""
    data = pattern(2_000_000)

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.pause_reading()
            sending = loop.create_task(aside(peer.sendall, data))
            receiving = loop.create_task(aside(peer.exactly, len(data)))
            for piece in pieces(data, 50_000):
                transport.write(piece)
                await asyncio.sleep(0)
            got = await receiving
            held = bytes(protocol.data)
            transport.resume_reading()
            await protocol.received(len(data))
            await sending
            return got == data, held, bytes(protocol.data) == data

    assert run(main()) == (True, b"", True)
