"""Renders `report.md` and its pictures from the results that are there.

python report.py [--out DIR]
"""

import argparse
import json
import string
import sys
from pathlib import Path
from typing import Any

import charts
import counts
import marks
import results
import targets
from allocator import FREED, FRESH, STATES
from cases import CASES
from results import BASELINE, COALESCING, SUBJECT
from rows import KINDS, MEMORY
from summary import Row, Spread, rows

NAMES = {COALESCING: "tokioloop, coalescing"}


def name(loop: str) -> str:
    """A loop as the report calls it."""
    return NAMES.get(loop, loop)


def render(out: Path) -> Path:
    """Render the report from the results that are there. Raises OSError."""
    kinds = results.load(out)
    sections = [network_section(kind, kinds[kind]) for kind in KINDS if kind in kinds]
    if "micro" in kinds:
        sections.append(micro_section(kinds["micro"]))
    if "syscalls" in kinds:
        sections.append(syscalls_section(kinds["syscalls"]))
    if counts.COMMITTED.exists():
        sections.append(counts_section())
    template = string.Template((results.HERE / "templates" / "report.md").read_text())
    pictures = charts.draw(out, kinds)
    text = template.substitute(
        targets=targets_table(kinds),
        pictures="\n\n".join(f"![{words}]({file})" for file, words in pictures),
        sections="\n\n".join(sections),
    )
    target = out / "report.md"
    target.write_text(text.rstrip() + "\n")
    return target


