"""sock_recv and sock_recv_into on stream sockets."""

from __future__ import annotations

import array
import asyncio
import contextlib
import mmap
import os
import select
import socket
import time

import pytest

from .._kit import clause, peers, timing
from ..readers_writers.helpers import drain, fill, pair, pipe
from .helpers import Late, pattern, skip_unless_implemented, turns

PAIRS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])


@clause("sockets.recv.waits-for-data")
@PAIRS
def test_recv_waits_until_a_late_peer_writes(loop, run, make):
    async def main(ours, theirs):
        for text in (b"first", b"second", b"third"):
            late = Late()
            with peers.thread(late, theirs.sendall, text):
                data = await loop.sock_recv(ours, 100)
                assert late.acted
            assert data == text

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.large-message-whole")
@pytest.mark.parametrize("size", [1 << 18, (1 << 18) + 1, 300_000])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["datagram", "seqpacket"])
def test_recv_returns_a_large_message_whole(loop, run, kind, waits, size):
    async def main(ours, theirs):
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 1 << 20))
        if waits:
            await turns(2)
        theirs.send(pattern(size))
        assert await receiving == pattern(size)
        theirs.send(b"next")
        assert await loop.sock_recv(ours, 1 << 20) == b"next"

    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
        if theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < size + 4096:
            pytest.skip("this machine's buffers are smaller than the message")
        run(main(ours, theirs))


@clause("sockets.recv.data-there")
@PAIRS
def test_recv_returns_bytes_that_were_there_before(loop, run, make):
    async def main(ours, theirs):
        theirs.sendall(b"there")
        data = await loop.sock_recv(ours, 1 << 20)
        assert type(data) is bytes
        assert data == b"there"

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.does-not-suspend")
@pytest.mark.parametrize("operation", ["recv", "recv_into", "sendall", "accept"])
def test_what_can_be_done_at_once_lets_no_other_callback_run(loop, run, operation):
    ran = []

    async def main():
        with pair() as (ours, theirs), peers.listener() as listener:
            theirs.send(b"x" * 10)
            with socket.create_connection(listener.getsockname(), 15):
                loop.call_soon(ran.append, "ran")
                if operation == "recv":
                    await loop.sock_recv(ours, 5)
                elif operation == "recv_into":
                    await loop.sock_recv_into(ours, bytearray(5))
                elif operation == "sendall":
                    await loop.sock_sendall(ours, b"x")
                else:
                    conn, _ = await loop.sock_accept(listener)
                    conn.close()
                assert ran == []
        await turns()
        assert ran == ["ran"]

    run(main())


@clause("sockets.recv.asks-each-time")
@pytest.mark.parametrize("operation", ["recv", "recv_into", "recvfrom", "recvfrom_into"])
@PAIRS
def test_what_came_since_a_receive_emptied_the_socket_lets_no_other_callback_run(loop, run, make, operation):
    skip_unless_implemented(loop, operation)
    args = (bytearray(100),) if operation.endswith("into") else (100,)
    ran = []

    async def receive(ours):
        return await getattr(loop, f"sock_{operation}")(ours, *args)

    async def main(ours, theirs):
        waiting = loop.create_task(receive(ours))
        await turns()
        theirs.send(b"first")
        await waiting
        for _ in range(20):
            theirs.send(b"next")
            select.select([ours], [], [], 15)
            loop.call_soon(ran.append, "ran")
            await receive(ours)
            assert ran == []
            await turns()
            ran.clear()

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.asks-each-time")
def test_room_that_came_since_a_send_filled_the_socket_lets_no_other_callback_run(loop, run):
    ran = []

    async def main():
        with pair() as (ours, theirs):
            sending = loop.create_task(loop.sock_sendall(ours, b"x" * 4_000_000))
            await turns()
            sending.cancel()
            await asyncio.wait([sending])
            drain(theirs)
            loop.call_soon(ran.append, "ran")
            await loop.sock_sendall(ours, b"x")
            assert ran == []

    run(main())


