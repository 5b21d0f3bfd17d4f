"""Every area has mutants behind its tests."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

from spec._kit.clauses import areas
from spec._meta.mutation import MutationTests

SPEC = Path(__file__).resolve().parent.parent
TOTAL = 270
"""Mutants of all areas together, at least."""
EACH = 8
"""Mutants of each area, at least."""


def mutants_by_area() -> Counter[str]:
    """How many mutants fail a test of each area first."""
    counts: Counter[str] = Counter()
    for path in sorted(Path(__file__).parent.glob("test_*mutants.py")):
        module = importlib.import_module(f"spec._meta.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, MutationTests) and value is not MutationTests:
                counts.update(value.mutation.areas())
    return counts


@pytest.mark.parametrize("area", areas(SPEC))
def test_an_area_has_mutants(area: str) -> None:
    assert mutants_by_area()[area] >= EACH, mutants_by_area()


def test_there_are_mutants_enough() -> None:
    counts = mutants_by_area()
    print(*(f"{area}: {count}" for area, count in sorted(counts.items())), f"all: {counts.total()}", sep="\n")
    assert counts.total() >= TOTAL, counts
