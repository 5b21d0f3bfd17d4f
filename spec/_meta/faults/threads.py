"""Whole loops that are wrong about other threads, executors, forks, and the life of a loop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import selectors
import socket
import threading


class SpecBoundsThreads(asyncio.SelectorEventLoop):
    """Drops what other threads schedule while a thousand callbacks are ready.

    Stands for loops with a bounded channel, whose try_send() fails without a word.
    """

    def call_soon_threadsafe(self, callback, *args, context=None):
        if len(self._ready) >= 1000:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon_threadsafe(callback, *args, context=context)


class _Polling(selectors.DefaultSelector):
    """Waits for 50 ms at most."""

    def select(self, timeout=None):
        return super().select(0.05 if timeout is None else min(timeout, 0.05))


class SpecPollsForThreads(asyncio.SelectorEventLoop):
    """Is not woken by other threads, and looks for what they scheduled every 50 ms.

    Stands for loops over those of GUI toolkits, which cannot be woken.
    """

    def __init__(self):
        super().__init__(_Polling())

    def _write_to_self(self):
        pass


class SpecLastThreadFirst(asyncio.SelectorEventLoop):
    """Calls last what another thread scheduled first.

    Stands for loops that push what threads schedule onto a lock-free stack, and do not turn that round.
    """

    def call_soon_threadsafe(self, callback, *args, context=None):
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        if threading.get_ident() == self._thread_id:
            self._ready.append(handle)
        else:
            self._ready.appendleft(handle)
        self._write_to_self()
        return handle


class SpecMergesThreads(asyncio.SelectorEventLoop):
    """Calls once what is scheduled twice in a row by call_soon_threadsafe().

    Stands for loops over uv_async_send(), which makes one event of several calls.
    """

    def call_soon_threadsafe(self, callback, *args, context=None):
        self._check_closed()
        if self._ready:
            last = self._ready[-1]
            if last._callback == callback and last._args == args and not last.cancelled():
                return last
        return super().call_soon_threadsafe(callback, *args, context=context)


class SpecClosesPatiently(asyncio.SelectorEventLoop):
    """close() waits for the threads of the default executor.

    Stands for loops that shut the executor down as ThreadPoolExecutor does by default.
    """

    def close(self):
        executor = self._default_executor
        if executor is not None and not self.is_running() and not self.is_closed():
            executor.shutdown(wait=True)
        super().close()


class SpecTellsAtClose(asyncio.SelectorEventLoop):
    """close() calls connection_lost() of what is open.

    Stands for loops that drop their transports with themselves.
    """

    def close(self):
        transports = [] if self.is_closed() or self.is_running() else list(self._transports.values())
        super().close()
        for transport in transports:
            if transport._protocol is not None and transport._sock is not None:
                transport._protocol.connection_lost(None)


class SpecMakesItselfCurrent(asyncio.SelectorEventLoop):
    """Is the current loop of its thread once it was made.

    Stands for factories that do what an application would.
    """

    def __init__(self):
        super().__init__()
        asyncio.set_event_loop(self)


class SpecTakesParentAlong(asyncio.SelectorEventLoop):
    """Closed in the child of a fork, wakes the parent's loop no more.

    Stands for loops that shut their descriptors down, which they share with the child, before they close them.
    """

    def _close_self_pipe(self):
        self._csock.shutdown(socket.SHUT_RDWR)
        super()._close_self_pipe()


class SpecRunsInChild(asyncio.SelectorEventLoop):
    """Is still the running loop in the child of a fork.

    Stands for loops that keep the running loop where CPython does not look.
    """

    def run_forever(self):
        def still(loop=self):
            if loop._thread_id is not None:
                asyncio._set_running_loop(loop)

        if not hasattr(self, "_hooked"):
            self._hooked = True
            os.register_at_fork(after_in_child=still)
        super().run_forever()


class SpecKeepsProgram(asyncio.SelectorEventLoop):
    """Has a thread from its first run to its close(), for which a program waits that ends without that.

    Stands for loops with a driver in a thread of its own.
    """

    _thread = None

    def run_forever(self):
        if self._thread is None:
            self._over = threading.Event()
            self._thread = threading.Thread(target=self._over.wait)
            self._thread.start()
        super().run_forever()

    def close(self):
        super().close()
        if self._thread is not None:
            self._over.set()
            self._thread.join()


class SpecLosesResults(asyncio.SelectorEventLoop):
    """Drops the result of a function that ends while the loop does not run.

    Stands for loops that deliver to the run that asked.
    """

    def call_soon_threadsafe(self, callback, *args, context=None):
        if not self.is_running() and getattr(callback, "__name__", "") == "_set_state":
            callback, args = int, ()
        return super().call_soon_threadsafe(callback, *args, context=context)


class SpecRunsOnce(asyncio.SelectorEventLoop):
    """Forgets its connections when a run ends.

    Stands for loops whose driver lives as long as a run.
    """

    def run_forever(self):
        super().run_forever()
        if self._stopping is False and not self.is_closed():
            for transport in list(self._transports.values()):
                self._remove_reader(transport._sock_fd)


class SpecGoesWithItsThread(asyncio.SelectorEventLoop):
    """Cannot be closed in another thread than the one in which it ran.

    Stands for extensions whose objects belong to a thread.
    """

    _home = None

    def run_forever(self):
        self._home = threading.get_ident()
        super().run_forever()

    def close(self):
        if self._home not in (None, threading.get_ident()) and not self.is_closed():
            super().close()
            raise RuntimeError("this loop was run in another thread")
        super().close()


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _WithGil(selectors.DefaultSelector):
    """Waits with the GIL, up to ten seconds."""

    def select(self, timeout=None):
        if timeout != 0:
            until = _PollFd(self.fileno(), select.POLLIN, 0)
            milliseconds = 10_000 if timeout is None else min(int(timeout * 1000) + 1, 10_000)
            ctypes.PyDLL(None).poll(ctypes.byref(until), 1, milliseconds)
        return super().select(0)


class SpecWaitsWithGil(asyncio.SelectorEventLoop):
    """Keeps the GIL while it waits, so that no other thread gets to schedule anything.

    Stands for extensions that forget to release the GIL round a call that waits.
    """

    def __init__(self):
        super().__init__(_WithGil())
