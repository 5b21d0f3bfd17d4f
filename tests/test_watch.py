"""`tokioloop.watch()`: who is busy for long is told of, also while C code keeps the GIL; and nothing else happens."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from spec._kit import peers
from tests import support
from tests.support import Program

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not support.OURS, reason="only our loops are watched"),
]
tokioloop = pytest.importorskip("tokioloop")

REPORT = re.compile(
    r"(?m)^tokioloop: the loop at (0x[0-9a-f]+) has been busy for (\d+\.\d{3}) s in thread (0x[0-9a-f]{16})$"
)
"""The first line of a report: the loop, seconds, the thread."""
BUSY = 0.2

# A program hangs in a callback whose name is in the stacks.
HANGS = """
import asyncio, collections, ctypes, itertools, re, signal, sys, threading, tokioloop

def nested(both=()):
    for _ in range(100):
        both = (both, both)
    return both

def hanging_callback():
    print("hangs", flush=True)
    {hang}

async def main():
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    asyncio.get_running_loop().call_soon(hanging_callback)
    await asyncio.sleep(100)

tokioloop.watch(0.2)
tokioloop.run(main())
"""
KEEPS_GIL = {
    "a call": "ctypes.PyDLL(None).sleep(100)",
    "a loop": "collections.deque(itertools.repeat(None), maxlen=0)",
    "re": "re.match('(a+)+$', 'a' * 100 + 'b')",
    "sorted": "sorted([nested(), nested()])",
}
LETS_GO = {
    "a loop": "while True: pass",
    "calls": "f = lambda n: n and f(n - 1)\n    while True: f(100)",
    "a lock": "threading.Event().wait()",
}


class Reports:
    """A file that reports go to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def watch(self, busy: float = BUSY) -> Any:
        with self.path.open("ab") as file:
            return tokioloop.watch(busy, file)

    def text(self) -> str:
        return self.path.read_text("utf-8")

    def firsts(self, loop: Any = None) -> list[tuple[str, float, str]]:
        """The first lines there are: loop, seconds, thread; only those of `loop` if it is given."""
        found = [(address, float(secs), thread) for address, secs, thread in REPORT.findall(self.text())]
        return [each for each in found if loop is None or int(each[0], 16) == id(loop)]

    def come(self, loop: Any, count: int = 1, ends: str = "in hangs_until\n") -> bool:
        """Whether as many reports come, with stacks that go as far as the callback that waits for them."""
        return support.wait_until(
            lambda: len(self.firsts(loop)) >= count and self.text().rpartition("tokioloop: ")[2].count(ends) > 0
        )


@pytest.fixture
def reports(tmp_path) -> Reports:
    return Reports(tmp_path / "reports")


@pytest.fixture
def watched(reports):
    with reports.watch() as watch:
        yield watch


def runs(loop: Any, callback: Callable[[], Any]) -> Any:
    """What the callback returns, run by the loop."""
    result = []
    loop.call_soon(lambda: (result.append(callback()), loop.stop()))
    loop.run_forever()
    return result[0]


def hangs_until(condition: Callable[[], bool], loop: Any) -> bool:
    return runs(loop, condition)


# ---- what is seen


@pytest.mark.parametrize("hang", KEEPS_GIL.values(), ids=KEEPS_GIL)
def test_code_that_keeps_the_gil_is_told_of_while_it_does(hang: str) -> None:
    with Program(sys.executable, "-c", HANGS.format(hang=hang)) as program:
        text = program.wait_for("in <module>\n")
        assert text.startswith("hangs\n"), text
        (first,) = REPORT.findall(text)[:1]
        assert float(first[1]) >= BUSY
        assert "  1 callback begun in this time\n" in text, text
        assert re.search(r"\n  1 endpoint\n    fd \d+ listener, in 0 B / 0, out 0 B / 0, for \d+\.\d{3} s\n", text), (
            text
        )
        stack = text.partition(f"Thread {first[2]} ")[2]
        assert 'File "<string>", line 11 in hanging_callback\n' in stack.partition("Thread ")[0], text


