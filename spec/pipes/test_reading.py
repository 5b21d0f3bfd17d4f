"""Reading from pipes: the end, errors of callbacks, closing, terminals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import pty
import socket
import tty

import pytest

from .._kit import clause, timing
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import aside, turns
from .makers import End, file, pipe, reading


class Boom(Exception):
    pass


@clause("pipes.read.end-closes")
@pytest.mark.parametrize("answer", [None, True])
def test_the_end_closes_the_transport_whatever_eof_received_answers(loop, run, answer):
    async def main():
        protocol = Recorder(loop, eof_received=lambda: answer)
        transport, peer = await reading(loop, protocol)
        peer.close()
        reason = await protocol.lost
        await turns(1)
        return reason, protocol.calls, transport.is_closing(), transport.get_extra_info("pipe").closed

    assert run(main()) == (None, ["connection_made", "eof_received", "connection_lost"], True, True)


@clause("pipes.read.data-there")
@pytest.mark.parametrize("turns_before", [0, 1, 7, 20])
def test_data_that_waited_is_received_in_the_first_turn(loop, run, turns_before):
    async def main():
        ours, theirs = pipe()
        os.write(theirs, b"data")
        await turns(turns_before)
        protocol = Recorder(loop)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, file(ours, "rb"))
        took = await timing.turns_until(lambda: protocol.data)
        transport.close()
        await protocol.lost
        os.close(theirs)
        return took

    assert run(main()) <= 1


@clause("pipes.read.data-there")
def test_data_that_waited_outruns_a_close_by_the_end_of_an_older_connection(loop, run):
    """A relay does that: the connection that it copies to has ended, so it closes the pipe that it copies from."""

    async def main():
        ours, theirs = pipe()
        from_pipe = Recorder(loop)
        connection = Recorder(loop, connection_lost=lambda _exc: from_pipe.transport.close())
        near, far = socket.socketpair()
        await loop.create_connection(lambda: connection, sock=near)
        os.write(theirs, b"data")
        await loop.connect_read_pipe(lambda: from_pipe, file(ours, "rb"))
        connection.transport.close()
        await from_pipe.lost
        far.close()
        os.close(theirs)
        return bytes(from_pipe.data)

    assert run(main()) == b"data"


@clause("pipes.read.end-of-last-writer")
def test_the_end_comes_when_the_last_writer_has_gone(loop, run):
    async def main():
        protocol = Recorder(loop)
        _, first = await reading(loop, protocol)
        second = End(os.dup(first.fd))
        first.close()
        await turns(20)
        early = list(protocol.calls)
        await aside(second.sendall, b"from the last")
        second.close()
        return early, await protocol.lost, bytes(protocol.data)

    assert run(main()) == (["connection_made"], None, b"from the last")


@clause("pipes.read.end-at-once")
def test_a_pipe_that_has_ended_already_delivers_what_is_in_it_and_the_end(loop, run):
    async def main():
        source, sink = pipe()
        os.write(sink, b"left behind")
        os.close(sink)
        protocol = Recorder(loop)
        await loop.connect_read_pipe(lambda: protocol, file(source, "rb"))
        return await protocol.lost, bytes(protocol.data), protocol.calls.count("eof_received")

    assert run(main()) == (None, b"left behind", 1)


@clause("pipes.read.data-received-raises")
def test_an_exception_in_data_received_is_reported_and_the_loop_goes_on(loop, run, errors):
    """Left open is whether the transport goes on, as asyncio's does, or ends with that exception."""

    def boom(_):
        if protocol.calls.count("data_received") == 1:
            raise Boom

    protocol = Recorder(loop, data_received=boom)

    async def main():
        _, peer = await reading(loop, protocol)
        await aside(peer.sendall, b"first ")
        await protocol.called("data_received")
        with contextlib.suppress(BrokenPipeError):
            await aside(peer.sendall, b"second")
        peer.close()
        return await protocol.lost

    reason = run(main())
    assert isinstance(errors.only()["exception"], Boom)
    if reason is None:
        assert protocol.data == b"first second"
    else:
        assert isinstance(reason, Boom)