@clause("sockets.recv.found-by-the-next-iteration")
@pytest.mark.parametrize("operation", ["recv", "accept", "sendall"])
@pytest.mark.parametrize("turns_before", [1, 7, 20])
def test_a_waiting_operation_ends_in_the_second_iteration_behind_the_event(loop, run, operation, turns_before):
    async def main():
        with pair() as (ours, theirs), peers.listener() as listener, contextlib.ExitStack() as clients:
            wait = {
                "recv": lambda: loop.sock_recv(ours, 5),
                "accept": lambda: loop.sock_accept(listener),
                "sendall": lambda: loop.sock_sendall(ours, b"x"),
            }[operation]
            if operation == "sendall":
                fill(ours)
            waiting = loop.create_task(wait())
            await turns(turns_before)
            assert not waiting.done()
            if operation == "recv":
                theirs.send(b"x")
            elif operation == "accept":
                clients.enter_context(socket.create_connection(listener.getsockname(), 15))
            else:
                drain(theirs)
            took = await timing.turns_until(waiting.done)
            result = await waiting
            if operation == "accept":
                result[0].close()
            return took

    assert run(main()) <= 3


@clause("sockets.recv.at-most-n")
@PAIRS
def test_recv_returns_at_most_n_bytes_and_the_next_one_the_rest(loop, run, make):
    async def main(ours, theirs):
        theirs.sendall(b"0123456789")
        got = [await loop.sock_recv(ours, n) for n in (1, 4, 3, 100)]
        assert got == [b"0", b"1234", b"567", b"89"]
        waiting = asyncio.create_task(loop.sock_recv(ours, 100))
        await turns()
        assert not waiting.done()
        theirs.sendall(b"more")
        assert await waiting == b"more"

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.at-most-n")
def test_a_waiting_recv_takes_no_more_than_n_bytes(loop, run):
    async def main(ours, theirs):
        with peers.thread(Late(), theirs.sendall, b"0123456789"):
            assert await loop.sock_recv(ours, 4) == b"0123"
        assert await loop.sock_recv(ours, 4) == b"4567"
        assert await loop.sock_recv(ours, 4) == b"89"

    ours, theirs = peers.pair()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.end-of-stream", "sockets.recv-into.end-of-stream")
@PAIRS
@pytest.mark.parametrize("how", ["closed", "shut-down"])
@pytest.mark.parametrize("last", [b"", b"last"], ids=["alone", "with-data"])
@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
def test_the_end_of_the_stream_is_an_empty_result_each_time(loop, run, make, how, last, late):
    def end(theirs):
        theirs.sendall(last)
        if how == "closed":
            theirs.close()
        else:
            theirs.shutdown(socket.SHUT_WR)

    async def main(ours, theirs):
        with peers.thread(Late(), end, theirs) if late else peers.thread(end, theirs) as peer:
            if not late:
                peer.result()
            if last:
                assert await loop.sock_recv(ours, 100) == last
            for _ in range(3):
                assert await loop.sock_recv(ours, 100) == b""
                assert await loop.sock_recv_into(ours, bytearray(10)) == 0

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.zero")
def test_zero_bytes_are_received_at_once_and_nothing_is_taken(loop, run):
    async def main():
        with pair() as (ours, theirs):
            for data in (b"", b"x"):
                if data:
                    theirs.send(data)
                assert await loop.sock_recv(ours, 0) == b""
                assert await loop.sock_recv_into(ours, bytearray()) == 0
            assert await loop.sock_recv(ours, 10) == b"x"

    run(main())


@clause("sockets.recv.short-read-with-more")
@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
def test_what_is_left_behind_a_barrier_is_received_next(loop, run, late):
    """A passed fd ends a receive though more data is there: a short read is no proof of an empty socket."""
    with pair() as (ours, theirs), pipe() as (reading, _):

        def send():
            theirs.send(b"one")
            socket.send_fds(theirs, [b"two"], [reading])
            theirs.send(b"three")

        async def main():
            with peers.thread(Late(), send) if late else peers.thread(send) as peer:
                if not late:
                    peer.result()
                got = b""
                while len(got) < 11:
                    got += await loop.sock_recv(ours, 1000)
                return got

        assert run(main()) == b"onetwothree"


@clause("sockets.recv.short-read-with-more")
def test_data_that_comes_right_after_a_short_read_is_received(loop, run):
    async def main():
        with pair() as (ours, theirs):
            for number in range(50):
                theirs.send(b"%d" % number)
                assert await loop.sock_recv(ours, 1000) == b"%d" % number
                if number % 3 == 0:
                    await asyncio.sleep(0)

    run(main())


