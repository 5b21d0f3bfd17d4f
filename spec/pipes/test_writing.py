"""Writing into pipes: types, a full pipe, the end, readers that go, terminals and devices."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import tty

import pytest

from .._kit import clause
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, turns
from .makers import End, file, pipe, writing

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@clause("pipes.write.types")
@pytest.mark.parametrize("data", ["text", 7, None, [1, 2], object()], ids=lambda data: type(data).__name__)
def test_write_of_another_type_raises_and_sends_nothing(loop, run, data, saw):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        with pytest.raises((TypeError, AssertionError)) as caught:
            transport.write(data)
        saw("pipes.write.types", "TypeError" if isinstance(caught.value, TypeError) else "AssertionError")
        transport.write(b"after")
        transport.close()
        got = await aside(drain, peer)
        peer.close()
        return got, await protocol.lost

    assert run(main()) == (b"after", None)


@clause("pipes.write.at-once")
def test_what_fits_into_the_pipe_is_there_within_the_same_iteration_or_buffered_for_it(loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        transport.write(b"now")
        size = transport.get_write_buffer_size()
        got = os.read(peer.fd, 100)  # non-blocking
        transport.close()
        await protocol.lost
        peer.close()
        return size, got

    assert run(main()) == (0, b"now")


@clause("pipes.write.full-pipe-pauses")
def test_a_full_pipe_pauses_the_protocol_until_the_reader_has_read(loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        room = fcntl.fcntl(peer.fd, fcntl.F_GETPIPE_SZ)
        transport.set_write_buffer_limits(high=100, low=10)
        transport.write(bytes(room))
        filled = transport.get_write_buffer_size(), protocol.calls.count("pause_writing")
        transport.write(bytes(101))
        over = transport.get_write_buffer_size(), protocol.calls.count("pause_writing")
        await turns(20)
        early = protocol.calls.count("resume_writing")
        left = room + 101
        while left:
            left -= len(await aside(peer.recv, left))
        await protocol.called("resume_writing")
        done = transport.get_write_buffer_size()
        transport.close()
        await protocol.lost
        peer.close()
        return filled, over, early, done

    assert run(main()) == ((0, 0), (101, 1), 0, 0)


@clause("pipes.write-eof.can")
def test_can_write_eof_is_true(loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        answer = transport.can_write_eof()
        transport.close()
        await protocol.lost
        peer.close()
        return answer

    assert run(main()) is True


@clause("pipes.write-eof.closes")
@pytest.mark.parametrize("size", [0, 10, MORE_THAN_THE_KERNEL_TAKES])
def test_write_eof_sends_what_is_queued_and_closes_the_transport(loop, run, size):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        transport.write(pattern(size))
        transport.write_eof()
        closing = transport.is_closing(), protocol.lost.done()
        transport.write_eof()
        transport.close()
        got = await aside(drain, peer)
        reason = await protocol.lost
        await turns(5)
        peer.close()
        return closing, got == pattern(size), reason, protocol.calls.count("connection_lost")

    assert run(main()) == ((True, False), True, None, 1)


@clause("pipes.write-eof.then-write")
@pytest.mark.parametrize("end", ["write_eof", "close"])
@pytest.mark.parametrize("queued", [0, MORE_THAN_THE_KERNEL_TAKES])
def test_what_is_written_after_the_end_is_ignored_or_refused(loop, run, end, queued, saw):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        transport.write(pattern(queued))
        getattr(transport, end)()
        for _ in range(7):
            try:
                transport.write(b"late")
            except RuntimeError:
                saw("pipes.write-eof.then-write", "RuntimeError is raised")
            else:
                saw("pipes.write-eof.then-write", "it is ignored")
        got = await aside(drain, peer)
        peer.close()
        return got == pattern(queued), await protocol.lost

    assert run(main()) == (True, None)


@clause("pipes.gone.while-idle")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_goes_is_noticed_though_nothing_is_written(loop, run, kind, saw):
    async def main():
        protocol = Recorder(loop)
        if kind == "pipe":
            transport, peer = await writing(loop, protocol)
        else:
            ours, peer = socket.socketpair()
            transport, _ = await loop.connect_write_pipe(lambda: protocol, ours)
        await turns(5)
        transport.write(b"x")
        await turns(5)
        early = protocol.lost.done()
        await aside(peer.recv, 1)
        peer.close()
        reason = await protocol.lost
        return early, reason, transport.is_closing()

    early, reason, closing = run(main())
    assert not early
    assert reason is None or isinstance(reason, BrokenPipeError)
    assert closing
    saw("pipes.gone.while-idle", "connection_lost(BrokenPipeError)" if reason else "connection_lost(None)")


@clause("pipes.gone.with-data-queued")
@pytest.mark.parametrize("closing", [False, True])
def test_a_reader_that_goes_with_data_queued_is_a_broken_pipe(loop, run, closing):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        transport.write(BLOB)
        if closing:
            transport.close()
        await turns(5)
        early = protocol.lost.done()
        peer.close()
        reason = await protocol.lost
        return early, reason, transport.get_write_buffer_size(), protocol.calls.count("connection_lost")

    early, reason, size, count = run(main())
    assert not early
    assert isinstance(reason, BrokenPipeError)
    assert (size, count) == (0, 1)


@clause("pipes.gone.before-write")
def test_writing_to_a_reader_that_has_gone_ends_the_transport_without_a_report(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        peer.close()
        for _ in range(8):
            transport.write(b"x")
        reason = await protocol.lost
        transport.write(b"x")
        return reason, protocol.calls

    reason, calls = run(main())
    assert reason is None or isinstance(reason, BrokenPipeError)
    assert calls == ["connection_made", "connection_lost"]
    saw("pipes.gone.before-write", "connection_lost(BrokenPipeError)" if reason else "connection_lost(None)")


@clause("pipes.gone.from-the-start")
def test_a_pipe_that_nobody_reads_from_the_start_ends_the_transport(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        source, sink = pipe()
        os.close(source)
        await loop.connect_write_pipe(lambda: protocol, file(sink, "wb"))
        return await protocol.lost, protocol.calls

    reason, calls = run(main())
    assert reason is None or isinstance(reason, BrokenPipeError)
    assert calls == ["connection_made", "connection_lost"]
    saw("pipes.gone.from-the-start", "connection_lost(BrokenPipeError)" if reason else "connection_lost(None)")


@clause("pipes.gone.no-signal")
def test_a_broken_pipe_does_not_end_the_process(loop, run):
    """SIGPIPE is ignored by Python from the start, and a loop leaves it so."""
    before = signal.getsignal(signal.SIGPIPE)

    async def main():
        for _ in range(3):
            protocol = Recorder(loop)
            transport, peer = await writing(loop, protocol)
            transport.write(BLOB)
            peer.close()
            transport.write(b"more")
            await protocol.lost

    run(main())
    assert before == signal.SIG_IGN
    assert signal.getsignal(signal.SIGPIPE) == before


@clause("pipes.gone.duplex-socket")
def test_a_peer_that_sends_has_not_gone(loop, run):
    """What comes in over a socket that is only written is nobody's business."""

    async def main(ours, theirs):
        protocol = Recorder(loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, ours)
        theirs.send(b"chatter")
        await turns(20)
        lost = protocol.lost.done()
        transport.write(b"heard")
        got = b"" if lost else await aside(theirs.recv, 100)
        transport.close()
        await protocol.lost
        return lost, got

    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(5)
        assert run(main(ours, theirs)) == (False, b"heard")


