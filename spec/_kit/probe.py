"""Finds out what a loop is, in a forked child that imports its module, makes it and closes it.

Rules:
- Whatever a loop does there costs its own place in the run only: an exception, an exit, a crash, a hang, output, a
  process that it forked. The child leads its own process group, which ends with it.
- What it does beside being made is noted (`notes`), and is no failure: output, threads and processes that stay, signals
  that are handled from then on, standard descriptors that it closed.
- A module whose import does any of that is imported by those who make its loops (`lazily`), not by the process that
  forks them: a copy of a process with threads has their locks, but not them.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from . import leaks

MAKE_TIMEOUT = 20.0
"""Seconds a loop may take to be imported, made and closed."""
_LOOK = 0.2
"""Seconds between two looks at whether a child has ended whose pipe something it forked still holds."""
_METHODS = ("run_forever", "run_until_complete", "call_soon", "is_running", "stop", "close")
_WORDS = 300
"""Characters of a message, at most."""


@dataclass(frozen=True)
class Facts:
    """What is known of a loop; `error` is why it cannot be had, in one line, and empty where it can."""

    error: str = ""
    label: str = ""
    class_name: str = ""
    version: str = ""
    notes: tuple[str, ...] = ()
    lazily: bool = False


def probe(module: str, attribute: str, timeout: float = MAKE_TIMEOUT) -> Facts:
    """Import `module`, call `attribute` of it and close the loop that this makes, within `timeout` seconds."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile(buffering=0) as printed:
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _run_child(module, attribute, writing, printed)
        os.close(writing)
        try:
            said, hung = _listen(pid, reading, timeout)
        finally:
            os.close(reading)
            status = _end(pid)
    if said.endswith(b"\n"):
        facts = json.loads(said)
        return Facts(**facts | {"notes": tuple(facts.get("notes", ()))})
    if hung:
        return Facts(error=f"making it took more than {timeout:g} s")
    return Facts(error=f"making it ended the process: {describe_status(status)}")


def factory_of(module: str, attribute: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory itself; imports the module. TypeError where it cannot be called."""
    factory = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    if not callable(factory):
        raise TypeError(f"{module}:{attribute} is not callable")
    return factory


def lazy_factory_of(module: str, attribute: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """A factory that imports the module when it is called."""

    def make() -> asyncio.AbstractEventLoop:
        return factory_of(module, attribute)()

    return make


def label_of(cls: type) -> str:
    """The class name where it starts with its top module's name, ignoring case; else that module's name."""
    top = cls.__module__.partition(".")[0]
    return cls.__name__ if top != "asyncio" and cls.__name__.lower().startswith(top.lower()) else top


def describe_status(status: int) -> str:
    """A wait status in words: `crashed (signal 11)` or `exited with status 3`."""
    code = os.waitstatus_to_exitcode(status)
    return f"crashed (signal {-code})" if code < 0 else f"exited with status {code}"


def one_line(text: str) -> str:
    """`text` in one line that is not too long."""
    joined = " ".join(text.split())
    return joined if len(joined) <= _WORDS else joined[: _WORDS - 3] + "..."


def _listen(pid: int, reading: int, timeout: float) -> tuple[bytes, bool]:
    """What the child says, to the end of its line or its own; and whether it was not heard in time."""
    said = bytearray()
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([reading], [], [], min(left, _LOOK))
        if readable:
            chunk = os.read(reading, 65_536)
            said += chunk
            if not chunk or chunk.endswith(b"\n"):
                return bytes(said), False
        elif os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return bytes(said), False
    return bytes(said), True


def _end(pid: int) -> int:
    """End the child and what it forked; its wait status."""
    with suppress(ChildProcessError):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            _wait_a_moment(pid)
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _wait_a_moment(pid: int) -> None:
    """Give a child that has closed its pipe the time to end, so that its status is its own."""
    deadline = time.monotonic() + _LOOK
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < deadline:
        time.sleep(0.001)  # clause-delay: nothing tells that a process which closed its pipe has ended


def _run_child(module: str, attribute: str, writing: int, printed: IO[bytes]) -> None:
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        for number in (1, 2):
            os.dup2(printed.fileno(), number)
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - ends with the process
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        try:
            facts = _facts(module, attribute, printed)
        except BaseException as error:
            facts = {"error": one_line(f"{type(error).__name__}: {error}")}
        os.write(writing, json.dumps(facts).encode() + b"\n")
    finally:
        os._exit(0)


def _facts(module: str, attribute: str, printed: IO[bytes]) -> dict[str, Any]:
    before = _Process.take(printed)
    try:
        importlib.import_module(module)
    except ImportError as error:
        return {"error": one_line(f"module {module!r} cannot be imported ({error})")}
    imported = _Process.take(printed)
    notes = imported.since(before, "importing it")
    loop = factory_of(module, attribute)()
    cls = type(loop)
    if missing := [name for name in _METHODS if not callable(getattr(loop, name, None))]:
        return {"error": one_line(f"makes an object of type {cls.__name__!r}, no event loop: it has no {missing[0]}()")}
    loop.close()
    return {
        "label": label_of(cls),
        "class_name": f"{cls.__module__}.{cls.__qualname__}",
        "version": _version(cls),
        "notes": notes + _Process.take(printed).since(imported, "making and closing it"),
        "lazily": bool(notes),
    }


def _version(cls: type) -> str:
    top = cls.__module__.partition(".")[0]
    if top == "asyncio":
        return platform.python_version()
    distributions = importlib.metadata.packages_distributions().get(top, [])
    if distributions:
        return importlib.metadata.version(distributions[0])
    return str(getattr(importlib.import_module(top), "__version__", "unknown"))


@dataclass(frozen=True)
class _Process:
    """What a module or a loop changes in the process it is in."""

    left: leaks.Snapshot
    handled: frozenset[str]
    standard: frozenset[int]
    printed: bytes

    @classmethod
    def take(cls, printed: IO[bytes]) -> _Process:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        return cls(leaks.Snapshot.take(), _handled(), _standard(), os.pread(printed.fileno(), 65_536, 0))

    def since(self, before: _Process, doing: str) -> list[str]:
        """What has changed, a line each."""
        notes = []
        if text := self.printed[len(before.printed) :].decode("utf-8", "replace"):
            notes.append(f"{doing} printed {one_line(text)[:80]!r}")
        left, _ = before.left.left(("descriptor *", "loop *", "task *"))
        notes += [f"{doing} left {line}" for line in left]
        notes += [f"{doing} had {name} handled" for name in sorted(self.handled - before.handled)]
        notes += [f"{doing} closed descriptor {number}" for number in sorted(before.standard - self.standard)]
        return notes


def _handled() -> frozenset[str]:
    """The signals that Python has another handler for than it starts with."""
    usual = (signal.SIG_DFL, signal.SIG_IGN, None, signal.default_int_handler)
    return frozenset(number.name for number in signal.Signals if signal.getsignal(number) not in usual)


def _standard() -> frozenset[int]:
    found = set()
    for number in range(3):
        with suppress(OSError):
            os.fstat(number)
            found.add(number)
    return frozenset(found)
