"""Rules about the end: close(), abort(), what may follow them, and what connection_lost is told."""

from __future__ import annotations

import os
import socket

import pytest

from ..recording import Recorder, follows_grammar, pattern
from ..stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, rule, turns

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@rule("close.flushes-before-lost", needs="write")
def queued_data_is_sent_before_connection_lost(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        sizes = []
        protocol.hooks["connection_lost"] = lambda exc: sizes.append(transport.get_write_buffer_size())
        transport.write(BLOB)
        transport.close()
        await turns(50)
        lost_early = protocol.lost.done()  # the peer had not read: most of the data was still here
        got = await aside(drain, peer)
        return lost_early, got, await protocol.lost, sizes

    lost_early, got, reason, sizes = run(main())
    assert not lost_early
    assert got == BLOB
    assert reason is None
    assert sizes == [0]


@rule("close.lost-none", needs="")
def close_leads_to_connection_lost_with_none(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.close()
        reason = await protocol.lost
        await turns(20)
        return reason, protocol.calls

    assert run(main()) == (None, ["connection_made", "connection_lost"])


@rule("close.never-inline", needs="")
@pytest.mark.parametrize("end", ["close", "abort"])
def connection_lost_is_not_called_before_close_returns(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        getattr(transport, end)()
        calls = list(protocol.calls)
        await protocol.lost
        return calls

    assert run(main()) == ["connection_made"]


@rule("close.never-inline", needs="read")
@pytest.mark.parametrize("end", ["close", "abort"])
def connection_lost_is_not_called_inside_a_callback_that_closes(stream, loop, run, end):
    async def main():
        inside = []
        protocol = Recorder(loop)

        def finish(*_):
            getattr(protocol.transport, end)()
            inside.append(protocol.lost.done())

        protocol.hooks["data_received"] = finish
        _, peer = await stream(protocol)
        await aside(peer.sendall, b"x")
        await protocol.lost
        return inside

    assert run(main()) == [False]


@rule("close.is-closing", needs="")
@pytest.mark.parametrize("end", ["close", "abort"])
def is_closing_is_true_from_close_on(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        answers = [transport.is_closing()]
        getattr(transport, end)()
        answers.append(transport.is_closing())
        await protocol.lost
        answers.append(transport.is_closing())
        return answers

    assert run(main()) == [False, True, True]


@rule("close.idempotent", needs="")
def closing_and_aborting_again_does_nothing(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        for _ in range(2):
            transport.close()
            transport.abort()
        reason = await protocol.lost
        transport.close()
        transport.abort()
        await turns(20)
        return reason, protocol.calls

    assert run(main()) == (None, ["connection_made", "connection_lost"])


@rule("close.write-ignored", needs="write")
@pytest.mark.parametrize("end", ["close", "abort"])
def a_write_after_close_or_abort_is_ignored(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        getattr(transport, end)()
        for _ in range(10):
            transport.write(b"late")
        size = transport.get_write_buffer_size()
        got = await aside(drain, peer)
        return size, got, await protocol.lost

    assert run(main()) == (0, b"", None)


@rule("close.write-while-flushing", needs="write")
def a_write_after_close_with_data_queued_is_sent_behind_it_or_ignored(stream, loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        transport.close()
        transport.write(b"tail")
        got = await aside(drain, peer)
        return got, await protocol.lost

    got, reason = run(main())
    assert got in (BLOB, BLOB + b"tail")
    assert reason is None
    saw("close.write-while-flushing", "it is ignored" if got == BLOB else "it is sent behind the queued data")


@rule("close.peer-sees-end", needs="read")
def the_peer_sees_the_end_and_the_descriptor_is_closed(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        fd = transport.get_extra_info("socket").fileno()
        os.fstat(fd)
        transport.close()
        await protocol.lost
        await turns()
        with pytest.raises(OSError):
            os.fstat(fd)
        return await aside(drain, peer)

    assert run(main()) == b""


@rule("close.while-paused-writing", needs="write")
def close_while_writing_is_paused_still_flushes_and_ends(stream, loop, run, saw):
    """Whether resume_writing is still called is left open."""

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        paused = protocol.calls[-1]
        transport.close()
        got = await aside(drain, peer)
        reason = await protocol.lost
        return paused, got, reason, protocol.calls

    paused, got, reason, calls = run(main())
    assert paused == "pause_writing"
    assert got == BLOB
    assert reason is None
    assert follows_grammar(calls), calls
    resumed = "resume_writing" in calls
    saw("close.while-paused-writing", "resume_writing() is called during the flush" if resumed else "it is not")


@rule("close.while-paused-reading", needs="read")
@pytest.mark.parametrize("end", ["close", "abort"])
def close_while_reading_is_paused_ends_the_connection(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.pause_reading()
        await aside(peer.sendall, b"never delivered")
        getattr(transport, end)()
        return await protocol.lost, protocol.calls

    assert run(main()) == (None, ["connection_made", "connection_lost"])


@rule("close.in-callbacks", needs="read write half_close full_duplex")
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize(
    "name", ["connection_made", "data_received", "eof_received", "pause_writing", "connection_lost"]
)
def close_and_abort_from_within_any_callback_end_the_connection_once(stream, loop, run, end, name):
    async def main():
        protocol = Recorder(loop)
        protocol.hooks[name] = lambda *_: getattr(protocol.transport, end)()
        transport, peer = await stream(protocol)

        def act():
            try:
                peer.sendall(b"data")
                peer.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed by the transport already
            return drain(peer)

        if name == "pause_writing":
            transport.write(BLOB)
        await aside(act)
        reason = await protocol.lost
        await turns(20)
        return reason, protocol.calls

    reason, calls = run(main())
    assert reason is None
    assert name in calls
    assert follows_grammar(calls), calls


@rule("close.in-resume-writing", needs="write")
@pytest.mark.parametrize("end", ["close", "abort"])
def close_and_abort_from_within_resume_writing_end_the_connection_once(stream, loop, run, end):
    """The low limit is zero: nothing is queued any more when resume_writing is called, so close() need not wait."""

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        protocol.hooks["resume_writing"] = getattr(transport, end)
        transport.set_write_buffer_limits(high=65536, low=0)
        transport.write(BLOB)
        got = await aside(drain, peer)
        reason = await protocol.lost
        await turns(20)
        return got == BLOB, reason, protocol.calls

    whole, reason, calls = run(main())
    assert whole
    assert reason is None
    assert calls == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]


@rule("close.then-peer-goes", needs="write")
def close_ends_with_an_error_if_the_peer_goes_before_the_flush(stream, loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        transport.close()
        await turns(20)
        await aside(peer.close)
        return await protocol.lost, transport.get_write_buffer_size()

    reason, size = run(main())
    assert isinstance(reason, (ConnectionError, type(None)))
    assert size == 0
    saw("close.then-peer-goes", "it is told None" if reason is None else "connection_lost() is told the error")


@rule("close.methods-after-lost", needs="read write half_close full_duplex")
def every_method_is_harmless_after_connection_lost(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.close()
        await protocol.lost
        transport.write(b"x")
        transport.write(b"")
        transport.write_eof()
        transport.pause_reading()
        transport.resume_reading()
        transport.close()
        transport.abort()
        transport.set_write_buffer_limits(high=100, low=10)
        repr(transport)
        await turns(20)
        return (
            transport.get_write_buffer_size(),
            transport.get_write_buffer_limits(),
            transport.is_closing(),
            transport.is_reading(),
            transport.get_extra_info("no such thing", "default"),
            protocol.calls,
        )

    assert run(main()) == (0, (10, 100), True, False, "default", ["connection_made", "connection_lost"])


@rule("close.type-error-after-lost", needs="write")
def a_wrong_type_is_still_a_type_error_after_connection_lost(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.close()
        await protocol.lost
        with pytest.raises(TypeError):
            transport.write("text")

    run(main())


@rule("abort.discards", needs="write")
def abort_drops_what_is_queued(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        await turns(20)
        transport.abort()
        reason = await protocol.lost  # though the peer reads nothing until then
        return transport.get_write_buffer_size(), reason, await aside(drain, peer)

    size, reason, got = run(main())
    assert size == 0
    assert reason is None
    assert len(got) < len(BLOB)
    assert BLOB.startswith(got)


@rule("abort.after-close", needs="write")
def abort_after_close_ends_the_flush_at_once(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.write(BLOB)
        transport.close()
        await turns(20)
        early = protocol.lost.done()
        transport.abort()
        reason = await protocol.lost
        await turns(20)
        return early, reason, protocol.calls.count("connection_lost")

    assert run(main()) == (False, None, 1)


@rule("abort.after-flushed-close", needs="write")
def abort_after_a_close_that_had_to_flush_does_nothing(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        transport.close()
        got = await aside(drain, peer)
        await protocol.lost
        transport.abort()
        await turns(20)
        return got == BLOB, protocol.calls.count("connection_lost")

    assert run(main()) == (True, 1)


@rule("abort.after-write-eof", needs="write half_close")
def abort_while_write_eof_flushes_ends_the_connection_at_once(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        transport.write_eof()
        await turns(20)
        transport.abort()
        reason = await protocol.lost
        return reason, len(await aside(drain, peer)) < len(BLOB)

    assert run(main()) == (None, True)
