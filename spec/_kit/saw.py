"""Outcomes seen: where a clause permits several, its tests say which one the loop chose.

A test asks for the fixture `saw` and calls `saw("tcp.read.x", "the words of the entry's permits")`. It reaches the
results by the `user_properties` of the test's reports, as they come out of the child that ran it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from .clauses import SpecError, load_area

PROPERTY = "saw"
"""The name of the property; its value is the clause's id and the outcome."""


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`saw(id, outcome)`: the loop under test did `outcome`, one of those that the clause `id` permits.

    A rule of a contract, which serves several areas, leaves the area out of `id`.
    SpecError where the test is of no such clause, or where the clause does not permit that in these words.
    """
    root = Path(request.config.getoption("spec_root")).resolve()
    slugs = [slug for mark in request.node.iter_markers("clause") for slug in mark.args]

    def saw(name: str, outcome: str) -> None:
        found = [slug for slug in slugs if name in (slug, slug.partition(".")[2])]
        if not found:
            raise SpecError(f"saw({name!r}, ...): the test is of {', '.join(slugs)}")
        for slug in found:
            permits = _permits(root, slug.partition(".")[0]).get(slug, ())
            if outcome not in permits:
                raise SpecError(f"{slug}: {outcome!r} is none of {list(permits)}")
            request.node.user_properties.append((PROPERTY, [slug, outcome]))

    return saw


def outcomes_in(reports: Iterable[pytest.TestReport]) -> dict[str, list[str]]:
    """What a test's reports say it saw: outcomes by clause, in the order they were seen."""
    found: dict[str, list[str]] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY:
                slug, outcome = value
                if outcome not in found.setdefault(slug, []):
                    found[slug].append(outcome)
    return found


@functools.cache
def _permits(root: Path, area: str) -> dict[str, tuple[str, ...]]:
    return {slug: clause.permits for slug, clause in load_area(root, area).items()}
