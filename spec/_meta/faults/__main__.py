"""`python -m spec._meta.faults [MODULE ...]`: run each loop of the museum on the areas it touches, and write README.md.

Without arguments all modules are run, some minutes each. What was measured before is kept in `measured.json`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from spec._meta.faults import FOLDER, Fault, faults

SPEC = FOLDER.parent.parent
MEASURED = FOLDER / "measured.json"
PATIENCE = 8
"""Seconds of a test: what a loop has not done by then it will not do."""
Measured = dict[str, Any]
"""`failed`, clauses by id, and `not run`, their number."""
BROKEN = ("failed", "deviates")
TOP = """# The museum of faulty loops

Each loop is asyncio's with one habit changed. It fails the clause of its own, and of the others in the areas or files
given as many as the table says. Not counted is what stock asyncio fails beside it, and what was not run as the loop
had hung too often, for which there is a `+`. Made by `python -m spec._meta.faults`.

| Loop | What it does, and what it stands for | Clause | Others | In |
| --- | --- | --- | ---: | --- |
"""


def main(modules: list[str]) -> int:
    """Run the loops of `modules`, of all without any; the exit status."""
    known = faults()
    if unknown := set(modules) - {fault.module for fault in known}:
        print(f"no such module: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    measured: dict[str, Measured] = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    groups: dict[tuple[str, tuple[str, ...]], list[Fault]] = {}
    for fault in known:
        if not modules or fault.module in modules:
            groups.setdefault((fault.module, fault.areas), []).append(fault)
    for (module, areas), group in groups.items():
        print(f"{module}: {', '.join(fault.loop for fault in group)} on {', '.join(areas)}", flush=True)
        measured |= measure(module, areas, group)
        measured = {fault.loop: measured[fault.loop] for fault in known if fault.loop in measured}
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        (FOLDER / "README.md").write_text(table(known, measured), encoding="utf-8")
    missed = [fault for fault in known if fault.loop in measured and fault.clause not in measured[fault.loop]["failed"]]
    for fault in missed:
        print(f"{fault.loop} passes {fault.clause}", file=sys.stderr)
    return 1 if missed else 0


def measure(module: str, areas: tuple[str, ...], group: list[Fault]) -> dict[str, Measured]:
    """The clauses of `areas` that each loop of `group` fails, by loop."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "run.json"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-r", "", "--hypothesis-seed=0"]
        command += [f"--spec-timeout={PATIENCE}", f"--spec-json={results}"]
        command += ["--loop=asyncio", *(f"--loop={__package__}.{module}:{fault.loop}" for fault in group)]
        command += [str(SPEC / area) for area in areas]
        run = subprocess.run(command, cwd=SPEC.parent, capture_output=True, text=True, check=False)
        if run.returncode != pytest.ExitCode.TESTS_FAILED:
            raise RuntimeError(run.stdout + run.stderr)
        document = json.loads(results.read_text(encoding="utf-8"))
    # Beside them, as it is the machine that makes all of them fail what depends on time.
    known = {clause["id"] for clause in document["clauses"] if clause["outcomes"]["asyncio"]["outcome"] in BROKEN}
    found: dict[str, Measured] = {}
    for fault in group:
        reasons = {
            clause["id"]: clause["outcomes"][fault.loop]["reason"]
            for clause in document["clauses"]
            if clause["outcomes"][fault.loop]["outcome"] == "failed" and clause["id"] not in known
        }
        failed = [slug for slug, reason in reasons.items() if not reason.startswith("not run")]
        found[fault.loop] = {"failed": failed, "not run": len(reasons) - len(failed)}
    return found


def table(known: list[Fault], measured: dict[str, Measured]) -> str:
    """The page: a row for each loop, by module."""
    rows = []
    for fault in known:
        others = "not measured"
        if fault.loop in measured:
            own = measured[fault.loop]
            others = f"{len(set(own['failed']) - {fault.clause})}{'+' if own['not run'] else ''}"
        does = " ".join((inspect.getdoc(loop_of(fault)) or "").split())
        rows.append(f"| `{fault.loop}` | {does} | `{fault.clause}` | {others} | {', '.join(fault.areas)} |")
    return TOP + "\n".join(rows) + "\n"


def loop_of(fault: Fault) -> type:
    """The class of the loop."""
    found = getattr(importlib.import_module(f"{__package__}.{fault.module}"), fault.loop)
    assert isinstance(found, type)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
