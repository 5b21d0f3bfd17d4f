"""The command: `loopspec` where the suite is installed, `python -m spec` in a checkout.

`run` (which may be left out) runs the suite on loops by pytest, prints the matrix area x loop and writes the results as
JSON. It exits 0 only if every loop asked for could be had, none has a failure that its deviations do not declare, and
no declared deviation is stale; 1 if that is not so; otherwise as pytest does (2 interrupted, 4 wrong arguments).

Installed, it does not depend on where it is run: pytest reads no configuration of the project and loads none of the
plugins that are there, and nothing is written but to the current folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .. import __version__
from .clauses import LEVELS, areas
from .cli_pages import add_commands
from .deviations import MANIFEST
from .isolation import without_orphans

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = __name__.partition(".")[0]
IS_CHECKOUT = (ROOT / "_meta").is_dir()
"""The suite's own tests are not installed."""
PROGRAM = f"python -m {PACKAGE}" if IS_CHECKOUT else PACKAGE
WRITTEN = Path(".loopspec")
"""The folder, in the current one, that an installed suite writes to."""
RESULTS = ROOT / "_results" / "run.json" if IS_CHECKOUT else WRITTEN / "run.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: those of the process); its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    if not given or given[0] not in (*commands, "-h", "--help", "--version"):
        given.insert(0, "run")
    # Not left to argparse, whose treatment of -- before a command differs from version to version.
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:end])
    options.pytest = given[end + 1 :]
    # Called by somebody else, this process has children that are not of the run.
    with without_orphans() if arguments is None else contextlib.nullcontext():
        status: int = options.run(options)
    return status


def run(options: argparse.Namespace) -> int:
    """Run the suite as `options` say; pytest's exit status."""
    _find_loops_here()
    try:
        command = [] if IS_CHECKOUT else _undisturbed()
    except OSError as error:
        print(f"{PROGRAM}: {error.filename}: {error.strerror}", file=sys.stderr)
        return int(pytest.ExitCode.USAGE_ERROR)
    command += [f"--rootdir={ROOT.parent}", "-v" if options.verbose else "-q", "-rfE", "--tb=short", "--spec-matrix"]
    command += ["--spec-progress"] if not options.verbose else []
    command += ["--spec-patient"] if options.patient else []
    command += [f"--spec-workers={options.workers}"] if options.workers else []
    command.append(f"--spec-json={options.json.resolve()}")
    command += [f"--loop={name}" for name in options.loop]
    command += [f"--strict-loop={name}" for name in options.strict_loop]
    command += [f"--deviations={path.resolve()}" for path in options.deviations]
    if options.level:
        command.append(f"--spec-level={options.level}")
    if options.junit:
        command.append(f"--junitxml={options.junit.resolve()}")
    paths = [str(ROOT / area) for area in options.area or _areas_with_tests()]
    return int(pytest.main([*command, *options.pytest, *paths]))


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser, and the names of its commands. Each command sets `run`, a function of the options, as a default."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A conformance suite for asyncio event loops.",
        epilog=f"`{PROGRAM} COMMAND --help` tells the options of a command; without a command, it is run.",
    )
    parser.add_argument("--version", action="version", version=f"loopspec {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    add_commands(commands)
    return parser, list(commands.choices)


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    known = _areas_with_tests()
    parser = commands.add_parser(
        "run",
        help="run the suite on loops",
        description="Run the suite on loops, print the matrix area x loop, write the results.",
        epilog="Anything after -- goes to pytest.",
    )
    parser.add_argument(
        "--loop",
        action="append",
        default=[],
        metavar="NAME",
        help=f"a loop: NAME (= NAME:new_event_loop) or module:factory; repeatable (default: those of {MANIFEST})",
    )
    parser.add_argument(
        "--strict-loop", action="append", default=[], metavar="NAME", help="only this loop may fail the run; repeatable"
    )
    parser.add_argument(
        "--area",
        action="append",
        choices=known,
        metavar="AREA",
        help=f"only this one; repeatable: {', '.join(known)}",
    )
    parser.add_argument("--level", choices=LEVELS, help="only what decides a clause of this level or of a stricter one")
    parser.add_argument(
        "--deviations",
        action="append",
        default=[],
        type=Path,
        metavar="F",
        help=f"a manifest of deviations; repeatable (default: {MANIFEST} here, where there is one)",
    )
    parser.add_argument(
        "-n", "--workers", type=int, metavar="N", help="processes that run tests at once (default: one more than CPUs)"
    )
    parser.add_argument(
        "--patient", action="store_true", help="run all of each area, however many of its tests hang or crash"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="F", help="the results (default: %(default)s)")
    parser.add_argument("--junit", type=Path, metavar="F", help="the results as JUnit XML, for CI")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line per test")
    parser.set_defaults(run=run)


def _areas_with_tests() -> list[str]:
    return [area for area in areas(ROOT) if any((ROOT / area).glob("test_*.py"))]


def _find_loops_here() -> None:
    """A loop in the current folder is found, as it is by `python -m`."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _undisturbed() -> list[str]:
    """Arguments that keep pytest apart from the project that it is run in, and from its plugins."""
    WRITTEN.mkdir(exist_ok=True)
    ignore = WRITTEN / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str((WRITTEN / "hypothesis").resolve()))
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ.pop("PYTEST_PLUGINS", None)
    return [
        f"--config-file={ROOT / '_kit' / 'installed.ini'}",
        f"--confcutdir={ROOT}",
        "--disable-plugin-autoload",
        "-phypothesispytest",
        "-o",
        f"cache_dir={(WRITTEN / 'cache').resolve()}",
    ]
