"""Libraries that look inside of `asyncio.BaseEventLoop`, as they are.

Each test is a program of its own: most of these libraries change classes of asyncio for the rest of the process. What
is not installed is skipped (`pip install --group real`). On stock asyncio (`TOKIOLOOP_TEST_LOOP`) all pass, too.
"""

from __future__ import annotations

import sys

import pytest

from tests import support

pytestmark = pytest.mark.timeout(60)

LOOP = """
import asyncio, functools, importlib, os, socket, sys, threading
module, _, attribute = os.environ["TOKIOLOOP_TEST_LOOP"].partition(":")
new_loop = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
"""

NESTING = """
nest = importlib.import_module(sys.argv[1])
loop = new_loop()
asyncio.set_event_loop(loop)
"""

NEST = pytest.mark.parametrize(
    "nest",
    [
        pytest.param(
            "nest_asyncio",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 14), reason="it is given up, and does not know CPython 3.14"
            ),
        ),
        "nest_asyncio2",
    ],
)


def check(library: str, source: str) -> None:
    pytest.importorskip(library)
    done = support.python(LOOP + source, library)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


@NEST
def test_nest_asyncio_runs_a_loop_within_its_own_run(nest: str) -> None:
    check(
        nest,
        NESTING
        + """
nest.apply(loop)
order = []

async def inner(name):
    order.append(name)
    await asyncio.sleep(0.01)
    return name

async def outer():
    loop.call_soon(order.append, "soon")
    assert loop.run_until_complete(inner("a")) == "a"
    assert loop.run_until_complete(asyncio.gather(inner("b"), inner("c"))) == ["b", "c"]
    await asyncio.sleep(0.01)
    return "done"

assert loop.run_until_complete(outer()) == "done"
assert order == ["soon", "a", "b", "c"], order
assert loop.run_until_complete(inner("later")) == "later", "and again"
loop.close()
""",
    )


@NEST
def test_nest_asyncio_goes_with_sockets_threads_and_timers(nest: str) -> None:
    check(
        nest,
        NESTING
        + """
nest.apply(loop)

async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\\n")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await ask(port) == b"hello\\n"
    assert loop.run_until_complete(ask(port)) == b"hello\\n"
    assert await asyncio.to_thread(lambda: 42) == 42
    assert loop.run_until_complete(asyncio.to_thread(lambda: 43)) == 43
    ends = socket.socketpair()
    with ends[0], ends[1]:
        ends[0].setblocking(False)
        receiving = asyncio.ensure_future(loop.sock_recv(ends[0], 9))
        loop.call_later(0.02, ends[1].send, b"x")
        assert loop.run_until_complete(receiving) == b"x"
        seen = loop.create_future()
        loop.add_reader(ends[0], lambda: seen.done() or seen.set_result(ends[0].recv(9)))
        ends[1].send(b"y")
        assert loop.run_until_complete(seen) == b"y"
        loop.remove_reader(ends[0])
    server.close()
    await server.wait_closed()

loop.run_until_complete(asyncio.wait_for(main(), 20))
loop.close()
""",
    )


@NEST
def test_nest_asyncio_applied_to_a_running_loop_takes_effect_at_once(nest: str) -> None:
    check(
        nest,
        NESTING
        + """

async def inner():
    await asyncio.sleep(0.01)
    return 1

async def main():
    await asyncio.sleep(0)
    nest.apply(loop)
    assert loop.run_until_complete(inner()) == 1
    await asyncio.sleep(0.01)
    assert loop.run_until_complete(inner()) == 1
    return 2

assert loop.run_until_complete(main()) == 2
loop.close()
""",
    )


@NEST
def test_nest_asyncio_applied_to_a_running_loop_reads_as_often_as_something_comes(nest: str) -> None:
    check(
        nest,
        NESTING
        + """
async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line)
    writer.close()

async def talk(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(3):
        writer.write(b"%d\\n" % number)
        assert await asyncio.wait_for(reader.readline(), 9) == b"%d\\n" % number
    writer.close()

class Datagrams(asyncio.DatagramProtocol):
    def datagram_received(self, data, address):
        came.put_nowait(data)

async def listen(ours, theirs):
    transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=ours)
    for number in range(3):
        theirs.send(b"%d" % number)
        assert await asyncio.wait_for(came.get(), 9) == b"%d" % number
    transport.close()

came = asyncio.Queue()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    nest.apply(loop)
    loop.run_until_complete(talk(server.sockets[0].getsockname()[1]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        loop.run_until_complete(listen(ours, theirs))
    server.close()

loop.run_until_complete(main())
loop.close()
""",
    )


def test_a_callback_that_looks_and_runs_what_it_finds_has_each_of_its_looks_read() -> None:
    """As nest_asyncio does where it is applied to a running loop."""
    check(
        "asyncio",
        """
loop = new_loop()
came = []

class Collects(asyncio.Protocol):
    def data_received(self, data):
        came.append(data)

async def main():
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.create_connection(Collects, sock=ours)
        await asyncio.sleep(0)
        for _ in range(3):
            theirs.sendall(b"x")
            others = len(loop._ready)
            loop._process_events(loop._selector.select(0))
            while len(loop._ready) > others:
                loop._ready.pop()._run()
        transport.close()

loop.run_until_complete(main())
loop.close()
assert came == [b"x"] * 3, came
""",
    )


