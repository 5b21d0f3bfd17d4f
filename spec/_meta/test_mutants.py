"""The tests of every area can fail: each mutant, a loop with one defect, fails those that forbid what it does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spec._kit.clauses import areas
from spec._meta.mutation import Mutation, MutationTests

SPEC = Path(__file__).resolve().parent.parent
MODULES = {path.stem for path in Path(__file__).parent.glob("*mutants.py")} - {Path(__file__).stem}
MUTATIONS = {name: Mutation.of(name) for name in sorted(MODULES)}
TOTAL = 270
"""Mutants of all areas together, at least."""
EACH = 8
"""Mutants of each area, at least."""


class TestMutants(MutationTests):
    mutations = MUTATIONS


def mutants_by_area() -> Counter[str]:
    """How many mutants fail a test of each area first."""
    return Counter(area for mutation in MUTATIONS.values() for area in mutation.areas())


@pytest.mark.parametrize("area", areas(SPEC))
def test_an_area_has_mutants(area: str) -> None:
    assert mutants_by_area()[area] >= EACH, mutants_by_area()


def test_there_are_mutants_enough() -> None:
    counts = mutants_by_area()
    print(*(f"{area}: {count}" for area, count in sorted(counts.items())), f"all: {counts.total()}", sep="\n")
    assert counts.total() >= TOTAL, counts
