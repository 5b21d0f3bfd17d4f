"""What only the garbage collector could free: cycles that an operation leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any


async def left_by(attempt: Callable[[], Awaitable[Any]], *errors: type[BaseException]) -> list[str]:
    """The types of the objects that `attempt()` leaves to the collector, which ends by raising one of `errors`, if any.

    It is made twice before, as the first may leave what is kept.
    """
    for _ in range(2):
        await _fail(attempt, errors)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await _fail(attempt, errors)
        gc.collect()
        return sorted(type(garbage).__name__ for garbage in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def _fail(attempt: Callable[[], Awaitable[Any]], errors: tuple[type[BaseException], ...]) -> None:
    try:
        await attempt()
    except errors:
        pass
    else:
        assert not errors, "it went well"
    # What it scheduled, and the ends of its connections.
    for _ in range(10):
        await asyncio.sleep(0.001)  # clause-delay: turns that wait for I/O
