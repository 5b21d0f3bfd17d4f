"""The socket under a transport: options, addresses, IPv6 and resets."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, turns
from .makers import shrink
from .serving import Echo


@clause("tcp.socket.nodelay")
def test_nagles_algorithm_is_off_at_both_ends(loop, run):
    async def main():
        accepted = Recorder(loop)
        server = await loop.create_server(lambda: accepted, "127.0.0.1", 0)
        client = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: client, *server.sockets[0].getsockname())
        await accepted.called("connection_made")
        options = [
            end.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for end in (transport, accepted.transport)
        ]
        transport.close()
        server.close()
        await client.lost
        await accepted.lost
        return options

    assert all(run(main()))


@clause("tcp.socket.not-inheritable")
def test_no_socket_of_a_server_or_of_its_connections_is_inherited(loop, run):
    async def main():
        accepted = Recorder(loop)
        server = await loop.create_server(lambda: accepted, "127.0.0.1", 0)
        client = Recorder(loop)
        listening = server.sockets[0]
        transport, _ = await loop.create_connection(lambda: client, *listening.getsockname())
        await accepted.called("connection_made")
        ends = [end.get_extra_info("socket") for end in (transport, accepted.transport)]
        inherited = [os.get_inheritable(sock.fileno()) for sock in (listening, *ends)]
        transport.close()
        server.close()
        await client.lost
        await accepted.lost
        return inherited

    assert run(main()) == [False, False, False]


@clause("tcp.ipv6.echo")
def test_ipv6_connections_are_made_and_served(loop, run):
    if not peers.has_ipv6():
        pytest.skip("no IPv6 on this machine")

    async def main():
        server = await loop.create_server(Echo, "::1", 0)
        sock = server.sockets[0]
        assert sock.family == socket.AF_INET6
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, "::1", sock.getsockname()[1])
        transport.write(b"six")
        await protocol.received(3)
        same = transport.get_extra_info("peername")[:2] == sock.getsockname()[:2]
        transport.close()
        await protocol.lost
        server.close()
        return bytes(protocol.data), same

    assert run(main()) == (b"six", True)


@clause("tcp.reset.connection-reset-error")
def test_a_reset_by_the_peer_is_connection_lost_with_connection_reset_error(loop, run):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = peers.pair()
        await loop.create_connection(lambda: protocol, sock=ours)
        peers.reset(theirs)
        return await protocol.lost, protocol.calls

    reason, calls = run(main())
    assert isinstance(reason, ConnectionResetError)
    assert calls == ["connection_made", "connection_lost"]


@clause("tcp.reset.while-writing")
@pytest.mark.parametrize("reading", [True, False])
def test_a_reset_with_data_queued_is_connection_lost_with_the_error(loop, run, reading, saw):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = peers.pair()
        shrink(ours, theirs)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        if not reading:
            transport.pause_reading()
        transport.write(pattern(MORE_THAN_THE_KERNEL_TAKES))
        await turns(10)
        queued = transport.get_write_buffer_size()
        peers.reset(theirs)
        reason = await protocol.lost
        return queued, reason, transport.get_write_buffer_size(), protocol.calls

    queued, reason, left, calls = run(main())
    assert queued > 0
    assert isinstance(reason, (ConnectionResetError, BrokenPipeError))
    assert left == 0
    assert calls == ["connection_made", "pause_writing", "connection_lost"]
    saw("tcp.reset.while-writing", type(reason).__name__)


@clause("tcp.reset.found-by-write")
def test_a_write_that_finds_the_reset_raises_nothing_and_ends_the_connection(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = peers.pair()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        transport.pause_reading()
        peers.reset(theirs)
        transport.write(b"x")
        inline = protocol.lost.done()
        transport.write(b"y")
        return inline, await protocol.lost

    inline, reason = run(main())
    assert not inline
    assert isinstance(reason, (ConnectionResetError, BrokenPipeError))
    saw("tcp.reset.found-by-write", type(reason).__name__)


@clause("tcp.info.addresses")
def test_extra_info_has_the_socket_and_both_addresses(loop, run):
    async def main():
        accepted = Recorder(loop)
        server = await loop.create_server(lambda: accepted, "127.0.0.1", 0)
        listening = server.sockets[0].getsockname()
        client = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: client, *listening)
        await accepted.called("connection_made")
        facts = []
        for end in (transport, accepted.transport):
            sock = end.get_extra_info("socket")
            facts.append((end.get_extra_info("sockname"), end.get_extra_info("peername")))
            assert sock.getsockname() == end.get_extra_info("sockname")
            assert sock.getpeername() == end.get_extra_info("peername")
            assert sock.family == socket.AF_INET
            assert sock.type == socket.SOCK_STREAM
        transport.close()
        server.close()
        await client.lost
        await accepted.lost
        after = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        return listening, facts, after

    listening, (near, far), after = run(main())
    assert near == after  # they stay after the connection is lost
    assert near[1] == far[0] == listening
    assert near[0] == far[1]


@clause("tcp.info.real-socket")
def test_the_extra_info_socket_is_the_connection_itself(loop, run):
    """Options set on it count, and its descriptor is the connection's."""

    async def main():
        ours, theirs = peers.pair()
        fd = ours.fileno()
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        facts = (
            sock.fileno() == fd,
            bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
            os.fstat(sock.fileno()).st_ino == os.fstat(fd).st_ino,
        )
        transport.close()
        await protocol.lost
        theirs.close()
        return facts

    assert run(main()) == (True, True, True)


