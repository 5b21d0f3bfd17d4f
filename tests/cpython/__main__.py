"""`python -m tests.cpython --loop tokioloop [--module test_events] [--quick]`: compare a loop with stock asyncio.

Prints, per module, the tests that pass on both and how many of them ran on the loop; then every test that differs, and
every `[[cpython]]` entry of `spec/deviations/<loop>.toml` that is stale. Exit status 0 where nothing differs but what
that file says.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import exceptions, runner
from .exceptions import Entry, Modules
from .runner import ModuleRun

NO_TESTS = 77
"""Exit status where the interpreter comes without its tests."""


@dataclass
class Report:
    """What comparing all modules found, beyond the printed lines."""

    wrong: list[str] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    if importlib.util.find_spec("test.test_asyncio") is None:
        print("this interpreter has no test.test_asyncio package (distributions ship it apart, as python3-testsuite)")
        return NO_TESTS
    listed = exceptions.modules(options.modules)
    modules = [module for module in options.module or listed.modules if _is_there(module)]
    if not modules:
        print(f"this interpreter has no tests called {', '.join(options.module)}")
        return NO_TESTS
    label = runner.label(options.loop)
    known = exceptions.read(options.deviations) if options.deviations else exceptions.of_loop(label)
    used: set[Entry] = set()
    report = Report()
    passes = [0, 0, 0]
    print(f"CPython {sys.version.split()[0]}: its asyncio tests on stock asyncio and on {label}")
    print(f"{'module':<40}{'asyncio':>9}{label:>12}{'(on loop)':>11}{'seconds':>9}")
    for module in modules:
        row = _compare(module, options, listed, known, used, report)
        passes = [total + one for total, one in zip(passes, row, strict=True)]
    print(f"{'all':<40}{passes[0]:>9}{passes[1]:>12}{passes[2]:>11}")
    if not options.only:
        for entry in known:
            if entry not in used and any(entry.test.startswith(f"{module}.") for module in modules):
                report.wrong.append(f"stale: {entry.test}: no test of this CPython has that name")
    print(f"differ as declared: {len(report.declared)}")
    for line in report.unsteady:
        print(f"unsteady (passed when run again): {line}")
    for line in report.wrong:
        print(line)
    return 1 if report.wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cpython", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", default="tokioloop", help="NAME (= NAME:new_event_loop) or module:factory")
    parser.add_argument("--module", action="append", help="a module of test.test_asyncio, repeatable")
    parser.add_argument("--only", action="append", help="a test id (test_events.Class.test_name), repeatable")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds a test may take")
    parser.add_argument("--quick", action="store_true", help="ask stock asyncio only about what the loop did not pass")
    parser.add_argument("--modules", type=Path, default=exceptions.FILE, help="what to compare: modules.toml here")
    parser.add_argument("--deviations", type=Path, help="what may differ; default: the loop's file in spec/deviations")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of every test that differs")
    options = parser.parse_args()
    if ":" not in options.loop:
        options.loop += ":new_event_loop"
    if options.only and not options.module:
        options.module = sorted({test.rpartition(".")[0].rpartition(".")[0] for test in options.only})
    return options


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(runner.dotted(module)) is not None
    except ModuleNotFoundError:  # its parent is not there, or is no package
        return False


def _compare(
    module: str, options: argparse.Namespace, listed: Modules, known: list[Entry], used: set[Entry], report: Report
) -> tuple[int, int, int]:
    """Compare one module and print its row; returns passes on asyncio, on the loop, and those that made a loop."""
    skip = [entry.test for entry in listed.not_run if entry.applies]
    ours, seconds = runner.timed_run(module, options.loop, skip=skip, timeout=options.timeout, only=options.only)
    only, stock = options.only, ModuleRun()
    if options.quick:
        only = [test for test, outcome in ours.tests.items() if outcome.outcome != "passed"]
    if only is None or only:
        stock = runner.run_module(module, None, skip=skip, timeout=options.timeout, only=only)
    if options.quick:
        stock.tests.update({test: outcome for test, outcome in ours.tests.items() if outcome.outcome == "passed"})
    on_loop = sum(outcome.outcome == "passed" and outcome.loops > 0 for outcome in ours.tests.values())
    print(f"{module:<40}{stock.passed:>9}{ours.passed:>12}{on_loop:>11}{seconds:>9.1f}", flush=True)
    for test in sorted(stock.tests.keys() | ours.tests.keys()):
        _judge(test, stock, ours, known, used, report, verbose=options.verbose)
    return stock.passed, ours.passed, on_loop


def _judge(
    test: str, stock: ModuleRun, ours: ModuleRun, known: list[Entry], used: set[Entry], report: Report, *, verbose: bool
) -> None:
    entries = [entry for entry in known if entry.matches(test)]
    used.update(entries)
    on_stock, on_ours = stock.tests.get(test), ours.tests.get(test)
    if on_ours and on_ours.unsteady:
        report.unsteady.append(f"{test}: {runner.last_line(on_ours.detail)}")
    wanted = on_stock is not None and on_stock.outcome == "passed"
    passed = on_ours is not None and on_ours.outcome == "passed"
    if wanted and not passed:
        if entries:
            report.declared.append(test)
            return
        detail = on_ours.detail if on_ours else "not found"
        report.wrong.append(f"differs: {test}: {on_ours.outcome if on_ours else 'missing'}: {runner.last_line(detail)}")
        if verbose:
            report.wrong.append(detail)
    elif entries and passed and not on_ours.unsteady:  # type: ignore[union-attr]
        report.wrong.append(f"stale: {test} passes, though {entries[0].test} is listed: {entries[0].reason}")


if __name__ == "__main__":
    sys.exit(main())
