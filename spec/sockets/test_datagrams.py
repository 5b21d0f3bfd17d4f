"""sock_recvfrom, sock_recvfrom_into, sock_sendto, and the others on datagram sockets."""

from __future__ import annotations

import array
import asyncio
import errno
import socket

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import pair
from .helpers import Late, datagram, skip_unless_implemented, turns


@clause("sockets.recvfrom.waits-for-datagram")
def test_recvfrom_waits_for_a_late_datagram(loop, run):
    async def main():
        with datagram() as ours, datagram() as theirs:
            for text in (b"first", b"second"):
                late = Late()
                with peers.thread(late, theirs.sendto, text, ours.getsockname()):
                    assert await loop.sock_recvfrom(ours, 100) == (text, theirs.getsockname())
                    assert late.acted

    run(main())


@clause("sockets.recvfrom.waits-for-datagram")
def test_recvfrom_returns_a_datagram_that_was_there(loop, run):
    async def main():
        with datagram() as ours, datagram() as theirs:
            theirs.sendto(b"there", ours.getsockname())
            result = await loop.sock_recvfrom(ours, 100)
            assert isinstance(result, tuple)
            assert result == (b"there", theirs.getsockname())

    run(main())


@clause("sockets.recvfrom.waits-for-datagram")
@pytest.mark.skipif(not peers.has_ipv6(), reason="no IPv6 on this machine")
def test_recvfrom_over_ipv6_returns_the_four_parts_of_the_address(loop, run):
    async def main():
        with datagram(socket.AF_INET6) as ours, datagram(socket.AF_INET6) as theirs:
            await loop.sock_sendto(theirs, b"six", ours.getsockname())
            assert await loop.sock_recvfrom(ours, 100) == (b"six", theirs.getsockname())

    run(main())


@clause("sockets.recvfrom-into.waits-for-datagram")
@pytest.mark.parametrize("make", [bytearray, lambda n: array.array("B", bytes(n)), lambda n: memoryview(bytearray(n))])
def test_recvfrom_into_waits_and_writes_exactly_the_datagram(loop, run, make):
    async def main():
        with datagram() as ours, datagram() as theirs:
            buffer = make(8)
            late = Late()
            with peers.thread(late, theirs.sendto, b"abc", ours.getsockname()):
                assert await loop.sock_recvfrom_into(ours, buffer) == (3, theirs.getsockname())
                assert late.acted
            assert bytes(buffer) == b"abc" + bytes(5)

    run(main())


@clause("sockets.recvfrom-into.nbytes")
@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
def test_recvfrom_into_receives_at_most_nbytes(loop, run, late):
    async def receive(ours, theirs, *args):
        send = (theirs.sendto, b"0123456789", ours.getsockname())
        buffer = bytearray(b"." * 8)
        with peers.thread(Late(), *send) if late else peers.thread(*send):
            count, _ = await loop.sock_recvfrom_into(ours, buffer, *args)
        return count, bytes(buffer)

    async def main():
        with datagram() as ours, datagram() as theirs:
            assert await receive(ours, theirs, 4) == (4, b"0123....")
            assert await receive(ours, theirs) == (8, b"01234567")
            assert await receive(ours, theirs, 0) == (8, b"01234567")

    run(main())


@clause("sockets.datagrams.boundaries")
@pytest.mark.parametrize("operation", ["recvfrom", "recvfrom_into", "recv", "recv_into"])
@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
def test_datagrams_are_received_one_by_one_even_empty_ones(loop, run, operation, late):
    skip_unless_implemented(loop, operation)
    sent = [b"one", b"", b"three", b"", b"", b"x" * 1000, b"last"]

    def send(theirs, address):
        for data in sent:
            theirs.sendto(data, address)

    async def receive(sock):
        buffer = bytearray(2000)
        if operation == "recvfrom":
            return (await loop.sock_recvfrom(sock, 2000))[0]
        if operation == "recv":
            return await loop.sock_recv(sock, 2000)
        if operation == "recv_into":
            return bytes(buffer[: await loop.sock_recv_into(sock, buffer)])
        return bytes(buffer[: (await loop.sock_recvfrom_into(sock, buffer))[0]])

    async def main():
        with datagram() as ours, datagram() as theirs:
            act = (send, theirs, ours.getsockname())
            with peers.thread(Late(), *act) if late else peers.thread(*act) as peer:
                if not late:
                    peer.result()
                assert [await receive(ours) for _ in sent] == sent

    run(main())


