"""What else a transport does before, during and after `loop.sendfile()`."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import sys

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, follows_grammar
from ..readers_writers.helpers import fill
from ..tls import certificates
from .helpers import LARGE, ByTransport, aside, blocked, drain, file_of, late_drain, pattern, sender, turns


@clause("sendfile.transport.closing")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_a_closing_transport_is_refused(loop, run, method):
    async def main(file):
        async with sender(ByTransport, loop) as (end, _):
            getattr(end.transport, method)()
            with pytest.raises(RuntimeError):
                await end.sendfile(file)
            await end.protocol.lost
            with pytest.raises(RuntimeError):
                await end.sendfile(file)
        assert file.tell() == 0

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.transport.unsupported")
def test_a_transport_of_another_kind_is_refused(loop, run):
    class Other(asyncio.Transport):
        def is_closing(self):
            return False

    with file_of(b"content") as file, pytest.raises(RuntimeError):
        run(loop.sendfile(Other(), file))


@clause("sendfile.transport.unsupported")
def test_the_transport_of_a_pipe_is_refused(loop, run):
    async def main(file, pipe):
        transport, protocol = await loop.connect_write_pipe(lambda: Recorder(loop), pipe)
        with pytest.raises(RuntimeError):
            await loop.sendfile(transport, file)
        transport.write(b"written")
        transport.close()
        await protocol.lost

    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb", 0) as pipe, file_of(b"content") as file:
        run(main(file, pipe))
        assert reader.read() == b"written"


@clause("sendfile.transport.after-eof")
def test_behind_the_end_of_the_stream_nothing_is_sent(loop, run, saw):
    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            await end.write(b"last")
            end.transport.write_eof()
            with pytest.raises((RuntimeError, OSError)) as caught:
                await end.sendfile(file)
            assert await aside(drain, theirs) == b"last"
            saw("sendfile.transport.after-eof", "OSError" if isinstance(caught.value, OSError) else "RuntimeError")

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.transport.no-write-within")
@pytest.mark.parametrize("method", ["write", "writelines"])
def test_what_is_written_meanwhile_is_refused_or_follows_the_file(loop, run, method, saw):
    content = b"x" * LARGE

    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            task = await blocked(end, file)
            try:
                getattr(end.transport, method)(b"meanwhile" if method == "write" else [b"mean", b"while"])
            except RuntimeError:
                expected = content
            else:
                expected = content + b"meanwhile"
            reading = loop.create_task(late_drain(theirs))
            assert await task == LARGE
            await end.close()
            assert await reading == expected
            refused = expected == content
            saw("sendfile.transport.no-write-within", "RuntimeError is raised" if refused else "it follows the file")

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.transport.one-at-a-time")
def test_a_second_sendfile_meanwhile_is_refused_or_follows_the_first(loop, run, saw):
    first, second = b"a" * LARGE, b"b" * 100_000

    async def main(file, other):
        async with sender(ByTransport, loop) as (end, theirs):
            task = await blocked(end, file)
            again = asyncio.ensure_future(end.sendfile(other))
            await turns(20)
            reading = loop.create_task(late_drain(theirs))
            assert await task == len(first)
            results = await asyncio.gather(again, return_exceptions=True)
            await end.write(b"tail")
            await end.close()
            got = await reading
        refused = isinstance(results[0], Exception)
        assert got == first + (b"" if refused else second) + b"tail"
        saw("sendfile.transport.one-at-a-time", "an exception is raised" if refused else "it follows the first")

    with file_of(first) as file, file_of(second) as other:
        run(main(file, other))


@clause("sendfile.transport.eof-meanwhile")
def test_write_eof_meanwhile_ends_the_stream_behind_the_file(loop, run, saw):
    content = pattern(LARGE)

    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            task = await blocked(end, file)
            try:
                end.transport.write_eof()
            except RuntimeError:
                end.transport.close()
                saw("sendfile.transport.eof-meanwhile", "RuntimeError is raised")
                return
            assert await aside(peers.recv_all, theirs) == content
            assert await task == LARGE
            saw("sendfile.transport.eof-meanwhile", "the stream ends behind the file")

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.transport.close-meanwhile")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_a_transport_that_is_closed_meanwhile_ends_it(loop, run, method, saw):
    """It raises, or close() waits for the whole file."""
    content = pattern(LARGE)

    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            task = await blocked(end, file)
            getattr(end.transport, method)()
            reading = loop.create_task(late_drain(theirs))
            done, _ = await asyncio.wait([task], timeout=3)
            assert done, "it waits for ever"
            if task.exception() is None:
                assert method == "close" and task.result() == LARGE
                saw("sendfile.transport.close-meanwhile", "close() waits for the file")
            else:
                saw("sendfile.transport.close-meanwhile", "an exception is raised")
            await end.protocol.lost
            got = await reading
            assert got == content[: len(got)]

    with file_of(content) as file:
        run(main(file))


@clause("sendfile.transport.protocol-back")
@pytest.mark.parametrize("native", [True, False], ids=["file", "file-like"])
def test_the_protocol_gets_what_the_peer_sent_meanwhile(loop, run, native):
    content = bytes(range(256)) * (LARGE // 256)  # equal blocks: whether each arrives is for another test to say

    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            task = await blocked(end, file)
            theirs.sendall(b"meanwhile")
            await turns(20)
            assert await aside(peers.recv_exactly, theirs, LARGE) == content
            assert await task == LARGE
            assert end.transport.get_protocol() is end.protocol
            assert end.transport.is_reading()
            await end.protocol.received(9)
            theirs.sendall(b"after")
            await end.protocol.received(14)
            assert end.protocol.data == b"meanwhileafter"
            theirs.close()
            await end.protocol.called("connection_lost")
            assert follows_grammar(end.protocol.calls)

    if native:
        with file_of(content) as file:
            run(main(file))
    else:
        run(main(io.BytesIO(content)))


@clause("sendfile.transport.stays-paused")
@pytest.mark.parametrize("native", [True, False], ids=["file", "file-like"])
def test_a_transport_whose_reading_is_paused_stays_paused(loop, run, native):
    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            end.transport.pause_reading()
            theirs.sendall(b"data")
            assert await end.sendfile(file) == 7
            await turns(20)
            assert not end.transport.is_reading()
            assert not end.protocol.data
            end.transport.resume_reading()
            await end.protocol.received(4)

    with file_of(b"content") as file:
        run(main(file if native else io.BytesIO(b"content")))


@clause("sendfile.transport.flow-control")
def test_a_protocol_is_told_that_what_sendfile_left_behind_pauses_it(loop, run):
    """A resume_writing() that no pause_writing() went before breaks asyncio's own streams."""

    async def main():
        async with sender(ByTransport, loop) as (end, theirs):
            filled = fill(end.sock)
            end.transport.set_write_buffer_limits(high=1000)
            sending = end.sendfile(io.BytesIO(b"x" * 10_000))
            if sys.version_info < (3, 15):
                assert await sending == 10_000
                assert await aside(peers.recv_exactly, theirs, filled + 10_000)
            else:  # the fallback drains after its last write too, and so waits for a peer that reads
                sent, _ = await asyncio.gather(sending, aside(peers.recv_exactly, theirs, filled + 10_000))
                assert sent == 10_000
            await end.write(b"next")
            assert await aside(peers.recv_exactly, theirs, 4) == b"next"
            await end.close()
            assert follows_grammar(end.protocol.calls), end.protocol.calls

    run(main())


