"""Whole loops that are wrong about timers: when they are due, in which order, and which are cancelled."""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
import time


class _Moved(asyncio.TimerHandle):
    """A timer that is due at another time than its `when()`."""

    def __init__(self, asked, due, callback, args, loop, context):
        super().__init__(due, callback, args, loop, context)
        self._asked = asked

    def when(self):
        return self._asked


class _Making(asyncio.SelectorEventLoop):
    """Makes its timers by `make_timer()`."""

    def make_timer(self, when, callback, args, context):
        raise NotImplementedError

    def call_at(self, when, callback, *args, context=None):
        if when is None or not math.isfinite(when):
            return super().call_at(when, callback, *args, context=context)
        self._check_closed()
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_at")
        timer = self.make_timer(when, callback, args, context)
        if timer._source_traceback:
            del timer._source_traceback[-2:]
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer


class _Moving(_Making):
    """Has timers due at `due(when)`."""

    def due(self, when):
        raise NotImplementedError

    def make_timer(self, when, callback, args, context):
        return _Moved(when, self.due(when), callback, args, self, context)


class SpecTimerWheel(_Moving):
    """Keeps timers in slots of a millisecond, each in the order of insertion.

    Stands for loops over timer wheels and over libuv, whose timers are of whole milliseconds.
    """

    def due(self, when):
        return (math.floor if when <= self.time() else math.ceil)(when * 1000) / 1000


class SpecRoundsDown(_Moving):
    """Cuts deadlines off to whole milliseconds.

    Stands for loops over libuv that convert seconds with int() or round().
    """

    def due(self, when):
        return math.floor(when * 1000) / 1000


class SpecDelaysFromTurn(asyncio.SelectorEventLoop):
    """Counts delays from the moment at which the turn began.

    Stands for loops over libuv, whose clock is read once per iteration: uv_now().
    """

    _began = None

    def _process_events(self, event_list):
        super()._process_events(event_list)
        self._began = self.time()

    def run_forever(self):
        try:
            super().run_forever()
        finally:
            self._began = None

    def call_later(self, delay, callback, *args, context=None):
        if self._began is None or delay is None:
            return super().call_later(delay, callback, *args, context=context)
        timer = self.call_at(self._began + delay, callback, *args, context=context)
        if timer._source_traceback:
            del timer._source_traceback[-1]
        return timer


class SpecPurgesBadly(asyncio.SelectorEventLoop):
    """Leaves no heap behind when it takes many cancelled timers out.

    Stands for heaps of one's own whose removal does not sift both ways.
    """

    def _run_once(self):
        if len(self._scheduled) > 100 and self._timer_cancelled_count * 2 > len(self._scheduled):
            kept = [handle for handle in self._scheduled if not handle.cancelled()]
            for handle in self._scheduled:
                handle._scheduled = not handle.cancelled()
            self._scheduled = sorted(kept, reverse=True)
            self._timer_cancelled_count = 0
        super()._run_once()


class SpecWraps(asyncio.SelectorEventLoop):
    """Has a delay of more than 2 ** 31 milliseconds due at once.

    Stands for time-outs that are handed to epoll_wait() as an int.
    """

    def call_later(self, delay, callback, *args, context=None):
        if isinstance(delay, int | float) and (1 << 31) / 1000 <= delay < math.inf:
            delay = 0
        return super().call_later(delay, callback, *args, context=context)


class SpecRunsRearmed(asyncio.SelectorEventLoop):
    """Calls a timer in the turn in which another timer set it, if it is due, up to a thousand of them.

    Stands for loops that take timers from their heap while one is due.
    """

    def _run_once(self):
        super()._run_once()
        for _ in range(1000):
            if not self._scheduled or self._scheduled[0]._when > self.time() or self._stopping:
                return
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                handle._run()


class _Drained(asyncio.TimerHandle):
    """A timer that was found due cannot be cancelled any more."""

    _ran = False

    def cancel(self):
        if self._scheduled or self._ran or not self._loop.is_running():
            super().cancel()

    def _run(self):
        self._ran = True
        super()._run()


class SpecDrainsTimers(_Making):
    """Calls a due timer that another due timer has cancelled.

    Stands for loops that collect the due timers into a list and call them by it.
    """

    def make_timer(self, when, callback, args, context):
        return _Drained(when, callback, args, self, context)


class _FirstWait(selectors.DefaultSelector):
    """Keeps the first time-out of a wait until that is over."""

    until = None

    def select(self, timeout=None):
        if timeout == 0:
            return super().select(0)
        now = time.monotonic()
        if self.until is None or self.until <= now:
            self.until = math.inf if timeout is None else now + timeout
        left = self.until - now
        return super().select(None if math.isinf(left) else left)


class SpecKeepsFirstWait(asyncio.SelectorEventLoop):
    """Sleeps until the timer for which it lay down, though an earlier one was set meanwhile.

    Stands for drivers that arm a timerfd for the next deadline and do not arm it again for an earlier one.
    """

    def __init__(self):
        super().__init__(_FirstWait())


class SpecPausesTimers(asyncio.SelectorEventLoop):
    """Does not count the time between two runs.

    Stands for loops whose clock only goes while they run.
    """

    _stopped = None

    def run_forever(self):
        if self._stopped is not None:
            late = self.time() - self._stopped
            for timer in self._scheduled:
                timer._when += late
        try:
            super().run_forever()
        finally:
            self._stopped = self.time()


class _Recycled(asyncio.TimerHandle):
    """Goes back to its loop once it was called."""

    def _run(self):
        loop = self._loop
        super()._run()
        loop._free.append(self)


class SpecRecyclesTimers(_Making):
    """Uses a timer that was called for the next one, so that who cancels the old one late cancels the new one.

    Stands for free-lists of handles, and for slabs whose keys are used again.
    """

    def __init__(self):
        self._free = []
        super().__init__()

    def make_timer(self, when, callback, args, context):
        timer = self._free.pop() if self._free else _Recycled.__new__(_Recycled)
        timer.__init__(when, callback, args, self, context)
        return timer

    def close(self):
        super().close()
        self._free.clear()


class SpecFixedClock(_Moving):
    """Has its timers by the system's clock, whatever time() says.

    Stands for loops that have time() for their users only.
    """

    def due(self, when):
        return when - self.time() + time.monotonic()

    def _run_once(self):
        replaced, self.__dict__["time"] = self.__dict__.get("time"), time.monotonic
        try:
            super()._run_once()
        finally:
            del self.__dict__["time"]
            if replaced is not None:
                self.__dict__["time"] = replaced


for _handle in (_Moved, _Drained, _Recycled):
    _handle.__name__ = "TimerHandle"  # which its repr tells
