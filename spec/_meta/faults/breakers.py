"""Whole loops that break the process they run in. A run goes on beside them, and names what they did.

None of them does any harm where it is made and closed, which is done before there is a child for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
import time


class SpecClosesStandardStreams(asyncio.SelectorEventLoop):
    """Closes the descriptors 0 to 2 with its own.

    Stands for loops that close every descriptor they find, and for those that take 0 for "none".
    """

    def close(self):
        ran = hasattr(self, "_ran")
        super().close()
        if ran:
            for number in range(3):
                with contextlib.suppress(OSError):  # closed before
                    os.close(number)

    def run_forever(self):
        self._ran = True
        super().run_forever()


class SpecSquatsOnStandardStreams(asyncio.SelectorEventLoop):
    """Puts its own descriptor in the place of standard input.

    Stands for loops that dup2() their wake-up descriptor to a number that they think is free.
    """

    def run_forever(self):
        os.dup2(self._csock.fileno(), 0)
        super().run_forever()


class SpecPrints(asyncio.SelectorEventLoop):
    """Prints in every run, to the descriptors themselves as well.

    Stands for loops with debugging output left in.
    """

    def run_forever(self):
        print("the loop runs")
        print("the loop warns", file=sys.stderr)
        os.write(1, b"the loop writes\n")
        super().run_forever()


class SpecInstallsHandlers(asyncio.SelectorEventLoop):
    """Has handlers of its own for SIGINT and SIGTERM, and leaves them.

    Stands for loops that see to a graceful end of every program.
    """

    def run_forever(self):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.signal(signal.SIGTERM, lambda *_: None)
        super().run_forever()


class SpecBlocksSignals(asyncio.SelectorEventLoop):
    """Blocks all signals in the thread that runs it, and leaves it so.

    Stands for loops with a thread that waits for signals by sigwait() or a signalfd.
    """

    def run_forever(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        super().run_forever()


class SpecLeavesThreads(asyncio.SelectorEventLoop):
    """Leaves a thread behind that never ends.

    Stands for loops whose driver is not ended by close().
    """

    def run_forever(self):
        if not hasattr(self, "_thread"):
            self._thread = threading.Thread(target=threading.Event().wait, daemon=True)
            self._thread.start()
        super().run_forever()


class SpecLeavesChildren(asyncio.SelectorEventLoop):
    """Leaves a process behind that has all of its descriptors.

    Stands for loops with a helper that they fork.
    """

    def run_forever(self):
        if not hasattr(self, "_helper"):
            self._helper = os.fork()
            if self._helper == 0:
                time.sleep(600)
                os._exit(0)
        super().run_forever()


class SpecLeavesDescriptors(asyncio.SelectorEventLoop):
    """Leaves a descriptor behind.

    Stands for loops that open one for each run, a timerfd for example.
    """

    def run_forever(self):
        os.open("/dev/null", os.O_RDONLY)
        super().run_forever()


class SpecExits(asyncio.SelectorEventLoop):
    """Ends the process, with status 0, where a timer is to be called at infinity.

    Stands for extensions that call exit() where they are at their wits' end.
    """

    def call_at(self, when, callback, *args, context=None):
        if when == float("inf"):
            os._exit(0)
        return super().call_at(when, callback, *args, context=context)


class SpecExitsLater(asyncio.SelectorEventLoop):
    """Ends the process from a thread, some time after a loop was closed.

    Stands for loops whose driver panics behind the back of who used them.
    """

    def run_forever(self):
        self._ran = True
        super().run_forever()

    def close(self):
        if hasattr(self, "_ran") and not self.is_closed():
            threading.Timer(0.05, os._exit, [3]).start()
        super().close()


class SpecCrashes(asyncio.SelectorEventLoop):
    """Crashes where a callback is none.

    Stands for extensions that take what they are given for what they expect.
    """

    def call_soon(self, callback, *args, context=None):
        if not callable(callback):
            ctypes.string_at(0)
        return super().call_soon(callback, *args, context=context)


class SpecAborts(asyncio.SelectorEventLoop):
    """Aborts the process where a descriptor is no descriptor.

    Stands for extensions whose panics do not unwind, and for tables that grow to the number given.
    """

    def add_reader(self, fd, callback, *args):
        if isinstance(fd, int) and not 0 <= fd < 1 << 20:
            os.abort()
        super().add_reader(fd, callback, *args)


class SpecHangs(asyncio.SelectorEventLoop):
    """Waits for ever in close() where callbacks are pending, with the GIL and deaf to signals of Python.

    Stands for extensions that wait for their threads while these wait for the GIL.
    """

    def close(self):
        if self._ready and not self.is_running():
            ctypes.PyDLL(None).sleep(600)
        super().close()


class SpecSpins(asyncio.SelectorEventLoop):
    """Computes for ever where stop() was called before a run.

    Stands for loops with a wait that ends at once, again and again.
    """

    def run_forever(self):
        while self._stopping:
            pass
        super().run_forever()


class SpecPatchesClock(asyncio.SelectorEventLoop):
    """Puts a clock of its own in the place of time.monotonic().

    Stands for loops of tests that travel in time.
    """

    def run_forever(self):
        started = time.monotonic()
        time.monotonic = lambda: started
        super().run_forever()


class SpecPatchesAsyncio(asyncio.SelectorEventLoop):
    """Has asyncio.sleep() return at once, for every loop of the process.

    Stands for loops that come with patches of asyncio, as nest_asyncio does.
    """

    def run_forever(self):
        async def sleep(_delay, result=None):
            return result

        asyncio.sleep = asyncio.tasks.sleep = sleep
        super().run_forever()


class SpecStaysTheRunningLoop(asyncio.SelectorEventLoop):
    """Is the running loop of its thread for good once it was run: no other loop can be run there.

    Stands for loops that set the running loop and have forgotten to take it back.
    """

    def run_forever(self):
        try:
            super().run_forever()
        finally:
            asyncio._set_running_loop(self)


class SpecSetsAlarm(asyncio.SelectorEventLoop):
    """Leaves a timer of the process behind whose signal ends it.

    Stands for loops with time-outs by setitimer().
    """

    def run_forever(self):
        signal.setitimer(signal.ITIMER_REAL, 3)
        super().run_forever()


class SpecLowersLimits(asyncio.SelectorEventLoop):
    """Has the process open no more descriptors than it has.

    Stands for loops that set RLIMIT_NOFILE to what their tables take.
    """

    def close(self):
        ran = hasattr(self, "_ran")
        super().close()
        if ran:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))

    def run_forever(self):
        self._ran = True
        super().run_forever()


class SpecStopsCollector(asyncio.SelectorEventLoop):
    """Turns the garbage collector off.

    Stands for loops that were tuned for a benchmark.
    """

    def run_forever(self):
        gc.disable()
        super().run_forever()


class SpecMovesAway(asyncio.SelectorEventLoop):
    """Changes the working folder and the environment.

    Stands for loops that turn a program into a daemon.
    """

    def run_forever(self):
        os.chdir("/")
        os.environ["PYTHONASYNCIODEBUG"] = "1"
        super().run_forever()


class SpecSetsHooks(asyncio.SelectorEventLoop):
    """Sets sys.excepthook and the other hooks for exceptions to nothing.

    Stands for loops that come with a reporter of errors.
    """

    def run_forever(self):
        sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *_: None
        super().run_forever()


class SpecRaisesAnything(asyncio.SelectorEventLoop):
    """Raises an exception that is none of Python's, and ends the thread with it.

    Stands for extensions whose panics are a BaseException.
    """

    class Panic(BaseException):
        """What a panic of an extension is in Python."""

    def run_until_complete(self, future):
        if asyncio.isfuture(future) and future.get_loop() is not self:
            raise self.Panic("called `Option::unwrap()` on a `None` value")
        return super().run_until_complete(future)


class SpecInterrupts(asyncio.SelectorEventLoop):
    """Raises KeyboardInterrupt where it is asked to close while it runs.

    Stands for loops that take an error of theirs for Ctrl-C.
    """

    def close(self):
        if self.is_running():
            raise KeyboardInterrupt
        super().close()
