"""Pipe transports: their classes, what the garbage collector does with them, and what they log."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
import weakref
from typing import Any

import pytest

from tests import support

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop
WAYS = ["read", "write"]


class Knot(asyncio.Protocol):
    """Holds its transport, as protocols do."""

    def __init__(self) -> None:
        self.lost: list[BaseException | None] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)


async def opened(way: str, kind: str = "pipe") -> tuple[Any, Any]:
    """A protocol on one end, and the file object of the other."""
    if kind == "pipe":
        source, sink = os.pipe()
        files: Any = (os.fdopen(source, "rb", 0), os.fdopen(sink, "wb", 0))
    else:
        files = socket.socketpair()
    ours, theirs = files if way == "read" else files[::-1]
    connect = getattr(asyncio.get_running_loop(), f"connect_{way}_pipe")
    _, protocol = await connect(Knot, ours)
    return protocol, theirs


def run_once(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.skipif(not support.OURS, reason="names of ours")
@pytest.mark.parametrize(("way", "name"), [("read", "ReadPipeTransport"), ("write", "WritePipeTransport")])
def test_a_transport_is_shown_by_its_class(loop: Loop, way: str, name: str) -> None:
    protocol, theirs = loop.run_until_complete(opened(way))
    assert type(protocol.transport).__name__ == name
    assert repr(protocol.transport).startswith(f"<{name} fd=")
    with pytest.raises(TypeError):
        type(protocol.transport)()
    protocol.transport.close()
    run_once(loop)
    theirs.close()


@pytest.mark.parametrize("way", WAYS)
def test_tls_and_sendfile_refuse_a_pipe(loop: Loop, way: str, tmp_path: Any) -> None:
    import ssl

    path = tmp_path / "file"
    path.write_bytes(b"data")
    protocol, theirs = loop.run_until_complete(opened(way))
    context = ssl.create_default_context()
    with pytest.raises(TypeError):
        loop.run_until_complete(loop.start_tls(protocol.transport, protocol, context))
    with path.open("rb") as file, pytest.raises(RuntimeError):
        loop.run_until_complete(loop.sendfile(protocol.transport, file))
    protocol.transport.close()
    run_once(loop)
    theirs.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["close", "peer"])
def test_a_transport_tied_to_its_protocol_is_collected_once_lost(loop: Loop, way: str, how: str) -> None:
    protocol, theirs = loop.run_until_complete(opened(way))
    if how == "peer":
        theirs.close()
    else:
        protocol.transport.close()
    while not protocol.lost:
        run_once(loop)
    run_once(loop)
    dead = weakref.ref(protocol)
    del protocol
    gc.collect()
    assert dead() is None
    theirs.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("closed", [True, False])
def test_an_open_transport_is_collected_with_its_loop(way: str, kind: str, *, closed: bool) -> None:
    loop = support.new_loop()
    protocol, theirs = loop.run_until_complete(opened(way, kind))
    fd = protocol.transport.get_extra_info("pipe").fileno()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if closed:
            loop.close()
        dead = weakref.ref(protocol)
        del loop, protocol
        gc.collect()
        assert dead() is None
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    with pytest.raises(OSError):
        os.fstat(fd)
    theirs.close()


def test_writes_after_the_end_are_warned_of(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    protocol, theirs = loop.run_until_complete(opened("write"))
    protocol.transport.close()
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        for _ in range(4):
            protocol.transport.write(b"x")
        early = len(caplog.records)
        for _ in range(3):
            protocol.transport.write(b"x")
    assert early == 0
    assert "pipe closed by peer" in caplog.text
    run_once(loop)
    theirs.close()


def test_a_broken_pipe_is_as_the_program_has_it(tmp_path: Any) -> None:
    """A program that has SIGPIPE end it, the idiom of filters, is ended by it on any loop."""
    module = support.LOOP.partition(":")[0]
    program = f"""
import asyncio, os, signal, sys, {module}
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
async def main():
    source, sink = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.Protocol, os.fdopen(sink, "wb", 0))
    os.close(source)
    transport.write(b"x")
    print("survived")
loop = {module}.new_event_loop()
loop.run_until_complete(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGPIPE, ""), ended.stderr
