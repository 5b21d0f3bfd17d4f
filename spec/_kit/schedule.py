"""Schedules tests on children (`isolation`): several at once, each for some tests of one module on one loop.

Rules:
- A test that is declared to deviate goes alone at once, as do the rest of a module once three of its tests had to.
- What hangs most likely sleeps: `ASLEEP` of the tests that are declared to hang have no worker's place, and they are
  begun first. Those that spin, which a look at their threads tells, are `SPINNING` at most.
- In a shared child a test has `SHARED` seconds, as its verdict does not come from there; alone, its own time-out.
- A loop that hangs often is not waited for as long: after `PATIENT` hangs that no deviation declares, a test has a
  quarter of its time-out, and after `HANGS` in one area the rest of the area is not run on that loop, and has failed;
  as after `DEATHS` of its tests that ended their process. So a loop on which nothing works is through in minutes. A
  failure after `VAIN` seconds is a hang there: the test waited in vain, and had a time-out of its own.
- Every time-out, but for those of tests declared to hang, is stretched while the machine has more to run than it has
  CPUs (`stretch`): a test that waits for a CPU does not hang, and tests that hang keep none busy. What is told is the
  time-out of a quiet machine.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pytest

from .isolation import Child, Outcome

SHARED = 6.0
"""Seconds a test has in a child that other tests have used."""
WAITS = 1.0
"""Seconds at one test after which a child is taken to wait more than it computes."""
ASLEEP = 16
"""Tests declared to hang that are waited for at once, beside those that have a worker's place."""
SPINNING = 4
LOOK = 0.05
"""Seconds between two looks at the threads of what hangs."""
PATIENT = 3
HASTY = 5.0
"""Seconds a test has at least, alone, for all haste."""
VAIN = 10.0
HANGS = 4
DEATHS = 20
MOST = 40
"""Tests per child."""
CULPRITS = 3


@dataclass(frozen=True)
class Terms:
    """What the scheduler asks of a test: its loop, its area, its time-out in seconds, whether it is declared to deviate
    or to hang, and whether a busy machine gives it more time.
    """

    label: str
    area: str
    timeout: float
    deviates: bool
    hangs: bool
    known_leaks: Sequence[str] = ()
    stretches: bool = True

    @property
    def place(self) -> tuple[str, str]:
        """The area on the loop."""
        return self.label, self.area


@dataclass
class _Job:
    items: list[pytest.Item]
    alone: bool = False
    culprits: int = 0
    hangs: bool = False


def stretch() -> float:
    """How many times as long as on a quiet machine a test may take: what there is to run per CPU, halved; 1 to 20."""
    return min(max(os.getloadavg()[0] / (os.cpu_count() or 1) / 2, 1.0), 20.0)


