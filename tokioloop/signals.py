"""Signals: `add_signal_handler` and its kin, and waking a loop that waits. A part of `TokioLoop`.

CPython's handler in C notes the signal and writes its number, a byte, to the descriptor of `signal.set_wakeup_fd()`;
here that is a pipe which the loop watches. The numbers that come out of it, in order, are what is delivered.

The rules, which `tests/test_signal_rules.py` has as properties:

- With handlers, the descriptor is the loop's from the first `add_signal_handler()` to the last removal, between runs
  too. One that somebody else had set gets it back then. Without handlers, a loop sets it while it runs in the main
  thread, so that a signal which lands on another thread, or just before the loop parks, ends the wait: CPython runs its
  handlers in the main thread only, and a parked loop is interrupted only if the kernel picks its thread. One that
  somebody else has set is then left alone.
- A pipe holds 64 KiB on Linux: as many signals wait for a busy loop one by one (asyncio's socket pair holds 278).
  Beyond that bytes are lost. The handler in Python, which CPython runs at least once after a signal, notes the number;
  a number that was noted and is not among the bytes of a pipe that may have been full is delivered once, behind them,
  the lowest first. So each signal is followed by a call of its handler, and no handler is called more often than its
  signal came.
- A descriptor that is set and closed is a trap: the interpreter would write into whatever file has its number next. The
  pipe is closed only when it is not set any more, and a former descriptor is set again only if it is the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import inspect
import io
import os
import select
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from asyncio import BaseEventLoop as _Base
    from collections.abc import Callable
    from types import FrameType
else:
    _Base = object

_Ts = TypeVarTuple("_Ts")
_CHUNK = 1 << 16
_stranded: list[SignalPipe] = []
"""Pipes of loops closed outside the main thread, which cannot take them from the interpreter: open for good."""


class SignalPipe(NamedTuple):
    """Both ends, non-blocking: the loop reads, the interpreter writes.

    By number, too: a loop that goes unclosed may find its files finalized before it.
    """

    reading: io.FileIO
    writing: io.FileIO
    reading_fd: int
    writing_fd: int

    @classmethod
    def open(cls) -> SignalPipe:
        """A new pipe. `OSError` when the process is out of descriptors."""
        ends = os.pipe()
        for end in ends:
            os.set_blocking(end, False)
        return cls(io.FileIO(ends[0], "rb"), io.FileIO(ends[1], "wb"), *ends)

    def drain(self) -> bytes:
        """What is in it."""
        data = b""
        while True:
            chunk = self.reading.read(_CHUNK)
            if not chunk:
                return data
            data += chunk

    def close(self) -> None:
        """Close both ends."""
        self.reading.close()
        self.writing.close()


class WakeupFd(NamedTuple):
    """A descriptor of somebody else's, and which file it was."""

    fd: int
    file: tuple[int, int]

    @classmethod
    def of(cls, fd: int) -> WakeupFd | None:
        """None where it is closed."""
        try:
            status = os.fstat(fd)
        except OSError:
            return None
        return cls(fd, (status.st_dev, status.st_ino))

    def set_again(self) -> None:
        """Give it the signals again, unless it has been closed meanwhile."""
        if WakeupFd.of(self.fd) == self:
            _set_again(self.fd)


