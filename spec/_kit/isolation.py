"""Runs tests in forked children, and tells what became of each.

A child runs some tests of one module on one loop, one after the other: each by the whole protocol of its item (set-up,
call, teardown), and sends its reports through a pipe, as lines of JSON. A verdict that is not "passed" or "skipped"
never comes from a process that other tests have used: a child that met a failure, a leak (`leaks`), or whose process
is no longer what it was (`state`), goes no further. The one that schedules (`schedule`) runs the culprit in a child of
its own, and what it did there counts, and forks anew for the rest.

Whatever happens to a child (a crash, a hang, `os._exit`) costs one test only: its parent makes the report.
`faulthandler` writes the stacks of all threads into a file shared with the parent: of itself on a crash; on a hang
because the parent sends SIGABRT, which its C handler answers even while the interpreter lock is held. The child leads
its own process group, so that what it forked ends with it. A test that passed and left a descriptor, a process, a
thread, a task or a loop behind has failed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from . import peers, state
from .leaks import Snapshot
from .loops import describe_status

REPORTS = pytest.StashKey[list[pytest.TestReport]]()
"""Where the plugin's `pytest_runtest_protocol` leaves the reports of an item, in a child."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_DUMP_GRACE = 2.0
"""Seconds a child that hangs has for its dump after SIGABRT."""
_LOOK = 1.0
"""Seconds between two looks at whether a child has ended whose pipe something it forked still holds."""


@dataclass
class Outcome:
    """What became of one test: its reports, or the words for how its child ended without them.

    `passed`: it may count though other tests have used the process. `leaks`: the known leaks it met. `altered`: what
    of its process is another than before it (`state`).
    """

    duration: float = 0.0
    reports: list[pytest.TestReport] = field(default_factory=list)
    ended: str = ""
    dump: str = ""
    printed: tuple[str, str] = ("", "")
    leaks: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    passed: bool = False


