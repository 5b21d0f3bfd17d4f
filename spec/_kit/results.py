"""Results of a run: one outcome per test, one per clause and loop, as JSON and for the matrix.

A test fails if any part of it failed. A failing test that names a clause with a declared deviation deviates. A clause
has, on a loop, the worst outcome of its tests: failed, deviates, passed, skipped (nothing but skips), untested.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from .. import __version__
from .clauses import Clause
from .deviations import Deviation
from .loops import LoopUnderTest, MissingLoop
from .saw import outcomes_in

FORMAT = 1
_WORST_FIRST = ("failed", "deviates", "passed", "skipped")


@dataclass(frozen=True)
class TestResult:
    """What one test came to on one loop; `duration` in seconds.

    `saw` has the outcomes that the loop chose, by clause, of those that the clause permits.
    """

    __test__ = False

    id: str
    loop: str
    clauses: tuple[str, ...]
    outcome: str
    duration: float
    message: str = ""
    saw: dict[str, list[str]] = field(default_factory=dict)


def judge(
    nodeid: str,
    label: str,
    clauses: tuple[str, ...],
    reports: list[pytest.TestReport],
    deviations: dict[str, Deviation],
) -> TestResult:
    """The result of a test from its reports. Where it deviates, they are turned into expected failures."""
    duration = sum(report.duration for report in reports)
    seen = outcomes_in(reports)
    failed = [report for report in reports if report.failed]
    if not failed:
        skipped = [report for report in reports if report.skipped]
        message = reason_of(skipped[0]) if skipped else ""
        return TestResult(nodeid, label, clauses, "skipped" if skipped else "passed", duration, message, seen)
    message = reason_of(failed[0])
    declared = [deviations[slug] for slug in clauses if slug in deviations]
    if not declared:
        return TestResult(nodeid, label, clauses, "failed", duration, message, seen)
    for report in failed:
        report.outcome = "passed"
    failed[0].outcome = "skipped"
    failed[0].wasxfail = "deviates: " + "; ".join(deviation.reason for deviation in declared)
    return TestResult(nodeid, label, clauses, "deviates", duration, message, seen)


def reason_of(report: pytest.TestReport) -> str:
    """Why a report failed or skipped, in one line."""
    if isinstance(report.longrepr, tuple):
        text = str(report.longrepr[2])
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash is not None else str(report.longrepr)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line.removeprefix("Failed: ")


class Results:
    """The tests' results of one run and what follows from them for clauses."""

    def __init__(self) -> None:
        self.tests: list[TestResult] = []
        self._by_clause: dict[tuple[str, str], list[TestResult]] = {}

    def add(self, result: TestResult) -> None:
        """Count one more test."""
        self.tests.append(result)
        for slug in result.clauses:
            self._by_clause.setdefault((slug, result.loop), []).append(result)

    def sort(self, places: dict[str, int]) -> None:
        """Have the tests in the order of `places`, whatever order they ended in; one that has no place comes last."""
        for results in (self.tests, *self._by_clause.values()):
            results.sort(key=lambda result: places.get(result.id, len(places)))

    def of(self, slug: str, label: str) -> list[TestResult]:
        """The results of the tests of a clause on a loop."""
        return self._by_clause.get((slug, label), [])

    def outcome(self, slug: str, label: str, deviations: dict[str, Deviation]) -> str:
        """The outcome of a clause on a loop: passed, failed, skipped, deviates or untested.

        A test that deviates because of another of its clauses says nothing of this one.
        """
        outcomes = {
            result.outcome for result in self.of(slug, label) if result.outcome != "deviates" or slug in deviations
        }
        return next((outcome for outcome in _WORST_FIRST if outcome in outcomes), "untested")

    def reason(self, slug: str, label: str, deviations: dict[str, Deviation]) -> str:
        """Why the clause is not passed on the loop, in one line; empty where it is."""
        outcome = self.outcome(slug, label, deviations)
        if outcome == "deviates":
            return " ".join(deviations[slug].reason.split())
        return next((result.message for result in self.of(slug, label) if result.outcome == outcome), "")

    def saw(self, slug: str, label: str) -> list[str]:
        """The outcomes, of those that the clause permits, that its tests saw on the loop; each once, by name."""
        return sorted({outcome for result in self.of(slug, label) for outcome in result.saw.get(slug, ())})


def as_json(
    results: Results,
    loops: Iterable[LoopUnderTest],
    clauses: Iterable[Clause],
    deviations: dict[str, dict[str, Deviation]],
    stale: Iterable[tuple[str, str]],
    missing: Iterable[MissingLoop] = (),
    complete: bool = True,
) -> dict[str, Any]:
    """The run as a JSON document; durations are in seconds, `date` is the day in UTC.

    `complete` is false where the run was interrupted before every test had a result. A loop that could not be had is
    among `loops` with `error`, which says why in one line; no clause has an outcome for it. `notes` of the others say
    what making them does beside, a line each.
    """
    loops = list(loops)
    return {
        "format": FORMAT,
        "suite": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "complete": complete,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "loops": [
            {
                "label": loop.label,
                "name": loop.name,
                "class": loop.class_name,
                "version": loop.version,
                "notes": list(loop.notes),
            }
            for loop in loops
        ]
        + [
            {"label": loop.name, "name": loop.name, "class": "", "version": "", "error": loop.error} for loop in missing
        ],
        "clauses": [
            {
                "id": clause.id,
                "area": clause.area,
                "level": clause.level,
                "rule": clause.rule,
                "permits": list(clause.permits),
                "outcomes": {
                    loop.label: {
                        "outcome": results.outcome(clause.id, loop.label, deviations[loop.label]),
                        "reason": results.reason(clause.id, loop.label, deviations[loop.label]),
                        "saw": results.saw(clause.id, loop.label),
                    }
                    for loop in loops
                },
            }
            for clause in clauses
        ],
        "tests": [asdict(result) for result in results.tests],
        "stale_deviations": [{"loop": label, "clause": slug} for label, slug in stale],
    }
