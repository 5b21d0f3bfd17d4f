"""What `StreamReader` gives: by number, by line, by separator, to the end."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, turns
from .helpers import PAIRS, stream, waiting

DEFAULT_LIMIT = 65536


@clause("streams.read.up-to-n")
@PAIRS
def test_read_returns_as_soon_as_there_is_anything_and_at_most_n(loop, run, make):
    async def main():
        async with stream(make) as (reader, _, theirs):
            task = await waiting(reader.read(4))
            theirs.sendall(b"ab")
            assert await task == b"ab"
            theirs.sendall(b"cdefgh")
            assert await reader.read(4) == b"cdef"
            assert await reader.read(4) == b"gh"

    run(main())


@clause("streams.read.to-the-end")
@PAIRS
@pytest.mark.parametrize("args", [(), (-1,), (-7,)])
def test_read_without_a_number_returns_all_up_to_the_end(loop, run, make, args):
    """More than the limit, too."""
    blob = pattern(1_000_003)

    def send(theirs):
        theirs.sendall(blob)
        theirs.shutdown(socket.SHUT_WR)

    async def main():
        async with stream(make) as (reader, _, theirs):
            sending = loop.create_task(aside(send, theirs))
            assert await reader.read(*args) == blob
            assert await reader.read(*args) == b""
            await sending

    run(main())


@clause("streams.read.nothing")
def test_reading_zero_bytes_returns_at_once(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            assert await reader.read(0) == b""
            assert await reader.readexactly(0) == b""
            theirs.sendall(b"x")
            assert await reader.read(1) == b"x"
            assert await reader.read(0) == b""

    run(main())


@clause("streams.read.at-the-end")
@PAIRS
def test_at_the_end_of_the_stream_reads_return_nothing(loop, run, make):
    async def main():
        async with stream(make) as (reader, writer, theirs):
            theirs.sendall(b"last")
            assert await reader.read(4) == b"last"
            task = await waiting(reader.read(100))
            theirs.shutdown(socket.SHUT_WR)
            assert await task == b""
            for _ in range(2):
                assert await reader.read(100) == b""
                assert await reader.readline() == b""
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(1)
            assert caught.value.partial == b""
            writer.write(b"still open")
            assert peers.recv_exactly(theirs, 10) == b"still open"

    run(main())


@clause("streams.reader.at-eof")
def test_at_eof_is_true_once_the_stream_ended_and_everything_was_read(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            assert not reader.at_eof()
            theirs.sendall(b"xy")
            assert await reader.read(1) == b"x"
            theirs.shutdown(socket.SHUT_WR)
            await turns(20)
            assert not reader.at_eof()
            assert await reader.read() == b"y"
            assert reader.at_eof()

    run(main())


@clause("streams.readline.lines")
@PAIRS
def test_readline_returns_line_by_line_however_they_arrive(loop, run, make):
    async def main():
        async with stream(make) as (reader, _, theirs):
            theirs.sendall(b"one\ntwo\n\nthr")
            assert await reader.readline() == b"one\n"
            assert await reader.readline() == b"two\n"
            assert await reader.readline() == b"\n"
            task = await waiting(reader.readline())
            theirs.sendall(b"e")
            await turns()
            assert not task.done()
            theirs.sendall(b"e\r\nrest")
            assert await task == b"three\r\n"
            theirs.shutdown(socket.SHUT_WR)
            assert await reader.readline() == b"rest"
            assert await reader.readline() == b""

    run(main())


@clause("streams.readline.too-long")
def test_a_line_over_the_limit_raises_and_is_dropped(loop, run):
    async def main():
        async with stream(limit=100) as (reader, _, theirs):
            theirs.sendall(b"x" * 150 + b"\n" + b"next\n" + b"y" * 100 + b"\n")
            await turns(20)
            with pytest.raises(ValueError):
                await reader.readline()
            assert await reader.readline() == b"next\n"
            assert await reader.readline() == b"y" * 100 + b"\n"
            theirs.sendall(b"z" * 150)
            with pytest.raises(ValueError):
                await reader.readline()  # no newline yet: what there is, is dropped
            theirs.sendall(b"end\n")
            assert await reader.readline() == b"end\n"

    run(main())


@clause("streams.iteration.lines")
def test_a_reader_is_an_iterator_of_lines(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            theirs.sendall(b"one\n\nthree")
            theirs.shutdown(socket.SHUT_WR)
            return [line async for line in reader]

    assert run(main()) == [b"one\n", b"\n", b"three"]


@clause("streams.readexactly.n")
@PAIRS
def test_readexactly_waits_for_all_of_it(loop, run, make):
    """Over the limit, too, where it has to resume reading."""
    blob = pattern(500_000)

    async def main():
        async with stream(make, limit=1000) as (reader, _, theirs):
            task = await waiting(reader.readexactly(6))
            theirs.sendall(b"abcde")
            await turns()
            assert not task.done()
            theirs.sendall(b"fgh")
            assert await task == b"abcdef"
            sending = loop.create_task(aside(theirs.sendall, blob))
            assert await reader.readexactly(2 + len(blob) - 5) == b"gh" + blob[:-5]
            assert await reader.readexactly(5) == blob[-5:]
            await sending

    run(main())


@clause("streams.readexactly.incomplete")
@PAIRS
def test_readexactly_raises_at_the_end_of_the_stream_with_what_there_was(loop, run, make):
    async def main():
        async with stream(make) as (reader, _, theirs):
            theirs.sendall(b"abc")
            task = await waiting(reader.readexactly(5))
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await task
            assert caught.value.partial == b"abc"
            assert caught.value.expected == 5
            assert isinstance(caught.value, EOFError)
            assert await reader.read() == b""

    run(main())


@clause("streams.readexactly.negative")
def test_readexactly_of_a_negative_number_raises(loop, run):
    async def main():
        async with stream() as (reader, _, _theirs):
            with pytest.raises(ValueError):
                await reader.readexactly(-1)

    run(main())


@clause("streams.readuntil.separator")
@PAIRS
def test_readuntil_returns_up_to_a_separator_that_arrives_in_pieces(loop, run, make):
    async def main():
        async with stream(make) as (reader, _, theirs):
            theirs.sendall(b"header\r\n\r")
            task = await waiting(reader.readuntil(b"\r\n\r\n"))
            theirs.sendall(b"\nbody")
            assert await task == b"header\r\n\r\n"
            theirs.sendall(b"\n")
            assert await reader.readuntil() == b"body\n"
            theirs.sendall(b"aab" * 2)
            assert await reader.readuntil(b"ab") == b"aab"
            assert await reader.readuntil(b"b") == b"aab"

    run(main())


@clause("streams.readuntil.incomplete")
def test_readuntil_raises_at_the_end_of_the_stream_with_what_there_was(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            theirs.sendall(b"data\r\n\r")
            task = await waiting(reader.readuntil(b"\r\n\r\n"))
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await task
            assert caught.value.partial == b"data\r\n\r"
            assert caught.value.expected is None
            assert reader.at_eof()

    run(main())


@clause("streams.readuntil.overrun")
@pytest.mark.parametrize("found", [True, False], ids=["separator-there", "no-separator"])
def test_readuntil_over_the_limit_raises_and_leaves_the_data(loop, run, found):
    data = b"x" * 150 + (b"\r\n" if found else b"")

    async def main():
        async with stream(limit=100) as (reader, _, theirs):
            theirs.sendall(data)
            await turns(20)
            for _ in range(2):
                with pytest.raises(asyncio.LimitOverrunError) as caught:
                    await reader.readuntil(b"\r\n")
            consumed = caught.value.consumed
            # All but what may be the beginning of a separator.
            assert consumed == (150 if found else 149)
            assert await reader.readexactly(consumed) == b"x" * consumed
            theirs.sendall(b"" if found else b"\r\n")
            assert await reader.readuntil(b"\r\n") == b"x" * (150 - consumed) + b"\r\n"

    run(main())


@clause("streams.readuntil.empty-separator")
def test_an_empty_separator_is_refused(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            theirs.sendall(b"x")
            with pytest.raises(ValueError):
                await reader.readuntil(b"")
            assert await reader.read(1) == b"x"

    run(main())


@clause("streams.readuntil.tuple")
def test_of_several_separators_the_shortest_result_is_returned(loop, run):
    if sys.version_info < (3, 13):
        pytest.skip("several separators came with 3.13")

    async def main():
        async with stream() as (reader, _, theirs):
            theirs.sendall(b"one;two\r\nthree\n")
            separators = (b"\r\n", b";", b"\n")
            parts = [await reader.readuntil(separators) for _ in range(3)]
            assert parts == [b"one;", b"two\r\n", b"three\n"]
            theirs.sendall(b"abcd")
            assert await reader.readuntil((b"abcd", b"bc")) == b"abc"
            with pytest.raises(ValueError):
                await reader.readuntil(())
            with pytest.raises(ValueError):
                await reader.readuntil((b"x", b""))
            assert await reader.read(9) == b"d"

    run(main())


@clause("streams.reader.one-at-a-time")
@pytest.mark.parametrize("method", ["read", "readline", "readexactly", "readuntil"])
def test_a_second_read_while_one_waits_is_refused(loop, run, method):
    args = {"readexactly": (4,), "read": (4,)}.get(method, ())

    async def main():
        async with stream() as (reader, _, theirs):
            task = await waiting(reader.readexactly(5))
            with pytest.raises(RuntimeError):
                await getattr(reader, method)(*args)
            theirs.sendall(b"data\n")
            assert await task == b"data\n"

    run(main())


READS = {
    "read": (lambda reader: reader.read(100), b"", b"line\n"),
    "read-all": (lambda reader: reader.read(), b"", b""),
    "readline": (lambda reader: reader.readline(), b"li", b"ne\n"),
    "readexactly": (lambda reader: reader.readexactly(5), b"li", b"ne\n"),
    "readuntil": (lambda reader: reader.readuntil(b"e\n"), b"lin", b"e\n"),
}


@clause("streams.cancel.loses-nothing")
@PAIRS
@pytest.mark.parametrize("method", [name for name in READS if name != "read-all"])
def test_a_read_that_is_cancelled_and_done_again_loses_no_byte(loop, run, make, method):
    read, first, rest = READS[method]

    async def main():
        async with stream(make) as (reader, _, theirs):
            for _ in range(3):
                theirs.sendall(first)
                for _ in range(3):
                    task = await waiting(read(reader))
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled()
                theirs.sendall(rest)
                assert await read(reader) == first + rest

    run(main())


@clause("streams.cancel.loses-nothing")
@pytest.mark.parametrize("method", [name for name in READS if name != "read-all"])
def test_a_read_that_is_cancelled_when_the_data_is_there_loses_no_byte(loop, run, method):
    """At any number of turns after the data arrived: either the read has it, or the next one gets it."""
    read, first, rest = READS[method]

    async def main():
        async with stream() as (reader, _, theirs):
            for pause in range(6):
                theirs.sendall(first)
                task = await waiting(read(reader))
                theirs.sendall(rest)
                await turns(pause)
                task.cancel()
                await asyncio.wait([task])
                if task.cancelled():
                    task = asyncio.ensure_future(read(reader))
                assert await task == first + rest

    run(main())


@clause("streams.cancel.timeout")
def test_a_read_that_timed_out_is_done_again(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            theirs.sendall(b"fir")
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.readexactly(8), 0.01)
            theirs.sendall(b"st")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reader.readexactly(8)
            theirs.sendall(b"one")
            assert await reader.readexactly(8) == b"firstone"

    run(main())


@clause("streams.limit.pauses")
@PAIRS
def test_over_twice_the_limit_reading_pauses_until_it_is_read(loop, run, make):
    blob = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main():
        async with stream(make, small=True, limit=1000) as (reader, writer, theirs):
            sending = loop.create_task(aside(theirs.sendall, blob))
            while writer.transport.is_reading():
                await asyncio.sleep(0)
            await turns(50)
            assert not writer.transport.is_reading()
            assert not sending.done()
            assert await reader.readexactly(len(blob)) == blob
            await sending
            assert writer.transport.is_reading()

    run(main())


@clause("streams.limit.default")
def test_the_limit_is_64_kib_and_what_open_connection_is_given(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            theirs.sendall(b"x" * DEFAULT_LIMIT + b"\n")
            assert len(await reader.readline()) == DEFAULT_LIMIT + 1
            sending = loop.create_task(aside(theirs.sendall, b"x" * (DEFAULT_LIMIT + 1) + b"\n"))
            with pytest.raises(ValueError):
                await reader.readline()
            await sending
        async with stream(limit=10) as (reader, _, theirs):
            theirs.sendall(b"x" * 10 + b"\n")
            assert len(await reader.readline()) == 11
            theirs.sendall(b"x" * 11 + b"\n")
            await turns(20)
            with pytest.raises(ValueError):
                await reader.readline()

    run(main())


@clause("streams.limit.positive")
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_not_positive_is_refused(loop, run, limit):
    async def main():
        ours, theirs = peers.pair()
        with ours, theirs, pytest.raises(ValueError):
            await asyncio.open_connection(sock=ours, limit=limit)

    run(main())


@clause("streams.reset.waiting-read")
@pytest.mark.parametrize("method", list(READS))
def test_a_waiting_read_raises_the_reset_and_so_does_every_later_one(loop, run, method):
    read, first, _ = READS[method]

    async def main():
        async with stream() as (reader, _, theirs):
            assert reader.exception() is None
            theirs.sendall(first)
            task = await waiting(read(reader))
            peers.reset(theirs)
            with pytest.raises(ConnectionResetError):
                await task
            with pytest.raises(ConnectionResetError):
                await read(reader)
            assert isinstance(reader.exception(), ConnectionResetError)

    run(main())


@clause("streams.reset.cancelled-read")
def test_a_cancelled_read_does_not_hide_the_reset(loop, run):
    async def main():
        async with stream() as (reader, _, theirs):
            task = await waiting(reader.read(10))
            task.cancel()
            peers.reset(theirs)
            await asyncio.wait([task])
            with pytest.raises(ConnectionResetError):
                await reader.read(10)

    run(main())


@clause("streams.reader.after-close")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_a_waiting_read_ends_when_the_stream_is_closed(loop, run, method):
    """What is read then is the end of the stream."""

    async def main():
        async with stream() as (reader, writer, _theirs):
            task = await waiting(reader.read(10))
            if method == "close":
                writer.close()
            else:
                writer.transport.abort()
            assert await task == b""
            assert reader.at_eof()

    run(main())
