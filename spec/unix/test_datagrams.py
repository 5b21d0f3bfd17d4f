"""create_datagram_endpoint() on Unix sockets: paths, abstract addresses, whole messages."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from .._kit import clause, peers
from .makers import abstract, folder


class Collector(asyncio.DatagramProtocol):
    """Writes down datagrams and errors."""

    def __init__(self, loop):
        self.got = []
        self.errors = []
        self.lost = loop.create_future()
        self._loop = loop
        self._waiting = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.append((data, addr))
        self._tell()

    def error_received(self, exc):
        self.errors.append(exc)
        self._tell()

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    def _tell(self):
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, predicate):
        while not predicate():
            future = self._loop.create_future()
            self._waiting.append(future)
            await future
            self._waiting.remove(future)


async def ended(transport, protocol):
    transport.close()
    assert await protocol.lost is None


def datagram_peer(path=None):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(peers.TIMEOUT)
    if path is not None:
        sock.bind(path)
    return sock


@clause("unix.datagram.local-path")
@pytest.mark.parametrize("named", [True, False])
def test_datagrams_to_a_path_arrive_whole_with_the_senders_address(loop, run, named):
    async def main(path, theirs):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(loop), local_addr=path, family=socket.AF_UNIX
        )
        for message in (b"one", b"", b"three" * 1000):
            theirs.sendto(message, path)
        await protocol.until(lambda: len(protocol.got) == 3)
        await ended(transport, protocol)
        return protocol.got

    with folder() as path, folder() as other, datagram_peer(other if named else None) as theirs:
        got = run(main(path, theirs))
    assert [data for data, _ in got] == [b"one", b"", b"three" * 1000]
    assert {addr or None for _, addr in got} == {other if named else None}


@clause("unix.datagram.reply")
@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_datagram_is_answered_to_the_address_it_came_from(loop, run, kind):
    async def main(ours, theirs):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(loop), local_addr=ours, family=socket.AF_UNIX
        )
        theirs.sendto(b"question", ours)
        await protocol.until(lambda: protocol.got)
        data, addr = protocol.got[0]
        transport.sendto(b"answer to " + data, addr)
        await ended(transport, protocol)

    with folder() as first, folder() as second:
        ours, other = (first, second) if kind == "path" else (abstract("ours"), abstract("theirs"))
        with datagram_peer(other) as theirs:
            run(main(ours, theirs))
            assert theirs.recv(100) == b"answer to question"


@clause("unix.datagram.remote-path")
def test_an_endpoint_with_a_remote_path_sends_there(loop, run):
    async def main(path):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(loop), remote_addr=path, family=socket.AF_UNIX
        )
        transport.sendto(b"first")
        transport.sendto(b"second", None)
        peername = transport.get_extra_info("peername")
        await ended(transport, protocol)
        return peername

    with folder() as path, datagram_peer(path) as theirs:
        assert run(main(path)) == path
        assert [theirs.recv(100), theirs.recv(100)] == [b"first", b"second"]


@clause("unix.datagram.sock")
def test_a_socket_of_a_pair_receives_whole_datagrams(loop, run):
    async def main(ours, theirs):
        transport, protocol = await loop.create_datagram_endpoint(lambda: Collector(loop), sock=ours)
        theirs.send(b"in")
        theirs.send(b"again")
        await protocol.until(lambda: len(protocol.got) == 2)
        await ended(transport, protocol)
        return [data for data, _ in protocol.got]

    ours, theirs = peers.unix_pair(socket.SOCK_DGRAM)
    with theirs:
        assert run(main(ours, theirs)) == [b"in", b"again"]


@clause("unix.datagram.unnamed-peer")
def test_a_socket_of_a_pair_sends_to_its_peer_that_has_no_name(loop, run):
    async def main(ours):
        transport, protocol = await loop.create_datagram_endpoint(lambda: Collector(loop), sock=ours)
        transport.sendto(b"out")
        await ended(transport, protocol)

    ours, theirs = peers.unix_pair(socket.SOCK_DGRAM)
    with theirs:
        run(main(ours))
        assert theirs.recv(100) == b"out"


@clause("unix.datagram.stale-path")
def test_a_socket_file_that_was_left_at_the_local_path_is_replaced(loop, run):
    async def main(path):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(loop), local_addr=path, family=socket.AF_UNIX
        )
        with datagram_peer() as theirs:
            theirs.sendto(b"x", path)
        await protocol.until(lambda: protocol.got)
        await ended(transport, protocol)
        return protocol.got[0][0]

    with folder() as path:
        with datagram_peer(path):
            pass
        assert os.path.exists(path)
        assert run(main(path)) == b"x"


@clause("unix.datagram.address-types")
@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
def test_an_address_that_is_no_str_raises_type_error(loop, run, argument):
    with folder() as path, pytest.raises(TypeError):
        run(
            loop.create_datagram_endpoint(
                lambda: Collector(loop), family=socket.AF_UNIX, **{argument: ("127.0.0.1", path)}
            )
        )


@clause("unix.datagram.nobody-there")
def test_sending_to_a_path_that_is_not_there_is_told_to_the_protocol(loop, run):
    async def main(path):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(loop), local_addr=path, family=socket.AF_UNIX
        )
        transport.sendto(b"lost", path + "x")
        await protocol.until(lambda: protocol.errors or protocol.lost.done())
        alive = not protocol.lost.done()
        if alive:
            await ended(transport, protocol)
        return alive, [type(error) for error in protocol.errors]

    with folder() as path:
        assert run(main(path)) == (True, [FileNotFoundError])


@clause("unix.datagram.slow-reader")
def test_datagrams_beyond_what_the_kernel_holds_are_kept_and_sent_in_order(loop, run):
    """A Unix datagram socket holds few datagrams (max_dgram_qlen), and a sender waits for room."""
    count = 2000

    async def main(path, theirs):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(loop), remote_addr=path, family=socket.AF_UNIX
        )
        for number in range(count):
            transport.sendto(b"%d" % number)
        held = transport.get_write_buffer_size()
        reading = loop.run_in_executor(None, lambda: [theirs.recv(100) for _ in range(count)])
        got = await reading
        await ended(transport, protocol)
        return held > 0, got

    with folder() as path, datagram_peer(path) as theirs:
        held, got = run(main(path, theirs))
    assert held
    assert got == [b"%d" % number for number in range(count)]
