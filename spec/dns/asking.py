"""What a lookup came to: its result, or the kind of exception with its number, so that two can be compared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of a call, or (type, errno) of its exception."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error), getattr(error, "errno", None)


async def outcome_of(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable, or (type, errno) of its exception."""
    try:
        return await awaitable
    except Exception as error:
        return type(error), getattr(error, "errno", None)
