"""The echo server without Python (echo.c), compiled on the fly.

python c_echo.py        compiles it, or says why not
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import results

SOURCE = Path(__file__).with_name("echo.c")
NAME = results.LIMIT


class NoCompilerError(Exception):
    """The server in C cannot be had here; says why."""


@functools.cache
def compiled() -> Path:
    """The program; it is forgotten with this process. Raises NoCompilerError."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NoCompilerError("there is no C compiler (cc, or CC)")
    if not sys.platform.startswith("linux"):
        raise NoCompilerError("it uses epoll, which is Linux's")
    folder = tempfile.TemporaryDirectory(prefix="echo-")
    _folders.append(folder)
    target = Path(folder.name, "echo")
    command = [compiler, "-O2", "-o", str(target), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompilerError((done.stderr.strip().splitlines() or ["the compiler failed"])[-1])
    return target


# Removed when the process ends.
_folders: list[tempfile.TemporaryDirectory] = []


def command(kind: str, addr: str, cpu: int | None, *, batch: bool) -> list[str]:
    """How to start it: the kind of server, and a port or a path. Raises NoCompilerError."""
    where = [] if cpu is None else [str(cpu), *(["batch"] if batch else [])]
    return [str(compiled()), kind, addr, *where]


def main() -> None:
    """Compile it."""
    try:
        print(compiled().name, "compiles")
    except NoCompilerError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
