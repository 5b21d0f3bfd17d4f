"""What the measuring programs share: where they ran, statistics over rounds, the JSON files, and the report.

Each kind of benchmark owns one file, `results/KIND.json`; `report.md` is rendered anew from all that are there.

    python results.py [--out DIR]        renders the report again
"""

import argparse
import datetime as dt
import json
import os
import platform
import string
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
NETWORK = ("raw", "stream", "proto", "udp", "tls", "tls-handshake", "concurrency")
BASELINE = "uvloop"
SUBJECT = "tokioloop"
TITLES = {
    "raw": "Raw sockets: `sock_recv`, `sock_sendall`",
    "stream": "Streams: `asyncio.start_server`",
    "proto": "Protocols: `asyncio.Protocol`",
    "udp": "Datagrams: `asyncio.DatagramProtocol`",
    "tls": "TLS: `asyncio.Protocol`",
    "tls-handshake": "TLS handshakes: `asyncio.Protocol`",
    "concurrency": "Many connections: `asyncio.Protocol`, 1 KiB",
}


# Kind, request, connections: at most this ratio of CPU to the baseline.
GOALS = (
    ("proto", "1 KiB", 10, 0.90),
    ("stream", "1 KiB", 10, 0.95),
    ("raw", "1 KiB", 10, 0.60),
    ("udp", "1 KiB", 10, 1.00),
    ("tls", "1 KiB", 50, 0.85),
    ("tls", "100 KiB", 50, 0.85),
    ("tls-handshake", "full", 10, 1.00),
    ("tls-handshake", "resumed", 10, 1.00),
)


def machine() -> dict[str, Any]:
    """The facts about this machine that a figure depends on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "cpu": model,
        "cpus": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_at_start": round(os.getloadavg()[0], 2),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def cpus() -> list[int]:
    """The CPUs that a process may be pinned to; empty where the system has no such call."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def baseline(names: Iterable[str]) -> str:
    """The loop that ratios refer to: uvloop, or the first one where that is missing."""
    names = list(names)
    return BASELINE if BASELINE in names else names[0]


def ratios(values: dict[str, list[float]], base: str) -> dict[str, list[float]]:
    """Per loop: median, minimum and maximum over the rounds of (value / the baseline's value in the same round)."""
    found = {}
    for name, mine in values.items():
        quotients = sorted(a / b for a, b in zip(mine, values[base], strict=True) if b)
        if quotients:
            found[name] = [round(median(quotients), 3), round(quotients[0], 3), round(quotients[-1], 3)]
    return found


def save(out: Path, kind: str, result: dict[str, Any]) -> None:
    """Write `results/KIND.json` and render the report. Raises OSError."""
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.json").write_text(as_json(result))
    render(out)


def as_json(result: dict[str, Any]) -> str:
    """JSON with one line per entry and per measurement, so that a diff of two runs can be read."""
    parts = []
    for key, value in result.items():
        if isinstance(value, list):
            text = "[\n    " + ",\n    ".join(json.dumps(item) for item in value) + "\n  ]"
        else:
            text = json.dumps(value)
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def render(out: Path) -> Path:
    """Render `report.md` from the results that are there. Raises OSError."""
    kinds = {path.stem: json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))}
    sections = [network_section(kind, kinds[kind]) for kind in NETWORK if kind in kinds]
    if "micro" in kinds:
        sections.append(micro_section(kinds["micro"]))
    if "syscalls" in kinds:
        sections.append(syscalls_section(kinds["syscalls"]))
    template = string.Template((HERE / "templates" / "report.md").read_text())
    target = out / "report.md"
    target.write_text(template.substitute(goals=goals_table(kinds), sections="\n\n".join(sections)).rstrip() + "\n")
    return target


def table(head: list[str], rows: list[list[str]], text_columns: int = 1) -> str:
    """A Markdown table whose columns after the first `text_columns` are aligned right."""
    rule = ["---" if column < text_columns else "--:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def provenance(result: dict[str, Any]) -> str:
    """One line: where and how these figures were measured."""
    place, how = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result["loops"].items())
    quick = " A quick run: good for a look, not for quoting." if how.get("quick") else ""
    return (
        f"{place['date']}; {place['system']}, {place['cpu']}, {place['cpus']} CPUs, "
        f"load {place['load_at_start']} at the start; {place['python']}; {versions}. {how['how']}{quick}"
    )


def size(count: int) -> str:
    """Bytes for a reader."""
    return f"{count // 1024} KiB" if count % 1024 == 0 and count else f"{count} B"


def request(entry: dict[str, Any]) -> str:
    """What was asked for, again and again: a message of a size, or a kind of handshake."""
    return entry.get("handshakes") or size(entry["msize"])


