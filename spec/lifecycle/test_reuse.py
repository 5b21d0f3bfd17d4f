"""A loop that is run several times: what was under way goes on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import socket
import threading

from .._kit import clause, peers


@clause("lifecycle.reuse.tasks-go-on")
def test_a_task_goes_on_in_the_next_run_where_it_was(loop, tick):
    seen = []

    async def main():
        seen.append("begins")
        seen.append(await first)
        seen.append(await second)

    first, second = loop.create_future(), loop.create_future()
    task = loop.create_task(main())
    tick()
    assert seen == ["begins"] and not task.done()
    first.set_result("first")
    tick(3)
    assert seen == ["begins", "first"] and not task.done()
    second.set_result("second")
    loop.run_until_complete(task)
    assert seen == ["begins", "first", "second"]


@clause("lifecycle.reuse.connections-stay")
def test_a_connection_stays_and_what_came_meanwhile_is_read(loop, run):
    class Protocol(asyncio.Protocol):
        def __init__(self):
            self.received = b""
            self.events = []

        def connection_made(self, transport):
            self.events.append("made")

        def data_received(self, data):
            self.received += data
            if self.received.endswith(b"."):
                loop.stop()

        def connection_lost(self, exc):
            self.events.append(exc)
            loop.stop()

    ours, theirs = peers.pair()
    with theirs:
        transport, protocol = run(loop.create_connection(Protocol, sock=ours))
        for part in (b"first.", b"second."):
            theirs.sendall(part)  # while the loop does not run
            loop.run_forever()
            transport.write(b"got " + part)
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert peers.recv_exactly(theirs, len(part) + 4) == b"got " + part
    assert protocol.received == b"first.second." and protocol.events == ["made"]
    loop.run_forever()
    assert protocol.events == ["made", None]


@clause("lifecycle.reuse.servers-stay")
def test_a_server_accepts_in_the_next_run_who_came_meanwhile(loop, run):
    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
            transport.close()
            loop.call_soon(loop.stop)

    made = []
    server = run(loop.create_server(Protocol, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    for number in (1, 2):
        with socket.create_connection(address, timeout=peers.TIMEOUT) as sock:  # while the loop does not run
            loop.run_forever()
            assert len(made) == number
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert sock.recv(1) == b""
    server.close()
    run(server.wait_closed())


@clause("lifecycle.reuse.executor-results-arrive")
def test_what_an_executor_finished_between_two_runs_is_there_in_the_second(loop, run, tick):
    go, done = threading.Event(), threading.Event()

    def work():
        go.wait(peers.TIMEOUT)
        return "result"

    executor = concurrent.futures.ThreadPoolExecutor(1)
    future = loop.run_in_executor(executor, work)
    tick()
    assert not future.done()
    future.add_done_callback(lambda _: done.set())
    go.set()
    executor.shutdown()
    assert run(future) == "result"
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert done.is_set()


@clause("lifecycle.reuse.asyncgens-stay")
def test_an_asynchronous_generator_goes_on_in_the_next_run(loop):
    async def count():
        for number in range(3):
            yield number
            await asyncio.sleep(0)

    generator = count()
    assert [loop.run_until_complete(anext(generator)) for _ in range(3)] == [0, 1, 2]
    loop.run_until_complete(generator.aclose())


@clause("lifecycle.reuse.run-costs-nothing-lasting")
def test_a_thousand_runs_leave_neither_descriptors_nor_threads(loop):
    def count():
        return len(os.listdir("/dev/fd")), threading.active_count()

    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    before = count()
    for number in range(1000):
        assert loop.run_until_complete(asyncio.sleep(0, number)) == number
    assert count() == before


@clause("lifecycle.reuse.stopped-early")
def test_a_future_that_outlived_its_run_stops_no_later_one(loop, tick):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with contextlib.suppress(RuntimeError):
        loop.run_until_complete(future)
    seen = []

    async def main():
        future.set_result(None)  # whose done callback was that of the run before
        for number in range(5):
            await asyncio.sleep(0)
            seen.append(number)
        return "to its end"

    assert loop.run_until_complete(main()) == "to its end"
    assert seen == [0, 1, 2, 3, 4]
