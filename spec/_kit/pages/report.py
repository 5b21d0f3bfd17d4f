"""One report from the JSON documents of one or several runs: columns, clauses, verdicts, counts.

A column is a loop of one version on one Python and platform. Where two documents have a verdict on the same clause in
the same column, the worse one counts: a failure is not made good by another run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..clauses import LEVELS, Clause, areas
from .document import OUTCOMES
from .marks import texts
from .markup import plain

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the areas."""

_VERBS = {
    "failed": ("fails", "fail"),
    "deviates": ("deviates", "deviate"),
    "passed": ("passes", "pass"),
    "skipped": ("skipped", "skipped"),
    "untested": ("not run", "not run"),
}


@dataclass(frozen=True)
class Column:
    """A loop as it was tested."""

    label: str
    version: str = ""
    class_name: str = ""
    python: str = ""
    implementation: str = ""
    platform: str = ""

    @property
    def runtime(self) -> str:
        """The Python it ran on, such as `CPython 3.13.0`."""
        return f"{self.implementation} {self.python}".strip()

    @property
    def release(self) -> str:
        """Its version, empty where that is the Python's own."""
        return "" if self.version in (self.python, "unknown") else self.version

    @property
    def facts(self) -> str:
        """Version and Python, such as `0.21.0, CPython 3.13.0`."""
        return ", ".join(part for part in (self.release, self.runtime) if part)


@dataclass(frozen=True)
class Verdict:
    """What a clause came to in a column. `saw`: which of the outcomes that its text permits the tests saw."""

    outcome: str = "untested"
    reason: str = ""
    saw: tuple[str, ...] = ()


@dataclass
class Counts:
    """Clauses of one level by outcome."""

    level: str
    by_outcome: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))

    @property
    def total(self) -> int:
        return sum(self.by_outcome.values())

    @property
    def passed(self) -> int:
        return self.by_outcome["passed"]

    @property
    def worst(self) -> str:
        """The worst outcome there is. What was skipped counts only where nothing else was decided."""
        return next((outcome for outcome in _BADNESS if self.by_outcome[outcome]), "untested")

    @property
    def ratio(self) -> str:
        """Such as `57/59`."""
        return f"{self.passed}/{self.total}"

    @property
    def sentence(self) -> str:
        """Such as `of 59 musts, 57 pass`."""
        noun = self.level if self.total == 1 else f"{self.level}s"
        return f"of {self.total} {noun}, {self.passed} {_VERBS['passed'][self.passed != 1]}"

    @property
    def rest(self) -> str:
        """What did not pass, such as `1 fails, 1 skipped`; empty where all passed."""
        return ", ".join(self.others)

    @property
    def others(self) -> list[str]:
        """The parts of `rest`."""
        counted = [(outcome, self.by_outcome[outcome]) for outcome in OUTCOMES if outcome != "passed"]
        return [f"{count} {_VERBS[outcome][count != 1]}" for outcome, count in counted if count]

    def add(self, outcome: str) -> None:
        """Count one more clause."""
        self.by_outcome[outcome] += 1


# What a run left out may hide a failure; what was skipped cannot be run there at all.
_BADNESS = ("failed", "deviates", "untested", "passed", "skipped")


