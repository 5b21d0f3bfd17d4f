"""Reports: what users said of event loops in public, each with the clauses that decide it; from `spec/reports.toml`.

Run as a module it writes `spec/REPORTS.md`, the same as a table for each area.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .clauses import SpecError, areas, check_keys, load_area, read_tables

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the suite."""

_REQUIRED = {"project": str, "url": str, "behaviour": str, "clauses": list}
_THREAD = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/(\d+)")
_HEAD = """\
# What users reported

Made from `reports.toml`; do not edit. Each line is a public report of an event loop, or of a program on one: what the
loop has to do for it, in a sentence, and the clauses that decide it. A report stands in the area of its first clause.
"""


@dataclass(frozen=True)
class Report:
    """One thread: the project that has it, its address, what a loop must do, and the ids of the clauses that say so."""

    project: str
    url: str
    behaviour: str
    clauses: tuple[str, ...]

    @property
    def area(self) -> str:
        """The area of the first clause."""
        return self.clauses[0].partition(".")[0]

    @property
    def number(self) -> int:
        """The number of the thread in its project."""
        thread = _THREAD.fullmatch(self.url)
        assert thread is not None  # load() lets no other address through
        return int(thread.group(1))


def load(path: Path, known: Iterable[str]) -> list[Report]:
    """The reports of `path`, in its order; `known` are the ids of all clauses.

    SpecError where an entry is not well-formed, names an unknown clause or one twice, or has the address of another.
    """
    known = frozenset(known)
    (entries,) = read_tables(path, "report")
    reports: list[Report] = []
    seen: set[str] = set()
    for entry in entries:
        where = f"{path}: {entry.get('url', 'an entry')}"
        check_keys(where, entry, _REQUIRED, {})
        if not _THREAD.fullmatch(entry["url"]):
            raise SpecError(f"{where}: url is the address of an issue or a pull request on GitHub")
        if entry["url"] in seen:
            raise SpecError(f"{where} is there twice")
        seen.add(entry["url"])
        if not entry["behaviour"].endswith("."):
            raise SpecError(f"{where}: the behaviour is a sentence")
        slugs = entry["clauses"]
        if not all(isinstance(slug, str) for slug in slugs) or len(set(slugs)) != len(slugs):
            raise SpecError(f"{where}: clauses are ids, each once")
        if unknown := [slug for slug in slugs if slug not in known]:
            raise SpecError(f"{where}: there is no clause {unknown[0]}")
        reports.append(Report(entry["project"], entry["url"], entry["behaviour"], tuple(slugs)))
    return reports


def load_all(root: Path = ROOT) -> list[Report]:
    """The reports of the suite in `root`. SpecError as of `load`."""
    return load(root / "reports.toml", (slug for area in areas(root) for slug in load_area(root, area)))


def render(reports: Sequence[Report]) -> str:
    """Markdown: a table for each area, by project and number."""
    parts = [_HEAD, f"{len(reports)} reports of {len({report.project for report in reports})} projects.\n"]
    for area in sorted({report.area for report in reports}):
        parts.append(f"## {area}\n")
        own = [report for report in reports if report.area == area]
        own.sort(key=lambda report: (report.project.lower(), report.number))
        parts.append("\n".join(["| report | behaviour | clauses |", "| --- | --- | --- |", *map(_row, own)]) + "\n")
    return "\n".join(parts)


def _row(report: Report) -> str:
    behaviour = report.behaviour.replace("|", r"\|")
    slugs = ", ".join(f"`{slug}`" for slug in report.clauses)
    return f"| [{report.project} #{report.number}]({report.url}) | {behaviour} | {slugs} |"


def main() -> int:
    """Write REPORTS.md; 2 where reports.toml is not well-formed."""
    try:
        text = render(load_all())
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    (ROOT / "REPORTS.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