def spread(ratio: list[float] | None) -> str:
    """Median, and the range in parentheses."""
    return "n/a" if not ratio else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def number(value: float | None) -> str:
    """Three significant digits or whole units, whichever is more."""
    if value is None:
        return "n/a"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def network_section(kind: str, result: dict[str, Any]) -> str:
    """A section of the report for the echo servers of one kind."""
    what = "handshake" if kind == "tls-handshake" else "request"
    head = [
        "handshake" if what == "handshake" else "message", "connections", "loop", f"CPU per {what}, us", "least",
        f"ratio to {result['baseline']}", f"{what}s/s", "server busy", "mean, us", "stdev",
        "50 %", "75 %", "90 %", "95 %", "99 %",
    ]  # fmt: skip
    rows = []
    for entry in result["summary"]:
        latencies = ["mean_us", "stdev_us", "p50_us", "p75_us", "p90_us", "p95_us", "p99_us"]
        busy = entry["server_busy"]
        rows.append(
            [
                request(entry),
                str(entry["concurrency"]),
                entry["loop"],
                number(entry["server_cpu_us"]),
                number(entry["server_cpu_us_min"]),
                spread(entry["ratio"]),
                number(entry["requests_per_second"]),
                "n/a" if busy is None else f"{busy:.0%}",
                *(number(entry[key]) for key in latencies),
            ]
        )
    return f"## {TITLES[kind]}\n\n{provenance(result)}\n\n{table(head, rows, 3)}"


def micro_section(result: dict[str, Any]) -> str:
    """The section on single operations."""
    names = list(result["loops"])
    base = result["baseline"]
    head = ["operation", *names, *(f"{name} / {base}" for name in names if name != base)]
    rows = []
    late = []
    for entry in result["summary"]:
        cells, loops = [], entry["loops"]
        if entry["unit"] == "us late":
            late.extend(
                [name, *(number(loops[name][key]) for key in ("mean", "p99", "max")), number(loops[name]["earliest"])]
                for name in names
                if loops.get(name)
            )
            continue
        for name in names:
            cell = f"{loops[name]['min']:,.0f} ({loops[name]['median']:,.0f})" if loops.get(name) else "n/a"
            cells.append(cell)
        cells.extend(spread((loops.get(name) or {}).get("ratio")) for name in names if name != base)
        rows.append([entry["title"], *cells])
    text = (
        f"## Single operations\n\n{provenance(result)}\n\nNanoseconds of CPU per operation: minimum, and the median in "
        f"parentheses; n/a where the loop does not have the operation.\n\n{table(head, rows)}"
    )
    if late:
        lateness = table(["loop", "mean", "99 %", "latest", "earliest"], late)
        text += (
            "\n\nTimers: microseconds from the moment asked for to the callback. A negative one fired early, which a "
            f"timer must not.\n\n{lateness}"
        )
    if result["notes"]:
        text += "\n\n" + "\n".join(f"- {note}" for note in result["notes"])
    return text


def syscalls_section(result: dict[str, Any]) -> str:
    """The section on system calls."""
    if not result["summary"]:
        return f"## System calls\n\nNot measured: {result['reason']}."
    rows = [
        [
            entry["kind"],
            str(entry["concurrency"]),
            entry["loop"],
            f"{entry['per_echo']:.2f}",
            ", ".join(f"{name} {count:.2f}" for name, count in entry["calls"].items() if count >= 0.01),
        ]
        for entry in result["summary"]
    ]
    head = ["server", "connections", "loop", "calls per echo", "of which"]
    return f"## System calls\n\n{provenance(result)}\n\n{table(head, rows, 3)}"


def goals(kinds: dict[str, dict[str, Any]]) -> list[list[str]]:
    """What tokioloop aims at and what was measured: goal, bound, measured, met or not."""
    rows = []
    for kind, what, connections, bound in GOALS:
        for entry in kinds.get(kind, {}).get("summary", []):
            found = (entry["loop"], request(entry), entry["concurrency"])
            if found == (SUBJECT, what, connections) and entry["ratio"]:
                unit = "handshake" if kind == "tls-handshake" else "request"
                name = (
                    f"CPU per {unit}, `{kind}`, {what}, {connections} connections, ratio to {kinds[kind]['baseline']}"
                )
                rows.append(goal(name, entry["ratio"][0], bound))
    for entry in kinds.get("micro", {}).get("summary", []):
        mine, other = entry["loops"].get(SUBJECT), entry["loops"].get("rloop")
        if entry["case"] == "call_soon_chain" and mine and other:
            rows.append(goal("Callback chain, ratio to rloop", mine["min"] / other["min"], 1.0))
    calls = kinds.get("syscalls", {}).get("summary", [])
    rows.extend(
        goal("System calls per echo, `proto`, 10 connections", entry["per_echo"], 2.2)
        for entry in calls
        if (entry["loop"], entry["kind"], entry["concurrency"]) == (SUBJECT, "proto", 10)
    )
    return rows


def goal(name: str, measured: float, bound: float) -> list[str]:
    """A row of the table of goals."""
    return [name, f"{bound:.2f}", f"{measured:.2f}", "met" if measured <= bound else "missed"]


def goals_table(kinds: dict[str, dict[str, Any]]) -> str:
    """The table of goals, or why there is none."""
    rows = goals(kinds)
    return table(["goal", "at most", "measured", ""], rows) if rows else f"{SUBJECT} was not measured."


def main() -> None:
    """Render the report again."""
    parser = argparse.ArgumentParser(description="Render report.md from results/*.json.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results/ and report.md")
    print(render(parser.parse_args().out), file=sys.stderr)


if __name__ == "__main__":
    main()
