"""Runs one test in a forked child, under a time-out.

The child runs the whole protocol of the item (set-up, call, teardown) and sends its reports, as JSON behind their
length, through a pipe. Whatever else happens to it (a crash, a hang, `os._exit`) costs that test only: the parent makes
the report. `faulthandler` writes the stacks of all threads into a file shared with the parent: of itself on a crash; on
a hang because the parent sends SIGABRT, which its C handler answers even while the interpreter lock is held.
The child leads its own process group, so that what it forked ends with it. A test that passed and left a descriptor, a
process, a thread, a task or a loop behind (`leaks`) has failed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import struct
import time
import traceback
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import pytest
from _pytest.runner import runtestprotocol

from . import peers
from .leaks import Snapshot
from .loops import describe_status

_LENGTH = struct.Struct("!Q")
_DUMP_GRACE = 2.0
"""Seconds a child that hangs has for its dump after SIGABRT."""


@dataclass
class Outcome:
    """What became of a child: its reports, or the words for how it ended without them."""

    duration: float
    reports: list[pytest.TestReport] = field(default_factory=list)
    ended: str = ""
    dump: str = ""
    leaks: list[str] = field(default_factory=list)
    """The known leaks that the test met."""


def run_forked(item: pytest.Item, timeout: float, dump: IO[bytes], known_leaks: Collection[str] = ()) -> Outcome:
    """Run `item` in a child for at most `timeout` seconds; `dump` is a file for the stacks, overwritten.

    `known_leaks` are patterns of what may be left behind (`Snapshot.left`).
    """
    dump.seek(0)
    dump.truncate()
    started = time.monotonic()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _run_child(item, writing, dump, known_leaks)
    os.close(writing)
    hung = False
    status: int | None = None
    try:
        data, hung, status = _receive(reading, pid, started + timeout)
    finally:
        os.close(reading)
        # Before it is reaped: as long as it is not, its number cannot be another process's.
        if status is None:
            _kill_group(pid)
            _, status = os.waitpid(pid, 0)
    outcome = Outcome(duration=time.monotonic() - started)
    message = _complete(data)
    if hung:
        outcome.ended = f"hung for {timeout:g} s"
    elif message is None:
        outcome.ended = _without_result(status)
    elif "died" in message:
        outcome.ended = message["died"]
    else:
        outcome.reports = [_unpack(item, report) for report in message["reports"]]
        outcome.leaks = message["leaks"]
    if outcome.ended:
        dump.seek(0)
        outcome.dump = dump.read().decode("utf-8", "replace")
    return outcome


def _run_child(item: pytest.Item, writing: int, dump: IO[bytes], known_leaks: Collection[str]) -> None:
    """In the child: run the item, send the reports, end without unwinding the parent's stack."""
    try:
        os.setpgid(0, 0)
        # Of nohup(1), which has it ignored; Ctrl-C in the background is seen to for the whole run.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(file=dump, all_threads=True)
        try:
            pack = item.config.hook.pytest_report_to_serializable
            reports, met = _run_checked(item, known_leaks)
            packed = [pack(config=item.config, report=report) for report in reports]
            message: dict[str, Any] = {"reports": packed, "leaks": met}
        except BaseException as error:  # KeyboardInterrupt and pytest.exit() come through the protocol
            message = {"died": f"{type(error).__name__} left the test: {error}"}
            dump.write(traceback.format_exc().encode())
            dump.flush()
        body = json.dumps(message, default=repr).encode()
        view = memoryview(_LENGTH.pack(len(body)) + body)
        while view:
            view = view[os.write(writing, view) :]
    except BaseException:
        with suppress(BaseException):
            dump.write(traceback.format_exc().encode())
            dump.flush()
    finally:
        os._exit(0)


def _run_checked(item: pytest.Item, known_leaks: Collection[str]) -> tuple[list[pytest.TestReport], list[str]]:
    """Run the item, teardown of everything included; what it left behind fails a teardown that passed.

    Not in a fixture: until the last one is torn down, pytest keeps the records of the log, the exceptions in them, and
    with their frames all that a test had in its variables.
    """
    # What the first loop of a process opens for good (a pipe for signals, say) is no test's.
    item.callspec.params["loop_under_test"].factory().close()  # type: ignore[attr-defined]
    before = Snapshot.take()
    reports = runtestprotocol(item, log=False, nextitem=None)
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


def _receive(reading: int, pid: int, deadline: float) -> tuple[bytes, bool, int | None]:
    """Read until the message is whole, the child ends or the deadline passes: data, hung?, status where reaped."""
    data = bytearray()
    while _complete(data) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGABRT)
            with suppress(OSError):
                _drain(reading)
            return bytes(data), True, None
        # The child's exit closes the pipe, unless something it forked still holds it: hence the look every second.
        readable, _, _ = select.select([reading], [], [], min(left, 1.0))
        if readable:
            chunk = os.read(reading, 1 << 20)
            if not chunk:
                return bytes(data), False, os.waitpid(pid, 0)[1]
            data += chunk
        else:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return bytes(data), False, status
    return bytes(data), False, None


def _unpack(item: pytest.Item, data: dict[str, Any]) -> Any:
    report: Any = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    if isinstance(report.longrepr, list):  # where and why a test was skipped: a tuple, which JSON has not
        report.longrepr = tuple(report.longrepr)
    return report


def _drain(reading: int) -> None:
    """Wait until the child, told to abort, has written its dump and is gone, or its grace is over."""
    deadline = time.monotonic() + _DUMP_GRACE
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([reading], [], [], left)
        if readable and not os.read(reading, 1 << 20):
            return


def _complete(data: bytes | bytearray) -> dict[str, Any] | None:
    if len(data) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(data)
    body = data[_LENGTH.size :]
    return dict(json.loads(bytes(body))) if len(body) >= length else None


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _without_result(status: int) -> str:
    words = describe_status(status)
    return words if words.startswith("crashed") else f"{words} before it had a result"
