"""The commands that show results and the specification: matrix, clauses, explain, badge.

`add_commands(subparsers)` puts them into a command of many; each parser has `run`, a function that takes the parsed
options and returns the exit status: 0, or 2 where a file, a loop or a clause is not what was asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pages import Report

ROOT = Path(__file__).resolve().parent.parent
RESULT_FOLDERS = (Path(".loopspec"), ROOT / "_results")
"""Where runs leave their results: below the current folder, and in a checkout."""

_NEWEST = "default: the newest results there are"
_Run = Callable[[argparse.Namespace], int]


def add_commands(subparsers: Any) -> None:
    """Add the commands to what `ArgumentParser.add_subparsers` returned."""
    matrix = subparsers.add_parser(
        "matrix",
        help="show results: areas x loops",
        description="Show the results of one or several runs together: areas x loops, one column per loop and Python.",
    )
    matrix.add_argument("results", nargs="*", type=Path, metavar="FILE", help=f"of `run --json`; {_NEWEST}")
    matrix.add_argument("--html", type=Path, metavar="DIR", help="write a static site")
    matrix.add_argument("--md", type=Path, metavar="FILE", help="write Markdown")
    _set_run(matrix, _matrix)

    clauses = subparsers.add_parser("clauses", help="show the specification", description="The written specification.")
    clauses.add_argument("area", nargs="?", metavar="AREA", help="only this one (default: all)")
    clauses.add_argument("--html", type=Path, metavar="DIR", help="write it as a static site instead")
    _set_run(clauses, _clauses)

    explain = subparsers.add_parser(
        "explain",
        help="explain one clause",
        description="One clause: rule, citation, quote, tests, and its last outcome.",
    )
    explain.add_argument("clause", metavar="CLAUSE", help="such as tcp.close.flushes-before-lost")
    explain.add_argument("--results", type=Path, metavar="FILE", help=f"whose outcomes; {_NEWEST}")
    _set_run(explain, _explain)

    badge = subparsers.add_parser(
        "badge",
        help="make a loop's badge",
        description="The badge of a loop, by its musts: an SVG, and the JSON that shields' endpoint badge reads.",
    )
    badge.add_argument("results", nargs="?", type=Path, metavar="FILE", help=f"of `run --json`; {_NEWEST}")
    badge.add_argument("--loop", metavar="LABEL", help="which, where the results have several")
    badge.add_argument("--svg", type=Path, metavar="FILE", help="write the SVG")
    badge.add_argument("--json", type=Path, metavar="FILE", help="write the JSON")
    _set_run(badge, _badge)


def main(arguments: Sequence[str] | None = None) -> int:
    """These commands alone, with `arguments` (default: the command line); the exit status."""
    parser = argparse.ArgumentParser(description="Show results of the conformance suite, and the specification.")
    add_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _set_run(parser: argparse.ArgumentParser, function: _Run) -> None:
    """Have a parser run `function`, with one line for what the user got wrong."""

    def run(options: argparse.Namespace) -> int:
        from .pages import DocumentError
        from .pages.text import UnknownClauseError

        try:
            return function(options)
        except (DocumentError, UnknownClauseError) as error:
            said = str(error)
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"{parser.prog}: {said}", file=sys.stderr)
        return 2

    parser.set_defaults(run=run)


def _matrix(options: argparse.Namespace) -> int:
    from . import matrix
    from .pages import Report, read_document, write_html, write_markdown

    documents = [read_document(path) for path in options.results] or [_newest()]
    if options.html:
        print(f"wrote {write_html(documents, options.html)}")
    if options.md:
        write_markdown(documents, options.md)
        print(f"wrote {options.md}")
    if not options.html and not options.md:
        print(matrix.render_report(Report(documents)))
    return 0


def _clauses(options: argparse.Namespace) -> int:
    from .pages import write_specification
    from .pages.text import clauses_text

    text = clauses_text(options.area)
    if options.html:
        print(f"wrote {write_specification(options.html, [options.area] if options.area else [])}")
    else:
        _print_long(text)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from .pages.text import explain

    print(explain(options.clause, _last_results(options.results)))
    return 0


def _badge(options: argparse.Namespace) -> int:
    from .pages import Report, read_document
    from .pages.badge import badge_of

    document = read_document(options.results) if options.results else _newest()
    badge = badge_of(Report([document]), options.loop)
    for target, text in ((options.svg, badge.svg()), (options.json, badge.endpoint())):
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(f"wrote {target}")
    if not options.svg and not options.json:
        print(badge.alt)
    return 0


def _print_long(text: str) -> None:
    """Print; a reader that goes away, such as `head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        sys.stdout = None  # or the interpreter would flush it once more, and complain


def _newest() -> dict[str, Any]:
    from .pages import DocumentError
    from .pages.document import newest_document

    document = newest_document(RESULT_FOLDERS)
    if document is None:
        raise DocumentError("no results: name a file of `run --json`, or run first")
    return document


def _last_results(path: Path | None) -> Report | None:
    """The results asked for, else the newest ones; None where there are none."""
    from .pages import Report, read_document
    from .pages.document import newest_document

    document = read_document(path) if path is not None else newest_document(RESULT_FOLDERS)
    return Report([document]) if document is not None else None


if __name__ == "__main__":
    sys.exit(main())