@pytest.mark.parametrize("hang", LETS_GO.values(), ids=LETS_GO)
def test_code_that_lets_the_gil_go_is_told_of_too(hang: str) -> None:
    with Program(sys.executable, "-c", HANGS.format(hang=hang)) as program:
        text = program.wait_for("in hanging_callback\n")
        assert REPORT.search(text) and "  1 callback begun in this time\n" in text, text


def test_a_loop_that_waits_for_the_gil_is_told_of() -> None:
    source = """
        import asyncio, ctypes, threading, tokioloop
        async def main():
            # Each ends a wait, and then the loop has to have the GIL.
            while True:
                await asyncio.sleep(0.001)
        def keeping_thread():
            ctypes.PyDLL(None).sleep(100)
        tokioloop.watch(0.2)
        threading.Timer(0.1, keeping_thread).start()
        tokioloop.run(main())
    """
    with Program(sys.executable, "-c", textwrap.dedent(source)) as program:
        text = program.wait_for("in keeping_thread\n")
        # None, or the interpreter had the callback let go of it.
        assert re.search(r"\n  [01] callbacks? begun in this time\n", text), text


def test_a_hang_is_told_of_again_each_time_its_length_has_doubled(loop, reports, watched) -> None:
    assert hangs_until(lambda: reports.come(loop, 3), loop)
    lengths = [secs for _, secs, _ in reports.firsts(loop)]
    assert all(secs >= BUSY * 2**n for n, secs in enumerate(lengths)), lengths
    assert hangs_until(lambda: reports.come(loop, len(lengths) + 2), loop), "another hang begins anew"
    assert len({thread for _, _, thread in reports.firsts(loop)}) == 1


def test_a_report_has_the_numbers_of_stats(loop, reports, watched) -> None:
    ours, theirs = peers.pair()

    async def main() -> str:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.write(b"x" * 1000)
        theirs.sendall(b"y" * 10)
        while sum(endpoint.get("bytes_in", 0) for endpoint in loop.stats()["endpoints"]) < 10:
            await asyncio.sleep(0)
        assert reports.come(loop, ends="in main\n")
        stats = loop.stats()
        transport.abort()
        counts = ", ".join(f"{stats[name]} {name}" for name in ("turns", "callbacks", "looks", "parks"))
        assert f"\n  {counts}\n" in reports.text()
        (endpoint,) = (each for each in stats["endpoints"] if each["kind"] == "tcp")
        return f"    fd {endpoint['fd']} tcp, in 10 B / {endpoint['messages_in']}, out 1000 B / 1, for "

    with theirs:
        line = loop.run_until_complete(main())
    assert line in reports.text()


def test_of_several_loops_those_are_told_of_that_hang(reports, watched) -> None:
    def wait() -> bool:
        return support.wait_until(lambda: all(len(reports.firsts(loop)) >= 2 for loop in hanging))

    with support.running() as first, support.running() as second, support.running() as waiting, support.running():
        hanging = [first, second]
        thread = threading.Thread(target=waiting.run_forever)
        thread.start()
        try:
            results = [peers.thread(lambda loop=loop: runs(loop, wait)) for loop in hanging]
            assert all(result.result(timeout=60) for result in results)
        finally:
            waiting.call_soon_threadsafe(waiting.stop)
            thread.join()
        threads = [{thread for *_, thread in reports.firsts(loop)} for loop in hanging]
        assert all(len(each) == 1 for each in threads) and threads[0] != threads[1]
        told = {int(address, 16) for address, *_ in reports.firsts()}
        assert told == {id(loop) for loop in hanging}


def test_loops_come_and_go_while_they_are_watched(reports, watched) -> None:
    for how in ("closed", "freed"):
        loop = support.new_loop()
        assert hangs_until(lambda loop=loop: reports.come(loop), loop)
        if how == "closed":
            loop.close()
        del loop
    with support.running() as loop:
        before = len(reports.firsts())
        assert hangs_until(lambda: support.wait_until(lambda: len(reports.firsts()) > before), loop)


