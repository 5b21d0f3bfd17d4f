"""close() and abort() over TLS: close_notify, whom it waits for and how long, and what may follow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, follows_grammar, pattern, pieces
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, turns
from . import certificates
from .connections import SIDES, VERSIONS, Buffered, connected, start
from .peer import wrap

TICK = 0.002
"""Seconds that a timer may be early here: `timers.deadline.never-early` looks closer."""

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@clause("tls.close.notifies")
@VERSIONS
@SIDES
def test_the_peer_gets_close_notify_behind_the_data(loop, run, side, version):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, version) as (transport, peer):
            transport.write(b"the last ")
            transport.writelines([b"wor", b"ds"])
            transport.close()

            def talk():
                got = peer.drain()  # SSLEOFError without close_notify
                peer.end()
                return got, peer.sock.recv(1)

            return *await aside(talk), await protocol.lost

    assert run(main()) == (b"the last words", b"", None)


@clause("tls.close.notifies")
@SIDES
def test_a_plain_ssl_socket_sees_a_clean_end(loop, run, side):
    """Python's own blocking peer, which tells a truncated stream from a whole one where it is asked to."""

    async def main():
        ours, theirs = peers.pair()
        protocol = Recorder(loop)
        context, other = (certificates.client(), certificates.server())[:: 1 if side == "client" else -1]

        def talk():
            with wrap(theirs, other, server_side=side == "client", suppress_ragged_eofs=False) as tls:
                got = peers.recv_all(tls)
                tls.unwrap()
                return got

        talking = loop.create_task(aside(talk))
        transport = await start(loop, protocol, ours, context, side)
        transport.write(b"data")
        transport.close()
        return await talking, await protocol.lost

    assert run(main()) == (b"data", None)


@clause("tls.close.notifies")
def test_close_flushes_what_the_kernel_does_not_take_before_close_notify(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.write(BLOB)
            transport.close()

            def talk():
                got = peer.drain()
                peer.end()
                return got

            return await aside(talk) == BLOB, await protocol.lost

    assert run(main()) == (True, None)


@clause("tls.close.waits-for-the-peer")
@VERSIONS
@SIDES
def test_connection_lost_is_called_when_the_peer_has_answered_close_notify(loop, run, side, version):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, version) as (transport, peer):
            transport.close()
            assert await aside(peer.drain) == b""
            await turns(50)
            early = protocol.lost.done()
            await aside(peer.end)
            return early, await protocol.lost, await aside(peer.sock.recv, 1), protocol.calls[0], protocol.calls[-1]

    assert run(main()) == (False, None, b"", "connection_made", "connection_lost")


