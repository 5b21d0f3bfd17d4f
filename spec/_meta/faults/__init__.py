"""A museum of event loops that are wrong as a whole, each as some real loop was, is or may be.

Each is asyncio's loop with one habit changed. `faults.toml` names, for each, the clause of its own and the tests of
that which it must fail; `spec/_meta/test_faults.py` sees it fail them. `python -m spec._meta.faults` runs each on the
whole of the areas that it touches and writes `README.md`: how many other clauses it fails. Few means that a failed
clause tells its author what is wrong; many, that clauses overlap.

`breakers` are loops that break the process they run in: no verdict on a loop beside them may change. They have a table
of their own, `breakers.toml`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Fault:
    """One loop of the museum.

    `tests`, ids below `spec/` with `{}` for the loop, are of the clause `clause`; `hangs` says that the loop hangs in
    them. `areas`, areas or files below `spec/`, is where other clauses may fail.
    """

    module: str
    loop: str
    clause: str
    tests: tuple[str, ...]
    areas: tuple[str, ...]
    hangs: bool = False


@dataclass(frozen=True)
class Breaker:
    """A loop that breaks its process.

    Every test, or the one in `test`, fails on it with a message that has `message` in it, or is told to have changed
    `alters`. A loop with neither is to do no harm.
    """

    loop: str
    test: str = ""
    message: str = ""
    alters: str = ""


def faults() -> list[Fault]:
    """All that `faults.toml` has. ValueError where an entry is not well-formed."""
    found = []
    for entry in _entries("faults.toml", "fault"):
        module, _, loop = entry["loop"].partition(":")
        areas = tuple(entry.get("areas", [entry["clause"].partition(".")[0]]))
        tests = tuple(entry["tests"])
        found.append(Fault(module, loop, entry["clause"], tests, areas, entry.get("hangs", False)))
    return found


def breakers() -> list[Breaker]:
    """All that `breakers.toml` has. ValueError where an entry is not well-formed."""
    return [Breaker(**entry) for entry in _entries("breakers.toml", "breaker")]


def _entries(name: str, table: str) -> list[dict]:
    document = tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
    if list(document) != [table]:
        raise ValueError(f"{name}: only [[{table}]] entries are expected")
    return document[table]
