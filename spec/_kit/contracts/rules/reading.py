"""Rules about receiving: order, pausing, resuming, and the end of the stream."""

from __future__ import annotations

import contextlib
import socket

import pytest

from ... import timing
from ..recording import Recorder, follows_grammar, pattern
from ..stream import aside, drain, rule, turns


@rule("read.whole-in-order", needs="read")
@pytest.mark.parametrize("size", [1, 100, 65536, 1_000_003])
def data_arrives_whole_and_in_order(stream, loop, run, size):
    async def main():
        protocol = Recorder(loop)
        _, peer = await stream(protocol)
        sent = pattern(size)
        await aside(peer.sendall, sent)
        await protocol.received(size)
        return bytes(protocol.data), sent

    got, sent = run(main())
    assert got == sent


@rule("read.found-by-the-next-iteration", needs="read")
@pytest.mark.parametrize("turns_before", [0, 1, 7, 20])
def what_arrives_is_there_two_turns_later_and_the_end_three(stream, loop, run, turns_before):
    async def main():
        protocol = Recorder(loop)
        _, peer = await stream(protocol)
        await turns(turns_before)
        peer.sendall(b"data")
        took = [await timing.turns_until(lambda: protocol.data)]
        await turns(turns_before)
        peer.close()
        return [*took, await timing.turns_until(lambda: "eof_received" in protocol.calls)]

    data, end = run(main())
    assert data <= 2
    assert end <= 3


@rule("read.non-empty-bytes", needs="read")
def data_received_is_given_non_empty_bytes(stream, loop, run):
    async def main():
        chunks = []
        protocol = Recorder(loop, data_received=chunks.append)
        _, peer = await stream(protocol)
        await aside(peer.sendall, pattern(300_000))
        await protocol.received(300_000)
        await aside(peer.close)
        await protocol.lost
        return chunks

    chunks = run(main())
    assert {type(chunk) for chunk in chunks} == {bytes}
    assert all(chunks)


