"""The servers that programs.py talks to: Redis and PostgreSQL as tests/real starts them, and a WebSocket server.

Each is started once for all loops, on a CPU that the loop under test does not have.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class NoServerError(Exception):
    """A server cannot be had here; says why."""


@contextlib.contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """What is started inside is pinned to this CPU; so is this process, meanwhile."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def from_tests(make: Callable[[Any, Path], Any]) -> Iterator[str]:
    """A server of tests/real. Raises NoServerError."""
    sys.path.insert(0, str(HERE.parent))
    try:
        import pytest

        from tests.real import servers
    except ImportError as error:
        raise NoServerError(f"tests/real cannot be used: {error}") from error
    finally:
        sys.path.remove(str(HERE.parent))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(make(servers, Path(folder)))
        except pytest.skip.Exception as error:
            raise NoServerError(str(error)) from error
        except (OSError, AssertionError, subprocess.SubprocessError) as error:
            raise NoServerError(f"it does not start: {error}") from error
        yield f"127.0.0.1:{address.port}"


def postgres(servers: Any, folder: Path) -> Any:
    """PostgreSQL; its certificate is not asked for."""
    from tests.real.certificates import Certificates

    return servers.postgres(Certificates.made(folder))


def redis(servers: Any, folder: Path) -> Any:
    """Redis."""
    return servers.redis()


@contextlib.contextmanager
def websockets() -> Iterator[str]:
    """An echo over WebSockets, on stock asyncio. Raises NoServerError."""
    command = [sys.executable, str(HERE / "apps.py"), "websockets", "--addr", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise NoServerError((process.stderr.read().strip().splitlines() or ["it does not start"])[-1])
            yield line.split()[-1]
        finally:
            process.kill()


@contextlib.contextmanager
def serving(program: str, cpu: int | None) -> Iterator[str]:
    """The address of the server that a program of programs.py talks to. Raises NoServerError."""
    makers = {"redis": lambda: from_tests(redis), "websockets": websockets}
    with contextlib.ExitStack() as stack:
        with on_cpu(cpu):
            addr = stack.enter_context(makers.get(program, lambda: from_tests(postgres))())
        yield addr
