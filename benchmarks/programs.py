"""A client of a real server, on the event loop under test.

    python programs.py redis --loop uvloop --addr 127.0.0.1:6379 --duration 1 [--states fresh,freed]

Prints the CPU time (user and system, all threads) of this process per operation, and how long one took, as JSON, by
state of the allocator. An operation is: redis, one of the 100 commands of a pipeline; asyncpg and psycopg, one query by
one of ten connections; websockets, one message of 1 KiB echoed over one of ten connections.
"""

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import allocator
import loops
from server import parse_addr, use_cpu

CONNECTIONS = 10
PIPELINE = 100
# Operations between two looks at the clock.
TURNS = 20

# Does some operations, and returns how many.
Work = Callable[[], Awaitable[int]]


@asynccontextmanager
async def redis(host: str, port: int) -> AsyncIterator[Work]:
    """Pipelines of SET and GET."""
    from redis.asyncio import Redis

    async with Redis(host=host, port=port) as db:

        async def work() -> int:
            async with db.pipeline(transaction=False) as pipeline:
                for number in range(PIPELINE // 2):
                    pipeline.set(f"key {number}", number)
                    pipeline.get(f"key {number}")
                found = await pipeline.execute()
            if found[-1] != str(PIPELINE // 2 - 1).encode():
                raise RuntimeError("the pipeline answered something else")
            return PIPELINE

        yield work


def together(tasks: list[Callable[[], Awaitable[None]]]) -> Work:
    """Each of these, `TURNS` times one after the other, all at once."""

    async def repeat(once: Callable[[], Awaitable[None]]) -> None:
        for _ in range(TURNS):
            await once()

    async def work() -> int:
        await asyncio.gather(*map(repeat, tasks))
        return len(tasks) * TURNS

    return work


@asynccontextmanager
async def asyncpg(host: str, port: int) -> AsyncIterator[Work]:
    """Prepared queries, which asyncpg sends and parses itself."""
    import asyncpg as library

    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(CONNECTIONS):
            connection = await library.connect(host=host, port=port, user="test", database="postgres", ssl=False)
            stack.push_async_callback(connection.close)

            async def once(connection: Any = connection) -> None:
                if await connection.fetchval("SELECT $1::int + 1", 41) != 42:
                    raise RuntimeError("the query answered something else")

            tasks.append(once)
        yield together(tasks)


@asynccontextmanager
async def psycopg(host: str, port: int) -> AsyncIterator[Work]:
    """Queries by libpq, whose descriptor psycopg has the loop watch."""
    import psycopg as library

    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(CONNECTIONS):
            connection = await stack.enter_async_context(
                await library.AsyncConnection.connect(
                    host=host, port=port, user="test", dbname="postgres", sslmode="disable", autocommit=True
                )
            )

            async def once(connection: Any = connection) -> None:
                cursor = await connection.execute("SELECT %s::int + 1", (41,))
                if await cursor.fetchone() != (42,):
                    raise RuntimeError("the query answered something else")

            tasks.append(once)
        yield together(tasks)


@asynccontextmanager
async def websockets(host: str, port: int) -> AsyncIterator[Work]:
    """Messages of 1 KiB."""
    from websockets.asyncio.client import connect

    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(CONNECTIONS):
            connection = await stack.enter_async_context(connect(f"ws://{host}:{port}/", compression=None))

            async def once(connection: Any = connection) -> None:
                await connection.send(bytes(1024))
                if len(await connection.recv()) != 1024:
                    raise RuntimeError("the echo is another one")

            tasks.append(once)
        yield together(tasks)


PROGRAMS = {"redis": redis, "asyncpg": asyncpg, "psycopg": psycopg, "websockets": websockets}


async def measure(work: Work, seconds: float) -> dict[str, Any]:
    """Work for that long. Raises what the library raises."""
    took, operations = [], 0
    now = began = time.perf_counter_ns()
    cpu = time.process_time_ns()
    while now - began < seconds * 1e9:
        done = await work()
        operations += done
        before, now = now, time.perf_counter_ns()
        took.append((now - before) / done)
    cpu = time.process_time_ns() - cpu
    return {
        "figure": round(cpu / 1e3 / operations, 3),
        "requests": operations,
        "requests_per_second": round(operations / (now - began) * 1e9, 1),
        "server_busy": round(cpu / (now - began), 3),
        "p50_us": round(statistics.median(took) / 1e3, 2),
    }


async def run(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What was found, by state."""
    found = {}
    async with PROGRAMS[options.program](*parse_addr(options.addr)) as work:
        for state in options.states.split(","):
            if state == allocator.FREED:
                allocator.free_large_block()
            await measure(work, options.warmup)
            found[state] = await measure(work, options.duration)
    return found


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="A client of a real server on the event loop under test.")
    parser.add_argument("program", choices=list(PROGRAMS))
    parser.add_argument("--loop", default="asyncio", help="NAME (NAME:new_event_loop) or module:factory")
    parser.add_argument("--addr", required=True, help="HOST:PORT of the server")
    parser.add_argument("--duration", type=float, default=1, help="seconds measured")
    parser.add_argument("--warmup", type=float, default=0.1, help="seconds before them")
    parser.add_argument("--states", default=allocator.FRESH, help="of the allocator, separated by commas")
    parser.add_argument("--cpu", type=int, help="pin to this CPU")
    options = parser.parse_args()
    use_cpu(options.cpu)
    loop = loops.factory(options.loop)()
    asyncio.set_event_loop(loop)
    gc.freeze()
    print(json.dumps(loop.run_until_complete(run(options))), flush=True)


if __name__ == "__main__":
    main()
