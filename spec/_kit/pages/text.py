"""The written specification as text, and one clause explained."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ..clauses import LEVELS, Clause, areas
from .marks import find_evidence, find_reports, find_tests
from .report import ROOT, Report, one_line

WIDTH = 100
"""Characters in a line."""


class UnknownClauseError(Exception):
    """There is no such clause or area; the message says what there is."""


def clauses_text(area: str | None = None, root: Path = ROOT) -> str:
    """The clauses of one area or of all. UnknownClauseError where there is no such area."""
    known = areas(root)
    if area is not None and area not in known:
        raise UnknownClauseError(f"no area {area!r}; there are {', '.join(known)}")
    report = Report([], root, include=[area] if area else known)
    return "\n".join(line for name in report.areas for line in _area(report, name)).rstrip("\n")


def explain(slug: str, results: Report | None = None, root: Path = ROOT) -> str:
    """A clause: rule, level, citation, quote, what it permits, its tests, and what it came to in `results`.

    UnknownClauseError where there is none; the message suggests near ones.
    """
    report = Report([], root, include=areas(root))
    clause = report.clauses.get(slug)
    if clause is None:
        raise UnknownClauseError(_suggestion(slug, report))
    lines = list(_clause(clause))
    lines += ["", "  tests"]
    lines += [f"    {place.file}::{place.name}" for place in find_tests(root, [slug])[slug]]
    if reported := find_reports(root).get(slug):
        lines += ["", "  reported", *(f"    {report.url}" for report in reported)]
    if results is not None and slug in results.clauses:
        lines += ["", "  outcomes"]
        scripts = find_evidence(root)
        for column in results.columns:
            verdict = results.verdict(slug, column)
            said = f": {one_line(verdict.reason, 300)}" if verdict.reason else ""
            lines += _wrap(f"{column.label} ({column.facts}): {verdict.outcome}{said}", 4)
            lines += (line for text in verdict.saw for line in _wrap(f"saw: {text}", 6))
            if path := scripts.get((column.label.lower(), slug)):
                lines.append(f"      evidence: {path}")
    return "\n".join(lines)


def _area(report: Report, area: str) -> Iterator[str]:
    clauses = report.in_area(area)
    counts = ((sum(clause.level == level for clause in clauses), level) for level in LEVELS)
    said = ", ".join(f"{count} {level}{'s' if count != 1 else ''}" for count, level in counts if count)
    title = f"{area}: {said}"
    yield title
    yield "=" * len(title)
    yield ""
    for clause in clauses:
        yield from _clause(clause)
        yield ""


def _clause(clause: Clause) -> Iterator[str]:
    yield f"{clause.id}  ({clause.level}; CPython {clause.since})"
    yield from _wrap(clause.rule, 2)
    if clause.quote:
        yield from _wrap(f'"{clause.quote}"', 4)
    yield from _wrap(clause.cite, 4)
    for outcome in clause.permits:
        yield from _wrap(f"permits: {outcome}", 4)


def _wrap(text: str, indent: int) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(
        text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def _suggestion(slug: str, report: Report) -> str:
    if slug in report.suite_areas:
        return f"{slug!r} is an area, no clause; `clauses {slug}` shows its clauses"
    near = [known for known in report.clauses if slug and slug in known]
    near = near or difflib.get_close_matches(slug, report.clauses, n=5)
    listed = f"; near ones: {', '.join(near[:8])}" if near else f"; areas are {', '.join(report.suite_areas)}"
    return f"no clause {slug!r}{listed}"
