"""Forked processes: a new loop in the child, the old one in the parent."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import time
import warnings

import pytest

from .._kit import clause, peers, programs

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    # Since CPython 3.12, of a process with threads: the suite's peers are some.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


async def echo(loop):
    """Use a loop for what loops are there for; what came back."""
    accepted = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.append(transport)

        def data_received(self, data):
            accepted[0].write(data)

    server = await loop.create_server(Echo, "127.0.0.1", 0)
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        await loop.sock_sendall(sock, b"through the child")
        received = b""
        while len(received) < len(b"through the child"):
            received += await loop.sock_recv(sock, 100)
    server.close()
    accepted[0].close()
    await asyncio.sleep(0.001)
    return received.decode() + await loop.run_in_executor(None, lambda: ", and its threads")


def use_new_loop(factory):
    loop = factory()
    try:
        said = loop.run_until_complete(echo(loop))
        loop.run_until_complete(loop.shutdown_default_executor())
        return said
    finally:
        loop.close()


def wake(loop, future):
    time.sleep(0.05)  # clause-delay: the loop is to be idle by then
    loop.call_soon_threadsafe(future.set_result, None)


ANSWER = "through the child, and its threads"


@clause("lifecycle.fork.no-running-loop")
def test_no_loop_runs_in_the_child(loop, tick):
    def running():
        try:
            return repr(asyncio.get_running_loop())
        except RuntimeError:
            return "none"

    seen = []
    loop.call_soon(lambda: seen.append(programs.forked(running)))
    tick()
    assert seen == ["none"]


@clause("lifecycle.fork.new-loop")
@pytest.mark.parametrize("where", ["callback", "task", "idle"])
def test_the_child_of_a_fork_makes_and_runs_a_loop_of_its_own(loop, tick, run, loop_factory, where):
    seen = []

    def fork():
        seen.append(programs.forked(lambda: use_new_loop(loop_factory)))

    async def main():
        await asyncio.sleep(0.001)
        fork()

    if where == "callback":
        loop.call_soon(fork)
        tick()
    elif where == "task":
        run(main())
    else:
        run(asyncio.sleep(0.001))
        fork()
    assert seen == [ANSWER]
    assert run(asyncio.sleep(0, "goes on")) == "goes on"


@clause("lifecycle.fork.parent-undisturbed")
def test_the_parent_goes_on_with_what_it_has_open(loop, run, loop_factory):
    received = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)
            if not arrived.done():
                arrived.set_result(None)

    async def main():
        nonlocal arrived
        arrived = loop.create_future()
        transport, _ = await loop.create_connection(Protocol, sock=ours)
        watched, fired, woken = loop.create_future(), loop.create_future(), loop.create_future()
        loop.add_reader(reading.fileno(), lambda: (loop.remove_reader(reading.fileno()), watched.set_result(None)))
        loop.call_later(0.01, fired.set_result, None)
        assert programs.forked(lambda: use_new_loop(loop_factory)) == ANSWER
        with peers.thread(wake, loop, woken):
            await woken
        await fired
        writing.send(b"readable")
        await watched
        theirs.sendall(b"received")
        await arrived
        transport.write(b"sent")
        assert peers.recv_exactly(theirs, 4) == b"sent"
        transport.close()
        await asyncio.sleep(0.001)

    arrived = None
    ours, theirs = peers.pair()
    reading, writing = peers.unix_pair()
    with theirs, reading, writing:
        run(main())
        assert peers.recv_all(theirs) == b"", "the child held no copy of the connection"
    assert received == [b"received"]


@clause("lifecycle.fork.closed-in-the-child")
def test_what_the_child_closes_stays_open_in_the_parent(loop, run):
    async def main():
        watched, woken = loop.create_future(), loop.create_future()
        loop.add_reader(reading.fileno(), lambda: (loop.remove_reader(reading.fileno()), watched.set_result(None)))
        await asyncio.sleep(0.001)
        return watched, woken

    async def rest(watched, woken):
        with peers.thread(wake, loop, woken):
            await woken
        writing.send(b"readable")
        await watched

    reading, writing = peers.unix_pair()
    with reading, writing:
        futures = run(main())
        programs.forked(loop.close)
        run(rest(*futures))


@clause("lifecycle.fork.loop-from-before")
def test_a_loop_made_before_the_fork_and_run_by_the_child_alone_works(loop):
    assert programs.forked(lambda: loop.run_until_complete(echo(loop))) == ANSWER


def answer(factory, connection):
    connection.send(use_new_loop(factory))


@clause("lifecycle.fork.multiprocessing")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_of_multiprocessing_runs_a_loop_of_its_own(loop, run, loop_factory):
    context = multiprocessing.get_context("fork")

    async def main():
        ours, theirs = context.Pipe()
        process = context.Process(target=answer, args=(loop_factory, theirs))
        process.start()
        theirs.close()
        readable = loop.create_future()
        loop.add_reader(ours.fileno(), lambda: readable.done() or readable.set_result(None))
        await readable
        loop.remove_reader(ours.fileno())
        said = ours.recv()
        ours.close()
        await loop.run_in_executor(None, process.join)
        status = process.exitcode
        process.close()
        return said, status

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert run(main()) == (ANSWER, 0)