class Schedule:
    """Runs `items` on at most `workers` children at once, and calls `done(item, outcome)` for each as it ends.

    Once `interrupted()`, the run ends with KeyboardInterrupt. `patient`: no area is given up.
    """

    def __init__(
        self,
        items: Iterable[pytest.Item],
        workers: int,
        terms: Callable[[pytest.Item], Terms],
        done: Callable[[pytest.Item, Outcome], None],
        interrupted: Callable[[], bool] = bool,
        patient: bool = False,
    ) -> None:
        self._terms = terms
        self._done = done
        self._interrupted = interrupted
        self._workers = workers
        self._patient = patient
        jobs = list(self._jobs(items))
        self._hanging: deque[_Job] = deque(job for job in jobs if job.hangs)
        self._queue: deque[_Job] = deque(job for job in jobs if not job.hangs)
        self._running: list[tuple[_Job, Child]] = []
        self._next_look = 0.0
        self._hangs: Counter[tuple[str, str]] = Counter()
        self._deaths: Counter[tuple[str, str]] = Counter()

    def run(self) -> None:
        """Until all have ended. What `done` raises ends every child first, as KeyboardInterrupt does."""
        try:
            while self._hanging or self._queue or self._running:
                if self._interrupted():
                    raise KeyboardInterrupt
                for _ in range(min(len(self._hanging), self._room())):
                    self._start(self._hanging.popleft())
                while self._queue and self._may_start():
                    self._start(self._next())
                if self._running:
                    self._wait()
        except KeyboardInterrupt:
            self._take_what_was_sent()
            raise
        finally:
            for _, child in self._running:
                child.end()

    def _jobs(self, items: Iterable[pytest.Item]) -> Iterable[_Job]:
        """Groups of neighbours of one module and loop; those that go alone, alone."""
        groups: dict[tuple[str, str], list[pytest.Item]] = {}
        for item in items:
            terms = self._terms(item)
            key = (str(item.path), terms.label)
            if terms.deviates:
                yield _Job([item], alone=True, hangs=terms.hangs)
                continue
            group = groups.setdefault(key, [])
            group.append(item)
            if len(group) == MOST:
                yield _Job(groups.pop(key))
        for group in groups.values():
            yield _Job(group)

    def _start(self, job: _Job) -> None:
        terms = self._terms(job.items[0])
        if why := self._gives_up(terms):
            for item in job.items:
                self._done(item, Outcome(ended=f"not run: {why}"))
            return
        child = Child(job.items, terms.known_leaks, [other for _, other in self._running])
        self._running.append((job, child))

    def _gives_up(self, terms: Terms) -> str:
        """Why the rest of an area is not run on a loop; empty where it is."""
        if self._patient:
            return ""
        if self._hangs[terms.place] >= HANGS:
            return f"{HANGS} tests of {terms.area} hung"
        if self._deaths[terms.place] >= DEATHS:
            return f"{DEATHS} tests of {terms.area} ended their process"
        return ""

    def _room(self) -> int:
        """How many more that hang may be waited for now. Of many, the threads are looked at every `LOOK` seconds."""
        hanging = [child for job, child in self._running if job.hangs]
        if len(hanging) < SPINNING:
            return SPINNING - len(hanging)
        if len(hanging) >= ASLEEP or time.monotonic() < self._next_look:
            return 0
        self._next_look = time.monotonic() + LOOK
        return min(ASLEEP - len(hanging), SPINNING - sum(child.computes() for child in hanging))

    def _may_start(self) -> bool:
        """A child that has been at one test for a while waits, most likely, so another one has its place; many of them
        do where a loop hangs often.
        """
        now = time.monotonic()
        begun = [child for job, child in self._running if not job.hangs]
        if len(begun) < self._workers:
            return True
        hangs_often = any(self._hangs_often(label) for label, _ in self._hangs)
        soon = WAITS / 4 if hangs_often else WAITS
        waiting = sum(now - child.started > soon and not child.computes() for child in begun)
        return len(begun) - min(waiting, ASLEEP if hangs_often else self._workers) < self._workers

    def _hangs_often(self, loop: str) -> bool:
        """Is this loop, by its label, one that is not waited for as long?"""
        return sum(hangs for (label, _), hangs in self._hangs.items() if label == loop) >= PATIENT

    def _next(self) -> _Job:
        """The first of the queue; where its loop hangs often, of a place with less going on than gives it up."""
        if self._hangs_often(self._terms(self._queue[0].items[0]).label):
            going_on = Counter(self._terms(job.items[0]).place for job, _ in self._running)
            for index, job in enumerate(self._queue):
                if going_on[self._terms(job.items[0]).place] < HANGS:
                    del self._queue[index]
                    return job
        return self._queue.popleft()

    def _wait(self) -> None:
        poll = select.poll()
        pause, by = LOOK if self._hanging else WAITS / 4 if self._queue else 60.0, stretch()
        for job, child in self._running:
            poll.register(child, select.POLLIN)
            item = child.item or child.items[-1]
            timeout = self._timeout(job, item)
            pause = min(pause, child.check(timeout, by if self._terms(item).stretches else 1.0))
        ready = {number for number, _ in poll.poll(pause * 1000)}
        for job, child in list(self._running):
            self._look(job, child, child.fileno() in ready)

    def _take_what_was_sent(self) -> None:
        """Count what children had done before the run was interrupted, as far as they have said so."""
        poll = select.poll()
        for _, child in self._running:
            poll.register(child, select.POLLIN)
        ready = {number for number, _ in poll.poll(0)}
        for job, child in list(self._running):
            if child.fileno() in ready:
                self._look(job, child, readable=True)

    def _look(self, job: _Job, child: Child, readable: bool) -> None:
        for item, outcome in child.receive(readable):
            self._take(job, child, item, outcome)
        if not child.ended:
            return
        self._running.remove((job, child))
        if child.item is not None:
            self._take(job, child, child.item, child.without_result())
        child.end()

    def _take(self, job: _Job, child: Child, item: pytest.Item, outcome: Outcome) -> None:
        """What became of a test. Where its child does not go on, the rest of its tests is another one's."""
        counts = job.alone or outcome.passed
        job.culprits += not counts
        if not counts or outcome.altered:
            rest = list(child.items[child.items.index(item) + 1 :])
            child.index = len(child.items)
            if job.culprits >= CULPRITS:
                self._queue.extendleft(_Job([other], alone=True) for other in reversed(rest))
            elif rest:
                self._queue.appendleft(_Job(rest, culprits=job.culprits))
        if not counts:
            self._queue.appendleft(_Job([item], alone=True))
            return
        if not outcome.passed:
            self._count_failure(item, child, outcome)
        self._done(item, outcome)

    def _timeout(self, job: _Job, item: pytest.Item) -> float:
        terms = self._terms(item)
        hasty = self._hangs_often(terms.label) and not terms.hangs
        if job.alone:
            return min(max(terms.timeout / 4, HASTY), terms.timeout) if hasty else terms.timeout
        return min(terms.timeout, SHARED / 3 if hasty else SHARED)

    def _count_failure(self, item: pytest.Item, child: Child, outcome: Outcome) -> None:
        """What is declared counts for nothing."""
        terms = self._terms(item)
        if child.hung and not terms.hangs:
            self._hangs[terms.place] += 1
        elif not child.hung and not terms.deviates:
            self._hangs[terms.place] += outcome.duration > VAIN * stretch()
            self._deaths[terms.place] += bool(outcome.ended)
