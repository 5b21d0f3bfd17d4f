"""The rows that have a server or a client of their own: what is measured, with what, and how much of it by default.

A kind is a section of the report and a file of results. Its points are what `make bench` measures; those of `full` come
on top in `make bench-full`. Single operations, in one process, are cases*.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KIB = 1024
CPU, MEMORY = "us of CPU", "KiB"

Point = dict[str, Any]


def echoes(sizes: Iterable[int], connections: Iterable[int]) -> tuple[Point, ...]:
    """Messages of these sizes over so many connections."""
    connections = tuple(connections)
    return tuple({"msize": msize, "concurrency": count} for msize in sizes for count in connections)


def named(*names: str, **more: Any) -> tuple[Point, ...]:
    """Points that have a name in place of a size."""
    return tuple({"name": name, "concurrency": 1, **more} for name in names)


@dataclass(frozen=True)
class Kind:
    """A section of the report.

    `run` says how a point is measured: `echo` (server.py and client.py), `web` (apps.py and wrk), or `program` (a
    client of programs.py and a real server).
    """

    title: str
    points: tuple[Point, ...]
    full: tuple[Point, ...] = ()
    run: str = "echo"
    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    request: str = "request"
    unit: str = CPU
    # The kind of server that echo.c has for it.
    c: str | None = None
    # Also measured with `coalesce_writes`.
    coalescing: bool = False
    # Both ends on one CPU, where the client costs more than the server.
    together: bool = False
    # What takes long and varies little is measured in so many rounds only, but in a full run.
    rounds: int = 1000

    @property
    def tls(self) -> bool:
        """Whether a loop has to serve TLS for it."""
        return self.title.startswith("TLS")

    def measured(self, full: bool) -> tuple[Point, ...]:
        """The points of a run, each once; those of a full one where there are no others."""
        points = [*self.points, *(self.full if full or not self.points else ())]
        return tuple(point for at, point in enumerate(points) if point not in points[:at])


SIZES = (64, KIB, 10 * KIB, 100 * KIB, KIB * KIB)
SWEEP = (1, 10, 50, 200, 1000)

KINDS = {
    "proto": Kind(
        "Protocols: `asyncio.Protocol`",
        (*echoes([KIB], (1, 10, 50)), *echoes(SIZES[2:], [10])),
        (*echoes(SIZES, (1, 10, 50)), *echoes([64, KIB], SWEEP)),
        server=("--proto",), c="tcp",
    ),
    "stream": Kind(
        "Streams: `asyncio.start_server`",
        echoes([KIB], (1, 10)), echoes(SIZES, (1, 10, 50)), server=("--streams",), c="tcp",
    ),
    "raw": Kind(
        "Raw sockets: `sock_recv`, `sock_sendall`", echoes([KIB], (1, 10)), echoes(SIZES, (1, 10, 50)), c="tcp",
    ),
    "buffered": Kind(
        "Buffered protocols: `asyncio.BufferedProtocol`",
        (), echoes((KIB, 100 * KIB), (1, 10, 50)), server=("--buffered",), c="tcp",
    ),
    "pieces": Kind(
        "Messages of five writes: `asyncio.Protocol`",
        echoes([KIB], [10]), echoes([KIB], (1, 10, 50)), server=("--pieces", "5"), c="tcp", coalescing=True,
    ),
    "udp": Kind(
        "Datagrams: `asyncio.DatagramProtocol`",
        echoes([KIB], [10]), echoes((64, KIB, 10 * KIB), (1, 10, 50)), server=("--udp",), client=("--udp",), c="udp",
    ),
    "unix": Kind(
        "Unix sockets: `asyncio.Protocol`",
        echoes([KIB], [10]), echoes((KIB, 100 * KIB), (1, 10, 50)), server=("--proto",), c="unix",
    ),
    "connect": Kind(
        "Connect, echo once, close: `asyncio.Protocol`",
        echoes([64], [10]), echoes([64], (1, 50)), server=("--proto",), client=("--visits",), c="tcp", request="visit",
    ),
    "pour": Kind(
        "One way, to the server: `asyncio.Protocol`",
        named("1 MiB"), server=("--discard",), client=("--pour",), c="discard", request="MiB",
    ),
    "flood": Kind(
        "One way, from the server: `asyncio.Protocol`",
        named("1 MiB"), server=("--flood",), client=("--flooded",), c="flood", request="MiB",
    ),
    "idle": Kind(
        "Memory of idle connections: `asyncio.Protocol`",
        ({"name": "idle", "msize": KIB, "concurrency": 10_000},),
        server=("--proto",), client=("--idle",), c="tcp", request="connection", unit=MEMORY, rounds=1,
    ),
    "tls": Kind(
        "TLS: `asyncio.Protocol`",
        echoes((KIB, 10 * KIB, 100 * KIB), [50]), echoes((KIB, 10 * KIB, 100 * KIB), (1, 10)),
        server=("--proto",), client=("--tls",), together=True,
    ),
    "tls-handshake": Kind(
        "TLS handshakes: `asyncio.Protocol`",
        tuple({"handshakes": which, "concurrency": 10} for which in ("full", "resumed")),
        server=("--proto",), request="handshake", together=True,
    ),
    "web": Kind(
        "HTTP under wrk",
        tuple({"name": name, "concurrency": 50} for name in ("uvicorn", "aiohttp")),
        tuple({"name": name, "concurrency": count} for name in ("uvicorn", "aiohttp") for count in (10, 200)),
        run="web", coalescing=True, rounds=2,
    ),
    "programs": Kind(
        "Clients of real servers",
        (
            {"name": "redis-py, pipeline of 100", "program": "redis", "concurrency": 1},
            {"name": "asyncpg, query", "program": "asyncpg", "concurrency": 10},
            {"name": "psycopg, query", "program": "psycopg", "concurrency": 10},
            {"name": "websockets, echo of 1 KiB", "program": "websockets", "concurrency": 10},
        ),
        run="program", request="operation",
    ),
}  # fmt: skip


def size(bytes_: int) -> str:
    """1024 -> `1 KiB`."""
    for unit, factor in (("MiB", KIB * KIB), ("KiB", KIB)):
        if bytes_ >= factor and bytes_ % factor == 0:
            return f"{bytes_ // factor} {unit}"
    return f"{bytes_} B"


def label(point: Point) -> str:
    """What a point asks for: a message of a size, a kind of handshake, or a name."""
    return point.get("name") or point.get("handshakes") or size(point["msize"])


def flags(kind: Kind, point: Point) -> list[str]:
    """The flags of the client for a point."""
    names = ("msize", "handshakes", "concurrency")
    return [*kind.client, *(part for name in names if name in point for part in (f"--{name}", str(point[name])))]
