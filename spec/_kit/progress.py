"""What a run tells while it goes on: areas and loops, counts, failures, and the time left.

On a terminal one line that is written over; elsewhere a line whenever an area has ended, and every `_QUIET` seconds.
"""

from __future__ import annotations

import time
from collections import Counter

from _pytest.terminal import TerminalReporter

_QUIET = 15.0
_OFTEN = 0.2
"""Seconds between two lines, elsewhere and on a terminal."""


class Progress:
    """Counts tests of `(nodeid, area, label)` as they end, and tells."""

    def __init__(self, reporter: TerminalReporter, tests: list[tuple[str, str, str]]) -> None:
        self._reporter = reporter
        self._where = {nodeid: (area, label) for nodeid, area, label in tests}
        self._of_area = Counter(area for _, area, _ in tests)
        self._left = Counter(self._where.values())
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._started = self._told = time.monotonic()
        self._all = len(tests)
        self._running = True
        self._ended: list[str] = []

    def tells(self, nodeid: str) -> bool:
        """Is this one of its tests, while they run?"""
        return self._running and nodeid in self._where

    def count(self, nodeid: str, outcome: str) -> None:
        """One more has ended."""
        area, label = self._where[nodeid]
        self._done[area] += 1
        self._failed[label] += outcome == "failed"
        if self._done[area] == self._of_area[area]:
            self._ended.append(area)
        now = time.monotonic()
        often = _OFTEN if self._reporter.isatty else _QUIET
        if now - self._told >= often or (self._ended and not self._reporter.isatty):
            self._tell(now, area, label)

    def finish(self) -> None:
        """All have ended, or no more will."""
        self._running = False
        self._tell(time.monotonic())
        if self._reporter.isatty:
            self._reporter._tw.line()

    def _tell(self, now: float, area: str = "", label: str = "") -> None:
        self._told = now
        done = sum(self._done.values())
        seconds = now - self._started
        left = seconds / done * (self._all - done) if done else 0.0
        parts = [f"{done}/{self._all}"]
        if self._ended:
            parts.append(f"{', '.join(self._ended)} done")
        elif area:
            parts.append(f"{area} on {label} ({self._done[area]}/{self._of_area[area]})")
        parts += [f"{label}: {count} failed" for label, count in self._failed.items() if count]
        parts.append(f"{_clock(left)} left" if done < self._all else f"took {_clock(seconds)}")
        line = ", ".join(parts)
        self._ended.clear()
        if self._reporter.isatty:
            width = self._reporter._tw.fullwidth - 1
            self._reporter.write(f"\r{line[:width]:<{width}}")
        else:
            self._reporter.write_line(line)


def _clock(seconds: float) -> str:
    return f"{int(seconds + 0.5) // 60}:{int(seconds + 0.5) % 60:02}"