@clause("sockets.datagrams.boundaries")
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["datagram", "seqpacket"])
def test_unix_messages_are_received_one_by_one(loop, run, kind):
    async def main():
        try:
            made = pair(kind)
            made.__enter__()
        except OSError as error:
            pytest.skip(str(error))
        made.__exit__(None, None, None)
        with pair(kind) as (ours, theirs):
            for data in (b"one", b"two", b"three"):
                theirs.send(data)
            assert [await loop.sock_recv(ours, 100) for _ in range(3)] == [b"one", b"two", b"three"]
            with peers.thread(Late(), theirs.send, b"late"):
                assert await loop.sock_recv(ours, 100) == b"late"
            await loop.sock_sendall(ours, b"a")
            await loop.sock_sendall(ours, b"b")
            assert [theirs.recv(100), theirs.recv(100)] == [b"a", b"b"]

    run(main())


@clause("sockets.datagrams.truncated")
@pytest.mark.parametrize("operation", ["recv", "recvfrom"])
def test_what_is_too_long_is_cut_and_the_next_datagram_is_whole(loop, run, operation):
    skip_unless_implemented(loop, operation)

    async def receive(sock, size):
        return await loop.sock_recv(sock, size) if operation == "recv" else (await loop.sock_recvfrom(sock, size))[0]

    async def main():
        with datagram() as ours, datagram() as theirs:
            for data in (b"0123456789", b"second", b"0123456789", b"fourth"):
                theirs.sendto(data, ours.getsockname())
            assert [await receive(ours, size) for size in (4, 100, 4, 100)] == [b"0123", b"second", b"0123", b"fourth"]

    run(main())


@clause("sockets.datagrams.refused")
@pytest.mark.parametrize("waiting", [False, True], ids=["there", "waiting"])
def test_a_closed_port_refuses_a_connected_datagram_socket(loop, run, waiting):
    async def main():
        with datagram() as ours:
            with datagram() as closed:
                address = closed.getsockname()
            await loop.sock_connect(ours, address)
            if waiting:
                receiving = asyncio.create_task(loop.sock_recv(ours, 100))
                await turns()
                ours.send(b"x")
            else:
                ours.send(b"x")
                receiving = asyncio.create_task(loop.sock_recv(ours, 100))
            with pytest.raises(ConnectionRefusedError):
                await receiving

    run(main())


@clause("sockets.sendto.sends")
@pytest.mark.parametrize("data", [b"hello", b"", bytearray(b"hello"), memoryview(b"hello")], ids=repr)
def test_sendto_sends_one_datagram_and_returns_its_size(loop, run, data):
    async def main():
        with datagram() as ours, datagram() as theirs:
            assert await loop.sock_sendto(ours, data, theirs.getsockname()) == len(data)
            assert await loop.sock_recvfrom(theirs, 100) == (bytes(data), ours.getsockname())

    run(main())


@clause("sockets.sendto.waits-for-room")
def test_sendto_waits_while_the_queue_of_the_receiver_is_full(loop, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a Unix address is short

    def receive(theirs, count):
        return [theirs.recv(100) for _ in range(count)]

    async def main():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
            theirs.bind("receiver")
            theirs.settimeout(15)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
                ours.setblocking(False)
                count = 0
                try:
                    while True:
                        ours.sendto(b"queued", "receiver")
                        count += 1
                except BlockingIOError:
                    pass
                late = Late()
                with peers.thread(late, receive, theirs, count + 1) as receiver:
                    assert await loop.sock_sendto(ours, b"waited", "receiver") == 6
                    assert late.acted
                assert receiver.result() == [b"queued"] * count + [b"waited"]

    run(main())


@clause("sockets.sendto.errors")
def test_sendto_refuses_what_is_too_long_and_what_is_no_address(loop, run):
    async def main():
        with datagram() as ours, datagram() as theirs:
            with pytest.raises(OSError) as caught:
                await loop.sock_sendto(ours, bytes(100_000), theirs.getsockname())
            assert caught.value.errno == errno.EMSGSIZE
            for address in (None, 5, "127.0.0.1"):
                with pytest.raises(TypeError):
                    await loop.sock_sendto(ours, b"x", address)
            with pytest.raises(TypeError):
                await loop.sock_sendto(ours, "text", theirs.getsockname())
            assert await loop.sock_sendto(ours, b"x", theirs.getsockname()) == 1

    run(main())