class Report:
    """What the documents say together. `root` is the suite whose clauses.toml have the texts of the clauses.

    Clauses of the areas `include` are in the report whether a document has them or not.
    """

    def __init__(self, documents: Sequence[dict[str, Any]], root: Path = ROOT, *, include: Iterable[str] = ()) -> None:
        self.root = root
        self.columns: list[Column] = []
        self.broken: list[tuple[str, str]] = []
        """Loops that could not be made, each with why."""
        self.incomplete: list[str] = []
        """Runs that were interrupted: their loops and Python."""
        self.suites: list[str] = []
        """The versions of the suite that ran."""
        self.dates: dict[Column, tuple[str, ...]] = {}
        """The days of its runs, the first one first; of old documents, none."""
        self.notes: dict[Column, tuple[str, ...]] = {}
        """What making a loop does beside."""
        self.clauses: dict[str, Clause] = {}
        self._verdicts: dict[tuple[str, Column], Verdict] = {}
        self._tests: dict[str, dict[str, None]] = {}
        self.suite_areas = areas(root)
        known = texts(root)
        chosen = set(include)
        found = {slug: clause for slug, clause in known.items() if clause.area in chosen}
        for document in documents:
            self._merge(document, known, found)
        order = {slug: place for place, slug in enumerate(known)}
        self.clauses = dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[1].area)))
        self.areas = list(dict.fromkeys(clause.area for clause in self.clauses.values()))

    @property
    def labels(self) -> list[str]:
        """The loops, each once."""
        return list(dict.fromkeys(column.label for column in self.columns))

    @property
    def runtime(self) -> str:
        """The Python and platform of every column; empty where they are not the same for all."""
        places = {f"{column.runtime}, {column.platform}" for column in self.columns}
        return places.pop() if len(places) == 1 else ""

    @property
    def areas_not_run(self) -> list[str]:
        """Areas of the suite of which the documents have no clause; none where they are of another suite."""
        if not set(self.areas) & set(self.suite_areas):
            return []
        return [area for area in self.suite_areas if area not in self.areas]

    def of(self, label: str) -> list[Column]:
        """The columns of one loop."""
        return [column for column in self.columns if column.label == label]

    def in_area(self, area: str) -> list[Clause]:
        """The clauses of an area, in the order of the suite."""
        return [clause for clause in self.clauses.values() if clause.area == area]

    def verdict(self, slug: str, column: Column) -> Verdict:
        """What a clause came to; untested where the column's documents do not have it."""
        return self._verdicts.get((slug, column), Verdict())

    def tests(self, slug: str) -> list[str]:
        """The tests of a clause that the documents name: `area/file.py::test`, without the loop and parameters."""
        return list(self._tests.get(slug, ()))

    def count(self, column: Column, level: str, area: str | None = None) -> Counts:
        """The clauses of a level by outcome, in one area or in all."""
        counts = Counts(level)
        for clause in self.clauses.values():
            if clause.level == level and area in (None, clause.area):
                counts.add(self.verdict(clause.id, column).outcome)
        return counts

    def levels(self, area: str | None = None) -> list[str]:
        """The levels that clauses of an area (of any) have, the most binding first."""
        there = {clause.level for clause in self.clauses.values() if area in (None, clause.area)}
        return [level for level in LEVELS if level in there]

    def not_passed(self, column: Column) -> list[tuple[Clause, Verdict]]:
        """The clauses that failed or deviate, in the order of the suite."""
        pairs = ((clause, self.verdict(clause.id, column)) for clause in self.clauses.values())
        return [(clause, verdict) for clause, verdict in pairs if verdict.outcome in ("failed", "deviates")]

    def _merge(self, document: dict[str, Any], known: Mapping[str, Clause], found: dict[str, Clause]) -> None:
        columns = {}
        document = _cleaned(document)
        suite = str(document.get("suite", ""))
        if suite and suite not in self.suites:
            self.suites.append(suite)
        for loop in document["loops"]:
            if loop.get("error"):
                self.broken.append((str(loop.get("label") or loop.get("name", "?")), str(loop["error"])))
                continue
            column = Column(
                label=loop["label"],
                version=str(loop.get("version", "")),
                class_name=str(loop.get("class", "")),
                python=str(document.get("python", "")),
                implementation=str(document.get("implementation", "")),
                platform=str(document.get("platform", "")),
            )
            columns[column.label] = column
            days = {*self.dates.get(column, ()), str(document.get("date", ""))} - {""}
            self.dates[column] = tuple(sorted(days))
            notes = (*self.notes.get(column, ()), *map(str, loop.get("notes", ())))
            self.notes[column] = tuple(dict.fromkeys(notes))
            if column not in self.columns:
                self.columns.append(column)
        if document.get("complete") is False:
            self.incomplete.append(", ".join(f"{column.label} ({column.facts})" for column in columns.values()))
        for entry in document["clauses"]:
            slug = entry["id"]
            found.setdefault(slug, known.get(slug) or _unknown(entry))
            for label, outcome in entry["outcomes"].items():
                if label in columns:
                    key = (slug, columns[label])
                    self._verdicts[key] = _worse(self._verdicts.get(key, Verdict()), _verdict(outcome))
        for test in document.get("tests", ()):
            for slug in test["clauses"]:
                self._tests.setdefault(slug, {})[_without_parameters(test["id"])] = None


def one_line(text: str, length: int = 160) -> str:
    """`text` in one line, cut at `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _unknown(entry: dict[str, Any]) -> Clause:
    """A clause that this version of the suite does not have, as far as the document tells it."""
    return Clause(
        id=entry["id"],
        area=entry["area"],
        level=entry["level"],
        rule=entry["rule"],
        cite=str(entry.get("cite", "")),
        since=str(entry.get("since", "")),
    )


def _verdict(entry: dict[str, Any]) -> Verdict:
    # An address in memory says nothing, and is another one in every run.
    reason = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x…", str(entry.get("reason", ""))).removeprefix("Skipped: ")
    return Verdict(entry["outcome"], reason, tuple(map(str, entry.get("saw") or ())))


def _cleaned(value: Any) -> Any:
    """A document without what no page, badge or terminal may be given: control characters, lone surrogates."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_cleaned(element) for element in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(element) for key, element in value.items()}
    return value


def _worse(one: Verdict, other: Verdict) -> Verdict:
    worse = min(one, other, key=lambda verdict: OUTCOMES.index(verdict.outcome))
    return Verdict(worse.outcome, worse.reason, tuple(dict.fromkeys(one.saw + other.saw)))


def _without_parameters(nodeid: str) -> str:
    path, _, name = nodeid.partition("::")
    return f"{'/'.join(Path(path).parts[-2:])}::{name.partition('[')[0]}"
