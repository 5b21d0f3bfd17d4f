"""The insides of `asyncio.BaseEventLoop`: a part of `TokioLoop`.

`isinstance(loop, asyncio.BaseEventLoop)` is true, so libraries take what that class keeps and calls for granted,
private as it is. All of it is true here, and costs nothing until somebody asks; what could not be made true is absent,
so that `hasattr` tells.

| library                         | what it touches                                                              |
|---------------------------------|------------------------------------------------------------------------------|
| nest_asyncio, nest_asyncio2     | replaces `_run_once`, `run_forever`, `run_until_complete` of the loop's class |
|                                 | by functions that take from `_ready` and `_scheduled` (by `heapq`), call      |
|                                 | `_selector.select`, `_process_events`, `Handle._run`                          |
| aiodebug, monitors of callbacks | replaces `asyncio.events.Handle._run`                                        |
| looptime, other clocks of tests | changes the loop's class for one with a `time` of its own, replaces          |
|                                 | `_selector.select`, `_clock_resolution`                                      |
| Home Assistant                  | walks over `_scheduled` at its end: `_args`, `cancelled()`, `cancel()`       |
| debuggers, load meters          | `len(_ready)`, `_scheduled[0]._when`, `_signal_handlers[sig]._callback`      |
| asyncio's own transports        | `_add_reader`, `_remove_reader`, `_add_writer`, `_remove_writer`             |

The Rust half lends `_ready` and `_scheduled` (`src/py/event_loop/lent.rs`) and notices replacements
(`src/py/event_loop/patched.rs`). Here is what it asks for, which is not hot: the selector, and timers in a list.
"""

from __future__ import annotations

import heapq
import selectors
from asyncio import base_events
from typing import TYPE_CHECKING, Any

from ._tokioloop import look, look_by_selector, queue_handle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._tokioloop import LoopCore as _Base

    _Event = tuple[selectors.SelectorKey, int]
else:
    _Base = object

__all__ = ("InsidesMixin", "Selector")


class Selector:
    """`loop._selector`: it selects. It has no table of files: the loop knows more of them than a selector could say."""

    def __init__(self, loop: InsidesMixin) -> None:
        self._loop = loop
        #: What was found and nobody has processed: level-triggered, it is found again.
        self._found: dict[int, _Event] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "select":
            look_by_selector(self._loop, True)

    def select(self, timeout: float | None = None) -> list[_Event]:
        """Wait up to `timeout` seconds, None for ever, until a file is ready or another thread schedules: the events.

        The loop's `_process_events()` takes them. Raises `RuntimeError` when the loop is closed.
        Source: https://docs.python.org/3/library/selectors.html#selectors.BaseSelector.select
        """
        self._found = {key: event for key, event in self._found.items() if not _is_stale(event)}
        found = [_event(*one) for one in look(self._loop, 0 if self._found else timeout)]
        self._found |= {id(event): event for event in found if event[0].data != (None, None)}
        return [*(event for event in self._found.values() if event not in found), *found]

    def forget(self, event: _Event) -> None:
        """It was processed."""
        self._found.pop(id(event), None)


def _event(fd: int, write: bool, handle: Any) -> _Event:
    mask = selectors.EVENT_WRITE if write else selectors.EVENT_READ
    # As asyncio's loops register them: who reads, who writes.
    return selectors.SelectorKey(fd, fd, mask, (None, handle) if write else (handle, None)), mask


def _is_stale(event: _Event) -> bool:
    return all(handle is None or handle._cancelled for handle in event[0].data)


class InsidesMixin(_Base):
    """What `asyncio.BaseEventLoop` keeps and calls, for those who look inside."""

    __slots__ = ()

    if TYPE_CHECKING:
        _ready: Any
        _scheduled: Any
        _selector_given: Any
        _timer_cancelled_count: int

    @property
    def _selector(self) -> Any:
        if self._selector_given is None:
            self._selector_given = Selector(self)
        return self._selector_given

    @_selector.setter
    def _selector(self, selector: Any) -> None:
        self._selector_given = selector
        look_by_selector(self, True)

    def _process_events(self, event_list: Iterable[_Event]) -> None:
        """Queue the handles of what `_selector.select()` found.

        Source: CPython selector_events.py, BaseSelectorEventLoop._process_events
        """
        forget = getattr(self._selector, "forget", None)
        for event in event_list:
            key, mask = event
            reader, writer = key.data
            for handle, wanted in ((reader, selectors.EVENT_READ), (writer, selectors.EVENT_WRITE)):
                if handle is not None and mask & wanted and not handle._cancelled:
                    queue_handle(self, handle)
            if forget is not None:
                forget(event)

    def _add_callback(self, handle: Any) -> None:
        """Queue a handle, unless it was cancelled.

        Source: CPython base_events.py, BaseEventLoop._add_callback
        """
        if not handle._cancelled:
            queue_handle(self, handle)

    # ---- called by the Rust half while `_scheduled` is lent

    def _tidy_lent_timers(self) -> Any:
        """Take what was cancelled out of `_scheduled`; the first deadline, if any.

        Source: CPython base_events.py, BaseEventLoop._run_once
        """
        scheduled = self._scheduled
        count = len(scheduled)
        if (
            count > base_events._MIN_SCHEDULED_TIMER_HANDLES
            and self._timer_cancelled_count / count > base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION
        ):
            for handle in scheduled:
                if handle._cancelled:
                    handle._scheduled = False
            scheduled[:] = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        return scheduled[0]._when if scheduled else None

    def _queue_lent_timers(self, end: float) -> None:
        """Queue the handles of `_scheduled` that are due before the moment `end`."""
        scheduled = self._scheduled
        while scheduled and scheduled[0]._when < end:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            queue_handle(self, handle)
