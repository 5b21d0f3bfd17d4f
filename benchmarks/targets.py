"""What tokioloop aims at, row by row: CPU (memory, latency) as a ratio to others, met or missed in both states.

A target names rows, whom it compares with, and the bound. `PEERS` is the best of the other loops; `KEEPING` the best of
those that keep the clauses that the row is about (marks.py), `BREAKING` the best of those that do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import marks
from allocator import STATES
from results import COALESCING, LIMIT, SUBJECT
from summary import Row, rows

PEERS, KEEPING, BREAKING = "best peer", "best peer that keeps the clause", "best of the others"
NOT_PEERS = (SUBJECT, COALESCING, LIMIT)
MICRO = "micro"


@dataclass(frozen=True)
class Target:
    """One bound.

    `kind` and `labels` (all where empty) say which rows, `cases` which single operations. `key` is the figure that is
    compared; `absolute` bounds it itself, in microseconds.
    """

    kind: str
    against: str
    bound: float
    labels: tuple[str, ...] = ()
    connections: tuple[int, ...] = ()
    cases: tuple[str, ...] = ()
    mine: str = SUBJECT
    key: str = "figure"
    absolute: bool = False
    least: bool = False


@dataclass(frozen=True)
class Outcome:
    """A target at one row: what was measured by state, None where it was not."""

    target: Target
    name: str
    against: str
    found: dict[str, float | None]

    @property
    def met(self) -> bool | None:
        """Whether it holds in both states; None where nothing was measured."""
        found = [value for value in self.found.values() if value is not None]
        if not found:
            return None
        bound = self.target.bound
        return all(value >= bound if self.target.least else value <= bound for value in found)


LOOKING = (
    "call_soon_chain", "call_soon_burst", "call_soon_burst_100_000", "sleep_0_1_task", "sleep_0_100_tasks",
    "future_wake", "queue", "gather", "gather_10_000", "task_group", "timeout",
)  # fmt: skip
CROSSING = ("threadsafe_own", "threadsafe_other", "threadsafe_wake", "executor")
FILES = ("spawn", "communicate", "pipe_ping_pong", "unix_ping_pong")

TARGETS = (
    Target(MICRO, KEEPING, 1.00, cases=LOOKING),
    Target(MICRO, BREAKING, 1.15, cases=LOOKING),
    Target(MICRO, PEERS, 0.90, cases=("call_later_cancel", "due_timers", "standing_timers")),
    Target(MICRO, "150 us", 150, cases=("timer_lateness",), absolute=True),
    Target(MICRO, "never early", 0, cases=("timer_lateness",), key="earliest", absolute=True, least=True),
    Target(MICRO, PEERS, 0.95, cases=CROSSING),
    Target("proto", "uvloop", 0.88, ("1 KiB",), (10, 50)),
    Target("proto", LIMIT, 1.04, ("1 KiB",), (10, 50)),
    Target("proto", "blazio", 1.00, ("1 KiB",), (10, 50)),
    Target("proto", "uvloop", 0.95, ("10 KiB", "100 KiB", "1 MiB"), (10,)),
    Target("proto", LIMIT, 1.08, ("10 KiB", "100 KiB", "1 MiB"), (10,)),
    Target("stream", "uvloop", 0.70, ("1 KiB",), (10,)),
    Target("raw", "uvloop", 0.40, ("1 KiB",), (10,)),
    Target("raw", "rloop", 0.70, ("1 KiB",), (10,)),
    Target("udp", "uvloop", 0.65, ("1 KiB",), (10,)),
    Target("udp", "rloop", 0.88, ("1 KiB",), (10,)),
    Target("connect", "uvloop", 0.90, (), (10,)),
    *(Target(kind, PEERS, 1.00, ("1 KiB",), (1,), key="p50_us") for kind in ("proto", "stream", "raw")),
    Target("web", "uvloop", 0.88, (), (50,)),
    Target("web", "blazio", 1.00, (), (50,), mine=COALESCING),
    Target("pieces", "uvloop", 0.30, (), (10,), mine=COALESCING),
    Target("idle", "uvloop", 1.00),
    Target("tls", "uvloop", 0.85, (), (50,)),
    Target("tls-handshake", "uvloop", 0.95),
    Target(MICRO, PEERS, 1.00, cases=FILES),
    Target("unix", PEERS, 1.00, (), (10,)),
)


def outcomes(kinds: dict[str, dict[str, Any]]) -> list[Outcome]:
    """Every target at every row that was measured; one without a row, where there is none."""
    found = []
    for target in TARGETS:
        here = list(_outcomes(target, kinds.get(target.kind, {}).get("measurements", [])))
        found += here or [Outcome(target, _name(target, None), target.against, dict.fromkeys(STATES))]
    return found


def _outcomes(target: Target, measurements: list[dict[str, Any]]) -> Iterator[Outcome]:
    for row in rows(measurements):
        case = row.measurements[0].get("case")
        if target.cases and case not in target.cases:
            continue
        if (target.labels and row.label not in target.labels) or (
            target.connections and row.concurrency not in target.connections
        ):
            continue
        values, whom = {}, {}
        for state in STATES:
            other = None if target.absolute else opponent(target, row, case or target.kind, state)
            if target.absolute:
                found = row.spread(target.mine, state, target.key)
                # The earliest of all, not the one in the middle.
                values[state] = found and found[1 if target.least else 0]
            elif other is not None:
                found = row.ratio(target.mine, other, state, target.key)
                values[state] = found and found[0]
            whom[state] = other
        names = dict.fromkeys(name for name in whom.values() if name)
        if target.against == BREAKING and not names:
            continue
        against = target.against
        if names and against not in names:
            against += f" ({', '.join(names)})"
        yield Outcome(target, _name(target, row), against, {state: values.get(state) for state in STATES})


def opponent(target: Target, row: Row, subject: str, state: str) -> str | None:
    """Whom a target compares with at a row; None where nobody is there."""
    peers = [loop for loop in row.loops if loop not in NOT_PEERS]
    if target.against == PEERS:
        return row.best(state, peers, target.key)
    if target.against in {KEEPING, BREAKING}:
        wanted = target.against == BREAKING
        return row.best(state, [loop for loop in peers if bool(marks.broken(subject, loop)) is wanted], target.key)
    return target.against if target.against in row.loops else None


def _name(target: Target, row: Row | None) -> str:
    """The target's row in words."""
    if row is None:
        return ", ".join(target.cases) or target.kind
    what = {"figure": "", "p50_us": ", latency 50 %", "earliest": ", earliest"}[target.key]
    mine = ", coalescing" if target.mine == COALESCING else ""
    if target.kind == MICRO:
        return f"{row.label}{what}"
    return f"`{target.kind}`, {row.label}, {row.concurrency:,} connection{'s' * (row.concurrency > 1)}{mine}{what}"
