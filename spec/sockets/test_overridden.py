"""Sockets whose methods are not socket.socket's own."""

from __future__ import annotations

import socket
from unittest import mock

import pytest

from .._kit import clause, peers


class Shouting(socket.socket):
    """Sends in capitals, receives in small letters."""

    def send(self, data, *args):
        return super().send(bytes(data).upper(), *args)

    def recv(self, *args):
        return super().recv(*args).lower()

    def recv_into(self, buffer, *args):
        count = super().recv_into(buffer, *args)
        buffer[:count] = bytes(buffer[:count]).lower()
        return count


def shouting_pair():
    ours, theirs = peers.pair()
    ours.setblocking(False)
    return Shouting(ours.family, ours.type, ours.proto, ours.detach()), theirs


@clause("sockets.types.overridden")
def test_a_socket_with_methods_of_its_own_is_asked_by_them(loop, run):
    ours, theirs = shouting_pair()
    with ours, theirs:

        async def main():
            await loop.sock_sendall(ours, b"x")
            assert theirs.recv(9) == b"X"
            theirs.send(b"Y")
            assert await loop.sock_recv(ours, 9) == b"y"
            buffer = bytearray(9)
            theirs.send(b"Z")
            assert await loop.sock_recv_into(ours, buffer) == 1 and buffer[:1] == b"z"

        run(main())


@clause("sockets.types.overridden")
def test_it_is_asked_again_when_it_had_to_wait(loop, run):
    ours, theirs = shouting_pair()
    with ours, theirs:

        async def main():
            loop.call_later(0.01, theirs.send, b"LATE")
            assert await loop.sock_recv(ours, 9) == b"late"

        run(main())


@clause("sockets.types.overridden")
@pytest.mark.parametrize("method", ["recv", "send", "recv_into"])
def test_a_method_that_was_replaced_on_the_class_is_called(loop, run, method):
    called = []
    original = getattr(socket.socket, method)

    def replaced(self, *args):
        called.append(method)
        return original(self, *args)

    ours, theirs = peers.pair()
    ours.setblocking(False)
    with ours, theirs:

        async def main():
            await loop.sock_sendall(ours, b"x")
            assert theirs.recv(9) == b"x"
            theirs.send(b"y")
            if method == "recv_into":
                assert await loop.sock_recv_into(ours, bytearray(9)) == 1
            else:
                assert await loop.sock_recv(ours, 9) == b"y"

        run(main())
        assert not called
        with mock.patch.object(socket.socket, method, replaced):
            run(main())
        count = len(called)
        assert count >= 1
        run(main())
        assert len(called) == count


@clause("sockets.types.overridden")
def test_what_such_a_method_raises_is_raised(loop, run):
    class Broken(socket.socket):
        def recv(self, *_):
            raise LookupError("mine")

    ours, theirs = peers.pair()
    ours.setblocking(False)
    broken = Broken(ours.family, ours.type, ours.proto, ours.detach())
    with broken, theirs:

        async def main():
            with pytest.raises(LookupError):
                await loop.sock_recv(broken, 9)

        run(main())