@rule("callbacks.order", needs="read")
def callbacks_follow_the_documented_state_machine(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        _, peer = await stream(protocol)
        await aside(peer.sendall, b"some data")
        await aside(peer.close)
        await protocol.lost
        await turns(20)
        return protocol.calls

    calls = run(main())
    assert follows_grammar(calls), calls
    assert calls[0] == "connection_made"
    assert calls[-1] == "connection_lost"
    assert "data_received" in calls
    assert calls.count("eof_received") == 1


@rule("eof.after-data", needs="read")
def all_data_is_delivered_before_eof(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        seen = []
        protocol.hooks["eof_received"] = lambda: seen.append(len(protocol.data))
        _, peer = await stream(protocol)

        def send_and_close():
            peer.sendall(pattern(500_000))
            peer.close()

        await aside(send_and_close)
        await protocol.lost
        return seen

    assert run(main()) == [500_000]


@rule("eof.false-closes", needs="read")
@pytest.mark.parametrize("answer", [None, False, 0])
def a_false_answer_to_eof_closes_the_transport(stream, loop, run, answer):
    async def main():
        protocol = Recorder(loop, eof_received=lambda: answer)
        transport, peer = await stream(protocol)
        await aside(peer.close)
        await protocol.called("eof_received")
        await turns(1)
        closing = transport.is_closing()
        return closing, await protocol.lost

    assert run(main()) == (True, None)


@rule("eof.false-flushes", needs="read write half_close")
def a_transport_closed_by_eof_first_flushes_what_is_queued(stream, loop, run):
    blob = pattern(2_000_000)

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        protocol.hooks["eof_received"] = lambda: transport.write(blob)

        def half_close_and_read():
            peer.shutdown(socket.SHUT_WR)
            return drain(peer)

        got = await aside(half_close_and_read)
        return got, await protocol.lost

    got, reason = run(main())
    assert got == blob
    assert reason is None


@rule("eof.true-keeps-open", needs="read write half_close")
@pytest.mark.parametrize("answer", [True, 1])
def a_true_answer_to_eof_keeps_the_write_side_open(stream, loop, run, answer):
    async def main():
        protocol = Recorder(loop, eof_received=lambda: answer)
        transport, peer = await stream(protocol)
        await aside(peer.shutdown, socket.SHUT_WR)
        await protocol.called("eof_received")
        await turns(20)
        open_after_eof = not transport.is_closing() and not protocol.lost.done()
        transport.write(b"still here")
        got = await aside(peer.recv, 100)
        transport.close()
        return open_after_eof, got, await protocol.lost, protocol.calls

    open_after_eof, got, reason, calls = run(main())
    assert open_after_eof
    assert got == b"still here"
    assert reason is None
    assert calls == ["connection_made", "eof_received", "connection_lost"]


@rule("eof.kept-open-is-quiet", needs="read write half_close")
def a_kept_open_transport_does_not_spin_on_eof(stream, loop, run):
    """A level-triggered EOF stays readable for ever: a loop that keeps watching it burns the processor."""

    async def main():
        protocol = Recorder(loop, eof_received=lambda: True)
        _, peer = await stream(protocol)
        await aside(peer.shutdown, socket.SHUT_WR)
        await protocol.called("eof_received")
        await turns(200)
        return protocol.calls

    assert run(main()) == ["connection_made", "eof_received"]


@rule("eof.pause-and-resume-after-it", needs="read half_close")
def pausing_and_resuming_after_a_kept_open_eof_raises_nothing(stream, loop, run):
    async def main():
        protocol = Recorder(loop, eof_received=lambda: True)
        transport, peer = await stream(protocol)
        await aside(peer.shutdown, socket.SHUT_WR)
        await protocol.called("eof_received")
        transport.pause_reading()
        transport.resume_reading()
        transport.resume_reading()
        await turns(20)
        transport.close()
        return await protocol.lost

    assert run(main()) is None


@rule("eof.at-most-once-across-resume", needs="read half_close")
def eof_received_is_not_called_again_after_a_pause_and_a_resume(stream, loop, run):
    async def main():
        protocol = Recorder(loop, eof_received=lambda: True)
        transport, peer = await stream(protocol)
        await aside(peer.shutdown, socket.SHUT_WR)
        await protocol.called("eof_received")
        transport.pause_reading()
        await turns()
        transport.resume_reading()
        await turns(20)
        return protocol.calls.count("eof_received")

    assert run(main()) == 1


async def paused_and_resumed(protocol, transport, peer):
    """What there is of `waiting`, sent while reading is paused, before and after it is resumed."""
    transport.pause_reading()
    await aside(peer.sendall, b"waiting")
    await turns(50)
    while_paused = bytes(protocol.data)
    transport.resume_reading()
    await protocol.received(7)
    return while_paused, bytes(protocol.data)


@rule("read.nothing-while-paused", "read.resume-delivers", needs="read")
def a_paused_transport_delivers_nothing_until_it_is_resumed(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        return await paused_and_resumed(protocol, transport, peer)

    assert run(main()) == (b"", b"waiting")


@rule("read.nothing-while-paused", needs="read")
def a_transport_paused_while_it_waits_for_data_delivers_none(stream, loop, run):
    """Where a read is under way by then, what it brings is kept."""

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        await turns(50)
        return await paused_and_resumed(protocol, transport, peer)

    assert run(main()) == (b"", b"waiting")


@rule("read.pause-in-data-received", needs="read")
def pausing_in_data_received_holds_back_the_rest(stream, loop, run):
    async def main():
        protocol = Recorder(loop, data_received=lambda _: protocol.transport.pause_reading())
        transport, peer = await stream(protocol)
        blob = pattern(900_000)
        sending = loop.create_task(aside(peer.sendall, blob))
        await protocol.called("data_received")
        await turns(50)
        calls_while_paused = protocol.calls.count("data_received")
        del protocol.hooks["data_received"]
        transport.resume_reading()
        await protocol.received(len(blob))
        await sending
        return calls_while_paused, bytes(protocol.data) == blob

    assert run(main()) == (1, True)


@rule("read.pause-in-connection-made", needs="read")
def pausing_in_connection_made_holds_back_all_data(stream, loop, run):
    async def main():
        protocol = Recorder(loop, connection_made=lambda transport: transport.pause_reading())
        transport, peer = await stream(protocol)
        await aside(peer.sendall, b"early")
        await turns(50)
        before = bytes(protocol.data), transport.is_reading()
        transport.resume_reading()
        await protocol.received(5)
        return before, bytes(protocol.data)

    assert run(main()) == ((b"", False), b"early")


@rule("read.pause-and-resume-idempotent", needs="read")
def pausing_and_resuming_twice_is_like_once(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.resume_reading()  # it is reading already
        transport.pause_reading()
        transport.pause_reading()
        await aside(peer.sendall, b"one")
        await turns(20)
        held = bytes(protocol.data)
        transport.resume_reading()
        transport.resume_reading()
        await protocol.received(3)
        return held, protocol.calls

    held, calls = run(main())
    assert held == b""
    assert calls == ["connection_made", "data_received"]


@rule("read.is-reading", needs="read")
def is_reading_tells_pauses_and_closing(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        answers = [transport.is_reading()]
        transport.pause_reading()
        answers.append(transport.is_reading())
        transport.resume_reading()
        answers.append(transport.is_reading())
        transport.close()
        answers.append(transport.is_reading())
        await protocol.lost
        answers.append(transport.is_reading())
        return answers

    assert run(main()) == [True, False, True, False, False]


@rule("eof.waits-for-resume", needs="read")
def eof_while_paused_is_reported_after_resume(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.pause_reading()

        def send_and_close():
            peer.sendall(b"last words")
            peer.close()

        await aside(send_and_close)
        await turns(50)
        while_paused = list(protocol.calls)
        transport.resume_reading()
        reason = await protocol.lost
        return while_paused, bytes(protocol.data), protocol.calls, reason

    while_paused, data, calls, reason = run(main())
    assert while_paused == ["connection_made"]
    assert data == b"last words"
    assert calls[-2:] == ["eof_received", "connection_lost"]
    assert reason is None


@rule("read.nothing-after-close", needs="read")
@pytest.mark.parametrize("end", ["close", "abort"])
def no_data_and_no_eof_is_delivered_after_close_or_abort(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.pause_reading()
        await aside(peer.sendall, pattern(100_000))
        transport.resume_reading()  # the data is there, and will be read in the next iteration
        getattr(transport, end)()
        reason = await protocol.lost
        await turns(20)
        return protocol.calls, reason

    assert run(main()) == (["connection_made", "connection_lost"], None)


@rule("read.close-in-data-received", needs="read")
@pytest.mark.parametrize("end", ["close", "abort"])
def closing_in_data_received_makes_it_the_last_one(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop, data_received=lambda _: getattr(protocol.transport, end)())
        _, peer = await stream(protocol)

        def send_all():
            with contextlib.suppress(
                OSError
            ):  # the transport closed before it had read everything: a reset is what TCP gives then
                peer.sendall(pattern(3_000_000))

        sending = loop.create_task(aside(send_all))
        await protocol.lost
        await sending
        return protocol.calls

    assert run(main()) == ["connection_made", "data_received", "connection_lost"]


@rule("read.resume-after-close", needs="read")
def pausing_and_resuming_a_closed_transport_does_nothing(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.pause_reading()
        await aside(peer.sendall, b"unread")
        transport.close()
        transport.resume_reading()
        transport.pause_reading()
        transport.resume_reading()
        await protocol.lost
        transport.pause_reading()
        transport.resume_reading()
        await turns(20)
        return protocol.calls

    assert run(main()) == ["connection_made", "connection_lost"]
