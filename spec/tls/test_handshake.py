"""Handshakes that succeed, on both sides and however a loop comes to have a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from ..tcp.serving import LOCALHOST, Echo
from . import certificates, peer
from .helpers import ask, serving

VERSIONS = pytest.mark.parametrize("version", certificates.VERSIONS.items(), ids=certificates.VERSIONS)


@clause("tls.handshake.create-connection", "tls.handshake.versions")
@VERSIONS
def test_a_client_shakes_hands_by_the_version_that_the_server_speaks(loop, run, version):
    name, number = version

    async def main(addr):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), LOCALHOST, addr[1], ssl=certificates.client(), server_hostname=certificates.NAME
        )
        used = transport.get_extra_info("ssl_object").version()
        return used, await ask(transport, protocol), protocol.calls

    with peer.serve(certificates.server(version=number), peer.echo) as addr:
        used, outcome, calls = run(main(addr))
    assert used == name
    assert outcome == (b"ping", None)
    assert calls[:2] == ["connection_made", "data_received"]


@clause("tls.handshake.create-server", "tls.handshake.versions")
@VERSIONS
def test_a_server_shakes_hands_by_the_version_that_the_client_speaks(loop, run, version):
    name, number = version

    def talk(tls):
        tls.sendall(b"ping")
        return tls.version(), peers.recv_exactly(tls, 4)

    async def main():
        async with serving(loop) as addr:
            return await aside(peer.client(addr, certificates.client(version=number), talk).result)

    assert run(main()) == (name, b"ping")


@clause("tls.handshake.sock")
def test_create_connection_shakes_hands_over_a_given_socket(loop, run):
    async def main():
        ours, theirs = peers.pair()
        accepting = loop.create_task(aside(accept, theirs))
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), sock=ours, ssl=certificates.client(), server_hostname=certificates.NAME
        )
        outcome = await ask(transport, protocol)
        await accepting
        return outcome

    def accept(sock):
        with peer.wrap(sock, certificates.server(), server_side=True) as tls:
            peer.echo(tls)

    assert run(main()) == (b"ping", None)


@clause("tls.handshake.accepted-socket")
def test_connect_accepted_socket_shakes_hands_as_the_server(loop, run):
    async def main():
        ours, theirs = peers.pair()
        talking = peers.thread(talk, theirs)
        protocol = Recorder(loop)
        transport, given = await loop.connect_accepted_socket(lambda: protocol, ours, ssl=certificates.server())
        made = protocol.calls[:1]  # what the client has sent may have come with the end of its handshake
        await protocol.received(4)
        transport.write(protocol.data)
        got = await aside(talking.result)
        await protocol.lost
        return given is protocol, made, transport.get_extra_info("ssl_object").server_side, got

    def talk(sock):
        with peer.wrap(sock, certificates.client()) as tls:
            tls.sendall(b"ping")
            return peers.recv_exactly(tls, 4)

    assert run(main()) == (True, ["connection_made"], True, b"ping")


@clause("tls.handshake.unix")
def test_create_unix_connection_shakes_hands_over_a_path_and_over_a_socket(loop, run, tmp_path):
    def accept(sock):
        with peer.wrap(sock, certificates.server(), server_side=True) as tls:
            peer.echo(tls)

    def listen(listening):
        conn, _ = listening.accept()
        conn.settimeout(peers.TIMEOUT)
        accept(conn)

    async def main(path):
        options = {"ssl": certificates.client(), "server_hostname": certificates.NAME}
        by_path = await ask(*await loop.create_unix_connection(lambda: Recorder(loop), path, **options))
        ours, theirs = peers.unix_pair()
        accepting = loop.create_task(aside(accept, theirs))
        by_sock = await ask(*await loop.create_unix_connection(lambda: Recorder(loop), sock=ours, **options))
        await accepting
        return by_path, by_sock

    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(peers.TIMEOUT)
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with peers.thread(listen, listening):
            assert run(main(str(tmp_path / "s"))) == ((b"ping", None), (b"ping", None))


@clause("tls.handshake.unix")
def test_create_unix_server_shakes_hands_with_its_clients(loop, run, tmp_path):
    async def main(path):
        server = await loop.create_unix_server(Echo, path, ssl=certificates.server())
        got = await aside(peer.exchange, path, certificates.client())
        server.close()
        await server.wait_closed()
        return got

    assert run(main(str(tmp_path / "s"))) == b"ping"


@clause("tls.handshake.open-connection")
def test_open_connection_makes_streams_over_tls(loop, run):
    async def main(addr):
        reader, writer = await asyncio.open_connection(
            LOCALHOST, addr[1], ssl=certificates.client(), server_hostname=certificates.NAME
        )
        writer.write(b"ping\n")
        await writer.drain()
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line, writer.can_write_eof()

    with peer.serve(certificates.server(), peer.echo) as addr:
        assert run(main(addr)) == (b"ping\n", False)


@clause("tls.handshake.start-server")
def test_start_server_gives_its_callback_streams_over_tls(loop, run):
    handled = loop.create_future()

    async def handle(reader, writer):
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()
        handled.set_result(None)

    async def main():
        server = await asyncio.start_server(handle, LOCALHOST, 0, ssl=certificates.server())
        got = await aside(peer.exchange, server.sockets[0].getsockname(), certificates.client())
        await handled
        server.close()
        await server.wait_closed()
        return got

    assert run(main()) == b"ping"


@clause("tls.handshake.before-connection-made")
def test_a_server_calls_connection_made_once_the_handshake_is_complete(loop, run):
    """One client stops in the middle; when another one has been served from beginning to end, it goes on."""
    protocols = []

    def factory():
        protocols.append(Recorder(loop))
        return protocols[-1]

    def begin(addr):
        wire = peer.Wire(socket.create_connection(addr, timeout=peers.TIMEOUT), certificates.client())
        hello = wire.hello()
        wire.sock.sendall(hello[:100])
        return wire, hello[100:]

    def finish(wire, rest):
        with wire.sock:
            wire.sock.sendall(rest)
            wire.handshake()
            wire.send(b"ping")

    async def main():
        async with serving(loop, factory) as addr:
            wire, rest = await aside(begin, addr)
            await protocols_made(1)
            other = peer.client(addr, certificates.client(), lambda tls: tls.sendall(b"ping"))
            await protocols_made(2)
            await protocols[1].received(4)
            await aside(other.result)
            await protocols[1].lost
            before = list(protocols[0].calls)
            await aside(finish, wire, rest)
            await protocols[0].lost
            return before, protocols[0].calls[:2]

    async def protocols_made(count):
        while len(protocols) < count:
            await asyncio.sleep(0)

    assert run(main()) == ([], ["connection_made", "data_received"])


@clause("tls.handshake.before-connection-made", "tls.handshake.result")
def test_create_connection_returns_what_connection_made_was_given_once_the_handshake_is_complete(loop, run):
    seen = []

    def accept(conn):
        wire = peer.Wire(conn, certificates.server(), server_side=True)
        with conn:
            wire.incoming.write(conn.recv(65536))
            asyncio.run_coroutine_threadsafe(look(), loop).result(peers.TIMEOUT)
            wire.handshake()
            assert wire.recv() == b"ping"

    async def look():
        await turns(5)  # it waits for this side's answer
        seen.append(list(protocol.calls))

    protocol = Recorder(loop)

    async def main(addr):
        transport, given = await loop.create_connection(
            lambda: protocol, LOCALHOST, addr[1], ssl=certificates.client(), server_hostname=certificates.NAME
        )
        facts = (given is protocol, transport is protocol.transport, list(protocol.calls))
        transport.write(b"ping")
        transport.close()
        await protocol.lost
        return facts

    with peers.serve(accept) as addr:
        assert run(main(addr)) == (True, True, ["connection_made"])
    assert seen == [[]]


@clause("tls.handshake.piecemeal")
@VERSIONS
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_a_handshake_that_arrives_byte_by_byte_succeeds(loop, run, version, server_side):
    """The peer sends every byte in a segment of its own, and the loop makes some iterations for each."""

    class Dripping(peer.Wire):
        def flush(self):
            for byte in self.outgoing.read():
                self.sock.sendall(bytes((byte,)))
                asyncio.run_coroutine_threadsafe(turns(2), loop).result(peers.TIMEOUT)

    def talk(sock):
        context = certificates.client() if server_side else certificates.server()
        with sock:
            wire = Dripping(sock, context, server_side=not server_side)
            wire.handshake()
            wire.send(b"ping")
            return wire.recv()

    async def main():
        ours, theirs = peers.pair()
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol = Recorder(loop)
        talking = loop.create_task(aside(talk, theirs))
        if server_side:
            context = certificates.server(version=version[1])
            await loop.connect_accepted_socket(lambda: protocol, ours, ssl=context)
        else:
            context = certificates.client(version=version[1])
            await loop.create_connection(lambda: protocol, sock=ours, ssl=context, server_hostname=certificates.NAME)
        await protocol.received(4)
        protocol.transport.write(b"pong")
        answer = await talking
        await protocol.lost
        return bytes(protocol.data), answer

    assert run(main()) == (b"ping", b"pong")


@clause("tls.handshake.data-behind")
@pytest.mark.parametrize(
    ("version", "server_side"),
    [("TLSv1.3", True), ("TLSv1.2", False), ("TLSv1.3", False)],
    ids=["server, TLSv1.3", "client, TLSv1.2", "client, TLSv1.3"],
)
def test_data_in_one_segment_with_the_end_of_the_handshake_is_received(loop, run, version, server_side):
    """Whoever sends the last flight may send data with it; a server of TLS 1.3 sends its tickets so."""

    def talk(sock):
        context = certificates.client() if server_side else certificates.server()
        wire = peer.Wire(sock, context, server_side=not server_side)
        with sock:
            wire.handshake(hold=True)
            wire.tls.write(b"early")
            wire.flush()
            return wire.recv()

    async def main():
        ours, theirs = peers.pair()
        protocol = Recorder(loop)
        talking = loop.create_task(aside(talk, theirs))
        number = certificates.VERSIONS[version]
        if server_side:
            context = certificates.server(version=number)
            await loop.connect_accepted_socket(lambda: protocol, ours, ssl=context)
        else:
            context = certificates.client(version=number)
            await loop.create_connection(lambda: protocol, sock=ours, ssl=context, server_hostname=certificates.NAME)
        await protocol.received(5)
        protocol.transport.write(b"answer")
        answer = await talking
        await protocol.lost
        return bytes(protocol.data), answer, protocol.calls[:2]

    assert run(main()) == (b"early", b"answer", ["connection_made", "data_received"])


@clause("tls.handshake.data-behind-paused")
def test_data_behind_the_handshake_waits_where_connection_made_pauses_reading(loop, run):
    def talk(sock):
        wire = peer.Wire(sock, certificates.client())
        with sock:
            wire.handshake(hold=True)
            wire.tls.write(b"early")
            wire.flush()
            return wire.recv()

    async def main():
        ours, theirs = peers.pair()
        protocol = Recorder(loop, connection_made=lambda transport: transport.pause_reading())
        talking = loop.create_task(aside(talk, theirs))
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours, ssl=certificates.server())
        await turns(10)
        before = (list(protocol.calls), transport.is_reading())
        transport.resume_reading()
        await protocol.received(5)
        transport.close()
        await talking
        await protocol.lost
        return before, bytes(protocol.data)

    assert run(main()) == ((["connection_made"], False), b"early")


@clause("tls.handshake.many-at-once")
def test_a_server_shakes_hands_with_many_clients_at_once(loop, run):
    """Every client has sent its hello before the first one is answered."""
    count = 20

    def begin(addr):
        wires = []
        for _ in range(count):
            wire = peer.Wire(socket.create_connection(addr, timeout=peers.TIMEOUT), certificates.client())
            wire.sock.sendall(wire.hello())
            wires.append(wire)
        return wires

    def finish(wires):
        answers = []
        for number, wire in enumerate(reversed(wires)):
            with wire.sock:
                wire.handshake()
                wire.send(b"%d" % number)
                answers.append(int(wire.recv()))
        return answers

    async def main():
        async with serving(loop) as addr:
            wires = begin(addr)  # the loop does not run meanwhile
            return await aside(finish, wires)

    assert run(main()) == list(range(count))


@clause("tls.handshake.close-clients")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_the_server_ends_handshakes_with_its_connections(loop, run, errors, method):
    protocol = Recorder(loop)
    made = asyncio.Event()

    def factory():
        made.set()
        return protocol

    async def main():
        server = await loop.create_server(factory, LOCALHOST, 0, ssl=certificates.server())
        with socket.create_connection(server.sockets[0].getsockname(), timeout=peers.TIMEOUT) as sock:
            await made.wait()
            await turns(5)  # the factory is called before the transport is made
            server.close()
            getattr(server, method)()
            await server.wait_closed()
            with contextlib.suppress(ConnectionResetError):
                assert await aside(sock.recv, 1) == b""

    run(main())
    assert protocol.calls == []
