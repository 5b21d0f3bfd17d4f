"""Loops with one defect each: the standard library's, broken. A clause that none of them fails shows nothing."""

from __future__ import annotations

import asyncio
import contextvars
import time

from spec._meta.patience import Hang


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


CAUGHT_BY = {
    "SpecEarly": ["timers/test_deadlines.py::test_no_timer_is_early[{}-call_at]"],
    "SpecInline": ["callbacks/test_order.py::test_scheduling_does_not_call[{}]"],
    "SpecGreedy": ["callbacks/test_order.py::test_what_arrives_during_a_batch_is_read_while_the_next_ones_run[{}]"],
    "SpecLifo": ["callbacks/test_order.py::test_callbacks_are_called_in_the_order_they_were_scheduled[{}]"],
    "SpecOneContext": ["callbacks/test_contexts.py::test_callbacks_do_not_see_what_one_another_set[{}]"],
    "SpecDeaf": [Hang("callbacks/test_threadsafe.py::test_another_thread_wakes_an_idle_loop[{}]")],
    "SpecCatchAll": ["callbacks/test_errors.py::test_a_subclass_of_an_exit_is_an_exit[{}]"],
    "SpecHoarder": ["timers/test_cancel.py::test_a_million_cancelled_timers_hold_no_memory[{}]"],
    "SpecLeaky": ["callbacks/test_closing.py::test_closing_gives_every_descriptor_back[{}]"],
    "SpecCoarse": ["timers/test_deadlines.py::test_the_clock_advances_within_a_callback[{}]"],
    "SpecStopsTwice": ["callbacks/test_running.py::test_stopping_twice_does_not_stop_the_next_run[{}]"],
}
HARMLESS = "callbacks/test_tasks.py::test_name_and_context_reach_the_task[{}]"
