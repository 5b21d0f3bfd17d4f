"""What our signals do beyond the suite's clauses: promptness, counting, and a descriptor that is never a stranger's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from tests import support

tokioloop = pytest.importorskip("tokioloop")

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(not support.OURS, reason="promises of ours")]

FIRST, SECOND = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """No test ends, or leaves traces in, the process of the others."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (FIRST, SECOND)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    signal.pthread_kill(threading.get_ident(), number)


def tick(loop: asyncio.AbstractEventLoop, n: int = 5) -> None:
    for _ in range(n):
        loop.call_soon(loop.stop)
        loop.run_forever()


def wakeup_fd() -> int:
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


def nonblocking_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def test_an_idle_loop_calls_a_handler_within_a_millisecond() -> None:
    rounds, late = 300, []
    sent = 0.0
    idle = threading.Semaphore(0)

    def sender() -> None:
        nonlocal sent
        for _ in range(rounds):
            assert idle.acquire(timeout=support.TIMEOUT)
            time.sleep(0.001)  # clause-delay: the loop is to be parked
            sent = time.perf_counter()
            os.kill(os.getpid(), FIRST)

    def handler() -> None:
        late.append(time.perf_counter() - sent)
        if len(late) == rounds:
            loop.stop()
        idle.release()

    with support.running() as loop:
        loop.add_signal_handler(FIRST, handler)
        timer = loop.call_later(3600, loop.stop)
        thread = threading.Thread(target=sender)
        thread.start()
        idle.release()
        loop.run_forever()
        thread.join()
        timer.cancel()
    assert statistics.median(late) < 1e-3, f"{statistics.median(late) * 1e6:.0f} us"


def test_sixty_thousand_signals_at_a_busy_loop_are_sixty_thousand_calls() -> None:
    count, seen = 60_000, []
    with support.running() as loop:
        loop.add_signal_handler(FIRST, seen.append, 1)
        loop.add_signal_handler(SECOND, seen.append, 2)
        for n in range(count):
            send(SECOND if n % 100 == 99 else FIRST)
        tick(loop)
    assert len(seen) == count
    assert seen == ([1] * 99 + [2]) * (count // 100)


@pytest.mark.parametrize("by", ["remove", "remove while running", "close"])
def test_the_programs_wakeup_fd_is_back_after_the_handlers(by: str) -> None:
    ours, theirs = nonblocking_pair()
    with ours, theirs, support.running() as loop:
        signal.set_wakeup_fd(theirs.fileno())
        loop.add_signal_handler(FIRST, print)
        loop.add_signal_handler(SECOND, print)
        assert wakeup_fd() != theirs.fileno()
        tick(loop)
        loop.remove_signal_handler(SECOND)
        assert wakeup_fd() != theirs.fileno()
        if by == "close":
            loop.close()
        elif by == "remove":
            loop.remove_signal_handler(FIRST)
        else:
            loop.call_soon(loop.remove_signal_handler, FIRST)
            tick(loop)
        assert wakeup_fd() == theirs.fileno()
        signal.set_wakeup_fd(-1)


def test_a_number_that_is_another_file_by_then_is_not_set_again() -> None:
    ours, theirs = nonblocking_pair()
    number = theirs.fileno()
    with support.running() as loop:
        signal.set_wakeup_fd(number)
        loop.add_signal_handler(FIRST, print)
        others = nonblocking_pair()
        os.dup2(others[0].fileno(), number)
        loop.remove_signal_handler(FIRST)
        assert wakeup_fd() == -1
        signal.signal(FIRST, lambda *_: None)
        send(FIRST)
        with pytest.raises(BlockingIOError):
            others[1].recv(1)
        for sock in (ours, theirs, *others):
            sock.close()


def test_a_wakeup_fd_that_the_program_sets_later_is_left_to_it() -> None:
    ours, theirs = nonblocking_pair()
    with ours, theirs, support.running() as loop:
        loop.add_signal_handler(FIRST, print)
        signal.set_wakeup_fd(theirs.fileno())
        tick(loop)
        loop.remove_signal_handler(FIRST)
        assert wakeup_fd() == theirs.fileno()
        loop.close()
        assert signal.set_wakeup_fd(-1) == theirs.fileno()


def test_a_second_loop_gives_the_signals_back_to_the_first() -> None:
    seen: list[str] = []
    with support.running() as first:
        first.add_signal_handler(FIRST, seen.append, "first")
        with support.running() as second:
            second.add_signal_handler(SECOND, seen.append, "second")
            send(SECOND)
            tick(second)
        send(FIRST)
        tick(first)
    assert seen == ["second", "first"]
    assert wakeup_fd() == -1


def test_loops_closed_in_the_order_they_were_made_leave_nothing_set() -> None:
    first, second = support.new_loop(), support.new_loop()
    first.add_signal_handler(FIRST, print)
    second.add_signal_handler(SECOND, print)
    first.close()
    # The second one's handlers still work; what it found set is closed by now.
    seen: list[int] = []
    second.add_signal_handler(SECOND, seen.append, 1)
    send(SECOND)
    tick(second)
    assert seen == [1]
    second.close()
    assert wakeup_fd() == -1


def test_after_removal_a_running_loop_is_still_woken_by_other_threads_signals() -> None:
    def handler(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(loop.stop)

    def sender() -> None:
        assert ready.wait(support.TIMEOUT)
        time.sleep(0.05)  # clause-delay: the loop is to be parked
        signal.pthread_kill(threading.get_ident(), SECOND)

    ready = threading.Event()
    with support.running() as loop:
        signal.signal(SECOND, handler)
        loop.add_signal_handler(FIRST, print)
        loop.call_soon(loop.remove_signal_handler, FIRST)
        loop.call_soon(ready.set)
        thread = threading.Thread(target=sender)
        thread.start()
        late: list[bool] = []
        timers = [loop.call_later(10, late.append, True), loop.call_later(10, loop.stop)]
        loop.run_forever()
        thread.join()
        for timer in timers:
            timer.cancel()
    assert not late
    assert wakeup_fd() == -1


def test_closing_in_another_thread_leaves_no_closed_descriptor_to_the_interpreter() -> None:
    loop = support.new_loop()
    loop.add_signal_handler(FIRST, print)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        error = pool.submit(loop.close).exception()
    assert isinstance(error, ValueError) and loop.is_closed()
    fd = wakeup_fd()
    assert fd != -1 and "pipe" in support.fds()[fd]
    del loop, error
    gc.collect()
    assert "pipe" in support.fds()[fd]
    signal.set_wakeup_fd(-1)
    tokioloop.signals._stranded.pop().close()


def test_a_loop_let_go_of_with_a_handler_is_freed_and_gives_the_signal_back() -> None:
    def make() -> None:
        loop = support.new_loop()
        loop.add_signal_handler(FIRST, print)
        tick(loop)

    gc.collect()
    before = support.fds()
    make()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert signal.getsignal(FIRST) == signal.SIG_DFL
    assert wakeup_fd() == -1
    assert support.fds() == before


def test_no_handler_survives_the_end_of_the_interpreter() -> None:
    done = support.python(
        """
        import signal
        from tests import support
        loop = support.new_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.call_soon(loop.stop)
        loop.run_forever()
        print("end")
        """
    )
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert "Traceback" not in done.stderr and "panicked" not in done.stderr
