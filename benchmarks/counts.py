"""Instructions per operation of the hot paths, counted by valgrind: a regression check that noise cannot touch.

    python counts.py [PATH ...]             counts, and compares with counts.json
    python counts.py --update               counts, and writes counts.json

Each path is a case of cases*.py, run n and 2n times in processes of their own under callgrind: the difference is what n
operations cost in user space, the interpreter's part included. The kernel's part is not counted, nor is a stall. What
grew by more than the tolerance is named, and the command fails. Counts of another interpreter, machine or valgrind are
shown beside those of counts.json, but not judged. It takes a release build (`make release`): counts of a development
build mean nothing.
"""

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cases_io  # noqa: F401 - they register themselves
import loops
from cases import CASES, Meter

COMMITTED = Path(__file__).with_name("counts.json")
SUBJECT = "tokioloop"
# A path grew when it takes this many times what it did.
TOLERANCE = 1.02
# Cases and how many operations, of which twice as many are run, too.
PATHS = {
    "call_soon_chain": 4000,
    "call_later_cancel": 4000,
    "protocol_1_kib": 1000,
    "streams_1_kib": 500,
    "datagram_1_kib": 1000,
    "sock_ping_pong": 1000,
    "tls_1_kib": 1000,
}


class NoCountError(Exception):
    """Nothing can be counted here; says why."""


def tools() -> dict[str, str]:
    """What a count depends on beside the sources. Raises NoCountError."""
    if shutil.which("valgrind") is None:
        raise NoCountError("valgrind is not installed")
    version = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"python": platform.python_version(), "machine": platform.machine(), "valgrind": version}


def require_release() -> None:
    """Raises NoCountError for a development build, which alone has failpoints, and where there is no build."""
    try:
        from tokioloop import _tokioloop
    except ImportError as error:
        raise NoCountError(f"{SUBJECT} is not built: {error}") from error
    if hasattr(_tokioloop, "panic_next_event"):
        raise NoCountError(f"this is a development build of {SUBJECT}: make release")


def collected(text: str) -> int:
    """The number of instructions in what callgrind says. Raises RuntimeError where there is none."""
    found = re.search(r"Collected : (\d+)", text)
    if found is None:
        raise RuntimeError((text.strip().splitlines() or ["valgrind said nothing"])[-1])
    return int(found[1])


def run(path: str, count: int, *, counted: bool = True) -> str:
    """What callgrind says of a process that runs a path so many times. Raises RuntimeError."""
    command = [sys.executable, __file__, path, "--sample", str(count)]
    if counted:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    # Python's hashes are by chance otherwise, and so are the collisions in its dicts.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("==")]
        raise RuntimeError((lines or done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return done.stderr


def count_of(path: str) -> float:
    """Instructions per operation. Raises RuntimeError."""
    number = PATHS[path]
    run(path, 1, counted=False)  # what is imported is compiled to bytecode once, and then is no longer
    return round((collected(run(path, 2 * number)) - collected(run(path, number))) / number, 1)


def sample(path: str, count: int) -> None:
    """Run a path in this process, without collections of garbage in between."""
    loop = loops.factory(SUBJECT)()
    gc.disable()
    CASES[path].run(loop, count, Meter())
    loop.close()
    sys.stdout.flush()
    os._exit(0)  # what the interpreter does at its end is not counted


def compared(found: dict[str, float], committed: dict[str, Any], here: dict[str, str]) -> tuple[list[str], list[str]]:
    """Lines that tell of each path, and the paths that grew; none is judged by counts that were made elsewhere."""
    known = committed.get("instructions", {})
    same = committed.get("tools") == here
    lines, grown = [], []
    for path, count in found.items():
        before = known.get(path)
        ratio = count / before if before else None
        told = "new" if ratio is None else f"{ratio:.3f} of {before:,.1f}"
        if same and ratio is not None and ratio > TOLERANCE:
            grown.append(path)
            told += ", which is more"
        elif same and ratio is not None and ratio < 1 / TOLERANCE:
            told += ", which is less: --update keeps it so"
        lines.append(f"{path:<20} {count:>12,.1f}  {told}")
    if known and not same:
        lines.append(f"not judged: {COMMITTED.name} is of {committed.get('tools')}, this is {here}")
    return lines, grown


def main() -> None:
    """Count as the command line says."""
    parser = argparse.ArgumentParser(description="Instructions per operation of the hot paths.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"which (all): {', '.join(PATHS)}")
    parser.add_argument("--update", action="store_true", help=f"write {COMMITTED.name}")
    parser.add_argument("--sample", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [path for path in options.paths if path not in PATHS]:
        parser.error(f"no such path: {', '.join(unknown)}")
    if options.sample:
        sample(options.paths[0], options.sample)
    try:
        here = tools()
        require_release()
    except NoCountError as error:
        print(f"instructions not counted: {error}")
        return
    found = {}
    for path in options.paths or PATHS:
        try:
            found[path] = count_of(path)
        except RuntimeError as error:
            raise SystemExit(f"{path}: {error}") from error
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    lines, grown = compared(found, committed, here)
    print("\n".join(lines))
    if options.update:
        known = committed.get("instructions", {}) if committed.get("tools") == here else {}
        COMMITTED.write_text(json.dumps({"tools": here, "instructions": {**known, **found}}, indent=2) + "\n")
    elif grown:
        raise SystemExit(f"more instructions than {COMMITTED.name} has: {', '.join(grown)}")


if __name__ == "__main__":
    main()
