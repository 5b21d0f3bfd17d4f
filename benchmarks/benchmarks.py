"""Echo servers on several event loops, side by side.

    python benchmarks.py raw stream proto udp tls tls-handshake concurrency [--quick] [--loops asyncio,uvloop,...]

Server and client are processes of their own, pinned: apart, each to its own CPU, or `--pin together`, to one CPU where
they run in turn. The loops take turns within each round, in an order that rotates, so that what the machine does
meanwhile meets all of them; each measurement starts a new server. The figure to judge by is the server's CPU time per
request (user and system): requests per second also depend on the client, on which CPUs meet and on what else runs.

Writes `results/KIND.json` and renders `report.md`.
"""

import argparse
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, TextIO

import certificate
import loops
import results

KINDS = {
    "raw": [],
    "stream": ["--streams"],
    "proto": ["--proto"],
    "udp": ["--udp"],
    "tls": ["--proto"],
    "tls-handshake": ["--proto"],
    "concurrency": ["--proto"],
}
TLS = ("tls", "tls-handshake")
SIZES = (1024, 10 * 1024, 100 * 1024)
# What a datagram can hold.
DATAGRAM_SIZES = (1024, 10 * 1024)
CONNECTIONS = (1, 10)
TLS_CONNECTIONS = 50
# Of each kind this many are under way at any time.
HANDSHAKES = ("full", "resumed")
HANDSHAKES_AT_ONCE = 10
SWEEP = (1, 10, 50, 200, 1000)
MEDIANS = (
    "server_cpu_us", "server_busy", "client_busy", "requests_per_second",
    "mean_us", "stdev_us", "p50_us", "p75_us", "p90_us", "p95_us", "p99_us",
)  # fmt: skip


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
def server(loop: str, flags: list[str]) -> Iterator[tuple[int, str]]:
    """A running echo server: its process id and its address. Raises RuntimeError with what it said when it fails."""
    command = [sys.executable, str(results.HERE / "server.py"), "--loop", loop, "--addr", "127.0.0.1:0", *flags]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                process.wait(timeout=10)
                raise RuntimeError("the server did not start")
            yield process.pid, line.split()[-1]
        except RuntimeError as error:
            if process.poll() is None or process.returncode == 0:
                raise
            raise RuntimeError(f"{error}; the server exited with {process.returncode}: {said(errors)}") from error
        finally:
            process.kill()


def said(errors: TextIO) -> str:
    """The last line that a process wrote to its stderr."""
    errors.seek(0)
    return (errors.read().strip().splitlines() or ["nothing said"])[-1]


