"""Servers and clients on several event loops, side by side.

    python benchmarks.py [KIND ...] [--full] [--quick] [--minutes N] [--loops asyncio,uvloop,...]

The kinds are in rows.py. Server and client are processes of their own, pinned: apart, each to its own CPU, or `--pin
together`, to one CPU where they run in turn. A round measures everything once, and the loops take turns within each
point, in an order that rotates, so that what the machine does meanwhile meets all of them. Each measurement starts a
new server, which is measured fresh and once more after a large block was freed (allocator.py). The figure to judge by
is the server's CPU time per request (user and system): requests per second also depend on the client, on which CPUs
meet and on what else runs. `C` is the server of echo.c.

Writes `results/KIND.json` and renders `report.md`.
"""

import argparse
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import allocator
import c_echo
import certificate
import loops
import real_servers
import report
import results
import rows
import wrk
from rows import KINDS, Kind, Point

HERE = results.HERE
# Longest that a server may take to start, in seconds, and to tell that it freed its block.
PATIENCE = 10


def placement(pin: str) -> tuple[str, list[str], list[str]]:
    """Where the two ends run: in words, as flags of the server, as flags of the client."""
    cpus = results.cpus()
    if pin == "apart" and len(cpus) > 1:
        # The spinning client keeps its CPU awake: no send of the server's pays for waking it.
        words = "server and client each pinned to a CPU of its own, the client never sleeps"
        return words, ["--cpu", str(cpus[0])], ["--cpu", str(cpus[1]), "--spin"]
    if pin == "together" and cpus:
        shared = ("--cpu", str(cpus[-1]), "--batch")
        return "server and client share one CPU and run in turn", [*shared], [*shared]
    return "neither end pinned: judge with care", [], []


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its address. Raises RuntimeError with what it said when it fails."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                process.wait(timeout=PATIENCE)
                raise RuntimeError("the server did not start")
            yield process, line.split()[-1]
        except RuntimeError as error:
            if process.poll() is None or process.returncode == 0:
                raise
            raise RuntimeError(f"{error}; the server exited with {process.returncode}: {said(errors)}") from error
        finally:
            process.kill()


@contextlib.contextmanager
def server(loop: str, flags: list[str], addr: str = "127.0.0.1:0") -> Iterator[tuple[int, str]]:
    """A running echo server: its process id and its address. Raises RuntimeError with what it said when it fails."""
    command = [sys.executable, str(HERE / "server.py"), "--loop", loop, "--addr", addr, *flags]
    with started(command) as (process, where):
        yield process.pid, where


def said(errors: TextIO) -> str:
    """The last line that a process wrote to its stderr."""
    errors.seek(0)
    return (errors.read().strip().splitlines() or ["nothing said"])[-1]


def output(command: list[str], what: str) -> Any:
    """The JSON that a program prints. Raises RuntimeError with what it said when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{what} hung for 120 s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{what} failed: {lines[-1]}")
    return json.loads(done.stdout)


def freed(process: subprocess.Popen[str]) -> None:
    """Make sure that a server which was told to free a block did. Raises RuntimeError."""
    os.set_blocking(process.stdout.fileno(), False)
    line = process.stdout.readline()
    if line.encode() != allocator.SAID:
        raise RuntimeError("the loop ran no signal handler, so the second state was not reached")


class Bench:
    """What the measurements of a run share: options, certificate, addresses of real servers."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.timing = ["--duration", str(options.duration), "--warmup", str(options.warmup)]
        self.certificate = folder / "server.pem"
        self.addresses: dict[str, str] = {}

    def pin(self, kind: Kind) -> str:
        """Where the two ends of this kind run."""
        return self.options.pin or ("together" if kind.together else "apart")

    def measure(self, kind: Kind, point: Point, loop: str) -> dict[str, dict[str, Any]]:
        """Figures by state. Raises RuntimeError, NoWrkError."""
        if kind.run == "web":
            return self.web(point, loop)
        if kind.run == "program":
            return self.program(point, loop)
        if "--idle" in kind.client:  # its memory does not shrink again
            found = {}
            for state in allocator.STATES[: 1 if loop == c_echo.NAME else 2]:
                found |= self.echo(kind, point, loop, [state])
            return found
        return self.echo(kind, point, loop, [allocator.FRESH] if loop == c_echo.NAME else list(allocator.STATES))

    def echo(self, kind: Kind, point: Point, loop: str, states: list[str]) -> dict[str, dict[str, Any]]:
        _, server_flags, client_flags = placement(self.pin(kind))
        addr = str(self.folder / "socket") if kind.c == "unix" else "127.0.0.1:0"
        Path(addr).unlink(missing_ok=True)
        if loop == c_echo.NAME:
            cpu = int(server_flags[1]) if server_flags else None
            where = addr if kind.c == "unix" else addr.rpartition(":")[2]
            command = c_echo.command(kind.c, where, cpu, batch="--batch" in server_flags)
        else:
            command = [sys.executable, str(HERE / "server.py"), "--loop", loop, "--addr", addr]
            command += [*server_flags, *kind.server, *(["--tls", str(self.certificate)] if kind.tls else [])]
        client = [sys.executable, str(HERE / "client.py"), "--output", "json", *client_flags, *self.timing]
        client += [*rows.flags(kind, point), "--states", ",".join(states)]
        with started(command) as (process, where):
            found = output([*client, "--addr", where, "--server-pid", str(process.pid)], "the client")
            if allocator.FREED in states:
                freed(process)
        if loop == c_echo.NAME:  # it allocates nothing: one state is as good as the other
            found[allocator.FREED] = found[allocator.FRESH]
        return found

    def web(self, point: Point, loop: str) -> dict[str, dict[str, Any]]:
        wrk.program()
        cpus = results.cpus()
        pinned = len(cpus) > 1
        command = [sys.executable, str(HERE / "apps.py"), point["name"], "--loop", loop, "--addr", "127.0.0.1:0"]
        with started([*command, *(["--cpu", str(cpus[0])] if pinned else [])]) as (process, where):
            wrk.warm(where)
            found = {}
            for state in allocator.STATES:
                if state == allocator.FREED:
                    os.kill(process.pid, signal.SIGUSR1)
                with real_servers.on_cpu(cpus[1] if pinned else None):
                    found[state] = wrk.measure(where, point["concurrency"], process.pid)
            freed(process)
        return found

    def program(self, point: Point, loop: str) -> dict[str, dict[str, Any]]:
        cpus = results.cpus()
        command = [sys.executable, str(HERE / "programs.py"), point["program"], "--loop", loop, *self.timing]
        command += ["--addr", self.addresses[point["program"]], "--states", ",".join(allocator.STATES)]
        return output([*command, *(["--cpu", str(cpus[0])] if cpus else [])], "the client")


