"""Order, waiting, cancellation, peers that go, and arguments: the same for sockets and for transports."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl

import pytest

from .._kit import clause, peers
from .helpers import (
    LARGE,
    PAIRS,
    WAYS,
    aside,
    blocked,
    file_of,
    late_drain,
    pattern,
    read_some_and_go,
    sender,
)


@clause("sendfile.order.between-writes")
@WAYS
@PAIRS
def test_the_file_comes_between_what_is_written_before_and_after(loop, run, way, make):
    before, content = b"b" * 3_000_000, pattern(3_000_000)

    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            reading = loop.create_task(late_drain(theirs))
            await end.write(b"first")
            await end.write(before)
            assert await end.sendfile(file) == len(content)
            await end.write(b"between")
            assert await end.sendfile(file, 5, 10) == 10
            await end.write(b"last")
            await end.close()
            assert await reading == b"first" + before + content + b"between" + content[5:15] + b"last"

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.wait.late-reader")
@WAYS
@PAIRS
def test_it_waits_for_a_peer_that_does_not_read_while_the_loop_goes_on(loop, run, way, make):
    content = pattern(LARGE)

    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            task = await blocked(end, file)  # a hundred turns
            reading = loop.create_task(aside(peers.recv_exactly, theirs, LARGE))
            assert await task == LARGE
            assert await reading == content

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.wait.others-run")
@WAYS
def test_other_callbacks_run_while_a_fast_peer_reads(loop, run, way):
    """At least once for each 8 MiB, in which asyncio's own reads and writes go round a hundred times."""
    size = 128 * 1024 * 1024
    turned = 0
    going = True

    def count():
        nonlocal turned
        turned += 1
        if going:
            loop.call_soon(count)

    def swallow(theirs):
        buffer = bytearray(1 << 20)
        got = 0
        while got < size:
            n = theirs.recv_into(buffer)
            assert n
            got += n

    async def main(file):
        nonlocal going
        ours, theirs = peers.pair()  # large kernel buffers
        with ours, theirs:
            end = way(loop, ours)
            await end.open()
            reading = loop.create_task(aside(swallow, theirs))
            loop.call_soon(count)
            assert await end.sendfile(file) == size
            going = False
            await reading
            await end.close()

    with file_of(b"") as file:
        file.truncate(size)
        run(main(file))
    assert turned >= 16


@clause("sendfile.cancel.sends-no-more")
@WAYS
@PAIRS
def test_what_a_cancelled_sendfile_sent_is_a_prefix_and_the_next_write_follows_it(loop, run, way, make):
    content = pattern(LARGE)

    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            task = await blocked(end, file)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            reading = loop.create_task(late_drain(theirs))
            await end.write(b"tail")
            await end.close()
            got = await reading
        sent = len(got) - 4
        assert 0 < sent < LARGE
        assert got == content[:sent] + b"tail"

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.cancel.sends-no-more")
@WAYS
def test_a_second_sendfile_follows_a_cancelled_one(loop, run, way):
    content, second = b"a" * LARGE, b"b" * 100_000

    async def main(file, other):
        async with sender(way, loop) as (end, theirs):
            task = await blocked(end, file)
            task.cancel()
            await asyncio.wait([task])
            reading = loop.create_task(late_drain(theirs))
            assert await end.sendfile(other) == len(second)
            await end.close()
            assert (await reading).lstrip(b"a") == second

    with file_of(content) as file, file_of(second) as other:
        run(main(file, other))


@clause("sendfile.peer.gone-midway")
@WAYS
@PAIRS
def test_it_raises_when_the_peer_goes_in_the_middle(loop, run, way, make):
    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            going = loop.create_task(aside(read_some_and_go, theirs))
            with pytest.raises(ConnectionError):
                await end.sendfile(file)
            await going

    with file_of(pattern(LARGE)) as file:
        run(main(file))


@clause("sendfile.peer.gone-midway")
@WAYS
def test_it_raises_when_the_peer_resets_while_it_waits(loop, run, way):
    async def main(file):
        async with sender(way, loop) as (end, theirs):
            task = await blocked(end, file)
            peers.reset(theirs)
            with pytest.raises(ConnectionError):
                await task

    with file_of(pattern(LARGE)) as file:
        run(main(file))