def load(addr: str, flags: list[str]) -> dict[str, Any]:
    """Run the client once. Raises RuntimeError with what it said when it fails."""
    command = [sys.executable, str(results.HERE / "client.py"), "--addr", addr, "--output", "json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def points(kind: str, quick: bool) -> list[dict[str, Any]]:
    """What is measured for a kind of benchmark: the connections, with the size of messages or the kind of handshake."""
    if kind == "concurrency":
        return [{"msize": 1024, "concurrency": connections} for connections in SWEEP]
    if kind == "tls-handshake":
        return [{"handshakes": which, "concurrency": HANDSHAKES_AT_ONCE} for which in HANDSHAKES]
    if kind == "udp":
        sizes = DATAGRAM_SIZES[:1] if quick else DATAGRAM_SIZES
    else:
        sizes = SIZES[:1] + SIZES[2:] if quick else SIZES
    counts = (TLS_CONNECTIONS,) if kind == "tls" else CONNECTIONS
    return [{"msize": msize, "concurrency": connections} for msize in sizes for connections in counts]


def measure(kind: str, names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every measurement of one kind. A loop that fails at a point is said, with the reason, and lacks that figure."""
    _, server_flags, client_flags = placement(options.pin)
    server_flags += KINDS[kind] + (["--tls", str(options.certificate)] if kind in TLS else [])
    client_flags += [f"--{kind}"] if kind in {"udp", "tls"} else []
    client_flags += ["--duration", str(options.duration), "--warmup", str(options.warmup)]
    found = []
    for number in range(options.rounds):
        turn = names[number % len(names) :] + names[: number % len(names)]
        for point in points(kind, options.quick):
            flags = [part for key, value in point.items() for part in (f"--{key}", str(value))]
            for name in turn:
                entry = {"round": number, "loop": name, **point}
                try:
                    with server(name, server_flags) as (pid, addr):
                        entry |= load(addr, [*client_flags, *flags, "--server-pid", str(pid)])
                except RuntimeError as error:
                    print(f"  {name}: {error}", file=sys.stderr, flush=True)
                    entry["error"] = str(error)
                else:
                    show(kind, entry, options.rounds)
                found.append(entry)
    return found


def show(kind: str, entry: dict[str, Any], rounds: int) -> None:
    """One line of progress."""
    cpu = entry["server_cpu_us"]
    print(
        f"  {kind} {entry['round'] + 1}/{rounds}  {results.request(entry):>7} x{entry['concurrency']:<5}"
        f"{entry['loop']:<10} {'n/a' if cpu is None else f'{cpu:8.2f} us'} {entry['requests_per_second']:>10,.0f}/s",
        file=sys.stderr,
        flush=True,
    )


def summarise(kind: str, quick: bool, found: list[dict[str, Any]], names: list[str], base: str) -> list[dict[str, Any]]:
    """Medians over the rounds and ratios to the baseline, one entry per point and loop."""
    summary = []
    for point in points(kind, quick):
        here = [entry for entry in found if entry.items() >= point.items()]
        by_round = {(entry["round"], entry["loop"]): entry for entry in here if "error" not in entry}
        for name in names:
            mine = [entry for entry in here if entry["loop"] == name and "error" not in entry]
            if not mine:
                continue
            # Only rounds in which both answered: a ratio compares neighbours in time.
            pairs = [
                (by_round[number, name]["server_cpu_us"], by_round[number, base]["server_cpu_us"])
                for number in sorted({number for number, _ in by_round})
                if (number, name) in by_round and (number, base) in by_round
            ]
            both = [pair for pair in pairs if None not in pair]
            entry = {**point, "loop": name, "rounds": len(mine)}
            for key in MEDIANS:
                values = [measured[key] for measured in mine if measured[key] is not None]
                entry[key] = round(median(values), 3) if values else None
            ratio = results.ratios({name: [a for a, _ in both], "": [b for _, b in both]}, "")
            entry["ratio"] = ratio.get(name)
            measured = [value for other in mine if (value := other["server_cpu_us"]) is not None]
            entry["server_cpu_us_min"] = min(measured, default=None)
            summary.append(entry)
    return summary


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare event loops serving echo connections.")
    parser.add_argument("kinds", nargs="+", choices=list(KINDS), help="what to measure")
    parser.add_argument("--loops", default=loops.DEFAULT, help="NAME or module:factory, separated by commas")
    parser.add_argument("--rounds", type=int, help="rounds over all loops (8; quick: 3)")
    parser.add_argument("--duration", type=float, help="seconds of each measurement (1; quick: 0.3)")
    parser.add_argument("--pin", choices=("apart", "together", "no"), default="apart", help="where the two ends run")
    parser.add_argument("--quick", action="store_true", help="a look within a few minutes")
    parser.add_argument("--out", type=Path, default=results.HERE, help="folder for results/ and report.md")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 8)
    options.duration = options.duration or (0.3 if options.quick else 1.0)
    if options.rounds < 1 or options.duration <= 0:
        parser.error("--rounds and --duration are positive")
    options.warmup = min(0.3, options.duration / 2)
    return options


def run(kind: str, versions: dict[str, str], options: argparse.Namespace) -> bool:
    """Measure one kind and save it; whether nothing failed."""
    names = list(versions)
    base = results.baseline(names)
    place, began = results.machine(), time.monotonic()
    print(f"{kind}: {', '.join(names)}", file=sys.stderr, flush=True)
    found = measure(kind, names, options)
    how = f"{options.rounds} rounds of {options.duration:g} s; {placement(options.pin)[0]}."
    if kind in TLS:
        ciphers = sorted({entry["tls"] for entry in found if "tls" in entry})
        how += f" {', '.join(ciphers)}; {ssl.OPENSSL_VERSION}; certificate: ECDSA, P-256."
    result = {
        "kind": kind,
        "machine": place,
        "loops": versions,
        "baseline": base,
        "settings": {"how": how, "quick": options.quick, "seconds": round(time.monotonic() - began)},
        "summary": summarise(kind, options.quick, found, names, base),
        "measurements": found,
    }
    results.save(options.out, kind, result)
    return not any("error" in entry for entry in found)


def main() -> None:
    """Measure as the command line says."""
    options = arguments()
    versions = {kind in TLS: loops.available(loops.split(options.loops), tls=kind in TLS) for kind in options.kinds}
    with tempfile.TemporaryDirectory() as folder:
        options.certificate = Path(folder, "server.pem")
        if True in versions:
            certificate.write(options.certificate)
        failed = [kind for kind in dict.fromkeys(options.kinds) if not run(kind, versions[kind in TLS], options)]
    print(options.out / "report.md")
    if failed:
        raise SystemExit(f"some measurements failed, of {', '.join(failed)}: see above")


if __name__ == "__main__":
    main()
