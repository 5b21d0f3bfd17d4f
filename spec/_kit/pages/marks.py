"""What the suite has on a clause: tests that decide it, scripts that show a loop not to keep it, reports of users.

All of it is read from the sources; nothing is run.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from .. import reports
from ..clauses import Clause, areas, load_area

_DEVIANT = re.compile(r"^- (\S+) (\S+) \((\w[\w.]*:\w+)\) on CPython (\d[\d.]*\d)(?:: (.+))?$", re.MULTILINE)


@functools.lru_cache(maxsize=4)
def texts(root: Path) -> Mapping[str, Clause]:
    """Every clause of the suite in `root`, by id, in order. SpecError where a file is wrong. Read once."""
    return MappingProxyType({slug: clause for area in areas(root) for slug, clause in load_area(root, area).items()})


class Place(NamedTuple):
    """A test: the file below the suite, and the name of its function."""

    file: str
    name: str


class _Rule(NamedTuple):
    """A function of the contract of streams and the ends of the clauses it decides."""

    name: str
    rules: tuple[str, ...]


def find_tests(root: Path, slugs: Iterable[str]) -> dict[str, list[Place]]:
    """The tests of each of `slugs`, by their `@clause` marks, in the order of the files.

    A mark whose id is put together (`f"tls.broken.{name}"`) counts for the clauses it fits that have no other test. The
    tests that an area takes from a contract are named by the area's file.
    """
    wanted = list(dict.fromkeys(slugs))
    rules = [rule for path in sorted((root / "_kit").glob("contracts/rules/*.py")) for rule in _rules(_parse(path))]
    found: dict[str, dict[Place, None]] = {slug: {} for slug in wanted}
    loose: list[tuple[re.Pattern[str], Place]] = []
    for area in sorted({slug.partition(".")[0] for slug in wanted} & set(areas(root))):
        for path in sorted((root / area).glob("test_*.py")):
            tree = _parse(path)
            file = f"{area}/{path.name}"
            for name, exact, patterns in _marked(tree):
                for slug in exact & found.keys():
                    found[slug][Place(file, name)] = None
                loose += [(re.compile(pattern), Place(file, name)) for pattern in patterns]
            for taken in _contracts(tree):
                for rule in rules:
                    for slug in {f"{taken}.{end}" for end in rule.rules} & found.keys():
                        found[slug][Place(file, f"test_{rule.name}")] = None
    for slug, places in found.items():
        if not places:
            places.update(dict.fromkeys(place for pattern, place in loose if pattern.fullmatch(slug)))
    return {slug: list(places) for slug, places in found.items()}


class Deviant(NamedTuple):
    """A loop that does not keep what a script of evidence is about, and what it was seen with."""

    label: str
    version: str
    name: str
    """`module:factory`, the argument of the script."""
    python: str
    how: str
    """What it does instead, where not all loops do the same."""


def deviants(docstring: str) -> list[Deviant]:
    """The loops that the docstring of a script of evidence names.

    A line each: `- LABEL VERSION (MODULE:FACTORY) on CPython VERSION[: HOW]`.
    """
    return [Deviant(*match.groups("")) for match in _DEVIANT.finditer(docstring)]


def find_evidence(root: Path) -> dict[tuple[str, str], Path]:
    """The script that shows a deviation, by the loop's label in lower case and the clause.

    `evidence/<anything>.py` is about the clauses that its docstring names, and about the one it is named for; the loops
    are those that its docstring names (`deviants`).
    """
    known = texts(root).keys()
    found: dict[tuple[str, str], Path] = {}
    for path in sorted((root / "evidence").glob("*.py")):
        text = ast.get_docstring(_parse(path)) or ""
        named = {match.rstrip(".") for match in re.findall(r"[a-z][a-z0-9_.-]+", text)} | {path.stem}
        for loop in deviants(text):
            for slug in named & known:
                found.setdefault((loop.label.lower(), slug), path)
    return found


def find_reports(root: Path) -> dict[str, list[reports.Report]]:
    """What users reported of each clause, where the suite has a `reports.toml`. SpecError where that is wrong."""
    found: dict[str, list[reports.Report]] = {}
    path = root / "reports.toml"
    for report in reports.load(path, texts(root)) if path.exists() else ():
        for slug in report.clauses:
            found.setdefault(slug, []).append(report)
    return found


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _marked(tree: ast.Module) -> Iterator[tuple[str, set[str], list[str]]]:
    """Each marked test: name, ids of its marks, patterns of ids that are put together."""
    variables: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            variables |= {target.id: statement.value for target in statement.targets if isinstance(target, ast.Name)}
    scopes: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for scope in scopes:
        shared = scope.decorator_list if isinstance(scope, ast.ClassDef) else []
        for node in scope.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                exact: set[str] = set()
                patterns: list[str] = []
                for decorator in (*node.decorator_list, *shared):
                    marks = variables.get(decorator.id) if isinstance(decorator, ast.Name) else decorator
                    for argument in _arguments(marks, "clause"):
                        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                            exact.add(argument.value)
                        elif isinstance(argument, ast.JoinedStr):
                            patterns.append(_pattern(argument))
                if exact or patterns:
                    yield node.name, exact, patterns


def _rules(tree: ast.Module) -> Iterator[_Rule]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            arguments = [argument for decorator in node.decorator_list for argument in _arguments(decorator, "rule")]
            values = tuple(argument.value for argument in arguments if isinstance(argument, ast.Constant))
            if values:
                yield _Rule(node.name, tuple(map(str, values)))


def _contracts(tree: ast.Module) -> set[str]:
    """The areas for which a module takes the contract over."""
    values = (node.value for node in tree.body if isinstance(node, ast.Assign))
    first = (argument for value in values for argument in _arguments(value, "contract"))
    return {str(argument.value) for argument in first if isinstance(argument, ast.Constant)}


def _arguments(expression: ast.expr | None, function: str) -> Iterator[ast.expr]:
    """The positional arguments of all calls of `function` in an expression."""
    for node in ast.walk(expression) if expression is not None else ():
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == function:
            yield from node.args


def _pattern(string: ast.JoinedStr) -> str:
    """A pattern for what an f-string can become, as far as ids go."""
    parts = (re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[a-z0-9-]+" for part in string.values)
    return "".join(parts)
