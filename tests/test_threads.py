"""Loops and threads: wake-ups from many, loops in many, one loop in several, forks, and ends of processes."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import warnings
import weakref

import pytest

from spec._kit import peers
from tests import support

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop


async def echo_once(text: bytes) -> bytes:
    """Serve one connection, connect to it, send `text` and return what came back: all of a loop's parts at once."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(text)))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(text)
        got = await reader.read()
        writer.close()
        await writer.wait_closed()
    return got


# ---- call_soon


@pytest.mark.skipif(not support.OURS, reason="asyncio's references are CPython's own")
def test_what_a_refused_call_of_another_thread_was_given_is_let_go_at_once(loop: Loop) -> None:
    class Given:
        pass

    def refused() -> bool:
        given = Given()
        freed = weakref.ref(given)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            loop.call_soon(id, given)
        del given
        return freed() is None

    def work() -> bool:
        try:
            return refused()
        finally:
            loop.call_soon_threadsafe(loop.stop)

    loop.set_debug(True)
    working: list[peers.PeerThread] = []
    loop.call_soon(lambda: working.append(peers.thread(work)))
    loop.run_forever()
    assert working[0].result(timeout=peers.TIMEOUT), "kept for whoever calls next"


# ---- call_soon_threadsafe


def test_callbacks_from_many_threads_all_run_each_threads_in_order(loop: Loop) -> None:
    threads, each = 16, 2000
    ran: list[tuple[int, int]] = []
    ended = [0]

    def end() -> None:
        ended[0] += 1
        if ended[0] == threads:
            loop.stop()

    def work(number: int) -> None:
        for turn in range(each):
            loop.call_soon_threadsafe(ran.append, (number, turn))
        loop.call_soon_threadsafe(end)

    workers = [peers.thread(work, number) for number in range(threads)]
    loop.run_forever()
    for worker in workers:
        worker.result()
    assert len(ran) == threads * each
    for number in range(threads):
        assert [turn for who, turn in ran if who == number] == list(range(each))


def test_a_parked_loop_is_woken_every_time(loop: Loop) -> None:
    """One wake-up at a time, each after the loop said it is about to wait: none may be lost."""
    turns = 2000
    asked, woken = threading.Semaphore(0), []

    def wake() -> None:
        for turn in range(turns):
            assert asked.acquire(timeout=15), f"the loop lost wake-up {turn}"
            loop.call_soon_threadsafe(woke, turn)

    def woke(turn: int) -> None:
        woken.append(turn)
        if turn == turns - 1:
            loop.stop()
        asked.release()

    with peers.thread(wake):
        loop.call_soon(asked.release)
        loop.run_forever()
    assert woken == list(range(turns))


waits_for_callbacks = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="asyncio's cancel() does not wait for a running callback before CPython 3.14"
)


@waits_for_callbacks
@pytest.mark.parametrize("debug", [False, True])
def test_after_a_cancellation_elsewhere_a_callback_neither_runs_nor_begins(loop: Loop, debug: bool) -> None:
    """Threads race with the loop: what they cancel has ended, or never begins, and the loop goes on in any case."""
    loop.set_debug(debug)
    threads, each = 4, 200
    began: set[tuple[int, int]] = set()
    ended: set[tuple[int, int]] = set()
    never: set[tuple[int, int]] = set()
    left = [threads]

    def callback(who: int, turn: int) -> None:
        began.add((who, turn))
        sum(range(turn % 7 * 100))
        ended.add((who, turn))

    def end() -> None:
        left[0] -= 1
        if not left[0]:
            loop.stop()

    def work(who: int) -> None:
        for turn in range(each):
            handle = loop.call_soon_threadsafe(callback, who, turn)
            sum(range(turn % 11 * 100))
            handle.cancel()
            assert handle.cancelled()
            if (who, turn) not in began:
                never.add((who, turn))
            else:
                assert (who, turn) in ended
        loop.call_soon_threadsafe(end)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [peers.thread(work, who) for who in range(threads)]
        loop.run_forever()
        for worker in workers:
            worker.result()
    finally:
        sys.setswitchinterval(interval)
    assert began == ended
    assert not began & never


