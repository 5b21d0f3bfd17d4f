"""From measurements to figures: medians with their spread, and ratios taken round by round.

A measurement is one loop at one point in one round: `{"round", "label", "concurrency", "loop", "states": {state:
{"figure", ...}}}`, or `"error"` in place of states. A row is all of one point.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

Spread = tuple[float, float, float]


def spread(values: Iterable[float]) -> Spread | None:
    """Median, least and greatest."""
    ordered = sorted(values)
    return (median(ordered), ordered[0], ordered[-1]) if ordered else None


@dataclass(frozen=True)
class Row:
    """All measurements of one point."""

    label: str
    concurrency: int
    measurements: list[dict[str, Any]]

    @property
    def loops(self) -> list[str]:
        """Who was measured, in the order met."""
        return list(dict.fromkeys(entry["loop"] for entry in self.measurements))

    def values(self, loop: str, state: str, key: str = "figure") -> dict[int, float]:
        """What was measured of one loop in one state, by round."""
        return {
            entry["round"]: value
            for entry in self.measurements
            if entry["loop"] == loop and (value := entry.get("states", {}).get(state, {}).get(key)) is not None
        }

    def spread(self, loop: str, state: str, key: str = "figure") -> Spread | None:
        """Median, least and greatest over the rounds; None where nothing was measured."""
        return spread(self.values(loop, state, key).values())

    def ratio(self, mine: str, other: str, state: str, key: str = "figure") -> Spread | None:
        """Median, least and greatest of the ratios within each round in which both were measured."""
        ours, theirs = self.values(mine, state, key), self.values(other, state, key)
        return spread(ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number])

    def best(self, state: str, among: Iterable[str], key: str = "figure") -> str | None:
        """Who of these has the least median."""
        medians = {loop: found[0] for loop in among if (found := self.spread(loop, state, key))}
        return min(medians, key=lambda loop: medians[loop], default=None)

    def errors(self) -> dict[str, str]:
        """Why a loop has no figure, or fewer than others."""
        return {entry["loop"]: entry["error"] for entry in self.measurements if "error" in entry}


def rows(measurements: list[dict[str, Any]]) -> list[Row]:
    """The rows of a file of results, in the order met."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in measurements:
        found.setdefault((entry["label"], entry["concurrency"]), []).append(entry)
    return [Row(label, concurrency, entries) for (label, concurrency), entries in found.items()]