class Child:
    """A forked process that runs `items`; the parent calls `receive` when there is something to read on `fileno()`.

    `index` is the test it is at. Only the parent uses this object: in the child the constructor never returns.
    """

    def __init__(self, items: Sequence[pytest.Item], known_leaks: Collection[str], others: Iterable[Child]) -> None:
        self.items = items
        self.index = 0
        self.ended = False
        self.hung = 0.0
        """The time-out that passed, in seconds, once one has."""
        self.started = time.monotonic()
        """When the test it is at has begun; the first one, when the child was forked."""
        self._status: int | None = None
        self._data = bytearray()
        self._killed_at = 0.0
        self._dump, *printed = (tempfile.TemporaryFile(buffering=0) for _ in range(3))  # noqa: SIM115 - see _let_go()
        self._printed = (printed[0], printed[1])
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reading)
            for other in others:
                other._let_go()
            _run_child(items, writing, self._dump, self._printed, known_leaks)
        os.close(writing)

    def fileno(self) -> int:
        """The end of the pipe to wait for."""
        return self._reading

    @property
    def item(self) -> pytest.Item | None:
        """The test it is at; None behind the last one."""
        return self.items[self.index] if self.index < len(self.items) else None

    def computes(self) -> bool:
        """Does it run, or would it, had it a CPU? Of all its threads, as they are now; true where none can be seen."""
        try:
            states = [path.read_text().rpartition(")")[2] for path in Path(f"/proc/{self._pid}/task").glob("*/stat")]
        except OSError:  # a thread, or all of it, has just ended
            return True
        return not states or any(state.startswith(" R") for state in states)

    def receive(self, readable: bool) -> list[tuple[pytest.Item, Outcome]]:
        """What became of the tests that it came to the end of since. `ended` is true once nothing more will come."""
        # Before what it has sent is read: what it sends between the two looks is there then.
        gone = not readable and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        with suppress(BlockingIOError):
            while chunk := os.read(self._reading, 1 << 20):
                self._data += chunk
            gone = True
        self.ended = gone
        outcomes = []
        *lines, rest = self._data.split(b"\n")
        self._data = bytearray(rest)
        for line in lines:
            message = json.loads(line)
            item = self.items[message["index"]]
            outcomes.append((item, self._outcome(item, message)))
            self.index = message["index"] + 1
            self.started = time.monotonic()
        if self.ended:
            self._reap()
        return outcomes

    def without_result(self) -> Outcome:
        """What became of the test it was at when it ended, which had sent nothing."""
        words = describe_status(self._status or 0)
        if self.hung:
            words = f"hung for {self.hung:g} s"
        elif not words.startswith("crashed"):
            words = f"{words} before it had a result"
        return Outcome(
            duration=time.monotonic() - self.started,
            ended=words,
            dump=_text(self._dump),
            printed=(_text(self._printed[0]), _text(self._printed[1])),
        )

    def check(self, timeout: float, stretch: float = 1.0) -> float:
        """End it if the test it is at has taken `timeout` seconds, `stretch` times; seconds until a look is due."""
        now = time.monotonic()
        if self._killed_at:
            if now >= self._killed_at:
                _kill_group(self._pid)
            return _LOOK
        left = self.started + timeout * stretch - now
        if left > 0:
            return min(left, _LOOK)
        self.hung = timeout
        self._killed_at = now + _DUMP_GRACE
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGABRT)
        return _DUMP_GRACE

    def end(self) -> None:
        """Kill it and all that it forked, if it still runs, and close what it had."""
        if self._status is None:
            self._reap()
        self._let_go()

    def _reap(self) -> None:
        # The group before it is reaped: as long as it is not, its number cannot be another process's.
        if self._status is None:
            ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None and self.ended and not self._killed_at:
                # Its pipe is closed, so it is about to end of itself, and how is its own doing.
                _wait_a_moment(self._pid)
            _kill_group(self._pid)
            _, self._status = os.waitpid(self._pid, 0)

    def _let_go(self) -> None:
        with suppress(OSError):
            os.close(self._reading)
        for file in (self._dump, *self._printed):
            file.close()

    def _outcome(self, item: pytest.Item, message: dict[str, Any]) -> Outcome:
        if "died" in message:
            return Outcome(message["duration"], ended=message["died"], dump=_text(self._dump))
        return Outcome(
            message["duration"],
            reports=[_unpack(item, report) for report in message["reports"]],
            leaks=message["leaks"],
            altered=message["altered"],
            passed=message["passed"],
        )


def _run_child(
    items: Sequence[pytest.Item],
    writing: int,
    dump: IO[bytes],
    printed: tuple[IO[bytes], IO[bytes]],
    known_leaks: Collection[str],
) -> None:
    """In the child: run the items, send their reports, end without unwinding the parent's stack."""
    try:
        os.setpgid(0, 0)
        _end_with_parent()
        # Of nohup(1), which has it ignored; Ctrl-C in the background is seen to for the whole run.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for item in items:
            item.stash[REPORTS] = []
        faulthandler.enable(file=dump, all_threads=True)
        _print_into(items[0].config, printed)
        # What the first loop of a process opens for good (a pipe for signals, say) is no test's.
        with _silent(items[0].config):
            items[0].callspec.params["loop_under_test"].factory().close()  # type: ignore[attr-defined]
        before = state.take()
        gc.freeze()
        for index, item in enumerate(items):
            message = _run_one(item, before, dump, known_leaks)
            message["index"] = index
            _send(writing, message)
            if not message.get("passed") or message["altered"]:
                break
            gc.freeze()  # what is left of it, imported modules most of all, costs the next one's collections no time
    except BaseException:
        with suppress(BaseException):
            dump.write(traceback.format_exc().encode())
            dump.flush()
    finally:
        os._exit(0)


