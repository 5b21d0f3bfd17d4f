"""`loop.stats()` and `tokioloop.dump()`: what a loop is doing, from any thread, while it runs, hangs or is closed."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import re
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

import pytest

from spec._kit import peers
from tests import support
from tests.support import Program

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="only our loop has stats()"),
]
tokioloop = pytest.importorskip("tokioloop")

Stats = dict[str, Any]
COUNTS = ("turns", "callbacks", "looks", "parks")


def endpoints(loop: Any, *kinds: str) -> list[Stats]:
    """The loop's endpoints of these kinds; of all kinds that transports and servers have, if none is given."""
    wanted = kinds or ("tcp", "unix", "udp", "pipe", "listener")
    return [endpoint for endpoint in loop.stats()["endpoints"] if endpoint["kind"] in wanted]


def in_thread(fn: Callable[[], Any]) -> Any:
    return peers.thread(fn).result(timeout=15)


def dumped() -> str:
    out = io.StringIO()
    tokioloop.dump(out)
    return out.getvalue()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


# ---- counters


def test_callbacks_and_turns_are_counted_one_by_one(loop) -> None:
    before = loop.stats()
    for _ in range(100):
        loop.call_soon(int)
    loop.call_soon(loop.stop)
    loop.run_forever()
    after = loop.stats()
    assert after["callbacks"] - before["callbacks"] == 101
    assert after["turns"] - before["turns"] == 1
    assert after["looks"] - before["looks"] == 1, "the first turn of a run looks at I/O"
    assert after["parks"] == before["parks"]
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert loop.stats()["parks"] > after["parks"]


def test_queues_have_their_lengths(loop) -> None:
    empty = loop.stats()
    assert (empty["ready"], empty["timers"], empty["next_deadline"]) == (0, 0, None)
    handles = [loop.call_soon(int) for _ in range(3)] + [loop.call_at(loop.time() + 100 + n, int) for n in range(5)]
    stats = loop.stats()
    assert (stats["ready"], stats["timers"]) == (3, 5)
    assert stats["next_deadline"] == pytest.approx(handles[3].when())
    handles[3].cancel()
    stats = loop.stats()
    assert stats["timers"] == 4 and stats["next_deadline"] == pytest.approx(handles[4].when())


