"""Fixtures for tests of a loop. A loop whose exception handler was called behind the test's back fails the test."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from .loops import LoopUnderTest

T = TypeVar("T")
RUN_TIMEOUT = 15.0
"""Seconds `run` gives a coroutine."""


class Errors(list[dict[str, Any]]):
    """The contexts that reached a loop's exception handler and that the test has not taken yet."""

    def handle(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The exception handler itself."""
        self.append(context)

    def take(self) -> list[dict[str, Any]]:
        """All contexts so far; they are taken, so they no longer fail the test."""
        taken = list(self)
        self.clear()
        return taken

    def only(self) -> dict[str, Any]:
        """The one context so far, taken. AssertionError where there is none or more than one."""
        taken = self.take()
        assert len(taken) == 1, f"one context was expected to reach the exception handler, not {taken!r}"
        return taken[0]


class LoopMaker:
    """Makes fresh loops of the loop under test and looks after them: `new_loop()`, `new_loop.errors_of(loop)`."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._factory = factory
        self._made: list[tuple[asyncio.AbstractEventLoop, Errors]] = []

    def __call__(self) -> asyncio.AbstractEventLoop:
        """A fresh loop, not running, not current, whose exception handler records."""
        loop = self._factory()
        errors = Errors()
        loop.set_exception_handler(errors.handle)
        self._made.append((loop, errors))
        return loop

    def errors_of(self, loop: asyncio.AbstractEventLoop) -> Errors:
        """What reached the exception handler of a loop made here. LookupError for any other loop."""
        for made, errors in self._made:
            if made is loop:
                return errors
        raise LookupError(f"{loop!r} was not made by this new_loop")

    def finish(self) -> list[str]:
        """Shut every loop down and say what was wrong."""
        problems: list[str] = []
        for loop, _ in reversed(self._made):
            try:
                _shut(loop)
            except Exception as error:
                problems.append(f"shutting {loop!r} down raised {error!r}")
        gc.collect()  # tasks and futures report what nobody retrieved when they go
        for _, errors in self._made:
            problems += [f"reached the exception handler: {context!r}" for context in errors]
        return problems


@pytest.fixture(scope="session")
def loop_under_test(request: pytest.FixtureRequest) -> LoopUnderTest:
    """The loop this test is parametrised with: its label, version and factory."""
    found = request.param
    assert isinstance(found, LoopUnderTest)
    return found


@pytest.fixture(scope="session")
def loop_factory(loop_under_test: LoopUnderTest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes bare loops: no exception handler set, nothing checked, the test closes them."""
    return loop_under_test.factory


@pytest.fixture
def new_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[LoopMaker]:
    """Makes further fresh loops, shut down and checked on teardown."""
    maker = LoopMaker(loop_factory)
    yield maker
    problems = maker.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def loop(new_loop: LoopMaker) -> asyncio.AbstractEventLoop:
    """A fresh loop of the loop under test: not running, not current, shut down and checked on teardown."""
    return new_loop()


@pytest.fixture
def errors(new_loop: LoopMaker, loop: asyncio.AbstractEventLoop) -> Errors:
    """The contexts that reached the exception handler of `loop`; a test takes those it expects."""
    return new_loop.errors_of(loop)


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Awaitable[T]], T]:
    """`run(coro)`: run it on `loop`, in one task, for at most 15 s; its result."""

    def run(awaitable: Awaitable[T]) -> T:
        async def main() -> T:
            async with asyncio.timeout(RUN_TIMEOUT):
                return await awaitable

        return loop.run_until_complete(main())

    return run


@pytest.fixture
def tick(loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """`tick(n=1)`: run the stopped loop for exactly n iterations."""

    def tick(n: int = 1) -> None:
        for _ in range(n):
            loop.call_soon(loop.stop)
            loop.run_forever()

    return tick


def _shut(loop: asyncio.AbstractEventLoop) -> None:
    if loop.is_closed():
        return
    if loop.is_running():
        raise RuntimeError("the test left it running")
    # A stop() that the test left behind would end the first run below before it is complete.
    loop.call_soon(loop.stop)
    loop.run_forever()
    if tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
