"""Ctrl-C: in a callback, in a task, under asyncio.Runner, and with a handler."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from .._kit import clause, peers
from .helpers import send


@pytest.fixture(autouse=True)
def interruptible():
    """SIGINT raises KeyboardInterrupt, whatever started this process left of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(*, spares: bool = False) -> None:
    """Press Ctrl-C: the exception comes up here, unless there is another handler, which `spares`."""
    send(signal.SIGINT)
    for _ in range(1000):
        pass
    assert spares, "KeyboardInterrupt was to be raised here"


@clause("signals.ctrl-c.callback")
def test_ctrl_c_in_a_callback_leaves_the_run_which_can_go_on(loop, run):
    seen = []
    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "scheduled")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not loop.is_running()
    assert run(asyncio.sleep(0.001, "again")) == "again"
    assert seen == ["scheduled"]


@clause("signals.ctrl-c.task")
def test_ctrl_c_in_a_task_ends_it_and_leaves_the_run(loop, run):
    async def main():
        await asyncio.sleep(0)
        interrupt()

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert isinstance(task.exception(), KeyboardInterrupt)
    assert run(asyncio.sleep(0.001, "again")) == "again"


@clause("signals.ctrl-c.task")
def test_a_task_that_catches_ctrl_c_goes_on(run):
    async def main():
        try:
            interrupt()
        except KeyboardInterrupt:
            await asyncio.sleep(0)
            return "caught"

    assert run(main()) == "caught"


@clause("signals.ctrl-c.runner")
@pytest.mark.parametrize("waits", [False, True])
def test_ctrl_c_under_a_runner_cancels_the_main_task(loop_factory, waits):
    seen = []

    async def main():
        running, noticed = threading.Event(), threading.Event()
        try:
            if waits:
                with peers.thread(peers.press_ctrl_c, running, noticed):
                    asyncio.get_running_loop().call_soon(running.set)
                    try:
                        await asyncio.sleep(3600)
                    finally:
                        noticed.set()
            else:
                interrupt(spares=True)
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            raise
        finally:
            seen.append("cleaned up")

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert seen == ["cancelled", "cleaned up"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@clause("signals.ctrl-c.runner")
def test_a_main_task_that_takes_its_cancellation_goes_on(loop_factory):
    async def main():
        interrupt(spares=True)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "went on"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(main()) == "went on"
        assert runner.run(asyncio.sleep(0, "again")) == "again"


@clause("signals.ctrl-c.runner-again")
def test_a_second_ctrl_c_under_a_runner_raises_at_once(loop_factory):
    seen = []

    async def main():
        interrupt(spares=True)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("ignored")
        interrupt()

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert seen == ["ignored"]


@clause("signals.ctrl-c.handler")
def test_a_handler_for_ctrl_c_is_called_instead(loop, run):
    async def main():
        pressed = asyncio.Event()
        loop.add_signal_handler(signal.SIGINT, pressed.set)
        interrupt(spares=True)
        await pressed.wait()
        return "asked to end"

    assert run(main()) == "asked to end"


@clause("signals.ctrl-c.handler")
def test_a_handler_for_ctrl_c_is_called_instead_under_a_runner(loop_factory):
    async def main():
        pressed = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, pressed.set)
        for _ in range(3):
            pressed.clear()
            interrupt(spares=True)
            await pressed.wait()
        return "asked to end"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(main()) == "asked to end"
        # What the Runner found in place of its own handler, it leaves there.
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
