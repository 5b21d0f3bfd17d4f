"""Deviations: the clauses a loop is known not to keep, and why, in `spec/deviations/<label>.toml`.

Strict both ways: a failure that no deviation declares fails the run, and so does a deviation whose tests all pass.
`[[leak]]` entries beside them name what a loop leaves behind whatever the test: it fails none, and is stale where a run
of the whole suite does not meet it. `[[cpython]]` entries name tests of CPython's own test_asyncio that a loop does not
pass (`cpython_tests`).

An entry is for one clause, or for all that have one cause: `clauses` has ids, and patterns in which `*` stands for
anything, but for those of `except`. Each clause is judged by itself. An entry that names one by its id comes before one
that has it by a pattern.

A manifest is such a file in the repository of a loop's author, `loopspec.toml` in the current folder or another one by
`--deviations`. Its `loops` are whom it speaks for: what it declares comes before what the suite's own file declares,
and with it a stale entry of the suite's file is told, but fails no run, as its reader cannot mend that.
"""

from __future__ import annotations

import fnmatch
import functools
import operator
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clauses import SpecError, areas, check_keys, load_area, read_tables
from .loops import LoopUnderTest

MANIFEST = "loopspec.toml"
"""The manifest that is read where none is named, in the current folder."""
ROOT = Path(__file__).resolve().parent.parent
_REQUIRED = {"reason": str}
_OPTIONAL = {"clause": str, "clauses": list, "except": list}
_TERMS = {"since": str, "loop_version": str, "python": str, "platform": str, "hangs": bool, "intermittent": bool}
_TABLES = ("deviation", "leak", "cpython")
_LEAK = {"what": str, "reason": str}
_CPYTHON = {"test": str, "reason": str}
_CPYTHON_OPTIONAL = {"since": str, "until": str, "platform": str}
_COMPARE = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Deviation:
    """One clause a loop does not keep.

    `loop_version` and `python` (such as `">=3.12,<3.14"`) and `platform` (a `sys.platform`) narrow where it holds.
    `hangs`: its tests are given 3 s only. `intermittent`: it may also pass, so it is never stale. `by_pattern`: its
    entry does not name it by its id.
    """

    clause: str
    reason: str
    since: str = ""
    loop_version: str = ""
    python: str = ""
    platform: str = ""
    hangs: bool = False
    intermittent: bool = False
    by_pattern: bool = False

    def applies(self, loop_version: str) -> bool:
        """Does it hold for this version of the loop, on this Python and platform?"""
        return (
            (not self.platform or self.platform == sys.platform)
            and matches(self.loop_version, loop_version)
            and matches(self.python, ".".join(map(str, sys.version_info[:3])))
        )


@dataclass(frozen=True)
class Manifest:
    """A file of deviations that names the `loops` they are of, as `--loop` takes them."""

    path: Path
    loops: tuple[str, ...]
    declared: tuple[Deviation, ...] = ()

    @classmethod
    def read(cls, path: Path, root: Path) -> Manifest:
        """SpecError where it is not well-formed, or names a clause that the suite at `root` does not have."""
        declared = load(path, root)
        try:
            names = tomllib.loads(path.read_text(encoding="utf-8")).get("loops")
        except OSError as error:
            raise SpecError(f"{path}: {error}") from error
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise SpecError(f"{path}: 'loops' must be a list of the loops whose deviations these are")
        for area in areas(root):
            known = load_area(root, area)
            for deviation in declared:
                if deviation.clause.partition(".")[0] == area and deviation.clause not in known:
                    raise SpecError(f"{path}: there is no clause {deviation.clause}")
        return cls(path, tuple(names), tuple(declared))

    def speaks_for(self, loop: LoopUnderTest) -> bool:
        """Are these the deviations of `loop`?"""
        return any(loop.is_called(name) for name in self.loops)

    def deviations_of(self, loop: LoopUnderTest) -> dict[str, Deviation]:
        """The deviations that hold for `loop` here, by clause."""
        return {deviation.clause: deviation for deviation in self.declared if deviation.applies(loop.version)}


def deviations_of(root: Path, loop: LoopUnderTest) -> dict[str, Deviation]:
    """The deviations that hold for `loop` here, by clause."""
    declared = load(path_of(root, loop.label), root)
    return {deviation.clause: deviation for deviation in declared if deviation.applies(loop.version)}


def path_of(root: Path, label: str) -> Path:
    """The file of the deviations of the loop with this label."""
    return root / "deviations" / f"{label.lower()}.toml"


def load(path: Path, root: Path = ROOT) -> list[Deviation]:
    """Every clause that one file declares, those of patterns first; none where there is no file.

    Patterns stand for clauses of the suite at `root`. SpecError where the file is wrong.
    """
    if not path.exists():
        return []
    leaks(path)
    cpython_tests(path)
    entries = read_tables(path, *_TABLES, beside="loops")[0]
    declared = [deviation for entry in entries for deviation in _parse(path, root, entry)]
    return sorted(declared, key=lambda deviation: not deviation.by_pattern)