def serving(bench: Bench, kinds: list[str], stack: contextlib.ExitStack) -> dict[str, str]:
    """Start the real servers that the kinds need; why a program or an application cannot be measured."""
    missing = {}
    try:
        wrk.program()
    except wrk.NoWrkError as error:
        missing |= dict.fromkeys((point["name"] for point in KINDS["web"].measured(full=True)), str(error))
    cpus = results.cpus()
    for kind in (KINDS[name] for name in kinds):
        for program in (point["program"] for point in kind.measured(bench.options.full) if "program" in point):
            try:
                running = real_servers.serving(program, cpus[1] if len(cpus) > 1 else None)
                bench.addresses[program] = stack.enter_context(running)
            except real_servers.NoServerError as error:
                missing[program] = str(error)
    return missing


def cast(kind: Kind, loops_here: dict[bool, dict[str, str]], compiler: bool) -> dict[str, str]:
    """Who takes part in a kind, with versions."""
    found = dict(loops_here[kind.tls])
    if kind.coalescing and results.SUBJECT in found:
        found[results.COALESCING] = found[results.SUBJECT]
    if kind.c and compiler:
        found[c_echo.NAME] = "epoll"
    return found


def one_round(bench: Bench, number: int, kind_name: str, names: list[str], skip: dict[tuple, str]) -> list[dict]:
    """Measure each point of a kind on each loop. A pair that failed is not tried again: `skip` has the reason."""
    kind, found = KINDS[kind_name], []
    for point in kind.measured(bench.options.full):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            key = (kind_name, rows.label(point), point["concurrency"], name)
            if key in skip:
                continue
            entry = {"round": number, "loop": name, "label": rows.label(point), "concurrency": point["concurrency"]}
            try:
                entry["states"] = bench.measure(kind, point, name)
            except (RuntimeError, wrk.NoWrkError) as error:
                skip[key] = entry["error"] = str(error)
                print(f"  {kind_name} {entry['label']} x{entry['concurrency']} {name}: {error}", file=sys.stderr)
            else:
                show(kind_name, entry)
            found.append(entry)
    return found


