"""Runs one project's tests under pytest in this process and writes what happened, a JSON line at a time.

Started by `tests.cpython.runner` in place of its own child, with a job of the same form: `module` is ignored, `only`
and `skip` are node ids of pytest. The runner's arguments come behind pytest's own: `child.py [ARGUMENT ...] JOB FD`.

`child.py --program LOOP SCRIPT` runs a program with the loop swapped in: a project's tests may be programs, too.
"""

from __future__ import annotations

import faulthandler
import fnmatch
import gc
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _cpython() -> ModuleType:
    """`tests/cpython/child.py`, by its path: a project's own `tests` is what `import tests` has to find here."""
    path = Path(__file__).resolve().parents[1] / "cpython" / "child.py"
    spec = importlib.util.spec_from_file_location("_cpython_child", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Plugin:
    """Chooses the tests and writes every test's outcome the moment it is known."""

    def __init__(self, job: dict[str, Any], channel: int, loops: Any) -> None:
        self._job, self._channel, self._loops = job, channel, loops
        # pytest puts a file in the place of standard error; the stacks of a test that hangs are for the runner.
        self._stderr = os.dup(2)
        self._outcome, self._detail = "passed", ""
        self.finished = False

    def pytest_sessionfinish(self) -> None:
        self.finished = True

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        only, skip = self._job["only"], self._job["skip"]
        chosen = None if only is None else set(only)
        names, patterns = set(skip), [pattern for pattern in skip if "*" in pattern]
        wanted = []
        for item in items:
            left_out = item.nodeid in names or any(fnmatch.fnmatchcase(item.nodeid, name) for name in patterns)
            if (chosen is None or item.nodeid in chosen) and not left_out:
                wanted.append(item)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
        items[:] = wanted

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._outcome, self._detail = "passed", ""
        made = self._loops.made if self._loops else 0
        self._say({"start": item.nodeid})
        began = time.monotonic()
        faulthandler.dump_traceback_later(self._job["timeout"], exit=True, file=self._stderr)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            record = {"test": item.nodeid, "outcome": self._outcome, "detail": self._detail}
            loops = self._loops.made - made if self._loops else 0
            self._say({**record, "loops": loops, "seconds": time.monotonic() - began})
            if self._outcome == "failed":
                gc.collect()  # as tests/cpython/child.py does, and why

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" and self._outcome != "failed":
            self._outcome = report.outcome
            # Captured output ends a failure's text: its last line is not what went wrong.
            crash = getattr(report.longrepr, "reprcrash", None)
            self._detail = f"{report.longreprtext}\n{crash.message if crash else ''}".rstrip()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            detail = report.longreprtext.rstrip()
            self._say({"test": report.nodeid, "outcome": "failed", "detail": detail, "loops": 0, "seconds": 0.0})

    def _say(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        while line:
            line = line[os.write(self._channel, line) :]


class Program(pytest.File):
    """A program of the project, which passes by ending with status 0."""

    def collect(self) -> list[pytest.Item]:
        return [Run.from_parent(self, name="run")]


class Run(pytest.Item):
    """The one test of a `Program`."""

    def runtest(self) -> None:
        loop = self.config.stash[LOOP]
        command = [sys.executable, __file__, "--program", loop, str(self.path)]
        done = subprocess.run(
            command, cwd=self.path.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


LOOP = pytest.StashKey[str]()
RAN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
"""The exit statuses of a session that came to its end."""


class Programs:
    """Collects the files that are programs."""

    def __init__(self, loop: str, programs: list[str]) -> None:
        self._loop, self._programs = loop, {str(Path(program).resolve()) for program in programs}

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[LOOP] = self._loop

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return Program.from_parent(parent, path=module_path) if str(module_path) in self._programs else None


def main(arguments: list[str]) -> int:
    *options, path, channel = arguments
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    loops = None
    if job["loop"]:
        cpython = _cpython()
        loops = cpython.Loops(job["loop"])
        cpython.swap(loops)
    faulthandler.enable()
    programs = [option.removeprefix("--program=") for option in options if option.startswith("--program=")]
    options = [option.removeprefix("--program=") for option in options]
    # Its own time-outs are the runner's business, and another order in each run is nothing to compare.
    plugin = Plugin(job, int(channel), loops)
    own = [
        "--override-ini=faulthandler_timeout=0",
        "-p",
        "no:randomly",
        "--continue-on-collection-errors",
        "--cache-clear",
    ]
    try:
        status = pytest.main([*own, *options], [plugin, Programs(job["loop"] or "", programs)])
    except Warning:
        # A project that makes errors of warnings makes one of what the collector finds after the last test.
        if not plugin.finished:
            raise
        return 0
    return 0 if status in RAN else int(status)


def program(loop: str, path: str) -> None:
    if loop:
        cpython = _cpython()
        cpython.swap(cpython.Loops(loop))
    sys.argv[:] = [path]
    sys.path[0] = str(Path(path).parent)
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--program":
        program(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