@clause("sendfile.fallback.slow-peer")
def test_what_is_no_regular_file_arrives_as_it_is_at_a_slow_peer(loop, run):
    """The next block is read while the one before is still in the transport's buffer."""
    content = pattern(1_000_000)

    async def main():
        async with sender(ByTransport, loop) as (end, theirs):
            end.transport.set_write_buffer_limits(high=100_000)
            task = asyncio.ensure_future(end.sendfile(io.BytesIO(content)))
            while end.transport.get_write_buffer_size() <= 100_000:
                await asyncio.sleep(0)
            assert await aside(peers.recv_exactly, theirs, len(content)) == content
            assert await task == len(content)

    run(main())


@clause("sendfile.transport.lost-while-draining")
def test_it_raises_when_the_connection_is_lost_before_the_file_has_its_turn(loop, run, errors):
    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            await end.write(bytes(LARGE))
            task = await blocked(end, file)
            peers.reset(theirs)
            with pytest.raises(ConnectionError):
                await task
            await end.protocol.lost
        assert file.tell() == 0

    with file_of(b"content") as file:
        run(main(file))
    errors.take()


@clause("sendfile.transport.lost-quietly")
def test_of_a_lost_connection_nothing_reaches_the_exception_handler(loop, run):
    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            await end.write(bytes(LARGE))
            task = await blocked(end, file)
            peers.reset(theirs)
            await asyncio.wait([task])
            assert isinstance(await end.protocol.lost, ConnectionError)
            assert isinstance(task.exception(), ConnectionError)
            await turns()

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.cancel.while-draining")
def test_cancelled_before_the_file_had_its_turn_the_transport_works_on(loop, run):
    before = pattern(LARGE)

    async def main(file):
        async with sender(ByTransport, loop) as (end, theirs):
            await end.write(before)
            task = await blocked(end, file)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            reading = loop.create_task(aside(peers.recv_exactly, theirs, LARGE + 4))
            await end.write(b"next")
            assert await reading == before + b"next"
            theirs.sendall(b"data")
            await end.protocol.received(4)
            assert await end.sendfile(file) == 7
            assert await aside(peers.recv_exactly, theirs, 7) == b"content"

    with file_of(b"content") as file:
        run(main(file))


