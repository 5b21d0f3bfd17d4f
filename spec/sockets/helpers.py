"""What the tests of `sock_*` share."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

LATE = 0.05
"""Seconds a late peer waits before it acts."""


class Late:
    """A peer's act that comes late: `with peers.thread(late, fn, *args)`; `late.acted` says whether it has begun."""

    def __init__(self) -> None:
        self.acted = False

    def __call__(self, fn: Callable[..., Any], *args: Any) -> Any:
        time.sleep(LATE)  # clause-delay
        self.acted = True
        return fn(*args)


@contextmanager
def datagram(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A bound non-blocking UDP socket on loopback."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        sock.setblocking(False)
        yield sock


def skip_unless_implemented(loop: asyncio.AbstractEventLoop, operation: str) -> None:
    """Skip where the loop lacks `sock_{operation}`: that is for the tests of that operation alone to say."""
    args = {"accept": (None,), "sendto": (None, b"", None)}.get(operation, (None, bytearray(1)))
    try:
        made = getattr(loop, f"sock_{operation}")(*args)
        made.send(None)
    except NotImplementedError:
        pytest.skip(f"no sock_{operation} here")
    except Exception:
        return  # None is no socket, so it is there


def open_fds() -> set[int]:
    """The numbers of the open fds of this process."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    fds = {int(name) for name in os.listdir(directory)}
    # The directory itself was open while it was listed.
    return {fd for fd in fds if _is_open(fd)}


def pattern(count: int) -> bytes:
    """`count` bytes in which no two neighbouring KiB are equal."""
    block = bytes(range(256)) * 4
    return b"".join(block[index % 251 :] + block[: index % 251] for index in range(count // 1024 + 1))[:count]


async def turns(count: int = 5) -> None:
    """Let the loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and wait until it is; AssertionError where it ends otherwise."""
    task.cancel()
    try:
        result = await task
    except asyncio.CancelledError:
        return
    raise AssertionError(f"the task ended with {result!r}")


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
