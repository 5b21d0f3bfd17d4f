"""The results as a Markdown file, for a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..clauses import Clause
from .marks import find_evidence
from .report import ROOT, Column, Report, one_line
from .site import by_reason

_MANY = 6
"""Clauses of one cause that are all named; of more, the first three."""


def write_markdown(documents: Sequence[dict[str, Any]], file: Path, root: Path = ROOT) -> None:
    """Write the results of `documents` to `file`. OSError where it cannot be written.

    In the suite's own folder it links to the scripts of evidence.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    scripts = find_evidence(root) if file.resolve().parent == root.resolve() else {}
    file.write_text(render(Report(documents, root), scripts), encoding="utf-8")


def render(report: Report, scripts: Mapping[tuple[str, str], Path] = MappingProxyType({})) -> str:
    """The file's text: loops, areas x loops for each level, then what each loop does not keep, by cause.

    `scripts` are those of `find_evidence` to link to, from the suite's folder.
    """
    return "\n".join(_lines(report, scripts)) + "\n"


def _lines(report: Report, scripts: Mapping[tuple[str, str], Path]) -> Iterator[str]:
    yield "# Conformance by area and loop"
    yield ""
    yield "Clauses passed of those there are: a clause counts as passed only where its tests ran and passed."
    yield "Written by the command `matrix`; do not edit."
    if report.suites:
        yield f"Version of the suite: {_escape(', '.join(report.suites))}."
    yield from _summary(report)
    for level in report.levels():
        yield from _matrix(report, level)
    for column in report.columns:
        yield from _not_kept(report, column, scripts)


def _summary(report: Report) -> Iterator[str]:
    levels = report.levels()
    yield ""
    yield f"| loop | version | Python | platform | run on | {' | '.join(f'{level}s' for level in levels)} |"
    yield f"| --- | --- | --- | --- | --- |{' --- |' * len(levels)}"
    for column in report.columns:
        counts = [report.count(column, level) for level in levels]
        said = [
            f"**{one.ratio}** {one.rest}".strip() if one.level == "must" else f"{one.ratio} {one.rest}"
            for one in counts
        ]
        cells = [column.label, column.version, column.runtime, column.platform, ", ".join(report.dates[column])]
        yield f"| {' | '.join([*map(_escape, cells), *(text.strip() for text in said)])} |"
    for name, why in report.broken:
        yield ""
        yield f"{_escape(name)} could not be run: {_escape(one_line(why))}"
    for run in report.incomplete:
        yield ""
        yield f"The run on {_escape(run)} was interrupted."
    if report.areas_not_run:
        yield ""
        yield f"Not run: {', '.join(report.areas_not_run)}."


def _matrix(report: Report, level: str) -> Iterator[str]:
    yield ""
    yield f"## {level.capitalize()}s"
    yield ""
    heads = [
        column.label if len(report.of(column.label)) == 1 else f"{column.label} {column.facts}"
        for column in report.columns
    ]
    yield f"| area | {' | '.join(map(_escape, heads))} |"
    yield "| --- |" + " ---: |" * len(heads)
    for area in [*report.areas, None]:
        counts = [report.count(column, level, area) for column in report.columns]
        if counts and counts[0].total:
            yield f"| {_escape(area or 'all')} | {' | '.join(one.ratio for one in counts)} |"


def _not_kept(report: Report, column: Column, scripts: Mapping[tuple[str, str], Path]) -> Iterator[str]:
    groups = by_reason(report.not_passed(column))
    if not groups:
        return
    yield ""
    yield f"## {_escape(column.label)} ({_escape(column.facts)}): not passed"
    yield ""
    yield "| outcome | reason | clauses |"
    yield "| --- | --- | --- |"
    for verdict, clauses in groups:
        found = (scripts.get((column.label.lower(), clause.id)) for clause in clauses)
        shown = dict.fromkeys(path.relative_to(report.root).as_posix() for path in found if path)
        links = "".join(f" [evidence]({path})" for path in shown)
        yield f"| {verdict.outcome} | {_escape(one_line(verdict.reason))}{links} | {_named(clauses)} |"


def _named(clauses: list[Clause]) -> str:
    shown = clauses if len(clauses) <= _MANY else clauses[:3]
    more = f" and {len(clauses) - 3} more" if len(clauses) > _MANY else ""
    return ", ".join(f"`{clause.id}` ({clause.level})" for clause in shown) + more


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\`*_|\[\]~])", r"\\\1", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