@clause("sendfile.peer.gone-before")
@WAYS
@pytest.mark.parametrize("fallback", [True, False])
def test_it_raises_when_the_peer_has_gone_before(loop, run, way, fallback, saw):
    async def main(file):
        async with sender(way, loop) as (end, theirs):
            peers.reset(theirs)
            select.select([end.sock], [], [], peers.TIMEOUT)  # the reset is here, and the loop has not heard of it
            with pytest.raises((ConnectionError, asyncio.SendfileNotAvailableError)) as caught:
                await end.sendfile(file, fallback=fallback)
            gone = isinstance(caught.value, ConnectionError)
            saw("sendfile.peer.gone-before", "ConnectionError" if gone else "SendfileNotAvailableError")

    with file_of(pattern(LARGE)) as file:
        run(main(file))


class Text:
    """A file in text mode."""

    mode = "r"

    def __init__(self, file):
        self.fileno = file.fileno


@clause("sendfile.arguments.checked")
@WAYS
@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((-1,), ValueError),
        (("1",), TypeError),
        ((1.0,), TypeError),
        ((None,), TypeError),
        ((0, 0), ValueError),
        ((0, -5), ValueError),
        ((0, "5"), TypeError),
        ((0, 5.0), TypeError),
    ],
    ids=repr,
)
def test_wrong_offsets_and_counts_are_refused_and_nothing_is_sent(loop, run, way, args, error):
    async def main(file):
        async with sender(way, loop) as (end, theirs):
            with pytest.raises(error):
                await end.sendfile(file, *args)
            await end.write(b"next")
            assert await aside(peers.recv_exactly, theirs, 4) == b"next"

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.arguments.text-file")
@WAYS
def test_a_file_in_text_mode_is_refused(loop, run, way):
    async def main(file):
        async with sender(way, loop) as (end, theirs):
            with pytest.raises(ValueError):
                await end.sendfile(Text(file))
            await end.write(b"next")
            assert await aside(peers.recv_exactly, theirs, 4) == b"next"

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.arguments.closed-file")
@WAYS
def test_a_closed_file_is_refused(loop, run, way):
    async def main(file):
        file.close()
        async with sender(way, loop) as (end, theirs):
            with pytest.raises(ValueError):
                await end.sendfile(file)
            await end.write(b"next")
            assert await aside(peers.recv_exactly, theirs, 4) == b"next"

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.sock.not-a-stream")
def test_a_datagram_socket_is_refused(loop, run):
    ours, theirs = peers.unix_pair(socket.SOCK_DGRAM)
    with ours, theirs, file_of(b"content") as file:
        with pytest.raises(ValueError):
            run(loop.sock_sendfile(ours, file))
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


@clause("sendfile.sock.blocking")
def test_debug_mode_refuses_a_blocking_socket(loop, run):
    loop.set_debug(True)
    ours, theirs = peers.pair()
    with ours, theirs, file_of(b"content") as file:
        ours.setblocking(True)
        with pytest.raises(ValueError):
            run(loop.sock_sendfile(ours, file))


@clause("sendfile.sock.ssl")
def test_an_ssl_socket_is_refused(loop, run):
    ours, theirs = peers.pair()
    context = ssl.create_default_context()
    with (
        theirs,
        context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False) as wrapped,
        file_of(b"content") as file,
        pytest.raises(TypeError),
    ):
        run(loop.sock_sendfile(wrapped, file))


@clause("sendfile.sock.closed")
def test_a_closed_socket_is_refused(loop, run, saw):
    ours, theirs = peers.pair()
    with theirs, file_of(b"content") as file:
        ours.close()
        with pytest.raises((OSError, ValueError)) as caught:
            run(loop.sock_sendfile(ours, file))
        assert peers.recv_all(theirs) == b""
        saw("sendfile.sock.closed", "OSError" if isinstance(caught.value, OSError) else "ValueError")
