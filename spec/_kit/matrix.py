"""The matrix area x loop, and the clauses on which loops differ, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clauses import Clause
    from .pages import Report
    from .pages.report import Column, Verdict


def render_text(run: dict[str, Any]) -> str:
    """The matrix of one run, from its document."""
    from .pages import Report

    return render_report(Report([run]))


def render_markdown(run: dict[str, Any]) -> str:
    """For a file in the repository: the document of one run."""
    from .pages import Report
    from .pages.markdown import render

    return render(Report([run]))


def render_report(report: Report) -> str:
    """The matrix of the runs of a report: each level by itself, in words what did not pass."""
    lines = [*_table(report), ""] if report.clauses and report.columns else []
    lines += list(_sums(report)) or ["no loop was run"]
    if differing := list(_differing(report)):
        lines += ["", "clauses that are not passed on every loop:"]
    for clause, outcomes in differing:
        lines.append(f"  {clause.level:<6} {clause.id}")
        lines += [f"         {_name(report, column)}: {_words(verdict)}" for column, verdict in outcomes]
    if choices := list(_choices(report)):
        lines += ["", "where the text permits several outcomes, and loops differ:"]
    for clause, outcomes in choices:
        lines.append(f"  {clause.level:<6} {clause.id}")
        lines += [f"         {_name(report, column)}: {'; '.join(verdict.saw)}" for column, verdict in outcomes]
    return "\n".join(lines)


def _table(report: Report) -> list[str]:
    """A line per area, for each loop a column per level, in which something is passed of something."""
    levels = report.levels()
    heads = [[_name(report, column), *[""] * (len(levels) - 1)] for column in report.columns]
    rows = [["", *(cell for head in heads for cell in head)]]
    rows.append(["area", *(f"{level}s" for _ in report.columns for level in levels)])
    for area in [*report.areas, *([None] if len(report.areas) > 1 else [])]:
        counts = [report.count(column, level, area) for column in report.columns for level in levels]
        rows.append([area or "all", *(one.ratio if one.total else "-" for one in counts)])
    widths = [max(len(row[column]) for row in rows[1:]) for column in range(len(rows[0]))]
    for place, head in enumerate(heads):
        # The name of a loop stands above all of its levels.
        first = 1 + place * len(levels)
        spare = len(head[0]) - sum(widths[first : first + len(levels)]) - 2 * (len(levels) - 1)
        widths[first + len(levels) - 1] += max(0, spare)
        rows[0][first] = head[0].ljust(sum(widths[first : first + len(levels)]) + 2 * (len(levels) - 1))
    top = "  ".join(cell for cell in [" " * widths[0], *rows[0][1 :: len(levels) or 1]])
    body = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows[1:]]
    return [line.rstrip() for line in (top, *body)]


def _sums(report: Report) -> Iterator[str]:
    """A line per loop: of N musts, M pass; what did not, and what was not decided; the same of the other levels."""
    for column in report.columns:
        counts = [report.count(column, level) for level in report.levels()]
        said = (f"{one.sentence} ({one.rest})" if one.rest else one.sentence for one in counts)
        yield f"{_name(report, column)}: {'; '.join(said)}"
    for name, why in report.broken:
        yield f"{name}: could not be run: {why}"
    for run in report.incomplete:
        yield f"interrupted: {run}"
    if report.areas_not_run:
        yield f"areas not run: {', '.join(report.areas_not_run)}"


def _differing(report: Report) -> Iterator[tuple[Clause, list[tuple[Column, Verdict]]]]:
    """Clauses with an outcome other than passed, with that of each such loop.

    Those that no loop was tested on are left out: the run was told to leave out their tests.
    """
    for clause, verdicts in _verdicts(report):
        if all(verdict.outcome == "untested" for _, verdict in verdicts):
            continue
        outcomes = [(column, verdict) for column, verdict in verdicts if verdict.outcome != "passed"]
        if outcomes:
            yield clause, outcomes


def _choices(report: Report) -> Iterator[tuple[Clause, list[tuple[Column, Verdict]]]]:
    """Clauses of which loops were seen to do different things that the text permits."""
    for clause, verdicts in _verdicts(report):
        saw = [(column, verdict) for column, verdict in verdicts if verdict.saw]
        if len({frozenset(verdict.saw) for _, verdict in saw}) > 1:
            yield clause, saw


def _verdicts(report: Report) -> Iterator[tuple[Clause, list[tuple[Column, Verdict]]]]:
    for clause in report.clauses.values():
        yield clause, [(column, report.verdict(clause.id, column)) for column in report.columns]


def _name(report: Report, column: Column) -> str:
    """A loop's label, with what tells its columns apart where it has several."""
    return column.label if len(report.of(column.label)) == 1 else f"{column.label} ({column.facts})"


def _words(verdict: Verdict) -> str:
    from .pages.report import one_line

    return f"{verdict.outcome}: {one_line(verdict.reason)}" if verdict.reason else verdict.outcome