def test_the_bytes_of_a_connection_are_counted_exactly(loop) -> None:
    sizes = [1, 1000, 70_000]

    def exchange(sock: socket.socket) -> None:
        for size in sizes:
            sock.sendall(b"x" * size)
            assert len(peers.recv_exactly(sock, size)) == size

    async def main() -> None:
        began = loop.time()
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            with socket.create_connection(server.sockets[0].getsockname(), 15) as sock:
                await loop.run_in_executor(None, exchange, sock)
                (tcp,), (listener,) = endpoints(loop, "tcp"), endpoints(loop, "listener")
            assert tcp["bytes_in"] == tcp["bytes_out"] == sum(sizes)
            assert tcp["messages_in"] >= len(sizes) and tcp["messages_out"] >= len(sizes)
            assert (listener["messages_in"], listener["bytes_in"], listener["bytes_out"]) == (1, 0, 0)
            assert began <= listener["since"] <= tcp["since"] <= loop.time()
            while endpoints(loop, "tcp"):
                await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_a_buffered_protocol_and_what_leaves_later_are_counted(loop) -> None:
    class Sink(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer, self.lost = bytearray(10_000), loop.create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            pass

        def eof_received(self) -> bool:
            return True

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async def main() -> None:
        ours, theirs = peers.pair()
        transport, protocol = await loop.create_connection(Sink, sock=ours)
        with theirs:
            theirs.sendall(b"y" * 30_000)
            theirs.shutdown(socket.SHUT_WR)
            for _ in range(100):
                transport.write(b"z" * 100_000)  # more than the kernel takes at once
            (endpoint,) = endpoints(loop, "tcp")
            assert 0 < endpoint["bytes_out"] < 10_000_000, "only what the kernel took is sent"
            reader = peers.thread(lambda: len(peers.recv_exactly(theirs, 10_000_000)))
            assert await loop.run_in_executor(None, reader.result) == 10_000_000
            (endpoint,) = endpoints(loop, "tcp")
            assert (endpoint["bytes_out"], endpoint["bytes_in"]) == (10_000_000, 30_000)
            transport.close()
            assert await protocol.lost is None

    loop.run_until_complete(main())


def test_each_endpoint_is_of_its_kind(loop, tmp_path) -> None:
    async def main() -> None:
        ours, theirs = peers.unix_pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        tcp, other = peers.pair()
        second, _ = await loop.create_connection(asyncio.Protocol, sock=tcp)
        kinds = {endpoint["fd"]: endpoint["kind"] for endpoint in endpoints(loop)}
        sock = server.sockets[0]
        assert kinds == {ours.fileno(): "unix", tcp.fileno(): "tcp", sock.fileno(): "listener"}
        transport.close()
        second.close()
        server.close()
        await server.wait_closed()
        theirs.close()
        other.close()

    loop.run_until_complete(main())


def test_datagrams_are_counted_exactly(loop) -> None:
    async def main() -> None:
        got = asyncio.Queue()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                got.put_nowait(data)

        transport, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
        address = transport.get_extra_info("sockname")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            for size in (0, 1, 500):
                peer.sendto(b"x" * size, address)
                assert len(await got.get()) == size
            transport.sendto(b"y" * 300, peer.getsockname())
            assert len(peer.recv(1000)) == 300
        (udp,) = endpoints(loop, "udp")
        assert (udp["messages_in"], udp["bytes_in"], udp["messages_out"], udp["bytes_out"]) == (3, 501, 1, 300)
        transport.close()

    loop.run_until_complete(main())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert endpoints(loop) == []


def test_a_pipe_is_an_endpoint(loop) -> None:
    async def main() -> None:
        read, write = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
        )
        os.write(write, b"x" * 100)
        assert await reader.readexactly(100) == b"x" * 100
        (pipe,) = endpoints(loop)
        assert (pipe["fd"], pipe["kind"], pipe["bytes_in"]) == (read, "pipe", 100)
        os.close(write)
        assert await reader.read() == b""
        transport.close()

    loop.run_until_complete(main())


def test_a_file_that_is_sent_is_counted(loop, tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * 500_000)

    async def main() -> None:
        ours, theirs = peers.pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        with theirs, path.open("rb") as file:
            reader = peers.thread(lambda: peers.recv_exactly(theirs, 500_000))
            assert await loop.sendfile(transport, file) == 500_000
            assert len(await loop.run_in_executor(None, reader.result)) == 500_000
            (endpoint,) = endpoints(loop, "tcp")
            assert endpoint["bytes_out"] == 500_000
            transport.abort()

    loop.run_until_complete(main())


def test_a_watcher_is_there_while_it_watches(loop) -> None:
    ours, theirs = peers.unix_pair()
    with ours, theirs:
        known = loop.stats()["endpoints"]
        loop.add_reader(ours, int)
        loop.add_writer(ours, int)
        watcher = {"fd": ours.fileno(), "kind": "watcher", "reader": True, "writer": True}
        assert [e for e in loop.stats()["endpoints"] if e not in known] == [watcher]
        loop.remove_reader(ours)
        assert [e for e in loop.stats()["endpoints"] if e not in known] == [watcher | {"reader": False}]
        loop.remove_writer(ours)
        assert loop.stats()["endpoints"] == known


# ---- what is gone is gone


def test_nothing_is_left_of_a_thousand_connections(loop) -> None:
    def client(address: tuple[str, int]) -> None:
        for number in range(1000):
            with socket.create_connection(address, 15) as sock:
                if number % 3:
                    sock.sendall(b"hello")
                    peers.recv_exactly(sock, 5)
                if number % 5 == 0:
                    peers.reset(sock)

    async def main() -> None:
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            await loop.run_in_executor(None, client, address)
            # The last one may still be in the backlog when its client is gone.
            while endpoints(loop, "listener")[0]["messages_in"] < 1000 or endpoints(loop, "tcp"):
                await asyncio.sleep(0)
            (listener,) = endpoints(loop)
            assert listener["messages_in"] == 1000
        assert endpoints(loop) == []

    loop.run_until_complete(main())


