"""What TLS has besides data: key updates, renegotiation, and handshakes of many records. `openssl` is the peer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import ssl
import subprocess
import time

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from ..tcp.serving import Echo
from . import certificates
from .connections import SIDES, VERSIONS, Peer, start
from .helpers import serving
from .peer import exchange

MANY_NAMES = certificates.AUTHORITY.issue_cert(certificates.NAME, *(f"host{n}.example" for n in range(3000)))
"""A certificate of some 60 KB: four records."""

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl program")


@clause("tls.records.large-handshake")
@VERSIONS
@SIDES
def test_a_handshake_of_many_records_succeeds(loop, run, side, version):
    async def main():
        ours, theirs = peers.pair()
        server = certificates.server(None, version=version)
        MANY_NAMES.configure_cert(server)
        context, other = (certificates.client(), server)[:: 1 if side == "client" else -1]
        protocol = Recorder(loop)
        with theirs:
            peer = Peer(theirs, other, server_side=side == "client")
            shaking = loop.create_task(aside(peer.handshake))
            transport = await start(loop, protocol, ours, context, side)
            await shaking
            size = len(peer.sent if side == "client" else peer.received)
            transport.write(b"data")
            got = await aside(peer.exactly, 4)
            transport.abort()
            await protocol.lost
        return size, got

    size, got = run(main())
    assert size > 3 * 16384
    assert got == b"data"


class OpenSSL:
    """`openssl s_client`, connected to `addr`; what it says is read as it comes."""

    def __init__(self, addr, *options):
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"{addr[0]}:{addr[1]}", "-msg", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def tell(self, line):
        """Write a line, which is data, or a command where it is one of OpenSSL's letters."""
        os.write(self.process.stdin.fileno(), line + b"\n")

    def wait_for(self, text):
        """Read on until `text` was said; what came up to it. EOFError where the program ends before."""
        deadline = time.monotonic() + peers.TIMEOUT
        while text not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise EOFError(self.said[-2000:].decode(errors="replace"))
            self.said += data
        before, _, self.said = self.said.partition(text)
        return before


@clause("tls.records.key-update")
@pytest.mark.parametrize("command", [b"k", b"K"], ids=["update", "update-and-request"])
@needs_openssl
def test_key_updates_of_the_peer_are_followed_and_answered(loop, run, command):
    def talk(addr):
        with OpenSSL(addr, "-tls1_3") as client:
            client.wait_for(b"Verify return code")
            for at in range(3):
                line = b"line %d" % at
                client.tell(command)
                client.wait_for(b"KEYUPDATE")
                client.tell(line)  # takes the update along, as the echo does the answer
                client.wait_for(b"KeyUpdate")
                if command == b"K":
                    client.wait_for(b"<<< TLS 1.3, Handshake")
                    client.wait_for(b"KeyUpdate")
                client.wait_for(line)
            client.tell(b"the last line")
            client.wait_for(b"the last line")

    async def main():
        async with serving(loop) as addr:
            await aside(talk, addr)

    run(main())


@clause("tls.records.answered-without-a-write")
@pytest.mark.parametrize("reads", [True, False], ids=["reading", "paused-and-resumed"])
def test_a_certificate_asked_for_behind_the_handshake_is_sent_though_nothing_is_written(loop, run, reads):
    async def main():
        ours, theirs = peers.pair()
        context = certificates.client("client", version=certificates.V1_3)
        context.post_handshake_auth = True
        asking = certificates.server(version=certificates.V1_3, clients=ssl.CERT_REQUIRED)
        asking.post_handshake_auth = True
        protocol = Recorder(loop)
        with theirs:
            peer = Peer(theirs, asking, server_side=True)
            shaking = loop.create_task(aside(peer.handshake))
            transport = await start(loop, protocol, ours, context, "client")
            await shaking
            assert peer.tls.getpeercert() is None
            if not reads:
                transport.pause_reading()
            peer.tls.verify_client_post_handshake()
            await aside(peer.send, b"who are you?")
            if not reads:
                transport.resume_reading()
            await protocol.received(12)
            known = await aside(peer.run, certificate_of, peer.tls)
            transport.abort()
            await protocol.lost
        return known

    assert ("email", "someone@client.example") in run(main())["subjectAltName"]


def certificate_of(tls):
    """The certificate of the other side, which sends no data. ssl.SSLWantReadError as long as it has not come."""
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.read(1)
    if not (certificate := tls.getpeercert()):
        raise ssl.SSLWantReadError
    return certificate


@clause("tls.records.renegotiation-refused")
@needs_openssl
def test_a_renegotiation_is_refused_and_harms_nobody_else(loop, run, errors):
    protocols = []

    class Counting(Echo):
        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()
            protocols.append(self)

        def connection_lost(self, reason):
            self.lost.set_result(reason)

    def talk(addr):
        with OpenSSL(addr, "-tls1_2") as client:
            client.wait_for(b"Verify return code")
            client.tell(b"before")
            client.wait_for(b"before")
            client.tell(b"R")
            client.wait_for(b"no_renegotiation")  # the alert, which nobody but reading brings about

    async def main():
        async with serving(loop, Counting) as addr:
            await aside(talk, addr)
            await protocols[0].lost
            await turns(10)
            return await aside(exchange, addr, certificates.client())

    assert run(main()) == b"ping"
    assert errors.take() == []
