"""What every test here runs on, and what is checked around each of them.

A test gets `on_loop`, once for stock asyncio, which shows that the test itself is right, and once for the loop under
test. `on_loop(main)` runs a coroutine on a new loop. Afterwards nothing must have been logged as a warning or worse,
nothing must have reached the exception handler, and the descriptors and threads must be those of before.

The servers are started by the tests themselves, each in a directory of its own, and ended with the session. Where one
is not installed its tests are skipped, and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from tests import support
from tests.real import servers
from tests.real.certificates import Certificates

_T = TypeVar("_T")

TIMEOUT = 40.0
"""Seconds a test's coroutine may take."""
LOOPS = tuple(dict.fromkeys(("asyncio:new_event_loop", support.LOOP)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "on_loop" in getattr(item, "fixturenames", ()):
            # What an object left open says of itself when the collector finds it must fail the test.
            item.add_marker(pytest.mark.filterwarnings("error::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"))
            item.add_marker(pytest.mark.timeout(90))


class OnLoop:
    """Runs coroutines on new loops of one kind, and checks what they leave behind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._factory = support.factory(name)
        self._contexts: list[dict[str, Any]] = []
        self._records: list[logging.LogRecord] = []

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A new loop whose exception handler is watched; whoever asks for one closes it."""
        loop = self._factory()
        loop.set_exception_handler(lambda _, context: self._contexts.append(context))
        return loop

    def __call__(self, main: Coroutine[Any, Any, _T]) -> _T:
        """Run `main`. AssertionError for an error logged or reported, and for a descriptor or thread left behind."""
        with self.checked(), asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(_until_hung_up(main))

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """The checks alone, for a test that runs its loops in threads of its own."""
        fds, threads = support.fds(), set(threading.enumerate())
        watch = _Records(self._records)
        logging.getLogger().addHandler(watch)
        try:
            yield
            gc.collect()
        finally:
            logging.getLogger().removeHandler(watch)
        assert not self._contexts, f"reached the exception handler: {self._contexts}"
        assert not self._records, [record.getMessage() for record in self._records]
        left = {number: what for number, what in support.fds().items() if fds.get(number) != what}
        assert not left, f"descriptors left open: {left}"
        # A thread that was told to end may still be about to.
        assert support.wait_until(lambda: not set(threading.enumerate()) - threads), threading.enumerate()


async def _until_hung_up(main: Coroutine[Any, Any, _T]) -> _T:
    """Run `main`, then the loop until the sockets made meanwhile are closed, or for at most `support.TIMEOUT` seconds.

    A TLS connection is closed once the peer has answered, and aiohttp waits for that only where it had pooled the
    connection: a loop that is closed before leaves the transport of the others unclosed.
    """
    before = support.fds().items()
    result = await asyncio.wait_for(main, TIMEOUT)
    deadline = time.monotonic() + support.TIMEOUT
    while any(what.startswith("socket:") for _, what in support.fds().items() - before):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0)
    return result


class _Records(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.emit = records.append  # type: ignore[method-assign]


@pytest.fixture(params=LOOPS, ids=[name.partition(":")[0] for name in LOOPS])
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    """Runs a coroutine on a new loop, with checks; see `OnLoop`."""
    return OnLoop(request.param)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of the session's own."""
    return Certificates.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def postgres(certificates: Certificates) -> Iterator[servers.Address]:
    """A PostgreSQL cluster of the session's own, which takes TLS and plain connections."""
    with servers.postgres(certificates) as address:
        yield address


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Address]:
    """A Redis server of the session's own."""
    with servers.redis() as address:
        yield address
