"""What get_extra_info() says about a TLS connection: its own facts, and those of the transport below."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside
from . import certificates, peer
from .helpers import connect, serving

OWN = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")
BELOW = ("socket", "sockname", "peername")
VERSIONS = pytest.mark.parametrize("version", certificates.VERSIONS.values(), ids=certificates.VERSIONS)


@pytest.fixture
def client_side(loop, run):
    """`client_side(ask, context)`: connect to a server, whose facts `ask(transport)` are returned with its own."""

    def connected(ask, context=None, server_context=None):
        theirs = {}

        def handler(tls):
            theirs.update(
                cipher=tls.cipher(), sockname=tls.getsockname(), peername=tls.getpeername(), cert=tls.getpeercert()
            )
            peer.part(tls)

        async def main(addr):
            protocol = Recorder(loop)
            transport = await connect(loop, addr, protocol, ssl=context or certificates.client())
            facts = ask(transport)
            await protocol.lost
            return facts

        with peer.serve(server_context or certificates.server(), handler) as addr:
            facts = run(main(addr))
        return facts, theirs

    return connected


@pytest.fixture
def server_side(loop, run):
    """`server_side(ask, context)`: the same with a server of the loop and a blocking client."""

    def connected(ask, context=None, client_context=None):
        facts = loop.create_future()

        def factory():
            return Recorder(loop, connection_made=lambda transport: facts.set_result(ask(transport)))

        def talk(tls):
            theirs = {"cipher": tls.cipher(), "sockname": tls.getsockname(), "peername": tls.getpeername()}
            theirs["cert"] = tls.getpeercert()
            peer.part(tls)
            return theirs

        async def main():
            async with serving(loop, factory, ssl=context or certificates.server()) as addr:
                talking = peer.client(addr, client_context or certificates.client(), talk)
                return await facts, await aside(talking.result)

        return run(main())

    return connected


@pytest.fixture(params=["client", "server"])
def connected(request, client_side, server_side):
    """Either of the two."""
    return client_side if request.param == "client" else server_side


def everything(transport):
    return {name: transport.get_extra_info(name) for name in (*OWN, *BELOW)}


@clause("tls.extra.sslcontext")
def test_sslcontext_is_the_very_context_that_was_given(client_side, server_side):
    client_context, server_context = certificates.client(), certificates.server()
    assert client_side(everything, client_context)[0]["sslcontext"] is client_context
    assert server_side(everything, server_context)[0]["sslcontext"] is server_context


@clause("tls.extra.ssl-object")
@VERSIONS
def test_ssl_object_knows_the_handshake_and_takes_questions(client_side, server_side, version):
    def ask(transport):
        tls = transport.get_extra_info("ssl_object")
        kind = isinstance(tls, (ssl.SSLObject, ssl.SSLSocket))
        return kind, tls.server_side, tls.version(), tls.cipher(), tls.getpeercert(True) is not None

    name = version.name.replace("v1_", "v1.")
    context = certificates.client(version=version)
    (ours, theirs) = client_side(ask, context)
    assert ours == (True, False, name, theirs["cipher"], True)
    (ours, theirs) = server_side(ask, certificates.server(version=version))
    assert ours == (True, True, name, theirs["cipher"], False)


@clause("tls.extra.peercert")
def test_peercert_is_the_verified_certificate_of_a_server(client_side):
    def ask(transport):
        return transport.get_extra_info("peercert"), transport.get_extra_info("ssl_object").getpeercert()

    (certificate, same), _ = client_side(ask)
    assert certificate["subjectAltName"] == (("DNS", certificates.NAME),)
    assert certificate == same


@clause("tls.extra.peercert")
def test_peercert_is_empty_where_nothing_was_verified(client_side):
    facts, _ = client_side(everything, certificates.client(verify=False), certificates.server("stranger"))
    assert facts["peercert"] == {}


@clause("tls.extra.peercert")
@pytest.mark.parametrize("certificate", [None, "client"])
def test_peercert_of_a_server_is_that_of_its_client_or_none(server_side, certificate):
    context = certificates.server(clients=ssl.CERT_OPTIONAL)
    facts, _ = server_side(everything, context, certificates.client(certificate))
    if certificate is None:
        assert facts["peercert"] is None
    else:
        assert ("email", "someone@client.example") in facts["peercert"]["subjectAltName"]


@clause("tls.extra.cipher")
def test_cipher_is_the_one_that_both_sides_use(connected):
    facts, theirs = connected(everything)
    assert facts["cipher"] == theirs["cipher"]
    name, protocol, bits = facts["cipher"]
    assert isinstance(name, str)
    assert protocol == "TLSv1.3"
    assert bits >= 128


@clause("tls.extra.compression")
def test_compression_is_none_where_there_is_no_compression(connected):
    facts, _ = connected(lambda transport: transport.get_extra_info("compression", "default"))
    assert facts is None


@clause("tls.extra.below")
def test_socket_sockname_and_peername_are_those_of_the_connection(connected):
    def ask(transport):
        sock = transport.get_extra_info("socket")
        return everything(transport), sock.getsockname(), sock.getpeername(), sock.fileno() >= 0

    (facts, sockname, peername, is_open), theirs = connected(ask)
    assert is_open
    assert facts["sockname"] == sockname == theirs["peername"]
    assert facts["peername"] == peername == theirs["sockname"]


@clause("tls.extra.default")
def test_what_is_not_known_is_the_default(connected):
    def ask(transport):
        return transport.get_extra_info("nothing"), transport.get_extra_info("nothing", "default")

    assert connected(ask)[0] == (None, "default")


@clause("tls.extra.in-connection-made")
def test_everything_is_known_in_connection_made(loop, run):
    seen = []

    async def main(addr):
        protocol = Recorder(loop, connection_made=lambda transport: seen.append(everything(transport)))
        transport = await connect(loop, addr, protocol)
        seen.append(everything(transport))
        await protocol.lost

    with peer.serve(certificates.server(), peer.part) as addr:
        run(main(addr))
    early, late = seen
    early.pop("socket"), late.pop("socket")  # an object for each call will do
    assert early == late
    assert [name for name, value in early.items() if value is None] == ["compression"]


@clause("tls.extra.after-lost")
def test_the_facts_of_the_handshake_outlive_the_connection(loop, run):
    """A program that logs what it lost asks then."""

    async def main(addr):
        protocol = Recorder(loop)
        transport = await connect(loop, addr, protocol)
        before = [transport.get_extra_info(name) for name in OWN]
        transport.close()
        await protocol.lost
        return before, [transport.get_extra_info(name) for name in OWN]

    with peer.serve(certificates.server(), peer.echo) as addr:
        before, after = run(main(addr))
    assert before == after


@clause("tls.extra.plain-has-none")
def test_a_plain_connection_has_none_of_the_facts_of_tls(loop, run):
    async def main():
        ours, theirs = peers.pair()
        with theirs:
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
            facts = [transport.get_extra_info(name) for name in OWN]
            transport.close()
            await protocol.lost
        return facts

    assert run(main()) == [None] * len(OWN)


@clause("tls.extra.streams")
def test_a_stream_writer_asks_its_transport(loop, run):
    async def main(addr):
        context = certificates.client()
        reader, writer = await asyncio.open_connection(*addr, ssl=context, server_hostname=certificates.NAME)
        facts = (
            writer.get_extra_info("sslcontext") is context,
            writer.get_extra_info("peercert")["subjectAltName"],
            writer.get_extra_info("nothing", "default"),
        )
        await reader.read()
        writer.close()
        await writer.wait_closed()
        return facts

    with peer.serve(certificates.server(), peer.part) as addr:
        assert run(main(addr)) == (True, (("DNS", certificates.NAME),), "default")
