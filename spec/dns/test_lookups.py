"""Lookups under way: the loop goes on, they can be cancelled, there can be many. No name server is asked."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import socket
import threading

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from .asking import outcome, outcome_of

SURELY = 10
"""Seconds for what must happen; a failing test waits that long."""


class Blocked:
    """`socket.getaddrinfo` and `getnameinfo` that wait until they are let go."""

    def __init__(self, monkeypatch):
        self.entered = threading.Event()
        self.go = threading.Event()
        for name in ("getaddrinfo", "getnameinfo"):
            monkeypatch.setattr(socket, name, self._waiting(getattr(socket, name)))

    def _waiting(self, original):
        def lookup(*args, **kwargs):
            self.entered.set()
            assert self.go.wait(SURELY), "the loop stood still"
            return original(*args, **kwargs)

        return lookup

    async def waits(self, task):
        """Wait until the lookup of `task` does; skip the test where the loop asks somebody else and is done."""
        while not self.entered.is_set():
            if task.done():
                await asyncio.gather(task, return_exceptions=True)
                pytest.skip("this loop does not look names up by the socket module")
            await asyncio.sleep(0)


@pytest.fixture
def blocked(monkeypatch):
    blocked = Blocked(monkeypatch)
    yield blocked
    blocked.go.set()


def lookups(loop):
    return {
        "getaddrinfo": lambda: loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM),
        "getnameinfo": lambda: loop.getnameinfo(("127.0.0.1", 80)),
    }


EITHER = pytest.mark.parametrize("which", ["getaddrinfo", "getnameinfo"])


@clause("dns.lookup.loop-goes-on")
@EITHER
def test_callbacks_and_timers_run_while_a_lookup_waits(loop, run, blocked, which):
    async def main():
        task = loop.create_task(lookups(loop)[which]())
        await blocked.waits(task)
        await turns(20)
        await asyncio.sleep(0.01)  # clause-delay
        done = task.done()
        blocked.go.set()
        return await task, done

    result, early = run(main())
    assert result
    assert not early


@clause("dns.cancel.pending")
@EITHER
def test_a_lookup_that_waits_can_be_cancelled_and_its_late_result_is_dropped(loop, run, blocked, which):
    async def main():
        task = loop.create_task(lookups(loop)[which]())
        await blocked.waits(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        blocked.go.set()
        return await lookups(loop)[which]()

    assert run(main())


@clause("dns.cancel.timeout")
def test_a_lookup_that_waits_is_ended_by_a_timeout(loop, run, blocked):
    async def main():
        task = loop.create_task(loop.getaddrinfo("localhost", 80))
        await blocked.waits(task)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await task
        return task.cancelled()

    assert run(main())


@clause("dns.cancel.before-start")
@EITHER
def test_a_lookup_cancelled_before_it_starts_is_not_made(loop, run, monkeypatch, which):
    asked = []
    for name in ("getaddrinfo", "getnameinfo"):
        monkeypatch.setattr(socket, name, lambda *args, **kwargs: asked.append(args))

    async def main():
        task = loop.create_task(lookups(loop)[which]())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns(20)
        return asked

    assert run(main()) == []


@clause("dns.lookup.concurrent")
def test_hundreds_of_lookups_at_once_each_get_their_own_answer(loop, run):
    async def one(number):
        host = ("localhost", "127.0.0.1", "127.0.0.2", None)[number % 4]
        port = 1000 + number
        infos = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        service = await loop.getnameinfo(infos[0][4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        expected = {"localhost": "127.0.0.1", None: "127.0.0.1"}.get(host, host)
        return service == (expected, str(port))

    async def main():
        return await asyncio.gather(*(one(number) for number in range(300)))

    assert all(run(main()))


@clause("dns.lookup.concurrent")
def test_lookups_of_two_loops_in_two_threads_do_not_mix(new_loop):
    def work(loop, port):
        async def main():
            return [await loop.getaddrinfo("localhost", port, type=socket.SOCK_STREAM) for _ in range(50)]

        return loop.run_until_complete(asyncio.wait_for(main(), SURELY))

    threads = [peers.thread(work, new_loop(), port) for port in (1001, 1002)]
    for thread, port in zip(threads, (1001, 1002), strict=True):
        assert {info[4][1] for infos in thread.result() for info in infos} == {port}


class Recording(concurrent.futures.ThreadPoolExecutor):
    """The executor, with the names of what was submitted."""

    def __init__(self):
        super().__init__(1)
        self.submitted = []

    def submit(self, function, /, *args, **kwargs):
        self.submitted.append(function.__name__)
        return super().submit(function, *args, **kwargs)


@clause("dns.lookup.default-executor")
@EITHER
def test_names_are_looked_up_in_the_default_executor(loop, run, which):
    executor = Recording()
    loop.set_default_executor(executor)
    run(lookups(loop)[which]())
    assert executor.submitted == [which]


@clause("dns.lookup.closed-loop")
@EITHER
@pytest.mark.parametrize("numeric", [False, True])
def test_a_closed_loop_raises_runtime_error(new_loop, run, which, numeric):
    closed = new_loop()
    closed.close()
    asks = lookups(closed)[which]
    if numeric:
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        asks = {
            "getaddrinfo": lambda: closed.getaddrinfo("127.0.0.1", 80),
            "getnameinfo": lambda: closed.getnameinfo(("127.0.0.1", 80), flags),
        }[which]

    async def main():
        with pytest.raises(RuntimeError):
            await asks()

    run(main())


@clause("dns.debug.logged")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("slow", [False, True])
def test_lookups_are_logged_in_debug_mode_and_slow_ones_as_information(loop, run, caplog, host, slow):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0 if slow else 3600.0
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        infos = run(loop.getaddrinfo(host, 80, family=socket.AF_INET, type=socket.SOCK_STREAM))
    assert infos == socket.getaddrinfo(host, 80, socket.AF_INET, socket.SOCK_STREAM)
    said = [(record.levelno, record.getMessage()) for record in caplog.records if "address info" in record.getMessage()]
    (first, asking), (second, answer) = said
    assert (first, second) == (logging.DEBUG, logging.INFO if slow else logging.DEBUG)
    assert asking.startswith(f"Get address info {host}:80, family=")
    assert re.fullmatch(rf"Getting address info {re.escape(host)}:80, .* took \d+\.\d{{3}}ms: \[.*\]", answer)


@clause("dns.debug.errors")
@pytest.mark.parametrize("host", ["127.0.0.1", "x" * 64])
def test_a_lookup_that_fails_in_debug_mode_raises_the_same(loop, run, host):
    loop.set_debug(True)

    async def main():
        return await outcome_of(loop.getaddrinfo(host, 80, family=socket.AF_INET6))

    kind, number = outcome(socket.getaddrinfo, host, 80, family=socket.AF_INET6)
    got = run(main())
    assert issubclass(got[0], (socket.gaierror, UnicodeError))
    assert issubclass(got[0], kind) and got[1] == number


@clause("dns.connect.by-name")
def test_servers_and_connections_are_made_by_name(loop, run):
    async def main():
        accepted, client = Recorder(loop), Recorder(loop)
        server = await loop.create_server(lambda: accepted, "localhost", 0, family=socket.AF_INET)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(lambda: client, "localhost", port)
        transport.write(b"hello")
        await accepted.received(5)
        transport.close()
        server.close()
        await client.lost
        await accepted.lost
        return bytes(accepted.data)

    assert run(main()) == b"hello"


@clause("dns.connect.own-getaddrinfo")
def test_connections_are_made_where_getaddrinfo_of_the_loop_says(loop, run, monkeypatch):
    """Programs put resolvers of their own there."""
    asked = []

    async def getaddrinfo(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    async def main(addr):
        client = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: client, "a-name.invalid", addr[1])
        await client.received(5)
        transport.close()
        await client.lost
        return bytes(client.data)

    with peers.serve(lambda conn: conn.sendall(b"hello")) as addr:
        assert run(main(addr)) == b"hello"
    assert asked == ["a-name.invalid"]


@clause("dns.connect.cancelled")
def test_a_connection_is_cancelled_while_its_name_is_looked_up(loop, run, blocked):
    made = []

    async def main():
        task = loop.create_task(loop.create_connection(lambda: made.append(1), "localhost", 9))
        await blocked.waits(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        blocked.go.set()
        return await loop.getaddrinfo("localhost", 80)

    assert run(main())
    assert made == []


@clause("dns.lookup.from-a-thread")
def test_a_lookup_that_is_asked_for_from_another_thread_is_made(loop, run):
    async def main():
        def ask():
            future = asyncio.run_coroutine_threadsafe(loop.getaddrinfo("localhost", 80), loop)
            return future.result(SURELY)

        return await aside(ask)

    assert run(main()) == socket.getaddrinfo("localhost", 80)
