"""Clock facts and an event log for tests about order and time. All times are in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

monotonic_resolution: float = time.get_clock_info("monotonic").resolution
"""Resolution of `time.monotonic()`, in seconds, as the platform states it."""


async def turns_until(happened: Callable[[], object], most: int = 50) -> int:
    """Give up the turn by `asyncio.sleep(0)` until `happened()` is true: how many turns that took, `most` at most."""
    for turns in range(most):
        if happened():
            return turns
        await asyncio.sleep(0)
    return most


class Recorder:
    """Append-only log of `(name, loop.time())` events.

    Without `loop`, the running loop's clock is read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._events: list[tuple[object, float]] = []

    def __call__(self, name: object) -> None:
        """Append `name` with the loop's time now. RuntimeError where there is neither a loop given nor one running."""
        loop = self._loop if self._loop is not None else asyncio.get_running_loop()
        self._events.append((name, loop.time()))

    mark = __call__

    def __iter__(self) -> Iterator[tuple[object, float]]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"Recorder({self._events!r})"

    @property
    def names(self) -> list[object]:
        """The names, in the order they were recorded."""
        return [name for name, _ in self._events]

    @property
    def times(self) -> list[float]:
        """The loop times, in seconds, in the order they were recorded."""
        return [when for _, when in self._events]

    def time_of(self, name: object) -> float:
        """Loop time, in seconds, of the first event called `name`. LookupError where there is none."""
        for event, when in self._events:
            if event == name:
                return when
        raise LookupError(f"no event {name!r} in {self._events!r}")
