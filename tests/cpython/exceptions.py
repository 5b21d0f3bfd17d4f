"""Which of CPython's tests are run (`modules.toml`), and which may differ on a loop (`spec/deviations/<loop>.toml`)."""

from __future__ import annotations

import fnmatch
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from spec._kit import deviations
from spec._kit.clauses import SpecError

FILE = Path(__file__).with_name("modules.toml")
ROOT = Path(deviations.__file__).resolve().parent.parent


@dataclass(frozen=True)
class Entry:
    """Tests named by a short id or a glob pattern, and why; `since`/`until` bound the CPython versions it is for."""

    test: str
    reason: str
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
class Modules:
    """What is compared: `modules`, without the tests that are `not_run` on any loop."""

    modules: list[str]
    not_run: list[Entry]


class ExceptionsError(Exception):
    """A file is wrong; the message says where."""


def modules(path: Path = FILE) -> Modules:
    """Parse a file of modules. ExceptionsError where an entry lacks its test or its reason."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return Modules(data["modules"], [_entry(path, raw) for raw in data.get("not_run", [])])


def of_loop(label: str) -> list[Entry]:
    """The tests that may differ on the loop with this label, on this CPython."""
    return read(deviations.path_of(ROOT, label))


def read(path: Path) -> list[Entry]:
    """The `[[cpython]]` entries of a file that apply here. ExceptionsError where one is wrong."""
    try:
        found = deviations.cpython_tests(path)
    except SpecError as error:
        raise ExceptionsError(str(error)) from error
    return [entry for entry in (_entry(path, raw) for raw in found) if entry.applies]


def _entry(path: Path, raw: dict[str, str]) -> Entry:
    if not raw.get("test") or not raw.get("reason") or raw.keys() - {"test", "reason", "since", "until", "platform"}:
        raise ExceptionsError(f"{path}: {raw}: needs test and reason, knows since, until, platform")
    return Entry(
        test=raw["test"],
        reason=raw["reason"],
        since=_version(raw.get("since", "0")),
        until=_version(raw.get("until", "99")),
        platform=raw.get("platform", ""),
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
