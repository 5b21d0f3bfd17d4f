"""An asyncio event loop on Tokio.

    asyncio.Runner(loop_factory=tokioloop.new_event_loop)

`TokioLoop` is an `asyncio.AbstractEventLoop`; programs, libraries and frameworks run on it unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from .diagnostics import dump
from .loop import TokioLoop
from .watchdog import Watch, watch

if TYPE_CHECKING:
    from .policy import EventLoopPolicy as EventLoopPolicy

__version__ = "0.1.0"
__all__ = [
    "TokioLoop",
    "Watch",
    "__version__",
    "dump",
    "new_coalescing_event_loop",
    "new_event_loop",
    "run",
    "watch",
]

_T = TypeVar("_T")


def new_event_loop() -> TokioLoop:
    """A new loop, neither running nor set as the current one.

    Raises `OSError` when the process is out of file descriptors, `ValueError` when TOKIOLOOP_COALESCE in the
    environment is neither 1, 0 nor empty.
    """
    return TokioLoop()


def new_coalescing_event_loop() -> TokioLoop:
    """As `new_event_loop()`, with `coalesce_writes` on.

    uvicorn app:app --loop tokioloop:new_coalescing_event_loop
    """
    loop = TokioLoop()
    loop.coalesce_writes = True
    return loop


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine on a new loop, close the loop, and return the coroutine's result.

    As `asyncio.run()`: `debug` sets the loop's debug mode, `None` leaves it as `PYTHONASYNCIODEBUG` has it. Raises what
    `main` raises, `ValueError` when it is no coroutine, `RuntimeError` when a loop runs in this thread already.
    Source: https://docs.python.org/3/library/asyncio-runner.html#asyncio.run
    """
    if asyncio._get_running_loop() is not None:
        # Before the Runner makes a loop that it could not close.
        raise RuntimeError("tokioloop.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)


# Not a plain import: CPython 3.14 deprecates policies and 3.16 has none, and nobody who needs none is to notice.
def __getattr__(name: str) -> Any:
    if name != "EventLoopPolicy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .policy import EventLoopPolicy
    except ImportError as error:
        raise AttributeError(
            f"{__name__}.EventLoopPolicy: this Python has no event loop policies ({error}); "
            f"use asyncio.Runner(loop_factory={__name__}.new_event_loop)",
            name=name,
        ) from error
    globals()[name] = EventLoopPolicy
    return EventLoopPolicy


def __dir__() -> list[str]:
    return sorted({*globals(), "EventLoopPolicy"})
