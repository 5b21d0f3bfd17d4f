"""Programs in an interpreter of their own, for what a test cannot do in its own process: ending it, or starting one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

from .loops import LoopUnderTest

TIMEOUT = 15.0
"""Seconds a program may take."""

_PRELUDE = """
import sys
sys.path[:] = {path!r}
import asyncio, functools, gc, importlib, os, threading
_module, _, _attribute = {name!r}.partition(":")
new_loop = functools.reduce(getattr, (_attribute or "new_event_loop").split("."), importlib.import_module(_module))
"""


def run(
    loop: LoopUnderTest, source: str, *options: str, timeout: float = TIMEOUT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `source`, which finds `new_loop` and some modules imported, in a new interpreter with these `options`.

    It imports from where this one does, and gets its environment without what configures Python.

    AssertionError, with what it said, where it does not end within `timeout` seconds.
    """
    program = _PRELUDE.format(path=sys.path, name=loop.name) + textwrap.dedent(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUST_"))}
    try:
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", *options, "-c", program],
            capture_output=True, text=True, timeout=timeout, env={**kept, **env}, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        said = b"".join(part for part in (error.stdout, error.stderr) if part).decode(errors="replace")
        raise AssertionError(f"the program still ran after {timeout:g} s; it said: {said[-2000:]}") from None


def forked(function: Callable[[], Any]) -> Any:
    """Fork, call `function` in the child, and return the JSON value it returns there; the child is waited for.

    AssertionError where it raises, crashes, or does not end within 15 s. What it raises is on its standard error.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            signal.alarm(int(TIMEOUT))
            os.write(writing, json.dumps(function()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with exit code {os.waitstatus_to_exitcode(status)}"
    return json.loads(said)


def reap(pid: int) -> None:
    """Wait for a child that the test forked itself, which ends soon: the loop does not run meanwhile."""
    os.waitpid(pid, 0)
