"""CPU time of single operations on several event loops.

    python micro.py [CASE ...] [--full] [--quick] [--minutes N] [--loops asyncio,uvloop,...] [--list]

Each sample is a process of its own, pinned to one CPU, that runs one case on one loop several times, fresh and again
after a large block was freed (allocator.py); the loops take turns. The figure is the CPU time of the loop's thread
per operation, so that waiting costs nothing, and of a sample the least of its repetitions. Cases are in `cases*.py`;
those with much to set up are run once per state, and in the first round only, but with `--full`.

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
from statistics import fmean
from typing import Any

import allocator
import cases_io  # noqa: F401 - they register themselves
import loops
import report
import results
from cases import CASES, Lateness, Meter
from server import use_cpu

# Longest that one sample may take, in seconds, before it counts as hung.
PATIENCE = 30


def sample(case_name: str, loop_name: str, seconds: float) -> dict[str, Any]:
    """Run one case on one loop in this process, in each state for about that long: figures by state.

    Raises whatever the loop raises.
    """
    factory = loops.factory(loop_name)
    found = {}
    gc.freeze()
    for state in allocator.STATES:
        if state == allocator.FREED:
            allocator.free_large_block()
        # The first repetition of all warms up.
        found[state] = repeated(case_name, factory, seconds, warm=state == allocator.FRESH)
    return found


def repeated(case_name: str, factory: Any, seconds: float, *, warm: bool) -> dict[str, Any]:
    """Figures of a case: the least of at least two repetitions, unless it is heavy."""
    case = CASES[case_name]
    if case.heavy:
        seconds, warm = 0, False
    thread, process, late = [], [], []
    least = 1 if case.heavy else 2
    deadline = time.monotonic() + seconds
    while warm or len(thread) < least or time.monotonic() < deadline:
        loop = factory()
        meter = Meter()
        try:
            done = case.run(loop, case.count, meter)
        finally:
            loop.close()
        gc.collect()
        if warm:
            warm = False
        elif isinstance(done, Lateness):
            late += done.samples
            if time.monotonic() >= deadline:
                break
        else:
            thread.append(meter.thread / done)
            process.append(meter.process / done)
    if late:
        late.sort()
        figures = {
            "figure": fmean(late),
            "p99": late[math.ceil(len(late) * 0.99) - 1],
            "max": late[-1],
            "earliest": late[0],
        }
    else:
        figures = {"figure": min(process if case.clock == "process" else thread), "process": min(process)}
    return {key: round(value, 1) for key, value in figures.items()}


def measure(case_name: str, loop_name: str, seconds: float, cpu: int | None) -> dict[str, Any]:
    """`sample` in a new process. Raises RuntimeError with the last line it said."""
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
        patience = PATIENCE * 4 if CASES[case_name].heavy else PATIENCE
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"hung for {patience} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout)


def other_threads(found: list[dict[str, Any]]) -> list[str]:
    """A note for each case and loop whose process used markedly more CPU than the loop's thread."""
    least: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for entry in found:
        figures = entry.get("states", {}).get(allocator.FRESH, {})
        if "process" in figures and CASES[entry["case"]].clock == "thread":
            least.setdefault((entry["case"], entry["loop"]), []).append((figures["figure"], figures["process"]))
    notes = []
    for (case_name, loop), pairs in least.items():
        thread, process = (min(values) for values in zip(*pairs, strict=True))
        if process > thread * 1.1:
            notes.append(f"{loop}, {CASES[case_name].title}: other threads add {process - thread:,.0f} ns.")
    return notes


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="CPU time of single event loop operations.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (all)")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--loops", help="NAME or module:factory, separated by commas")
    parser.add_argument("--full", action="store_true", help="every loop, longer samples")
    parser.add_argument("--rounds", type=int, help="rounds over everything, at most (20)")
    parser.add_argument("--minutes", type=float, help="begin no round that would end later; one is always made")
    parser.add_argument(
        "--duration", type=float, help="seconds of each sample and state (0.05; full: 0.3; quick: 0.03)"
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path, default=results.HERE, help="folder for results/ and report.md")
    parser.add_argument("--sample", metavar="LOOP", help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)} (--list shows them)")
    options.cases = options.cases or list(CASES)
    options.loops = options.loops or (loops.ALL if options.full else loops.DEFAULT)
    options.rounds = options.rounds or (1 if options.quick else 20)
    options.duration = options.duration or (0.03 if options.quick else 0.3 if options.full else 0.05)
    if options.rounds < 1 or options.duration <= 0:
        parser.error("--rounds and --duration are positive")
    return options


def one_round(number: int, names: list[str], options: argparse.Namespace, skip: set[tuple[str, str]]) -> list[dict]:
    """Each case on each loop. A pair that failed is not tried again."""
    cpus, found = results.cpus(), []
    turn = names[number % len(names) :] + names[: number % len(names)]
    for case_name in options.cases:
        if CASES[case_name].heavy and number and not options.full:
            continue
        for name in turn:
            if (case_name, name) in skip:
                continue
            entry = {
                "round": number,
                "label": CASES[case_name].title,
                "concurrency": 1,
                "case": case_name,
                "loop": name,
            }
            try:
                entry["states"] = measure(case_name, name, options.duration, cpus[-1] if cpus else None)
            except RuntimeError as error:
                entry["error"] = str(error)
                skip.add((case_name, name))
                print(f"  {name}, {entry['label']}: {error}", file=sys.stderr, flush=True)
            found.append(entry)
    return found


def main() -> None:
    """Measure as the command line says."""
    options = arguments()
    if options.list:
        print("\n".join(f"{name:24} {case.title}" for name, case in CASES.items()))
        return
    if options.sample:
        use_cpu(options.cpu)
        print(json.dumps(sample(options.cases[0], options.sample, options.duration)))
        return
    began, left_out = time.monotonic(), {}
    versions = loops.available(loops.split(options.loops), left_out=left_out)
    place = results.machine()
    found: list[dict[str, Any]] = []
    skip: set[tuple[str, str]] = set()
    last = 0.0
    for number in range(options.rounds):
        start = time.monotonic()
        if number and options.minutes and start + last - began > options.minutes * 60:
            break
        found += one_round(number, list(versions), options, skip)
        pinned = "pinned to one CPU" if results.cpus() else "not pinned"
        result = {
            "kind": "micro",
            "machine": place,
            "loops": versions,
            "settings": {
                "how": f"{number + 1} round{'s' * (number > 0)} of {options.duration:g} s per case, loop and state, "
                f"{pinned}.",
                "quick": options.quick,
            },
            "notes": other_threads(found) + [f"{name}: left out ({why})" for name, why in left_out.items()],
            "measurements": found,
        }
        results.save(options.out, "micro", result)
        last = time.monotonic() - start
        print(f"round {number + 1}: {last:.0f} s", file=sys.stderr, flush=True)
    print(report.render(options.out))
    if skip:
        raise SystemExit(f"{len(skip)} cases failed: the report says which")


if __name__ == "__main__":
    main()