def table(head: list[str], lines: list[list[str]], text_columns: int = 1) -> str:
    """A Markdown table whose columns after the first `text_columns` are aligned right."""
    rule = ["---" if column < text_columns else "--:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *lines])


def provenance(result: dict[str, Any]) -> str:
    """One line: where and how these figures were measured."""
    place, how = result["machine"], result["settings"]
    versions = ", ".join(f"{name(loop)} {version}" for loop, version in result["loops"].items())
    quick = " A quick run: good for a look, not for quoting." if how.get("quick") else ""
    return (
        f"{place['date']}; {place['system']}, {place['cpu']}, {place['cpus']} CPUs, load {place['load_at_start']} at "
        f"the start; {place['python']}; {versions}. {how['how']}{quick}"
    )


def number(value: float | None) -> str:
    """Three significant digits or whole units, whichever is more."""
    if value is None:
        return "n/a"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def with_range(found: Spread | None) -> str:
    """A median, with the least and the greatest where they differ from it."""
    if found is None:
        return "n/a"
    middle, least, greatest = map(number, found)
    return middle if least == middle == greatest else f"{middle} ({least} to {greatest})"


def ratio(found: Spread | None) -> str:
    """A ratio, with its range."""
    return "n/a" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def both(row: Row, loop: str, key: str) -> str:
    """The medians of the two states."""
    found = [row.spread(loop, state, key) for state in STATES]
    return " / ".join(number(value and value[0]) for value in found) if any(found) else "n/a"


def notes(result: dict[str, Any], about: dict[str, str]) -> str:
    """What a reader has to know of the figures: errors, loops left out, marks.

    `about` has the titles of cases by name, or one kind without a title.
    """
    lines = []
    for row in rows(result["measurements"]):
        where = row.label if row.concurrency == 1 else f"{row.label} x{row.concurrency}"
        lines += [f"- **error**: {name(loop)}, {where}: {why}" for loop, why in row.errors().items()]
    lines += [f"- {note}" for note in result.get("notes", ())]
    broken: dict[tuple[str, str, str], list[str]] = {}
    for key, title in about.items():
        for loop in result["loops"]:
            for clause, words in marks.broken(key, loop):
                broken.setdefault((loop, clause, words), []).append(title)
    lines += [
        f"- † {name(loop)} does not keep [`{clause}`](../spec/MATRIX.md): {words}"
        + (f" ({', '.join(where)})." if any(where) else ".")
        for (loop, clause, words), where in broken.items()
    ]
    return "\n\n" + "\n".join(lines) if lines else ""


def to_best(row: Row, loop: str) -> str:
    """The medians of the ratios to the best peer of the row, in the two states."""
    found = []
    for state in STATES:
        best = row.best(state, [peer for peer in row.loops if peer not in targets.NOT_PEERS])
        value = best and row.ratio(loop, best, state)
        found.append(f"{value[0]:.2f}" if value else "n/a")
    return "n/a" if set(found) == {"n/a"} else " / ".join(found)


def marked(loop: str, about: str) -> str:
    """A loop's name, with a mark where it does not keep what the row is about."""
    return name(loop) + (" †" if marks.broken(about, loop) else "")


def network_section(kind: str, result: dict[str, Any]) -> str:
    """A section of the report for servers or clients of one kind."""
    what, unit = result["request"], result["unit"]
    figure = f"KiB per {what}" if unit == MEMORY else f"CPU per {what}, us"
    head = ["message", "connections", "loop", f"{figure}: {FRESH}", FREED, f"ratio to {BASELINE}: {FRESH}", FREED]
    head.append("to the best peer")
    more = [] if unit == MEMORY else [f"{what}s/s", "busy, %", "50 %, us", "99 %, us"]
    lines = []
    for row in rows(result["measurements"]):
        for loop in [loop for loop in result["loops"] if loop in row.loops]:
            cells = [row.label, f"{row.concurrency:,}", marked(loop, kind)]
            failed = loop in row.errors() and not row.values(loop, FRESH)
            cells += ["**error**" if failed else with_range(row.spread(loop, state)) for state in STATES]
            cells += [ratio(row.ratio(loop, BASELINE, state)) for state in STATES]
            cells.append(to_best(row, loop))
            if more:
                cells += [both(row, loop, "requests_per_second")]
                busy = [found[0] for state in STATES if (found := row.spread(loop, state, "server_busy"))]
                cells += [" / ".join(f"{part * 100:.0f}" for part in busy) or "n/a"]
                cells += [both(row, loop, key) for key in ("p50_us", "p99_us")]
            lines.append(cells)
    tail = f"\n\n{table([*head, *more], lines, 3)}" if lines else ""
    return f"## {result['title']}\n\n{provenance(result)}{tail}{notes(result, {kind: ''})}"


def micro_section(result: dict[str, Any]) -> str:
    """The section on single operations."""
    loops_here = list(result["loops"])
    head = ["operation", "state", *map(name, loops_here), f"{SUBJECT} / {BASELINE}", f"{SUBJECT} / best peer"]
    peers = [loop for loop in loops_here if loop not in targets.NOT_PEERS]
    lines, late, about = [], [], {}
    for row in rows(result["measurements"]):
        case = row.measurements[0]["case"]
        about[case] = row.label
        for state in STATES:
            if "late" in case:
                late += [
                    [
                        name(loop),
                        state,
                        *(number(found and found[place]) for found, place in lateness(row, loop, state)),
                    ]
                    for loop in loops_here
                ]
                continue
            cells = []
            for loop in loops_here:
                failed = loop in row.errors() and not row.values(loop, state)
                mark = " †" if marks.broken(case, loop) else ""
                cells.append("**error**" if failed else with_range(row.spread(loop, state)) + mark)
            best = row.best(state, peers)
            cells += [ratio(row.ratio(SUBJECT, BASELINE, state))]
            found = best and row.ratio(SUBJECT, best, state)
            cells += [f"{ratio(found)} {best}" if found else "n/a"]
            lines.append([row.label, state, *cells])
    text = (
        f"## Single operations\n\n{provenance(result)}\n\nNanoseconds of CPU per operation: the median of the "
        f"rounds, each the least of its repetitions; the range in parentheses.\n\n{table(head, lines, 2)}"
    )
    if late:
        text += (
            "\n\nTimers: microseconds from the moment asked for to the callback. A negative one fired early, which a "
            f"timer must not.\n\n{table(['loop', 'state', 'mean', '99 %', 'latest', 'earliest'], late, 2)}"
        )
    return text + notes(result, about)


def lateness(row: Row, loop: str, state: str) -> list[tuple[Spread | None, int]]:
    """What the table of timers shows of a loop: spreads, and which part of each."""
    return [
        (row.spread(loop, state, key), place) for key, place in (("figure", 0), ("p99", 0), ("max", 2), ("earliest", 1))
    ]


def syscalls_section(result: dict[str, Any]) -> str:
    """The section on system calls."""
    if not result["summary"]:
        return f"## System calls\n\nNot measured: {result['reason']}."
    lines = [
        [
            entry["kind"],
            str(entry["concurrency"]),
            entry["loop"],
            entry["state"],
            f"{entry['per_echo']:.2f}",
            ", ".join(f"{call} {count:.2f}" for call, count in entry["calls"].items() if count >= 0.01),
        ]
        for entry in result["summary"]
    ]
    head = ["server", "connections", "loop", "state", "calls per echo", "of which"]
    text = f"## System calls\n\n{provenance(result)}\n\n{table(head, lines, 4)}"
    return text + "".join(f"\n\n- **error**: {error}" for error in result.get("errors", ()))


def counts_section() -> str:
    """The section on instructions: what counts.json has."""
    counted = json.loads(counts.COMMITTED.read_text())
    lines = [[CASES[path].title, f"{count:,.0f}"] for path, count in counted["instructions"].items()]
    tools = ", ".join(f"{tool} {version}" for tool, version in counted["tools"].items())
    return (
        f"## Instructions\n\nIn user space, the interpreter's included, per operation of {SUBJECT}, by callgrind "
        f"(counts.json; {tools}).\n\n{table(['operation', 'instructions'], lines)}"
    )


def targets_table(kinds: dict[str, dict[str, Any]]) -> str:
    """The table of targets."""
    words = {True: "met", False: "**missed**", None: "not measured"}
    lines = []
    for outcome in targets.outcomes(kinds):
        bound = outcome.target.bound
        side = f">= {bound:g}" if outcome.target.least else f"{bound:g}" if outcome.target.absolute else f"{bound:.2f}"
        found = [number(value) if value is not None else "n/a" for value in (outcome.found[state] for state in STATES)]
        lines.append([outcome.name, outcome.against, side, *found, words[outcome.met]])
    counts = [sum(line[-1] == words[met] for line in lines) for met in (True, False, None)]
    total = f"{counts[0]} met, {counts[1]} missed, {counts[2]} not measured."
    return f"{table(['row', 'ratio to', 'at most', FRESH, FREED, ''], lines, 2)}\n\n{total}"


def main() -> None:
    """Render the report again."""
    parser = argparse.ArgumentParser(description="Render report.md from results/*.json.")
    parser.add_argument("--out", type=Path, default=results.HERE, help="folder of results/ and report.md")
    print(render(parser.parse_args().out), file=sys.stderr)


if __name__ == "__main__":
    main()