def test_a_nested_turn_is_a_look(loop, reports, watched) -> None:
    """As nest_asyncio has it: a callback that runs turns is no hang, and one in a turn of its is."""

    def outer() -> bool:
        asyncio._set_running_loop(None)
        for _ in range(3):
            loop.call_soon(int)
            loop._run_once()
        loop.call_soon(lambda: found.append(reports.come(loop, ends="in outer\n")))
        loop._run_once()
        return found[0]

    found: list[bool] = []
    assert runs(loop, outer)


# ---- what is not touched


def test_a_child_that_writes_is_nobodys_child(loop, reports, watched) -> None:
    def ended():
        """Who waits to be reaped; the servers of other tests are children of this process, too."""
        with suppress(ChildProcessError):
            return getattr(os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT), "si_pid", None)

    told = []
    ended_before = ended()
    before = signal.signal(signal.SIGCHLD, lambda *_: told.append(True))
    try:
        assert hangs_until(lambda: reports.come(loop, 3), loop)
        assert ended() == ended_before
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert not told


def test_no_system_call_of_the_loops_thread_is_interrupted() -> None:
    source = """
        import ctypes, sys, tokioloop
        lib = ctypes.PyDLL(None)
        loop = tokioloop.new_event_loop()
        loop.call_soon(lambda: print("left over:", lib.sleep(1)))
        loop.call_soon(loop.stop)
        with tokioloop.watch(0.1):
            loop.run_forever()
        loop.close()
    """
    done = support.python(source)
    assert (done.returncode, done.stdout) == (0, "left over: 0\n"), done
    assert REPORT.search(done.stderr), done.stderr


def test_a_program_that_calls_functions_all_the_time_survives_its_reports() -> None:
    """Frames change while they are read: in this process that is a crash within seconds."""
    source = """
        import asyncio, time, tokioloop
        def calls(n, *args):
            return n and calls(n - 1, [n], {n: args}) or len(args)
        def callback(left):
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                for n in range(200):
                    calls(n)
                scope = {}
                exec("def made(a, b, c):\\n    return [a] * 3", scope)
                scope["made"](1, 2, 3)
            loop.call_soon(callback, left - 1) if left else loop.stop()
        loop = tokioloop.new_event_loop()
        loop.call_soon(callback, 20)
        watches = [tokioloop.watch(0.05) for _ in range(3)]
        loop.run_forever()
        loop.close()
    """
    done = support.python(source)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(REPORT.findall(done.stderr)) >= 20 and "in callback" in done.stderr, done.stderr[-4000:]


def test_a_child_that_crashes_crashes_alone_and_is_made_again(reports) -> None:
    source = """
        import ctypes, faulthandler, sys, tokioloop
        from tests import support
        def hang():
            with open(sys.argv[1]) as told:
                assert support.wait_until(lambda: told.seek(0) == 0 and "no stacks" in told.read())
        faulthandler.enable()
        loop = tokioloop.new_event_loop()
        loop.call_soon(hang)
        loop.call_soon(loop.stop)
        with open(sys.argv[1], "w") as file, tokioloop.watch(0.1, file) as watch:
            number, _ = watch._watchdog.stacks()
            # A handler at an address where no code is.
            ctypes.CDLL(None).signal(number, ctypes.c_void_p(8))
            loop.run_forever()
        loop.close()
        with open(sys.argv[1]) as told:
            print(told.read())
    """
    told = support.check(source, str(reports.path))
    assert told.count(" once more:\n") >= 2 and "  no stacks: they were being changed (signal 11)\n" in told


def test_signals_that_others_use_are_left_to_them(reports) -> None:
    taken = range(signal.SIGRTMAX - 3, signal.SIGRTMAX + 1)
    told: list[int] = []
    before = [signal.signal(number, lambda number, _: told.append(number)) for number in taken]
    try:
        with support.running() as loop, reports.watch():
            assert hangs_until(lambda: reports.come(loop), loop)
            os.kill(os.getpid(), signal.SIGRTMAX)
        assert told == [signal.SIGRTMAX]
    finally:
        for number, handler in zip(taken, before, strict=True):
            signal.signal(number, handler)