def _run_one(
    item: pytest.Item, before: dict[str, Any], dump: IO[bytes], known_leaks: Collection[str]
) -> dict[str, Any]:
    """Run one item: the message for the parent. `before` is the state of this process."""
    started = time.monotonic()
    try:
        reports, met = _run_checked(item, known_leaks)
        altered = state.changed(before, state.take())
        pack = item.config.hook.pytest_report_to_serializable
        return {
            "reports": [pack(config=item.config, report=report) for report in reports],
            "leaks": met,
            "altered": altered,
            "passed": not any(report.failed for report in reports),
            "duration": time.monotonic() - started,
        }
    except BaseException as error:  # KeyboardInterrupt and pytest.exit() come through the protocol
        dump.write(traceback.format_exc().encode())
        dump.flush()
        return {"died": f"{type(error).__name__} left the test: {error}", "duration": time.monotonic() - started}


def _run_checked(item: pytest.Item, known_leaks: Collection[str]) -> tuple[list[pytest.TestReport], list[str]]:
    """Run the item, teardown of everything included; what it left behind fails a teardown that passed.

    Not in a fixture: until the last one is torn down, pytest keeps the records of the log, the exceptions in them, and
    with their frames all that a test had in its variables.
    """
    before = Snapshot.take()
    # By its hook, around which other plugins set up the filters of warnings and the explanations of assertions.
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    reports = item.stash[REPORTS]
    peers.give_ports_back()
    if not all(report.passed for report in reports):
        return reports, []
    left, met = before.left(known_leaks)
    if left:

        def fail() -> None:
            pytest.fail("left behind: " + "\n".join(left), pytrace=False)

        call = pytest.CallInfo.from_call(fail, when="teardown")
        report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
        report.duration, report.sections = reports[-1].duration, reports[-1].sections
        reports[-1] = report
    return reports, met


@contextmanager
def without_orphans() -> Iterator[None]:
    """On Linux, end what tests have left running, also in sessions of its own, behind the block. For a process that
    nobody else starts children of: as long as it lasts, theirs become its own when their parent ends.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        while sys.platform == "linux" and (orphans := _children()):
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """The children of this process, ended or not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            if path.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(int(path.parent.name))
    return found


def _end_with_parent() -> None:
    """On Linux, have this process killed when its parent ends, whatever ends that: a test that hangs would stay."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _print_into(config: pytest.Config, files: tuple[IO[bytes], IO[bytes]]) -> None:
    """Have pytest capture into these files: those it has are shared with every other child, position and all."""
    manager = config.pluginmanager.getplugin("capturemanager")
    capturing = getattr(manager, "_global_capturing", None)
    for name, file in zip(("out", "err"), files, strict=True):
        capture = getattr(capturing, name, None)
        # Between two tests it is suspended, so nothing but its own file is to change. Not there: -s, or --capture=sys.
        if getattr(capture, "targetfd", None) is not None:
            os.dup2(file.fileno(), capture.tmpfile.fileno())


@contextmanager
def _silent(config: pytest.Config) -> Iterator[None]:
    """Have pytest capture what is printed here, where it does so in tests, and forget it."""
    manager = config.pluginmanager.getplugin("capturemanager")
    if manager is None or not manager.is_globally_capturing():
        yield
        return
    manager.resume_global_capture()
    try:
        yield
    finally:
        manager.suspend_global_capture()
        manager.read_global_capture()


def _send(writing: int, message: dict[str, Any]) -> None:
    view = memoryview(json.dumps(message, default=repr).encode() + b"\n")
    while view:
        view = view[os.write(writing, view) :]


def _unpack(item: pytest.Item, data: dict[str, Any]) -> Any:
    report: Any = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    if isinstance(report.longrepr, list):  # where and why a test was skipped: a tuple, which JSON has not
        report.longrepr = tuple(report.longrepr)
    return report


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _wait_a_moment(pid: int) -> None:
    """Wait until the process has ended, or does not seem to."""
    deadline = time.monotonic() + _DUMP_GRACE
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < deadline:
        time.sleep(0.001)  # clause-delay: nothing else tells, as the pipe is closed already


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