@waits_for_callbacks
def test_the_handle_is_of_the_class_that_asyncio_gives_for_all_threads(loop: Loop) -> None:
    loop.set_debug(True)
    handle = loop.call_soon_threadsafe(print, 1)
    assert isinstance(handle, asyncio.events._ThreadSafeHandle)  # type: ignore[attr-defined]
    assert not isinstance(loop.call_soon(print), asyncio.events._ThreadSafeHandle)  # type: ignore[attr-defined]
    assert repr(handle).startswith("<_ThreadSafeHandle print(1)")
    handle.cancel()
    assert repr(handle).startswith("<_ThreadSafeHandle cancelled print(1)")


def test_call_soon_threadsafe_before_the_loop_runs_is_kept(loop: Loop) -> None:
    ran: list[int] = []
    peers.thread(loop.call_soon_threadsafe, ran.append, 1).result()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1]


def test_call_soon_threadsafe_on_a_closed_loop_is_an_error_in_the_calling_thread(loop: Loop) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        peers.thread(loop.call_soon_threadsafe, print).result()


def test_threads_that_call_while_the_loop_closes_get_an_error_or_nothing() -> None:
    for _ in range(10):
        loop = support.new_loop()
        started = threading.Barrier(5)

        def work(loop: Loop = loop, started: threading.Barrier = started) -> str:
            started.wait(15)
            try:
                while True:
                    loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                return str(error)

        workers = [peers.thread(work) for _ in range(4)]
        started.wait(15)
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        loop.close()
        assert {worker.result() for worker in workers} == {"Event loop is closed"}


def test_run_coroutine_threadsafe_returns_results_and_raises_errors(loop: Loop) -> None:
    async def divide(a: int, b: int) -> float:
        await asyncio.sleep(0)
        return a / b

    with peers.thread(loop.run_forever):
        try:
            futures = [asyncio.run_coroutine_threadsafe(divide(number, 2), loop) for number in range(100)]
            assert [future.result(15) for future in futures] == [number / 2 for number in range(100)]
            with pytest.raises(ZeroDivisionError):
                asyncio.run_coroutine_threadsafe(divide(1, 0), loop).result(15)
        finally:
            loop.call_soon_threadsafe(loop.stop)


# ---- several loops, several threads


def test_several_loops_in_several_threads_serve_at_once() -> None:
    def work(number: int) -> bytes:
        got = b""
        with asyncio.Runner(loop_factory=support.factory()) as runner:
            for turn in range(20):
                text = b"%d.%d" % (number, turn) * 1000
                got = runner.run(echo_once(text))
                assert got == text
        return got

    workers = [peers.thread(work, number) for number in range(6)]
    assert [worker.result(30) for worker in workers] == [b"%d.19" % number * 1000 for number in range(6)]


def test_one_loop_runs_in_several_threads_in_turn(loop: Loop) -> None:
    ran: list[int] = []
    for turn in range(6):
        loop.call_soon(lambda: ran.append(threading.get_ident()))
        text = b"turn %d" % turn
        work = peers.thread(lambda text=text: loop.run_until_complete(echo_once(text)))
        assert work.result() == text
    assert loop.run_until_complete(echo_once(b"here")) == b"here"
    assert len(ran) == 6
    assert threading.get_ident() not in ran[:-1]


def test_a_loop_made_in_one_thread_runs_and_closes_in_another() -> None:
    made = peers.thread(support.new_loop).result()
    assert made.run_until_complete(echo_once(b"x")) == b"x"
    peers.thread(made.close).result()
    assert made.is_closed()


def test_a_connection_goes_on_when_its_loop_moves_to_another_thread(loop: Loop) -> None:
    with peers.serve(lambda conn: conn.sendall(peers.recv_exactly(conn, 4))) as addr:
        reader, writer = loop.run_until_complete(asyncio.open_connection(*addr))
        writer.write(b"move")
        assert peers.thread(loop.run_until_complete, reader.readexactly(4)).result() == b"move"
        writer.close()
        peers.thread(loop.run_until_complete, writer.wait_closed()).result()


def test_a_loop_dropped_in_another_thread_is_freed_there() -> None:
    box = [support.new_loop()]
    box[0].run_until_complete(asyncio.sleep(0))

    def drop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            box.clear()
            gc.collect()

    peers.thread(drop).result()
    assert support.new_loop().run_until_complete(echo_once(b"next")) == b"next"


# ---- runs within runs, and one after the other


@pytest.mark.skipif(
    not support.OURS and sys.version_info[:3] == (3, 13, 0),
    reason="there, a refused run_forever() takes the state of the running loop with it",
)
def test_a_running_loop_cannot_be_run_again(loop: Loop) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_forever()
        coro = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(coro)
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            peers.thread(loop.run_forever).result()
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()

    loop.run_until_complete(main())
    assert loop.run_until_complete(echo_once(b"on")) == b"on"