@NEST
def test_other_loops_of_the_process_go_on_where_nest_asyncio_was_applied_to_one(nest: str) -> None:
    check(
        nest,
        """
nest = importlib.import_module(sys.argv[1])
before = new_loop()
before.call_soon(before.stop)
before.run_forever()
patched = new_loop()
asyncio.set_event_loop(patched)
nest.apply(patched)

async def inner():
    await asyncio.sleep(0.01)
    return asyncio.get_running_loop()

for loop in (before, new_loop(), patched):
    assert loop.run_until_complete(inner()) is loop
    thread = threading.Timer(0.02, loop.call_soon_threadsafe, (loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()
    loop.close()
""",
    )


def test_aiodebug_measures_callbacks_timers_and_readers() -> None:
    check(
        "aiodebug",
        """
import time
from aiodebug import log_slow_callbacks

def slow(): time.sleep(0.03)  # clause-delay: it is to be found slow

def quick(): pass

class Peer(asyncio.Protocol):
    def data_received(self, data):
        time.sleep(0.03)  # clause-delay: the same
        lost.append(data)

lost = []
loop = new_loop()
loop.call_soon(slow)
loop.call_soon(loop.stop)
loop.run_forever()
seen = []
log_slow_callbacks.enable(0.02, lambda name, took: seen.append(name))

async def main():
    loop.call_soon(quick)
    loop.call_soon(slow)
    loop.call_later(0.001, slow)
    loop.call_soon_threadsafe(slow)
    await asyncio.sleep(0.1)
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        loop.add_reader(ours, lambda: (slow(), ours.recv(9)))
        theirs.send(b"x")
        await asyncio.sleep(0.1)
        loop.remove_reader(ours)
        transport, _ = await loop.create_connection(Peer, sock=ours)
        theirs.send(b"y")
        while not lost:
            await asyncio.sleep(0.01)
        transport.close()
        await asyncio.sleep(0.01)

loop.run_until_complete(main())
assert len(seen) == 5, seen
assert not any("quick" in name for name in seen), seen
assert any("lambda" in name for name in seen) and sum("slow" in name for name in seen) == 3, seen
assert lost == [b"y"]
asked = []
loop.set_exception_handler(lambda loop, context: asked.append(context))
loop.call_soon(int, "x")
loop.call_soon(loop.stop)
loop.run_forever()
assert len(asked) == 1 and isinstance(asked[0]["exception"], ValueError), asked
loop.close()
""",
    )


def test_a_patch_of_the_running_of_handles_comes_and_goes_while_the_loop_runs() -> None:
    check(
        "asyncio",
        """
seen = []
original = asyncio.events.Handle._run

def patched(self):
    seen.append(self._callback)
    return original(self)

async def main():
    loop = asyncio.get_running_loop()
    for patch, expected in ((patched, 1), (original, 1), (patched, 2)):
        asyncio.events.Handle._run = patch
        await asyncio.sleep(0)
        loop.call_soon(marker)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen.count(marker) == expected, (seen, expected)

def marker(): pass

loop = new_loop()
loop.run_until_complete(main())
loop.close()
""",
    )


def test_looptime_compresses_time() -> None:
    check(
        "looptime",
        """
import time, looptime

async def main():
    loop = asyncio.get_running_loop()
    assert loop.time() == 0
    await asyncio.sleep(1000)
    assert loop.time() == 1000, loop.time()
    try:
        async with asyncio.timeout(5):
            await asyncio.sleep(3600)
    except TimeoutError:
        pass
    assert loop.time() == 1005, loop.time()
    ran = []
    loop.call_later(0.2, ran.append, loop.time() + 0.2)
    loop.call_later(0.1, ran.append, loop.time() + 0.1)
    await asyncio.sleep(0.3)
    assert ran == sorted(ran) and len(ran) == 2
    assert round(loop.time(), 9) == 1005.3, loop.time()
    return await asyncio.to_thread(lambda: 42)

begun = time.monotonic()
loop = looptime.patch_event_loop(new_loop(), start=0, idle_step=0.01)
assert isinstance(loop, looptime.LoopTimeEventLoop)
assert loop.run_until_complete(main()) == 42
loop.close()
assert time.monotonic() - begun < 50

loop = looptime.patch_event_loop(new_loop(), start=0, end=10)
try:
    loop.run_until_complete(asyncio.sleep(100))
except looptime.LoopTimeoutError:
    pass
else:
    raise AssertionError("time has no end")
loop.close()
""",
    )


def test_home_assistant_finds_what_is_set_at_its_end() -> None:
    """The walk of `homeassistant.core.HomeAssistant._cancel_cancellable_timers` and of its tests' `verify_cleanup`."""
    check(
        "asyncio",
        """
loop = new_loop()
ran = []

class Job:
    cancel_on_shutdown = True

async def main():
    kept = loop.call_later(0.01, ran.append, "kept")
    loop.call_later(3600, ran.append, Job())
    gone = loop.call_later(3600, ran.append, Job())
    gone.cancel()
    for handle in loop._scheduled:
        if (
            not handle.cancelled()
            and (args := handle._args)
            and type(job := args[0]) is Job
            and job.cancel_on_shutdown
        ):
            handle.cancel()
    assert [handle.when() for handle in loop._scheduled if not handle.cancelled()] == [kept.when()]
    await asyncio.sleep(0.02)
    assert ran == ["kept"]
    assert all(handle.cancelled() for handle in loop._scheduled)

loop.run_until_complete(main())
loop.close()
""",
    )
