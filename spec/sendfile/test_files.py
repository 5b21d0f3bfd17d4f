"""Which bytes of a file are sent, and where its position is afterwards."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from contextlib import AsyncExitStack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .._kit import clause, peers
from .._kit.seeds import explored
from .helpers import LARGE, PAIRS, WAYS, aside, blocked, file_of, pattern, read_some_and_go, sender


@clause("sendfile.file.whole")
@WAYS
@PAIRS
@pytest.mark.parametrize("size", [1, 70_000, 5_000_000])
def test_a_file_is_sent_to_its_end_and_the_number_of_its_bytes_returned(loop, run, way, make, size):
    content = pattern(size)

    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            reading = loop.create_task(aside(peers.recv_exactly, theirs, size))
            assert await end.sendfile(file) == size
            assert await reading == content
        return file.tell()

    with file_of(content) as file:
        assert run(main(file)) == size


@clause("sendfile.file.part")
@WAYS
@pytest.mark.parametrize(
    ("offset", "count", "sent"),
    [
        (0, 100, 100),
        (1000, 70_000, 70_000),
        (299_999, None, 1),
        (1000, None, 299_000),
        (299_000, 5000, 1000),
        (300_000, None, 0),
        (300_000, 10, 0),
        (400_000, None, 0),
    ],
)
def test_offset_and_count_say_which_part_is_sent(loop, run, way, offset, count, sent):
    content = pattern(300_000)

    async def main(file):
        async with sender(way, loop) as (end, theirs):
            reading = loop.create_task(aside(peers.recv_exactly, theirs, sent + 4))
            assert await end.sendfile(file, offset, count) == sent
            await end.write(b"next")
            assert await reading == content[offset : offset + sent] + b"next"
        return file.tell()

    with file_of(content) as file:
        # Where nothing is sent, CPython sets the position since 3.14.10 only.
        assert run(main(file)) in ({offset + sent} if sent else {offset, 0})


@clause("sendfile.file.part")
@explored(60)
@given(st.integers(0, 3000), st.integers(0, 3500), st.none() | st.integers(1, 3500))
@example(0, 0, None)
@example(0, 5, 10)
@example(3000, 5, 10)
def test_any_part_of_any_file_is_the_slice_of_its_content(loop, run, size, offset, count):
    content = pattern(size)
    wanted = content[offset:] if count is None else content[offset : offset + count]

    async def main(file):
        ours, theirs = peers.unix_pair()
        with ours, theirs:
            assert await loop.sock_sendfile(ours, file, offset, count) == len(wanted)
            ours.close()
            assert peers.recv_all(theirs) == wanted

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.file.from-zero")
@WAYS
def test_offset_zero_is_the_start_of_the_file_wherever_its_position_is(loop, run, way):
    content = pattern(10_000)

    async def main(file):
        file.seek(4000)
        async with sender(way, loop) as (end, theirs):
            assert await end.sendfile(file) == 10_000
            assert await aside(peers.recv_exactly, theirs, 10_000) == content
        return file.tell()

    with file_of(content) as file:
        assert run(main(file)) == 10_000


@clause("sendfile.file.empty")
@WAYS
def test_of_an_empty_file_nothing_is_sent(loop, run, way):
    async def main(file):
        async with sender(way, loop) as (end, theirs):
            assert await end.sendfile(file) == 0
            assert await end.sendfile(file, 0, 100) == 0
            await end.write(b"next")
            assert await aside(peers.recv_exactly, theirs, 4) == b"next"

    with file_of(b"") as file:
        run(main(file))


@clause("sendfile.file.shrinks")
@WAYS
def test_a_file_that_shrinks_meanwhile_is_sent_to_its_new_end(loop, run, way):
    content = pattern(LARGE)
    left = LARGE // 2 + 100

    async def main(file):
        async with sender(way, loop) as (end, theirs):
            task = await blocked(end, file)
            file.truncate(left)
            reading = loop.create_task(aside(peers.recv_exactly, theirs, left + 4))
            assert await task == left
            await end.write(b"next")
            assert await reading == content[:left] + b"next"

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.file.closed-meanwhile")
@WAYS
def test_of_a_file_that_has_the_number_of_a_closed_one_nothing_is_sent(loop, run, way):
    """The peer gets what was sent before the file was closed, and of the other one, which is of zeros, nothing."""
    content = b"x" * LARGE

    async def main(file, other):
        async with sender(way, loop) as (end, theirs):
            task = await blocked(end, file)
            number = file.fileno()
            file.close()
            os.dup2(other.fileno(), number)
            try:
                reading = loop.create_task(aside(peers.recv_all, theirs))
                await asyncio.wait([task], timeout=5)
                await end.close()
                got = await reading
            finally:
                os.close(number)
            assert task.done()
            task.exception()
            assert set(got) == {ord("x")}
            assert 0 < len(got) < LARGE

    with file_of(content) as file, file_of(bytes(LARGE)) as other:
        run(main(file, other))


@clause("sendfile.file.many-at-once")
@WAYS
def test_many_files_are_sent_at_once(loop, run, way):
    contents = [bytes([n]) * (1_000_000 + n) for n in range(8)]

    async def send(content):
        async with sender(way, loop) as (end, theirs):
            with file_of(content) as file:
                reading = loop.create_task(aside(peers.recv_exactly, theirs, len(content)))
                assert await end.sendfile(file) == len(content)
                return await reading

    async def main():
        return await asyncio.gather(*map(send, contents))

    assert run(main()) == contents


@clause("sendfile.file.shared")
@WAYS
def test_one_file_is_sent_to_several_peers_at_once(loop, run, way):
    content = pattern(1_000_000)

    async def main(file):
        async with AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(sender(way, loop)) for _ in range(4)]
            reads = [loop.create_task(aside(peers.recv_exactly, theirs, len(content))) for _, theirs in ends]
            assert await asyncio.gather(*(end.sendfile(file) for end, _ in ends)) == [len(content)] * 4
            assert await asyncio.gather(*reads) == [content] * 4

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.position.after-cancel")
@WAYS
def test_after_a_cancellation_the_position_tells_how_much_was_sent(loop, run, way):
    content = pattern(LARGE)

    async def main(file):
        async with sender(way, loop) as (end, theirs):
            task = await blocked(end, file, 1000)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            position = file.tell()
            reading = loop.create_task(aside(peers.recv_all, theirs))
            await end.close()
            got = await reading
            assert got == content[1000 : 1000 + len(got)] and got
            assert position == 1000 + len(got)

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.position.after-error")
@WAYS
@PAIRS
def test_after_an_error_the_position_tells_how_much_was_sent(loop, run, way, make):
    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            going = loop.create_task(aside(read_some_and_go, theirs))
            with pytest.raises(OSError):
                await end.sendfile(file, 1000)
            await going
            return file.tell()

    with file_of(pattern(LARGE)) as file:
        assert 201_000 <= run(main(file)) < LARGE


@clause("sendfile.position.read-ahead")
@WAYS
def test_of_a_file_that_was_read_before_the_position_is_right_too(loop, run, way):
    """A buffered file has read more than was asked for."""
    content = pattern(20_000)

    async def main(file):
        assert file.read(10) == content[:10]
        async with sender(way, loop) as (end, theirs):
            assert await end.sendfile(file, 10, 5000) == 5000
            assert await aside(peers.recv_exactly, theirs, 5000) == content[10:5010]
        assert file.tell() == 5010
        assert file.read(10) == content[5010:5020]

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.file.like")
@WAYS
def test_what_is_no_regular_file_is_read_and_sent(loop, run, way):
    """With an offset, too, where it can seek."""
    content = pattern(30_000)  # what the kernel takes

    class OnlyReads:
        def __init__(self):
            self.rest = memoryview(content)

        def readinto(self, buffer):
            n = min(len(buffer), len(self.rest), 7000)
            buffer[:n], self.rest = self.rest[:n], self.rest[n:]
            return n

    async def main():
        async with sender(way, loop) as (end, theirs):
            reading = loop.create_task(aside(peers.recv_exactly, theirs, 31_004))
            file = io.BytesIO(content)
            assert await end.sendfile(file, 1000, 1000) == 1000
            assert file.tell() == 2000
            assert await end.sendfile(OnlyReads()) == 30_000
            await end.write(b"next")
            assert await reading == content[1000:2000] + content + b"next"

    run(main())


@clause("sendfile.fallback.from-zero")
@WAYS
def test_offset_zero_is_the_start_of_what_is_no_regular_file_as_well(loop, run, way):
    content = pattern(30_000)

    async def main():
        file = io.BytesIO(content)
        file.seek(20_000)
        async with sender(way, loop) as (end, theirs):
            reading = loop.create_task(aside(peers.recv_all, theirs))
            sent = await end.sendfile(file)
            await end.close()
            assert await reading == content
            assert sent == 30_000
            assert file.tell() == 30_000

    run(main())


@clause("sendfile.native.regular-file")
@WAYS
@PAIRS
@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile(2)")
def test_without_fallback_a_regular_file_is_sent(loop, run, way, make):
    content = pattern(300_000)

    async def main(file):
        async with sender(way, loop, make) as (end, theirs):
            reading = loop.create_task(aside(peers.recv_exactly, theirs, len(content)))
            assert await end.sendfile(file, fallback=False) == len(content)
            assert await reading == content

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.native.not-available")
@WAYS
def test_without_fallback_what_is_no_regular_file_is_refused(loop, run, way):
    async def main():
        async with sender(way, loop) as (end, theirs):
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await end.sendfile(io.BytesIO(b"content"), fallback=False)
            await end.write(b"next")
            assert await aside(peers.recv_exactly, theirs, 4) == b"next"

    run(main())


@clause("sendfile.fallback.loop-goes-on")
@WAYS
def test_the_loop_goes_on_while_what_is_no_regular_file_is_read(loop, run, way):
    """A read that only ends when a callback was called would wait for ever if it kept the loop from calling any."""
    called = threading.Event()

    class Waits(io.BytesIO):
        def readinto(self, buffer):
            loop.call_soon_threadsafe(called.set)
            assert called.wait(peers.TIMEOUT / 3), "the loop waits for the file"
            return super().readinto(buffer)

    async def main():
        async with sender(way, loop) as (end, theirs):
            assert await end.sendfile(Waits(b"content")) == 7
            return await aside(peers.recv_exactly, theirs, 7)

    assert run(main()) == b"content"
