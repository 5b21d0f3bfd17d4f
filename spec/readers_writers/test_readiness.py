"""When a reader or a writer is called: level-triggered, never before its fd is ready."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time

import pytest

from .._kit import clause, peers
from .helpers import SETTLE, drain, fill, pair, pipe


@clause("readers_writers.reader.waits-for-data")
def test_a_reader_is_not_called_while_its_fd_is_idle(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), calls.append, "called")
        tick(SETTLE)
        assert calls == []
        theirs.send(b"x")
        tick(SETTLE)
        assert calls
        loop.remove_reader(ours.fileno())


@clause("readers_writers.reader.waits-for-data")
def test_a_reader_of_an_idle_listener_is_not_called_before_a_client_connects(loop, run):
    arrived = []

    async def main():
        called = loop.create_future()
        loop.add_reader(listener.fileno(), lambda: called.done() or called.set_result(list(arrived)))

        def connect():
            time.sleep(0.05)  # clause-delay
            arrived.append("client")
            with socket.create_connection(listener.getsockname(), 15):
                pass

        with peers.thread(connect):
            assert await called == ["client"]
        loop.remove_reader(listener.fileno())
        listener.accept()[0].close()

    with peers.listener() as listener:
        run(main())


@clause("readers_writers.reader.called-when-data-arrives")
@pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])
def test_a_reader_of_an_idle_loop_is_called_when_the_peer_writes(loop, run, make):
    sent = []

    def write(theirs):
        time.sleep(0.1)  # clause-delay
        sent.append(b"late")
        theirs.sendall(b"late")

    async def main(ours, theirs):
        called = loop.create_future()

        def reader():
            loop.remove_reader(ours.fileno())
            called.set_result((list(sent), ours.recv(100)))

        loop.add_reader(ours.fileno(), reader)
        with peers.thread(write, theirs):
            assert await called == ([b"late"], b"late")

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("readers_writers.reader.called-when-data-arrives")
def test_a_reader_is_called_though_a_timer_is_far_off(loop):
    calls = []

    def reader():
        calls.append(ours.recv(10))
        loop.stop()

    def write():
        time.sleep(0.05)  # clause-delay
        theirs.send(b"x")

    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), reader)
        far = loop.call_later(3600, calls.append, "timer")
        with peers.thread(write):
            loop.run_forever()
        far.cancel()
        loop.remove_reader(ours.fileno())
    assert calls == [b"x"]


@clause("readers_writers.reader.data-there-at-registration")
def test_a_reader_is_called_for_data_that_was_there_before(loop, tick):
    with pair() as (ours, theirs):
        theirs.send(b"x")
        calls = []
        loop.add_reader(ours.fileno(), calls.append, "called")
        tick(SETTLE)
        loop.remove_reader(ours.fileno())
    assert calls


@clause("readers_writers.reader.level-triggered")
def test_a_reader_is_called_until_all_data_is_read(loop, tick):
    got = []
    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), lambda: got.append(ours.recv(1)))
        theirs.send(b"0123456789")
        tick(10 + SETTLE)
        loop.remove_reader(ours.fileno())
    assert b"".join(got) == b"0123456789"


@clause("readers_writers.reader.level-triggered")
def test_a_reader_that_reads_nothing_is_called_again_by_a_loop_that_would_sleep(loop):
    calls = 0

    def reader():
        nonlocal calls
        calls += 1
        if calls == 100:
            loop.stop()

    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), reader)
        loop.run_forever()
        loop.remove_reader(ours.fileno())
    assert calls >= 100


@clause("readers_writers.reader.level-triggered")
def test_a_listener_with_several_clients_keeps_calling_its_reader(loop):
    accepted = []

    def reader():
        accepted.append(listener.accept()[0])
        if len(accepted) == 5:
            loop.stop()

    with peers.listener() as listener:
        clients = [socket.create_connection(listener.getsockname(), 15) for _ in range(5)]
        loop.add_reader(listener.fileno(), reader)
        loop.run_forever()
        loop.remove_reader(listener.fileno())
        assert {conn.getpeername() for conn in accepted} == {client.getsockname() for client in clients}
        for sock in (*clients, *accepted):
            sock.close()


@clause("readers_writers.reader.level-triggered")
def test_a_reader_that_leaves_the_error_of_its_socket_unread_is_called_again(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        fill(ours)
        loop.add_reader(ours.fileno(), calls.append, "called")
        theirs.close()  # with unread data: ECONNRESET for us
        tick(SETTLE)
        assert calls
        calls.clear()
        tick(SETTLE)
        loop.remove_reader(ours.fileno())
    assert calls


@clause("readers_writers.reader.once-per-iteration")
def test_a_ready_reader_is_called_once_in_each_iteration(loop, tick):
    calls = []
    counts = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), calls.append, "called")
        for _ in range(5):
            tick()
            counts.append(len(calls))
        loop.remove_reader(ours.fileno())
    assert counts == [1, 2, 3, 4, 5]


@clause("readers_writers.reader.quiet-when-drained")
def test_a_reader_that_read_everything_is_not_called_again(loop, tick):
    got = []
    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), lambda: got.append(ours.recv(100)))
        for text in (b"one", b"two"):
            theirs.send(text)
            tick(SETTLE)
        loop.remove_reader(ours.fileno())
    assert got == [b"one", b"two"]


@clause("readers_writers.reader.quiet-when-drained")
def test_a_reader_is_not_called_for_data_that_somebody_else_read_before_the_poll(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), lambda: calls.append(ours.recv(100)))
        tick(SETTLE)
        for _ in range(3):
            theirs.send(b"x")
            assert ours.recv(10) == b"x"
            tick(SETTLE)
        assert calls == []
        theirs.send(b"y")
        tick(SETTLE)
        loop.remove_reader(ours.fileno())
    assert calls == [b"y"]


@clause("readers_writers.reader.end-of-stream")
@pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])
def test_a_reader_is_called_at_the_end_of_the_stream_and_a_write_still_works(loop, run, make):
    async def main(ours, theirs):
        ended = loop.create_future()
        got = []

        def reader():
            got.append(ours.recv(100))
            if got[-3:] == [b"", b"", b""]:
                loop.remove_reader(ours.fileno())
                ended.set_result(None)

        loop.add_reader(ours.fileno(), reader)
        with peers.thread(shut, theirs):
            await ended
        assert b"".join(got) == b"last"
        ours.send(b"answer")
        assert theirs.recv(100) == b"answer"

    def shut(theirs):
        time.sleep(0.02)  # clause-delay
        theirs.sendall(b"last")
        theirs.shutdown(socket.SHUT_WR)

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("readers_writers.writer.called-when-writable")
@pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])
def test_a_writer_of_a_socket_with_room_is_called_until_it_is_removed(loop, make):
    calls = []

    def writer():
        calls.append("called")
        if len(calls) == 10:
            loop.remove_writer(ours.fileno())
            loop.call_later(0.01, loop.stop)  # clause-delay

    ours, theirs = make()
    with ours, theirs:
        loop.add_writer(ours.fileno(), writer)
        loop.run_forever()
    assert len(calls) == 10


@clause("readers_writers.writer.waits-for-room")
def test_a_writer_of_a_full_socket_is_called_when_the_peer_makes_room(loop, run):
    events = []

    async def main(ours, theirs):
        fill(ours)
        called = loop.create_future()

        def writer():
            loop.remove_writer(ours.fileno())
            called.set_result(list(events))

        def read():
            time.sleep(0.05)  # clause-delay
            events.append("read")
            theirs.setblocking(False)
            drain(theirs)

        loop.add_writer(ours.fileno(), writer)
        with peers.thread(read):
            assert await called == ["read"]

    with pair() as (ours, theirs):
        run(main(ours, theirs))


@clause("readers_writers.writer.waits-for-room")
def test_a_writer_is_quiet_each_time_it_filled_the_buffer_and_called_each_time_there_is_room(loop, tick):
    sent = []
    received = 0
    with pair() as (ours, theirs):
        loop.add_writer(ours.fileno(), lambda: sent.append(fill(ours)))
        for _ in range(5):
            tick(SETTLE)
            before = len(sent)
            tick(SETTLE)
            assert len(sent) == before
            got = len(drain(theirs))
            assert got
            received += got
        loop.remove_writer(ours.fileno())
    assert len([n for n in sent if n]) == 5
    assert received == sum(sent)


@clause("readers_writers.writer.connect-completed")
def test_a_writer_is_called_when_a_connection_is_made(loop, run):
    async def main(addr):
        with socket.socket() as sock:
            sock.setblocking(False)
            assert sock.connect_ex(addr) in (0, errno.EINPROGRESS)
            made = loop.create_future()
            loop.add_writer(
                sock.fileno(),
                lambda: made.done() or made.set_result(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)),
            )
            assert await made == 0
            loop.remove_writer(sock.fileno())
            assert sock.getpeername() == addr

    with peers.serve(lambda conn: conn.recv(1)) as addr:
        run(main(addr))


@clause("readers_writers.writer.connect-completed")
def test_a_writer_is_called_when_a_connection_is_refused(loop, run):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            failed = loop.create_future()
            if (code := sock.connect_ex(("127.0.0.1", peers.closed_port()))) != errno.EINPROGRESS:
                pytest.skip(f"loopback answered at once: {os.strerror(code)}")
            loop.add_writer(
                sock.fileno(),
                lambda: failed.done() or failed.set_result(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)),
            )
            assert await failed == errno.ECONNREFUSED
            loop.remove_writer(sock.fileno())

    run(main())


@clause("readers_writers.both.independent")
def test_each_direction_is_called_for_its_own_readiness(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        fill(ours)
        loop.add_reader(ours.fileno(), calls.append, "reader")
        loop.add_writer(ours.fileno(), calls.append, "writer")
        tick(SETTLE)
        assert calls == []
        theirs.send(b"x")
        tick(SETTLE)
        assert set(calls) == {"reader"}
        ours.recv(1)
        calls.clear()
        drain(theirs)
        tick(SETTLE)
        assert set(calls) == {"writer"}
        theirs.send(b"x")
        calls.clear()
        tick(SETTLE)
        assert set(calls) == {"reader", "writer"}
        loop.remove_reader(ours.fileno())
        loop.remove_writer(ours.fileno())


@clause("readers_writers.both.independent")
@pytest.mark.parametrize("gone", ["reader", "writer"])
def test_removing_one_direction_leaves_the_other(loop, tick, gone):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), calls.append, "reader")
        loop.add_writer(ours.fileno(), calls.append, "writer")
        tick(SETTLE)
        assert set(calls) == {"reader", "writer"}
        (loop.remove_reader if gone == "reader" else loop.remove_writer)(ours.fileno())
        calls.clear()
        tick(SETTLE)
        assert set(calls) == {"reader", "writer"} - {gone}
        (loop.remove_writer if gone == "reader" else loop.remove_reader)(ours.fileno())


@clause("readers_writers.both.reader-first")
def test_the_reader_runs_before_the_writer_of_the_same_fd(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_writer(ours.fileno(), calls.append, "writer")
        loop.add_reader(ours.fileno(), calls.append, "reader")
        tick()
        loop.remove_reader(ours.fileno())
        loop.remove_writer(ours.fileno())
    assert list(dict.fromkeys(calls)) == ["reader", "writer"]


@clause("readers_writers.hangup.wakes-reader-and-writer")
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_hang_up_wakes_the_reader_and_the_writer_of_a_full_socket(loop, run, how):
    async def main(ours, theirs):
        fill(ours)
        woken = {}
        both = loop.create_future()

        def note(name, remove):
            remove(ours.fileno())
            woken[name] = True
            if len(woken) == 2:
                both.set_result(None)

        loop.add_reader(ours.fileno(), note, "reader", loop.remove_reader)
        loop.add_writer(ours.fileno(), note, "writer", loop.remove_writer)

        def hang_up():
            time.sleep(0.02)  # clause-delay
            if how == "reset":
                peers.reset(theirs)
            else:
                theirs.close()

        with peers.thread(hang_up):
            await both

    ours, theirs = peers.pair() if how == "reset" else peers.unix_pair()
    with ours, theirs:
        run(main(ours, theirs))


@clause("readers_writers.hangup.reset")
@pytest.mark.parametrize("how", ["tcp-reset", "unix-closed-with-unread-data"])
def test_a_reader_finds_the_reset_of_its_peer(loop, run, how):
    async def main(ours, theirs):
        found = loop.create_future()

        def reader():
            loop.remove_reader(ours.fileno())
            try:
                found.set_result(ours.recv(10))
            except OSError as error:
                found.set_result(type(error))

        if how != "tcp-reset":
            fill(ours)
        loop.add_reader(ours.fileno(), reader)
        with peers.thread(peers.reset if how == "tcp-reset" else socket.socket.close, theirs):
            assert await found is ConnectionResetError

    ours, theirs = peers.pair() if how == "tcp-reset" else peers.unix_pair()
    with ours, theirs:
        run(main(ours, theirs))


@clause("readers_writers.hangup.full-pipe")
def test_the_writer_of_a_full_pipe_is_called_when_the_reading_end_is_closed(loop, run):
    async def main(reading, writing):
        try:
            while True:
                os.write(writing, bytes(4096))
        except BlockingIOError:
            pass
        woken = loop.create_future()
        loop.add_writer(writing, lambda: woken.done() or woken.set_result(None))
        await asyncio.sleep(0.02)  # clause-delay
        assert not woken.done()
        os.close(reading)
        await woken
        loop.remove_writer(writing)
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")

    with pipe() as (reading, writing):
        run(main(reading, writing))


@clause("readers_writers.hangup.reader-of-a-write-end")
def test_a_reader_on_the_writing_end_of_a_pipe_learns_that_the_reading_end_is_closed(loop, run):
    async def main(reading, writing):
        woken = loop.create_future()
        loop.add_reader(writing, lambda: woken.done() or woken.set_result(None))
        await asyncio.sleep(0.02)  # clause-delay
        assert not woken.done()
        os.close(reading)
        await woken
        loop.remove_reader(writing)

    with pipe() as (reading, writing):
        run(main(reading, writing))


def wanted():
    """Seconds for which the main thread has run or waited for a processor; zero where the kernel does not tell."""
    try:
        with open("/proc/self/schedstat", encoding="ascii") as file:
            running, waiting, _ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0.0
    return (running + waiting) / 1e9


@clause("readers_writers.idle.sleeps")
@pytest.mark.parametrize("state", ["idle", "full", "drained", "removed", "hung-up-then-removed", "both-then-removed"])
def test_a_loop_with_nothing_to_do_for_its_fds_uses_next_to_no_cpu(loop, tick, state):
    nothing = asyncio.Event
    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), ours.recv, 100) if state != "full" else loop.add_writer(ours.fileno(), nothing)
        if state == "full":
            fill(ours)
        elif state == "drained":
            theirs.send(b"x")
        elif state == "removed":
            theirs.send(b"x")
            loop.remove_reader(ours.fileno())
        elif state == "hung-up-then-removed":
            theirs.close()
            tick(SETTLE)
            loop.remove_reader(ours.fileno())
        elif state == "both-then-removed":
            # epoll reports a hang-up for as long as the fd is registered, whatever is asked for.
            loop.add_writer(ours.fileno(), nothing)
            theirs.close()
            tick(SETTLE)
            loop.remove_writer(ours.fileno())
            loop.remove_reader(ours.fileno())
        tick(SETTLE)
        loop.call_later(0.4, loop.stop)  # clause-delay
        before = time.process_time(), wanted(), loop.time()
        loop.run_forever()
        used, awake, elapsed = (
            now - then for now, then in zip((time.process_time(), wanted(), loop.time()), before, strict=True)
        )
        loop.remove_reader(ours.fileno())
        loop.remove_writer(ours.fileno())
    assert used < 0.02, "a share of a busy processor, too, is more than a loop that sleeps takes"
    assert awake < elapsed / 2
