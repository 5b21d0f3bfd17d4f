"""What removing a handler and closing a loop leave behind; other users of signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from .._kit import clause, peers
from .helpers import FIRST, SECOND, send, wakeup_fd


@pytest.fixture
def programs_fd():
    """A descriptor that the program has given to signal.set_wakeup_fd(), and the end to read from."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        yield theirs.fileno(), ours
        signal.set_wakeup_fd(-1)


@clause("signals.remove.result")
def test_removing_says_whether_there_was_a_handler(loop):
    assert loop.remove_signal_handler(FIRST) is False
    loop.add_signal_handler(FIRST, print)
    assert loop.remove_signal_handler(FIRST) is True
    assert loop.remove_signal_handler(FIRST) is False


@clause("signals.remove.result")
def test_removing_what_is_not_there_leaves_the_programs_handler(loop):
    def mine(_number, _frame):
        pass

    before = signal.signal(FIRST, mine)
    try:
        assert loop.remove_signal_handler(FIRST) is False
        assert signal.getsignal(FIRST) is mine
    finally:
        signal.signal(FIRST, before)


@clause("signals.remove.default")
@pytest.mark.parametrize("number", [FIRST, signal.SIGTERM, signal.SIGCHLD])
def test_the_default_action_is_back_after_removal(loop, number):
    loop.add_signal_handler(number, print)
    assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
    loop.remove_signal_handler(number)
    assert signal.getsignal(number) == signal.SIG_DFL


