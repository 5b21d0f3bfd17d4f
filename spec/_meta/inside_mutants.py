"""Loops with one defect each in their insides, their watchers, or what they leave to the collector of garbage."""

from __future__ import annotations

import asyncio
import os

from spec._meta.faults import watchers
from spec._meta.parts import Stream, WithStream
from spec._meta.patience import Hang


class SpecMutePop(asyncio.SelectorEventLoop):
    """Runs a timer that somebody took from its list."""

    def call_at(self, when, callback, *args, context=None):
        handle = super().call_at(when, callback, *args, context=context)
        self.__dict__.setdefault("_all", []).append(handle)
        return handle

    def _run_once(self):
        every = self.__dict__.setdefault("_all", [])
        lost = [handle for handle in every if handle not in self._scheduled and not handle.cancelled()]
        self._ready.extend(lost)
        every[:] = [handle for handle in every if handle in self._scheduled]
        super()._run_once()


class SpecCopiesTimers(asyncio.SelectorEventLoop):
    """Shows a copy of its timers outside of a turn."""

    _turning = False

    @property
    def _scheduled(self):
        return self._timers if self._turning else self._timers[:]

    @_scheduled.setter
    def _scheduled(self, timers):
        self._timers = timers

    def call_at(self, *args, **kwargs):
        self._turning, before = True, self._turning
        try:
            return super().call_at(*args, **kwargs)
        finally:
            self._turning = before

    def _run_once(self):
        self._turning = True
        try:
            super()._run_once()
        finally:
            self._turning = False


class SpecSkipsNonsense(asyncio.SelectorEventLoop):
    """Skips what is no handle."""

    def _run_once(self):
        for handle in [handle for handle in self._ready if not isinstance(handle, asyncio.Handle)]:
            self._ready.remove(handle)
        super()._run_once()


class SpecOnceEach(asyncio.SelectorEventLoop):
    """Runs a handle once, however often it is queued."""

    def _run_once(self):
        handles = list(dict.fromkeys(self._ready))
        self._ready.clear()
        self._ready.extend(handles)
        super()._run_once()


class SpecFixedTurn(asyncio.SelectorEventLoop):
    """Runs its own turn, whatever is put in its place."""

    def run_forever(self):
        own = self.__dict__.pop("_run_once", None)
        try:
            super().run_forever()
        finally:
            if own is not None:
                self._run_once = own


class SpecForgetsHandler(asyncio.SelectorEventLoop):
    """Has no handle for the handler of a signal."""

    def add_signal_handler(self, sig, callback, *args):
        super().add_signal_handler(sig, callback, *args)
        self._signal_handlers[sig]._args = ()
        self._signal_handlers[sig]._callback = lambda: callback(*args)


class SpecTakesAnything(asyncio.SelectorEventLoop):
    """Processes whatever it is given."""

    def _process_events(self, event_list):
        if isinstance(event_list, list):
            super()._process_events(event_list)


class SpecHidesState(asyncio.SelectorEventLoop):
    """Forgets that it is connected."""

    def _make_socket_transport(self, *args, **kwargs):
        made = super()._make_socket_transport(*args, **kwargs)
        made._extra = {**made._extra}
        made._extra.pop("sockname", None)
        return made


class SpecSetsMode(asyncio.SelectorEventLoop):
    """Makes what is watched non-blocking."""

    def add_reader(self, fd, callback, *args):
        os.set_blocking(fd if isinstance(fd, int) else fd.fileno(), False)
        super().add_reader(fd, callback, *args)


class SpecShields(watchers.SpecDropsFailing):
    """Takes a watcher away whose callback raises."""


class SpecDropsArguments(asyncio.SelectorEventLoop):
    """Leaves out arguments that are None."""

    def add_reader(self, fd, callback, *args):
        super().add_reader(fd, callback, *[arg for arg in args if arg is not None])


class SpecSaysNothing(asyncio.SelectorEventLoop):
    """Does not say whether there was anything to remove."""

    def remove_reader(self, fd):
        super().remove_reader(fd)
        return True


class SpecClosesWatched(asyncio.SelectorEventLoop):
    """Closes what is watched when it is closed."""

    def close(self):
        if not self.is_running() and not self.is_closed():
            for fd in list(self._selector.get_map() or ()):
                if fd != self._ssock.fileno():
                    os.close(fd)
        super().close()


class _Circular(Stream):
    """Keeps itself when it has ended."""

    def _call_connection_lost(self, exc):
        super()._call_connection_lost(exc)
        self._me = self


class SpecCircular(WithStream):
    """Leaves a reference cycle for each connection."""

    stream = _Circular


QUEUE = "insides/test_queue.py::test_"
TIMERS = "insides/test_timers.py::test_"
WATCHERS = "readers_writers/test_registration.py::test_"
CALLBACKS = "readers_writers/test_callbacks.py::test_"
CAUGHT_BY = {
    "SpecMutePop": [TIMERS + "a_timer_that_was_taken_is_not_run[{}]"],
    "SpecCopiesTimers": [TIMERS + "the_list_of_timers_is_a_heap_of_what_is_set[{}]"],
    "SpecSkipsNonsense": [QUEUE + "what_is_no_handle_fails_in_its_turn_and_the_loop_goes_on[{}]"],
    "SpecOnceEach": [QUEUE + "a_handle_in_the_queue_twice_runs_twice[{}]"],
    "SpecFixedTurn": [QUEUE + "a_turn_that_somebody_put_in_its_place_is_run[{}-instance]"],
    "SpecForgetsHandler": ["insides/test_handles.py::test_the_handlers_of_signals_are_handles[{}]"],
    "SpecTakesAnything": ["insides/test_selector.py::test_nonsense_is_refused[{}]"],
    "SpecHidesState": ["insides/test_transports.py::test_a_transport_shows_its_state[{}-stream]"],
    "SpecSetsMode": [WATCHERS + "watching_leaves_the_mode_of_a_descriptor_as_it_is[{}-reader-True]"],
    "SpecShields": [Hang(CALLBACKS + "an_exception_reaches_the_handler_and_the_watcher_goes_on[{}-reader]")],
    "SpecDropsArguments": [WATCHERS + "the_callback_gets_exactly_the_arguments_given[{}-args2]"],
    "SpecSaysNothing": [WATCHERS + "removal_says_whether_that_direction_was_watched[{}]"],
    "SpecClosesWatched": [WATCHERS + "closing_the_loop_leaves_the_watched_fds_open[{}]"],
    "SpecCircular": ["tcp/test_cycles.py::test_a_connection_that_ended_in_order_leaves_no_reference_cycle[{}-close]"],
}
HARMLESS = "sockets/test_receiving.py::test_recv_returns_bytes_that_were_there_before[{}-tcp]"