@clause("tls.close.callbacks")
@pytest.mark.parametrize("answer", ["end", "cut"])
def test_nothing_but_the_end_is_told_after_close(loop, run, answer, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.close()
            await aside(peer.drain)
            await aside(getattr(peer, answer))
            return await protocol.lost, protocol.calls

    reason, calls = run(main())
    assert reason is None
    assert calls in (
        ["connection_made", "connection_lost"],
        ["connection_made", "eof_received", "connection_lost"],
    )
    saw("tls.close.callbacks", ", ".join(f"{name}()" for name in calls[1:]))


@clause("tls.close.peer-only-hangs-up")
@SIDES
def test_a_peer_that_hangs_up_instead_of_answering_is_no_error(loop, run, side):
    """As many programs do. RFC 8446, 6.1: nobody needs to wait for the other's close_notify."""

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.write(b"bye")
            transport.close()
            got = await aside(peer.drain)
            peer.cut()
            return got, await protocol.lost

    assert run(main()) == (b"bye", None)


@clause("tls.close.peer-resets")
def test_a_peer_that_resets_instead_of_answering_ends_the_connection(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.close()
            await aside(peer.drain)
            peer.reset()
            return await protocol.lost, protocol.calls.count("connection_lost")

    reason, count = run(main())
    assert isinstance(reason, (ConnectionResetError, type(None)))
    assert count == 1
    saw("tls.close.peer-resets", f"connection_lost({'ConnectionResetError' if reason else None})")


@clause("tls.close.both-at-once")
@SIDES
def test_both_sides_may_close_at_once(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            peer.end()  # in the kernel before the loop looks
            transport.close()
            reason = await protocol.lost
            await aside(peer.drain)
            return reason, protocol.calls[-1], protocol.calls.count("eof_received") <= 1

    assert run(main()) == (None, "connection_lost", True)


@clause("tls.close.timeout")
@SIDES
def test_a_peer_that_does_not_answer_is_waited_for_no_longer_than_the_shutdown_timeout(loop, run, side):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side, ssl_shutdown_timeout=0.1) as (transport, peer):
            started = loop.time()
            transport.close()
            await protocol.lost
            waited = loop.time() - started
            return waited, await aside(peer.drain), protocol.calls.count("connection_lost")

    waited, got, count = run(main())
    assert 0.1 - TICK <= waited < 10  # the default is 30 s
    assert got == b""
    assert count == 1


@clause("tls.close.timeout")
def test_the_shutdown_timeout_ends_a_flush_that_does_not_get_on_too(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, ssl_shutdown_timeout=0.1) as (transport, peer):
            transport.write(BLOB)
            started = loop.time()
            transport.close()
            await protocol.lost
            waited = loop.time() - started
            got = bytearray()
            with pytest.raises(OSError):
                while True:
                    piece = await aside(peer.recv)
                    assert piece, "close_notify behind data that was dropped"
                    got += piece
            return waited, BLOB.startswith(got), len(got) < len(BLOB)

    waited, prefix, short = run(main())
    assert 0.1 - TICK <= waited < 10
    assert prefix
    assert short


@clause("tls.close.timeout-error")
def test_connection_lost_is_told_of_the_timeout(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, ssl_shutdown_timeout=0.05) as (transport, _):
            transport.close()
            return await protocol.lost

    assert isinstance(run(main()), TimeoutError)


@clause("tls.close.answered-in-time")
def test_the_timeout_of_a_shutdown_that_was_answered_is_gone(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, ssl_shutdown_timeout=0.1) as (transport, peer):
            transport.close()
            await aside(peer.drain)
            await aside(peer.end)
            reason = await protocol.lost
            await asyncio.sleep(0.15)  # clause-delay
            return reason, protocol.calls.count("connection_lost")

    assert run(main()) == (None, 1)


@clause("tls.close.twice")
@pytest.mark.parametrize("second", ["close", "abort"])
def test_closing_again_while_the_peer_is_waited_for(loop, run, second):
    """A second close() changes nothing; abort() waits no longer."""

    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.close()
            await turns(20)
            getattr(transport, second)()
            closing = transport.is_closing()
            if second == "close":
                await aside(peer.drain)
                await aside(peer.end)
            return closing, await protocol.lost, protocol.calls.count("connection_lost")

    assert run(main()) == (True, None, 1)


@clause("tls.close.abort-after-close")
def test_abort_after_two_closes_still_ends_the_wait(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, _):
            transport.close()
            transport.close()
            transport.abort()
            await asyncio.wait([protocol.lost], timeout=1)
            return protocol.lost.done()

    assert run(main())


@clause("tls.abort.no-close-notify")
@pytest.mark.parametrize("queued", [0, 5, len(BLOB)])
@SIDES
def test_abort_sends_no_close_notify(loop, run, side, queued):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.write(BLOB[:queued])
            transport.abort()
            inline = protocol.lost.done()
            reason = await protocol.lost
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                await aside(peer.drain)
            return inline, reason, transport.is_closing(), protocol.calls[-1]

    assert run(main()) == (False, None, True, "connection_lost")


@clause("tls.close.write-after")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_writes_after_the_end_are_dropped(loop, run, end):
    got, reason, _, _ = run(_written_after(loop, end))
    assert got == b""
    assert reason is None


@clause("tls.close.write-after-warns")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_writes_after_the_end_are_warned_of_when_there_are_many(loop, run, end, caplog):
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        _, _, few, many = run(_written_after(loop, end, lambda: len(caplog.records)))
    assert few == 0
    assert 0 < many < 10


async def _written_after(loop, end, logged=int):
    """What the peer gets of writes after `end`, why the connection is lost, and what is `logged` of few and of many."""
    protocol = Recorder(loop)
    async with connected(loop, protocol) as (transport, peer):
        getattr(transport, end)()
        transport.write(b"late")
        transport.writelines([b"later"])
        got = await aside(_end_of, peer)
        reason = await protocol.lost
        few = logged()
        for _ in range(10):
            transport.write(b"too late")
        return got, reason, few, logged()


@clause("tls.close.peer-still-sends")
@SIDES
def test_data_that_the_peer_sends_after_our_close_does_not_keep_the_connection_open(loop, run, side, saw):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, side) as (transport, peer):
            transport.close()
            before = len(protocol.data)

            def talk():
                try:
                    peer.sendall(b"still sending")
                    peer.drain()
                    peer.end()
                except OSError:
                    pass  # who closes need not read on

            await aside(talk)
            reason = await protocol.lost
            return reason, len(protocol.data) - before, protocol.calls

    reason, more, calls = run(main())
    assert isinstance(reason, (ssl.SSLError, ConnectionError, type(None)))
    assert more in (0, len(b"still sending"))
    assert follows_grammar(calls), calls
    if reason is None:
        saw("tls.close.peer-still-sends", "connection_lost(None)")
    elif isinstance(reason, ssl.SSLError):
        saw("tls.close.peer-still-sends", "connection_lost() with the ssl.SSLError of data after close_notify")
    else:
        saw("tls.close.peer-still-sends", "connection_lost() with the ConnectionError of a peer that hung up")


@clause("tls.close.unread-data")
@pytest.mark.parametrize("kind", [Recorder, Buffered])
def test_close_while_data_waits_ends_the_connection(loop, run, kind):
    """Reading is paused, so what came is not delivered: it is dropped, and the connection ends in time."""

    async def main():
        protocol = kind(loop)
        async with connected(loop, protocol, ssl_shutdown_timeout=0.2) as (transport, peer):
            transport.pause_reading()
            await aside(peer.send, b"waits")
            await turns(20)
            transport.close()
            await aside(_end_of, peer)
            await protocol.lost
            return bytes(protocol.data), protocol.calls[-1]

    assert run(main()) == (b"", "connection_lost")


@clause("tls.close.no-data-after")
@pytest.mark.parametrize("end", ["close", "abort"])
@SIDES
def test_closing_in_data_received_makes_it_the_last_one(loop, run, side, end):
    async def main():
        protocol = Recorder(loop)
        protocol.hooks["data_received"] = lambda _: getattr(protocol.transport, end)()
        async with connected(loop, protocol, side, ssl_shutdown_timeout=0.2) as (_, peer):
            sending = loop.create_task(aside(_sent, peer, pattern(2_000_000)))
            await protocol.lost
            await sending
            return protocol.calls.count("data_received")

    assert run(main()) == 1


@clause("tls.close.no-update-after")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_closing_in_buffer_updated_makes_it_the_last_one(loop, run, end):
    async def main():
        protocol = Buffered(loop, 10)
        protocol.hooks["buffer_updated"] = lambda _: getattr(protocol.transport, end)()
        async with connected(loop, protocol, ssl_shutdown_timeout=0.2) as (_, peer):
            await aside(_sent, peer, pattern(100))
            await protocol.lost
            return protocol.calls.count("buffer_updated")

    assert run(main()) == 1


@clause("tls.close.resume-after")
def test_resuming_after_close_delivers_nothing(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol, ssl_shutdown_timeout=0.2) as (transport, peer):
            transport.pause_reading()
            await aside(peer.send, b"waits")
            await turns(20)
            transport.close()
            transport.resume_reading()
            transport.pause_reading()
            transport.resume_reading()
            await aside(_end_of, peer)
            await protocol.lost
            return bytes(protocol.data), protocol.calls[-1]

    assert run(main()) == (b"", "connection_lost")


@clause("tls.close.while-paused")
def test_close_while_reading_is_paused_ends_like_any_other(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            transport.pause_reading()
            transport.write(b"data")
            transport.close()
            got = await aside(_end_of, peer)
            return got, await protocol.lost

    assert run(main()) == (b"data", None)


@clause("tls.close.in-callbacks")
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize(
    "name", ["connection_made", "data_received", "eof_received", "pause_writing", "connection_lost"]
)
def test_close_and_abort_from_within_any_callback_end_the_connection_once(loop, run, name, end):
    done, calls = run(_finished_within(loop, name, end))
    assert done
    assert follows_grammar(calls), calls


@clause("tls.close.in-resume-writing")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_close_and_abort_from_within_resume_writing_end_the_connection_once(loop, run, end):
    done, calls = run(_finished_within(loop, "resume_writing", end))
    assert done
    assert follows_grammar(calls), calls


async def _finished_within(loop, name, end):
    """How often a protocol has ended its connection, within the callback `name`, and all its callbacks."""
    protocol = Recorder(loop)
    done = []

    def finish(*_):
        done.append(name)
        getattr(protocol.transport, end)()
        assert not protocol.lost.done() or name == "connection_lost"

    protocol.hooks[name] = finish
    # With TLS 1.2 the client is the last to learn that the handshake is complete, so that of the peer is.
    async with connected(loop, protocol, version=certificates.V1_2) as (transport, peer):
        if name in ("pause_writing", "resume_writing"):
            for piece in pieces(BLOB, 65536):
                transport.write(piece)

        def talk():
            with contextlib.suppress(OSError):  # gone already
                if name not in ("pause_writing", "resume_writing"):
                    peer.send(b"data")
                    peer.end()
                peer.drain()
            peer.cut()

        await aside(talk)
        await protocol.lost
        await turns(20)
        return len(done), protocol.calls


@clause("tls.close.no-half-close")
def test_there_is_no_half_close(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, peer):
            with pytest.raises(NotImplementedError):
                transport.write_eof()
            transport.write(b"unharmed")
            return transport.can_write_eof(), await aside(peer.exactly, 8)

    assert run(main()) == (False, b"unharmed")


@clause("tls.close.methods-after-lost")
def test_every_method_is_harmless_after_connection_lost(loop, run):
    assert run(_methods_after(loop, closes=1)) == (0, (10, 100), True, "default", "connection_lost")


@clause("tls.close.methods-after-second-close")
def test_every_method_is_harmless_after_a_second_close(loop, run):
    assert run(_methods_after(loop, closes=2)) == (0, (10, 100), True, "default", "connection_lost")


async def _methods_after(loop, closes):
    """What a transport says once its connection is lost and it was closed so often."""
    protocol = Recorder(loop)
    async with connected(loop, protocol) as (transport, peer):
        transport.close()
        await aside(_end_of, peer)
        await protocol.lost
        for _ in range(1, closes):
            transport.close()
        transport.write(b"x")
        transport.write(b"")
        transport.writelines([b"x"])
        transport.pause_reading()
        transport.resume_reading()
        transport.set_write_buffer_limits(high=100, low=10)
        repr(transport)
        await turns(20)
        return (
            transport.get_write_buffer_size(),
            transport.get_write_buffer_limits(),
            transport.is_closing(),
            transport.get_extra_info("no such thing", "default"),
            protocol.calls[-1],
        )


@clause("tls.close.is-reading")
def test_is_reading_tells_of_pauses(loop, run):
    async def main():
        protocol = Recorder(loop)
        async with connected(loop, protocol) as (transport, _):
            answers = [transport.is_reading()]
            transport.pause_reading()
            answers.append(transport.is_reading())
            transport.resume_reading()
            answers.append(transport.is_reading())
            return answers

    assert run(main()) == [True, False, True]


def _end_of(peer):
    """What comes before the other side's end, which is answered."""
    try:
        got = peer.drain()
        peer.end()
    except OSError:
        return b""  # no close_notify
    return got


def _sent(peer, data):
    """Send what can be sent before the other side closes."""
    with contextlib.suppress(OSError):
        peer.sendall(data)