@clause("tcp.read.behind-urgent-data")
def test_what_follows_urgent_data_is_received(loop, run):
    async def main(ours, theirs):
        client = Recorder(loop)
        # All of it is there before the loop looks: nothing wakes the loop for the part behind the urgent byte alone.
        theirs.sendall(b"before")
        theirs.send(b"!", socket.MSG_OOB)
        theirs.sendall(b"behind")
        transport, _ = await loop.create_connection(lambda: client, sock=ours)
        await client.received(12)
        transport.close()
        await client.lost
        return bytes(client.data)

    ours, theirs = peers.pair()
    with theirs:
        assert run(main(ours, theirs)) == b"beforebehind"


class Shouting(socket.socket):
    """Sends in capitals, receives in small letters."""

    def send(self, data, *flags):
        return super().send(bytes(data).upper(), *flags)

    def sendmsg(self, buffers, *more):
        return super().sendmsg([bytes(data).upper() for data in buffers], *more)

    def recv(self, *size):
        return super().recv(*size).lower()

    def recv_into(self, buffer, *more):
        size = super().recv_into(buffer, *more)
        buffer[:size] = bytes(buffer[:size]).lower()
        return size


class BufferedRecorder(asyncio.BufferedProtocol):
    def __init__(self, loop):
        self.buffer, self.read, self.lost = bytearray(64), loop.create_future(), loop.create_future()

    def get_buffer(self, _):
        return self.buffer

    def buffer_updated(self, size):
        self.read.set_result(bytes(self.buffer[:size]))

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def shouting_pair():
    ours, theirs = peers.pair()
    ours.setblocking(False)
    shrink(ours, theirs)
    return Shouting(ours.family, ours.type, ours.proto, ours.detach()), theirs


@clause("tcp.socket.overridden")
def test_a_socket_with_methods_of_its_own_is_asked_by_them(loop, run):
    async def main(ours, theirs):
        client = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: client, sock=ours)
        theirs.sendall(b"HERE")
        await client.received(4)
        sent = b"x" * MORE_THAN_THE_KERNEL_TAKES
        transport.write(sent)
        transport.write(b"the end")
        transport.close()
        with ThreadPoolExecutor(1) as pool:
            there = await loop.run_in_executor(pool, peers.recv_all, theirs)
        await client.lost
        return bytes(client.data), there == sent.upper() + b"THE END"

    ours, theirs = shouting_pair()
    with theirs:
        assert run(main(ours, theirs)) == (b"here", True)


@clause("tcp.socket.overridden")
def test_it_is_asked_to_receive_into_a_buffer(loop, run):
    async def main(ours, theirs):
        transport, client = await loop.create_connection(lambda: BufferedRecorder(loop), sock=ours)
        theirs.sendall(b"HERE")
        read = await client.read
        transport.close()
        await client.lost
        return read

    ours, theirs = shouting_pair()
    with theirs:
        assert run(main(ours, theirs)) == b"here"


@clause("tcp.socket.extra-info-replaced")
def test_who_replaces_get_extra_info_on_asyncios_class_is_asked(loop, run):
    async def main():
        client = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: client, sock=ours)
        with mock.patch("asyncio.Transport.get_extra_info", return_value="said") as replaced:
            said = transport.get_extra_info("sockname")
            replaced.assert_called_with("sockname")
        with mock.patch("asyncio.Transport.get_extra_info", lambda self, *args: (self, args)):
            bound = transport.get_extra_info("peername", 1) == (transport, ("peername", 1))
        told = transport.get_extra_info("sockname")
        transport.close()
        await client.lost
        return said, bound, told

    ours, theirs = peers.pair()
    with theirs:
        assert run(main()) == ("said", True, theirs.getpeername())
