"""Callbacks of protocols that raise SystemExit or KeyboardInterrupt: these leave the run, and the next one goes on."""

from __future__ import annotations

import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside
from ..tcp.makers import shrink

KINDS = pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
PAIRS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])


@clause("errors.exit.end-told-again")
@KINDS
@PAIRS
@pytest.mark.parametrize("keep_open", [False, True])
def test_the_end_of_a_stream_whose_telling_was_broken_off_is_told_again(loop, run, kind, make, keep_open):
    def first():
        protocol.hooks["eof_received"] = lambda: keep_open
        raise kind

    async def answered():
        await protocol.called("eof_received", 2)
        if keep_open:
            protocol.transport.write(b"answer")
            protocol.transport.close()
        return await protocol.lost

    ours, theirs = make()
    with ours, theirs:
        protocol = Recorder(loop, eof_received=first)
        run(loop.create_connection(lambda: protocol, sock=ours))
        theirs.sendall(b"all of it")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(kind):
            loop.run_forever()
        assert run(answered()) is None
        assert protocol.data == b"all of it"
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "eof_received", "connection_lost"]
        assert peers.recv_all(theirs) == (b"answer" if keep_open else b"")


@clause("errors.exit.end-told-again")
@KINDS
def test_the_end_of_a_stream_that_was_paused_meanwhile_is_told_again_once_it_is_resumed(loop, run, tick, kind):
    def first():
        protocol.transport.pause_reading()
        protocol.hooks.clear()
        raise kind

    ours, theirs = peers.pair()
    with ours, theirs:
        protocol = Recorder(loop, eof_received=first)
        run(loop.create_connection(lambda: protocol, sock=ours))
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(kind):
            loop.run_forever()
        tick(10)
        assert protocol.calls == ["connection_made", "eof_received"]
        protocol.transport.resume_reading()
        assert run(protocol.called("connection_lost")) is None
        assert protocol.calls == ["connection_made", "eof_received", "eof_received", "connection_lost"]


@clause("errors.exit.queued-bytes-leave")
@KINDS
@PAIRS
@pytest.mark.parametrize("end", ["", "write_eof", "close"])
def test_what_is_queued_when_resume_writing_breaks_the_run_off_leaves_in_the_next(loop, run, kind, make, end):
    """Many small pieces, of which one system call takes a part only."""
    pieces = 3000

    def boom():
        protocol.hooks.clear()
        raise kind

    def fill():
        protocol.transport.set_write_buffer_limits(high=pieces, low=pieces - 1)
        sent = 0
        while not protocol.transport.get_write_buffer_size():
            protocol.transport.write(b"a" * 4096)
            sent += 4096
        for _ in range(pieces):
            protocol.transport.write(b"b")
        if end:
            getattr(protocol.transport, end)()
        started.append((sent, peers.thread(peers.recv_exactly, theirs, sent + pieces)))

    started = []
    ours, theirs = make()
    shrink(ours, theirs)
    with ours, theirs:
        protocol = Recorder(loop, resume_writing=boom)
        run(loop.create_connection(lambda: protocol, sock=ours))
        loop.call_soon(fill)
        with pytest.raises(kind):
            loop.run_forever()
        [(sent, got)] = started
        assert run(aside(got.result)) == b"a" * sent + b"b" * pieces
        if not end:
            protocol.transport.close()
        if end == "write_eof":
            assert run(aside(peers.recv_all, theirs)) == b""
            protocol.transport.close()
        assert run(protocol.called("connection_lost")) is None
        assert peers.recv_all(theirs) == b""


@clause("errors.exit.queued-bytes-leave")
@KINDS
def test_what_pause_writing_breaks_off_is_queued_all_the_same(loop, run, kind):
    def boom():
        protocol.hooks.clear()
        raise kind

    def fill():
        while True:
            protocol.transport.write(b"a" * 65536)
            written.append(65536)

    written = [65536]  # of the write that raises, too
    ours, theirs = peers.pair()
    shrink(ours, theirs)
    with ours, theirs:
        protocol = Recorder(loop, pause_writing=boom)
        run(loop.create_connection(lambda: protocol, sock=ours))
        loop.call_soon(fill)
        with pytest.raises(kind):
            loop.run_forever()
        assert run(aside(peers.recv_exactly, theirs, sum(written))) == b"a" * sum(written)
        protocol.transport.close()
        run(protocol.called("connection_lost"))
