"""Loops with one defect each: the standard library's, broken. A clause that none of them fails shows nothing."""

from __future__ import annotations

import asyncio
import contextvars
import time


class SpecEarly(asyncio.SelectorEventLoop):
    """Calls timers up to a millisecond early."""

    def __init__(self):
        super().__init__()
        self._clock_resolution = 0.001


class SpecInline(asyncio.SelectorEventLoop):
    """Calls callbacks while they are scheduled, where it runs."""

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        if self.is_running() and getattr(callback, "__name__", "") == "append":
            handle.cancel()
            callback(*args)
        return handle


class SpecGreedy(asyncio.SelectorEventLoop):
    """Calls what callbacks schedule in the same iteration, up to a hundred times over."""

    def _run_once(self):
        super()._run_once()
        for _ in range(100):
            if not self._ready:
                break
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()


class SpecLifo(asyncio.SelectorEventLoop):
    """Calls ready callbacks backwards."""

    def _run_once(self):
        self._ready.reverse()
        super()._run_once()


class SpecOneContext(asyncio.SelectorEventLoop):
    """Runs all callbacks in one context."""

    def __init__(self):
        super().__init__()
        self.context = contextvars.copy_context()

    def call_soon(self, callback, *args, context=None):
        return super().call_soon(callback, *args, context=context or self.context)


class SpecDeaf(asyncio.SelectorEventLoop):
    """Is not woken by other threads."""

    def _write_to_self(self):
        pass


class SpecCatchAll(asyncio.SelectorEventLoop):
    """Reports KeyboardInterrupt and SystemExit of callbacks to the handler."""

    def call_soon(self, callback, *args, context=None):
        def guarded(*args):
            try:
                callback(*args)
            except (KeyboardInterrupt, SystemExit) as error:
                self.call_exception_handler({"message": "guarded", "exception": error})
                self.stop()

        return super().call_soon(guarded, *args, context=context)


class SpecHoarder(asyncio.SelectorEventLoop):
    """Keeps cancelled timers until their deadline."""

    def _timer_handle_cancelled(self, handle):
        pass


class SpecLeaky(asyncio.SelectorEventLoop):
    """Opens a descriptor that close() does not give back; the first few loops do not, so that other tests pass."""

    made = 0
    leaked: list[object] = []  # noqa: RUF012 - it is to outlive the loop

    def __init__(self):
        super().__init__()
        SpecLeaky.made += 1
        if SpecLeaky.made > 3:
            self.leaked.append(open("/dev/null"))  # noqa: SIM115


class SpecCoarse(asyncio.SelectorEventLoop):
    """Reads its clock once per iteration."""

    now = 0.0

    def time(self):
        return self.now or time.monotonic()

    def _run_once(self):
        self.now = time.monotonic()
        super()._run_once()
        self.now = 0.0


class SpecStopsTwice(asyncio.SelectorEventLoop):
    """A stop() too many ends the next run."""

    stops = 0

    def stop(self):
        self.stops += 1
        super().stop()

    def run_forever(self):
        super().run_forever()
        self.stops -= 1
        self._stopping = self.stops > 0