@clause("pipes.read.survives-data-received")
def test_a_transport_whose_data_received_raised_goes_on_reading(loop, run, errors):
    def boom(_):
        raise Boom

    async def main():
        protocol = Recorder(loop, data_received=boom)
        _, peer = await reading(loop, protocol)
        for count in range(1, 4):
            await aside(peer.sendall, b"x")
            await protocol.called("data_received", count)
        peer.close()
        return await protocol.lost, bytes(protocol.data)

    assert run(main()) == (None, b"xxx")
    assert [type(context["exception"]) for context in errors.take()] == [Boom] * 3


@clause("pipes.read.eof-received-raises")
def test_an_exception_in_eof_received_is_reported_and_connection_lost_follows(loop, run, errors, saw):
    """Left open is whether connection_lost is told None, as by asyncio, or that exception."""

    def boom():
        raise Boom

    async def main():
        protocol = Recorder(loop, eof_received=boom)
        transport, peer = await reading(loop, protocol)
        peer.close()
        reason = await protocol.lost
        await turns(5)
        return reason, protocol.calls, transport.get_extra_info("pipe").closed

    reason, calls, closed = run(main())
    assert reason is None or isinstance(reason, Boom)
    assert calls == ["connection_made", "eof_received", "connection_lost"]
    assert closed
    assert isinstance(errors.only()["exception"], Boom)
    told = "connection_lost() with that exception"
    saw("pipes.read.eof-received-raises", told if reason else "connection_lost(None)")


@clause("pipes.read.exit-in-eof-received")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_eof_received_leaves_the_loop_and_the_transport_still_ends(loop, run, kind):
    def boom():
        raise kind

    protocol = Recorder(loop, eof_received=boom)

    async def opened():
        return await reading(loop, protocol)

    async def lost():
        return await protocol.lost

    transport, peer = run(opened())
    peer.close()
    with pytest.raises(kind):
        loop.run_forever()
    assert run(lost()) is None
    assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]
    run(turns(1))
    assert transport.get_extra_info("pipe").closed


@clause("pipes.close.closes-pipe")
def test_close_leads_to_connection_lost_and_closes_the_pipe_afterwards(loop, run):
    async def main():
        seen = []
        protocol = Recorder(loop)
        transport, peer = await reading(loop, protocol)
        given = transport.get_extra_info("pipe")
        protocol.hooks["connection_lost"] = lambda exc: seen.append(given.closed)
        transport.close()
        inline = protocol.lost.done()
        reason = await protocol.lost
        await turns(1)
        with pytest.raises(BrokenPipeError):
            peer.sendall(b"x")
        peer.close()
        return inline, reason, seen, given.closed

    assert run(main()) == (False, None, [False], True)


@clause("pipes.close.twice")
def test_closing_twice_or_after_the_end_does_nothing(loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await reading(loop, protocol)
        transport.close()
        transport.close()
        await protocol.lost
        transport.close()
        await turns(5)
        peer.close()
        return protocol.calls, transport.is_closing(), transport.is_reading()

    assert run(main()) == (["connection_made", "connection_lost"], True, False)


@clause("pipes.close.no-more-data")
@pytest.mark.parametrize("where", ["while paused", "data there", "in data_received", "in eof_received"])
def test_nothing_is_delivered_after_close(loop, run, where):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await reading(loop, protocol)
        if where == "in data_received":
            protocol.hooks["data_received"] = lambda _: transport.close()
        elif where == "in eof_received":
            protocol.hooks["eof_received"] = transport.close
        if where in ("while paused", "data there"):
            transport.pause_reading()
        if where == "in eof_received":
            peer.close()
        else:
            peer.sendall(pattern(60_000))
        if where == "data there":
            transport.resume_reading()
        if where in ("while paused", "data there"):
            transport.close()
        reason = await protocol.lost
        peer.close()
        await turns(10)
        return reason, protocol.calls

    reason, calls = run(main())
    between = {"in data_received": ["data_received"], "in eof_received": ["eof_received"]}.get(where, [])
    assert reason is None
    assert calls == ["connection_made", *between, "connection_lost"]


@clause("pipes.terminal.hang-up")
def test_a_terminal_whose_other_end_has_gone_ends_the_transport(loop, run, saw):
    """Linux reports EIO to the master once the last slave is closed; elsewhere it is an ordinary end."""

    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave)
        protocol = Recorder(loop)
        await loop.connect_read_pipe(lambda: protocol, file(master, "rb"))
        with End(slave) as peer:
            await aside(peer.sendall, b"last words")
            await protocol.received(10)
        return bytes(protocol.data), await protocol.lost

    data, reason = run(main())
    assert data == b"last words"
    assert reason is None or (isinstance(reason, OSError) and reason.errno == errno.EIO)
    saw("pipes.terminal.hang-up", "connection_lost() with EIO" if reason else "connection_lost(None)")