def show(kind: str, entry: dict[str, Any]) -> None:
    """One line of progress."""
    figures = "  ".join(
        f"{state} {'n/a' if found['figure'] is None else format(found['figure'], '8.2f')}"
        for state, found in entry["states"].items()
    )
    print(
        f"  {kind} {entry['round'] + 1}  {entry['label']:>7} x{entry['concurrency']:<5} {entry['loop']:<12} {figures}",
        file=sys.stderr,
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare event loops as servers and clients.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"what to measure (all): {', '.join(KINDS)}")
    parser.add_argument("--loops", help="NAME or module:factory, separated by commas")
    parser.add_argument("--full", action="store_true", help="every size and number of connections, every loop")
    parser.add_argument("--rounds", type=int, help="rounds over everything, at most (20)")
    parser.add_argument("--minutes", type=float, help="begin no round that would end later; one is always made")
    parser.add_argument("--duration", type=float, help="seconds of each measurement (0.15; full: 0.5; quick: 0.1)")
    parser.add_argument("--pin", choices=("apart", "together", "no"), help="where the two ends run (TLS: together)")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results/ and report.md")
    options = parser.parse_args()
    if unknown := [name for name in options.kinds if name not in KINDS]:
        parser.error(f"no such kind: {', '.join(unknown)}")
    options.kinds = options.kinds or [name for name, kind in KINDS.items() if kind.points or options.full]
    options.loops = options.loops or (loops.ALL if options.full else loops.DEFAULT)
    options.rounds = options.rounds or (1 if options.quick else 20)
    options.duration = options.duration or (0.1 if options.quick else 0.5 if options.full else 0.15)
    if options.rounds < 1 or options.duration <= 0:
        parser.error("--rounds and --duration are positive")
    options.warmup = min(0.3, options.duration / 2)
    return options


def result_of(bench: Bench, name: str, versions: dict[str, str], found: list[dict], place: dict[str, Any]) -> dict:
    """What is saved of one kind."""
    kind, options = KINDS[name], bench.options
    count = max(entry["round"] for entry in found) + 1
    how = f"{count} round{'s' * (count > 1)} of {options.duration:g} s"
    if kind.run == "web":
        how = f"{how.partition(' of ')[0]} of {wrk.SECONDS} s; server and wrk each pinned to a CPU of its own."
    elif kind.run == "program":
        how += (
            "; the real server and the client on the loop each pinned to a CPU of its own; the figure is the client's."
        )
    elif "--idle" in kind.client:
        how = f"{how.partition(' of ')[0]}; growth of the server's resident memory."
    else:
        how += f"; {placement(bench.pin(kind))[0]}."
    if kind.tls:
        states = [state for entry in found for state in entry.get("states", {}).values()]
        ciphers = ", ".join(sorted({state["tls"] for state in states}))
        how += f" {ciphers}; {ssl.OPENSSL_VERSION}; certificate: ECDSA, P-256."
    return {
        "kind": name,
        "title": kind.title,
        "request": kind.request,
        "unit": kind.unit,
        "machine": place,
        "loops": versions,
        "settings": {"how": how, "quick": options.quick},
        "measurements": found,
    }


def main() -> None:
    """Measure as the command line says."""
    options = arguments()
    place, began = results.machine(), time.monotonic()
    names = loops.split(options.loops)
    needed = {KINDS[kind].tls for kind in options.kinds}
    left_out: dict[bool, dict[str, str]] = {False: {}, True: {}}
    here = {tls: loops.available(names, tls=tls, left_out=left_out[tls]) for tls in needed}
    notes = []
    try:
        c_echo.compiled()
    except c_echo.NoCompilerError as error:
        notes.append(f"{c_echo.NAME}: left out ({error})")
        print(notes[-1], file=sys.stderr)
    found: dict[str, list[dict]] = {kind: [] for kind in options.kinds}
    skip: dict[tuple, str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(options, Path(folder))
        if True in needed:
            certificate.write(bench.certificate)
        missing = serving(bench, options.kinds, stack)
        casts = {kind: cast(KINDS[kind], here, not notes) for kind in options.kinds}
        for kind in options.kinds:
            for point in KINDS[kind].measured(options.full):
                if reason := missing.get(point.get("program", point.get("name", ""))):
                    for name in casts[kind]:
                        skip[kind, rows.label(point), point["concurrency"], name] = reason
                    found[kind].append(
                        {
                            "round": 0,
                            "label": rows.label(point),
                            "concurrency": point["concurrency"],
                            "loop": "all",
                            "error": reason,
                        }
                    )
        took = dict.fromkeys(options.kinds, 0.0)
        for number in range(options.rounds):
            start = time.monotonic()
            due = [kind for kind in options.kinds if options.full or number < KINDS[kind].rounds]
            if number and options.minutes and start + sum(took[kind] for kind in due) - began > options.minutes * 60:
                break
            for kind in due:
                before = time.monotonic()
                found[kind] += one_round(bench, number, kind, list(casts[kind]), skip)
                tls = KINDS[kind].tls
                result = result_of(bench, kind, casts[kind], found[kind], place)
                result["notes"] = (notes if KINDS[kind].c else []) + [
                    f"{name}: left out ({why})" for name, why in left_out[tls].items()
                ]
                results.save(options.out, kind, result)
                took[kind] = time.monotonic() - before
            print(f"round {number + 1}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(report.render(options.out))
    if skip:
        raise SystemExit(f"{len(skip)} measurements failed or were not possible: the report says which")


if __name__ == "__main__":
    main()
