"""What add_signal_handler() and remove_signal_handler() refuse."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .._kit import clause, peers
from .helpers import FIRST, SECOND, send, wakeup_fd


async def coroutine_function():
    pass


@clause("signals.refuse.coroutine")
def test_a_coroutine_function_is_refused(loop):
    with pytest.raises(TypeError):
        loop.add_signal_handler(FIRST, coroutine_function)
    assert signal.getsignal(FIRST) == signal.SIG_DFL
    assert not loop.remove_signal_handler(FIRST)


@clause("signals.refuse.coroutine")
def test_a_coroutine_is_refused(loop):
    coroutine = coroutine_function()
    with pytest.raises(TypeError):
        loop.add_signal_handler(FIRST, coroutine)
    coroutine.close()
    assert signal.getsignal(FIRST) == signal.SIG_DFL


@clause("signals.refuse.not-a-number")
@pytest.mark.parametrize("wrong", ["SIGUSR1", b"\x0a", None, 10.0, object()])
def test_what_is_no_number_is_refused(loop, wrong):
    with pytest.raises(TypeError):
        loop.add_signal_handler(wrong, print)
    with pytest.raises(TypeError):
        loop.remove_signal_handler(wrong)


@clause("signals.refuse.invalid")
@pytest.mark.parametrize("wrong", [0, -1, signal.NSIG, signal.NSIG + 1, 1 << 40])
def test_a_number_that_is_no_signal_is_refused(loop, wrong):
    with pytest.raises(ValueError):
        loop.add_signal_handler(wrong, print)
    with pytest.raises(ValueError):
        loop.remove_signal_handler(wrong)
    assert wakeup_fd() == -1


@clause("signals.refuse.uncatchable")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_cannot_be_caught_is_refused(loop, number, saw):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        loop.add_signal_handler(number, print)
    saw("signals.refuse.uncatchable", "ValueError" if isinstance(caught.value, ValueError) else "RuntimeError")
    assert not loop.remove_signal_handler(number)
    assert wakeup_fd() == -1


@clause("signals.refuse.uncatchable")
def test_a_refusal_leaves_the_other_handlers(loop, tick):
    seen = []
    loop.add_signal_handler(FIRST, seen.append, "called")
    with pytest.raises((ValueError, RuntimeError)):
        loop.add_signal_handler(signal.SIGKILL, print)
    loop.call_soon(send, FIRST)
    tick(5)
    assert seen == ["called"]


@clause("signals.refuse.closed-loop")
def test_a_closed_loop_takes_no_handler(loop):
    loop.close()
    with pytest.raises(RuntimeError):
        loop.add_signal_handler(FIRST, print)
    assert signal.getsignal(FIRST) == signal.SIG_DFL
    assert wakeup_fd() == -1


@clause("signals.refuse.other-thread")
def test_another_thread_adds_no_handler(loop, new_loop, saw):
    def elsewhere():
        other = new_loop()
        for each in (other, loop):
            with pytest.raises((ValueError, RuntimeError)) as caught:
                each.add_signal_handler(FIRST, print)
            saw("signals.refuse.other-thread", "ValueError" if isinstance(caught.value, ValueError) else "RuntimeError")

        async def main():
            with pytest.raises((ValueError, RuntimeError)):
                asyncio.get_running_loop().add_signal_handler(FIRST, print)
            return "goes on"

        return other.run_until_complete(main())

    assert peers.thread(elsewhere).result() == "goes on"
    assert signal.getsignal(FIRST) == signal.SIG_DFL
    assert wakeup_fd() == -1


@clause("signals.refuse.other-thread")
def test_a_refused_thread_leaves_the_main_threads_handlers(loop, tick):
    seen = []

    def elsewhere():
        with pytest.raises((ValueError, RuntimeError)):
            loop.add_signal_handler(SECOND, print)

    loop.add_signal_handler(FIRST, seen.append, "called")
    peers.thread(elsewhere).result()
    loop.call_soon(send, FIRST)
    tick(5)
    assert seen == ["called"]
