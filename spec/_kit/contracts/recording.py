"""Protocols that write down every callback, and the grammar that the callbacks must follow.

    connection_made  ( data_received | pause_writing | resume_writing )*
                     eof_received?  ( pause_writing | resume_writing )*
    connection_lost

A BufferedProtocol has `get_buffer buffer_updated?` where a Protocol has `data_received`. Pauses and resumes alternate,
beginning with a pause.
https://docs.python.org/3/library/asyncio-protocol.html#asyncio.Protocol.eof_received
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

LETTERS = {
    "connection_made": "m",
    "data_received": "d",
    "get_buffer": "g",
    "buffer_updated": "b",
    "eof_received": "e",
    "pause_writing": "p",
    "resume_writing": "r",
    "connection_lost": "l",
}
GRAMMAR = re.compile(r"m(d|p|r|g(p|r)*b?)*(e(p|r)*)?l?")


def follows_grammar(calls: list[str], *, finished: bool = True) -> bool:
    """Whether the callbacks `calls` follow the grammar above; `finished` asks for connection_lost at the end."""
    word = "".join(LETTERS[name] for name in calls)
    flow = "".join(letter for letter in word if letter in "pr")
    return (
        GRAMMAR.fullmatch(word) is not None
        and word.endswith("l") >= finished
        and re.fullmatch(r"(pr)*p?", flow) is not None
    )


class Recording:
    """What all recorders share. Hooks are passed by the callback's name and run after the call is written down.

    `calls` holds the callbacks in order, `lost` a future with connection_lost's argument. The class says in `CALLBACKS`
    which ones it writes down.
    """

    CALLBACKS: Collection[str] = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, **hooks: Callable[..., Any]) -> None:
        unknown = hooks.keys() - set(self.CALLBACKS)
        assert not unknown, f"no such callback: {unknown}"
        self.hooks = hooks
        self.calls: list[str] = []
        self.transport: Any = None
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._loop = loop
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []

    def _called(self, name: str, *args: object) -> Any:
        self.calls.append(name)
        try:
            hook = self.hooks.get(name)
            return None if hook is None else hook(*args)
        finally:
            for predicate, future in self._waiting:
                if not future.done() and predicate():
                    future.set_result(None)

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait until `predicate()` is true; it is looked at after every callback."""
        if predicate():
            return
        entry = (predicate, self._loop.create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        finally:
            self._waiting.remove(entry)

    async def called(self, name: str, times: int = 1) -> None:
        """Wait until the callback `name` was called `times` times."""
        await self.until(lambda: self.calls.count(name) >= times)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._called("connection_made", transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)
        self._called("connection_lost", exc)

    def pause_writing(self) -> None:
        self._called("pause_writing")

    def resume_writing(self) -> None:
        self._called("resume_writing")


class _Stream(Recording):
    """What the recorders of streams share: `data` holds the bytes received."""

    CALLBACKS = LETTERS

    def __init__(self, loop: asyncio.AbstractEventLoop, **hooks: Callable[..., Any]) -> None:
        super().__init__(loop, **hooks)
        self.data = bytearray()

    async def received(self, size: int) -> None:
        """Wait until at least `size` bytes were received."""
        await self.until(lambda: len(self.data) >= size)

    def eof_received(self) -> object:
        return self._called("eof_received")


class Recorder(_Stream, asyncio.Protocol):
    """A Protocol that writes down its callbacks."""

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._called("data_received", data)


class BufferedRecorder(_Stream, asyncio.BufferedProtocol):
    """A BufferedProtocol that writes down its callbacks; its buffer has `size` bytes, and is always the same one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int = 65536, **hooks: Callable[..., Any]) -> None:
        super().__init__(loop, **hooks)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        given = self._called("get_buffer", sizehint)
        return self.buffer if given is None else given

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self._called("buffer_updated", nbytes)


@functools.lru_cache(maxsize=8)
def pattern(size: int) -> bytes:
    """`size` bytes in which a lost, doubled or moved piece shows: the period is prime, so it fits no buffer size."""
    period = bytes(range(251))
    return (period * (size // len(period) + 1))[:size]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in pieces of at most `size` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