@clause("signals.remove.default")
def test_ctrl_c_raises_again_after_removal(loop):
    loop.add_signal_handler(signal.SIGINT, print)
    assert loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loop.call_soon(send, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()


@clause("signals.remove.others-stay")
def test_removing_one_handler_leaves_the_other(loop, tick):
    seen = []
    loop.add_signal_handler(FIRST, seen.append, "first")
    loop.add_signal_handler(SECOND, seen.append, "second")
    assert loop.remove_signal_handler(FIRST)
    loop.call_soon(send, SECOND)
    tick(5)
    assert seen == ["second"]


@clause("signals.remove.pending")
def test_a_signal_that_waits_is_dropped_with_its_handler(loop, tick):
    seen = []

    def busy():
        send(FIRST)
        send(SECOND)
        loop.remove_signal_handler(FIRST)

    loop.add_signal_handler(FIRST, seen.append, "removed")
    loop.add_signal_handler(SECOND, seen.append, "second")
    loop.call_soon(busy)
    tick(5)
    assert seen == ["second"]


@clause("signals.remove.add-again")
def test_a_handler_is_added_again_after_all_were_removed(loop, tick):
    seen = []
    for n in range(3):
        loop.add_signal_handler(FIRST, seen.append, n)
        loop.call_soon(send, FIRST)
        tick(5)
        assert loop.remove_signal_handler(FIRST)
    assert seen == [0, 1, 2]


@clause("signals.remove.add-again")
def test_a_handler_is_removed_and_added_within_a_run(loop, run):
    seen = []

    async def main():
        for n in range(3):
            came = asyncio.Event()
            loop.add_signal_handler(FIRST, came.set)
            send(FIRST)
            await came.wait()
            seen.append(n)
            assert loop.remove_signal_handler(FIRST)
            await asyncio.sleep(0.001)

    run(main())
    assert seen == [0, 1, 2]


@clause("signals.remove.wakeup-fd")
@pytest.mark.parametrize("by", ["remove", "close"])
def test_the_wakeup_fd_is_not_the_loops_any_more(loop, tick, by):
    loop.add_signal_handler(FIRST, print)
    loop.add_signal_handler(SECOND, print)
    tick()
    assert wakeup_fd() != -1
    if by == "close":
        loop.close()
    else:
        loop.remove_signal_handler(FIRST)
        assert wakeup_fd() != -1
        loop.remove_signal_handler(SECOND)
    assert wakeup_fd() == -1


@clause("signals.remove.wakeup-fd")
@pytest.mark.parametrize("by", ["remove", "close", "remove while running"])
def test_the_wakeup_fd_is_the_programs_or_none_after_handlers(loop, tick, programs_fd, by, saw):
    fd, _ = programs_fd
    loop.add_signal_handler(FIRST, print)
    tick()
    if by == "close":
        loop.close()
    elif by == "remove":
        loop.remove_signal_handler(FIRST)
    else:
        loop.call_soon(loop.remove_signal_handler, FIRST)
        tick(2)
    left = wakeup_fd()
    assert left in (-1, fd)
    saw("signals.remove.wakeup-fd", "none is set" if left == -1 else "the one is set that was before the handlers")


@clause("signals.close.handlers-given-back")
def test_closing_the_loop_gives_the_signals_back(loop, tick):
    for number in (FIRST, SECOND, signal.SIGINT):
        loop.add_signal_handler(number, print)
    tick()
    loop.close()
    assert signal.getsignal(FIRST) == signal.getsignal(SECOND) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@clause("signals.close.handlers-given-back")
def test_closing_a_loop_that_never_ran_gives_the_signals_back(loop):
    loop.add_signal_handler(FIRST, print)
    loop.close()
    loop.close()
    assert signal.getsignal(FIRST) == signal.SIG_DFL


@clause("signals.close.handlers-given-back")
def test_a_loop_made_after_a_closed_one_handles_the_same_signal(new_loop):
    seen = []
    for n in range(3):
        loop = new_loop()
        loop.add_signal_handler(FIRST, seen.append, n)
        loop.add_signal_handler(SECOND, loop.stop)
        loop.call_soon(send, FIRST)
        loop.call_soon(send, SECOND)
        loop.run_forever()
        loop.close()
    assert seen == [0, 1, 2]


@clause("signals.close.handlers-given-back")
def test_a_runner_gives_the_signals_back(loop_factory):
    async def main():
        asyncio.get_running_loop().add_signal_handler(FIRST, print)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert signal.getsignal(FIRST) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@clause("signals.wakeup-fd.left-alone")
def test_a_loop_without_handlers_leaves_the_programs_wakeup_fd(loop, tick, programs_fd):
    fd, reading = programs_fd
    seen = []
    before = signal.signal(FIRST, lambda *_: seen.append("handled"))
    try:
        loop.call_soon(lambda: seen.append(wakeup_fd() == fd))
        loop.call_soon(send, FIRST)
        tick(3)
        assert wakeup_fd() == fd
        loop.close()
        assert wakeup_fd() == fd
    finally:
        signal.signal(FIRST, before)
    assert seen == [True, "handled"]
    assert reading.recv(100) == bytes([FIRST])


@clause("signals.wakeup-fd.left-alone")
def test_a_wakeup_fd_set_while_the_loop_runs_stays(loop, tick):
    ours, theirs = peers.unix_pair()
    with ours, theirs:
        theirs.setblocking(False)
        loop.call_soon(signal.set_wakeup_fd, theirs.fileno())
        tick(3)
        assert wakeup_fd() == theirs.fileno()
        loop.close()
        assert signal.set_wakeup_fd(-1) == theirs.fileno()


@clause("signals.wakeup-fd.left-alone")
def test_a_program_without_wakeup_fd_has_none_after_a_run(loop, tick):
    tick(2)
    assert wakeup_fd() == -1
    loop.close()
    assert wakeup_fd() == -1


@clause("signals.python-handler.left-alone")
@pytest.mark.parametrize("beside", [False, True])
def test_a_handler_of_the_program_is_called(loop, beside):
    seen = []

    def mine(number, _frame):
        seen.append(number)
        loop.call_soon_threadsafe(loop.stop)

    before = signal.signal(FIRST, mine)
    try:
        if beside:
            loop.add_signal_handler(SECOND, seen.append, "beside")
        loop.call_soon(send, FIRST)
        loop.run_forever()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if beside:
            # In the idle loop: what another handler's wake-up is needed for.
            with peers.thread(os.kill, os.getpid(), FIRST):
                loop.run_forever()
        assert signal.getsignal(FIRST) is mine
    finally:
        signal.signal(FIRST, before)
    assert seen == [FIRST] * (2 if beside else 1)