def test_another_loop_cannot_run_inside_a_running_one(loop: Loop) -> None:
    other = support.new_loop()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
            other.run_forever()

    loop.run_until_complete(main())
    assert loop.run_until_complete(echo_once(b"on")) == b"on"
    assert other.run_until_complete(echo_once(b"too")) == b"too"
    other.close()


def test_another_loop_runs_in_an_executor_thread_of_a_running_one(loop: Loop) -> None:
    def in_thread(text: bytes) -> bytes:
        with asyncio.Runner(loop_factory=support.factory()) as runner:
            return runner.run(echo_once(text))

    async def main() -> list[bytes]:
        texts = [b"a" * 10, b"b" * 100_000, b"c"]
        return await asyncio.gather(*(loop.run_in_executor(None, in_thread, text) for text in texts), echo_once(b"d"))

    assert loop.run_until_complete(main()) == [b"a" * 10, b"b" * 100_000, b"c", b"d"]
    loop.run_until_complete(loop.shutdown_default_executor())


def test_another_loop_runs_inside_a_callback_with_the_running_one_put_aside(loop: Loop) -> None:
    """What nest-asyncio and debuggers do: the outer loop's callback hides it, runs a loop and puts it back."""
    got: list[bytes] = []

    def callback() -> None:
        asyncio._set_running_loop(None)
        other = support.new_loop()
        try:
            got.append(other.run_until_complete(echo_once(b"inner")))
        finally:
            other.close()
            asyncio._set_running_loop(loop)

    loop.call_soon(callback)
    assert loop.run_until_complete(echo_once(b"outer")) == b"outer"
    assert got == [b"inner"]


def test_run_until_complete_runs_again_after_it_returned_or_raised(loop: Loop) -> None:
    async def fail() -> None:
        raise KeyError("here")

    for turn in range(20):
        text = b"%d" % turn
        assert loop.run_until_complete(echo_once(text)) == text
        with pytest.raises(KeyError, match="here"):
            loop.run_until_complete(fail())


def test_a_loop_dropped_in_a_callback_of_another_is_freed(loop: Loop) -> None:
    """The collector may do this at any time."""
    turns: list[int] = []

    def drop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dropped = support.new_loop()
            dropped.call_later(3600, print)
            del dropped
            closed = support.new_loop()
            closed.close()
            del closed
            gc.collect()
        turns.append(1)

    for _ in range(5):
        loop.call_soon(drop)
    assert loop.run_until_complete(echo_once(b"alive")) == b"alive"
    assert len(turns) == 5


# ---- fork and the end of the process

PRELUDE = """
import asyncio, gc, os, socket, sys, threading, warnings
sys.path.insert(0, os.getcwd())
from tests import support
from tests.test_threads import echo_once
"""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@forks
def test_a_child_forked_from_a_callback_runs_a_loop_of_its_own() -> None:
    said = support.check(
        PRELUDE
        + """
def callback():
    pid = os.fork()
    if pid == 0:
        # What multiprocessing's children do: the parent's loop is running there, as the child's memory has it.
        asyncio._set_running_loop(None)
        try:
            with asyncio.Runner(loop_factory=support.factory()) as runner:
                status = 0 if runner.run(echo_once(b"child")) == b"child" else 3
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            status = 4
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    print("child", os.waitstatus_to_exitcode(status), flush=True)

async def main():
    assert await echo_once(b"before") == b"before"
    asyncio.get_running_loop().call_soon(callback)
    assert await echo_once(b"during") == b"during"
    for _ in range(3):
        assert await echo_once(b"after") == b"after"

with asyncio.Runner(loop_factory=support.factory()) as runner:
    runner.run(main())
print("parent goes on")
"""
    )
    assert said == "child 0\nparent goes on\n"


