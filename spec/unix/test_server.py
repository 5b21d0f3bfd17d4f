"""create_unix_server(): addresses, files that are in the way, refusals, serving, and what is left afterwards."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pathlib
import socket
import stat
import sys
from contextlib import ExitStack

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import aside, drain, turns
from ..tls import certificates
from .makers import Echo, abstract, dial, exchange, exists, folder, put

KINDS = {"str": str, "bytes": os.fsencode, "PathLike": pathlib.Path}


async def stopped(server):
    server.close()
    await server.wait_closed()


@clause("unix.server.path-kinds")
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_listens_on_a_path_given_as_str_bytes_or_path_like(loop, run, kind):
    async def main(path):
        server = await loop.create_unix_server(Echo, KINDS[kind](path))
        mode = os.stat(path).st_mode
        got = await aside(exchange, path)
        await stopped(server)
        return stat.S_ISSOCK(mode), got

    with folder() as path:
        assert run(main(path)) == (True, b"ping")


@clause("unix.server.abstract")
@pytest.mark.parametrize("kind", ["str", "bytes"])
def test_a_server_listens_on_an_abstract_address(loop, run, kind):
    address = abstract("server")

    async def main():
        server = await loop.create_unix_server(Echo, KINDS[kind](address))
        got = await aside(exchange, address)
        await stopped(server)
        return got

    assert run(main()) == b"ping"
    with pytest.raises(ConnectionRefusedError):
        dial(address)


@clause("unix.server.stale-socket")
def test_a_socket_file_that_nobody_listens_on_is_replaced(loop, run):
    async def main(path):
        server = await loop.create_unix_server(Echo, path)
        got = await aside(exchange, path)
        await stopped(server)
        return got

    with folder() as path:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert run(main(path)) == b"ping"


@clause("unix.server.file-in-the-way")
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_another_file_at_the_path_is_left_alone_and_raises_os_error(loop, run, kind):
    with folder() as path:
        if kind == "file":
            put(path, "precious")
        else:
            os.mkdir(path)
        with pytest.raises(OSError, match=r"in use") as caught:
            run(loop.create_unix_server(Echo, path))
        assert path in str(caught.value)
        assert os.path.isdir(path) if kind == "directory" else pathlib.Path(path).read_text() == "precious"


@clause("unix.server.errors")
def test_a_path_in_a_directory_that_is_not_there_raises_file_not_found(loop, run):
    with folder() as path, pytest.raises(FileNotFoundError):
        run(loop.create_unix_server(Echo, os.path.join(path, "below")))


@clause("unix.server.errors")
def test_a_path_longer_than_an_address_has_room_for_raises_os_error(loop, run):
    with folder("x" * 200) as path, pytest.raises(OSError, match="too long"):
        run(loop.create_unix_server(Echo, path))


@clause("unix.server.arguments")
@pytest.mark.parametrize(
    ("path", "family", "kind"),
    [
        (None, None, None),
        ("here", socket.AF_UNIX, socket.SOCK_STREAM),
        (None, socket.AF_INET, socket.SOCK_STREAM),
        (None, socket.AF_UNIX, socket.SOCK_DGRAM),
    ],
    ids=["neither path nor sock", "both path and sock", "a TCP socket", "a datagram socket"],
)
def test_a_path_or_a_unix_stream_socket_is_needed_and_not_both(loop, run, path, family, kind):
    sock = None if family is None else socket.socket(family, kind)
    with pytest.raises(ValueError):
        run(loop.create_unix_server(Echo, path, sock=sock))
    assert not exists("here")
    if sock is not None:
        sock.close()


@clause("unix.server.ssl-arguments")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"ssl": True}, TypeError),
        ({"ssl": False}, TypeError),
        ({"ssl_handshake_timeout": 1.0}, ValueError),
        ({"ssl_shutdown_timeout": 1.0}, ValueError),
    ],
    ids=str,
)
def test_arguments_about_tls_that_do_not_fit_are_refused(loop, run, arguments, error):
    with folder() as path, pytest.raises(error):
        run(loop.create_unix_server(Echo, path, **arguments))


@clause("unix.server.sock")
@pytest.mark.parametrize("listening", [True, False])
def test_a_bound_socket_is_listened_on(loop, run, listening):
    async def main(sock, path):
        server = await loop.create_unix_server(Echo, sock=sock)
        got = await aside(exchange, path)
        timeout = sock.gettimeout()
        await stopped(server)
        return got, timeout, sock.fileno()

    with folder() as path, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        if listening:
            sock.listen()
        assert run(main(sock, path)) == (b"ping", 0.0, -1)


@clause("unix.server.sockets")
def test_a_server_tells_its_socket(loop, run):
    async def main(path):
        server = await loop.create_unix_server(Echo, path)
        [sock] = server.sockets
        facts = (sock.family, sock.getsockname(), server.is_serving(), server.get_loop() is loop)
        await stopped(server)
        return facts, server.sockets, server.is_serving()

    with folder() as path:
        facts, sockets, serving = run(main(path))
    assert facts == (socket.AF_UNIX, path, True, True)
    assert (list(sockets), serving) == ([], False)


@clause("unix.server.start-serving")
def test_a_server_that_is_not_to_serve_yet_accepts_nobody(loop, run):
    async def main(path):
        server = await loop.create_unix_server(Echo, path, start_serving=False)
        before = server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            dial(path)
        await server.start_serving()
        got = await aside(exchange, path)
        await stopped(server)
        return before, got

    with folder() as path:
        assert run(main(path)) == (False, b"ping")


@clause("unix.server.many")
def test_many_clients_are_served_at_once(loop, run):
    def talk(path):
        socks = [dial(path) for _ in range(100)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%3d" % number)
        got = [peers.recv_exactly(sock, 3) for sock in reversed(socks)]
        for sock in socks:
            sock.close()
        return got

    async def main(path):
        server = await loop.create_unix_server(Echo, path, backlog=128)
        got = await aside(talk, path)
        await stopped(server)
        return got

    with folder() as path:
        assert run(main(path)) == [b"%3d" % number for number in reversed(range(100))]


@clause("unix.server.close-stops")
def test_a_closed_server_accepts_nobody_and_leaves_its_connections_open(loop, run):
    async def main(path):
        protocols = []

        def factory():
            protocols.append(Recorder(loop))
            return protocols[-1]

        server = await loop.create_unix_server(factory, path)
        peer = dial(path)
        while not protocols or not protocols[0].calls:
            await asyncio.sleep(0)
        server.close()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            dial(path)
        protocols[0].transport.write(b"still here")
        got = await aside(peer.recv, 100)
        protocols[0].transport.close()
        await protocols[0].lost
        peer.close()
        return got

    with folder() as path:
        assert run(main(path)) == b"still here"


@clause("unix.server.factory-raises")
def test_a_factory_that_raises_costs_that_connection_only(loop, run, errors):
    class Boom(Exception):
        pass

    def factory(calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 1:
            raise Boom
        return Echo()

    async def main(path):
        server = await loop.create_unix_server(factory, path)
        with dial(path) as first:
            ended = await aside(drain, first)
        got = await aside(exchange, path)
        await stopped(server)
        return ended, got

    with folder() as path:
        assert run(main(path)) == (b"", b"ping")
    for context in errors.take():  # in debug mode, or always: left open
        assert isinstance(context["exception"], Boom)


@clause("unix.server.cleanup")
def test_the_socket_file_goes_when_the_server_closes(loop, run):
    async def main(path):
        server = await loop.create_unix_server(Echo, path)
        there = exists(path)
        await stopped(server)
        return there, exists(path)

    with folder() as path:
        assert run(main(path)) == (True, False)


@clause("unix.server.cleanup")
@pytest.mark.parametrize("given", ["path", "sock"])
def test_the_socket_file_goes_however_the_server_came_by_it(loop, run, given):
    async def main(path):
        if given == "sock":
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            server = await loop.create_unix_server(Echo, sock=sock)
        else:
            server = await loop.create_unix_server(Echo, pathlib.Path(path), start_serving=False)
        await stopped(server)
        return exists(path)

    with folder() as path:
        assert run(main(path)) is False


@clause("unix.server.cleanup-off")
def test_the_socket_file_stays_where_it_is_not_to_be_cleaned_up(loop, run):
    async def main(path):
        server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
        await stopped(server)
        return exists(path)

    with folder() as path:
        assert run(main(path)) is True


@clause("unix.server.cleanup-of-own-only")
@pytest.mark.parametrize("then", ["gone", "replaced", "other file"])
def test_a_file_that_is_not_the_servers_own_any_more_is_left_alone(loop, run, then):
    async def main(path):
        first = await loop.create_unix_server(Echo, path)
        second = None
        if then == "replaced":
            second = await loop.create_unix_server(Echo, path)
        else:
            os.unlink(path)
            if then == "other file":
                # Made while the old inode's number is still taken by the socket that is open.
                put(path, "other")
        await stopped(first)
        there = exists(path)
        got = None
        if second is not None:
            got = await aside(exchange, path)
            await stopped(second)
        return there, got

    with folder() as path:
        there, got = run(main(path))
    assert there == (then != "gone")
    assert got == (b"ping" if then == "replaced" else None)


@clause("unix.server.left-without-cleanup")
def test_closing_a_server_and_serving_the_same_path_again_works(loop, run):
    async def main(path):
        got = []
        for _ in range(3):
            server = await loop.create_unix_server(Echo, path)
            got.append(await aside(exchange, path))
            await stopped(server)
        return got

    with folder() as path:
        assert run(main(path)) == [b"ping"] * 3


@clause("unix.streams.server")
def test_start_unix_server_serves_lines(loop, run):
    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    def talk(path):
        with dial(path) as sock:
            sock.sendall(b"one\ntwo\n")
            sock.shutdown(socket.SHUT_WR)
            return drain(sock)

    async def main(path):
        server = await asyncio.start_unix_server(handle, path)
        got = await aside(talk, path)
        await stopped(server)
        return got

    with folder() as path:
        assert run(main(path)) == b"ONE\nTWO\n"


@clause("unix.tls.both-ends")
def test_tls_over_a_unix_socket_exchanges_data(loop, run):
    server_context, client_context = certificates.server(), certificates.client()

    async def main(path):
        server = await loop.create_unix_server(Echo, path, ssl=server_context)
        transport, protocol = await loop.create_unix_connection(
            lambda: Recorder(loop), path, ssl=client_context, server_hostname="localhost"
        )
        transport.write(pattern(300_000))
        await protocol.received(300_000)
        cipher = transport.get_extra_info("cipher")
        transport.close()
        reason = await protocol.lost
        await stopped(server)
        return bytes(protocol.data), cipher is not None, reason

    with folder() as path:
        assert run(main(path)) == (pattern(300_000), True, None)


@clause("unix.server.needs-no-reference")
def test_a_server_that_nothing_refers_to_serves_on(loop, run):
    async def main(path):
        await loop.create_unix_server(Echo, path)
        got = []
        for _ in range(3):
            gc.collect()
            await turns()
            got.append(await aside(exchange, path))
        await turns()
        return got

    with folder() as path:
        assert run(main(path)) == [b"ping"] * 3


@clause("unix.server.backlog")
def test_the_backlog_bounds_the_connections_that_wait(loop, run):
    if sys.platform != "linux":
        pytest.skip("systems round the backlog differently")

    async def main(path):
        completed = []
        for backlog in (3, 30):
            server = await loop.create_unix_server(Echo, path, backlog=backlog)
            with ExitStack() as stack:
                for _ in range(backlog + 20):  # no await: nothing is accepted meanwhile
                    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                    sock.setblocking(False)
                    if sock.connect_ex(path) == errno.EAGAIN:
                        break
                    completed.append(backlog)
            await stopped(server)
            await turns()
        return [completed.count(backlog) for backlog in (3, 30)]

    with folder() as path:
        few, many = run(main(path))
    assert 3 <= few <= 5  # Linux keeps one more than the backlog
    assert 30 <= many <= 32
