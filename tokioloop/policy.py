"""An event loop policy that makes `TokioLoop`s, where CPython has policies.

CPython 3.14 deprecates policies and 3.16 removes them: importing this module there is an `ImportError`.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable

from .loop import TokioLoop

with warnings.catch_warnings():
    # What CPython deprecates is the use of policies. That is for the program to decide that asked for this module.
    warnings.simplefilter("ignore", DeprecationWarning)
    from asyncio import DefaultEventLoopPolicy


class EventLoopPolicy(DefaultEventLoopPolicy):
    """Makes `asyncio.new_event_loop()` and `asyncio.run()` use `TokioLoop`.

        asyncio.set_event_loop_policy(tokioloop.EventLoopPolicy())

    The loops are what `loop_factory` makes.

    A Runner with `loop_factory=tokioloop.new_event_loop` does it without global state and without a deprecation.
    Source: https://docs.python.org/3/library/asyncio-policy.html
    """

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] = TokioLoop) -> None:
        super().__init__()
        self._new_loop = loop_factory

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A new loop, not set as the current one."""
        return self._new_loop()
