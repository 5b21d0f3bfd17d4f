"""Reads `exceptions.toml`: which tests are not run, and which may differ on our loop and why."""

from __future__ import annotations

import fnmatch
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("exceptions.toml")
KINDS = {"later": "a part that is not built yet", "internals": "asks for what only CPython's own loop has inside"}


@dataclass(frozen=True)
class Entry:
    """Tests named by a short id or a glob pattern, and why; `since`/`until` bound the CPython versions it is for."""

    test: str
    reason: str
    kind: str = ""
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = (99,)
    platform: str = ""

    def matches(self, test: str) -> bool:
        return test == self.test or fnmatch.fnmatchcase(test, self.test)

    @property
    def applies(self) -> bool:
        """Is the entry for this CPython version and platform?"""
        in_bounds = self.since <= sys.version_info[:3] and sys.version_info[: len(self.until)] <= self.until
        return in_bounds and sys.platform.startswith(self.platform)


@dataclass(frozen=True)
class Exceptions:
    """The file: `modules` to compare, `not_run` on any loop, `differs` on the loop called `loop`."""

    loop: str
    modules: list[str]
    not_run: list[Entry]
    differs: list[Entry]


class ExceptionsError(Exception):
    """The file is wrong; the message says where."""


def read(path: Path = FILE) -> Exceptions:
    """Parse `path`. ExceptionsError where an entry lacks a reason, names an unknown kind or stands twice."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    seen: set[str] = set()
    tables: dict[str, list[Entry]] = {"not_run": [], "differs": []}
    for table, entries in tables.items():
        for raw in data.get(table, []):
            entry = _entry(table, raw)
            if entry.test in seen:
                raise ExceptionsError(f"{table}: {entry.test} stands twice")
            seen.add(entry.test)
            entries.append(entry)
    return Exceptions(data["loop"], data["modules"], tables["not_run"], tables["differs"])


def _entry(table: str, raw: dict[str, str]) -> Entry:
    test = raw.get("test", "")
    unknown = raw.keys() - {"test", "reason", "kind", "since", "until", "platform"}
    if not test or not raw.get("reason") or unknown:
        raise ExceptionsError(f"{table}: {raw}: needs test and reason, knows kind, since, until, platform")
    if table == "differs" and raw.get("kind") not in KINDS:
        raise ExceptionsError(f"{table}: {test}: kind is one of {', '.join(KINDS)}")
    return Entry(
        test=test,
        reason=raw["reason"],
        kind=raw.get("kind", ""),
        since=_version(raw.get("since", "0")),
        until=_version(raw.get("until", "99")),
        platform=raw.get("platform", ""),
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
