"""What the measuring programs share: where they ran, and the files that they write.

Each kind of benchmark owns one file, `results/KIND.json`; report.py renders `report.md` from all that are there.
"""

import datetime as dt
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BASELINE = "uvloop"
SUBJECT = "tokioloop"
COALESCING = "tokioloop:new_coalescing_event_loop"
LIMIT = "C"


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


def save(out: Path, kind: str, result: dict[str, Any]) -> None:
    """Write `results/KIND.json`. Raises OSError."""
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.json").write_text(as_json(result))


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


def load(out: Path) -> dict[str, dict[str, Any]]:
    """Every file of results that is there, by kind. Raises OSError, ValueError."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))}