@clause("sockets.recv.many-in-order")
@PAIRS
@pytest.mark.parametrize("into", [False, True], ids=["recv", "recv_into"])
def test_megabytes_in_pieces_of_odd_sizes_arrive_whole(loop, run, make, into):
    sent = pattern(3_000_000)

    def send(theirs):
        at, size = 0, 1
        while at < len(sent):
            theirs.sendall(sent[at : at + size])
            at += size
            size = (size * 7 + 3) % 65537
        theirs.shutdown(socket.SHUT_WR)

    async def main(ours, theirs):
        got = bytearray()
        buffer = bytearray(10_007)
        with peers.thread(send, theirs):
            while True:
                if into:
                    count = await loop.sock_recv_into(ours, buffer)
                    chunk = bytes(buffer[:count])
                else:
                    chunk = await loop.sock_recv(ours, 10_007)
                if not chunk:
                    break
                got += chunk
        assert got == sent

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.reset")
@pytest.mark.parametrize("into", [False, True], ids=["recv", "recv_into"])
def test_a_waiting_receive_raises_when_the_peer_resets(loop, run, into):
    async def main(ours, theirs):
        with peers.thread(Late(), peers.reset, theirs), pytest.raises(ConnectionResetError):
            await (loop.sock_recv_into(ours, bytearray(10)) if into else loop.sock_recv(ours, 10))

    ours, theirs = peers.pair()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.recv.bad-size")
def test_a_size_that_is_none_is_refused_and_nothing_is_taken(loop, run):
    async def main():
        with pair() as (ours, theirs):
            theirs.send(b"x")
            for size, error in ((-1, ValueError), ("ten", TypeError), (None, TypeError), (1.5, TypeError)):
                with pytest.raises(error):
                    await loop.sock_recv(ours, size)
            assert await loop.sock_recv(ours, 10) == b"x"

    run(main())


@clause("sockets.recv.own-direct-calls")
def test_direct_calls_of_the_socket_and_operations_mix(loop, run):
    async def main():
        with pair() as (ours, theirs):
            for _ in range(3):
                # Drained by a direct call: the operation must wait for what comes next.
                theirs.send(b"a")
                assert ours.recv(10) == b"a"
                waiting = asyncio.create_task(loop.sock_recv(ours, 10))
                await turns()
                assert not waiting.done()
                theirs.send(b"b")
                assert await waiting == b"b"
                # Found empty by an operation, seen full by a direct call, emptied by it.
                theirs.send(b"c")
                await turns()
                assert ours.recv(10) == b"c"
                with pytest.raises(BlockingIOError):
                    ours.recv(10)
                # Filled between two operations, without the loop having looked.
                theirs.send(b"d")
                assert await loop.sock_recv(ours, 10) == b"d"
                # A direct call takes a part.
                theirs.send(b"ef")
                assert ours.recv(1) == b"e"
                assert await loop.sock_recv(ours, 10) == b"f"

    run(main())


@clause("sockets.recv.own-direct-calls")
def test_data_that_a_direct_call_took_before_the_task_ran_is_not_missed_by_it(loop, run):
    async def main():
        with pair() as (ours, theirs):
            waiting = asyncio.create_task(loop.sock_recv(ours, 10))
            await turns()
            theirs.send(b"a")
            assert ours.recv(10) == b"a"
            await turns()
            assert not waiting.done()
            theirs.send(b"b")
            assert await waiting == b"b"

    run(main())


@clause("sockets.recv-into.waits-for-data")
@PAIRS
def test_recv_into_waits_and_writes_exactly_what_arrived(loop, run, make):
    async def main(ours, theirs):
        buffer = bytearray(b"." * 8)
        late = Late()
        with peers.thread(late, theirs.sendall, b"abc"):
            count = await loop.sock_recv_into(ours, buffer)
            assert late.acted
        assert count == 3
        assert buffer == b"abc....."
        theirs.sendall(b"0123456789")
        assert await loop.sock_recv_into(ours, buffer) == 8
        assert buffer == b"01234567"
        assert await loop.sock_recv_into(ours, buffer) == 2
        assert buffer == b"89234567"

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


def slice_of_bytearray():
    whole = bytearray(b"." * 12)
    return memoryview(whole)[4:8], lambda: bytes(whole[4:8]), lambda: bytes(whole[:4] + whole[8:])


def whole_bytearray():
    buffer = bytearray(b"." * 4)
    return buffer, lambda: bytes(buffer), bytes


def array_of_bytes():
    buffer = array.array("B", b"....")
    return buffer, buffer.tobytes, bytes


