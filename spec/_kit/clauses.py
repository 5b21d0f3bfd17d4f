"""Clauses: the rules a loop is held to, read from `spec/<area>/clauses.toml`, and the mark that ties a test to them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

LEVELS = ("must", "should", "may")
SLUG = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*){2}")
_REQUIRED = {"id": str, "level": str, "rule": str, "cite": str, "since": str}
_OPTIONAL = {"quote": str, "permits": list, "covers": list}
_SHARED = {"of": str, "rules": list}


class SpecError(Exception):
    """A file of the suite is not well-formed; the message names the file and the entry."""


@dataclass(frozen=True)
class Clause:
    """One rule: what it says, how binding it is, and where that is written.

    `permits` are the outcomes between which a loop may choose, `covers` the names of asyncio that it decides beside
    those that its citation and its rule tell (`surface`).
    """

    id: str
    area: str
    level: str
    rule: str
    cite: str
    since: str
    quote: str = ""
    permits: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()

    @property
    def since_version(self) -> tuple[int, ...]:
        """The first CPython version that has the rule, as a tuple that compares with `sys.version_info`."""
        return tuple(int(part) for part in self.since.split("."))


def clause(*ids: str) -> pytest.MarkDecorator:
    """Say which clauses a test decides. TypeError without an id or with one that is not a string."""
    if not ids or not all(isinstance(slug, str) for slug in ids):
        raise TypeError("clause() takes one or several clause ids")
    return pytest.mark.clause(*ids)


def areas(root: Path) -> list[str]:
    """The areas below `root`: every directory with a `clauses.toml`, by name."""
    return sorted(path.parent.name for path in root.glob("[!_.]*/clauses.toml"))


def load_area(root: Path, area: str) -> dict[str, Clause]:
    """The clauses of one area by id; none where it has no `clauses.toml`. SpecError where the file is wrong.

    A `[[contract]]` takes over clauses of another area, which runs the same tests: `of` names it, `rules` the ends of
    their ids. Text, level and citation are the same.
    """
    path = root / area / "clauses.toml"
    if not path.exists():
        return {}
    own, shared = read_tables(path, "clause", "contract")
    clauses = [_parse(path, area, entry) for entry in own]
    for entry in shared:
        clauses += _take_over(root, path, area, entry)
    found: dict[str, Clause] = {}
    for made in clauses:
        if made.id in found:
            raise SpecError(f"{path}: {made.id} is there twice")
        found[made.id] = made
    return found


def read_tables(path: Path, *tables: str, beside: str = "") -> list[list[dict[str, Any]]]:
    """The entries of each of `tables` in a TOML file. SpecError where it is not TOML or has anything else in it but
    for the key `beside`.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path}: {error}") from error
    document.pop(beside, None)
    found = [document.pop(table, []) for table in tables]
    wanted = " and ".join(f"[[{table}]]" for table in tables)
    for entries in found:
        if document or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise SpecError(f"{path}: only {wanted} entries are expected")
    return found


def check_keys(where: str, entry: dict[str, Any], required: Mapping[str, type], optional: Mapping[str, type]) -> None:
    """SpecError unless `entry` has every required key, no unknown one, each of its type and none empty."""
    for key, kind in required.items():
        if key not in entry:
            raise SpecError(f"{where}: {key!r} is missing")
        if not isinstance(entry[key], kind) or not entry[key]:
            raise SpecError(f"{where}: {key!r} must be a non-empty {kind.__name__}")
    for key, value in entry.items():
        if key not in required and key not in optional:
            raise SpecError(f"{where}: unknown key {key!r}")
        if key in optional and not isinstance(value, optional[key]):
            raise SpecError(f"{where}: {key!r} must be a {optional[key].__name__}")


def _take_over(root: Path, path: Path, area: str, entry: dict[str, Any]) -> list[Clause]:
    where = f"{path}: [[contract]]"
    check_keys(where, entry, _SHARED, {})
    other = entry["of"]
    if other == area:
        raise SpecError(f"{where}: of = {other!r} is this area itself")
    theirs = load_area(root, other)
    taken = []
    for name in entry["rules"]:
        model = theirs.get(f"{other}.{name}")
        if model is None:
            raise SpecError(f"{where}: there is no clause {other}.{name}")
        taken.append(replace(model, id=f"{area}.{name}", area=area))
    return taken


def _parse(path: Path, area: str, entry: dict[str, Any]) -> Clause:
    where = f"{path}: {entry.get('id', 'an entry')}"
    check_keys(where, entry, _REQUIRED, _OPTIONAL)
    slug = entry["id"]
    if not SLUG.fullmatch(slug) or any(part.isdigit() for part in slug.split(".")):
        raise SpecError(f"{where}: an id is area.topic.rule in lower case, words joined by '-', never a number")
    if not slug.startswith(f"{area}."):
        raise SpecError(f"{where}: the id of a clause of {area} starts with '{area}.'")
    if entry["level"] not in LEVELS:
        raise SpecError(f"{where}: level {entry['level']!r} is none of {', '.join(LEVELS)}")
    if not re.fullmatch(r"3\.\d+(\.\d+)?", entry["since"]):
        raise SpecError(f"{where}: since {entry['since']!r} is no CPython version")
    lists = {key: tuple(entry.pop(key, ())) for key in ("permits", "covers")}
    for key, strings in lists.items():
        if not all(isinstance(string, str) for string in strings):
            raise SpecError(f"{where}: {key!r} is a list of strings")
    return Clause(area=area, **lists, **entry)
