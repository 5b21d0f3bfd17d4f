"""`loop.sendfile()` over TLS."""

from __future__ import annotations

import asyncio

import pytest

from .._kit import clause
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, turns
from ..sendfile.helpers import file_of
from .connections import SIDES, connected

CONTENT = pattern(1_000_003)


@clause("tls.sendfile.whole")
@pytest.mark.parametrize(
    ("offset", "count"), [(0, None), (1, None), (0, 1), (70_000, 100_000), (999_999, 10), (2_000_000, None)]
)
@SIDES
def test_a_file_is_sent_from_the_offset_to_the_count(loop, run, side, offset, count):
    expected = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]

    async def main(file):
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.write(b"head ")
            reading = loop.create_task(aside(peer.exactly, len(expected) + 10))
            sent = await loop.sendfile(transport, file, offset, count)
            where = file.tell()
            transport.write(b" tail")
            return sent, where, await reading

    with file_of(CONTENT) as file:
        sent, where, got = run(main(file))
    assert sent == len(expected)
    assert got == b"head " + expected + b" tail"
    if expected:
        assert where == offset + len(expected)


@clause("tls.sendfile.whole")
def test_a_file_is_sent_to_a_peer_that_reads_late(loop, run):
    content = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main(file):
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            sending = loop.create_task(loop.sendfile(transport, file))
            await turns(200)
            early = sending.done()
            got = await aside(peer.exactly, len(content))
            return early, got == content, await sending

    with file_of(content) as file:
        assert run(main(file)) == (False, True, len(content))


@clause("tls.sendfile.without-fallback")
def test_without_fallback_it_is_refused_or_native(loop, run, saw):
    async def main(file):
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            try:
                sent = await loop.sendfile(transport, file, fallback=False)
            except (asyncio.SendfileNotAvailableError, RuntimeError):
                sent = 0
            transport.write(b"behind")
            return sent, await aside(peer.exactly, sent + 6)

    with file_of(b"content") as file:
        sent, got = run(main(file))
    assert (sent, got) in ((0, b"behind"), (7, b"contentbehind"))
    refused = "SendfileNotAvailableError or RuntimeError"
    saw("tls.sendfile.without-fallback", "the file is sent by the kernel" if sent else refused)


@clause("tls.sendfile.receives-meanwhile")
def test_what_comes_meanwhile_is_delivered_and_the_protocol_is_as_before(loop, run):
    content = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main(file):
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            sending = loop.create_task(loop.sendfile(transport, file))
            await turns(20)
            await aside(peer.send, b"meanwhile")
            got = await aside(peer.exactly, len(content))
            await sending
            await protocol.received(9)
            state = transport.get_protocol() is protocol, transport.is_reading()
            await aside(peer.send, b", later")
            await protocol.received(16)
            return got == content, state, bytes(protocol.data), protocol.calls[0]

    with file_of(content) as file:
        assert run(main(file)) == (True, (True, True), b"meanwhile, later", "connection_made")


@clause("tls.sendfile.peer-gone")
def test_a_peer_that_resets_the_connection_fails_it(loop, run, saw):
    error, count = _peer_gone(loop, run, "reset")
    assert isinstance(error, (OSError, RuntimeError))
    assert count == 1
    saw("tls.sendfile.peer-gone", "an OSError" if isinstance(error, OSError) else "a RuntimeError")


@clause("tls.sendfile.peer-hangs-up")
def test_a_peer_that_hangs_up_fails_it(loop, run, saw):
    error, count = _peer_gone(loop, run, "cut")
    assert isinstance(error, (OSError, RuntimeError))
    assert count == 1
    saw("tls.sendfile.peer-hangs-up", "an OSError" if isinstance(error, OSError) else "a RuntimeError")


def _peer_gone(loop, run, end):
    """What sendfile() raises when the peer ends in the middle, and how often connection_lost() is called."""
    content = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main(file):
        protocol = Recorder(loop)
        async with connected(loop, protocol, ssl_shutdown_timeout=0.2) as (transport, peer):
            sending = loop.create_task(loop.sendfile(transport, file))
            await turns(100)
            assert not sending.done()
            getattr(peer, end)()
            await asyncio.wait([sending])
            await protocol.lost
            return sending.exception(), protocol.calls.count("connection_lost")

    with file_of(content) as file:
        return run(main(file))


@clause("tls.sendfile.closing")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_closing_transport_is_refused(loop, run, end):
    async def main(file):
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, _):
            getattr(transport, end)()
            with pytest.raises(RuntimeError):
                await loop.sendfile(transport, file)
            return file.tell()

    with file_of(CONTENT) as file:
        assert run(main(file)) == 0
