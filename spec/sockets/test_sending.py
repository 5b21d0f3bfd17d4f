"""sock_sendall."""

from __future__ import annotations

import array
import asyncio
import errno
import socket
import time

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import drain, fill, pair
from .helpers import Late, cancelled, pattern, turns

PAIRS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])


def read_slowly(theirs):
    """Receive up to the end of the stream, with pauses at its start."""
    got = b""
    for _ in range(5):
        time.sleep(0.01)  # clause-delay
        got += theirs.recv(100_000)
    return got + peers.recv_all(theirs)


@clause("sockets.sendall.sends-everything")
@PAIRS
@pytest.mark.parametrize("size", [1, 1000, 100_000, 8_000_000])
def test_everything_is_sent_to_a_slow_reader(loop, run, make, size):
    data = pattern(size)

    async def main(ours, theirs):
        with peers.thread(read_slowly, theirs) as reader:
            assert await loop.sock_sendall(ours, data) is None
            ours.shutdown(socket.SHUT_WR)
            await loop.run_in_executor(None, reader.result)
        assert reader.result() == data

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.sendall.sends-everything")
def test_many_small_sends_arrive_in_order(loop, run):
    async def main(ours, theirs):
        with peers.thread(peers.recv_all, theirs) as reader:
            for number in range(2000):
                await loop.sock_sendall(ours, b"%d," % number)
            ours.shutdown(socket.SHUT_WR)
            await loop.run_in_executor(None, reader.result)
        assert reader.result() == b"".join(b"%d," % number for number in range(2000))

    ours, theirs = peers.pair()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.sendall.waits-for-room")
@PAIRS
def test_a_send_on_a_full_socket_waits_for_a_late_reader(loop, run, make):
    async def main(ours, theirs):
        filled = fill(ours)
        late = Late()
        with peers.thread(late, peers.recv_exactly, theirs, filled + 5) as reader:
            assert await loop.sock_sendall(ours, b"hello") is None
            assert late.acted
        assert reader.result() == bytes(filled) + b"hello"

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.sendall.buffers")
@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
@pytest.mark.parametrize(
    "data",
    [
        b"0123456789",
        bytearray(b"0123456789"),
        memoryview(b"0123456789"),
        memoryview(bytearray(b"--0123456789--"))[2:12],
        array.array("B", b"0123456789"),
    ],
    ids=["bytes", "bytearray", "memoryview", "slice", "array"],
)
def test_any_buffer_of_bytes_can_be_sent(loop, run, data, full):
    async def main():
        with pair() as (ours, theirs):
            filled = fill(ours) if full else 0
            sending = asyncio.create_task(loop.sock_sendall(ours, data))
            await turns()
            assert sending.done() is not full
            got = b""
            while len(got) < filled + 10:
                got += drain(theirs)
                await asyncio.sleep(0)
            assert await sending is None
            assert got == bytes(filled) + b"0123456789"

    run(main())


@clause("sockets.sendall.wide-items")
def test_a_buffer_of_wide_items_is_sent_as_its_bytes(loop, run):
    async def main():
        data = array.array("I", range(1000))
        with pair() as (ours, theirs):
            async with asyncio.timeout(2):
                assert await loop.sock_sendall(ours, data) is None
            assert drain(theirs) == data.tobytes()

    run(main())


@clause("sockets.sendall.empty")
@pytest.mark.parametrize("data", [b"", bytearray(), memoryview(b"")], ids=["bytes", "bytearray", "memoryview"])
def test_nothing_is_sent_at_once(loop, run, data):
    async def main():
        with pair() as (ours, theirs):
            assert await loop.sock_sendall(ours, data) is None
            with pytest.raises(BlockingIOError):
                theirs.recv(1)

    run(main())


@clause("sockets.sendall.peer-gone")
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_waiting_send_raises_when_the_peer_goes(loop, run, how, saw):
    async def main(ours, theirs):
        fill(ours)
        with (
            peers.thread(Late(), peers.reset if how == "reset" else socket.socket.close, theirs),
            pytest.raises((ConnectionResetError, BrokenPipeError)) as caught,
        ):
            await loop.sock_sendall(ours, pattern(1_000_000))
        saw("sockets.sendall.peer-gone", caught.type.__name__)

    ours, theirs = peers.pair() if how == "reset" else peers.unix_pair()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.sendall.peer-gone")
def test_a_send_after_the_peer_went_raises(loop, run, saw):
    async def main():
        with pair() as (ours, theirs):
            theirs.close()
            for _ in range(2):
                with pytest.raises((ConnectionResetError, BrokenPipeError)) as caught:
                    await loop.sock_sendall(ours, b"x")
                saw("sockets.sendall.peer-gone", caught.type.__name__)

    run(main())


@clause("sockets.sendall.wrong-type")
@pytest.mark.parametrize("data", ["text", None, 5, [1, 2]], ids=repr)
def test_what_is_not_bytes_like_is_refused(loop, run, data):
    async def main():
        with pair() as (ours, theirs):
            with pytest.raises(TypeError):
                await loop.sock_sendall(ours, data)
            await loop.sock_sendall(ours, b"x")
            assert drain(theirs) == b"x"

    run(main())


@clause("sockets.sendall.cancelled-prefix")
@PAIRS
@pytest.mark.parametrize("moved", [False, True], ids=["at-once", "after-some-more-went"])
def test_what_a_cancelled_send_sent_is_a_prefix_and_the_next_send_follows_it(loop, run, make, moved):
    first, second = b"a" * 5_000_000, b"b" * 1_000_000

    async def main(ours, theirs):
        sending = asyncio.create_task(loop.sock_sendall(ours, first))
        await turns()
        got = b""
        if moved:
            got = peers.recv_exactly(theirs, 100_000)
            await asyncio.sleep(0.01)  # clause-delay
        await cancelled(sending)
        with peers.thread(peers.recv_all, theirs) as reader:
            await loop.sock_sendall(ours, second)
            ours.shutdown(socket.SHUT_WR)
            await loop.run_in_executor(None, reader.result)
        got += reader.result()
        sent = len(got) - len(second)
        assert 0 < sent < len(first)
        assert got == first[:sent] + second

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.sendall.cancelled-prefix")
def test_a_cancelled_send_that_sent_nothing_leaves_nothing(loop, run):
    async def main():
        with pair() as (ours, theirs):
            filled = fill(ours)
            sending = asyncio.create_task(loop.sock_sendall(ours, b"never"))
            await turns()
            await cancelled(sending)
            got = b""
            while len(got) < filled:
                got += drain(theirs)
            await turns()
            await loop.sock_sendall(ours, b"next")
            assert got + drain(theirs) == bytes(filled) + b"next"

    run(main())


@clause("sockets.sendall.not-connected")
def test_a_socket_that_never_was_connected_cannot_send(loop, run, saw):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(OSError) as caught:
                await loop.sock_sendall(sock, b"x")
            assert caught.value.errno in (errno.ENOTCONN, errno.EPIPE)
            saw("sockets.sendall.not-connected", errno.errorcode[caught.value.errno])

    run(main())