@forks
@pytest.mark.skipif(not support.OURS, reason="elsewhere the child shares the parent's epoll and harms it")
def test_a_child_that_only_closes_the_parents_loop_leaves_the_parent_alone() -> None:
    said = support.check(
        PRELUDE
        + """
loop = support.new_loop()
server = loop.run_until_complete(asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0))
ours, theirs = socket.socketpair()
ours.setblocking(False)
woken = []
loop.add_reader(ours, lambda: woken.append(ours.recv(1)))
pid = os.fork()
if pid == 0:
    loop.close()
    del loop
    gc.collect()
    os._exit(0)
os.waitpid(pid, 0)
theirs.send(b"!")
threading.Timer(0.05, lambda: loop.call_soon_threadsafe(loop.stop)).start()  # clause-delay: woken while parked
loop.run_forever()
assert woken == [b"!"], woken
assert loop.run_until_complete(echo_once(b"on")) == b"on"
loop.remove_reader(ours)
server.close()
loop.close()
ours.close(); theirs.close()
print("parent goes on")
"""
    )
    assert said == "parent goes on\n"


@forks
def test_a_child_process_of_multiprocessing_runs_a_loop() -> None:
    said = support.check(
        PRELUDE
        + """
import multiprocessing

def work(number):
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        return runner.run(echo_once(b"%d" % number))

async def main():
    loop = asyncio.get_running_loop()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        got = pool.map_async(work, range(6))
        results = await loop.run_in_executor(None, got.get, 20)
    print(results)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a process with threads
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main())
"""
    )
    assert said == "[b'0', b'1', b'2', b'3', b'4', b'5']\n"


@pytest.mark.parametrize(
    "state",
    [
        "pass",
        "loop.call_soon(print); loop.call_later(3600, print)",
        "loop.run_until_complete(asyncio.sleep(0))",
        "keep = loop.run_until_complete(asyncio.start_server(lambda r, w: None, '127.0.0.1', 0))",
        """server = loop.run_until_complete(asyncio.start_server(lambda r, w: None, '127.0.0.1', 0))
keep = loop.run_until_complete(asyncio.open_connection(*server.sockets[0].getsockname()))""",
        "a, b = socket.socketpair(); a.setblocking(False); loop.add_reader(a, print)",
        """a, b = socket.socketpair()
a.setblocking(False)
task = loop.create_task(loop.sock_recv(a, 1))
loop.run_until_complete(asyncio.sleep(0))
task.cancel()""",
        "import builtins; builtins.kept = loop",
        "loop.knot = loop",
        "sys.modules['kept'] = loop",
    ],
)
def test_a_process_ends_in_peace_with_a_loop_still_open(state: str) -> None:
    done = support.python(
        PRELUDE + f"warnings.simplefilter('ignore')\nloop = support.new_loop()\n{state}\nprint('end')\n"
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "anicked" not in done.stderr and "Fatal" not in done.stderr, done.stderr


@pytest.mark.parametrize("daemon", [True, False])
def test_a_process_ends_in_peace_with_a_loop_in_a_thread(*, daemon: bool) -> None:
    done = support.python(
        PRELUDE
        + f"""
warnings.simplefilter("ignore")
loop = support.new_loop()
started = threading.Event()
loop.call_soon(started.set)
thread = threading.Thread(target=loop.run_forever, daemon={daemon})
thread.start()
assert started.wait(15)
if not {daemon}:
    loop.call_soon_threadsafe(loop.stop)
print("end")
"""
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "anicked" not in done.stderr and "Fatal" not in done.stderr, done.stderr


@pytest.mark.parametrize("how", ["sys.exit(5)", "os._exit(5)"])
def test_a_callback_may_end_the_process(how: str) -> None:
    done = support.python(
        PRELUDE
        + f"""
loop = support.new_loop()
def callback(): {how}
loop.call_soon(callback)
try:
    loop.run_forever()
finally:
    loop.close()
"""
    )
    assert (done.returncode, done.stderr) == (5, "")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before, CPython's own `import asyncio` may crash there")
def test_a_subinterpreter_gets_the_loop_or_a_plain_error() -> None:
    """PyO3 modules may refuse to be loaded there; they must do so with ImportError, not with a crash."""
    module = support.LOOP.partition(":")[0]
    done = support.python(
        f"""
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
id = interpreters.create()
source = "try:\\n import {module}\\n print('imported', flush=True)\\nexcept ImportError: print('refused', flush=True)"
(getattr(interpreters, "exec", None) or interpreters.run_string)(id, source)
interpreters.destroy(id)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("imported\n", "refused\n")


def test_debug_mode_refuses_calls_from_the_wrong_thread(loop: Loop) -> None:
    loop.set_debug(True)

    async def main() -> None:
        for call in (loop.call_soon, lambda callback: loop.call_later(1, callback)):
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                peers.thread(call, print).result()

    loop.run_until_complete(main())
