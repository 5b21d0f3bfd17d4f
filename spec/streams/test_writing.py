"""`StreamWriter`: writing, draining, closing."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import warnings

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, turns
from .helpers import PAIRS, stream, waiting

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@clause("streams.write.order")
@PAIRS
def test_what_is_written_arrives_in_order(loop, run, make):
    parts = [bytes([n]) * (n * 37) for n in range(250)]

    async def main():
        async with stream(make, small=True) as (_, writer, theirs):
            reading = loop.create_task(aside(drain, theirs))
            for n, part in enumerate(parts):
                match n % 4:
                    case 0:
                        writer.write(bytearray(part))
                    case 1:
                        writer.write(memoryview(part))
                    case 2:
                        writer.writelines(part[at : at + 100] for at in range(0, len(part), 100))
                    case _:
                        writer.write(part)
                if n % 10 == 0:
                    await writer.drain()
            writer.write(b"")
            writer.writelines([])
            writer.close()
            await writer.wait_closed()
            assert await reading == b"".join(parts)

    run(main())


@clause("streams.write.at-once")
@PAIRS
def test_a_write_is_sent_without_a_drain(loop, run, make):
    async def main():
        async with stream(make) as (_, writer, theirs):
            writer.write(b"no drain")
            await asyncio.sleep(0)
            assert peers.recv_exactly(theirs, 8) == b"no drain"

    run(main())


@clause("streams.eof.half")
@PAIRS
def test_write_eof_ends_the_writing_half_behind_the_data_and_reading_goes_on(loop, run, make):
    async def main():
        async with stream(make, small=True) as (reader, writer, theirs):
            assert writer.can_write_eof() is True
            writer.write(BLOB)
            writer.write_eof()
            assert not writer.is_closing()
            assert await aside(peers.recv_all, theirs) == BLOB
            theirs.sendall(b"answer")
            theirs.shutdown(socket.SHUT_WR)
            assert await reader.read() == b"answer"

    run(main())


@clause("streams.eof.no-more-writes")
def test_after_write_eof_a_write_raises(loop, run):
    async def main():
        async with stream() as (_, writer, theirs):
            writer.write(b"x")
            writer.write_eof()
            with pytest.raises(RuntimeError):
                writer.write(b"y")
            with pytest.raises(RuntimeError):
                writer.writelines([b"y"])
            writer.write_eof()
            assert await aside(peers.recv_all, theirs) == b"x"

    run(main())


@clause("streams.close.flushes")
@PAIRS
def test_wait_closed_returns_when_all_was_sent_and_the_socket_is_closed(loop, run, make):
    async def main():
        async with stream(make, small=True) as (_, writer, theirs):
            sock = writer.get_extra_info("socket")
            writer.write(BLOB)
            assert not writer.is_closing()
            writer.close()
            assert writer.is_closing()
            task = await waiting(writer.wait_closed())
            assert sock.fileno() != -1
            reading = loop.create_task(aside(drain, theirs))
            await task
            await turns()
            assert sock.fileno() == -1
            assert await reading == BLOB
            assert writer.is_closing()

    run(main())


@clause("streams.close.waiters")
def test_any_number_of_tasks_wait_for_the_end_and_later_ones_do_not_wait(loop, run):
    async def main():
        async with stream() as (_, writer, theirs):
            tasks = [await waiting(writer.wait_closed()) for _ in range(3)]
            writer.close()
            writer.close()
            assert await asyncio.gather(*tasks) == [None] * 3
            await writer.wait_closed()
            assert peers.recv_all(theirs) == b""

    run(main())


@clause("streams.close.by-peer")
@PAIRS
def test_a_stream_that_the_peer_ended_is_open_until_it_is_closed(loop, run, make):
    async def main():
        async with stream(make) as (reader, writer, theirs):
            theirs.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            await turns()
            assert not writer.is_closing()
            writer.write(b"after the end")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert peers.recv_all(theirs) == b"after the end"

    run(main())


@clause("streams.close.error")
def test_wait_closed_raises_what_ended_the_connection(loop, run):
    async def main():
        async with stream() as (reader, writer, theirs):
            task = await waiting(writer.wait_closed())
            peers.reset(theirs)
            with pytest.raises(ConnectionResetError):
                await task
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()
            assert writer.is_closing()
            assert isinstance(reader.exception(), ConnectionResetError)

    run(main())


@clause("streams.drain.no-pressure")
def test_drain_without_pressure_does_not_wait(loop, run):
    """Not even for another callback."""

    async def main():
        async with stream() as (_, writer, theirs):
            seen = []
            loop.call_soon(seen.append, "another callback")
            await writer.drain()
            writer.write(b"x" * 1000)
            await writer.drain()
            assert not seen
            assert peers.recv_exactly(theirs, 1000)

    run(main())


@clause("streams.drain.waits")
@PAIRS
def test_drain_waits_down_to_the_low_mark(loop, run, make):
    async def main():
        async with stream(make, small=True) as (_, writer, theirs):
            low, high = writer.transport.get_write_buffer_limits()
            assert low < high
            while writer.transport.get_write_buffer_size() <= high:
                writer.write(bytes(1000))
            task = await waiting(writer.drain())
            await turns(50)
            assert not task.done()
            reading = loop.create_task(aside(drain, theirs))
            await task
            assert writer.transport.get_write_buffer_size() <= low
            writer.close()
            await writer.wait_closed()
            await reading

    run(main())


@clause("streams.drain.several")
@PAIRS
def test_several_tasks_drain_at_once(loop, run, make):
    """A cancelled one does not wake or hold up the others."""

    async def main():
        async with stream(make, small=True) as (_, writer, theirs):
            writer.write(BLOB)
            tasks = [await waiting(writer.drain()) for _ in range(4)]
            tasks[0].cancel()
            await turns(20)
            assert [task.done() for task in tasks] == [True, False, False, False]
            reading = loop.create_task(aside(drain, theirs))
            assert await asyncio.gather(*tasks[1:]) == [None] * 3
            writer.close()
            await writer.wait_closed()
            assert await reading == BLOB

    run(main())


@clause("streams.drain.lost")
def test_tasks_that_drain_get_the_error_of_a_lost_connection(loop, run):
    async def main():
        async with stream(small=True) as (_, writer, theirs):
            writer.write(BLOB)
            tasks = [await waiting(writer.drain()) for _ in range(3)]
            peers.reset(theirs)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, ConnectionError) for result in results), results
            with pytest.raises(ConnectionError):
                await writer.drain()

    run(main())


@clause("streams.drain.lost")
def test_drain_raises_after_the_connection_was_closed(loop, run):
    async def main():
        async with stream() as (_, writer, _theirs):
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    run(main())


@clause("streams.drain.ends-a-loop")
def test_writing_and_draining_to_a_peer_that_has_gone_ends(loop, run):
    """Also where no drain ever has to wait: each gives the loop the time to notice."""

    async def main():
        async with stream() as (_, writer, theirs):
            peers.reset(theirs)
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0)

    run(main())


@clause("streams.drain.ends-a-loop")
def test_writing_and_draining_after_close_ends_without_another_await(loop, run):
    async def main():
        async with stream() as (_, writer, _theirs):
            writer.close()
            with pytest.raises(ConnectionResetError):
                for _ in range(100):
                    writer.write(b"x")
                    await writer.drain()

    run(main())


@clause("streams.drain.aborted")
def test_an_aborted_stream_wakes_those_who_drain(loop, run):
    async def main():
        async with stream(small=True) as (_, writer, _theirs):
            writer.write(BLOB)
            tasks = [await waiting(writer.drain()) for _ in range(2)]
            writer.transport.abort()
            assert len((await asyncio.wait(tasks, timeout=5))[0]) == 2
            for task in tasks:
                task.exception()
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    run(main())


@clause("streams.drain.reads-error")
def test_drain_raises_the_exception_of_the_reader(loop, run):
    async def main():
        async with stream() as (reader, writer, _theirs):
            reader.set_exception(ZeroDivisionError())
            with pytest.raises(ZeroDivisionError):
                await writer.drain()

    run(main())


@clause("streams.writer.extra-info")
def test_the_writer_tells_of_its_socket(loop, run):
    async def main():
        async with stream() as (_, writer, theirs):
            assert writer.get_extra_info("peername") == theirs.getsockname()
            assert writer.get_extra_info("sockname") == theirs.getpeername()
            sock = writer.get_extra_info("socket")
            assert sock.getpeername() == theirs.getsockname()
            assert writer.get_extra_info("no such thing") is None
            assert writer.get_extra_info("no such thing", "default") == "default"
            assert writer.transport.get_extra_info("sockname") == theirs.getpeername()

    run(main())


@clause("streams.writer.unclosed")
def test_a_writer_that_nobody_closed_warns_and_closes(loop, run):
    if sys.version_info < (3, 13):
        pytest.skip("StreamWriter.__del__ warns from 3.13 on")

    async def main():
        ours, theirs = peers.pair()
        with theirs, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            reader, writer = await asyncio.open_connection(sock=ours)
            lost = writer._protocol._get_close_waiter(writer)
            del reader, writer
            gc.collect()
            await lost
            assert await aside(peers.recv_all, theirs) == b""
        assert [w for w in caught if issubclass(w.category, ResourceWarning) and "StreamWriter" in str(w.message)]

    run(main())


@clause("streams.writer.closed-quietly")
def test_a_closed_writer_goes_quietly(loop, run):
    async def main():
        ours, theirs = peers.pair()
        with theirs, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            reader, writer = await asyncio.open_connection(sock=ours)
            writer.close()
            await writer.wait_closed()
            del reader, writer
            gc.collect()
            await turns()
            gc.collect()
        assert not [w for w in caught if issubclass(w.category, ResourceWarning)]

    run(main())
