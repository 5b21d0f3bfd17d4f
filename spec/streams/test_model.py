"""Random reads, cancelled and not, of a stream that arrives in random pieces, against the model: a string of bytes."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .._kit import clause, peers
from .._kit.contracts.stream import turns
from .._kit.seeds import explored
from .helpers import PAIRS

MODEL = explored(60)
LIMIT = 50
# The same text in every run: what is explored is how it is cut and read, and no cut makes up for a text without "aba".
SOURCE = bytes(random.Random(1).choices(b"ab\n", k=200_000))
SEPARATORS = [b"\n", b"ab", b"\n\n", b"aba"]


class Stream:
    """A reader, what was sent to it, and how much of that was read."""

    def __init__(self, reader, theirs):
        self.reader = reader
        self.theirs = theirs
        self.sent = 0
        self.read = 0

    def feed(self, count):
        self.theirs.sendall(SOURCE[self.sent : self.sent + count])
        self.sent += count

    def begin(self, operation):
        method, *args = operation
        return asyncio.ensure_future(getattr(self.reader, method)(*args))

    async def complete(self, operation, piece):
        """Read, feeding pieces for as long as that takes, and compare."""
        task = self.begin(operation)
        await turns(4)
        while not task.done():
            self.feed(piece)
            await turns(8)
        rest = SOURCE[self.read :]
        error = task.exception()
        if isinstance(error, asyncio.LimitOverrunError):
            assert LIMIT < error.consumed <= rest.index(operation[1])
            got = await self.reader.readexactly(error.consumed)
            assert len(got) == error.consumed
        else:
            got = task.result()
            match operation:
                case ("read", n):
                    assert 0 < len(got) <= n
                case ("readexactly", n):
                    assert len(got) == n
                case ("readuntil", separator):
                    assert len(got) == rest.index(separator) + len(separator)
        assert got == rest[: len(got)]
        self.read += len(got)


reads = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 200)),
    st.tuples(st.just("readexactly"), st.integers(1, 300)),
    st.tuples(st.just("readuntil"), st.sampled_from(SEPARATORS)),
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.integers(1, 300)),
        st.tuples(st.just("complete"), reads, st.integers(1, 60)),
        st.tuples(st.just("cancelled"), reads, st.integers(1, 60), st.integers(0, 6)),
    ),
    max_size=30,
)


@clause("streams.reads.like-the-model", "streams.cancel.loses-nothing")
@PAIRS
@MODEL
@given(operations=operations)
def test_reads_behave_like_the_model(loop, run, make, operations):
    async def main(ours, theirs):
        reader, writer = await asyncio.open_connection(sock=ours, limit=LIMIT)
        stream = Stream(reader, theirs)
        for operation in operations:
            match operation:
                case ("feed", count):
                    stream.feed(count)
                case ("complete", read, piece):
                    await stream.complete(read, piece)
                case ("cancelled", read, count, pause):
                    task = stream.begin(read)
                    await turns(2)
                    stream.feed(count)
                    await turns(pause)
                    task.cancel()
                    await asyncio.wait([task])
                    if not task.cancelled() and task.exception() is None:
                        stream.read += len(task.result())
        theirs.shutdown(socket.SHUT_WR)
        assert await reader.read() == SOURCE[stream.read : stream.sent]
        writer.close()
        await writer.wait_closed()

    ours, theirs = make()
    with theirs:
        run(main(ours, theirs))


@clause("streams.readline.lines")
@pytest.mark.parametrize("size", [1, 7, 100, 4000])
def test_lines_are_the_lines_whatever_pieces_they_arrive_in(loop, run, size):
    data = SOURCE[:4000]

    async def main(ours, theirs):
        reader, writer = await asyncio.open_connection(sock=ours)

        async def feed():
            for at in range(0, len(data), size):
                theirs.sendall(data[at : at + size])
                await asyncio.sleep(0)
            theirs.shutdown(socket.SHUT_WR)

        feeding = asyncio.ensure_future(feed())
        lines = [line async for line in reader]
        await feeding
        writer.close()
        await writer.wait_closed()
        return lines

    ours, theirs = peers.pair()
    with theirs:
        assert run(main(ours, theirs)) == data.splitlines(keepends=True)
