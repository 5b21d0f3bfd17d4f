"""What the tests of signals share. The default action of SIGUSR1 and SIGUSR2 would end the process of the test."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .._kit import peers

FIRST, SECOND = signal.SIGUSR1, signal.SIGUSR2


def send(number: int) -> None:
    """Send a signal to this very thread: its handler in C has run when this returns."""
    signal.pthread_kill(threading.get_ident(), number)


def send_from_thread(number: int) -> None:
    """Send a signal to the process from another thread; the kernel chooses the one that gets it."""
    peers.thread(os.kill, os.getpid(), number).result()


@contextmanager
def ignored(*numbers: int) -> Iterator[None]:
    """Signals that come too late are no end of the process; afterwards the handlers are as they were."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wakeup_fd() -> int:
    """What signal.set_wakeup_fd() is set to, left as it is."""
    current = signal.set_wakeup_fd(-1)
    if current != -1:
        signal.set_wakeup_fd(current, warn_on_full_buffer=False)
    return current
