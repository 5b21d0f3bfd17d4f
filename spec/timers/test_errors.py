"""Exceptions of timers, and coroutines that wait on timers."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref

import pytest

from .._kit import clause, timing

EARLY = timing.monotonic_resolution


def fail(error):
    raise error


@clause("timers.errors.reach-handler")
def test_an_exception_of_a_timer_reaches_the_handler(loop, errors, tick):
    seen = []
    now = loop.time()
    error = ValueError("of the timer")
    handle = loop.call_at(now - 2, fail, error)
    loop.call_at(now - 1, seen.append, "behind")
    tick(2)
    context = errors.only()
    assert context["exception"] is error and context["handle"] is handle
    assert "fail" in context["message"]
    assert seen == ["behind"]


@clause("timers.errors.exits-pass-through")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_a_timer_leaves_the_run(loop, errors, tick, kind, saw):
    seen = []
    now = loop.time()
    loop.call_at(now - 3, seen.append, "before")
    loop.call_at(now - 2, fail, kind())
    loop.call_at(now - 1, seen.append, "behind")
    with pytest.raises(kind):
        loop.run_forever()
    assert seen[0] == "before" and errors == [] and not loop.is_running()
    at_once = "behind" in seen
    tick(2)
    assert seen == ["before", "behind"]
    if at_once:
        saw("timers.errors.exits-pass-through", "they are called before the exit leaves")
    else:
        saw("timers.errors.exits-pass-through", "other due timers are called by the next run")


@clause("timers.delay.from-now")
def test_a_delay_counts_from_the_call(loop):
    waited = []

    def busy_then_arm():
        begun = time.monotonic()
        while time.monotonic() - begun < 0.03:
            pass
        armed = time.monotonic()
        loop.call_later(0.02, lambda: (waited.append(time.monotonic() - armed), loop.stop()))

    loop.call_soon(busy_then_arm)
    loop.run_forever()
    assert waited[0] >= 0.02 - EARLY


@clause("timers.sleep.zero")
def test_sleep_zero_gives_way_once(run):
    seen = []

    async def worker(name):
        for n in range(3):
            seen.append(f"{name}{n}")
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(worker("a"), worker("b"), worker("c"))

    run(main())
    assert seen == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


@clause("timers.sleep.delay")
def test_sleepers_wake_in_order_and_not_early(loop, run):
    seen = []

    async def sleeper(delay):
        begun = loop.time()
        assert await asyncio.sleep(delay, result=delay) == delay
        seen.append(delay)
        return loop.time() - begun - delay

    delays = [0.015, 0.005, 0.01, 0.0003, 0.02]

    async def main():
        return await asyncio.gather(*map(sleeper, delays))

    late = run(main())
    assert min(late) >= -EARLY
    assert seen == sorted(delays)


@clause("timers.sleep.delay")
@pytest.mark.parametrize("delay", [-1, -math.inf])
def test_a_negative_sleep_ends(run, delay):
    assert run(asyncio.sleep(delay, "ended")) == "ended"


@clause("timers.sleep.cancelled")
def test_a_cancelled_sleep_leaves_nothing_behind(run):
    class Local:
        pass

    watched = []

    async def sleeper():
        local = Local()
        watched.append(weakref.ref(local))
        await asyncio.sleep(3600)

    async def main():
        task = asyncio.ensure_future(sleeper())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(3600):
            local = Local()
            watched.append(weakref.ref(local))
            await asyncio.sleep(0)

    run(main())
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


@clause("timers.timeout.expires")
def test_a_timeout_interrupts_what_waits(loop, run):
    async def main():
        begun = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.create_future()
        return loop.time() - begun

    assert run(main()) >= 0.01 - EARLY


@clause("timers.timeout.expires")
def test_a_timeout_may_be_put_off(loop, run):
    async def main():
        async with asyncio.timeout(0.005) as timeout:
            timeout.reschedule(loop.time() + 3600)
            await asyncio.sleep(0.02)  # clause-delay
        assert not timeout.expired()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600) as timeout:
                timeout.reschedule(loop.time() - 1)
                await loop.create_future()
        assert timeout.expired()

    run(main())
