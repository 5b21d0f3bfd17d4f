"""Pieces of the pages of the site: the frame of a page, counts, verdicts, one clause with its citation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .. import reports
from ..clauses import Clause
from .markup import Markup, breakable, el, escape, join
from .report import Column, Counts, Report, Verdict, one_line

SIGNS = {"failed": "✗", "deviates": "≠", "passed": "✓", "skipped": "○", "untested": "·"}
WORDS = {
    "failed": "fails",
    "deviates": "deviates",
    "passed": "passes",
    "skipped": "skipped",
    "untested": "not run",
}
MEANINGS = {
    "passed": "every test of the clause passed.",
    "failed": "a test of it failed, and nobody declared that.",
    "deviates": "a test of it failed, as the loop's manifest of deviations says; it is not counted as passed.",
    "skipped": "no test of it could run there: an older CPython, a machine without IPv6.",
    "untested": "the run left it out.",
}
# CPython's own sources are cited by path; `main` has them all.
_SOURCE = re.compile(r"CPython,? (?P<path>(?:Lib|Modules|Objects|Python)/[\w/]+\.(?:py|c|h))")
_SOURCES = "https://github.com/python/cpython/blob/main/"
_ADDRESS = re.compile(r"https?://[^\s<>\"']+")


def page(title: str, body: Iterable[Markup], *, up: str, trail: Sequence[tuple[str, str]], site: str) -> str:
    """A whole document. `up` leads to the top of the site, `trail` (text, address) to where the page belongs."""
    links = [el("a", text, href=address) for text, address in trail]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title if title == site else f"{title} · {site}"),
        el("link", rel="icon", href="data:,"),
        el("link", rel="stylesheet", href=f"{up}style.css"),
    )
    header = el("header", el("nav", join(*links, between=" / "), aria_label="Where this is")) if links else Markup("")
    main = el("main", el("h1", breakable(title)), *body, id="main")
    skip = el("a", "Skip to content", class_="skip", href="#main")
    return f"<!doctype html>\n{el('html', head, el('body', skip, header, main), lang='en')}\n"


def counts_cell(counts: Counts, address: str | None = None) -> Markup:
    """A cell of a matrix: passed of all, and in words what did not pass."""
    if not counts.total:
        return el("td", "none", class_="c none")
    if counts.by_outcome["untested"] == counts.total:
        return el("td", sign("untested"), " ", el("span", "not run"), class_="c untested")
    ratio = el("b", counts.ratio)
    rest = (el("small", said) for said in counts.others)
    return el(
        "td",
        sign(counts.worst),
        " ",
        el("a", ratio, href=address) if address else ratio,
        *rest,
        class_=f"c {counts.worst}",
    )


def verdict_cell(verdict: Verdict, title: str) -> Markup:
    """A cell of an area's table."""
    saw = el("small", one_line("; ".join(verdict.saw), 60)) if verdict.saw else None
    words = join(sign(verdict.outcome), " ", WORDS[verdict.outcome])
    return el("td", words, saw, class_=f"c {verdict.outcome}", title=title or None)


def sign(outcome: str) -> Markup:
    """The mark that stands beside the colour; the word beside it says the same."""
    return el("span", SIGNS[outcome], class_="sign", aria_hidden="true")


def level(name: str) -> Markup:
    """How binding a clause is."""
    return el("span", name, class_=f"level {name}")


def bar(counts: Counts) -> Markup:
    """How a level's clauses came out, as a bar; the words beside it say the same."""
    if not counts.total:
        return Markup("")
    shares = [
        el("i", class_=outcome, style=f"width:{100 * number / counts.total:.2f}%")
        for outcome in ("passed", "deviates", "failed", "skipped", "untested")
        if (number := counts.by_outcome[outcome])
    ]
    return el("span", *shares, class_="bar", aria_hidden="true")


def headline(report: Report, column: Column) -> Markup:
    """A loop's counts by level: its musts first and large."""
    lines = []
    for name in report.levels():
        counts = report.count(column, name)
        rest = f" ({counts.rest})" if counts.rest else ""
        said = counts.sentence[0].upper() + counts.sentence[1:]
        if name == "must":
            strong = re.sub(r"(\d+) (pass|passes)$", r"<b>\1 \2</b>", escape(said))
            lines.append(el("p", Markup(strong), rest and el("small", rest), class_="headline"))
            lines.append(bar(counts))
        else:
            lines.append(el("p", said, rest, class_="others"))
    return join(*lines)


