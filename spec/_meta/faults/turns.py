"""Whole loops that are wrong about turns: what is called in one, when a run ends, and what becomes of exceptions."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import heapq
import selectors
import signal
import sys
import threading
import time


class _Frugal(selectors.DefaultSelector):
    """Leaves out a look that would not wait within 50 ms of the last one."""

    looked = -1.0

    def select(self, timeout=None):
        now = time.monotonic()
        if timeout == 0 and now - self.looked < 0.05:
            return []
        self.looked = now
        return super().select(timeout)


class SpecSkipsLooks(asyncio.SelectorEventLoop):
    """Looks at its descriptors every 50 ms while callbacks are ready.

    Stands for loops that save system calls by looking every n turns or every t microseconds.
    """

    def __init__(self):
        super().__init__(_Frugal())


class SpecTimersFirst(asyncio.SelectorEventLoop):
    """Calls due timers before the callbacks that are ready.

    Stands for loops over libuv, which runs its timers at the start of an iteration.
    """

    def _run_once(self):
        now = self.time() + self._clock_resolution
        due = []
        while self._scheduled and self._scheduled[0]._when < now:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            due.append(handle)
        self._ready.extendleft(reversed(due))
        super()._run_once()


class SpecStopsLate(asyncio.SelectorEventLoop):
    """Calls one callback of the next turn after stop().

    Stands for loops that see the flag of stop() only when they are about to wait.
    """

    def _run_once(self):
        super()._run_once()
        if self._stopping and self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()


class SpecStopsAtOnce(asyncio.SelectorEventLoop):
    """Leaves the rest of the turn to the next run after stop().

    Stands for loops whose queue looks at the flag of stop() between two callbacks.
    """

    def stop(self):
        super().stop()
        if self.is_running():
            self._kept = [*getattr(self, "_kept", ()), *self._ready]
            nothing = asyncio.Handle(print, (), self)
            nothing.cancel()
            for place in range(len(self._ready)):
                self._ready[place] = nothing

    def run_forever(self):
        self._ready.extendleft(reversed(self.__dict__.pop("_kept", ())))
        super().run_forever()

    def close(self):
        self.__dict__.pop("_kept", None)
        super().close()


class SpecForgetsStop(asyncio.SelectorEventLoop):
    """Forgets a stop() that came before the run.

    Stands for loops that reset their flag when a run begins, not when it ends.
    """

    def run_forever(self):
        self._stopping = False
        super().run_forever()


class SpecSwallows(asyncio.SelectorEventLoop):
    """Tells nobody of an exception of a callback.

    Stands for extensions that clear the error of a call which they made from C or Rust.
    """

    def call_exception_handler(self, context):
        if "handle" not in context:
            super().call_exception_handler(context)


class SpecEndsOnException(asyncio.SelectorEventLoop):
    """Ends the run with the exception of a callback, having reported it.

    Stands for extensions that hand every error of a call on to who called them.
    """

    def call_exception_handler(self, context):
        super().call_exception_handler(context)
        if "handle" in context:
            raise context["exception"]


class SpecTrustsHandlers(asyncio.SelectorEventLoop):
    """Ends the run with the exception of the exception handler.

    Stands for loops that have no plan for a handler that fails.
    """

    def call_exception_handler(self, context):
        if self._exception_handler is None:
            super().call_exception_handler(context)
        else:
            self._exception_handler(self, context)


class SpecForgetsContextOfThreads(asyncio.SelectorEventLoop):
    """Runs what another thread schedules in the context in which the loop was made.

    Stands for loops that copy the context where they take a callback out of the queue of threads.
    """

    def __init__(self):
        self._context = contextvars.copy_context()
        super().__init__()

    def call_soon_threadsafe(self, callback, *args, context=None):
        handle = super().call_soon_threadsafe(callback, *args, context=context or self._context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        return handle


class SpecStaysRunning(asyncio.SelectorEventLoop):
    """Still runs, by its own account, after SystemExit or KeyboardInterrupt has left the run.

    Stands for loops that clean up behind a run only where that ended well.
    """

    def run_forever(self):
        try:
            super().run_forever()
        except (SystemExit, KeyboardInterrupt):
            self._thread_id = threading.get_ident()
            raise


class _Taken(asyncio.Handle):
    """A handle that the turn has taken out of the queue cannot be cancelled any more."""

    def __init__(self, callback, args, loop, context):
        super().__init__(callback, args, loop, context)
        self._turn = loop._turn

    def cancel(self):
        if self._turn == self._loop._turn:
            super().cancel()


class SpecTakesBatches(asyncio.SelectorEventLoop):
    """Calls a callback that another one of its turn has cancelled.

    Stands for loops that take all ready callbacks out of their queue, then call them.
    """

    _turn = 0

    def _run_once(self):
        self._turn += 1
        super()._run_once()

    def _call_soon(self, callback, args, context):
        handle = _Taken(callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-2:]
        self._ready.append(handle)
        return handle


_Taken.__name__ = "Handle"  # which its repr tells


class SpecKnowsNoGenerators(asyncio.SelectorEventLoop):
    """Sets no hooks for asynchronous generators.

    Stands for first versions of loops written from scratch.
    """

    def _run_once(self):
        sys.set_asyncgen_hooks(None, None)
        super()._run_once()


class _Uninterrupted(selectors.DefaultSelector):
    """Waits with all signals blocked."""

    def select(self, timeout=None):
        if timeout == 0 or threading.current_thread() is not threading.main_thread():
            return super().select(timeout)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            return super().select(timeout)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SpecDeafWhileIdle(asyncio.SelectorEventLoop):
    """Does not notice Ctrl-C before something else wakes it.

    Stands for loops that wait in C or Rust and go on waiting when a signal interrupts that.
    """

    def __init__(self):
        super().__init__(_Uninterrupted())


class SpecLosesCallbacksOfExit(asyncio.SelectorEventLoop):
    """Drops the callbacks behind one that raised SystemExit or KeyboardInterrupt.

    Stands for loops that run a batch from a list of their own, which goes with the frame.
    """

    def run_forever(self):
        try:
            super().run_forever()
        except (SystemExit, KeyboardInterrupt):
            self._ready.clear()
            raise


class SpecRefusesAndForgets(asyncio.SelectorEventLoop):
    """Is not the running loop any more once a nested run was refused.

    Stands for loops that clean up behind a run that never began.
    """

    def _check_running(self):
        if self.is_running():
            asyncio._set_running_loop(None)
        super()._check_running()


class SpecReportsElsewhere(asyncio.SelectorEventLoop):
    """Calls the exception handler in an empty context.

    Stands for loops that report when the call of the callback, and its context with it, is over.
    """

    _given = None

    def set_exception_handler(self, handler):
        self._given = handler
        if callable(handler):

            def elsewhere(loop, context):
                contextvars.Context().run(handler, loop, context)

            handler = elsewhere
        super().set_exception_handler(handler)

    def get_exception_handler(self):
        return self._given


class _Recycled(asyncio.Handle):
    """Goes back to its loop once it was called."""

    def _run(self):
        loop = self._loop
        super()._run()
        loop._free.append(self)


class SpecRecyclesHandles(asyncio.SelectorEventLoop):
    """Uses a handle that was called for the next callback, so that who cancels late cancels that.

    Stands for free-lists of handles, and for slabs whose keys are used again.
    """

    def __init__(self):
        self._free = []
        super().__init__()

    def _call_soon(self, callback, args, context):
        handle = self._free.pop() if self._free else _Recycled.__new__(_Recycled)
        handle.__init__(callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        self._ready.append(handle)
        return handle

    def close(self):
        super().close()
        self._free.clear()


_Recycled.__name__ = "Handle"


class SpecShowsNothing(asyncio.SelectorEventLoop):
    """Shows libraries that look into it an empty queue, which swallows what they put there.

    Stands for loops that inherit from BaseEventLoop and use nothing of it.
    """

    def __getattribute__(self, name):
        if name == "_ready" and not sys._getframe(1).f_globals["__name__"].startswith("asyncio."):
            return collections.deque()
        return super().__getattribute__(name)
