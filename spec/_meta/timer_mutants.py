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
