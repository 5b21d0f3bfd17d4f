"""The matrix area x loop, and the clauses on which loops differ, from the JSON document of a run."""

from __future__ import annotations

from typing import Any


def render_text(run: dict[str, Any]) -> str:
    """For a terminal."""
    loops = [loop["label"] for loop in run["loops"]]
    rows = [["area", *loops]] + [[area, *cells] for area, cells in _table(run)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    differing = _differing(run)
    if differing:
        lines += ["", "clauses that are not passed on every loop:"]
    for clause, outcomes in differing:
        lines.append(f"  {clause['level']:<6} {clause['id']}")
        lines += [f"         {label}: {words}" for label, words in outcomes]
    return "\n".join(lines)


def render_markdown(run: dict[str, Any]) -> str:
    """For a file in the repository; written by `python -m spec --write-matrix`."""
    loops = run["loops"]
    lines = [
        "# Conformance by area and loop",
        "",
        f"Clauses passed of clauses specified; {run['implementation']} {run['python']}, {run['platform']}.",
        "Written by `python -m spec --write-matrix`; do not edit.",
        "",
        "| area | " + " | ".join(f"{loop['label']} {loop['version']}" for loop in loops) + " |",
        "| --- |" + " ---: |" * len(loops),
    ]
    lines += [f"| {area} | " + " | ".join(cells) + " |" for area, cells in _table(run)]
    differing = _differing(run)
    if differing:
        lines += ["", "## Clauses that are not passed on every loop", ""]
        lines += ["| clause | level | loop | outcome |", "| --- | --- | --- | --- |"]
    for clause, outcomes in differing:
        for label, words in outcomes:
            lines.append(f"| `{clause['id']}` | {clause['level']} | {label} | {_escape(words)} |")
    return "\n".join(lines) + "\n"


def _table(run: dict[str, Any]) -> list[tuple[str, list[str]]]:
    areas: dict[str, list[dict[str, Any]]] = {}
    for clause in run["clauses"]:
        areas.setdefault(clause["area"], []).append(clause)
    table = [(area, [_count(clauses, loop["label"]) for loop in run["loops"]]) for area, clauses in areas.items()]
    if len(table) > 1:
        table.append(("all", [_count(run["clauses"], loop["label"]) for loop in run["loops"]]))
    return table


def _count(clauses: list[dict[str, Any]], label: str) -> str:
    passed = sum(clause["outcomes"][label]["outcome"] == "passed" for clause in clauses)
    return f"{passed}/{len(clauses)}"


def _differing(run: dict[str, Any]) -> list[tuple[dict[str, Any], list[tuple[str, str]]]]:
    """Clauses with an outcome other than passed, with the words for each such loop.

    Those that no loop was tested on are left out: the run was told to leave out their tests.
    """
    found = []
    for clause in run["clauses"]:
        if all(result["outcome"] == "untested" for result in clause["outcomes"].values()):
            continue
        outcomes = [(label, result) for label, result in clause["outcomes"].items() if result["outcome"] != "passed"]
        if outcomes:
            found.append((clause, [(label, _words(result)) for label, result in outcomes]))
    return found


def _words(result: dict[str, str]) -> str:
    reason = result["reason"]
    if len(reason) > 160:
        reason = reason[:157] + "..."
    return f"{result['outcome']}: {reason}" if reason else result["outcome"]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
