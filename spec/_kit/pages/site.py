"""The static site of results and of the written specification: plain HTML and one style sheet, nothing from elsewhere.

index.html             loops, then areas x loops
areas/<area>.html      clauses x loops, then each clause: rule, citation, quote, tests, outcomes
loops/<loop>.html      one loop: its counts and what it does not keep, by cause; for its author to link to
badges/<loop>.svg      and .json, for a badge
evidence/<name>.html   a script that shows loops not to keep a clause
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..clauses import LEVELS, Clause, areas
from . import parts
from .badge import Badge
from .marks import find_evidence, find_reports, find_tests
from .markup import Markup, breakable, el, join
from .parts import file_name
from .report import ROOT, Column, Report, Verdict, one_line

RESULTS_TITLE = "Conformance of asyncio event loops"
TEXT_TITLE = "The specification of asyncio event loops"
_PLURAL = {"must": "musts", "should": "shoulds", "may": "mays"}


def write_html(documents: Sequence[dict[str, Any]], folder: Path, root: Path = ROOT) -> Path:
    """Write the site of the results of `documents` into `folder`, which is made; the path of its index.

    Files that are there under the same names are overwritten, others are left alone. OSError where one cannot be
    written.
    """
    report = Report(documents, root)
    return _Site(report, Report([], root, include=report.areas_not_run), folder, RESULTS_TITLE).write()


def write_specification(folder: Path, chosen: Iterable[str] = (), root: Path = ROOT) -> Path:
    """Write the specification of the areas `chosen` (default: all) as a site without results; the path of its index."""
    texts = Report([], root, include=list(chosen) or areas(root))
    return _Site(Report([], root), texts, folder, TEXT_TITLE).write()


class _Site:
    """`report` has the results, `texts` the areas of the suite that it does not have."""

    def __init__(self, report: Report, texts: Report, folder: Path, title: str) -> None:
        self.report = report
        self.texts = texts
        self.folder = folder
        self.title = title
        self.marked = find_tests(report.root, [*report.clauses, *texts.clauses])
        found = find_evidence(report.root)
        labels = {label.lower() for label in report.labels}
        self.scripts = {key: path for key, path in found.items() if key[0] in labels and key[1] in report.clauses}
        # A script that shows one clause of a declared cause shows the cause.
        self.causes = {
            (column.label.lower(), verdict): path
            for column in report.columns
            for clause, verdict in report.not_passed(column)
            if verdict.outcome == "deviates" and (path := self.scripts.get((column.label.lower(), clause.id)))
        }
        self.reports = find_reports(report.root)
        self.pages = _names(report.labels)

    def write(self) -> Path:
        """Write every page; the path of the index."""
        self._put("index.html", parts.page(self.title, self._index(), up="", trail=[], site=self.title))
        self._put("style.css", parts.style())
        trail = [(self.title, "../index.html")]
        for report in (self.report, self.texts):
            for area in report.areas:
                document = parts.page(area, self._area(report, area), up="../", trail=trail, site=self.title)
                self._put(f"areas/{file_name(area)}.html", document)
        for label in self.report.labels:
            name = self.pages[label]
            document = parts.page(label, self._loop(label), up="../", trail=trail, site=self.title)
            self._put(f"loops/{name}.html", document)
            badge = Badge.of(self.report, label)
            self._put(f"badges/{name}.svg", badge.svg())
            self._put(f"badges/{name}.json", badge.endpoint())
        for path in dict.fromkeys(self.scripts.values()):
            self._put_script(path)
        return self.folder / "index.html"

    def _put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _put_script(self, path: Path) -> None:
        trail = [(self.title, "../index.html")]
        keys = [key for key, script in self.scripts.items() if script == path]
        slugs = dict.fromkeys(slug for _, slug in keys)
        shown = {label for label, _ in keys}
        loops = (
            el("a", label, href=f"../loops/{self.pages[label]}.html")
            for label in self.report.labels
            if label.lower() in shown
        )
        about = el("p", "About ", join(*(self._link(slug, "../") for slug in slugs), between=", "), ".")
        kept = el("p", "Not kept by ", join(*loops, between=", "), ".")
        code = el("pre", el("code", path.read_text(encoding="utf-8")), tabindex="0")
        document = parts.page(path.name, [about, kept, code], up="../", trail=trail, site=self.title)
        self._put(f"evidence/{path.stem}.html", document)

    # The index.

    def _index(self) -> Iterator[Markup]:
        report = self.report
        if not report.columns and not report.broken:
            yield from self._text_index()
            return
        count = len(report.clauses)
        yield el(
            "p",
            f"What a loop must, should and may do: {count} clauses in {len(report.areas)} areas, each with the text it"
            " rests on and tests that decide it. A clause counts as passed only where its tests ran and passed.",
            f" Version of the suite: {', '.join(report.suites)}." if report.suites else None,
        )
        yield el("h2", "Loops")
        yield el("ul", *(self._card(column) for column in report.columns), class_="cards")
        for name, why in report.broken:
            yield el("p", el("b", name), f" could not be run: {one_line(why, 300)}", class_="note failed")
        for run in report.incomplete:
            yield el("p", f"The run on {run} was interrupted; what it did not come to is not counted.", class_="note")
        if report.areas_not_run:
            links = (el("a", area, href=f"areas/{file_name(area)}.html") for area in report.areas_not_run)
            yield el("p", "Areas that were not run: ", join(*links, between=", "), ".", class_="note")
        for level in report.levels() if report.columns else ():
            yield el("h2", f"{_PLURAL[level].capitalize()} by area")
            yield self._matrix(level)
        yield el("h2", "What levels and signs mean")
        yield self._meanings()
        yield parts.legend()

    def _text_index(self) -> Iterator[Markup]:
        texts = self.texts
        yield el(
            "p",
            f"What a loop must, should and may do: {len(texts.clauses)} clauses in {len(texts.areas)} areas, each with"
            " the text it rests on.",
        )
        yield self._meanings()
        head = el("tr", el("th", "Area", scope="col"), *(el("th", _PLURAL[level], scope="col") for level in LEVELS))
        rows = []
        for area in texts.areas:
            clauses = texts.in_area(area)
            numbers = [sum(clause.level == level for clause in clauses) for level in LEVELS]
            name = el("th", el("a", area, href=f"areas/{file_name(area)}.html"), scope="row")
            rows.append(el("tr", name, *(el("td", number, class_="c") for number in numbers)))
        caption = el("caption", "Clauses by area and level")
        yield parts.scroller(el("table", caption, el("thead", head), el("tbody", *rows)), "Areas")

    @staticmethod
    def _meanings() -> Markup:
        meanings = {
            "must": "documented, or behaviour of CPython's own loop that programs depend on.",
            "should": "what CPython's loop does, or meant to do, and a careful loop does as well.",
            "may": "better than asked for.",
        }
        pairs = (join(el("dt", parts.level(name)), el("dd", meaning)) for name, meaning in meanings.items())
        return el("dl", *pairs, class_="legend")

    def _card(self, column: Column) -> Markup:
        name = el("h3", el("a", column.label, href=f"loops/{self.pages[column.label]}.html"))
        facts = el("p", el("small", column.facts)) if column.facts else None
        return el("li", name, facts, parts.headline(self.report, column), class_="card")

    def _matrix(self, level: str) -> Markup:
        report = self.report
        head = el("tr", el("th", "Area", scope="col"), *self._heads(report.columns, "loops/"))
        rows = []
        for area in report.areas:
            address = f"areas/{file_name(area)}.html"
            cells = [parts.counts_cell(report.count(column, level, area), address) for column in report.columns]
            rows.append(el("tr", el("th", el("a", area, href=address), scope="row"), *cells))
        totals = [parts.counts_cell(report.count(column, level)) for column in report.columns]
        foot = el("tfoot", el("tr", el("th", "all", scope="row"), *totals))
        where = f"; on {report.runtime}" if report.runtime else ""
        caption = el(
            "caption", f"{_PLURAL[level].capitalize()} passed of those there are, and what did not pass{where}"
        )
        table = el("table", caption, el("thead", head), el("tbody", *rows), foot)
        return parts.scroller(table, f"{_PLURAL[level]} by area and loop")

    def _heads(self, columns: Sequence[Column], to_loops: str) -> list[Markup]:
        return [
            el(
                "th",
                el("a", column.label, href=f"{to_loops}{self.pages[column.label]}.html"),
                el("small", column.release) if column.release else None,
                None if self.report.runtime else el("small", column.runtime),
                scope="col",
            )
            for column in columns
        ]

    # An area.

    def _area(self, report: Report, area: str) -> Iterator[Markup]:
        clauses = report.in_area(area)
        numbers = [(level, sum(clause.level == level for clause in clauses)) for level in LEVELS]
        said = ", ".join(f"{number} {level if number == 1 else _PLURAL[level]}" for level, number in numbers if number)
        yield el("p", f"{len(clauses)} clauses: {said}.")
        if report.columns:
            yield el("h2", "Outcomes")
            yield self._area_counts(report, area)
            yield self._area_table(report, clauses)
        elif self.report.columns:
            yield el("p", "No loop was run on this area.", class_="note")
        yield el("h2", "Clauses")
        for clause in clauses:
            tests = report.tests(clause.id) or ["::".join(place) for place in self.marked[clause.id]]
            outcomes = None
            if report.columns:
                verdicts = [(column, report.verdict(clause.id, column)) for column in report.columns]
                outcomes = parts.outcomes(verdicts, self._name, partial(self._script, slug=clause.id))
            yield parts.clause_section(clause, tests, self.reports.get(clause.id, ()), outcomes)

    def _area_counts(self, report: Report, area: str) -> Markup:
        head = el("tr", el("th", "Level", scope="col"), *self._heads(report.columns, "../loops/"))
        rows = [
            el(
                "tr",
                el("th", _PLURAL[level], scope="row"),
                *(parts.counts_cell(report.count(column, level, area)) for column in report.columns),
            )
            for level in report.levels(area)
        ]
        caption = el("caption", "Clauses passed of those there are, by level")
        return parts.scroller(el("table", caption, el("thead", head), el("tbody", *rows)), "Counts by level and loop")

    def _area_table(self, report: Report, clauses: Sequence[Clause]) -> Markup:
        head = el("tr", el("th", "Clause", scope="col"), *self._heads(report.columns, "../loops/"))
        rows = []
        for clause in clauses:
            verdicts = [report.verdict(clause.id, column) for column in report.columns]
            cells = [
                parts.verdict_cell(verdict, one_line(f"{column.label}: {verdict.reason or verdict.outcome}", 300))
                for column, verdict in zip(report.columns, verdicts, strict=True)
            ]
            end = clause.id.partition(".")[2] or clause.id
            link = el("a", breakable(end), href=f"#{clause.id}", title=one_line(clause.rule, 300))
            rows.append(el("tr", el("th", link, " ", parts.level(clause.level), scope="row"), *cells))
        caption = el("caption", "Each clause, on each loop; the name leads to its text")
        table = el("table", caption, el("thead", head), el("tbody", *rows), class_="clauses")
        return parts.scroller(table, "Clauses by loop", tall=True)

    def _name(self, column: Column) -> Markup:
        """A loop as named among others: with what tells its columns apart."""
        link = el("a", column.label, href=f"../loops/{self.pages[column.label]}.html")
        return link if len(self.report.of(column.label)) == 1 else join(link, f" ({column.facts})")

    def _script(self, column: Column, slug: str) -> Markup | None:
        label = column.label.lower()
        verdict = self.report.verdict(slug, column)
        if verdict.outcome not in ("failed", "deviates"):
            return None
        path = self.scripts.get((label, slug)) or self.causes.get((label, verdict))
        if path is None:
            return None
        return el("a", path.name, href=f"../evidence/{path.stem}.html")

    # A loop.

    def _loop(self, label: str) -> Iterator[Markup]:
        columns = self.report.of(label)
        classes = ", ".join(dict.fromkeys(column.class_name for column in columns if column.class_name))
        if classes:
            yield el("p", el("code", classes))
        badge = Badge.of(self.report, label)
        yield el("p", el("img", src=f"../badges/{self.pages[label]}.svg", alt=badge.alt, height=20))
        for column in columns:
            where = ", ".join(part for part in (column.facts, column.platform) if part)
            yield el("h2", where or label)
            yield parts.headline(self.report, column)
            if days := self.report.dates[column]:
                yield el("p", f"Run on {', '.join(days)}.", class_="note")
            for note in self.report.notes.get(column, ()):
                yield el("p", "Making it: ", one_line(note, 300), class_="note")
            yield self._loop_table(column)
            yield from self._causes(column)
        if self.report.areas_not_run:
            yield el("p", f"Not run: {', '.join(self.report.areas_not_run)}.", class_="note")
        yield el("h2", "What the signs mean")
        yield parts.legend()

    def _loop_table(self, column: Column) -> Markup:
        report = self.report
        levels = report.levels()
        head = el("tr", el("th", "Area", scope="col"), *(el("th", _PLURAL[level], scope="col") for level in levels))
        rows = []
        for area in report.areas:
            address = f"../areas/{file_name(area)}.html"
            cells = [parts.counts_cell(report.count(column, level, area), address) for level in levels]
            rows.append(el("tr", el("th", el("a", area, href=address), scope="row"), *cells))
        totals = [parts.counts_cell(report.count(column, level)) for level in levels]
        foot = el("tfoot", el("tr", el("th", "all", scope="row"), *totals))
        caption = el("caption", "Clauses passed of those there are, and what did not pass")
        table = el("table", caption, el("thead", head), el("tbody", *rows), foot)
        return parts.scroller(table, f"Areas by level, {column.facts}")

    def _causes(self, column: Column) -> Iterator[Markup]:
        pairs = [(clause, self.report.verdict(clause.id, column)) for clause in self.report.clauses.values()]
        titles = {
            "failed": "Fails",
            "deviates": "Deviates, as its manifest declares",
            "skipped": "Skipped",
            "untested": "Not run",
        }
        for outcome, title in titles.items():
            chosen = [(clause, verdict) for clause, verdict in pairs if verdict.outcome == outcome]
            if chosen:
                yield el("h3", parts.sign(outcome), " ", title)
                yield el("ul", *(self._cause(column, *group) for group in by_reason(chosen)), class_="causes")
        seen = [(clause, verdict) for clause, verdict in pairs if verdict.saw]
        if seen:
            yield el("h3", "Where the text leaves it open")
            items = (
                el("li", el("p", "; ".join(verdict.saw)), el("p", self._link(clause.id, "../"), class_="named"))
                for clause, verdict in seen
            )
            yield el("ul", *items, class_="causes")

    def _cause(self, column: Column, verdict: Verdict, clauses: list[Clause]) -> Markup:
        lines = []
        if verdict.reason:
            lines.append(el("p", one_line(verdict.reason, 400)))
        for level in LEVELS:
            chosen = [clause for clause in clauses if clause.level == level]
            if chosen:
                noun = level if len(chosen) == 1 else _PLURAL[level]
                links = join(*(self._link(clause.id, "../") for clause in chosen), between=", ")
                lines.append(el("p", f"{len(chosen)} {noun}: ", links, class_="named"))
        scripts = dict.fromkeys(script for clause in clauses if (script := self._script(column, clause.id)))
        if scripts:
            lines.append(el("p", "Evidence: ", join(*scripts, between=", "), class_="named"))
        return el("li", *lines, class_=f"{verdict.outcome}-cause")

    def _link(self, slug: str, up: str) -> Markup:
        area = self.report.clauses[slug].area
        return el("a", breakable(slug), href=f"{up}areas/{file_name(area)}.html#{slug}")


def by_reason(pairs: Iterable[tuple[Clause, Verdict]]) -> list[tuple[Verdict, list[Clause]]]:
    """Clauses with the same outcome for the same reason, in the order in which the reasons come first."""
    groups: dict[tuple[str, str], tuple[Verdict, list[Clause]]] = {}
    for clause, verdict in pairs:
        groups.setdefault((verdict.outcome, verdict.reason), (verdict, []))[1].append(clause)
    return list(groups.values())


def _names(labels: Iterable[str]) -> dict[str, str]:
    """A file name for each label, no two the same."""
    names: dict[str, str] = {}
    for label in labels:
        name = file_name(label)
        while name in names.values():
            name += "-"
        names[label] = name
    return names
