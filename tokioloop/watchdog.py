"""`watch()`: a thread that tells of a loop which is busy for long, also while C code keeps the GIL."""

from __future__ import annotations

import atexit
import faulthandler
import math
import os
import sys
from typing import TYPE_CHECKING, Self

from ._tokioloop import Watchdog

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import FileDescriptorLike

__all__ = ("Watch", "watch")

#: Seconds. Loops note the time by a clock that goes in steps of up to 10 ms.
_LEAST = 0.05

#: What has been begun and not closed.
_open: set[Watch] = set()


class Watch:
    """What `watch()` has begun, until `close()`; a context manager that closes."""

    __slots__ = ("__weakref__", "_busy", "_watchdog")

    def __init__(self, busy: float, fd: int) -> None:
        self._busy = busy
        watchdog = Watchdog(busy, fd)
        signal, copy = watchdog.stacks()
        faulthandler.register(signal, copy, all_threads=True, chain=False)
        self._watchdog: Watchdog | None = watchdog
        _open.add(self)
        try:
            watchdog.start()
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._watchdog is None

    def close(self) -> None:
        """End it: nothing is written any more. Waits for a report that is being written; may be called again."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            _open.discard(self)
            watchdog.stop()
            # Before the descriptor is closed, with the watchdog.
            faulthandler.unregister(watchdog.stacks()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} busy={self._busy}{' closed' * self.closed}>"


def watch(busy: float = 2.0, file: FileDescriptorLike | None = None) -> Watch:
    """Write a report whenever a `TokioLoop` of this process has been busy for longer than `busy` seconds.

        tokioloop.watch()

    A loop is busy while it neither looks at I/O nor waits for it: in callbacks, or waiting for the GIL. The report
    tells for how long and in which thread, how many callbacks were begun in this time (1: that one hangs), what the
    loop has counted, its endpoints (transports and servers), and the stacks of all Python threads as `faulthandler`
    writes them. It is written again each time that the loop has been busy for twice as long.

    The thread that does this is none of Python's and never takes the GIL: it tells of C code that keeps it, too, where
    `dump()` and signal handlers have to wait. The loop itself does nothing for it.

    `file` is a descriptor, or a file that has one; by default `sys.stderr`. It may be closed, as the descriptor is
    duplicated. What is written there is written by a child process, made as by `fork(2)`, which ends at once; neither
    SIGCHLD nor `os.wait()` tells of it. `faulthandler.register()` is called for a real-time signal without a handler.

    It goes on until `close()` or the end of the interpreter, whether or not what is returned is kept. There may be
    several, each with a time and a file of its own. A forked child is watched, too: the loops that it makes. The thread
    is not there while the process forks.

    Raises `ValueError` when `busy` is less than 0.05 or not finite, or `file` is closed or has no descriptor;
    `TypeError` when `busy` is no number or `file` no file; `OSError` when the descriptor is not open, or no descriptor,
    thread or signal is left.
    """
    try:
        enough = math.isfinite(busy) and busy >= _LEAST
    except TypeError:
        raise TypeError(f"busy must be a number of seconds, not {type(busy).__name__}") from None
    except OverflowError:
        enough = False
    if not enough:
        raise ValueError(f"busy must be finite and {_LEAST} seconds at least, not {busy!r}")
    return Watch(float(busy), _descriptor(file))


def _descriptor(file: FileDescriptorLike | None) -> int:
    if file is None:
        file = sys.stderr
        if file is None:
            raise ValueError("there is no sys.stderr: watch() needs a file")
    if not isinstance(file, int):
        fileno = getattr(file, "fileno", None)
        if fileno is None:
            raise TypeError(f"file must have a fileno() or be a descriptor, not {type(file).__name__}")
        try:
            file = fileno()
        except OSError as error:  # io.UnsupportedOperation: a file in memory
            raise ValueError(f"{type(file).__name__} has no descriptor: watch() needs a file that has one") from error
        if not isinstance(file, int):
            raise TypeError(f"fileno() must return a descriptor, not {type(file).__name__}")
    if isinstance(file, bool):
        raise TypeError("file must have a fileno() or be a descriptor, not bool")
    if not 0 <= file < 1 << 31:
        raise ValueError(f"{file} is no descriptor")
    return file


def _stop() -> None:
    for each in list(_open):
        if each._watchdog is not None:
            each._watchdog.stop()


def _start() -> None:
    for each in list(_open):
        if each._watchdog is not None:
            each._watchdog.start()


@atexit.register
def _close_all() -> None:
    for each in list(_open):
        each.close()


os.register_at_fork(before=_stop, after_in_parent=_start, after_in_child=_start)
