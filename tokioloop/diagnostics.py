"""What the loops of this process are doing: for a program that seems to hang."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import traceback
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from types import FrameType

    from .loop import TokioLoop

#: Tasks and endpoints of a loop that are shown, and frames of a stack.
_SHOWN = 200
#: A weak set that others change while it is copied is copied again, so often at most (as `asyncio.all_tasks` does).
_ATTEMPTS = 1000

_loops: weakref.WeakSet[TokioLoop] = weakref.WeakSet()


def register(loop: TokioLoop) -> None:
    """Let `dump()` know of a loop, for as long as it lives."""
    _loops.add(loop)


def loops() -> list[TokioLoop]:
    """The loops of this process, closed ones too."""
    return _copy(_loops)


def dump(file: TextIO | None = None) -> None:
    """Write what every open `TokioLoop` of this process is doing to `file`, by default `sys.stderr`.

    For each loop: whether it runs, in which thread, with the stack of that thread, for how long it has been waiting or
    busy, the next deadline, its queues, tasks and endpoints. May be called from any thread and from a signal handler
    while a loop hangs in a callback; the loop is not stopped.

        signal.signal(signal.SIGUSR1, lambda *_: tokioloop.dump())

    Python code runs only while the callback that hangs lets it: one inside C code that keeps the GIL does not, and then
    `watch()` tells of it. Raises what writing to `file` raises.
    """
    out = sys.stderr if file is None else file
    if out is None:
        return  # a program without standard error
    opened = [loop for loop in loops() if not loop.is_closed()]
    lines = [f"tokioloop: {len(opened)} open loop{'s' * (len(opened) != 1)}"]
    frame = sys._getframe(1)
    for loop in opened:
        lines += _loop_lines(loop, frame)
    # In one piece, so that what others write stays beside it.
    out.write("\n".join(lines) + "\n")
    out.flush()


def _copy(loops: Iterable[TokioLoop]) -> list[TokioLoop]:
    for _ in range(_ATTEMPTS):
        try:
            return list(loops)
        except RuntimeError:
            continue  # a loop was made or freed meanwhile
    return []


def _loop_lines(loop: TokioLoop, caller: FrameType) -> Iterator[str]:
    try:
        stats = loop.stats()
    except Exception as error:  # a subclass's: the other loops are to be seen all the same
        yield f"{object.__repr__(loop)}: {error!r}"
        return
    debug = " debug" if loop.get_debug() else ""
    yield f"<{type(loop).__name__} at {id(loop):#x}{debug}>"
    yield f"  {_activity(stats)}"
    yield f"  {_queues(loop, stats)}"
    yield "  " + ", ".join(f"{stats[name]} {name}" for name in ("turns", "callbacks", "looks", "parks"))
    yield from _section("task", _task_lines(loop))
    yield from _section("endpoint", [_endpoint(loop, endpoint) for endpoint in stats["endpoints"]])
    frame = caller if stats["thread"] == threading.get_ident() else sys._current_frames().get(stats["thread"])
    if frame is not None:
        yield "  stack of the thread, most recent call last:"
        # Innermost first; the thread may go on meanwhile.
        for entry in traceback.StackSummary.extract(traceback.walk_stack(frame), limit=_SHOWN)[::-1]:
            yield f"    {entry.filename}:{entry.lineno} in {entry.name}"
            if entry.line:
                yield f"      {entry.line}"


def _activity(stats: dict[str, Any]) -> str:
    if not stats["running"]:
        return "does not run"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    thread = f"runs in thread {stats['thread']} ({names.get(stats['thread'], 'not of the threading module')})"
    if stats["parked_for"] is not None:
        return f"{thread}, waiting for {stats['parked_for']:.3f} s"
    return f"{thread}, busy for {stats['busy_for']:.3f} s: its current callback has taken no longer"


def _queues(loop: TokioLoop, stats: dict[str, Any]) -> str:
    text = f"{stats['ready']} ready, {stats['timers']} timers"
    if stats["next_deadline"] is not None:
        left = stats["next_deadline"] - loop.time()
        text += f", the next in {left:.3f} s" if left >= 0 else f", the next overdue by {-left:.3f} s"
    return text


def _task_lines(loop: TokioLoop) -> list[str]:
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError as error:  # they change faster than they can be listed
        return [f"not to be listed: {error}"]
    return sorted(_shown(task) for task in itertools.islice(tasks, _SHOWN)) + [""] * max(len(tasks) - _SHOWN, 0)


def _shown(task: asyncio.Task[Any]) -> str:
    try:
        return repr(task)
    except Exception as error:  # of a coroutine's own repr
        return f"<{type(task).__name__} {task.get_name()!r}, whose repr fails: {error!r}>"


def _endpoint(loop: TokioLoop, endpoint: dict[str, Any]) -> str:
    text = f"fd {endpoint['fd']} {endpoint['kind']}"
    if endpoint["kind"] == "watcher":
        return f"{text} of a {' and a '.join(name for name in ('reader', 'writer') if endpoint[name])}"
    ways = [f"{way} {endpoint[f'bytes_{way}']} B / {endpoint[f'messages_{way}']}" for way in ("in", "out")]
    return ", ".join([text, *ways, f"for {max(loop.time() - endpoint['since'], 0):.3f} s"])


def _section(name: str, lines: list[str]) -> Iterator[str]:
    yield f"  {len(lines)} {name}{'s' * (len(lines) != 1)}"
    for line in lines[:_SHOWN]:
        yield f"    {line}"
    if len(lines) > _SHOWN:
        yield f"    and {len(lines) - _SHOWN} more"
