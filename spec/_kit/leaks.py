"""What a test leaves behind: descriptors, child processes, threads, tasks, and loops that nobody closed.

Rules:
- The state before a test is compared with the state after its teardown, in the process of the test. Only a test that
  passed is judged: what failed may have been interrupted anywhere, and its traceback keeps its variables.
- What ends by itself within `GRACE` seconds is not left behind. `loop.close()` shuts the default executor down without
  waiting for it (https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.close), and the kernel takes a
  moment to end a thread that was joined. Nor is what a garbage collection frees.
- A descriptor is told by its number and what it is a link to: a number that became another file is one left behind.
- Threads are those of `threading` and all others that the kernel knows, such as the workers of an extension.
- Tasks are asked of every loop that the suite's factories made. One that still waits on a closed loop never ends.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass

GRACE = 1.0
"""Seconds that what is ending anyway has for it."""
_POLL = 0.002
"""Seconds between two looks."""

_made: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def tracked(factory: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], asyncio.AbstractEventLoop]:
    """`factory`, whose loops this module knows from then on."""

    @functools.wraps(factory, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def make() -> asyncio.AbstractEventLoop:
        loop = factory()
        _made.add(loop)
        return loop

    return make


@dataclass(frozen=True)
class Snapshot:
    """What this process has: links of descriptors by number, children, and threads by the kernel's number."""

    descriptors: dict[int, str]
    children: frozenset[int]
    threads: frozenset[int]

    @classmethod
    def take(cls) -> Snapshot:
        """What there is now."""
        return cls(_descriptors(), frozenset(_children()), frozenset(_threads()))

    def left(self, known: Collection[str] = ()) -> tuple[list[str], list[str]]:
        """What has come since and stays, a line each, but for what `known` patterns name; and which of those it met."""
        if not self._unknown(known):
            return [], self._met(known)
        gc.collect()
        deadline = time.monotonic() + GRACE
        while (found := self._unknown(known)) and time.monotonic() < deadline:
            time.sleep(_POLL)  # clause-delay: nothing tells that another thread let go of something
        return found, self._met(known)

    def _unknown(self, known: Collection[str]) -> list[str]:
        return [line for line in self._new() if not any(_is_like(line, pattern) for pattern in known)]

    def _met(self, known: Collection[str]) -> list[str]:
        lines = self._new() if known else []
        return [pattern for pattern in known if any(_is_like(line, pattern) for line in lines)]

    def _new(self) -> list[str]:
        descriptors, children, threads = _descriptors(), _children(), _threads()
        # Causes first: a loop that is open has descriptors and threads.
        return [
            *_loops(),
            *(f"process {pid}: {what}" for pid, what in children.items() if pid not in self.children),
            *(f"thread {number}: {what}" for number, what in threads.items() if number not in self.threads),
            *(
                f"descriptor {number} -> {link}{_address(number, link)}"
                for number, link in descriptors.items()
                if self.descriptors.get(number) != link
            ),
        ]


def _is_like(line: str, pattern: str) -> bool:
    """Is `line` what `pattern` says, in which `*` stands for anything?"""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), line) is not None


def _descriptors() -> dict[int, str]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found: dict[int, str] = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = _link(int(name), f"{folder}/{name}")
        except OSError:
            continue  # the one that listed the folder
    return dict(sorted(found.items()))


def _link(number: int, path: str) -> str:
    """What the descriptor is; without /proc, kind and identity of its file. OSError where it is not open."""
    try:
        return os.readlink(path)
    except OSError:
        status = os.fstat(number)
        return f"mode {status.st_mode:o}, device {status.st_dev}, inode {status.st_ino}"


def _address(number: int, link: str) -> str:
    """Which socket a descriptor is, where it is one: family, kind and address."""
    if not link.startswith("socket:"):
        return ""
    try:
        with socket.socket(fileno=os.dup(number)) as sock:
            return f" ({sock.family.name} {sock.type.name} {sock.getsockname()!r})"
    except (OSError, AttributeError):  # it was closed just now; a family or kind that Python has no name for
        return ""


def _children() -> dict[int, str]:
    """The child processes that nobody waited for, by number: the name and state of each."""
    if not hasattr(os, "waitid"):
        return {}
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}  # the common case: there is none
    found: dict[int, str] = {}
    if os.path.isdir("/proc/self"):
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    command, _, rest = file.read().partition("(")[2].rpartition(")")
            except OSError:
                continue  # it has ended meanwhile
            state, parent = rest.split()[:2]
            if int(parent) == os.getpid():
                found[int(name)] = f"{command}, " + ("a zombie" if state == "Z" else "still running")
    elif ended is not None:
        found[ended.si_pid] = "a zombie"
    else:
        found[0] = "number unknown, still running"
    return found


def _threads() -> dict[int, str]:
    """Threads by the kernel's number: the name of each, and whether Python's `threading` knows it."""
    found = {
        thread.native_id: f"{thread.name!r} of threading{', a daemon' if thread.daemon else ''}"
        for thread in threading.enumerate()
        # A stand-in for a thread that threading did not start stays when that has ended.
        if thread.native_id is not None and not isinstance(thread, threading._DummyThread)
    }
    if os.path.isdir("/proc/self/task"):
        for name in os.listdir("/proc/self/task"):
            if int(name) not in found:
                found[int(name)] = _thread_name(name)
    return found


def _thread_name(number: str) -> str:
    try:
        with open(f"/proc/self/task/{number}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()!r}, not of threading"
    except OSError:
        return "it is ending"


def _loops() -> list[str]:
    found: list[str] = []
    for loop in list(_made):
        if not loop.is_closed():
            found.append(f"loop {loop!r}: not closed")
        found += [f"task {task!r}: still waits" for task in asyncio.all_tasks(loop)]
    return found
