"""A load generator for echo servers: N connections, one message in flight on each, one process, one epoll.

    python client.py --addr 127.0.0.1:25000 --duration 5 --concurrency 10 --msize 1024 --output text

With `--udp` the messages are datagrams, each connection a connected socket of its own.

It uses plain sockets, never an event loop, so that every loop meets the same client. Each connection first exchanges
one message that is compared byte by byte; then the load warms up; then the window is measured. Latency is the time
from the send of a message to the arrival of the last byte of its echo. With `--server-pid` (Linux), the CPU clock of
that process is read as the window opens and as it closes, which gives the server's CPU time per request. `--states
fresh,freed` then has the server free a large block (allocator.py) and measures once more.

With `--tls` the messages go over TLS. With `--handshakes full` or `resumed` a request is a connection: TCP, the TLS
handshake, one byte echoed, and the closing of both directions; latency is the time that all of it takes. `--visits` is
the same without TLS. `--pour` and `--flooded` move bytes in one direction, to a server with `--discard` or from one
with `--flood`: a request is a mebibyte. `--idle` measures the memory of connections that say nothing.

With `--spin` the client never sleeps in its poll. A send to a process that sleeps pays for waking its CPU, and on a
virtual machine that costs the sender several times what the echo does: a figure about the machine, and one that falls
on whichever loop lets the client fall asleep more often. It takes a CPU for the client alone.
"""

import argparse
import gc
import json
import math
import os
import signal
import ssl
import statistics
import sys
import time
from typing import Any

import allocator
from load import PATIENCE, DatagramLoad, Load
from other_loads import Flooded, Idle, Poured, Visits
from server import Addr, allow_many_files, parse_addr, use_cpu
from tls_load import Handshakes, TlsLoad

PERCENTILES = (50, 75, 90, 95, 99)


def process_cpu_ns(pid: int) -> int | None:
    """CPU time (user and system, all threads, nanoseconds) that a process has used; None where only Linux could say.

    The clock id of another process is what clock_getcpuclockid(3) computes: the inverted pid above three bits, of
    which 2 means "scheduler's clock". /proc/PID/stat counts in ticks of 10 ms; this clock does not. Raises OSError
    when there is no such process.
    """
    if not sys.platform.startswith("linux"):
        return None
    return time.clock_gettime_ns((~pid << 3) | 2)


def summary(latencies: list[int], seconds: float) -> dict[str, float]:
    """Rate and latencies (microseconds; percentiles by nearest rank). Raises ValueError when nothing was answered."""
    if not latencies:
        raise ValueError("the server answered nothing in the measured window")
    ordered = sorted(latencies)
    result = {
        "requests": len(ordered),
        "seconds": round(seconds, 4),
        "requests_per_second": round(len(ordered) / seconds, 1),
        "mean_us": round(statistics.fmean(ordered) / 1e3, 2),
        "stdev_us": round(statistics.pstdev(ordered) / 1e3, 2),
        "min_us": round(ordered[0] / 1e3, 2),
        "max_us": round(ordered[-1] / 1e3, 2),
    }
    for percent in PERCENTILES:
        result[f"p{percent}_us"] = round(ordered[math.ceil(len(ordered) * percent / 100) - 1] / 1e3, 2)
    return result


def measure(
    load: Load | Visits | Poured, duration: float, warmup: float, server_pid: int | None = None
) -> dict[str, Any]:
    """Warm up, then measure for `duration` seconds.

    Adds to `summary`: the CPU the server used per request (`figure`), the share of one CPU that it used
    (`server_busy`), and that of the client (`client_busy`). Raises what `Load.run` raises.
    """

    def cpu() -> int | None:
        return None if server_pid is None else process_cpu_ns(server_pid)

    load.run(warmup)
    own, server = time.process_time_ns(), cpu()
    latencies, seconds = load.run(duration)
    server_end, own_end = cpu(), time.process_time_ns()
    result: dict[str, Any] = dict(summary(latencies, seconds))
    result["client_busy"] = round((own_end - own) / 1e9 / seconds, 3)
    if server is None or server_end is None:
        result["figure"] = result["server_busy"] = None
    else:
        result["figure"] = round((server_end - server) / 1e3 / len(latencies), 3)
        result["server_busy"] = round((server_end - server) / 1e9 / seconds, 3)
    if isinstance(load, TlsLoad | Handshakes):
        result["tls"] = load.tls
    return result


def measure_idle(load: Idle, pid: int) -> dict[str, Any]:
    """The memory of idle connections, in KiB of the server each. Raises OSError, ValueError."""
    return {"figure": round(load.kib_each(pid), 2), "requests_per_second": None, "server_busy": None}


