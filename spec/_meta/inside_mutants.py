"""Loops with one defect each in their insides, their watchers, or what they leave to the collector of garbage."""

from __future__ import annotations

import asyncio
import os
from asyncio import selector_events


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


class SpecShields(asyncio.SelectorEventLoop):
    """Takes a watcher away whose callback raises."""

    def add_reader(self, fd, callback, *args):
        def guarded(*args):
            try:
                callback(*args)
            except Exception:
                self.remove_reader(fd)
                raise

        super().add_reader(fd, guarded, *args)


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


class _Circular(selector_events._SelectorSocketTransport):
    """Keeps itself when it has ended."""

    def _call_connection_lost(self, exc):
        super()._call_connection_lost(exc)
        self._me = self


class SpecCircular(asyncio.SelectorEventLoop):
    """Leaves a reference cycle for each connection."""

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
        return _Circular(self, sock, protocol, waiter, extra, server)