@clause("pipes.terminal.lines")
def test_a_terminal_delivers_lines_and_ends_at_its_end_of_file_character(loop, run):
    async def main():
        master, slave = pty.openpty()
        protocol = Recorder(loop)
        await loop.connect_read_pipe(lambda: protocol, file(slave, "rb"))
        with End(master) as peer:
            await aside(peer.sendall, b"one\nun")
            await protocol.received(4)
            await turns(10)
            unfinished = bytes(protocol.data)
            await aside(peer.sendall, b"finished\n\x04")
            reason = await protocol.lost
        return unfinished, bytes(protocol.data), reason

    assert run(main()) == (b"one\n", b"one\nunfinished\n", None)


@clause("pipes.read.blocking-again")
def test_a_pipe_that_somebody_made_blocking_again_does_not_hold_up_the_loop(loop, run):
    """The mode belongs to the open file, which a child shares that inherits it: shells set it back."""

    async def main():
        protocol = Recorder(loop)
        transport, peer = await reading(loop, protocol)
        os.set_blocking(transport.get_extra_info("pipe").fileno(), True)
        got = []
        for number in range(3):
            await aside(peer.sendall, b"%d" % number)
            await protocol.received(number + 1)
            await turns(10)
            got.append(bytes(protocol.data))
        peer.close()
        return got, await protocol.lost

    assert run(main()) == ([b"0", b"01", b"012"], None)


@clause("pipes.read.datagram-socket")
def test_a_datagram_socket_pair_is_read_message_by_message(loop, run):
    async def main(ours, theirs):
        messages = []
        protocol = Recorder(loop, data_received=messages.append)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, ours)
        for message in (b"one", b"two", b"three"):
            theirs.send(message)
        await protocol.called("data_received", 3)
        transport.close()
        await protocol.lost
        return messages

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        assert run(main(ours, theirs)) == [b"one", b"two", b"three"]


@clause("pipes.device.null-read")
def test_the_null_device_ends_at_once(loop, run, errors):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, file(os.open(os.devnull, os.O_RDONLY), "rb"))
        try:
            async with asyncio.timeout(2):
                await protocol.called("eof_received")
        finally:
            transport.close()
        return await protocol.lost, bytes(protocol.data)

    try:
        assert run(main()) == (None, b"")
    finally:
        unpollable = errors.take()
    assert unpollable == []


@clause("pipes.close.by-its-object")
@pytest.mark.parametrize("end", ["close", "peer"])
def test_a_pipe_is_closed_once_and_by_its_object(loop, run, end):
    """Were the number closed before, the object would close whatever file has it by then."""

    class Pipe(io.FileIO):
        taken = ()

        def close(self):
            if not self.closed and not self.taken:
                self.taken = os.pipe()  # another thread opens files at this moment
            super().close()

    async def main():
        protocol = Recorder(loop)
        ours, theirs = os.pipe()
        made = Pipe(ours, "rb")
        transport, _ = await loop.connect_read_pipe(lambda: protocol, made)
        if end == "close":
            transport.close()
        else:
            os.close(theirs)
        await protocol.lost
        await turns()
        if end == "close":
            os.close(theirs)
        return made

    made = run(main())
    assert made.closed
    os.write(made.taken[1], b"still there")
    assert os.read(made.taken[0], 100) == b"still there"
    for fd in made.taken:
        os.close(fd)
