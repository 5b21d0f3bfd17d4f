"""`python -m spec`: run the conformance suite on loops, print the matrix area x loop, write the results as JSON.

Exits 0 only if no loop has a failure that its deviations do not declare, and no declared deviation is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from ._kit.clauses import areas

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "_results" / "run.json"


def main(arguments: list[str] | None = None) -> int:
    """Run with `arguments` (default: the command line); the exit status."""
    known = [area for area in areas(ROOT) if any((ROOT / area).glob("test_*.py"))]
    parser = argparse.ArgumentParser(
        prog="python -m spec",
        description="Run the conformance suite for asyncio event loops.",
        epilog="Anything after -- goes to pytest.",
    )
    parser.add_argument(
        "--area", action="append", metavar="AREA", help=f"only this one; repeatable: {', '.join(known)}"
    )
    parser.add_argument("--loop", action="append", metavar="NAME", help="loop by NAME or module:factory; repeatable")
    parser.add_argument(
        "--strict-loop", action="append", metavar="NAME", help="only this loop may fail the run; repeatable"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="PATH", help="results (default: %(default)s)")
    parser.add_argument(
        "--write-matrix",
        type=Path,
        nargs="?",
        const=ROOT / "MATRIX.md",
        metavar="PATH",
        help="write the matrix as Markdown (default: spec/MATRIX.md)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="a line per test")
    parser.add_argument("pytest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    chosen = options.area or known
    if unknown := [area for area in chosen if area not in known]:
        parser.error(f"no such area: {', '.join(unknown)}; there are {', '.join(known)}")
    if not chosen:
        parser.error(f"no area with tests below {ROOT}")
    command = [f"--rootdir={ROOT.parent}", "-v" if options.verbose else "-q", "-rfE", "--tb=short", "--spec-matrix"]
    command.append(f"--spec-json={options.json.resolve()}")
    command += [f"--loop={name}" for name in options.loop or []]
    command += [f"--strict-loop={name}" for name in options.strict_loop or []]
    if options.write_matrix:
        command.append(f"--spec-write-matrix={options.write_matrix.resolve()}")
    return int(pytest.main([*command, *options.pytest, *(str(ROOT / area) for area in chosen)]))


if __name__ == "__main__":
    sys.exit(main())
