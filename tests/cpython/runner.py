"""Runs modules of tests, CPython's or (by `tests.projects`) others', in child processes; an outcome per test.

A child that crashes, hangs or exits costs the one test it was running: that test has failed, and a new child runs the
rest of the module. Tests that failed are run once more, without the others, as CPython's own `regrtest` does: what then
passes is counted as passed and named as unsteady.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "test.test_asyncio."
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Child:
    """The program that runs tests as `tests/cpython/child.py` does: its command takes a job's file and a descriptor."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """Where it runs; None: in a folder of its own."""


CPYTHON = Child((sys.executable, str(Path(__file__).with_name("child.py"))))


@dataclass
class Outcome:
    """What a test did: `passed`, `failed` or `skipped`, why, and how many loops under test it made."""

    outcome: str
    detail: str = ""
    loops: int = 0
    seconds: float = 0.0
    unsteady: bool = False


@dataclass
class ModuleRun:
    """The outcomes of one module on one loop, by test id (short: without `test.test_asyncio.`)."""

    tests: dict[str, Outcome] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        return sum(test.outcome == "passed" for test in self.tests.values())


def dotted(module: str) -> str:
    """`test_events` -> `test.test_asyncio.test_events`; a name with a dot is already whole."""
    return module if "." in module else PREFIX + module


def run_module(
    module: str,
    loop: str | None,
    *,
    skip: Iterable[str],
    timeout: float,
    again: bool = True,
    only: list[str] | None = None,
    child: Child = CPYTHON,
) -> ModuleRun:
    """Run `module` on `loop` (`module:factory`, None = stock asyncio).

    `skip` holds short ids or glob patterns, `timeout` is seconds per test, `again` whether failures get a second try.
    RuntimeError where the module cannot even be loaded.
    """
    run = ModuleRun()
    skipped = [pattern for short in skip for pattern in (short, PREFIX + short)]
    chosen = None if only is None else [name for short in only for name in (short, PREFIX + short)]
    while True:
        ended = _run_child(child, dotted(module), loop, chosen, skipped, timeout, run)
        if ended is None:
            break
        test, why = ended
        run.tests[_short(test)] = Outcome("failed", why)
        skipped += [PREFIX + short for short in run.tests] + list(run.tests)
    failed = [name for name, outcome in run.tests.items() if outcome.outcome == "failed"]
    if again and failed:
        second = run_module(module, loop, skip=(), timeout=timeout, again=False, only=failed, child=child)
        for name, outcome in second.tests.items():
            if outcome.outcome == "passed":
                outcome.detail, outcome.unsteady = run.tests[name].detail, True
                run.tests[name] = outcome
    return run


def _run_child(
    child: Child, module: str, loop: str | None, only: list[str] | None, skip: list[str], timeout: float, run: ModuleRun
) -> tuple[str, str] | None:
    """One child over what is left of the module; the test it died in and why, or None where it came to the end."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "output"), "w+b") as output:
        job = {"module": module, "loop": loop, "only": only, "skip": skip, "timeout": timeout}
        Path(folder, "job").write_text(json.dumps(job), encoding="utf-8")
        reading, writing = os.pipe()
        try:
            # In a folder of its own: some of CPython's tests write files where they are.
            process = subprocess.Popen(
                [*child.command, str(Path(folder, "job")), str(writing)],
                pass_fds=[writing], cwd=child.folder or folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "PYTHONPATH": _python_path(), **child.environment},
            )  # fmt: skip
        finally:
            os.close(writing)
        running: str | None = None
        hung = False
        with os.fdopen(reading, "rb") as records:
            buffered = b""
            while True:
                # The child ends itself after `timeout`; this is for one too broken to.
                readable, _, _ = select.select([records], [], [], timeout + 30)
                if not readable:
                    hung = True
                    process.kill()
                    break
                chunk = os.read(records.fileno(), 1 << 16)
                if not chunk:
                    break
                *lines, buffered = (buffered + chunk).split(b"\n")
                for line in lines:
                    running = _take(json.loads(line), run)
        status = process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    if status == 0 and running is None:
        return None
    why = "hung" if hung or "Timeout (" in said else f"ended the process: exit status {status}"
    if running is None:
        raise RuntimeError(f"{module} on {loop or 'asyncio'} {why}\n{said[-4000:]}")
    return running, f"{why}\n{said[-4000:]}"


def _take(record: dict[str, object], run: ModuleRun) -> str | None:
    """Store a record of a child; the test that is now running, if one is."""
    if "start" in record:
        return str(record["start"])
    run.tests[_short(str(record["test"]))] = Outcome(
        str(record["outcome"]), str(record["detail"]), int(str(record["loops"])), float(str(record["seconds"]))
    )
    return None


def _short(test: str) -> str:
    return test.replace(PREFIX, "")


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))


def timed_run(module: str, loop: str | None, **options: Any) -> tuple[ModuleRun, float]:
    """`run_module` and the seconds it took."""
    began = time.monotonic()
    run = run_module(module, loop, **options)
    return run, time.monotonic() - began


def label(name: str) -> str:
    """The name a loop goes by: its class name where that starts with its top module's name, else the module's name."""
    module, _, attribute = name.partition(":")
    loop = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))()
    loop.close()
    top = type(loop).__module__.partition(".")[0]
    return type(loop).__name__ if type(loop).__name__.lower().startswith(top.lower()) else top


def last_line(text: str) -> str:
    """What a test's failure comes down to, of its `Outcome.detail`."""
    lines = text.strip().splitlines()
    if lines and lines[0].startswith(("hung", "ended")):
        return lines[0]
    return lines[-1][:300] if lines else ""