@clause("sendfile.transport.server")
def test_a_server_answers_with_files(loop, run):
    content = pattern(300_000)

    async def serve(reader, writer):
        await reader.readline()
        with file_of(content) as file:
            writer.write(b"header")
            await loop.sendfile(writer.transport, file)
            writer.write(b"trailer")
        writer.close()
        await writer.wait_closed()

    def ask(addr):
        with socket.create_connection(addr, timeout=peers.TIMEOUT) as sock:
            sock.sendall(b"GET\n")
            return peers.recv_all(sock)

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            addr = server.sockets[0].getsockname()
            return await asyncio.gather(*(aside(ask, addr) for _ in range(5)))

    assert run(main()) == [b"header" + content + b"trailer"] * 5


@clause("sendfile.transport.tls")
@pytest.mark.parametrize("fallback", [True, False])
def test_over_tls_the_file_is_read_and_sent_unless_that_is_forbidden(loop, run, fallback):
    server_context, client_context = certificates.server(), certificates.client()
    content = pattern(400_000)
    got = []

    def receive(conn):
        with server_context.wrap_socket(conn, server_side=True, suppress_ragged_eofs=True) as tls:
            got.append(peers.recv_all(tls))

    async def main(addr, file):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), "localhost", addr[1], ssl=client_context, family=socket.AF_INET
        )
        transport.write(b"before")
        try:
            if fallback:
                assert await loop.sendfile(transport, file, 1000) == len(content) - 1000
                assert file.tell() == len(content)
            else:
                with pytest.raises(RuntimeError):
                    await loop.sendfile(transport, file, 1000, fallback=False)
            transport.write(b"after")
        finally:
            transport.close()
            await protocol.lost

    with file_of(content) as file, peers.serve(receive) as addr:
        run(main(addr, file))
    assert got == [b"before" + (content[1000:] if fallback else b"") + b"after"]