def test_what_a_program_closes_is_closed(loop, reports) -> None:
    """The thread has its own table of descriptors, for speed, and a child has it, too."""
    ours, theirs = peers.unix_pair()
    read, write = os.pipe()
    with theirs, reports.watch():
        assert hangs_until(lambda: reports.come(loop), loop)
        ours.close()
        os.close(write)
        assert theirs.recv(1) == b""
        assert os.read(read, 1) == b""
        os.close(read)


def test_a_pipe_without_a_reader_ends_nobody() -> None:
    source = """
        import os, signal, time, tokioloop
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        read, write = os.pipe()
        os.close(read)
        loop = tokioloop.new_event_loop()
        loop.call_soon(time.sleep, 0.5)
        loop.call_soon(loop.stop)
        with tokioloop.watch(0.05, write):
            loop.run_forever()
        loop.close()
        print("here")
    """
    assert support.check(source) == "here\n"


# ---- ends


def test_nothing_is_left_of_a_watch_that_was_closed(loop, reports) -> None:
    def state() -> tuple[Any, ...]:
        status = Path("/proc/self/status").read_text("ascii")
        caught = re.findall(r"(?m)^(?:SigCgt|Threads):\s*(\w+)", status)
        return support.fds(), caught

    runs(loop, int)
    before = state()
    watch = reports.watch()
    assert hangs_until(lambda: reports.come(loop), loop)
    assert not watch.closed and repr(watch) == "<Watch busy=0.2>"
    watch.close()
    watch.close()
    assert watch.closed and repr(watch) == "<Watch busy=0.2 closed>"
    assert state() == before
    length = len(reports.text())
    other = Reports(reports.path.with_name("others"))
    with other.watch():
        assert hangs_until(lambda: other.come(loop, 2), loop)
    assert len(reports.text()) == length, "what is closed writes nothing any more"


def test_the_callback_that_is_told_of_may_close_the_watch(loop, reports) -> None:
    watch = reports.watch()
    assert hangs_until(lambda: reports.come(loop) and watch.close() is None, loop)
    assert watch.closed


def test_several_watches_do_not_know_of_each_other(loop, tmp_path) -> None:
    quick, slow = (Reports(tmp_path / name) for name in ("quick", "slow"))
    with slow.watch(0.6):
        with quick.watch():
            assert hangs_until(lambda: slow.come(loop) and quick.come(loop), loop)
        assert quick.firsts(loop)[0][1] >= BUSY and slow.firsts(loop)[0][1] >= 0.6
        assert hangs_until(lambda: slow.come(loop, len(slow.firsts(loop)) + 1), loop)


def test_a_watch_that_nobody_keeps_goes_on_and_its_file_may_be_closed(tmp_path) -> None:
    source = """
        import os, sys, tokioloop
        from tests import support
        loop = tokioloop.new_event_loop()
        file = open(sys.argv[1], "w")
        number = file.fileno()
        tokioloop.watch(0.1, file)
        file.close()
        other = open(sys.argv[2], "w")
        assert other.fileno() == number
        def hang():
            with open(sys.argv[1]) as told:
                assert support.wait_until(lambda: told.seek(0) == 0 and "in hang\\n" in told.read())
        loop.call_soon(hang)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    """
    first, second = tmp_path / "first", tmp_path / "second"
    assert support.check(source, str(first), str(second)) == ""
    assert REPORT.search(first.read_text()) and second.read_text() == ""


@pytest.mark.parametrize("end", ["", "sys.exit()", "os._exit(0)"], ids=["the end", "exit", "_exit"])
def test_an_interpreter_ends_with_a_watch_open_and_a_loop_that_hangs(reports, end: str) -> None:
    source = f"""
        import os, sys, threading, tokioloop
        def hang():
            hangs.set()
            threading.Event().wait()
        hangs = threading.Event()
        loop = tokioloop.new_event_loop()
        loop.call_soon(hang)
        file = open(sys.argv[1], "w")
        watches = [tokioloop.watch(0.05, file) for _ in range(3)]
        threading.Thread(target=loop.run_forever, daemon=True).start()
        hangs.wait()
        while "in hang\\n" not in open(sys.argv[1]).read():
            hangs.wait(0.01)
        {end}
    """
    assert support.check(source, str(reports.path)) == ""


