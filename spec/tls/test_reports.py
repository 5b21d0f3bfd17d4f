"""What reaches the exception handler: mistakes of the program and, in debug mode, the failures of a server."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside
from . import certificates, peer
from .helpers import connect, dial, serving, to_the_end, until


class Mistake(Exception):
    """Nothing that a loop knows."""


def mistaken(*_args):
    raise Mistake


class Mistaken(ssl.SSLObject):
    def getpeercert(self, binary_form=False):
        raise Mistake


@clause("tls.report.connection-made")
def test_an_exception_in_connection_made_of_a_client_is_reported_and_ends_the_connection(loop, run, errors):
    protocol = Recorder(loop, connection_made=mistaken)

    async def main(addr):
        with pytest.raises(Mistake):
            await connect(loop, addr, protocol)
        return await protocol.lost

    with peers.serve(lambda conn: ends(conn, certificates.server(), server_side=True)) as addr:
        reason = run(main(addr))
    assert isinstance(reason, Mistake)
    assert isinstance(errors.only()["exception"], Mistake)
    assert protocol.calls == ["connection_made", "connection_lost"]


@clause("tls.report.connection-made")
def test_an_exception_in_connection_made_of_a_server_is_reported_and_ends_the_connection(loop, run, errors):
    made = []

    def factory():
        made.append(Recorder(loop, connection_made=mistaken if not made else lambda transport: None))
        return made[-1]

    def talk(addr):
        ends(dial(addr), certificates.client())
        with peer.wrap(dial(addr), certificates.client()) as tls:
            tls.sendall(b"ping")
            peer.part(tls)

    async def main():
        async with serving(loop, factory) as addr:
            await aside(talk, addr)
            return await made[0].lost

    assert isinstance(run(main()), Mistake)
    assert isinstance(errors.only()["exception"], Mistake)
    assert made[0].calls == ["connection_made", "connection_lost"]
    assert bytes(made[1].data) == b"ping"


def ends(sock, context, **options):
    """Shake hands and see the connection end, in whatever way, without data."""
    try:
        with peer.wrap(sock, context, **options) as tls:
            assert tls.recv(1) == b""
    except OSError:
        pass


@clause("tls.report.not-os-error")
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_a_mistake_in_a_class_for_ssl_objects_fails_the_handshake_and_is_reported(loop, run, errors, server_side):
    protocol = Recorder(loop)
    context = certificates.server() if server_side else certificates.client()
    context.sslobject_class = Mistaken

    async def serve():
        async with serving(loop, lambda: protocol, ssl=context) as addr:
            await aside(lambda: ends(dial(addr), certificates.client()))

    async def main(addr):
        with pytest.raises(Mistake):
            await connect(loop, addr, protocol, ssl=context)

    if server_side:
        run(serve())
    else:
        with peers.serve(lambda conn: ends(conn, certificates.server(), server_side=True)) as addr:
            run(main(addr))
    reported = errors.only()
    assert isinstance(reported["exception"], Mistake)
    assert reported["message"] == "SSL handshake failed"
    assert protocol.calls == []


REASONS = {
    "untrusted": (lambda: certificates.server("stranger"), ssl.SSLError),
    "eof": (certificates.server, ConnectionResetError),
    "time-out": (certificates.server, ConnectionAbortedError),
}


@clause("tls.report.debug-mode")
@pytest.mark.parametrize("reason", REASONS)
def test_a_server_in_debug_mode_reports_the_handshakes_that_failed(loop, run, errors, reason):
    loop.set_debug(True)
    server, expected = REASONS[reason]
    protocol = Recorder(loop)

    def talk(addr):
        with dial(addr) as sock:
            if reason == "untrusted":
                peer.refusal(sock, certificates.client())
                return
            if reason == "eof":
                sock.shutdown(socket.SHUT_WR)
            to_the_end(sock)

    async def main():
        async with serving(loop, lambda: protocol, ssl=server(), ssl_handshake_timeout=0.1) as addr:
            await aside(talk, addr)
            async with asyncio.timeout(1):
                await until(lambda: errors)

    run(main())
    reported = errors.only()
    assert reported["message"] == "Error on transport creation for incoming connection"
    assert isinstance(reported["exception"], expected)
    assert reported["protocol"] is protocol


@clause("tls.report.raised-not-reported")
def test_a_client_in_debug_mode_raises_and_reports_nothing(loop, run):
    loop.set_debug(True)

    async def main(addr):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, addr, Recorder(loop))

    with peer.serve_refused(certificates.server("stranger")) as (addr, _):
        run(main(addr))