def leaks_of(root: Path, loop: LoopUnderTest) -> list[str]:
    """What `loop` is known to leave behind: patterns in which `*` stands for anything."""
    return leaks(path_of(root, loop.label))


def leaks(path: Path) -> list[str]:
    """The `[[leak]]` entries of one file; none where there is no file. SpecError where one is wrong."""
    if not path.exists():
        return []
    entries = read_tables(path, *_TABLES, beside="loops")[1]
    for entry in entries:
        check_keys(f"{path}: [[leak]]", entry, _LEAK, {})
    return [entry["what"] for entry in entries]


def cpython_tests(path: Path) -> list[dict[str, str]]:
    """The `[[cpython]]` entries of one file, each with test and reason; none where there is no file.

    `since` and `until` are the first and last CPython version an entry is for, `platform` what `sys.platform` starts
    with. SpecError where an entry is wrong or its test stands twice.
    """
    if not path.exists():
        return []
    entries = read_tables(path, *_TABLES, beside="loops")[2]
    tests = [entry.get("test") for entry in entries]
    for entry in entries:
        where = f"{path}: {entry.get('test', 'a [[cpython]] entry')}"
        check_keys(where, entry, _CPYTHON, _CPYTHON_OPTIONAL)
        if tests.count(entry["test"]) > 1:
            raise SpecError(f"{where}: is there twice")
        for name in ("since", "until"):
            if name in entry and not re.fullmatch(r"3(\.\d+){1,2}", entry[name]):
                raise SpecError(f"{where}: {name} {entry[name]!r} is no CPython version")
    return entries


def matches(condition: str, version: str) -> bool:
    """Does `version` satisfy every part of `condition`, such as `">=3.12,<3.14"`? An empty one is satisfied."""
    parts = [part.strip() for part in condition.split(",") if part.strip()]
    return all(_matches(part, version) for part in parts)


def _matches(part: str, version: str) -> bool:
    found = re.fullmatch(r"(>=|<=|==|<|>)\s*(\d+(?:\.\d+)*)", part)
    if not found:
        raise SpecError(f"condition {part!r}: expected a comparison and a version, such as '>=3.12'")
    wanted = tuple(int(number) for number in found[2].split("."))
    actual = tuple(int(number) for number in re.findall(r"\d+", version))[: len(wanted)]
    actual += (0,) * (len(wanted) - len(actual))
    return bool(_COMPARE[found[1]](actual, wanted))


def _parse(path: Path, root: Path, entry: dict[str, Any]) -> list[Deviation]:
    named = entry["clauses"] if "clauses" in entry else [entry.get("clause", "an entry")]
    where = f"{path}: {str(named[0]) if isinstance(named, list) and named else 'an entry'}"
    check_keys(where, entry, _REQUIRED, _OPTIONAL | _TERMS)
    excepted = entry.get("except", [])
    if not all(isinstance(slug, str) and slug for slug in (*named, *excepted)) or not named:
        raise SpecError(f"{where}: 'clauses' and 'except' are lists of ids and patterns")
    if "clause" in entry and ("clauses" in entry or "except" in entry or "*" in entry["clause"]):
        raise SpecError(f"{where}: 'clause' is one id; several, or patterns, are 'clauses'")
    if "clause" not in entry and "clauses" not in entry:
        raise SpecError(f"{where}: 'clause' or 'clauses' is missing")
    try:
        for condition in ("loop_version", "python"):
            matches(entry.get(condition, ""), "0")
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
    terms = {key: value for key, value in entry.items() if key in _TERMS}
    patterns = [slug for slug in named if "*" in slug]
    exact = [slug for slug in named if slug not in patterns]
    found = {slug: True for pattern in patterns for slug in _matched(where, pattern, root)} | dict.fromkeys(
        exact, False
    )
    for pattern in excepted:
        matched = fnmatch.filter(found, pattern)
        if not matched:
            raise SpecError(f"{where}: {pattern!r} excepts nothing")
        for slug in matched:
            del found[slug]
    return [
        Deviation(clause=slug, reason=entry["reason"], by_pattern=by_pattern, **terms)
        for slug, by_pattern in found.items()
    ]


def _matched(where: str, pattern: str, root: Path) -> list[str]:
    if set("?[") & set(pattern):
        raise SpecError(f"{where}: {pattern!r}: only '*' stands for something in a pattern")
    matched = fnmatch.filter(_ids(root), pattern)
    if not matched:
        raise SpecError(f"{where}: {pattern!r} matches no clause")
    return matched


@functools.cache
def _ids(root: Path) -> tuple[str, ...]:
    return tuple(slug for area in areas(root) for slug in load_area(root, area))