def test_a_connection_that_comes_to_nothing_leaves_no_endpoint(loop) -> None:
    def refuse() -> asyncio.Protocol:
        raise ZeroDivisionError

    async def main() -> None:
        contexts: list[Any] = []
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        async with await loop.create_server(refuse, "127.0.0.1", 0) as server:
            with peers.client(server.sockets[0].getsockname(), peers.recv_all) as peer:
                await loop.run_in_executor(None, peer.result)
            assert [endpoint["kind"] for endpoint in endpoints(loop)] == ["listener"]
        assert len(contexts) == 1

    loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_closed_loop_has_counters_and_no_endpoints() -> None:
    loop = support.new_loop()

    async def main() -> None:
        await loop.create_server(Echo, "127.0.0.1", 0)
        ours, theirs = peers.pair()
        await loop.create_connection(asyncio.Protocol, sock=ours)
        theirs.close()

    loop.run_until_complete(main())
    loop.call_later(100, int)
    before = loop.stats()
    assert {endpoint["kind"] for endpoint in endpoints(loop)} == {"listener", "tcp"}
    loop.close()
    stats = loop.stats()
    assert (stats["running"], stats["thread"], stats["parked_for"], stats["busy_for"]) == (False, None, None, None)
    assert (stats["ready"], stats["timers"], stats["next_deadline"], stats["endpoints"]) == (0, 0, None, [])
    assert [stats[name] for name in COUNTS] == [before[name] for name in COUNTS]
    assert in_thread(loop.stats) == stats


def test_looking_at_a_loop_keeps_nothing_alive() -> None:
    loop = support.new_loop()
    loop.stats()
    dumped()
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


# ---- from other threads


def test_any_thread_reads_while_the_loop_runs_at_full_speed(loop) -> None:
    ends, readers = threading.Event(), 4

    def read() -> int:
        last, count = dict.fromkeys(COUNTS, 0), 0
        while not ends.is_set():
            stats = loop.stats()
            assert stats["thread"] == here and stats["running"]
            assert all(stats[name] >= last[name] for name in COUNTS)
            assert {endpoint["kind"] for endpoint in stats["endpoints"]} <= {"tcp", "listener", "watcher"}
            last, count = stats, count + 1
        return count

    async def main() -> list[int]:
        reading = [peers.thread(read) for _ in range(readers)]
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            try:
                for _ in range(100):
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(b"x" * 100)
                    assert len(await reader.readexactly(100)) == 100
                    for _ in range(100):
                        await asyncio.sleep(0)
                    writer.close()
                    await writer.wait_closed()
            finally:
                ends.set()
        return [thread.result(timeout=15) for thread in reading]

    here = threading.get_ident()
    counts = loop.run_until_complete(main())
    assert len(counts) == readers and all(counts)


def test_a_loop_that_waits_says_for_how_long_and_until_when(loop) -> None:
    def look() -> Stats:
        try:
            first = loop.stats()
            while first["parked_for"] is None:
                first = loop.stats()
            second = loop.stats()
            while second["parked_for"] == first["parked_for"]:
                second = loop.stats()
            assert second["parked_for"] > first["parked_for"] >= 0 and second["busy_for"] is None
            assert second["parks"] == first["parks"]
            assert "waiting for" in dumped()
            return second
        finally:
            loop.call_soon_threadsafe(loop.stop)

    deadline = loop.call_later(100, int)
    looking = peers.thread(look)
    loop.run_forever()
    stats = looking.result(timeout=15)
    assert stats["next_deadline"] == pytest.approx(deadline.when())
    assert loop.stats()["parked_for"] is None


class Hung:
    """A loop in a thread of its own that hangs in a callback until the `with` ends."""

    def __init__(self, loop: Any) -> None:
        self.loop, self._hangs, self._release = loop, threading.Event(), threading.Event()

    def a_callback_that_hangs(self) -> None:
        self._hangs.set()
        self._release.wait(30)

    async def a_task_that_waits(self) -> None:
        await asyncio.sleep(100)

    def _run(self) -> None:
        task = self.loop.create_task(self.a_task_that_waits(), name="the waiting one")
        self.loop.call_soon(self.loop.call_soon, self.a_callback_that_hangs)
        self.loop.run_forever()
        task.cancel()
        self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    def __enter__(self) -> Self:
        self._thread = peers.thread(self._run)
        assert self._hangs.wait(15)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._release.set()
        self._thread.result(timeout=15)


