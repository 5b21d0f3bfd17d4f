"""Ends that the peer brings about: close_notify, a stream cut short, a reset, and bytes that are no TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, follows_grammar, pattern
from .._kit.contracts.stream import aside, turns
from .connections import SIDES, VERSIONS, Buffered, connected, told

KINDS = pytest.mark.parametrize("kind", [Recorder, Buffered])


@clause("tls.eof.close-notify")
@VERSIONS
@SIDES
@KINDS
def test_a_close_notify_is_the_end_and_is_answered(loop, run, kind, side, version):
    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol, side, version) as (_, peer):

            def talk():
                peer.send(b"data")
                peer.unwrap()  # ssl.SSLError unless close_notify comes back
                return peer.sock.recv(1)

            rest = await aside(talk)
            return bytes(protocol.data), rest, await protocol.lost, told(protocol)

    data, rest, reason, calls = run(main())
    assert (data, rest, reason) == (b"data", b"", None)
    assert follows_grammar(calls), calls
    assert calls[-2:] == ["eof_received", "connection_lost"]


@clause("tls.eof.close-notify")
@SIDES
def test_data_and_close_notify_of_one_segment_come_in_order(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        seen = []
        protocol.hooks["eof_received"] = lambda: seen.append(len(protocol.data))
        async with connected(loop, protocol, side, small=False) as (_, peer):
            await aside(peer.sock.sendall, peer.seal(pattern(50_000)) + peer.farewell())
            return await protocol.lost, seen

    assert run(main()) == (None, [50_000])


@clause("tls.eof.true-has-no-effect")
@KINDS
@SIDES
def test_a_true_answer_to_eof_does_not_keep_the_connection_open_and_is_warned_of(loop, run, side, kind, caplog):
    async def main():
        protocol = kind(loop, eof_received=lambda: True)
        async with connected(loop, protocol, side) as (transport, peer):
            await aside(peer.unwrap)
            return await protocol.lost, transport.is_closing(), told(protocol)[-2:]

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        assert run(main()) == (None, True, ["eof_received", "connection_lost"])
    assert [record for record in caplog.records if "eof_received" in record.getMessage()]


@clause("tls.eof.write-in-it")
@SIDES
def test_what_is_written_in_eof_received_after_a_close_notify_is_sent(loop, run, side):
    """RFC 8446, 6.1: a close_notify ends one direction; the peer may read on."""

    async def main():
        protocol = Recorder(loop)
        protocol.hooks["eof_received"] = lambda: protocol.transport.write(b"good bye")
        async with connected(loop, protocol, side) as (_, peer):
            peer.end()
            return await aside(peer.drain), await protocol.lost

    assert run(main()) == (b"good bye", None)


@clause("tls.eof.queued-data-is-sent")
def test_what_was_queued_when_the_peer_ended_is_still_sent(loop, run):
    data = pattern(2_000_000)

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.write(data)
            peer.end()
            return await aside(peer.drain) == data, await protocol.lost

    assert run(main()) == (True, None)


@clause("tls.eof.several-writes-queued")
@SIDES
def test_several_writes_that_were_queued_when_the_peer_ended_are_still_sent(loop, run, side):
    first, second = pattern(1_000_000), pattern(65_536)

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.write(first)
            transport.write(second)
            reading = loop.create_task(aside(peer.drain))
            peer.sock.sendall(peer.farewell())
            reason = await protocol.lost
            await turns(20)
            return await reading == first + second, reason, told(protocol).count("connection_lost")

    assert run(main()) == (True, None, 1)


@clause("tls.eof.nothing-after-close-notify")
def test_what_comes_behind_a_close_notify_is_ignored(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (_, peer):
            await aside(peer.sock.sendall, peer.seal(b"data") + peer.farewell() + b"\x17\x03\x03\x00\x05noise" * 3)
            reason = await protocol.lost
            return bytes(protocol.data), reason, told(protocol)

    data, reason, calls = run(main())
    assert data == b"data"
    assert isinstance(reason, (ssl.SSLError, type(None)))
    saw("tls.eof.nothing-after-close-notify", f"connection_lost({'ssl.SSLError' if reason else None})")
    assert follows_grammar(calls), calls


@clause("tls.eof.truncated")
@pytest.mark.parametrize("kept", [None, 0, 1, 5, 30], ids=lambda kept: "whole" if kept is None else str(kept))
@VERSIONS
@SIDES
def test_a_stream_that_ends_without_close_notify_ends_the_connection(loop, run, side, version, kept, saw):
    """`kept` bytes of a record come, which is never delivered."""

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, version) as (transport, peer):
            data = peer.seal(b"whole")
            if kept is not None:
                data += peer.seal(b"x" * 100)[:kept]
            await aside(peer.sock.sendall, data)
            peer.cut()
            return await protocol.lost, transport.is_closing(), bytes(protocol.data), told(protocol)

    reason, closing, data, calls = run(main())
    assert isinstance(reason, (ssl.SSLError, ConnectionError, type(None)))
    assert closing
    assert data == b"whole"
    assert follows_grammar(calls), calls
    if reason is None:
        saw("tls.eof.truncated", "connection_lost(None)")
    else:
        saw("tls.eof.truncated", "connection_lost() with an ssl.SSLError or ConnectionError")


@clause("tls.eof.truncated-is-eof")
@KINDS
@SIDES
def test_a_stream_cut_short_is_told_as_an_end_like_any_other(loop, run, side, kind):
    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol, side) as (_, peer):
            await aside(peer.send, b"data")
            peer.cut()
            return await protocol.lost, told(protocol)[-2:]

    assert run(main()) == (None, ["eof_received", "connection_lost"])


@clause("tls.eof.half-closed-socket")
@SIDES
def test_a_peer_that_only_shuts_its_socket_for_writing_has_its_connection_closed(loop, run, side):
    """TCP has a half-close and TLS has none: the transport ends, with what was queued."""

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.write(b"queued")
            peer.sock.shutdown(socket.SHUT_WR)
            got = await aside(peer.exactly, 6)
            reason = await protocol.lost
            return got, reason, await aside(_to_the_end, peer.sock)

    assert run(main()) == (b"queued", None, True)


@clause("tls.eof.reset")
@SIDES
@KINDS
def test_a_reset_is_connection_lost_with_the_error(loop, run, kind, side):
    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            await aside(peer.send, b"data")
            await protocol.received(4)
            peer.reset()
            return await protocol.lost, transport.is_closing(), told(protocol)

    reason, closing, calls = run(main())
    assert isinstance(reason, ConnectionResetError)
    assert closing
    assert "eof_received" not in calls
    assert follows_grammar(calls), calls


@clause("tls.eof.reset")
def test_a_reset_while_data_is_queued_drops_it(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            while protocol.calls[-1] != "pause_writing":
                transport.write(pattern(65536))
                await asyncio.sleep(0)
            peer.reset()
            return await protocol.lost, transport.get_write_buffer_size()

    reason, size = run(main())
    assert isinstance(reason, (ConnectionResetError, BrokenPipeError))
    assert size == 0
    saw("tls.eof.reset", type(reason).__name__)


def _spoiled(record):
    """A record with one bit changed."""
    return record[:-1] + bytes([record[-1] ^ 1])


GARBAGE = {
    "plain text": lambda peer: b"GET / HTTP/1.0\r\n\r\n",
    "noise": lambda peer: bytes(range(256)),
    "a changed bit": lambda peer: _spoiled(peer.seal(b"secret")),
    "another record": lambda peer: peer.seal(b"one") and peer.seal(b"two"),  # the first never comes
    "too long": lambda peer: b"\x17\x03\x03\xff\xff" + bytes(1000),
    "a handshake": lambda peer: b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",
    "an alert in the clear": lambda peer: b"\x15\x03\x03\x00\x02\x02\x28",
}


@clause("tls.garbage.ends-with-ssl-error")
@pytest.mark.parametrize("make", GARBAGE.values(), ids=GARBAGE)
@VERSIONS
@SIDES
def test_bytes_that_are_no_record_of_the_peer_end_the_connection(loop, run, side, version, make, errors):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, version) as (transport, peer):
            await aside(peer.send, b"good")
            await protocol.received(4)
            await aside(peer.sock.sendall, make(peer))
            reason = await protocol.lost
            return reason, transport.is_closing(), bytes(protocol.data), told(protocol)

    reason, closing, data, calls = run(main())
    assert isinstance(reason, ssl.SSLError)
    assert closing
    assert data == b"good"
    assert follows_grammar(calls), calls
    assert errors.take() == []  # SSLError is an OSError: the peer's doing, not a fault of the program


@clause("tls.garbage.while-paused")
def test_garbage_that_comes_while_reading_is_paused_ends_the_connection_when_it_is_resumed(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.pause_reading()
            await aside(peer.sock.sendall, bytes(range(256)))
            await turns(50)
            held = list(protocol.calls)
            transport.resume_reading()
            return held, await protocol.lost

    held, reason = run(main())
    assert held == ["connection_made"]
    assert isinstance(reason, ssl.SSLError)


@clause("tls.garbage.while-closing")
def test_garbage_in_answer_to_close_notify_ends_the_connection(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.close()
            await aside(peer.drain)
            await aside(peer.sock.sendall, bytes(range(256)))
            return await protocol.lost, protocol.calls.count("connection_lost")

    reason, count = run(main())
    assert isinstance(reason, (ssl.SSLError, type(None)))
    assert count == 1
    saw("tls.garbage.while-closing", f"connection_lost({'ssl.SSLError' if reason else None})")


@clause("tls.garbage.debug")
def test_in_debug_mode_garbage_is_logged_and_not_reported(loop, run, errors, caplog):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (_, peer):
            await aside(peer.sock.sendall, bytes(range(256)))
            return await protocol.lost

    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        reason = run(main())
    assert isinstance(reason, ssl.SSLError)
    assert errors.take() == []
    assert [record for record in caplog.records if record.exc_info and record.exc_info[1] is reason]


@clause("tls.streams.truncated")
def test_a_reader_gets_what_came_before_a_stream_was_cut_short(loop, run, saw):
    async def main():
        reader, _, peer, end = await _streams(loop)
        try:
            await aside(peer.send, b"some of it")
            peer.cut()
            first = await reader.readexactly(10)
            try:
                rest = await reader.read()
            except (ssl.SSLError, ConnectionError):
                saw("tls.streams.truncated", "then an ssl.SSLError or ConnectionError")
                return first
            saw("tls.streams.truncated", "then EOF")
            return first + rest
        finally:
            await end()

    assert run(main()) == b"some of it"


@clause("tls.streams.exchange")
@SIDES
def test_streams_exchange_lines_and_blobs(loop, run, side):
    blob = pattern(3_000_000)

    def talk(peer):
        asked = peer.until(b"\n")
        peer.send(asked.upper())
        got = peer.exactly(len(blob))
        peer.sendall(got[::-1])
        rest = peer.drain()
        peer.end()
        return rest

    async def main():
        reader, writer, peer, end = await _streams(loop, side)
        try:
            talking = loop.create_task(aside(talk, peer))
            writer.write(b"hello\n")
            line = await reader.readline()
            for at in range(0, len(blob), 100_000):
                writer.write(blob[at : at + 100_000])
                await writer.drain()
            back = await reader.readexactly(len(blob))
            writer.writelines([b"good", b" bye"])
            writer.close()
            await writer.wait_closed()
            return line, back == blob[::-1], await talking, await reader.read(), reader.at_eof()
        finally:
            await end()

    assert run(main()) == (b"HELLO\n", True, b"good bye", b"", True)


@clause("tls.streams.separator")
def test_a_separator_split_over_records_is_found(loop, run):
    async def main():
        reader, _, peer, end = await _streams(loop)
        try:
            for piece in (b"one\r", b"\n", b"\r", b"\nrest"):
                await aside(peer.send, piece)
                await turns(3)
            return await reader.readuntil(b"\r\n\r\n"), await reader.readexactly(4)
        finally:
            await end()

    assert run(main()) == (b"one\r\n\r\n", b"rest")


@clause("tls.streams.reset")
def test_a_reset_is_raised_by_reader_drain_and_wait_closed(loop, run):
    async def main():
        reader, writer, peer, end = await _streams(loop)
        try:
            peer.reset()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()
            return True
        finally:
            await end()

    assert run(main())


@clause("tls.streams.drain-waits")
def test_drain_waits_for_a_peer_that_does_not_read(loop, run):
    async def main():
        _, writer, peer, end = await _streams(loop)
        written = 0

        async def write():
            nonlocal written
            while True:
                writer.write(pattern(65536))
                written += 65536
                await writer.drain()

        try:
            writing = loop.create_task(write())
            seen = -1
            while seen != written:
                seen = written
                await asyncio.sleep(0.05)  # clause-delay
            await aside(peer.exactly, seen)
            while written == seen:
                await asyncio.sleep(0)
            writing.cancel()
            return seen
        finally:
            await end()

    assert run(main()) < 12 * 1024 * 1024 + 2_000_000


async def _streams(loop, side="client"):
    """A reader and a writer over TLS, the peer, and a coroutine function that ends it all."""
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    protocol.lost = loop.create_future()  # what `connected` looks at
    protocol.lost.set_result(None)
    connection = connected(loop, protocol, side)
    transport, peer = await connection.__aenter__()
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    async def end():
        transport.abort()
        await asyncio.wait([asyncio.gather(writer.wait_closed(), return_exceptions=True)], timeout=1)
        await connection.__aexit__(None, None, None)

    return reader, writer, peer, end


def _to_the_end(sock):
    """True where the connection ends, in one way or another; TimeoutError where it stays open."""
    with contextlib.suppress(ConnectionResetError):
        peers.recv_all(sock)
    return True


@clause("tls.eof.reset-found-by-write")
@SIDES
def test_writes_that_find_the_reset_raise_nothing_and_end_the_connection(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.pause_reading()  # so that it is a write that finds it
            peer.reset()
            for _ in range(1000):
                transport.write(b"x")
                if protocol.lost.done():
                    break
                await asyncio.sleep(0)
            return await protocol.lost, protocol.calls.count("connection_lost"), transport.is_closing()

    reason, times, closing = run(main())
    assert isinstance(reason, (ConnectionResetError, BrokenPipeError))
    assert (times, closing) == (1, True)
