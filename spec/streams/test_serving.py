"""`asyncio.start_server()` and `asyncio.open_connection()`, the same over Unix sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import pattern, pieces
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, turns
from ..tls import certificates
from .helpers import Tcp, Unix, connect

LOCALHOST = "127.0.0.1"


@pytest.fixture(params=[Tcp, Unix], ids=["tcp", "unix"])
def net(request, tmp_path):
    """A server's address and its clients, of each kind."""
    return request.param(tmp_path)


def ask(addr, data=b"ping\n"):
    """What the server answers, to the end of the stream."""
    with connect(addr) as sock:
        if data:
            sock.sendall(data)
        return drain(sock)


async def answer(reader, writer):
    writer.write((await reader.readline()).upper())
    writer.close()
    await writer.wait_closed()


@clause("streams.server.coroutine")
def test_a_coroutine_function_serves_each_connection_in_a_task(loop, run, net):
    tasks = []

    async def serve(reader, writer):
        tasks.append(asyncio.current_task())
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        await answer(reader, writer)

    async def main():
        async with await net.serve(serve):
            assert await aside(ask, net.addr, b"one\n") == b"ONE\n"
            assert await aside(ask, net.addr, b"two\n") == b"TWO\n"
        assert len(set(tasks)) == 2
        assert asyncio.current_task() not in tasks

    run(main())


@clause("streams.server.plain-callback")
def test_a_plain_function_is_called_for_each_connection(loop, run, net):
    streams = []

    def serve(reader, writer):
        streams.append((reader, writer))
        writer.write(b"hello")
        writer.close()

    async def main():
        async with await net.serve(serve):
            assert await aside(ask, net.addr, b"") == b"hello"
        assert len(streams) == 1
        await streams[0][1].wait_closed()

    run(main())


@clause("streams.server.at-once")
def test_many_connections_are_served_at_once(loop, run, net):
    count = 30
    together = asyncio.Barrier(count)

    async def serve(reader, writer):
        line = await reader.readline()
        await together.wait()
        writer.write(line)
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await net.serve(serve):
            lines = [b"%d\n" % n for n in range(count)]
            assert await asyncio.gather(*(aside(ask, net.addr, line) for line in lines)) == lines

    run(main())


@clause("streams.server.error-reported")
def test_an_exception_of_the_coroutine_is_reported_and_the_connection_closed(loop, run, net, errors):
    transports = []

    async def serve(reader, writer):
        transports.append(writer.transport)
        await reader.readline()
        raise ZeroDivisionError

    async def main():
        async with await net.serve(serve):
            assert await aside(ask, net.addr) == b""
            await turns()

    run(main())
    context = errors.only()
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"]
    assert [context["transport"]] == transports


@clause("streams.server.plain-error-reported")
def test_an_exception_of_a_plain_function_is_reported_and_the_server_serves_on(loop, run, net, errors):
    writers = []

    def serve(_reader, writer):
        writers.append(writer)
        if len(writers) == 1:
            raise ZeroDivisionError
        writer.write(b"served")
        writer.close()

    async def main():
        async with await net.serve(serve):
            with connect(net.addr):
                while not errors:
                    await asyncio.sleep(0)
                assert await aside(ask, net.addr, b"") == b"served"
            writers[0].close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    run(main())
    assert isinstance(errors.only()["exception"], ZeroDivisionError)


@clause("streams.server.cancelled")
def test_a_connection_whose_task_is_cancelled_is_closed_without_a_report(loop, run, net):
    if sys.version_info < (3, 13):
        pytest.skip("before 3.13 the connection stayed open")
    tasks = []

    async def serve(reader, _writer):
        tasks.append(asyncio.current_task())
        await reader.read()

    async def main():
        async with await net.serve(serve):
            asking = loop.create_task(aside(ask, net.addr, b""))
            while not tasks:
                await asyncio.sleep(0)
            tasks[0].cancel()
            assert await asking == b""

    run(main())


@clause("streams.server.limit")
def test_the_limit_of_the_server_is_that_of_its_readers(loop, run, net):
    async def serve(reader, writer):
        try:
            await reader.readline()
        except ValueError:
            writer.write(b"too long")
        else:
            writer.write(b"fine")
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await net.serve(serve, limit=20):
            assert await aside(ask, net.addr, b"x" * 20 + b"\n") == b"fine"
            assert await aside(ask, net.addr, b"x" * 21 + b"\n") == b"too long"

    run(main())


@clause("streams.server.later")
def test_a_server_that_is_not_started_serves_once_it_is(loop, run, net):
    async def main():
        server = await net.serve(answer, start_serving=False)
        assert not server.is_serving()
        async with server:
            await server.start_serving()
            assert server.is_serving()
            assert await aside(ask, net.addr) == b"PING\n"

    run(main())


@clause("streams.server.close-keeps-connections")
def test_a_closed_server_refuses_and_its_connections_go_on(loop, run, net):
    served = asyncio.Event()

    async def serve(reader, writer):
        served.set()
        await answer(reader, writer)

    async def main():
        server = await net.serve(serve)
        with connect(net.addr) as sock:
            await served.wait()
            server.close()
            with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                connect(net.addr)
            sock.sendall(b"ping\n")
            assert await aside(drain, sock) == b"PING\n"
            await server.wait_closed()

    run(main())


