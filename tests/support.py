"""What the tests of this directory share: the loop they test, programs of their own processes, descriptors and memory.

The loop is TOKIOLOOP_TEST_LOOP (`module:factory`, default `tokioloop:new_event_loop`), so that each test can be seen
to pass on stock asyncio (`asyncio:new_event_loop`).
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

PROJECT = Path(__file__).resolve().parents[1]
LOOP = os.environ.get("TOKIOLOOP_TEST_LOOP", "tokioloop:new_event_loop")
OURS = LOOP.startswith("tokioloop:")
"""Is the loop under test ours? Tests of what only ours has ask this."""
TIMEOUT = 30.0
"""Seconds a program of a test may take before the test fails."""


def factory(name: str = LOOP) -> Callable[[], asyncio.AbstractEventLoop]:
    """The function that makes the loop under test, or another one (`module:factory`)."""
    module, _, attribute = name.partition(":")
    made: Callable[[], asyncio.AbstractEventLoop] = functools.reduce(
        getattr, attribute.split("."), importlib.import_module(module)
    )
    return made


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop of the kind under test."""
    return factory()()


@contextmanager
def running() -> Iterator[asyncio.AbstractEventLoop]:
    """A new loop, closed at the end."""
    loop = new_loop()
    try:
        yield loop
    finally:
        loop.close()


def environment(**changes: str) -> dict[str, str]:
    """The environment of a program that tests start: finds this project and the loop under test."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    kept = {name: value for name, value in os.environ.items() if name not in ("RUST_LOG", "PYTHONASYNCIODEBUG")}
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TOKIOLOOP_TEST_LOOP": LOOP, **changes}


def python(source: str, *args: str, timeout: float = TIMEOUT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `source` in a Python of its own. TimeoutError, with what it said, after `timeout` seconds."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *args]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment(**env), check=False
        )
    except subprocess.TimeoutExpired as error:
        said = b"".join(part for part in (error.stdout, error.stderr) if part).decode(errors="replace")
        raise TimeoutError(f"the program still ran after {timeout} s; it said: {said[-4000:]}") from None


def check(source: str, *args: str, timeout: float = TIMEOUT, **env: str) -> str:
    """`python()`, then: exit status 0 and nothing on standard error. What the program printed."""
    done = python(source, *args, timeout=timeout, **env)
    assert done.returncode == 0 and not done.stderr, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Program:
    """A started program whose output is read as it comes and which can be told lines; ended with the `with`."""

    def __init__(self, *command: str, **env: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=PROJECT, env=environment(**env),
        )  # fmt: skip
        self.pid = self._process.pid
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def tell(self, line: str) -> None:
        """Write a line to the program's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def answer(self, line: str, timeout: float = TIMEOUT) -> str:
        """Tell the program `line` and return the next whole line it says."""
        start = len(self.output)
        self.tell(line)
        deadline = time.monotonic() + timeout
        while "\n" not in self.output[start:]:
            assert self._read(deadline), f"no answer to {line!r}: {self.output[-4000:]}"
        return self.output[start:].partition("\n")[0]

    def wait_for(self, text: str, timeout: float = TIMEOUT) -> str:
        """Read output until it holds `text`; all output so far. AssertionError where it ends, or time does, before."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            assert self._read(deadline), f"no {text!r} in the output: {self.output[-4000:]}"
        return self.output

    def end(self, signal: int | None = None, timeout: float = TIMEOUT) -> int:
        """Send `signal`, if any, read to the end and return the exit status. AssertionError where it does not end."""
        if signal is not None:
            self._process.send_signal(signal)
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        left = deadline - time.monotonic()
        assert left > 0, f"the program did not end in {timeout} s: {self.output[-4000:]}"
        return self._process.wait(left)

    def _read(self, deadline: float) -> bool:
        stdout = self._process.stdout
        assert stdout is not None
        readable, _, _ = select.select([stdout], [], [], max(deadline - time.monotonic(), 0))
        chunk = os.read(stdout.fileno(), 1 << 16) if readable else b""
        self.output += chunk.decode(errors="replace")
        return bool(chunk)


def fds(pid: int | None = None) -> dict[int, str]:
    """Open descriptors of a process (Linux; of this one, anywhere), by number: what each is."""
    folder = f"/proc/{pid or 'self'}/fd"
    found: dict[int, str] = {}
    for name in os.listdir(folder if os.path.isdir(folder) else "/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"{folder}/{name}")
        except OSError:
            continue  # the one that lists the folder, or one that was closed just now
    return found


def rss(pid: int | None = None) -> int:
    """Resident memory of a process in bytes (Linux)."""
    with open(f"/proc/{pid or 'self'}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], bool], timeout: float = TIMEOUT) -> bool:
    """Poll what sends no event (another process's descriptors); whether it came true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # clause-delay: /proc has no event to wait for
    return True
