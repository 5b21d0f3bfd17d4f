"""Random programs of callbacks, run on the loop and on a reference model; both must leave the same trace.

A program is a list of bodies; a body is a list of operations on the loop: schedule a body (in either way), cancel the
n-th handle made so far, stop, raise. The model is the queue that the documentation describes: an iteration calls what
was ready when it began; stop() ends the run after the iteration.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from .._kit import clause
from .._kit.seeds import explored

BODIES = 4
MOST_CALLS = 80
RUNS = 12

operations = st.one_of(
    st.tuples(st.just("schedule"), st.integers(0, BODIES - 1)),
    st.tuples(st.just("schedule threadsafe"), st.integers(0, BODIES - 1)),
    st.tuples(st.just("cancel"), st.integers(0, MOST_CALLS - 1)),
    st.tuples(st.just("stop"), st.just(0)),
    st.tuples(st.just("raise"), st.just(0)),
)
programs = st.lists(st.lists(operations, max_size=5), min_size=BODIES, max_size=BODIES)


class Model:
    """The reference: callbacks in a queue, one iteration at a time."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._ready: collections.deque[ModelHandle] = collections.deque()
        self._stopping = False
        self._report = report

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> ModelHandle:
        handle = ModelHandle(callback, args)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def stop(self) -> None:
        self._stopping = True

    def run_forever(self) -> None:
        while True:
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.is_cancelled:
                    try:
                        handle.callback(*handle.args)
                    except Exception as error:
                        self._report(error)
            if self._stopping:
                break
        self._stopping = False


class ModelHandle:
    """A callback of the model."""

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback, self.args = callback, args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


def trace_of(loop: Any, program: list[list[tuple[str, int]]], trace: list[Any]) -> list[Any]:
    """Run `program` on `loop`, which reports exceptions into `trace`; the trace."""
    handles: list[Any] = []

    def body(index: int, call: int) -> None:
        trace.append(("call", index, call))
        for operation, value in program[index]:
            if operation.startswith("schedule") and len(handles) < MOST_CALLS:
                method = loop.call_soon if operation == "schedule" else loop.call_soon_threadsafe
                handles.append(method(body, value, len(handles)))
            elif operation == "cancel":
                handles[value % len(handles)].cancel()
            elif operation == "stop":
                loop.stop()
            elif operation == "raise":
                raise ValueError(call)

    def watch(run: int, iteration: int) -> None:
        # One per iteration, so that the trace shows where iterations end; the third stops the run.
        if run != current_run:
            return
        trace.append(("iteration", run, iteration))
        if iteration == 2:
            loop.stop()
        else:
            loop.call_soon(watch, run, iteration + 1)

    handles += [loop.call_soon(body, index, index) for index in range(BODIES)]
    for current_run in range(RUNS):
        loop.call_soon(watch, current_run, 0)
        loop.run_forever()
        trace.append(("end of run", current_run))
    return trace


@clause("callbacks.order.any-program")
@given(program=programs)
@explored(150)
def test_a_random_program_leaves_the_trace_of_the_model(loop_factory, program):
    expected: list[Any] = []
    trace_of(Model(lambda error: expected.append(("error", error.args))), program, expected)
    loop = loop_factory()
    try:
        actual: list[Any] = []
        loop.set_exception_handler(lambda _loop, context: actual.append(("error", context["exception"].args)))
        trace_of(loop, program, actual)
    finally:
        loop.close()
    assert actual == expected
