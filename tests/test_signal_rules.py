"""The rules of `tokioloop.signals` as properties: what is delivered, and whose the wake-up descriptor is."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import support

tokioloop = pytest.importorskip("tokioloop")

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(not support.OURS, reason="rules of ours")]

NUMBERS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]


class Interpreter:
    """CPython, as far as signals go, around a loop's `_deliver_signals`, which believes in it."""

    def __init__(self, capacity: int, meanwhile: list[list[tuple[int, int]]]) -> None:
        self.capacity = capacity
        self.meanwhile = meanwhile
        """What comes while the loop reads: signals and how many, for each read."""
        self.pipe = b""
        self.tripped: set[int] = set()
        self._signals_noted: set[int] = set()
        self._signal_pipe = self
        self.came: list[int] = []
        self.lost: Counter[int] = Counter()
        self.delivered: list[int] = []
        self.owed: set[int] = set()
        """Signals that are followed by no call of their handler yet."""

    def arrive(self, number: int, count: int) -> None:
        """The handler in C."""
        for _ in range(count):
            self.tripped.add(number)
            self.came.append(number)
            self.owed.add(number)
            if len(self.pipe) < self.capacity:
                self.pipe += bytes([number])
            else:
                self.lost[number] += 1

    def note(self) -> None:
        """The handlers in Python: they run before the next step of Python's."""
        self._signals_noted |= self.tripped
        self.tripped.clear()

    def drain(self) -> bytes:
        self.note()
        data, self.pipe = self.pipe, b""
        for number, count in self.meanwhile.pop() if self.meanwhile else ():
            self.arrive(number, count)
        self.note()
        return data

    def _handle_signal(self, number: int) -> None:
        self.delivered.append(number)
        self.owed.discard(number)

    def look(self) -> None:
        """The loop finds the pipe readable."""
        from tokioloop.signals import SignalMixin

        if self.pipe:
            self.note()
            loop: Any = self
            SignalMixin._deliver_signals(loop)


numbers = st.sampled_from([int(number) for number in NUMBERS])
few = st.tuples(numbers, st.integers(1, 5))
many = st.tuples(numbers, st.integers(1, 2 * select.PIPE_BUF))
"""A signal, and how often it comes."""


@settings(max_examples=400, deadline=None)
@given(
    capacity=st.sampled_from([select.PIPE_BUF, select.PIPE_BUF + 3, 2 * select.PIPE_BUF]),
    program=st.lists(st.one_of(few, many, st.just("look")), max_size=12),
    meanwhile=st.lists(st.lists(few, max_size=3), max_size=12),
)
def test_signals_are_counted_one_by_one_and_of_what_is_lost_each_kind_is_delivered_once(
    capacity: int, program: list[Any], meanwhile: list[list[tuple[int, int]]]
) -> None:
    interpreter = Interpreter(capacity, meanwhile)
    for step in [*program, *["look"] * 40]:
        if step == "look":
            interpreter.look()
        else:
            interpreter.arrive(*step)
    assert not interpreter.pipe and not interpreter.owed, "a signal that nobody heard of"
    came, delivered = Counter(interpreter.came), Counter(interpreter.delivered)
    for number in came:
        assert came[number] - interpreter.lost[number] <= delivered[number] <= came[number]
    if not interpreter.lost:
        assert interpreter.delivered == interpreter.came
    assert not delivered - came


class Owners:
    """A loop and programs that want `set_wakeup_fd` for themselves; a model of whose it is."""

    def __init__(self) -> None:
        self.loop = tokioloop.new_event_loop()
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.handlers: set[int] = set()
        self.ours = False
        self.current: int | None = None
        """Whose it is, unless it is the loop's: a pair of `pairs`, or nobody's."""
        self.before: int | None = None
        """Whose it was before the handlers."""
        self.closed: set[int] = set()

    def close(self) -> None:
        self.loop.close()
        signal.set_wakeup_fd(-1)
        for pair in self.pairs:
            for end in pair:
                end.close()

    def apply(self, step: str, argument: int) -> None:
        match step:
            case "add":
                self.loop.add_signal_handler(NUMBERS[argument % len(NUMBERS)], print)
                self.handlers.add(argument % len(NUMBERS))
                if self.current is not None:
                    self.before = self.current
                self.current, self.ours = None, True
            case "remove":
                self.loop.remove_signal_handler(NUMBERS[argument % len(NUMBERS)])
                if argument % len(NUMBERS) in self.handlers:
                    self.handlers.discard(argument % len(NUMBERS))
                    if not self.handlers:
                        self.give_back()
            case "open":
                # It may get the number of one that was closed.
                self.open()
            case "theirs":
                signal.set_wakeup_fd(self.open())
                self.current, self.ours = len(self.pairs) - 1, False
            case "nobody's":
                signal.set_wakeup_fd(-1)
                self.current, self.ours = None, False
            case "close theirs" if self.pairs:
                # Not the one that is set: that would be a trap of their own making.
                at = argument % len(self.pairs)
                if self.current != at:
                    self.pairs[at][0].close()
                    self.closed.add(at)
            case "run":
                seen: list[bool] = []
                self.loop.call_soon(lambda: seen.append(self.is_ours()))
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()
                taken = self.current is None and not self.handlers
                assert seen == [self.ours or taken], "a loop without handlers takes what nobody has"

    def open(self) -> int:
        pair = socket.socketpair()
        pair[0].setblocking(False)
        self.pairs.append(pair)
        return pair[0].fileno()

    def give_back(self) -> None:
        if self.current is None and self.before not in self.closed:
            self.current = self.before
        self.before, self.ours = None, False

    def is_ours(self) -> bool:
        fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        pipe = self.loop._signal_pipe
        return fd != -1 and pipe is not None and fd == pipe.writing_fd

    def check(self) -> None:
        fd = signal.set_wakeup_fd(-1)
        if fd != -1:
            os.fstat(fd)
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        assert self.is_ours() == self.ours
        if not self.ours:
            assert fd == (-1 if self.current is None else self.pairs[self.current][0].fileno())


@pytest.fixture
def restored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in NUMBERS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


steps = st.sampled_from(["add", "add", "remove", "remove", "theirs", "nobody's", "close theirs", "open", "run"])


@pytest.mark.usefixtures("restored")
@settings(max_examples=150, deadline=None)
@given(program=st.lists(st.tuples(steps, st.integers(0, 5)), max_size=20))
@example(program=[("theirs", 0), ("add", 0), ("close theirs", 0), ("open", 0), ("remove", 0)])
def test_the_wakeup_descriptor_is_the_loops_while_it_has_handlers_and_then_who_had_it_before(
    program: list[tuple[str, int]],
) -> None:
    owners = Owners()
    try:
        for step, argument in program:
            owners.apply(step, argument)
            owners.check()
    finally:
        owners.close()