class SignalMixin(_Base):
    """Signals: what `asyncio.loop.add_signal_handler` promises, and what wakes a waiting loop."""

    __slots__ = ()

    if TYPE_CHECKING:
        # In slots of TokioLoop.
        _signal_handlers: dict[int, asyncio.Handle]
        _signal_pipe: SignalPipe | None
        _signals_noted: set[int]
        _wakeup_fd_before: WakeupFd | None
        _thread_id: int | None

        def _check_closed(self) -> None: ...

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts) -> None:
        """Have the loop call `callback(*args)` when the signal `sig` comes; a handler that is there is replaced.

        Raises `TypeError` for a coroutine or what is no number, `ValueError` for what is no signal, `RuntimeError` for
        one that cannot be caught, outside the main thread and when the loop is closed.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.add_signal_handler
        """
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        _check_number(sig)
        self._check_closed()
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("add_signal_handler() works in the main thread only")
        try:
            self._take_wakeup_fd()
        except (ValueError, OSError) as error:
            # No ends for a pipe, or not the main interpreter.
            raise RuntimeError(str(error)) from error
        # Holds the set only: a handler in C's hands must not keep the loop alive.
        note = self._signals_noted.add

        def handler(number: int, _frame: FrameType | None) -> None:
            note(number)

        self._signal_handlers[sig] = asyncio.Handle(callback, args, self, contextvars.copy_context())
        try:
            signal.signal(sig, handler)
            # SA_RESTART: system calls of other threads and of libraries go on.
            signal.siginterrupt(sig, False)
        except OSError as error:
            del self._signal_handlers[sig]
            if not self._signal_handlers:
                self._release_wakeup_fd()
            if error.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from error
            raise

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the handler of the signal `sig`, which has its default action then; False where there is none.

        Raises `TypeError` for what is no number, `ValueError` for what is no signal and outside the main thread.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.remove_signal_handler
        """
        _check_number(sig)
        if sig not in self._signal_handlers:
            return False
        signal.signal(sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL)
        del self._signal_handlers[sig]
        if not self._signal_handlers:
            self._release_wakeup_fd()
            if self._thread_id == threading.get_ident():
                self._watch_signals()
        return True

    # ---- called by the loop when it runs and closes

    def _watch_signals(self) -> bool:
        """Have signals wake the loop, which begins to run; whether `_unwatch_signals` is to be called at its end."""
        if threading.current_thread() is not threading.main_thread():
            return False
        if self._signal_handlers:
            return True
        try:
            previous = _set_wakeup_fd(self._open_signal_pipe())
        except ValueError:
            # Not the main interpreter.
            return False
        if previous != -1:
            _set_again(previous)
        return True

    def _unwatch_signals(self) -> None:
        if not self._signal_handlers:
            self._release_wakeup_fd()

    def _close_signals(self) -> None:
        """Give every signal and the wake-up descriptor back, and close the pipe.

        Raises `ValueError` outside the main thread if there are handlers.
        """
        if sys.is_finalizing() and self._signal_handlers:
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal",
                ResourceWarning,
                source=self,
                stacklevel=3,
            )
            self._signal_handlers.clear()
        pipe = self._signal_pipe
        try:
            for sig in list(self._signal_handlers):
                self.remove_signal_handler(sig)
            if threading.current_thread() is threading.main_thread():
                self._release_wakeup_fd()
        except ValueError:
            if pipe is not None:
                _stranded.append(pipe)
            raise
        else:
            if pipe is not None:
                self.remove_reader(pipe.reading_fd)
                pipe.close()
        finally:
            self._signal_pipe = None

    # ---- the wake-up descriptor

    def _open_signal_pipe(self) -> int:
        """The number of the end to write to."""
        pipe = self._signal_pipe
        if pipe is None:
            pipe = self._signal_pipe = SignalPipe.open()
            self.add_reader(pipe.reading_fd, self._deliver_signals)
        return pipe.writing_fd

    def _take_wakeup_fd(self) -> None:
        ours = self._open_signal_pipe()
        previous = _set_wakeup_fd(ours)
        if previous not in (-1, ours):
            self._wakeup_fd_before = WakeupFd.of(previous)

    def _release_wakeup_fd(self) -> None:
        """Have the interpreter write elsewhere: where it did before the handlers, or where somebody else says."""
        if self._signal_pipe is None:
            return
        try:
            current = signal.set_wakeup_fd(-1)
        except ValueError:
            return  # not the main interpreter, where it was never set
        before, self._wakeup_fd_before = self._wakeup_fd_before, None
        if current not in (-1, self._signal_pipe.writing_fd):
            _set_again(current)
        elif before is not None:
            before.set_again()

    # ---- delivery

    def _deliver_signals(self) -> None:
        """Schedule the handlers of the signals that came, in order."""
        if self._signal_pipe is None:
            return
        data = self._signal_pipe.drain()
        noted = set(self._signals_noted)
        lost: list[int] = []
        # No pipe holds less than PIPE_BUF. Below that nothing was lost, and what was noted has its byte.
        if len(data) >= select.PIPE_BUF:
            # So has what was noted since, as there is room again.
            data += self._signal_pipe.drain()
            lost = sorted(noted.difference(data))
        for number in (*data, *lost):
            self._handle_signal(number)
        self._signals_noted.difference_update(noted)

    def _handle_signal(self, sig: int) -> None:
        """Schedule the handler of a signal, as asyncio's loop does by this name."""
        handle: Any = self._signal_handlers.get(sig)
        if handle is None:
            return  # removed since, or a handler of the program's own
        if handle.cancelled():
            # It was taken from `_signal_handlers` and cancelled.
            self.remove_signal_handler(sig)
        else:
            self.call_soon(handle._callback, *handle._args, context=handle._context)


def _check_number(sig: Any) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")


def _set_wakeup_fd(fd: int) -> int:
    """The descriptor that was set before. `ValueError` outside the main interpreter's main thread."""
    # Without the warning: a full pipe is a case that we look after.
    return signal.set_wakeup_fd(fd, warn_on_full_buffer=False)


def _set_again(fd: int) -> None:
    # Its owner may have closed it, or made it blocking.
    with contextlib.suppress(ValueError, OSError):
        _set_wakeup_fd(fd)