def anonymous_memory():
    buffer = mmap.mmap(-1, mmap.PAGESIZE)
    return buffer, lambda: buffer[:4], lambda: b""


@clause("sockets.recv-into.buffers")
@pytest.mark.parametrize("make", [whole_bytearray, slice_of_bytearray, array_of_bytes, anonymous_memory])
@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
def test_recv_into_takes_any_writable_buffer(loop, run, make, late):
    async def main():
        buffer, content, around = make()
        with pair() as (ours, theirs):
            with peers.thread(Late(), theirs.send, b"data") if late else peers.thread(theirs.send, b"data") as peer:
                if not late:
                    peer.result()
                assert await loop.sock_recv_into(ours, buffer) == 4
            assert content() == b"data"
            assert set(around()) <= set(b".")

    run(main())


@clause("sockets.recv-into.buffers")
def test_the_buffer_is_free_when_the_operation_has_ended(loop, run):
    async def main():
        with pair() as (ours, theirs):
            buffer = bytearray(10)
            task = asyncio.create_task(loop.sock_recv_into(ours, buffer))
            await turns()
            theirs.send(b"x")
            assert await task == 1
            del task
            await turns()
            buffer.extend(b"grows")  # BufferError while anybody holds a view of it

    run(main())


@clause("sockets.recv-into.read-only-buffer")
@pytest.mark.parametrize("buffer", [b"bytes", memoryview(b"bytes"), "text", None, 5], ids=repr)
def test_what_is_no_writable_buffer_is_refused(loop, run, buffer):
    async def main():
        with pair() as (ours, theirs):
            theirs.send(b"x")
            with pytest.raises(TypeError):
                await loop.sock_recv_into(ours, buffer)
            assert await loop.sock_recv(ours, 10) == b"x"

    run(main())


@clause("sockets.types.half-close")
@PAIRS
def test_each_direction_goes_on_after_the_other_has_ended(loop, run, make):
    def peer(theirs):
        theirs.shutdown(socket.SHUT_WR)
        return peers.recv_all(theirs)

    async def sending(ours, theirs):
        with peers.thread(peer, theirs) as thread:
            assert await loop.sock_recv(ours, 10) == b""
            await loop.sock_sendall(ours, pattern(500_000))
            ours.shutdown(socket.SHUT_WR)
            await turns()
        assert thread.result() == pattern(500_000)

    async def receiving(ours, theirs):
        ours.shutdown(socket.SHUT_WR)
        with peers.thread(Late(), theirs.sendall, b"answer"):
            assert await loop.sock_recv(ours, 10) == b"answer"
        with pytest.raises(BrokenPipeError):
            await loop.sock_sendall(ours, b"x")

    for main in (sending, receiving):
        ours, theirs = make()
        with ours, theirs:
            run(main(ours, theirs))


@clause("sockets.types.subclass")
def test_a_subclass_of_socket_is_taken(loop, run):
    class Socket(socket.socket):
        pass

    async def main():
        with pair() as (ours, theirs), Socket(fileno=os.dup(ours.fileno())) as sock:
            sock.setblocking(False)
            with peers.thread(Late(), theirs.send, b"x"):
                assert await loop.sock_recv(sock, 10) == b"x"
            await loop.sock_sendall(sock, b"y")
            assert theirs.recv(10) == b"y"

    run(main())


@clause("sockets.recv.waits-for-data")
def test_a_timer_fires_while_a_receive_waits(loop, run):
    async def main():
        with pair() as (ours, theirs):
            started = time.monotonic()
            loop.call_later(0.05, theirs.send, b"x")  # clause-delay
            assert await loop.sock_recv(ours, 10) == b"x"
            assert time.monotonic() - started >= 0.05

    run(main())


@clause("sockets.recv.behind-urgent-data")
def test_recv_returns_what_follows_urgent_data(loop, run):
    async def main(ours, theirs):
        # The socket has waited before: a loop may have learned something about it.
        waiting = loop.create_task(loop.sock_recv(ours, 100))
        await turns(3)
        theirs.sendall(b"x")
        assert await waiting == b"x"
        theirs.sendall(b"before")
        theirs.send(b"!", socket.MSG_OOB)
        theirs.sendall(b"behind")
        assert await loop.sock_recv(ours, 100) == b"before"
        assert await loop.sock_recv(ours, 100) == b"behind"

    ours, theirs = peers.pair()
    with ours, theirs:
        run(main(ours, theirs))
