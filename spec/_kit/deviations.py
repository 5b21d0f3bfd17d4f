"""Deviations: the clauses a loop is known not to keep, and why, in `spec/deviations/<label>.toml`.

Strict both ways: a failure that no deviation declares fails the run, and so does a deviation whose tests all pass.
"""

from __future__ import annotations

import operator
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clauses import SpecError, check_keys, read_entries
from .loops import LoopUnderTest

_REQUIRED = {"clause": str, "reason": str}
_OPTIONAL = {"since": str, "loop_version": str, "python": str, "platform": str, "hangs": bool, "intermittent": bool}
_COMPARE = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Deviation:
    """One clause a loop does not keep.

    `loop_version` and `python` (such as `">=3.12,<3.14"`) and `platform` (a `sys.platform`) narrow where it holds.
    `hangs`: its tests are given 3 s only. `intermittent`: it may also pass, so it is never stale.
    """

    clause: str
    reason: str
    since: str = ""
    loop_version: str = ""
    python: str = ""
    platform: str = ""
    hangs: bool = False
    intermittent: bool = False

    def applies(self, loop_version: str) -> bool:
        """Does it hold for this version of the loop, on this Python and platform?"""
        return (
            (not self.platform or self.platform == sys.platform)
            and matches(self.loop_version, loop_version)
            and matches(self.python, ".".join(map(str, sys.version_info[:3])))
        )


def deviations_of(root: Path, loop: LoopUnderTest) -> dict[str, Deviation]:
    """The deviations that hold for `loop` here, by clause."""
    declared = load(path_of(root, loop.label))
    return {deviation.clause: deviation for deviation in declared if deviation.applies(loop.version)}


def path_of(root: Path, label: str) -> Path:
    """The file of the deviations of the loop with this label."""
    return root / "deviations" / f"{label.lower()}.toml"


def load(path: Path) -> list[Deviation]:
    """Every entry of one file; none where there is no file. SpecError where it is wrong."""
    if not path.exists():
        return []
    return [_parse(path, entry) for entry in read_entries(path, "deviation")]


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


def _parse(path: Path, entry: dict[str, Any]) -> Deviation:
    where = f"{path}: {entry.get('clause', 'an entry')}"
    check_keys(where, entry, _REQUIRED, _OPTIONAL)
    try:
        for condition in ("loop_version", "python"):
            matches(entry.get(condition, ""), "0")
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
    return Deviation(**entry)
