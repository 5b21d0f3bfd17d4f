"""What transports are made of, and attributes that programs give them."""

from __future__ import annotations

import asyncio

import pytest

from .._kit import clause, peers
from .._kit.contracts.stream import turns
from ..tls import certificates


async def connected(loop, kind):
    if kind == "datagram":
        transport, protocol = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        return transport, protocol, []
    ours, theirs = peers.pair()
    ours.setblocking(False)
    if kind == "pipe":
        transport, protocol = await loop.connect_write_pipe(asyncio.BaseProtocol, ours)
    else:
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
    return transport, protocol, [theirs]


KINDS = pytest.mark.parametrize("kind", ["stream", "datagram", "pipe"])


@clause("insides.transports.attributes")
@KINDS
def test_a_transport_takes_attributes_and_methods_of_a_programs_own(loop, run, kind):
    async def main():
        transport, _, others = await connected(loop, kind)
        transport.tag = "mine"
        assert transport.tag == "mine" and vars(transport)["tag"] == "mine"
        written = []
        method = "sendto" if kind == "datagram" else "write"
        setattr(transport, method, written.append)
        getattr(transport, method)(b"x")
        assert written == [b"x"]
        delattr(transport, method)
        assert callable(getattr(transport, method))
        with pytest.raises(AttributeError):
            transport.nothing  # noqa: B018
        transport.close()
        for other in others:
            other.close()
        await turns(20)

    run(main())


@clause("insides.transports.attributes")
def test_a_writer_writes_by_the_method_that_its_transport_has(loop, run):
    async def main():
        ours, theirs = peers.pair()
        ours.setblocking(False)
        _, writer = await asyncio.open_connection(sock=ours)
        written = []
        writer.transport.write = written.append
        writer.write(b"x")
        assert written == [b"x"]
        del writer.transport.write
        writer.write(b"y")
        assert theirs.recv(9) == b"y"
        writer.close()
        await writer.wait_closed()
        theirs.close()

    run(main())


@clause("insides.transports.state")
@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_a_transport_shows_its_state(loop, run, kind):
    async def main():
        transport, protocol, others = await connected(loop, kind)
        fd = transport.get_extra_info("socket").fileno()
        assert transport._sock_fd == fd and transport._sock.fileno() == fd and transport._loop is loop
        assert transport._protocol is protocol is transport.get_protocol()
        assert transport._extra["sockname"] == transport.get_extra_info("sockname")
        assert not transport._closing and not transport._conn_lost
        if kind == "stream":
            assert not transport._paused and not transport._eof
            transport.pause_reading()
            assert transport._paused
            transport.resume_reading()
            transport.write_eof()
            assert transport._eof and not transport._paused
        transport.close()
        assert transport._closing and transport._conn_lost == 1
        for other in others:
            other.close()
        await turns(20)
        assert transport._sock is None

    run(main())


@clause("insides.transports.tls")
def test_the_protocol_below_a_tls_transport_shows_what_the_connection_is_made_of(loop, run):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=certificates.server())
        context = certificates.client()
        transport, protocol = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname(), ssl=context, server_hostname="localhost"
        )
        below = transport._ssl_protocol
        assert below._sslcontext is context and below._server_hostname == "localhost" and not below._server_side
        assert below._extra["sslcontext"] is context and below._extra["peercert"]
        assert below._transport._sock.fileno() >= 0 and below._app_protocol is protocol
        assert below._app_transport is transport
        transport.tag = 1
        assert transport.tag == 1
        transport.abort()
        server.close()
        await turns(20)

    run(main())
