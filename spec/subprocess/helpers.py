"""What the tests of subprocesses share. Children are small programs of POSIX, as Python takes long to start."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest

PIPE = asyncio.subprocess.PIPE
DEVNULL = asyncio.subprocess.DEVNULL
STDOUT = asyncio.subprocess.STDOUT
PIPES: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}


class Recorder(asyncio.SubprocessProtocol):
    """Writes down what it is told; `exited` and `lost` are set when the child exited and the transport was lost."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.data = {1: b"", 2: b""}
        self.exited, self.lost = asyncio.Event(), asyncio.Event()
        self.closed = {fd: asyncio.Event() for fd in range(3)}
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append(("made", transport))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.events.append(("data", fd))
        self.data[fd] += data
        self.came.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.events.append(("closed", fd, exc))
        self.closed[fd].set()

    def process_exited(self) -> None:
        self.events.append(("exited",))
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(("lost", exc))
        self.lost.set()

    def names(self) -> list[str]:
        """What happened, without the arguments."""
        return [event[0] for event in self.events]

    async def until(self, fd: int, text: bytes) -> None:
        """Wait until the child has written `text` to `fd`."""
        while text not in self.data[fd]:
            self.came.clear()
            await self.came.wait()


async def sh(script: str, *args: str, **options: Any) -> asyncio.subprocess.Process:
    """Start the shell with `script`; `args` are its $1, $2 and so on."""
    return await asyncio.create_subprocess_exec("/bin/sh", "-c", script, "sh", *args, **options)


async def output(script: str, *args: str, **options: Any) -> str:
    """What `script` writes to standard output; it must exit with 0."""
    process = await sh(script, *args, stdout=PIPE, **options)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().strip()


async def start(script: str, *args: str, **options: Any) -> tuple[asyncio.SubprocessTransport, Recorder]:
    """Start the shell with `script` and a Recorder."""
    loop = asyncio.get_running_loop()
    return await loop.subprocess_exec(Recorder, "/bin/sh", "-c", script, "sh", *args, **options)


async def start_gated(script: str, **options: Any) -> tuple[asyncio.SubprocessTransport, Recorder, Callable[[], None]]:
    """`start()`, and a function that lets the child run `script` and blocks until it has exited, unseen by the loop."""
    reading, writing = os.pipe()
    transport, protocol = await start(f"read line; {script}", stdin=reading, **options)
    os.close(reading)

    def finish() -> None:
        os.write(writing, b"\n")
        os.close(writing)
        until_zombie(transport.get_pid())

    return transport, protocol, finish


def no_children() -> bool:
    """Has this process no child, running or zombie?"""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def until_zombie(pid: int) -> None:
    """Block until the child has exited; its status stays to be taken, unless a thread of the loop takes it."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def reaped(pid: int) -> bool:
    """Is there no child of this number, no zombie either?"""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def reap(pid: int) -> int:
    """Wait for a child behind the loop's back; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def descriptors() -> set[str]:
    """The numbers of the open descriptors of this process."""
    listing = os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")
    return {number for number in listing if is_open(int(number))}


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def refused(run: Callable[[Any], Any], coroutine: Any, *errors: type[BaseException]) -> None:
    """Running `coroutine` raises one of `errors`, and no process is there afterwards."""
    with pytest.raises(errors):
        run(coroutine)
    assert no_children()