# ---- forks


FORKS = """
import os, sys, tokioloop
from tests import support

def text():
    with open(sys.argv[1]) as file:
        return file.read()

def hangs_until_told_of():
    loop = tokioloop.new_event_loop()
    before = text().count("busy for")
    def wait():
        assert support.wait_until(lambda: text().count("busy for") > before)
        loop.stop()
    loop.call_soon(wait)
    loop.run_forever()
    loop.close()
    return id(loop)

with open(sys.argv[1], "a") as file:
    watch = tokioloop.watch(0.1, file)
"""


def forks(source: str, reports: Reports) -> str:
    """What the program says; CPython warns since 3.12 of a fork with several threads."""
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", FORKS + source, str(reports.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=support.environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_both_sides_of_a_fork_are_watched_and_the_fork_meets_no_thread(reports) -> None:
    source = """
child = os.fork()
if child == 0:
    hangs_until_told_of()
    watch.close()
    os._exit(0)
assert os.waitpid(child, 0) == (child, 0)
hangs_until_told_of()
print("told of")
"""
    assert forks(source, reports) == "told of\n"
    assert len(reports.firsts()) >= 2


def test_a_loop_that_was_running_when_its_process_forked_is_the_parents(reports) -> None:
    source = """
def fork():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        hangs_until_told_of()
        os._exit(0)
    watch.close()
    length = len(text())
    os.write(write, b"x")
    assert os.waitpid(child, 0) == (child, 0)
    print(id(loop), length)

loop = tokioloop.new_event_loop()
loop.call_soon(fork)
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
"""
    inherited, length = map(int, forks(source, reports).split())
    told = {int(address, 16) for address, *_ in REPORT.findall(reports.text()[length:])}
    assert len(told) == 1 and inherited not in told


# ---- what it is given


@pytest.mark.parametrize("busy", [0, -1, 0.049, float("nan"), float("inf"), float("-inf"), 10**400])
def test_a_time_that_is_none_is_refused(busy: float) -> None:
    with pytest.raises(ValueError, match=r"busy must be finite and 0\.05 seconds at least, not "):
        tokioloop.watch(busy)


@pytest.mark.parametrize("busy", ["2", None, [], object()])
def test_what_is_no_number_is_refused(busy: Any) -> None:
    with pytest.raises(TypeError, match="busy must be a number of seconds, not "):
        tokioloop.watch(busy)


class Strange:
    def fileno(self) -> str:
        return "1"


@pytest.mark.parametrize(
    ("file", "error", "words"),
    [
        (object(), TypeError, "file must have a fileno"),
        ("path", TypeError, "file must have a fileno"),
        (True, TypeError, "not bool"),
        (Strange(), TypeError, "must return a descriptor, not str"),
        (io.StringIO(), ValueError, "StringIO has no descriptor"),
        (-1, ValueError, "-1 is no descriptor"),
        (1 << 40, ValueError, "is no descriptor"),
        ((1 << 30) - 1, OSError, "Bad file descriptor"),
    ],
    ids=str,
)
def test_what_is_no_file_is_refused(file: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tokioloop.watch(2, file)


def test_a_closed_file_is_refused(tmp_path) -> None:
    file = (tmp_path / "closed").open("w")
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        tokioloop.watch(2, file)


def test_a_program_without_standard_error_has_to_name_a_file(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(ValueError, match=r"there is no sys\.stderr"):
        tokioloop.watch()


def test_when_no_signal_is_left_that_is_said_and_nothing_stays() -> None:
    source = """
        import os, tokioloop
        before = os.listdir("/proc/self/fd")
        watches = []
        try:
            while True:
                watches.append(tokioloop.watch())
        except OSError as error:
            print(len(watches) > 10, error.strerror)
        for watch in watches:
            watch.close()
        assert os.listdir("/proc/self/fd") == before
        tokioloop.watch().close()
    """
    assert support.check(source) == f"True {os.strerror(28)}\n"