def test_a_loop_that_hangs_in_a_callback_tells_so(loop) -> None:
    with Hung(loop):
        first, second = loop.stats(), loop.stats()
        while second["busy_for"] == first["busy_for"]:
            second = loop.stats()
        assert first["running"] and first["thread"] not in (None, threading.get_ident())
        assert first["parked_for"] is None and second["busy_for"] > first["busy_for"] >= 0
        assert [first[name] for name in COUNTS] == [second[name] for name in COUNTS]
        assert (first["ready"], first["timers"]) == (0, 1)
        for _ in range(7):
            loop.call_soon_threadsafe(int)
        assert loop.stats()["ready"] == 7
    assert loop.stats()["ready"] == 0


def test_how_long_it_is_busy_begins_with_the_callback_not_before_the_wait(loop) -> None:
    """After a wait without timers nothing but the end of the wait tells the time."""
    with Hung(loop):
        pass
    found = []

    def hang() -> None:
        begun = time.monotonic()
        while time.monotonic() < begun + 0.05:
            pass
        found.append(loop.stats()["busy_for"])
        loop.stop()

    def later() -> None:
        time.sleep(0.5)  # clause-delay: a wait that must not count
        loop.call_soon_threadsafe(hang)

    waking = peers.thread(later)
    loop.run_forever()
    waking.result(timeout=15)
    assert 0.05 <= found[0] < 0.5


def test_a_dump_shows_where_a_loop_hangs(loop) -> None:
    ours, theirs = peers.pair()
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
    with theirs, Hung(loop):
        text = dumped()
    assert "a_callback_that_hangs" in text and "self._release.wait(30)" in text, text
    assert re.search(r"busy for \d+\.\d{3} s", text), text
    assert "the waiting one" in text and "a_task_that_waits" in text, text
    assert re.search(r"the next in \d+\.\d{3} s", text), text
    assert re.search(r"fd \d+ tcp, in 0 B / 0, out 0 B / 0, for \d", text), text
    transport.abort()
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_dump_shows_every_open_loop_and_no_closed_one(loop) -> None:
    closed = support.new_loop()
    closed.close()
    with support.running() as other:
        text = dumped()
        assert all(f"{id(each):#x}" in text for each in (loop, other))
        assert f"{id(closed):#x}" not in text
        assert text.startswith("tokioloop: ") and text.count("does not run") >= 2


def test_a_dump_survives_a_task_whose_repr_fails(loop) -> None:
    class Bad(asyncio.Task):  # type: ignore[type-arg]
        def __repr__(self) -> str:
            raise ZeroDivisionError("no repr")

    async def main() -> str:
        bad = Bad(asyncio.sleep(100), loop=loop, name="bad one")
        text = dumped()
        bad.cancel()
        return text

    text = loop.run_until_complete(main())
    assert "'bad one', whose repr fails: ZeroDivisionError('no repr')" in text
    assert "in main" in text, "called on the loop's own thread, the stack is the caller's"


def test_a_dump_goes_to_standard_error_by_default(loop, capsys) -> None:
    tokioloop.dump()
    out, err = capsys.readouterr()
    assert out == "" and f"{id(loop):#x}" in err


@pytest.mark.parametrize("how", ["busy", "blocked"])
def test_a_signal_handler_dumps_a_loop_that_hangs(how: str) -> None:
    hang = {"busy": "while True: pass", "blocked": "threading.Event().wait()"}[how]
    source = f"""
import asyncio, signal, threading, tokioloop
signal.signal(signal.SIGUSR1, lambda *_: tokioloop.dump())

def hanging_callback():
    print("hangs", flush=True)
    {hang}

async def main():
    asyncio.get_running_loop().call_soon(hanging_callback)
    await asyncio.sleep(100)

tokioloop.run(main())
"""
    with Program(sys.executable, "-c", source) as program:
        program.wait_for("hangs")
        program.signal(signal.SIGUSR1)
        text = program.wait_for("in hanging_callback")
        assert "1 open loop\n" in text and "MainThread" in text and "main()" in text, text
