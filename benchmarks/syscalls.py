"""System calls per echo, counted by strace.

    python syscalls.py [--loops asyncio,uvloop,rloop,tokioloop] [--duration 1] [--quick]

Connections are open and warm before strace attaches to the server, so that only echoing is counted. strace slows the
server, which therefore finds answers waiting where it would have had to wait itself. So with one connection the client
lets a millisecond pass before each message: the server always waits. With ten, the server always has work, as it has
under load. Needs strace and the permission to trace a process that is not its child (ptrace_scope 0, or root).

Writes `results/syscalls.json` and renders `report.md`.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import allocator
import loops
import report
import results
from load import Load
from rows import KINDS
from server import no_delay, parse_addr

from benchmarks import server

MSIZE = 1024
CONNECTIONS = (1, 10)
SERVERS = ("raw", "stream", "proto")


class NoTraceError(Exception):
    """strace cannot be had here; says why."""


def parse(text: str) -> dict[str, int]:
    """Calls by name from the table of `strace -c`.

    Columns: % time, seconds, usecs/call, calls, errors (blank where none), syscall.
    """
    calls = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls


@contextlib.contextmanager
def traced(pid: int, calls: dict[str, int]) -> Iterator[None]:
    """Count the system calls of all threads of a process into `calls`. Raises NoTraceError."""
    if shutil.which("strace") is None:
        raise NoTraceError("strace is not installed")
    with tempfile.NamedTemporaryFile("r") as table:
        command = ["strace", "-c", "-f", "-p", str(pid), "-o", table.name]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            line = strace.stderr.readline()
            if "attached" not in line:
                strace.wait()
                raise NoTraceError(line.strip() or "strace said nothing")
            try:
                yield
            finally:
                strace.send_signal(signal.SIGINT)  # strace detaches and writes its table
                strace.stderr.read()
        calls |= parse(table.read())


def one_at_a_time(addr: tuple[str, int], pid: int, calls: dict[str, int], duration: float) -> int:
    """Count over echoes that the server has to wait for; how many there were. Raises NoTraceError or OSError."""
    message, echoes = bytes(MSIZE), 0
    with socket.create_connection(addr, timeout=10) as sock:
        no_delay(sock)
        sock.sendall(message)
        sock.recv(MSIZE, socket.MSG_WAITALL)
        with traced(pid, calls):
            deadline = time.monotonic() + duration
            while time.monotonic() < deadline:
                time.sleep(0.001)
                sock.sendall(message)
                sock.recv(MSIZE, socket.MSG_WAITALL)
                echoes += 1
    return echoes


def all_at_once(addr: tuple[str, int], pid: int, calls: dict[str, int], duration: float, concurrency: int) -> int:
    """Count over echoes under load; how many there were. Raises NoTraceError or OSError."""
    with Load(addr, concurrency, MSIZE) as load:
        load.start()
        load.run(0.1)
        with traced(pid, calls):
            latencies, _ = load.run(duration)
    return len(latencies)


def count(name: str, kind: str, concurrency: int, duration: float, state: str) -> dict[str, Any]:
    """System calls per echo of one server, in a state of its allocator.

    Raises NoTraceError, or RuntimeError or OSError when the server fails.
    """
    calls: dict[str, int] = {}
    with server(name, list(KINDS[kind].server)) as (pid, text):
        addr = parse_addr(text)
        if state == allocator.FREED:
            os.kill(pid, signal.SIGUSR1)
        if concurrency == 1:
            echoes = one_at_a_time(addr, pid, calls, duration)
        else:
            echoes = all_at_once(addr, pid, calls, duration, concurrency)
    if not calls or not echoes:
        raise NoTraceError("strace counted nothing")
    return {
        "kind": kind,
        "concurrency": concurrency,
        "loop": name,
        "state": state,
        "echoes": echoes,
        "per_echo": round(sum(calls.values()) / echoes, 3),
        "calls": {call: round(number / echoes, 3) for call, number in sorted(calls.items(), key=lambda item: -item[1])},
    }


def main() -> None:
    """Count as the command line says."""
    parser = argparse.ArgumentParser(description="System calls per echo.")
    parser.add_argument("--loops", default=loops.DEFAULT, help="NAME or module:factory, separated by commas")
    parser.add_argument("--duration", type=float, help="seconds counted (1; quick: 0.15)")
    parser.add_argument("--quick", action="store_true", help="a shorter count")
    parser.add_argument("--out", type=Path, default=results.HERE, help="folder for results/ and report.md")
    options = parser.parse_args()
    duration = options.duration or (0.15 if options.quick else 1.0)
    versions = loops.available(loops.split(options.loops))
    place, summary, errors, reason = results.machine(), [], [], None
    try:
        for kind, concurrency, name, state in itertools.product(SERVERS, CONNECTIONS, versions, allocator.STATES):
            try:
                entry = count(name, kind, concurrency, duration, state)
            except (RuntimeError, OSError) as error:
                errors.append(f"{name}, {kind} x{concurrency}, {state}: {error}")
                print(f"  {errors[-1]}", file=sys.stderr)
                continue
            summary.append(entry)
            calls = json.dumps(entry["calls"])
            print(f"  {kind} x{concurrency} {name} {state}: {calls}", file=sys.stderr, flush=True)
    except NoTraceError as error:
        reason = str(error)
        print(f"system calls not counted: {reason}", file=sys.stderr)
    result = {
        "kind": "syscalls",
        "machine": place,
        "loops": versions,
        "settings": {"how": f"1 KiB, strace -c over {duration:g} s.", "quick": options.quick},
        "reason": reason,
        "summary": summary,
        "errors": errors,
    }
    results.save(options.out, "syscalls", result)
    print(report.render(options.out))


if __name__ == "__main__":
    main()
