"""Programs with bad input, for `tests/test_bad_input.py`: each runs on stock asyncio and on the loop under test."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

Loop = asyncio.AbstractEventLoop
Case = Callable[[Loop, Callable[[object], None]], Any]
CASES: dict[str, tuple[Case, bool]] = {}


def case(function: Case | None = None, *, says_the_same: bool = True) -> Any:
    """Register a program; it gets a loop that does not run and `step`, which notes how far it came.

    Without `says_the_same` messages may differ (they name internals); types, errnos and moments may not.
    """

    def register(function: Case) -> Case:
        CASES[function.__name__.replace("_", " ")] = function, says_the_same
        return function

    return register(function) if function else register


def run(loop: Loop, coro: Any) -> Any:
    return loop.run_until_complete(asyncio.wait_for(coro, 10))


def attempt(step: Callable[[object], None], function: Callable[..., object], *args: Any, **named: Any) -> None:
    """Call, and note what came of it, so that one program can try several things."""
    try:
        result = function(*args, **named)
    except Exception as error:
        step(outcome(error))
    else:
        if asyncio.iscoroutine(result) or hasattr(result, "close"):
            result.close()
        step("went well")


def outcome(error: BaseException) -> tuple[str, int | None, str]:
    """An exception's type, errno and message, without what differs from run to run."""
    text = re.sub(r"0x[0-9a-f]+|\d{2,}|fd=\d+", "N", str(error))
    text = text.replace("writelines() after", "write() after")  # stock's writelines was made of write up to 3.11
    text = re.sub(r"call_(at|later)\(\)", "call_later()", text)  # stock's call_later names call_at
    text = re.sub(r"_UnixSelectorEventLoop|TokioLoop|_SelectorSocketTransport|StreamTransport", "X", text)
    return type(error).__name__, getattr(error, "errno", None), text
