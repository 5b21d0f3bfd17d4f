"""Flow control over TLS: what is paused delivers nothing, and a peer that does not read pauses the writer."""

from __future__ import annotations

import asyncio
import select

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, follows_grammar, pattern, pieces
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, turns
from . import certificates
from .connections import RECORD, SIDES, VERSIONS, Buffered, Peer, connected, contexts, start

KINDS = pytest.mark.parametrize("kind", [Recorder, Buffered])
STALLED = 0.25
"""Seconds without a byte taken after which a connection is said to be stalled."""


@clause("tls.flow.nothing-while-paused")
@KINDS
@SIDES
def test_nothing_is_delivered_while_reading_is_paused(loop, run, side, kind):
    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.pause_reading()
            before = len(protocol.calls)  # a buffer may have been asked for
            await aside(peer.sock.sendall, peer.seal(*pieces(pattern(1000), 10)))
            await turns(50)
            held = protocol.calls[before:], transport.is_reading()
            transport.resume_reading()
            inline = protocol.calls[before:]
            await protocol.received(1000)
            return held, inline, bytes(protocol.data) == pattern(1000), transport.is_reading()

    assert run(main()) == (([], False), [], True, True)


@clause("tls.flow.nothing-while-paused")
@pytest.mark.parametrize("size", [1, 10, RECORD])
def test_what_was_decrypted_already_waits_too(loop, run, size):
    """The records came in one segment; the first update pauses, and the rest of them is inside OpenSSL."""
    data = pattern(30 * size)

    async def main():
        protocol = Buffered(loop, size)
        protocol.hooks["buffer_updated"] = lambda _: protocol.transport.pause_reading()
        async with connected(loop, protocol, small=False) as (transport, peer):
            await aside(peer.sock.sendall, peer.seal(data))
            for count in range(1, 31):
                await protocol.called("buffer_updated", count)
                await turns(10)
                assert protocol.calls.count("buffer_updated") == count
                assert not transport.is_reading()
                transport.resume_reading()
            return bytes(protocol.data)

    assert run(main()) == data


@clause("tls.flow.nothing-while-paused")
def test_pausing_again_before_the_loop_goes_on_holds_back_what_waits(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.pause_reading()
            await aside(peer.send, b"waits")
            await turns(20)
            transport.resume_reading()
            transport.pause_reading()
            await turns(20)
            held = bytes(protocol.data)
            transport.resume_reading()
            await protocol.received(5)
            return held, bytes(protocol.data)

    assert run(main()) == (b"", b"waits")


@clause("tls.flow.pause-in-connection-made")
@pytest.mark.parametrize(("side", "version"), [("client", certificates.V1_2), ("server", certificates.V1_3)])
def test_pausing_in_connection_made_holds_back_everything(loop, run, side, version):
    assert run(_paused_from_the_start(loop, side, version)) == (b"", b"early")


@clause("tls.flow.paused-handshake-completes")
@VERSIONS
@SIDES
def test_pausing_in_connection_made_does_not_keep_the_peer_from_completing_its_handshake(loop, run, side, version):
    assert run(_paused_from_the_start(loop, side, version)) == (b"", b"early")


async def _paused_from_the_start(loop, side, version):
    """What a protocol that pauses in connection_made() has before it resumes, and after."""
    protocol = Recorder(loop, connection_made=lambda transport: transport.pause_reading())
    ours, theirs = peers.pair()
    context, other = contexts(side, version)
    with theirs:
        peer = Peer(theirs, other, server_side=side == "client")
        shaking = loop.create_task(aside(peer.handshake))
        transport = await start(loop, protocol, ours, context, side)
        try:
            await asyncio.wait([shaking], timeout=3)
            assert shaking.done(), "the peer still waits for the end of the handshake"
            await aside(peer.send, b"early")
            await turns(20)
            held = bytes(protocol.data)
            transport.resume_reading()
            await protocol.received(5)
            return held, bytes(protocol.data)
        finally:
            transport.abort()
            await protocol.lost
            await asyncio.wait([shaking])


@clause("tls.flow.end-waits-for-resume")
@pytest.mark.parametrize("end", [["end"], ["cut"], ["end", "cut"]], ids="-".join)
@pytest.mark.parametrize("data", [b"", pattern(100_000)], ids=len)
@SIDES
def test_the_peers_end_comes_behind_its_data_when_reading_is_resumed(loop, run, side, data, end):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, small=False) as (transport, peer):
            transport.pause_reading()

            def talk():
                peer.sendall(data)
                for step in end:
                    getattr(peer, step)()

            await aside(talk)
            await turns(50)
            held = list(protocol.calls)
            transport.resume_reading()
            async with asyncio.timeout(2):
                await protocol.called("eof_received")
            peer.cut()
            return held, bytes(protocol.data), await protocol.lost, protocol.calls

    held, got, reason, calls = run(main())
    assert held == ["connection_made"]
    assert got == data
    assert reason is None
    assert follows_grammar(calls), calls
    assert calls[-2:] == ["eof_received", "connection_lost"]


