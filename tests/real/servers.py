"""Real database servers, started for a test session in directories of their own, on ports that were free."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spec._kit import peers
from tests import support
from tests.real.certificates import Certificates

ATTEMPTS = 3
"""A port that was free may be taken by the time the server binds it."""


@dataclass(frozen=True)
class Address:
    """Where a server listens: a TCP port of 127.0.0.1, and a Unix socket in a directory; whose certificate it has."""

    port: int
    directory: str
    socket: str
    authority: str = ""


def program(name: str, *patterns: str) -> str:
    """The path of a server's program, from PATH or the newest that matches. Skips the test where there is none."""
    found = shutil.which(name) or max((path for pattern in patterns for path in glob.glob(pattern)), default=None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def openssl() -> str:
    """The path of OpenSSL's program. Skips the test where it is older than 1.1.1, or not OpenSSL's."""
    path = program("openssl")
    said = subprocess.run([path, "version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"OpenSSL (\d+)\.(\d+)\.(\d+)", said)
    if found is None or tuple(map(int, found.groups())) < (1, 1, 1):
        pytest.skip(f"needs OpenSSL 1.1.1 or newer; {path} is {said.strip()}")
    return path


@contextlib.contextmanager
def postgres(certificates: Certificates) -> Iterator[Address]:
    """A new PostgreSQL cluster with a superuser `test` whom everybody may be, and nothing kept on disk."""
    initdb = program("initdb", "/usr/lib/postgresql/*/bin/initdb")
    server = program("postgres", "/usr/lib/postgresql/*/bin/postgres")
    user = None
    if os.geteuid() == 0:
        # It refuses to be run by root; Debian's package makes a user for it.
        user = "postgres"
        try:
            pwd.getpwnam(user)
        except KeyError:
            pytest.skip(f"postgres cannot be run by root, and there is no user {user}")
    with _directory(user) as directory:
        data = os.path.join(directory, "data")
        tls = certificates.copied(Path(directory), user)
        subprocess.run(
            [initdb, "-D", data, "-U", "test", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"],
            user=user, cwd=directory, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

        def command(port: int) -> list[str]:
            settings = {
                "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": directory,
                "max_connections": 60, "shared_buffers": "16MB", "fsync": "off", "log_min_messages": "warning",
                "ssl": "on", "ssl_cert_file": tls.cert, "ssl_key_file": tls.key,
            }  # fmt: skip
            return [server, "-D", data, *(part for key, value in settings.items() for part in ("-c", f"{key}={value}"))]

        said = "database system is ready to accept connections"
        with _served(command, said, directory, user, signal.SIGINT) as port:
            yield Address(port, directory, os.path.join(directory, f".s.PGSQL.{port}"), certificates.authority)


@contextlib.contextmanager
def redis() -> Iterator[Address]:
    """A new Redis server that keeps nothing on disk."""
    server = program("redis-server")
    with _directory(None) as directory:
        path = os.path.join(directory, "redis.sock")

        def command(port: int) -> list[str]:
            options = ["--bind", "127.0.0.1", "--unixsocket", path, "--save", "", "--appendonly", "no"]
            return [server, "--port", str(port), "--dir", directory, *options]

        with _served(command, "eady to accept connections", directory, None, signal.SIGTERM) as port:
            yield Address(port, directory, path)


@contextlib.contextmanager
def _directory(user: str | None) -> Iterator[str]:
    # Not pytest's: another user has no way into that, and the path of a Unix socket has to be short.
    directory = tempfile.mkdtemp(prefix="tokioloop-")
    try:
        if user is not None:
            shutil.chown(directory, user)
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def _served(command: object, said: str, directory: str, user: str | None, end: int) -> Iterator[int]:
    assert callable(command)
    for attempt in range(ATTEMPTS):
        port = peers.free_port()
        process = subprocess.Popen(
            command(port), user=user, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        log = _Log(process, said)
        with process:
            try:
                if log.up():
                    yield port
                    return
                assert attempt + 1 < ATTEMPTS, f"the server did not start:\n{log.text}"
            finally:
                process.send_signal(end)
                process.wait(support.TIMEOUT)
                log.join()


class _Log(threading.Thread):
    """Reads what a server says, to its end, and knows when it said that it is up."""

    def __init__(self, process: subprocess.Popen[str], said: str) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self._process, self._said, self._known, self._up = process, said, threading.Event(), False
        self.start()

    def run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.text += line
            if self._said in line:
                self._up = True
                self._known.set()
        self._known.set()

    def up(self) -> bool:
        """Waits until the server is up or has ended, 30 s at most; whether it is up."""
        self._known.wait(support.TIMEOUT)
        return self._up
