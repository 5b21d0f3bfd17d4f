"""The pictures of the report: plain SVG, narrow enough for a phone, light and dark.

`ratios.svg` has the rows against uvloop, `allocator.svg` the two states of the allocator side by side.
"""

import math
from html import escape
from pathlib import Path
from typing import Any

from allocator import FREED, FRESH
from results import BASELINE, COALESCING, LIMIT, SUBJECT
from summary import Row, rows

WIDTH, LEFT, RIGHT = 460, 14, 46
PLOT = WIDTH - LEFT - RIGHT
# Of a row: its title, and the line that its dots are on.
PITCH, BASE = 34, 22
# What the chart of ratios shows: the kind, the row (or the case), its title. What was not measured is left out.
SHOWN = (
    ("proto", "1 KiB", 10, "Protocol, 1 KiB, 10 connections"),
    ("proto", "100 KiB", 10, "Protocol, 100 KiB, 10 connections"),
    ("pieces", "1 KiB", 10, "Messages of five writes"),
    ("stream", "1 KiB", 10, "Streams, 1 KiB"),
    ("raw", "1 KiB", 10, "sock_recv and sock_sendall, 1 KiB"),
    ("udp", "1 KiB", 10, "Datagrams, 1 KiB"),
    ("tls", "1 KiB", 50, "TLS, 1 KiB"),
    ("connect", "64 B", 10, "Connect, echo once, close"),
    ("idle", "idle", 10_000, "Memory of an idle connection"),
    ("web", "uvicorn", 50, "uvicorn"),
    ("web", "aiohttp", 50, "aiohttp"),
    ("micro", "call_soon_chain", 1, "Callback that schedules the next"),
    ("micro", "sleep_0_1_task", 1, "sleep(0)"),
    ("micro", "future_wake", 1, "Future made, set, awaited"),
    ("micro", "call_later_cancel", 1, "Timer set and cancelled"),
    ("micro", "threadsafe_other", 1, "Calls from another thread"),
    ("micro", "spawn", 1, "Child started and waited for"),
)
# What the chart of states shows.
STATED = (
    ("proto", "1 KiB", 10, "Protocol, 1 KiB, 10 connections"),
    ("proto", "100 KiB", 10, "Protocol, 100 KiB, 10 connections"),
    ("stream", "1 KiB", 10, "Streams, 1 KiB, 10 connections"),
    ("tls", "1 KiB", 50, "TLS, 1 KiB, 50 connections"),
    ("tls", "100 KiB", 50, "TLS, 100 KiB, 50 connections"),
)
COLOURS = {
    SUBJECT: "mine", COALESCING: "coalescing", "asyncio": "a", BASELINE: "b", "rloop": "c", "blazio": "d",
    LIMIT: "limit",
}  # fmt: skip
NAMES = {COALESCING: "coalescing", LIMIT: "C, no Python"}
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px } .small { font-size: 11px; fill: #57606a } .strong { font-weight: 600 }
  .back { fill: #ffffff } .grid { stroke: #d8dee4 } .one { stroke: #8c959f; stroke-dasharray: 3 3 }
  .track { stroke: #eaeef2 }
  .mine { fill: #8250df; stroke: #8250df } .coalescing { fill: #ffffff; stroke: #8250df; stroke-width: 2 }
  .a { fill: #8c959f; stroke: #8c959f } .b { fill: #0969da; stroke: #0969da } .c { fill: #bc4c00; stroke: #bc4c00 }
  .d { fill: #1a7f37; stroke: #1a7f37 } .limit { fill: #24292f; stroke: #24292f }
  .other { fill: #afb8c1; stroke: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .back { fill: #0d1117 } .grid { stroke: #30363d }
    .one { stroke: #6e7681 } .track { stroke: #21262d } .mine { fill: #a371f7; stroke: #a371f7 }
    .coalescing { fill: #0d1117; stroke: #a371f7 } .b { fill: #4493f8; stroke: #4493f8 }
    .limit { fill: #e6edf3; stroke: #e6edf3 }
    .c { fill: #f0883e; stroke: #f0883e } .d { fill: #3fb950; stroke: #3fb950 }
    .other { fill: #6e7681; stroke: #6e7681 }
  }
"""


def draw(out: Path, kinds: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Write the pictures that the results allow: each file's name, and what it shows in words. Raises OSError."""
    made = []
    for file, words, picture in (
        ("ratios.svg", "CPU time of each loop as a ratio to that of uvloop, row by row", ratios(kinds)),
        ("allocator.svg", "CPU time per request in a fresh process, and once a large block was freed", states(kinds)),
    ):
        if picture is not None:
            (out / file).write_text(picture)
            made.append((file, words))
    return made


def chosen(kinds: dict[str, dict[str, Any]], wanted: tuple[tuple[str, str, int, str], ...]) -> list[tuple[str, Row]]:
    """The rows that a picture shows, of those that were measured, with their titles."""
    found = []
    for kind, label, concurrency, title in wanted:
        for row in rows(kinds.get(kind, {}).get("measurements", [])):
            name = row.measurements[0].get("case", row.label)
            if (name, row.concurrency) == (label, concurrency):
                found.append((title, row))
    return found


def ratios(kinds: dict[str, dict[str, Any]]) -> str | None:
    """Each row a line, each loop a dot, on a logarithmic axis."""
    shown, low, high = [], 0.5, 2.0
    for title, row in chosen(kinds, SHOWN):
        dots = {loop: ratio[0] for loop in row.loops if (ratio := row.ratio(loop, BASELINE, FREED))}
        if SUBJECT in dots and BASELINE in dots:
            shown.append((title, dots))
            low, high = min(low, *dots.values()), max(high, *dots.values())
    if not shown:
        return None
    low, high = max(low, 0.02) * 0.9, min(high, 10) * 1.1

    def x(value: float) -> float:
        return LEFT + PLOT * (math.log(min(max(value, low), high)) - math.log(low)) / (math.log(high) - math.log(low))

    ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= tick <= high]
    loops = [loop for loop in COLOURS if any(loop in dots for _, dots in shown)]
    body, top = frame(
        "CPU time per operation, as a ratio to uvloop", "Once a large block was freed; left is less.", loops
    )
    bottom = top + len(shown) * PITCH
    body += [grid(x(tick), top, bottom, f"{tick:g}", "one" if tick == 1 else "grid") for tick in ticks]
    for at, (title, dots) in enumerate(shown):
        line = top + at * PITCH
        body.append(text(LEFT, line + 11, title))
        body.append(f'<line class="track" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{line + BASE}" y2="{line + BASE}"/>')
        for loop in sorted(dots, key=lambda loop: loop == SUBJECT):
            body.append(dot(loop, x(dots[loop]), line + BASE))
        body.append(text(WIDTH - 6, line + BASE + 4, f"{dots[SUBJECT]:.2f}", "strong", "end"))
    return document(body, bottom + 26)


def states(kinds: dict[str, dict[str, Any]]) -> str | None:
    """Each loop of a row a line of its own, from one state to the other."""
    shown = chosen(kinds, STATED)
    if not shown:
        return None
    loops = [loop for loop in COLOURS if loop != COALESCING]
    used = [loop for loop in loops if any(loop in row.loops for _, row in shown)]
    body, line = frame(
        "CPU time per request, in microseconds", "Ring: a fresh process. Dot: once a large block was freed.", used
    )
    for title, row in shown:
        found = {
            loop: (fresh[0], freed[0])
            for loop in loops
            if (fresh := row.spread(loop, FRESH)) and (freed := row.spread(loop, FREED))
        }
        if not found:
            continue
        longest = max(max(pair) for pair in found.values())
        body.append(text(LEFT, line + 11, title, "strong"))
        line += 26
        for loop, (fresh, freed) in found.items():
            kind = COLOURS[loop]
            ends = [LEFT + 4 + (PLOT - 120) * value / longest for value in (fresh, freed)]
            body.append(
                f'<line class="{kind}" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{line}" y2="{line}" stroke-width="2"/>'
                f'<circle class="back" cx="{ends[0]:.1f}" cy="{line}" r="4.5"/>'
                f'<circle class="{kind}" fill-opacity="0" stroke-width="2" cx="{ends[0]:.1f}" cy="{line}" r="4"/>'
                f'<circle class="{kind}" cx="{ends[1]:.1f}" cy="{line}" r="4"/>'
            )
            said = f"{short(fresh)} → {short(freed)}" if abs(fresh - freed) > 0.1 * freed else short(freed)
            body.append(text(max(ends) + 10, line + 4, f"{NAMES.get(loop, loop)} {said}", "small"))
            line += 15
        line += 14
    return document(body, line)


def short(value: float) -> str:
    """A figure for a label."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def frame(title: str, subtitle: str, loops: list[str]) -> tuple[list[str], int]:
    """Title and legend, and where the plot begins."""
    body = [text(LEFT, 22, title, "title"), text(LEFT, 40, subtitle, "small")]
    x, y = LEFT + 4, 60
    for loop in loops:
        name = NAMES.get(loop, loop)
        if x + 20 + 7 * len(name) > WIDTH:
            x, y = LEFT + 4, y + 18
        body += [dot(loop, x, y - 4), text(x + 10, y, name)]
        x += 24 + 7 * len(name)
    return body, y + 20


def grid(x: float, top: int, bottom: int, label: str, kind: str) -> str:
    """A vertical line with its value below."""
    line = f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
    return line + text(x, bottom + 16, label, "small", "middle")


def dot(loop: str, x: float, y: float) -> str:
    """The mark of a loop."""
    kind = COLOURS.get(loop, "other")
    if loop == LIMIT:
        return f'<rect class="{kind}" x="{x - 1:.1f}" y="{y - 6}" width="2" height="12"/>'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="{6 if loop == SUBJECT else 4}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def document(body: list[str], height: int) -> str:
    """The whole picture."""
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>{STYLE}</style>'
    return "\n".join([head, f'<rect class="back" width="{WIDTH}" height="{height}"/>', *body, "</svg>"]) + "\n"
