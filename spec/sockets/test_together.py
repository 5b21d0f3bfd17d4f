"""Operations at the same time: on one socket, on many, and beside watchers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import drain, fill, pair
from .helpers import Late, pattern, turns

PAIRS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])
CHAIN_LIMIT = 16 + 4
"""Links of a chain that may run before an operation whose socket is ready completes."""


@clause("sockets.together.read-and-write")
@PAIRS
def test_one_task_receives_while_another_sends_on_the_same_socket(loop, run, make):
    data = pattern(3_000_000)

    def echo(theirs):
        at = 0
        while at < len(data):
            chunk = theirs.recv(70_000)
            theirs.sendall(chunk)
            at += len(chunk)

    async def receive(ours):
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(ours, 50_000)
        return got

    async def main(ours, theirs):
        with peers.thread(echo, theirs):
            receiving = asyncio.create_task(receive(ours))
            await turns()
            await loop.sock_sendall(ours, data)
            assert await receiving == data

    ours, theirs = make()
    with ours, theirs:
        run(main(ours, theirs))


@clause("sockets.together.read-and-write")
def test_a_waiting_receive_is_not_disturbed_by_sends_nor_a_waiting_send_by_receives(loop, run):
    async def main():
        with pair() as (ours, theirs):
            receiving = asyncio.create_task(loop.sock_recv(ours, 100))
            await turns()
            for _ in range(10):
                await loop.sock_sendall(ours, b"x")
            assert not receiving.done()
            filled = fill(ours)
            sending = asyncio.create_task(loop.sock_sendall(ours, b"y"))
            await turns()
            theirs.send(b"data")
            assert await receiving == b"data"
            for number in range(5):
                theirs.send(b"%d" % number)
                assert await loop.sock_recv(ours, 100) == b"%d" % number
            assert not sending.done()
            got = drain(theirs)
            await sending
            assert got + drain(theirs) == b"x" * 10 + bytes(filled) + b"y"

    run(main())


@clause("sockets.together.many-sockets")
@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_each_of_many_waiting_receives_gets_its_own_data(loop, run, order):
    count = 200

    async def main():
        with ExitStack() as stack:
            pairs = [stack.enter_context(pair()) for _ in range(count)]
            for number in range(3):
                tasks = [asyncio.create_task(loop.sock_recv(ours, 100)) for ours, _ in pairs]
                await turns()
                indices = range(count) if order == "forwards" else reversed(range(count))
                for index in indices:
                    pairs[index][1].send(b"%d for %d" % (number, index))
                assert await asyncio.gather(*tasks) == [b"%d for %d" % (number, index) for index in range(count)]

    run(main())


@clause("sockets.together.both-ends")
def test_both_ends_play_ping_pong_in_one_loop(loop, run):
    async def play(sock, rounds, starts):
        got = []
        for number in range(rounds):
            if starts:
                await loop.sock_sendall(sock, b"%d" % number)
            got.append(await loop.sock_recv(sock, 100))
            if not starts:
                await loop.sock_sendall(sock, got[-1])
        return got

    async def main():
        with pair() as (one, two):
            results = await asyncio.gather(play(one, 500, True), play(two, 500, False))
        assert results == [[b"%d" % number for number in range(500)]] * 2

    run(main())


@clause("sockets.together.with-watchers-of-others")
def test_operations_and_watchers_of_other_sockets_work_side_by_side(loop, run):
    async def main():
        with pair() as (ours, theirs), pair() as (watched, their_watched), pair() as (full, their_full):
            read = []
            room = []
            fill(full)
            loop.add_reader(watched.fileno(), lambda: read.append(watched.recv(1)))
            loop.add_writer(full.fileno(), lambda: (room.append(True), loop.remove_writer(full.fileno())))
            for number in range(20):
                waiting = asyncio.create_task(loop.sock_recv(ours, 100))
                await turns()
                their_watched.send(b"ab")
                theirs.send(b"%d" % number)
                assert await waiting == b"%d" % number
            assert room == []
            drain(their_full)
            while len(read) < 40 or not room:
                await asyncio.sleep(0)
            assert b"".join(read) == b"ab" * 20
            loop.remove_reader(watched.fileno())

    run(main())


@clause("sockets.together.with-watchers-of-the-same")
def test_operations_and_watchers_take_turns_on_one_socket(loop, run):
    async def watch(ours):
        """Read two bytes by a watcher, one a call: the socket must be level-triggered for it."""
        got = []
        done = loop.create_future()

        def reader():
            got.append(ours.recv(1))
            if len(got) == 2:
                loop.remove_reader(ours.fileno())
                done.set_result(b"".join(got))

        loop.add_reader(ours.fileno(), reader)
        return await done

    async def main():
        with pair() as (ours, theirs):
            for number in range(5):
                with peers.thread(Late(), theirs.send, b"op"):
                    assert await loop.sock_recv(ours, 100) == b"op"
                with peers.thread(Late(), theirs.send, b"wa"):
                    assert await watch(ours) == b"wa"
                theirs.send(b"%dabc" % number)
                assert await loop.sock_recv(ours, 2) == b"%da" % number
                assert await watch(ours) == b"bc"
                room = loop.create_future()
                loop.add_writer(ours.fileno(), lambda room=room: room.done() or room.set_result(None))
                await room
                loop.remove_writer(ours.fileno())
                await loop.sock_sendall(ours, b"sent")
                assert drain(theirs) == b"sent"

    run(main())


@clause("sockets.together.with-watchers-of-the-same")
def test_a_watcher_in_one_direction_and_an_operation_in_the_other(loop, run):
    async def main():
        with pair() as (ours, theirs):
            filled = fill(ours)
            room = []
            loop.add_writer(ours.fileno(), lambda: (room.append(True), loop.remove_writer(ours.fileno())))
            for text in (b"one", b"two"):
                receiving = asyncio.create_task(loop.sock_recv(ours, 100))
                await turns()
                assert not receiving.done()
                theirs.send(text)
                assert await receiving == text
            assert room == []
            assert len(drain(theirs)) == filled
            while not room:
                await asyncio.sleep(0)
            read = []
            loop.add_reader(ours.fileno(), lambda: read.append(ours.recv(1)))
            fill(ours)
            sending = asyncio.create_task(loop.sock_sendall(ours, b"sent"))
            await turns()
            theirs.send(b"abc")
            while len(read) < 3:
                await asyncio.sleep(0)
            assert not sending.done()
            drain(theirs)
            await sending
            assert drain(theirs) == b"sent"
            loop.remove_reader(ours.fileno())
            assert read == [b"a", b"b", b"c"]

    run(main())


@clause("sockets.together.duplicated-sockets")
def test_a_socket_and_its_duplicate_are_used_side_by_side(loop, run):
    async def main():
        with pair() as (ours, theirs):
            twin = ours.dup()
            with twin:
                twin.setblocking(False)
                theirs.send(b"one")
                assert await loop.sock_recv(ours, 100) == b"one"
                theirs.send(b"two")
                assert await loop.sock_recv(twin, 100) == b"two"
                # One found it empty; what comes then is for whoever asks.
                waiting = asyncio.create_task(loop.sock_recv(ours, 100))
                await turns()
                theirs.send(b"three")
                assert await waiting == b"three"
                theirs.send(b"four")
                assert await loop.sock_recv(twin, 100) == b"four"
                receiving = asyncio.create_task(loop.sock_recv(twin, 100))
                await turns()
                ours.close()
                await turns()
                theirs.send(b"five")
                assert await receiving == b"five"
                await loop.sock_sendall(twin, b"six")
                assert drain(theirs) == b"six"

    run(main())


@clause("sockets.together.fairness")
@pytest.mark.parametrize("operation", ["recv", "sendall", "accept"])
@pytest.mark.parametrize("kind", ["callbacks", "tasks"])
def test_a_chain_that_never_ends_does_not_starve_an_operation(loop, run, operation, kind, saw):
    links = 0
    ready_at = None

    def link():
        nonlocal links, ready_at
        links += 1
        if links == 50:
            make_ready()
            ready_at = links
        return links < 20_000 and not waiting.done()

    def chain():
        if link():
            loop.call_soon(chain)

    async def tasks():
        while link():
            await asyncio.sleep(0)

    async def main():
        nonlocal waiting, make_ready
        with pair() as (ours, theirs), peers.listener() as listener, ExitStack() as stack:
            fill(ours)
            if operation == "recv":
                call, make_ready = loop.sock_recv(ours, 100), lambda: theirs.send(b"x")
            elif operation == "sendall":
                call, make_ready = loop.sock_sendall(ours, b"x"), lambda: drain(theirs)
            else:
                call = loop.sock_accept(listener)
                # The three-way handshake is over, so the listener is readable, when connect() returns.
                make_ready = lambda: stack.enter_context(connect(listener))  # noqa: E731

            async def operate():
                result = await call
                return links, result

            waiting = asyncio.create_task(operate())
            await turns()
            if kind == "callbacks":
                loop.call_soon(chain)
                at, result = await waiting
            else:
                (at, result), _ = await asyncio.gather(waiting, tasks())
            if operation == "accept":
                result[0].close()
            return at

    waiting = make_ready = None
    at = run(main())
    assert ready_at is not None
    assert at - ready_at <= CHAIN_LIMIT
    saw("sockets.together.fairness", "at most 3 links run" if at - ready_at <= 3 else "4 to 20 links run")


def connect(listener):
    return socket.create_connection(listener.getsockname(), 15)
