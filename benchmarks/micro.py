"""CPU time of single operations on several event loops.

    python micro.py [CASE ...] [--quick] [--loops asyncio,uvloop,rloop,tokioloop] [--list]

Each sample is a process of its own, pinned to one CPU, that runs one case on one loop several times; the loops take
turns. The figure is the CPU time of the loop's thread per operation, so that waiting costs nothing: the minimum is
what the operation costs, the median shows how much the machine disturbs. Cases are in `cases.py`.

Writes `results/micro.json` and renders `report.md`.
"""

import argparse
import gc
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import loops
import results
from cases import CASES, Lateness, Meter
from server import use_cpu

# Longest that one sample may take, in seconds, before it counts as hung.
PATIENCE = 30


def sample(case_name: str, loop_name: str, seconds: float) -> dict[str, Any]:
    """Run one case on one loop for about that long, in this process: figures per repetition.

    Raises whatever the loop raises.
    """
    case = CASES[case_name]
    factory = loops.factory(loop_name)
    found: dict[str, Any] = {"thread": [], "process": [], "late": []}
    gc.freeze()
    deadline = time.monotonic() + seconds
    repetition = 0
    # The first repetition warms up; at least two more are kept.
    while repetition < 3 or time.monotonic() < deadline:
        loop = factory()
        meter = Meter()
        try:
            done = case.run(loop, case.count, meter)
        finally:
            loop.close()
        gc.collect()
        repetition += 1
        if repetition == 1:
            continue
        if isinstance(done, Lateness):
            found["late"] += [round(value, 1) for value in done.samples]
        else:
            found["thread"].append(round(meter.thread / done, 1))
            found["process"].append(round(meter.process / done, 1))
    return found


def measure(case_name: str, loop_name: str, seconds: float, cpu: int | None) -> dict[str, Any]:
    """`sample` in a fresh process. Raises RuntimeError with the last line it said."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        case_name,
        "--sample",
        loop_name,
        "--duration",
        str(seconds),
    ]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"hung for {PATIENCE} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout)


def summarise(case_name: str, rounds: list[dict[str, Any]], names: list[str], base: str) -> dict[str, Any]:
    """One entry of the report: per loop minimum, median and ratio; or the lateness."""
    case = CASES[case_name]
    late = any(entry["late"] for entry in rounds)
    summary = {"case": case_name, "title": case.title, "unit": "us late" if late else f"ns, {case.clock}", "loops": {}}
    best = {
        name: {entry["round"]: min(entry[case.clock]) for entry in rounds if entry["loop"] == name and not late}
        for name in names
    }
    for name in names:
        mine = [entry for entry in rounds if entry["loop"] == name]
        if not mine:
            continue
        if late:
            values = sorted(value for entry in mine for value in entry["late"])
            summary["loops"][name] = {
                "mean": round(fmean(values), 1),
                "p99": values[math.ceil(len(values) * 0.99) - 1],
                "max": values[-1],
                "earliest": values[0],
            }
            continue
        values = [value for entry in mine for value in entry[case.clock]]
        both = sorted(best[name].keys() & best[base].keys())
        pairs = {"mine": [best[name][number] for number in both], "": [best[base][number] for number in both]}
        summary["loops"][name] = {
            "min": min(values),
            "median": round(median(values), 1),
            "ratio": results.ratios(pairs, "").get("mine"),
        }
    return summary


def other_threads(found: list[dict[str, Any]]) -> list[str]:
    """A note for each case and loop whose process used markedly more CPU than the loop's thread."""
    notes = []
    for case_name, loop in dict.fromkeys((entry["case"], entry["loop"]) for entry in found):
        case = CASES[case_name]
        mine = [entry for entry in found if (entry["case"], entry["loop"]) == (case_name, loop) and entry["thread"]]
        if case.clock == "process" or not mine:
            continue
        thread = min(value for entry in mine for value in entry["thread"])
        process = min(value for entry in mine for value in entry["process"])
        if process > thread * 1.1:
            notes.append(f"{loop}, {case.title}: other threads add {process - thread:,.0f} ns.")
    return notes


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="CPU time of single event loop operations.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (all)")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--loops", default=loops.DEFAULT, help="NAME or module:factory, separated by commas")
    parser.add_argument("--rounds", type=int, help="rounds over all loops (7; quick: 3)")
    parser.add_argument("--duration", type=float, help="seconds of each sample (0.5; quick: 0.15)")
    parser.add_argument("--quick", action="store_true", help="a look within two minutes")
    parser.add_argument("--out", type=Path, default=results.HERE, help="folder for results/ and report.md")
    parser.add_argument("--sample", metavar="LOOP", help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)} (--list shows them)")
    options.cases = options.cases or list(CASES)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.duration = options.duration or (0.15 if options.quick else 0.5)
    if options.rounds < 1 or options.duration <= 0:
        parser.error("--rounds and --duration are positive")
    return options


def main() -> None:
    """Measure as the command line says."""
    options = arguments()
    if options.list:
        print("\n".join(f"{name:20} {case.title}" for name, case in CASES.items()))
        return
    if options.sample:
        use_cpu(options.cpu)
        print(json.dumps(sample(options.cases[0], options.sample, options.duration)))
        return
    versions = loops.available(loops.split(options.loops))
    names, place, cpus = list(versions), results.machine(), results.cpus()
    base = results.baseline(names)
    cpu = cpus[-1] if cpus else None
    found: list[dict[str, Any]] = []
    failed: dict[tuple[str, str], str] = {}
    for number in range(options.rounds):
        turn = names[number % len(names) :] + names[: number % len(names)]
        for case_name in options.cases:
            for name in turn:
                if (case_name, name) in failed:
                    continue
                entry = {"round": number, "case": case_name, "loop": name}
                try:
                    entry |= measure(case_name, name, options.duration, cpu)
                except RuntimeError as error:
                    failed[case_name, name] = f"{name}, {CASES[case_name].title}: {error}"
                else:
                    found.append(entry)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    summary = [
        summarise(case_name, [entry for entry in found if entry["case"] == case_name], names, base)
        for case_name in options.cases
    ]
    pinned = "pinned to one CPU" if cpu is not None else "not pinned"
    result = {
        "kind": "micro",
        "machine": place,
        "loops": versions,
        "baseline": base,
        "settings": {
            "how": f"{options.rounds} rounds of {options.duration:g} s per case and loop, {pinned}.",
            "quick": options.quick,
        },
        "notes": other_threads(found) + [f"{failure}." for failure in failed.values()],
        "summary": summary,
        "measurements": found,
    }
    results.save(options.out, "micro", result)
    for failure in failed.values():
        print(failure, file=sys.stderr)
    print(options.out / "report.md")


if __name__ == "__main__":
    main()
