"""Loops with one defect each in their timers: the standard library's, broken."""

from __future__ import annotations

import asyncio
import heapq


class SpecTimersFirst(asyncio.SelectorEventLoop):
    """Calls due timers ahead of callbacks that are ready."""

    def _run_once(self):
        due = []
        while self._scheduled and self._scheduled[0]._when < self.time():
            due.append(heapq.heappop(self._scheduled))
            due[-1]._scheduled = False
        self._ready.extendleft(handle for handle in reversed(due) if not handle.cancelled())
        super()._run_once()


class SpecNoPast(asyncio.SelectorEventLoop):
    """Takes a negative delay for none."""

    def call_later(self, delay, callback, *args, context=None):
        return super().call_later(max(delay, 0), callback, *args, context=context)


class SpecSoon(asyncio.SelectorEventLoop):
    """Makes a plain callback of a timer without a delay."""

    def call_later(self, delay, callback, *args, context=None):
        if delay == 0:
            return self.call_soon(callback, *args, context=context)
        return super().call_later(delay, callback, *args, context=context)


class SpecFloats(asyncio.SelectorEventLoop):
    """Makes a float of every deadline."""

    def call_at(self, when, callback, *args, context=None):
        return super().call_at(float(when), callback, *args, context=context)


class SpecWraps(asyncio.SelectorEventLoop):
    """Counts milliseconds in 32 bits."""

    def call_later(self, delay, callback, *args, context=None):
        return super().call_later(delay % (2**32 / 1000), callback, *args, context=context)


class _Keeping(asyncio.TimerHandle):
    """Keeps what it was to call when it is cancelled."""

    __slots__ = ()

    def cancel(self):
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)
            self._cancelled = True


class SpecKeeps(asyncio.SelectorEventLoop):
    """Keeps callback and arguments of a cancelled timer."""

    def call_at(self, when, callback, *args, context=None):
        handle = super().call_at(when, callback, *args, context=context)
        handle.__class__ = _Keeping
        return handle


class SpecMadeContext(asyncio.SelectorEventLoop):
    """Runs a timer in the context of the moment it is due."""

    def call_at(self, when, callback, *args, context=None):
        return super().call_at(when, callback, *args, context=context or self._own)

    def __init__(self):
        super().__init__()
        self._own = asyncio.Handle(int, (), self)._context


ORDER = "timers/test_order.py::test_"
HANDLES = "timers/test_handles.py::test_"
CAUGHT_BY = {
    "SpecTimersFirst": [ORDER + "a_due_timer_comes_behind_ready_callbacks[{}]"],
    "SpecNoPast": [ORDER + "negative_delays_are_in_the_order_of_their_deadlines[{}]"],
    "SpecSoon": [HANDLES + "scheduling_returns_a_timer_handle[{}-0-call_later]"],
    "SpecFloats": [HANDLES + "when_is_the_very_number_that_was_given[{}-1152921504606846977]"],
    "SpecWraps": [HANDLES + "a_delay_of_ages_does_not_come_early[{}-8589934.592-call_later]"],
    "SpecKeeps": ["timers/test_cancel.py::test_cancelling_lets_callback_and_arguments_go_at_once[{}]"],
    "SpecMadeContext": [HANDLES + "without_a_context_the_current_one_is_copied[{}-call_at]"],
}
HARMLESS = "timers/test_errors.py::test_sleep_zero_gives_way_once[{}]"
