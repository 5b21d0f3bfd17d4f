"""`python -m tests.projects --loop tokioloop [--project websockets]`: compare other projects' tests on two loops.

Prints, per project, the tests that pass on stock asyncio, on the loop, and how many of these made a loop; then every
test that passes on stock asyncio and not on the loop. Those are run again, alone, on both: what stock asyncio then
fails once as well is named as unsteady. Exit status 0 where nothing differs and each project named was compared.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cpython import runner
from tests.cpython.runner import Child, ModuleRun, Outcome
from tests.real import servers
from tests.real.certificates import Certificates

from . import sources
from .sources import Project, SourcesError

AGAIN = 3
"""How often a test that differs is run alone, on each loop."""


@dataclass
class Report:
    """What comparing found, beyond the printed lines."""

    differ: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    known = sources.projects()
    label = runner.label(options.loop)
    report = Report()
    print(f"CPython {sys.version.split()[0]}: other projects' tests on stock asyncio and on {label}")
    print(f"{'project':<40}{'asyncio':>9}{label:>12}{'(on loop)':>11}{'seconds':>9}", flush=True)
    for name in options.project or known:
        try:
            with _environment(known[name]) as environment:
                _compare(known[name], environment, options, report)
        except (SourcesError, RuntimeError, pytest.skip.Exception) as error:
            report.missing.append(f"not compared: {name}: {error}")
    for line in (*(f"unsteady: {line}" for line in report.unsteady), *report.missing):
        print(line)
    for line in report.differ:
        print(f"differs: {line}")
    return 1 if report.differ or (options.project and report.missing) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.projects", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", default="tokioloop", help="NAME (= NAME:new_event_loop) or module:factory")
    parser.add_argument("--project", action="append", choices=sources.projects(), help="repeatable; default: all")
    parser.add_argument("--checkouts", type=Path, default=sources.CHECKOUTS, help="where checkouts are, by name")
    parser.add_argument("--only", action="append", help="a test's node id, repeatable")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a test may take")
    parser.add_argument("--verbose", action="store_true", help="print what pytest says of every test that differs")
    options = parser.parse_args()
    if ":" not in options.loop:
        options.loop += ":new_event_loop"
    return options


@contextlib.contextmanager
def _environment(project: Project) -> Iterator[dict[str, str]]:
    """The environment variables of a project, with the servers up that they name."""
    with contextlib.ExitStack() as stack:
        values = {}
        if any("{postgres}" in value for value in project.env.values()):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            address = stack.enter_context(servers.postgres(Certificates.made(folder)))
            values["postgres"] = f"host=127.0.0.1 port={address.port} user=test dbname=postgres"
        yield {name: value.format(**values) for name, value in project.env.items()}


def _compare(project: Project, environment: dict[str, str], options: argparse.Namespace, report: Report) -> None:
    tree = sources.tree(project, options.checkouts)
    python = sources.interpreter(project, tree)
    programs = [f"--program={program}" for program in project.programs]
    # What a project adds to its own runs measures coverage, or starts processes, by plugins that are not installed.
    program = (str(python), str(Path(__file__).with_name("child.py")), "--rootdir=.", "--override-ini=addopts=")
    command = (*program, *project.options, *project.tests, *programs)
    path = {"PYTHONPATH": str(sources.import_path(options.loop))}
    child = Child(command, {**environment, **path}, tree)

    def run(loop: str | None, only: list[str] | None, *, again: bool) -> tuple[ModuleRun, float]:
        chosen = {"skip": list(project.not_run), "timeout": options.timeout, "only": only}
        return runner.timed_run(project.name, loop, child=child, again=again, **chosen)

    ours, seconds = run(options.loop, options.only, again=True)
    stock, _ = run(None, options.only, again=True)
    on_loop = sum(outcome.outcome == "passed" and outcome.loops > 0 for outcome in ours.tests.values())
    title = f"{project.name} ({sources.version(tree, options.checkouts, project)})"
    print(f"{title:<40}{stock.passed:>9}{ours.passed:>12}{on_loop:>11}{seconds:>9.1f}", flush=True)
    if not stock.passed:
        raise SourcesError("none of its tests passes on stock asyncio")
    for test, found in differing(stock, ours).items():
        runs = [[run(loop, [test], again=False)[0] for _ in range(AGAIN)] for loop in (None, options.loop)]
        on_stock, on_ours = (sum(passes(one, test) for one in several) for several in runs)
        alone = f"alone {on_stock} of {AGAIN} on asyncio, {on_ours} on the loop"
        said = f"{project.name}: {test}: {alone}: {runner.last_line(found.detail)}"
        (report.differ if on_stock == AGAIN > on_ours else report.unsteady).append(said)
        if options.verbose:
            print(found.detail)


def differing(stock: ModuleRun, ours: ModuleRun) -> dict[str, Outcome]:
    """What pass on stock asyncio and did not pass at once on the loop, and what came of them there."""
    missing = Outcome("failed", "not found")
    found = {test: ours.tests.get(test, missing) for test in sorted(stock.tests) if passes(stock, test)}
    return {test: outcome for test, outcome in found.items() if outcome.outcome != "passed" or outcome.unsteady}


def passes(run: ModuleRun, test: str) -> bool:
    """Did the test run, and pass?"""
    return test in run.tests and run.tests[test].outcome == "passed"


if __name__ == "__main__":
    sys.exit(main())