@clause("pipes.abort.once")
@pytest.mark.parametrize("order", ["abort abort", "close abort", "abort close abort"])
def test_abort_and_close_in_any_order_lead_to_one_connection_lost(loop, run, order):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        transport.write(BLOB)
        for name in order.split():
            getattr(transport, name)()
        reason = await protocol.lost
        transport.abort()
        transport.close()
        await turns(5)
        peer.close()
        return reason, protocol.calls.count("connection_lost")

    assert run(main()) == (None, 1)


@clause("pipes.close.reader-sees-end")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_reader_sees_the_end_and_the_pipe_is_closed(loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        transport.write(b"all")
        getattr(transport, end)()
        await protocol.lost
        await turns(1)
        got = await aside(drain, peer)
        peer.close()
        return got, transport.get_extra_info("pipe").closed

    assert run(main()) == (b"all", True)


@clause("pipes.terminal.full")
def test_a_terminal_that_nobody_reads_holds_back_the_writer(loop, run):
    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave)
        protocol = Recorder(loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, file(slave, "wb"))
        transport.write(pattern(300_000))
        held = transport.get_write_buffer_size()
        with End(master) as peer:
            got = bytearray()
            while len(got) < 300_000:
                got += await aside(peer.recv, 65536)
            transport.close()
            reason = await protocol.lost
        return held > 0, bytes(got) == pattern(300_000), reason

    assert run(main()) == (True, True, None)


@clause("pipes.device.null-write")
def test_the_null_device_takes_everything(loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, file(os.open(os.devnull, os.O_WRONLY), "wb"))
        transport.write(BLOB)
        transport.writelines([b"more", BLOB])
        size = transport.get_write_buffer_size()
        await turns(5)
        transport.close()
        return size, await protocol.lost

    assert run(main()) == (0, None)