def as_text(result: dict[str, Any]) -> str:
    """The result for a reader."""
    if "requests" not in result:
        return f"memory        {result['figure']} KiB per connection"
    lines = [
        f"requests      {result['requests']} in {result['seconds']} s, {result['requests_per_second']} per second",
        f"latency, us   mean {result['mean_us']}, stdev {result['stdev_us']}, {result['min_us']} to {result['max_us']}",
        "percentiles   " + ", ".join(f"{percent} %: {result[f'p{percent}_us']}" for percent in PERCENTILES),
        f"client        {result['client_busy']:.0%} of a CPU",
    ]
    if result["figure"] is not None:
        cpu, busy = result["figure"], result["server_busy"]
        lines.append(f"server        {cpu} us of CPU per request, {busy:.0%} of a CPU")
    if "tls" in result:
        lines.append(f"connections   {result['tls']}, {ssl.OPENSSL_VERSION}")
    return "\n".join(lines)


def silent(*_: Any) -> None:
    """Signal handler: interrupts a poll that would wait for ever."""
    raise TimeoutError("the server fell silent")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="Load generator for echo servers.")
    parser.add_argument("--addr", default="127.0.0.1:25000", help="HOST:PORT")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds measured")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before them")
    parser.add_argument("--concurrency", type=int, default=1, help="connections")
    parser.add_argument("--msize", type=int, default=1024, help="bytes per message")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--udp", action="store_true", help="datagrams")
    kind.add_argument("--tls", action="store_true", help="over TLS; any certificate will do")
    kind.add_argument("--handshakes", choices=("full", "resumed"), help="TLS connections instead of messages")
    kind.add_argument("--visits", action="store_true", help="connections made, used once and closed")
    kind.add_argument("--pour", action="store_true", help="one direction, to the server")
    kind.add_argument("--flooded", action="store_true", help="one direction, from the server")
    kind.add_argument("--idle", action="store_true", help="memory of connections that say nothing; needs --server-pid")
    parser.add_argument("--output", choices=("json", "text"), default="text")
    parser.add_argument("--server-pid", type=int, help="the process whose CPU time is measured")
    parser.add_argument("--states", default=allocator.FRESH, help="of the server's allocator, separated by commas")
    parser.add_argument("--cpu", type=int, help="pin the client to this CPU")
    parser.add_argument("--batch", action="store_true", help="never preempt the server (SCHED_BATCH)")
    parser.add_argument("--spin", action="store_true", help="poll without sleeping")
    options = parser.parse_args()
    if options.concurrency < 1 or options.msize < 1 or options.duration <= 0 or options.warmup < 0:
        parser.error("--concurrency and --msize are at least 1, --duration is positive, --warmup not negative")

    states = options.states.split(",")
    if (allocator.FREED in states or options.idle) and options.server_pid is None:
        parser.error(f"--idle and the state {allocator.FREED!r} need --server-pid")
    if options.idle and len(states) > 1:
        parser.error("--idle measures one state of a server: its memory does not shrink again")

    use_cpu(options.cpu, batch=options.batch)
    allow_many_files()
    gc.disable()  # latencies pile up by the million, none of them in a cycle
    signal.signal(signal.SIGALRM, silent)
    try:
        found = measure_states(options, states)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.addr}: {error}") from error
    if options.output == "json":
        print(json.dumps(found))
    else:
        print(
            "\n".join(
                f"{state}\n{as_text(result)}" if found.keys() != {"fresh"} else as_text(result)
                for state, result in found.items()
            )
        )
    sys.stdout.flush()
    os._exit(0)  # freeing a million integers takes longer than a quick measurement


def measure_states(options: argparse.Namespace, states: list[str]) -> dict[str, dict[str, Any]]:
    """What was found, by state of the server's allocator. Raises OSError, and ValueError for a wrong answer."""
    addr = parse_addr(options.addr)
    found = {}

    def patience(seconds: float = 0) -> None:
        signal.alarm(math.ceil(seconds) + PATIENCE)

    def enter(state: str) -> None:
        if state == allocator.FREED:
            os.kill(options.server_pid, signal.SIGUSR1)

    patience()
    if options.idle:
        (state,) = states
        patience(60)
        enter(state)
        return {state: measure_idle(Idle(addr, options.concurrency, options.msize), options.server_pid)}
    with load_for(options, addr) as load:
        load.start()
        for state in states:
            patience(options.warmup + options.duration)
            enter(state)
            found[state] = measure(load, options.duration, options.warmup, options.server_pid)
    return found


def load_for(options: argparse.Namespace, addr: Addr) -> Load | Visits | Poured:
    """The load that the command line asks for. Raises OSError, and ValueError for a wrong answer."""
    if options.handshakes:
        return Handshakes(addr, options.concurrency, options.handshakes == "resumed", options.spin)
    if options.visits:
        return Visits(addr, options.concurrency, options.msize, options.spin)
    if options.pour or options.flooded:
        return (Poured if options.pour else Flooded)(addr, options.spin)
    kind = DatagramLoad if options.udp else TlsLoad if options.tls else Load
    return kind(addr, options.concurrency, options.msize, options.spin)


if __name__ == "__main__":
    main()
