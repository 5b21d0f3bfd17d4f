"""What the tests of readers and writers share. Sockets here are Unix pairs: a write is readable at once."""

from __future__ import annotations

import os
import select
import socket
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

SETTLE = 5
"""Iterations after which whatever was ready has been noticed by any loop."""


@contextmanager
def pair(kind: int = socket.SOCK_STREAM) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected Unix pair, both ends non-blocking, closed on leaving."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe, both non-blocking; what is still open is closed on leaving."""
    ends = os.pipe()
    try:
        for end in ends:
            os.set_blocking(end, False)
        yield ends
    finally:
        for end in ends:
            with suppress(OSError):
                os.close(end)


def pair_at(fd: int) -> tuple[socket.socket, socket.socket]:
    """A connected Unix pair, non-blocking, whose first end has the number `fd`, which must be free."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    if theirs.fileno() == fd:
        ours, theirs = theirs, ours
    elif ours.fileno() != fd:
        with ours:
            os.dup2(ours.fileno(), fd, inheritable=False)
        ours = socket.socket(fileno=fd)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def pair_elsewhere(fd: int) -> tuple[socket.socket, socket.socket]:
    """A connected Unix pair, non-blocking, neither end of which has the number `fd`, which must be free."""
    placeholder = os.dup(0)
    try:
        if placeholder != fd:
            os.dup2(0, fd, inheritable=False)
        ours, theirs = socket.socketpair(socket.AF_UNIX)
    finally:
        os.close(fd)
        if placeholder != fd:
            os.close(placeholder)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def fill(sock: socket.socket) -> int:
    """Send until the buffer is full; the number of bytes sent."""
    sent = 0
    for size in (65536, 1024, 1):
        with suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(size))
    return sent


def drain(sock: socket.socket) -> bytes:
    """Read what is there now."""
    chunks = []
    with suppress(BlockingIOError):
        while chunk := sock.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def is_ready(fd: int, event: int) -> bool:
    """Is `fd` ready right now for `event` (select.POLLIN or POLLOUT), by the kernel's word?"""
    poller = select.poll()
    poller.register(fd, event)
    return bool(poller.poll(0))


def call(loop: AbstractEventLoop, method: str, fd: Any, callback: Callable[[], Any] = lambda: None) -> Any:
    """Call `add_reader`, `add_writer`, `remove_reader` or `remove_writer` with whatever it takes; what it returns."""
    args = (callback,) if method.startswith("add_") else ()
    return getattr(loop, method)(fd, *args)