@clause("tls.flow.paused-stops-the-peer")
@SIDES
def test_a_peer_that_sends_to_a_paused_transport_is_stopped(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.pause_reading()
            data = pattern(MORE_THAN_THE_KERNEL_TAKES)
            records = peer.seal(data)
            sent = await aside(_send_until_stalled, peer.sock, records)
            assert protocol.calls == ["connection_made"]
            transport.resume_reading()
            await aside(peer.sock.sendall, records[sent:])
            await protocol.received(len(data))
            return sent < len(records), bytes(protocol.data) == data

    assert run(main()) == (True, True)


@clause("tls.flow.slow-reader-pauses")
@SIDES
def test_a_peer_that_does_not_read_pauses_the_writer_until_it_reads(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            written = await _fill(transport, protocol)
            size = transport.get_write_buffer_size()
            protocol.hooks["resume_writing"] = lambda: sizes.append(transport.get_write_buffer_size())
            sizes = []
            got = await aside(peer.exactly, len(written))
            await protocol.called("resume_writing")
            await turns(20)
            limits = transport.get_write_buffer_limits()
            return size, sizes, got == written, transport.get_write_buffer_size(), protocol.calls[:], limits

    size, sizes, whole, left, calls, (low, high) = run(main())
    assert size >= high
    assert sizes
    assert max(sizes) <= low
    assert whole
    assert left == 0
    assert follows_grammar(calls, finished=False), calls
    assert calls[-2:] == ["pause_writing", "resume_writing"]


@clause("tls.flow.slow-reader-pauses")
@pytest.mark.parametrize("high", [1, 65536, 4_000_000])
def test_pauses_and_resumes_alternate_whatever_the_limits(loop, run, high):
    data = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.set_write_buffer_limits(high=high)
            reading = loop.create_task(aside(peer.exactly, len(data)))
            for piece in pieces(data, 77_777):
                transport.write(piece)
                await protocol.called("resume_writing", protocol.calls.count("pause_writing"))
            return await reading == data, protocol.calls[:]

    whole, calls = run(main())
    assert whole
    assert follows_grammar(calls, finished=False), calls
    assert calls.count("pause_writing") == calls.count("resume_writing")


@clause("tls.flow.reads-while-writing-is-paused")
@KINDS
def test_data_is_received_while_writing_is_paused(loop, run, kind):
    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol) as (transport, peer):
            await _fill(transport, protocol)
            for count in range(10):  # little, as what is received may have the kernel take more of what is sent
                await aside(peer.send, pattern(100))
                await protocol.received(100 * (count + 1))
            return bytes(protocol.data)

    assert run(main()) == pattern(100) * 10


@clause("tls.flow.echo-under-pressure")
@SIDES
def test_an_echo_that_pauses_reading_while_writing_is_paused_stays_bounded(loop, run, side):
    data = pattern(MORE_THAN_THE_KERNEL_TAKES)
    sizes = []

    async def main():
        protocol = Recorder(loop)

        def echo(piece):
            protocol.transport.write(piece)
            sizes.append(protocol.transport.get_write_buffer_size())

        protocol.hooks["data_received"] = echo
        async with connected(loop, protocol, side) as (transport, peer):
            protocol.hooks.update(pause_writing=transport.pause_reading, resume_writing=transport.resume_reading)
            sending = loop.create_task(aside(peer.sendall, data))
            await protocol.called("pause_writing")
            high = transport.get_write_buffer_limits()[1]
            got = await aside(peer.exactly, len(data))
            await sending
            return got == data, max(sizes), high

    whole, most, high = run(main())
    assert whole
    assert most <= high + 1024 * 1024  # what is decrypted at once comes on top


@clause("tls.flow.protocol-set-by-then")
def test_a_protocol_set_meanwhile_is_the_one_that_is_resumed(loop, run):
    async def main():
        first, second = Recorder(loop), Recorder(loop)
        async with connected(loop, first) as (transport, peer):
            written = await _fill(transport, first)
            transport.set_protocol(second)
            await aside(peer.exactly, len(written))
            await second.called("resume_writing")
            transport.set_protocol(first)
            return first.calls[-1], second.calls[:]

    assert run(main()) == ("pause_writing", ["resume_writing"])


class Boom(Exception):
    pass


@clause("tls.flow.callback-raises")
@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_an_exception_in_a_flow_callback_is_reported_and_the_connection_goes_on(loop, run, errors, name):
    def boom():
        raise Boom

    async def main():
        protocol = Recorder(loop, **{name: boom})
        async with connected(loop, protocol) as (transport, peer):
            written = await _fill(transport, protocol)
            got = await aside(peer.exactly, len(written))
            await protocol.called("resume_writing")
            transport.write(b"goes on")
            return got == written, await aside(peer.exactly, 7), protocol.calls.count(name)

    whole, last, count = run(main())
    assert whole
    assert last == b"goes on"
    reported = errors.take()
    assert len(reported) == count > 0
    for context in reported:
        assert isinstance(context["exception"], Boom)
        assert name in context["message"]


@clause("tls.flow.callback-exits")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_pause_writing_passes_through_write(loop, run, kind):
    def leave():
        raise kind

    async def main():
        protocol = Recorder(loop, pause_writing=leave)
        async with connected(loop, protocol) as (transport, _):
            try:
                await _fill(transport, protocol)
            except kind:
                return True
            return False

    assert run(main())


@clause("tls.flow.stalled-then-abort")
def test_abort_ends_a_connection_whose_peer_does_not_read(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, _):
            await _fill(transport, protocol)
            transport.abort()
            reason = await protocol.lost
            return reason, transport.get_write_buffer_size(), protocol.calls

    reason, size, calls = run(main())
    assert (reason, size) == (None, 0)
    assert follows_grammar(calls), calls
    assert calls[-2:] == ["pause_writing", "connection_lost"]


@clause("tls.flow.nothing-while-paused")
def test_what_a_peer_dribbles_while_reading_is_paused_is_delivered_when_it_is_resumed(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, "server") as (transport, peer):
            transport.pause_reading()
            for byte in peer.seal(b"one", b"two"):
                peer.sock.sendall(bytes([byte]))
                await asyncio.sleep(0)
            await turns(20)
            held = bytes(protocol.data)
            transport.resume_reading()
            await protocol.received(6)
            return held, bytes(protocol.data)

    assert run(main()) == (b"", b"onetwo")


async def _fill(transport, protocol):
    """Write until writing is paused and stays so; what was written. AssertionError where it never is."""
    piece = pattern(65_536)
    written = bytearray()
    while protocol.calls[-1] != "pause_writing":
        assert len(written) < 2 * MORE_THAN_THE_KERNEL_TAKES, "never paused"
        transport.write(piece)
        written += piece
        if protocol.calls[-1] == "pause_writing":
            await turns(50)  # the kernel may take some more
        else:
            await asyncio.sleep(0)
    return bytes(written)


def _send_until_stalled(sock, data):
    """How much of `data` goes out before nobody takes any more for `STALLED` seconds."""
    sent = 0
    while sent < len(data) and select.select([], [sock], [], STALLED)[1]:
        sock.settimeout(0)
        sent += sock.send(data[sent : sent + 65536])
        sock.settimeout(peers.TIMEOUT)
    return sent


@clause("tls.flow.write-in-callbacks")
@SIDES
def test_what_flow_callbacks_write_is_sent_behind_what_is_queued(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            sent = bytearray()

            def write(data):
                sent.extend(data)
                transport.write(data)

            protocol.hooks.update(pause_writing=lambda: write(b"<paused>"), resume_writing=lambda: write(b"<resumed>"))
            while protocol.calls[-1] != "pause_writing":
                write(pattern(65536))
                await asyncio.sleep(0)
            write(b"<more>")
            reading = loop.create_task(aside(peer.drain))
            await protocol.called("resume_writing")
            transport.close()
            # What a callback writes once the transport is closing is not sent.
            return bytes(sent), await reading

    sent, got = run(main())
    assert b"<paused>" in sent
    assert got[: len(sent)] == sent[: len(got)]
    assert b"<more>" in got and b"<paused>" in got