@clause("streams.connect.arguments")
def test_open_connection_takes_the_arguments_of_create_connection(loop, run):
    async def main(addr):
        port = peers.free_port()
        reader, writer = await asyncio.open_connection(
            *addr, family=socket.AF_INET, local_addr=(LOCALHOST, port), limit=100
        )
        assert writer.get_extra_info("sockname") == (LOCALHOST, port)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        with socket.socket() as sock, pytest.raises(ValueError):
            await asyncio.open_connection(*addr, sock=sock)
        with pytest.raises(TypeError):
            await asyncio.open_connection(*addr, no_such_argument=1)

    with peers.serve(lambda conn: conn.sendall(b"hello")) as addr:
        run(main(addr))


@clause("streams.connect.refused")
def test_open_connection_raises_where_nobody_listens(loop, run):
    with pytest.raises(ConnectionRefusedError):
        run(asyncio.open_connection(LOCALHOST, peers.closed_port()))


@clause("streams.connect.cancelled")
def test_a_cancelled_open_connection_leaves_no_connection(loop, run):
    """Cancelled after any number of turns, the peer sees the end of the stream, where it saw a connection at all."""

    async def main(addr):
        for pause in range(8):
            task = asyncio.ensure_future(asyncio.open_connection(*addr))
            await turns(pause)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                _, writer = task.result()
                writer.close()
                await writer.wait_closed()
            await turns()
            del task
            gc.collect()

    with peers.serve(peers.recv_all) as addr:
        run(main(addr))


@clause("streams.connect.many")
def test_client_and_server_talk_in_one_loop(loop, run, net):
    blob = pattern(300_000)

    async def serve(reader, writer):
        while data := await reader.read(5000):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        writer.close()
        await writer.wait_closed()

    async def talk():
        reader, writer = await net.open()

        async def send():
            for at in range(0, len(blob), 7001):
                writer.write(blob[at : at + 7001])
                await writer.drain()
            writer.write_eof()

        sending = loop.create_task(send())
        got = await reader.read()
        await sending
        writer.close()
        await writer.wait_closed()
        return got == blob

    async def main():
        async with await net.serve(serve):
            assert all(await asyncio.gather(*(talk() for _ in range(10))))

    run(main())


@clause("streams.unix.server-and-client")
def test_streams_over_unix_sockets(loop, run, tmp_path):
    path = str(tmp_path / "s")

    async def main():
        async with await asyncio.start_unix_server(answer, path, limit=50):
            for _ in range(3):
                reader, writer = await asyncio.open_unix_connection(path, limit=10)
                writer.write(b"ping\n")
                assert await reader.readline() == b"PING\n"
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
            with pytest.raises(FileNotFoundError):
                await asyncio.open_unix_connection(path + "-not-there")

    run(main())


@clause("streams.tls.start-tls")
def test_start_tls_upgrades_a_stream(loop, run):
    server_context, client_context = certificates.server(), certificates.client()

    async def serve(reader, writer):
        assert await reader.readline() == b"plain\n"
        writer.write(b"go\n")
        await writer.drain()
        await writer.start_tls(server_context)
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def main():
        async with await asyncio.start_server(serve, LOCALHOST, 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"plain\n")
            assert await reader.readline() == b"go\n"
            await writer.start_tls(client_context, server_hostname="localhost")
            assert writer.get_extra_info("cipher") is not None
            writer.write(b"secret\n")
            assert await reader.readline() == b"SECRET\n"
            writer.close()
            await writer.wait_closed()

    run(main())


@clause("streams.tls.back-pressure")
@pytest.mark.parametrize("reads", ["server", "client"])
def test_after_start_tls_a_stream_that_nobody_reads_stops_the_peer(loop, run, reads):
    """A reader that still paused the transport of before would have all of it decrypted and kept."""
    server_context, client_context = certificates.server(), certificates.client()
    blob = pattern(2 * MORE_THAN_THE_KERNEL_TAKES)

    async def send(writer):
        for piece in pieces(blob, 65536):
            writer.write(piece)
            await writer.drain()

    async def main():
        accepted = loop.create_future()

        async def serve(reader, writer):
            await reader.readexactly(1)
            writer.write(b"!")  # so that nothing of the handshake is there before start_tls()
            await writer.start_tls(server_context)
            accepted.set_result((reader, writer))

        async with await asyncio.start_server(serve, LOCALHOST, 0) as server:
            client = await asyncio.open_connection(*server.sockets[0].getsockname())
            client[1].write(b"?")
            assert await client[0].readexactly(1) == b"!"
            await client[1].start_tls(client_context, server_hostname="localhost")
            ends = {"server": await accepted, "client": client}
            reader, _ = ends.pop(reads)
            ((_, writer),) = ends.values()
            sending = loop.create_task(send(writer))
            await turns(1000)
            stopped = not sending.done()
            assert await reader.readexactly(len(blob)) == blob
            await sending
            for _, end in (client, await accepted):
                end.close()
            for _, end in (client, await accepted):
                await end.wait_closed()
            return stopped

    assert run(main())