def scroller(table: Markup, name: str, *, tall: bool = False) -> Markup:
    """A wide table that scrolls inside itself, with the keyboard too; a tall one keeps its head in sight as well."""
    return el("div", table, class_="scroll tall" if tall else "scroll", role="region", aria_label=name, tabindex="0")


def legend() -> Markup:
    """What the signs mean."""
    entries = [
        join(el("dt", sign(outcome), " ", WORDS[outcome], class_=outcome), el("dd", meaning))
        for outcome, meaning in MEANINGS.items()
    ]
    return el("dl", *entries, class_="legend")


def clause_section(
    clause: Clause, tests: Sequence[str], reported: Sequence[reports.Report], outcomes: Markup | None
) -> Markup:
    """One clause: rule, level, citation, quote, what it permits, its tests, what users reported, its outcomes."""
    heading = el("h3", el("a", breakable(clause.id), href=f"#{clause.id}"), " ", level(clause.level))
    facts = [(el("dt", "Cited"), el("dd", citation(clause.cite)))] if clause.cite else []
    if clause.since:
        facts.append((el("dt", "Since"), el("dd", f"CPython {clause.since}")))
    if clause.permits:
        facts.append((el("dt", "Permits"), el("dd", el("ul", *(el("li", text) for text in clause.permits)))))
    if tests:
        names = [el("li", el("code", breakable(name))) for name in tests]
        facts.append((el("dt", "Tests"), el("dd", el("ul", *names))))
    if reported:
        links = (el("a", f"{one.project} #{one.number}", href=one.url) for one in reported)
        facts.append((el("dt", "Reported"), el("dd", join(*links, between=", "))))
    if outcomes is not None:
        facts.append((el("dt", "Outcomes"), el("dd", outcomes)))
    quote = el("blockquote", el("p", clause.quote)) if clause.quote else None
    rule = el("p", clause.rule, class_="rule")
    return el(
        "section", heading, rule, quote, el("dl", *(join(*fact) for fact in facts)), id=clause.id, class_="clause"
    )


def outcomes(
    verdicts: Sequence[tuple[Column, Verdict]],
    name: Callable[[Column], Markup],
    evidence: Callable[[Column], Markup | None],
) -> Markup:
    """What a clause came to on each loop; loops with the same outcome for the same reason stand together."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Column]] = {}
    for column, verdict in verdicts:
        groups.setdefault((verdict.outcome, verdict.reason, verdict.saw), []).append(column)
    items = []
    for (outcome, reason, saw), columns in groups.items():
        names = join(*(name(column) for column in columns), between=", ")
        scripts = dict.fromkeys(script for column in columns if (script := evidence(column)) is not None)
        items.append(
            el(
                "li",
                el("span", sign(outcome), " ", WORDS[outcome], class_=f"outcome {outcome}"),
                " ",
                names,
                f": {one_line(reason, 400)}" if reason else None,
                f"; saw: {', '.join(saw)}" if saw else None,
                join("; evidence: ", join(*scripts, between=", ")) if scripts else None,
            )
        )
    return el("ul", *items, class_="outcomes")


def citation(cite: str) -> Markup:
    """A citation with its address, or the file of CPython that it names, as a link."""
    if found := _ADDRESS.search(cite):
        # A full stop or comma behind an address belongs to the sentence.
        named = found[0].rstrip(".,;:)")
        address, shown = named, re.sub(r"^https?://", "", named)
    elif found := _SOURCE.search(cite):
        named = shown = found[0]
        address = _SOURCES + found["path"]
    else:
        return escape(cite)
    link = el("a", Markup(re.sub(r"([/#._])(?=\w)", r"\1<wbr>", escape(shown))), href=address)
    return join(cite[: found.start()], link, cite[found.start() + len(named) :])


def file_name(text: str) -> str:
    """`text` as a part of an address: lower case, nothing that leads out of a folder."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip(".-") or "unnamed"


def style() -> str:
    """The style sheet of the site."""
    return (Path(__file__).with_name("style.css")).read_text(encoding="utf-8")
