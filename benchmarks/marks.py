"""Which loops reach a figure by not keeping a rule that the row is about.

The table says which clauses of the conformance suite a row is about; who does not keep them is in spec/deviations.
"""

import fnmatch
import functools
import tomllib
from pathlib import Path

SPEC = Path(__file__).resolve().parent.parent / "spec"
LOOK = ("readers_writers.order.found-by-the-next-iteration", "I/O is not looked at in each turn")
AT_ONCE = ("tcp.write.at-once", "what is written does not leave at once")
SOCKETS = ("sockets.recv.asks-each-time", "an operation does not ask the socket")
EARLY = ("timers.deadline.never-early", "timers fire early")
CANCEL = ("timers.cancel.lets-go", "a cancelled timer keeps its callback")
CLOSE = ("tcp.close.never-inline", "connection_lost() is called from within close()")
ARGUMENTS = ("dns.getaddrinfo.arguments", "not all arguments are looked at")

# What a kind of rows.py, or a case of cases*.py, is about; each of these is by the start of the name.
ABOUT: dict[str, tuple[tuple[str, str], ...]] = {
    "proto": (AT_ONCE,),
    "buffered": (AT_ONCE,),
    "protocol": (AT_ONCE,),
    "stream": (AT_ONCE,),
    "pieces": (AT_ONCE,),
    "five_writes": (AT_ONCE,),
    "unix": (AT_ONCE,),
    "flood": (AT_ONCE,),
    "tls": (AT_ONCE,),
    "web": (AT_ONCE,),
    "programs": (AT_ONCE,),
    "connect": (AT_ONCE, CLOSE),
    "open_close": (CLOSE,),
    "raw": (SOCKETS,),
    "sock_": (SOCKETS,),
    "call_soon": (LOOK,),
    "sleep_0": (LOOK,),
    "future": (LOOK,),
    "queue": (LOOK,),
    "gather": (LOOK,),
    "task_group": (LOOK,),
    "timeout": (LOOK, CANCEL),
    "threadsafe": (LOOK,),
    "executor": (LOOK,),
    "call_later": (CANCEL,),
    "standing": (CANCEL,),
    "due_timers": (EARLY,),
    "timer_lateness": (EARLY,),
    "getaddrinfo": (ARGUMENTS,),
}


@functools.cache
def deviations(loop: str) -> tuple[str, ...]:
    """The patterns of the clauses that a loop does not keep; none where no file tells of it."""
    path = SPEC / "deviations" / f"{loop.partition(':')[0]}.toml"
    if not path.exists():
        return ()
    entries = tomllib.loads(path.read_text("utf-8")).get("deviation", [])
    return tuple(
        pattern for entry in entries for pattern in (*entry.get("clauses", ()), *filter(None, [entry.get("clause")]))
    )


def about(name: str) -> tuple[tuple[str, str], ...]:
    """The clauses that a kind or a case is about, each with what it means not to keep it."""
    starts = [start for start in ABOUT if name.startswith(start)]
    return ABOUT[max(starts, key=len)] if starts else ()


def broken(name: str, loop: str) -> list[tuple[str, str]]:
    """Those that this loop does not keep."""
    return [
        (clause, words)
        for clause, words in about(name)
        if any(fnmatch.fnmatchcase(clause, pattern) for pattern in deviations(loop))
    ]
