"""TLS over TCP, as far as ssl= and start_tls() go: bytes pass whole and ends are ends. TLS has an area of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern, pieces
from .._kit.contracts.stream import aside, drain
from ..tls import certificates

SIZE = 1_000_003


def echo(conn):
    """A peer that is a TLS server and echoes."""
    with certificates.server().wrap_socket(conn, server_side=True) as tls:
        while data := tls.recv(65536):
            tls.sendall(data)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


@clause("tcp.tls.create-connection")
def test_create_connection_with_ssl_exchanges_data_with_a_tls_peer(loop, run):
    client_context = certificates.client()

    async def main(addr):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), "localhost", addr[1], ssl=client_context, family=socket.AF_INET
        )
        facts = (
            transport.get_extra_info("sslcontext") is client_context,
            isinstance(transport.get_extra_info("ssl_object"), (ssl.SSLObject, ssl.SSLSocket)),
            transport.get_extra_info("cipher") is not None,
            transport.get_extra_info("peername") == addr,
        )
        transport.write(pattern(SIZE))
        await protocol.received(SIZE)
        transport.close()
        return facts, bytes(protocol.data), await protocol.lost

    with peers.serve(echo) as addr:
        facts, got, reason = run(main(addr))
    assert all(facts), facts
    assert got == pattern(SIZE)
    assert reason is None


@clause("tcp.tls.create-server")
@pytest.mark.parametrize("method", ["create_server", "connect_accepted_socket"])
def test_a_tls_server_echoes_to_a_tls_client(loop, run, method):
    server_context, client_context = certificates.server(), certificates.client()

    def talk(sock):
        # By turns: two threads must not use one SSLSocket.
        with client_context.wrap_socket(sock, server_hostname="localhost") as tls:
            got = bytearray()
            for piece in pieces(pattern(SIZE), 50_000):
                tls.sendall(piece)
                got += peers.recv_exactly(tls, len(piece))
            return bytes(got)

    async def serve():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
        addr = server.sockets[0].getsockname()
        got = await aside(lambda: talk(socket.create_connection(addr, timeout=peers.TIMEOUT)))
        server.close()
        await server.wait_closed()
        return got

    async def take_over():
        ours, theirs = peers.pair()
        talking = loop.create_task(aside(talk, theirs))
        await loop.connect_accepted_socket(Echo, ours, ssl=server_context)
        return await talking

    assert run(serve() if method == "create_server" else take_over()) == pattern(SIZE)


@clause("tcp.tls.untrusted")
def test_an_untrusted_certificate_fails_the_connection(loop, run, errors):
    server_context = certificates.server()

    def shake_hands(conn):
        with pytest.raises(OSError):  # the client's alert, as an SSLError
            server_context.wrap_socket(conn, server_side=True).recv(1)

    async def main(addr):
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                lambda: Recorder(loop), "localhost", addr[1], ssl=ssl.create_default_context(), family=socket.AF_INET
            )

    with peers.serve(shake_hands) as addr:
        run(main(addr))
    errors.take()


@clause("tcp.tls.start-tls")
def test_start_tls_upgrades_a_connection_with_its_protocol(loop, run):
    server_context, client_context = certificates.server(), certificates.client()

    def talk(sock):
        sock.sendall(b"plain")
        assert peers.recv_exactly(sock, 4) == b"go!\n"
        with client_context.wrap_socket(sock, server_hostname="localhost") as tls:
            tls.sendall(pattern(SIZE))
            return drain(tls)

    async def main():
        ours, theirs = peers.pair()
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        talking = loop.create_task(aside(talk, theirs))
        await protocol.received(5)
        plain = bytes(protocol.data)
        protocol.data.clear()
        transport.write(b"go!\n")
        tls = await loop.start_tls(transport, protocol, server_context, server_side=True)
        await protocol.received(SIZE)
        tls.write(pattern(SIZE))
        tls.close()
        return plain, bytes(protocol.data), await talking, await protocol.lost, protocol.calls.count("connection_made")

    plain, received, sent, reason, made = run(main())
    assert plain == b"plain"
    assert received == pattern(SIZE)
    assert sent == pattern(SIZE)
    assert reason is None
    assert made == 1


@clause("tcp.tls.start-tls-arguments")
def test_start_tls_without_an_ssl_context_raises_type_error(loop, run):
    async def main():
        ours, theirs = peers.pair()
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        for context in (None, True, "context"):
            with pytest.raises(TypeError):
                await loop.start_tls(transport, protocol, context)
        theirs.sendall(b"unharmed")
        await protocol.received(8)
        transport.close()
        await protocol.lost
        theirs.close()

    run(main())


class CountingSocket(socket.socket):
    sends = 0

    def send(self, *args):
        self.sends += 1
        return super().send(*args)


@clause("tcp.socket.overridden")
def test_a_socket_with_methods_of_its_own_is_asked_by_them_under_tls(loop, run):
    async def main(addr):
        sock = CountingSocket()
        sock.setblocking(False)
        await loop.sock_connect(sock, addr)
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), sock=sock, ssl=certificates.client(), server_hostname="localhost"
        )
        transport.write(pattern(SIZE))
        await protocol.received(SIZE)
        transport.close()
        return bytes(protocol.data) == pattern(SIZE), sock.sends > 0, await protocol.lost

    with peers.serve(echo) as addr:
        assert run(main(addr)) == (True, True, None)
