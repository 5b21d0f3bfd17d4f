"""Runs one module of CPython's tests in this process and writes what happened, a JSON line at a time.

Started by `tests.cpython.runner` as a file of its own (`python child.py JOB FD`), so that nothing of this project is
imported unless the loop under test is ours. JOB is a JSON file:

    module   dotted name of the test module
    loop     `module:factory` of the loop to swap in, or null for the interpreter's own
    only     test ids to run, or null for all
    skip     test ids and glob patterns not to run
    timeout  seconds a test may take; then every thread's traceback is dumped and the process ends

Lines go to the file descriptor given as the second argument: `{"start": id}` before a test, and after it
`{"test": id, "outcome": passed | failed | skipped, "detail": text, "loops": n, "seconds": s}`, where `loops` counts the
swapped-in loops made in the meantime. A test that started and never stopped ended the process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fnmatch
import functools
import gc
import importlib
import json
import os
import sys
import time
import traceback
import unittest
import warnings
from typing import Any


class Loops:
    """The factory of the loop under test, counting."""

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        self._make = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        self.made = 0
        loop = self._make()
        self.cls = type(loop)
        if self.cls.__module__.startswith("asyncio."):
            self._make = self.cls  # not through the policy, which `swap` is about to turn to us
        loop.close()

    def __call__(self) -> asyncio.AbstractEventLoop:
        self.made += 1
        return self._make()


def swap(loops: Loops) -> None:
    """Make asyncio hand out the loop under test wherever it would make one of its own."""

    class Meta(type):
        def __call__(cls, *selectors: Any, **_named: Any) -> asyncio.AbstractEventLoop:
            for selector in selectors:
                selector.close()
            return loops()

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, loops.cls)

    class SelectorEventLoop(metaclass=Meta):
        """Stands for asyncio.SelectorEventLoop: makes the loop under test, whatever the selector."""

    # The policy's factory, not a policy: tests set, reset and compare policies (`set_event_loop_policy(None)`).
    from asyncio import unix_events

    policy = getattr(unix_events, "_DefaultEventLoopPolicy", None) or unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = staticmethod(loops)
    asyncio.SelectorEventLoop = SelectorEventLoop  # type: ignore[misc, assignment]
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = SelectorEventLoop  # type: ignore[misc, assignment]
    if not issubclass(loops.cls, asyncio.BaseEventLoop):
        # The tests' own helper reads `loop._default_executor` before it closes a loop.
        from test.test_asyncio import utils

        utils.TestCase.close_loop = staticmethod(lambda loop: loop.close())


class Result(unittest.TestResult):
    """Writes every test's outcome the moment it is known."""

    def __init__(self, channel: int, timeout: float, loops: Loops | None) -> None:
        super().__init__()
        self._channel = channel
        self._timeout = timeout
        self._loops = loops
        self._outcome = "passed"
        self._detail = ""
        self._running = False
        self._began = 0.0
        self._made = 0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 (unittest's name)
        super().startTest(test)
        self._outcome, self._detail, self._running = "passed", "", True
        self._made = self._loops.made if self._loops else 0
        self._say({"start": test.id()})
        self._began = time.monotonic()
        faulthandler.dump_traceback_later(self._timeout, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        self._running = False
        self._tell(test.id(), time.monotonic() - self._began)
        if self._outcome == "failed":
            # What it left open warns when it is collected: now, not in a test that counts warnings.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._note(test, "failed", "".join(traceback.format_exception(*err)))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._note(test, "failed", "".join(traceback.format_exception(*err)))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._note(test, "failed", "unexpected success")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed", "".join(traceback.format_exception(*err)))

    def _note(self, test: unittest.TestCase, outcome: str, detail: str) -> None:
        if self._outcome != "failed":
            self._outcome, self._detail = outcome, detail
        if not self._running:  # a class or module that could not be set up
            self._tell(test.id(), 0.0)
            self._outcome, self._detail = "passed", ""

    def _tell(self, test: str, seconds: float) -> None:
        made = self._loops.made - self._made if self._loops else 0
        record = {"test": test, "outcome": self._outcome, "detail": self._detail, "loops": made, "seconds": seconds}
        self._say(record)

    def _say(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        while line:
            line = line[os.write(self._channel, line) :]


def tests_of(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    """The test cases in `suite`, in order."""
    found: list[unittest.TestCase] = []
    for item in suite:
        found.extend(tests_of(item) if isinstance(item, unittest.TestSuite) else [item])
    return found


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    loops = Loops(job["loop"]) if job["loop"] else None
    if loops:
        swap(loops)
    faulthandler.enable()
    wanted: list[unittest.TestCase] = []
    for test in tests_of(unittest.defaultTestLoader.loadTestsFromName(job["module"])):
        if job["only"] is not None and test.id() not in job["only"]:
            continue
        if not any(test.id() == pattern or fnmatch.fnmatchcase(test.id(), pattern) for pattern in job["skip"]):
            wanted.append(test)
    unittest.TestSuite(wanted).run(Result(int(sys.argv[2]), job["timeout"], loops))


if __name__ == "__main__":
    main()
