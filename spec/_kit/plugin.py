"""The pytest plugin: loops to test by `--loop`, forked children, clauses, deviations and results.

A test that (directly or not) asks for the fixture `loop_under_test` is a spec test: it is parametrised over the loops,
isolated (`isolation`) and counted (`results`). Any other test runs as pytest runs it.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from _pytest.runner import runtestprotocol

from . import deviations, hooks, matrix, results, saw, seeds
from .clauses import LEVELS, Clause, SpecError, areas, load_area
from .fixtures import errors, loop, loop_factory, loop_under_test, new_loop, run, tick
from .isolation import REPORTS, Outcome
from .loops import LoopError, LoopUnderTest, MissingLoop, find_all
from .progress import Progress
from .schedule import Schedule, Terms

__all__ = ["errors", "loop", "loop_factory", "loop_under_test", "new_loop", "run", "tick"]

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_TIMEOUT = 20.0
HANG_TIMEOUT = 3.0
"""Seconds for a test of a clause declared to hang."""

_SUITE = pytest.StashKey["Suite"]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    for plugin in (saw, seeds):
        pluginmanager.register(plugin)
    group = parser.getgroup("spec", "conformance of event loops")
    group.addoption(
        "--loop",
        action="append",
        dest="spec_loops",
        metavar="NAME",
        help="loop to test: NAME (= NAME:new_event_loop) or module:factory; repeatable (default: ini spec_loops)",
    )
    group.addoption(
        "--strict-loop",
        action="append",
        dest="spec_strict",
        metavar="NAME",
        help="only this loop's failures and stale deviations fail the run; repeatable (default: every loop's do)",
    )
    group.addoption(
        "--deviations",
        action="append",
        dest="spec_manifests",
        metavar="FILE",
        type=Path,
        help=f"a manifest of the deviations of loops; repeatable (default: {deviations.MANIFEST}, where there is one)",
    )
    group.addoption(
        "--spec-level",
        metavar="LEVEL",
        choices=LEVELS,
        help="run what decides a clause of this level or a stricter one",
    )
    group.addoption("--spec-json", metavar="PATH", type=Path, help="write the results of the run as JSON")
    group.addoption("--spec-matrix", action="store_true", help="print the matrix area x loop")
    group.addoption("--spec-write-matrix", metavar="PATH", type=Path, help="write the matrix as Markdown")
    group.addoption("--spec-root", metavar="DIR", type=Path, default=ROOT, help="directory that holds the areas")
    group.addoption(
        "--spec-timeout",
        metavar="SECONDS",
        type=float,
        default=DEFAULT_TIMEOUT,
        help="time-out of a test without a timeout mark (default: %(default)s)",
    )
    group.addoption(
        "--spec-patient",
        action="store_true",
        help="run all of each area, however many of its tests hang or end their process",
    )
    group.addoption(
        "--spec-workers",
        metavar="N",
        type=int,
        default=0,
        help="children that run tests at once (default: one more than there are CPUs)",
    )
    group.addoption(
        "--spec-shuffle",
        metavar="SEED",
        type=_order,
        help="run the tests in an order drawn from SEED, a number, or `random`: from one that is printed",
    )
    group.addoption("--spec-progress", action="store_true", help="tell areas, counts and time left instead of dots")
    group.addoption("--spec-no-fork", action="store_true", help="run spec tests in this process, to debug one")
    parser.addini("spec_loops", "loops to test where no --loop is given", type="linelist", default=["asyncio"])


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(*ids): the clauses that a spec test decides")
    config.addinivalue_line("markers", "timeout(seconds): time-out of the test, in seconds")
    config.stash[_SUITE] = Suite(config)
    # A shell has what it runs in the background ignore Ctrl-C, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    session.config.stash[_SUITE].find_loops()


# The loop comes first in a test's id: before the plugin that handles @pytest.mark.parametrize.
@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_under_test" not in metafunc.fixturenames:
        return
    loops = metafunc.config.stash[_SUITE].wanted_loops()
    metafunc.parametrize("loop_under_test", loops, indirect=True, scope="session", ids=[loop.label for loop in loops])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    suite = config.stash[_SUITE]
    for item in items:
        if label := _label(item):
            suite.add_item(item, label)
    suite.select_level(items)
    suite.shuffle(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the spec tests in children, then all others as pytest does."""
    option = session.config.getoption
    forked = [item for item in session.items if _label(item)]
    if not forked or option("collectonly") or option("spec_no_fork") or option("usepdb"):
        return None
    if session.testsfailed and not option("continue_on_collection_errors"):
        return None  # which says so
    # What is alive now is shared with every child; a collection there that touched it would copy all of it.
    gc.collect()
    gc.freeze()
    session.config.stash[_SUITE].run_all(session, forked)
    others = [item for item in session.items if not _label(item)]
    for item, following in zip(others, [*others[1:], None], strict=False):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        _stop_if_told(session)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A spec test, run in this process: a child's, or the one that --spec-no-fork leaves."""
    label = _label(item)
    if label is None:
        return None
    suite = item.config.stash[_SUITE]
    if unknown := suite.unknown_clauses(item):
        reports = [_failure(item, f"unknown clause: {', '.join(unknown)}")]
    else:
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if REPORTS in item.stash:
        item.stash[REPORTS] = reports
    else:
        suite.record(item, label, reports)
    return True


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Counted, but not told: `Progress` tells."""
    suite = config.stash[_SUITE]
    progress = suite.progress
    if progress is None or isinstance(report, pytest.CollectReport) or not progress.tells(report.nodeid):
        return None
    if report.failed:
        return ("failed" if report.when == "call" else "error"), "", ""
    if report.skipped:
        return ("xfailed" if hasattr(report, "wasxfail") else "skipped"), "", ""
    return ("passed" if report.when == "call" else ""), "", ""


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> bool | None:
    """The timeout mark is pytest-timeout's as well; a spec test's is kept by its parent."""
    return True if _label(item) else None


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool | None:
    return True if _label(item) else None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[_SUITE].finish(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    suite = config.stash[_SUITE]
    for label, slug in suite.stale:
        path = suite.declared_in(label, slug)
        terminalreporter.line(f"stale deviation: {slug} passes on {label}; remove it from {path}", red=True)
    if suite.order is not None:
        terminalreporter.line(f"order of the tests: --spec-shuffle={suite.order}")
    if traces := suite.traces():
        terminalreporter.section("changed in the process of a test")
    for label, what, tests in traces:
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        terminalreporter.line(f"{label}: {what}: {tests[0]}{more}")
    if config.getoption("spec_matrix") and suite.document is not None:
        terminalreporter.section("conformance")
        terminalreporter.line(matrix.render_text(suite.document))


class Suite:
    """One run: its loops, the clauses and deviations of the areas it touches, its results."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.root: Path = config.getoption("spec_root").resolve()
        self.results = results.Results()
        self.stale: list[tuple[str, str]] = []
        self.complete = False
        self.document: dict[str, object] | None = None
        self.loops: list[LoopUnderTest] = []
        self.missing: list[MissingLoop] = []
        self._manifests: list[deviations.Manifest] = []
        self._clauses: dict[str, dict[str, Clause]] = {}
        self._deviations: dict[str, dict[str, deviations.Deviation]] = {}
        self._leaks: dict[str, list[str]] = {}
        self._met_leaks: set[tuple[str, str]] = set()
        self._collected: dict[tuple[str, str], set[str]] = {}
        self._missing = ""
        self._lenient_failures = 0
        self._terms: dict[pytest.Item, Terms] = {}
        self._places: dict[str, int] = {}
        self.order: int | None = None
        self.progress: Progress | None = None
        self._altered: dict[tuple[str, str], list[str]] = {}

    def find_loops(self) -> None:
        """Resolve the loops. UsageError where one asked for by --loop or --strict-loop cannot be had."""
        self._read_manifests()
        asked = self.config.getoption("spec_loops") or [name for found in self._manifests for name in found.loops]
        try:
            self.loops, self.missing = find_all(asked or self.config.getini("spec_loops"))
            if self.missing and not (asked and self.loops):
                raise LoopError(*map(str, self.missing))
            for loop in self.loops:
                self._declare(loop)
            either: list[LoopUnderTest | MissingLoop] = [*self.loops, *self.missing]
            for name in self.config.getoption("spec_strict") or []:
                if not any(loop.is_called(name) for loop in either):
                    raise LoopError(f"--strict-loop {name}: not among the loops")
        except (LoopError, SpecError) as error:
            if asked:
                raise pytest.UsageError(*map(str, error.args)) from error
            # Loops of the ini file: an error for whoever needs them, not for a run of something else.
            self._missing, self.missing = "\n".join(map(str, error.args)), []
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            notes = [note for loop in self.loops for note in loop.notes_told()]
            for line in [*notes, *map(str, self.missing)]:
                reporter.ensure_newline()
                reporter.write_line(line, yellow=True)

    def _read_manifests(self) -> None:
        default = self.config.invocation_params.dir / deviations.MANIFEST
        asked: list[Path] = self.config.getoption("spec_manifests") or []
        try:
            for path in asked or ([default] if default.exists() else []):
                self._manifests.append(deviations.Manifest.read(path, self.root))
        except SpecError as error:
            raise pytest.UsageError(str(error)) from error

    def _declare(self, loop: LoopUnderTest) -> None:
        self._deviations[loop.label] = deviations.deviations_of(self.root, loop)
        self._leaks[loop.label] = deviations.leaks_of(self.root, loop)
        for manifest in self._manifests_of(loop.label):
            self._deviations[loop.label] |= manifest.deviations_of(loop)
            self._leaks[loop.label] += deviations.leaks(manifest.path)

    def _manifests_of(self, label: str) -> list[deviations.Manifest]:
        [loop] = [loop for loop in self.loops if loop.label == label]
        return [manifest for manifest in self._manifests if manifest.speaks_for(loop)]

    def declared_in(self, label: str, entry: str) -> Path:
        """The file that has the deviation or leak of a loop: a manifest, or the suite's own."""
        for manifest in reversed(self._manifests_of(label)):
            declared = [deviation.clause for deviation in manifest.declared]
            if entry in (*declared, *deviations.leaks(manifest.path)):
                return manifest.path
        return deviations.path_of(self.root, label)

    def wanted_loops(self) -> list[LoopUnderTest]:
        """The loops, for a test that needs them. CollectError where one cannot be had."""
        if self._missing:
            raise pytest.Collector.CollectError(self._missing)
        return self.loops

    def add_item(self, item: pytest.Item, label: str) -> None:
        """Note a collected test, run or not, and skip it where its clause is younger than this Python."""
        known = self._known(item)
        for slug in _slugs(item):
            self._collected.setdefault((slug, label), set()).add(item.nodeid)
            if slug in known and sys.version_info < known[slug].since_version:
                item.add_marker(pytest.mark.skip(reason=f"{slug} is there since CPython {known[slug].since}"))
        # An exception that nobody could raise (in __del__, in a thread) is a failure of the test it happened in.
        item.add_marker(pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"), append=False)
        item.add_marker(pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"), append=False)

    def select_level(self, items: list[pytest.Item]) -> None:
        """Deselect the tests that decide nothing of the level asked for."""
        level = self.config.getoption("spec_level")
        dropped = [item for item in items if level and _label(item) and not self._is_of_level(item, level)]
        if dropped:
            self.config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in set(dropped)]

    def _is_of_level(self, item: pytest.Item, level: str) -> bool:
        known = self._known(item)
        levels = [known[slug].level for slug in _slugs(item) if slug in known]
        return not levels or any(_within(found, level) for found in levels)

    def shuffle(self, items: list[pytest.Item]) -> None:
        """Put the tests into another order, if one is asked for; the results stay in that of the files."""
        self._places = {item.nodeid: place for place, item in enumerate(items)}
        self.order = self.config.getoption("spec_shuffle")
        if self.order is not None:
            random.Random(self.order).shuffle(items)

    def run_all(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Run these spec tests in children, count them, and log their reports."""
        option = self.config.getoption
        workers = option("spec_workers") or (os.cpu_count() or 1) + 1
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if option("spec_progress") and reporter is not None:
            self.progress = Progress(reporter, [(item.nodeid, self._area(item), _label(item) or "") for item in items])
        factory = getattr(self.config, "_tmp_path_factory", None)
        if factory is not None:
            factory.getbasetemp()  # one folder for all children

        def done(item: pytest.Item, outcome: Outcome) -> None:
            label = _label(item) or ""
            self._met_leaks.update((label, leak) for leak in outcome.leaks)
            for what in outcome.altered:
                self._altered.setdefault((label, what), []).append(item.nodeid)
            self.record(item, label, [_ended(item, outcome)] if outcome.ended else outcome.reports)
            _stop_if_told(session)

        with _interruptible() as interrupted:
            Schedule(items, workers, self._terms_of, done, interrupted, option("spec_patient")).run()
        if self.progress is not None:
            self.progress.finish()

    def unknown_clauses(self, item: pytest.Item) -> list[str]:
        """What a test names that is no clause it may name."""
        return [slug for slug in _slugs(item) if slug not in self._known(item)]

    def traces(self) -> list[tuple[str, str, list[str]]]:
        """What of its process tests changed on a loop: label, what (`state`), and the ids of the tests."""
        return [(label, what, tests) for (label, what), tests in sorted(self._altered.items())]

    def record(self, item: pytest.Item, label: str, reports: list[pytest.TestReport]) -> None:
        """Count one test, and log its reports."""
        result = results.judge(item.nodeid, label, _slugs(item), reports, self._deviations[label])
        self.results.add(result)
        if not self._is_strict(label):
            self._lenient_failures += sum(report.failed for report in reports)
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if self.progress is not None:
            self.progress.count(item.nodeid, result.outcome)

    def finish(self, session: pytest.Session) -> None:
        """At the end: stale deviations, files, and the exit status that follows."""
        self.results.sort(self._places)
        self.stale = [
            (label, slug)
            for label, declared in self._deviations.items()
            for slug, deviation in declared.items()
            if self._is_stale(label, slug, deviation)
        ]
        self.complete = self._is_complete(session)
        narrowed = any(self.config.getoption(name) for name in ("keyword", "markexpr", "spec_level"))
        if self.complete and not narrowed and all(self._is_whole(area) for area in areas(self.root)):
            known = ((label, leak) for label, leaks in self._leaks.items() for leak in leaks)
            self.stale += [leak for leak in known if leak not in self._met_leaks]
        self._write()
        only_lenient = session.testsfailed == self._lenient_failures
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED and only_lenient and session.testsfailed:
            session.exitstatus = pytest.ExitCode.OK
        broken = any(self._is_strict(label) and self._is_theirs(label, entry) for label, entry in self.stale)
        names = self.config.getoption("spec_strict")
        broken |= any(not names or any(loop.is_called(name) for name in names) for loop in self.missing)
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and broken:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _is_complete(self, session: pytest.Session) -> bool:
        """Has every test that was selected a result?"""
        ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
        ran = {(result.id, result.loop) for result in self.results.tests}
        selected = [(item.nodeid, label) for item in getattr(session, "items", []) if (label := _label(item))]
        return session.exitstatus in ended and all(test in ran for test in selected)

    def _is_theirs(self, label: str, entry: str) -> bool:
        """Can who runs the suite mend this stale entry? Not the suite's own where a manifest speaks for the loop."""
        return not self._manifests_of(label) or self.declared_in(label, entry) != deviations.path_of(self.root, label)

    def _terms_of(self, item: pytest.Item) -> Terms:
        if item not in self._terms:
            label = _label(item) or ""
            declared = [self._deviations[label][slug] for slug in _slugs(item) if slug in self._deviations[label]]
            hangs = any(deviation.hangs for deviation in declared)
            timeout = min(self._timeout(item), HANG_TIMEOUT) if hangs else self._timeout(item)
            leaks = tuple(self._leaks[label])
            # What is cut short for want of a CPU is declared.
            terms = Terms(label, self._area(item), timeout, bool(declared), hangs, leaks, stretches=not hangs)
            self._terms[item] = self.config.hook.pytest_loopspec_terms(item=item, terms=terms) or terms
        return self._terms[item]

    def _timeout(self, item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        if mark is None:
            return float(self.config.getoption("spec_timeout"))
        return float(mark.args[0] if mark.args else mark.kwargs["timeout"])

    def _known(self, item: pytest.Item) -> dict[str, Clause]:
        """The clauses that a test may name: those of its area. A test that is not of the suite may name those of the
        folder it is in, and all of the suite's.
        """
        area = self._area(item)
        if item.path.resolve().is_relative_to(self.root):
            return self._load(self.root, area)
        found = dict(self._load(item.path.parent.parent, area))
        for other in {slug.partition(".")[0] for slug in _slugs(item)} - {area}:
            found |= self._load(self.root, other)
        return found

    def _load(self, root: Path, area: str) -> dict[str, Clause]:
        if area not in self._clauses:
            try:
                self._clauses[area] = load_area(root, area)
            except SpecError as error:
                raise pytest.UsageError(str(error)) from error
        return self._clauses[area]

    def _area(self, item: pytest.Item) -> str:
        try:
            return item.path.resolve().relative_to(self.root).parts[0]
        except ValueError:
            return item.path.parent.name

    def _is_strict(self, label: str) -> bool:
        names = self.config.getoption("spec_strict")
        loop = next(loop for loop in self.loops if loop.label == label)
        return not names or any(loop.is_called(name) for name in names)

    def _is_stale(self, label: str, slug: str, deviation: deviations.Deviation) -> bool:
        """Did every test of the clause, all of them run, none skipped, pass?"""
        if deviation.intermittent or not self._is_whole(slug.partition(".")[0]):
            return False
        ran = self.results.of(slug, label)
        collected = self._collected.get((slug, label), set())
        return bool(ran) and {result.id for result in ran if result.outcome == "passed"} == collected

    def _is_whole(self, area: str) -> bool:
        """Was all of an area asked for? Else a test that was not even collected may be the one that deviates."""
        option = self.config.getoption
        if any(option(name, default=None) for name in ("lf", "ignore", "ignore_glob")):
            return False
        asked = [self.config.invocation_params.dir / arg for arg in self.config.args if "::" not in arg]
        return any((self.root / area).is_relative_to(path.resolve()) for path in asked)

    def _write(self) -> None:
        of_suite = areas(self.root)
        in_order = [*of_suite, *sorted(area for area in self._clauses if area not in of_suite)]
        found = [clause for area in in_order for clause in self._clauses.get(area, {}).values()]
        if level := self.config.getoption("spec_level"):
            found = [clause for clause in found if _within(clause.level, level)]
        self.document = results.as_json(
            self.results, self.loops, found, self._deviations, self.stale, self.missing, self.complete
        )
        self.document["seed"] = seeds.seed_of(self.config)
        if path := self.config.getoption("spec_json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        if path := self.config.getoption("spec_write_matrix"):
            path.write_text(matrix.render_markdown(self.document), encoding="utf-8")


def _order(seed: str) -> int:
    """The seed of the order, as the option gives it. ValueError where it is neither a number nor `random`."""
    return random.SystemRandom().randrange(1 << 32) if seed == "random" else int(seed)


def _label(item: pytest.Item) -> str | None:
    """The label of the loop a spec test runs on; None for any other test."""
    callspec = getattr(item, "callspec", None)
    loop = callspec.params.get("loop_under_test") if callspec is not None else None
    return loop.label if isinstance(loop, LoopUnderTest) else None


def _slugs(item: pytest.Item) -> tuple[str, ...]:
    return tuple(dict.fromkeys(slug for mark in item.iter_markers("clause") for slug in mark.args))


def _within(level: str, asked: str) -> bool:
    """Is `level` the one asked for, or a stricter one?"""
    return LEVELS.index(level) <= LEVELS.index(asked)


def _failure(item: pytest.Item, message: str, duration: float = 0.0) -> pytest.TestReport:
    def fail() -> None:
        pytest.fail(message, pytrace=False)

    call = pytest.CallInfo.from_call(fail, when="call")
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    report.duration = duration
    return report


def _stop_if_told(session: pytest.Session) -> None:
    """What pytest's own loop does after each test, for -x and --maxfail."""
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C end the run: the children first, and what there is is written. Tells whether one has come.

    The exception alone may get lost, as in a finalizer, or in a hook of another plugin.
    """
    numbers: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(item: pytest.Item, outcome: Outcome) -> pytest.TestReport:
    """The report of a test whose child had none: how it ended, the stacks, and what it had printed."""
    report = _failure(item, "\n".join([outcome.ended, *_own_frames(outcome.dump)]), outcome.duration)
    printed = zip(("out", "err"), outcome.printed, strict=True)
    report.sections += [(f"Captured std{name} call", text) for name, text in printed if text]
    return report


def _own_frames(dump: str) -> list[str]:
    """The lines of a dump without the frames of pytest that call the test."""
    kept: list[str] = []
    below_test = False
    for line in dump.splitlines():
        below_test = line.startswith("  ") and (below_test or " in pytest_pyfunc_call" in line)
        if not below_test:
            kept.append(line)
    return kept
