"""What a test changes in its process besides what it leaves behind (`leaks`): the state that the next test would meet.

None of it is a failure, as a test may be the first to import something that does it. The process is not used for
another test, and a run tells which loop's tests did what, as a loop that does it on its own does it to programs, too.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import gc
import os
import resource
import signal
import sys
import threading
from typing import Any

_SIGNALS = sorted(signal.valid_signals())
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_PATCHABLE = (
    "asyncio", "asyncio.base_events", "asyncio.events", "asyncio.futures", "asyncio.runners", "asyncio.selector_events",
    "asyncio.sslproto", "asyncio.streams", "asyncio.subprocess", "asyncio.tasks", "asyncio.unix_events", "builtins",
    "os", "select", "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time",
)  # fmt: skip
"""Modules whose names a loop may put something else behind."""

_NOT_PATCHED = {"__builtins__", "__warningregistry__", "_", "_event_loop_policy"}


def take() -> dict[str, Any]:
    """The state now, by what it is called; two of them compare by `==`."""
    state: dict[str, Any] = {
        "descriptors 0 to 2": tuple(_identity(number) for number in range(3)),
        "signal handlers": tuple(signal.getsignal(number) for number in _SIGNALS),
        "signal mask": frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "timers of signals": tuple(signal.getitimer(timer)[0] > 0 for timer in _TIMERS),
        "signal.set_wakeup_fd()": _wakeup_fd(),
        "sys.stdin, stdout and stderr": (sys.stdin, sys.stdout, sys.stderr),
        "hooks for exceptions": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "hooks for asynchronous generators": tuple(sys.get_asyncgen_hooks()),
        "tracing": (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()),
        "garbage collector": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
        "recursion limit and switch interval": (sys.getrecursionlimit(), sys.getswitchinterval()),
        "limits of resources": (resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_AS)),
        "working folder": _folder(),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "running loop": asyncio._get_running_loop(),
        "policy of event loops": getattr(asyncio.events, "_event_loop_policy", None),
    }
    for name in _PATCHABLE:
        state[f"names of {name}"] = dict(vars(sys.modules[name])) if name in sys.modules else {}
    return state


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is another than it was, in words. A name that a module did not have before is no change."""
    found = []
    for what, value in before.items():
        now = after[what]
        if what.startswith("names of "):
            # Most are the same objects, which a comparison of whole dictionaries finds without looking into them.
            if now != value and any(now.get(key) is not old for key, old in value.items() if key not in _NOT_PATCHED):
                found.append(what)
        elif now != value and not (what == "policy of event loops" and value is None):  # made where first asked for
            found.append(what)
    return found


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wakeup_fd() -> int:
    if threading.current_thread() is not threading.main_thread():
        return -1
    current = signal.set_wakeup_fd(-1)
    if current != -1:
        try:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        except (OSError, ValueError):  # closed meanwhile
            return -2
    return current


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None
