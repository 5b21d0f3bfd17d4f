"""Event loop policies, where CPython has them, and the current event loop."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from .._kit import clause, peers


@pytest.fixture
def policy(loop_factory):
    """A policy that makes the loops under test, while the test runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if not hasattr(asyncio, "DefaultEventLoopPolicy"):
            pytest.skip("this CPython has no policies")

        class Policy(asyncio.DefaultEventLoopPolicy):
            made = 0

            def new_event_loop(self):
                self.made += 1
                asyncio.set_event_loop_policy(None)  # the factory may be asyncio's own, which asks the policy
                try:
                    return loop_factory()
                finally:
                    asyncio.set_event_loop_policy(self)

        policy = Policy()
        asyncio.set_event_loop_policy(policy)
        yield policy
        asyncio.set_event_loop_policy(None)


@clause("lifecycle.policy.makes-the-loop")
def test_asyncio_makes_the_loops_of_the_policy(policy, loop_factory):
    async def main():
        await asyncio.sleep(0.001)
        return type(asyncio.get_running_loop())

    kind = asyncio.run(main())
    assert policy.made == 1
    loop = asyncio.new_event_loop()
    assert policy.made == 2 and type(loop) is kind
    loop.close()


@clause("lifecycle.policy.current-is-the-one-set")
def test_outside_of_a_run_the_current_loop_is_the_one_set(policy, new_loop):
    first = new_loop()
    asyncio.set_event_loop(first)
    assert asyncio.get_event_loop() is first
    second = new_loop()
    second.run_until_complete(asyncio.sleep(0))
    assert asyncio.get_event_loop() is first, "making and running another changes nothing"
    asyncio.set_event_loop(None)
    with pytest.raises(RuntimeError):
        asyncio.get_event_loop()


@clause("lifecycle.policy.running-goes-first")
def test_within_a_run_the_current_loop_is_the_running_one(policy, new_loop):
    async def main():
        before = asyncio.get_event_loop()
        asyncio.set_event_loop(other)
        return before, asyncio.get_event_loop(), asyncio.get_running_loop()

    loop, other = new_loop(), new_loop()
    asyncio.set_event_loop(other)
    assert loop.run_until_complete(main()) == (loop, loop, loop)
    asyncio.set_event_loop(None)


@clause("lifecycle.policy.per-thread")
def test_another_thread_has_no_current_loop(policy, new_loop):
    def work():
        with pytest.raises(RuntimeError):
            asyncio.get_event_loop()

    loop = new_loop()
    asyncio.set_event_loop(loop)
    peers.thread(work).result()
    assert asyncio.get_event_loop() is loop
    asyncio.set_event_loop(None)
