"""redis-py's asyncio client, which reads and writes asyncio streams, with a real Redis: over TCP and a Unix socket."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.real.conftest import OnLoop
from tests.real.servers import Address

redis = pytest.importorskip("redis.asyncio", reason="redis is not installed (make test-real installs it)")

BLOB = random.Random(2).randbytes(4 << 20)
over = pytest.mark.parametrize("over", ["tcp", "unix"])


def client(address: Address, over: str, **options: Any) -> Any:
    """A new client; used with `async with`."""
    where = {"unix_socket_path": address.socket} if over == "unix" else {"host": "127.0.0.1", "port": address.port}
    return redis.Redis(**where, **options)


@over
def test_values_of_every_kind_come_back(on_loop: OnLoop, redis_server: Address, over: str) -> None:
    async def main() -> None:
        async with client(redis_server, over) as db:
            await db.flushall()
            assert await db.ping() is True
            await db.set("blob", BLOB)
            assert await db.get("blob") == BLOB
            assert await db.get("nothing") is None
            await db.hset("hash", mapping={f"field {n}": n for n in range(100)})
            assert await db.hgetall("hash") == {f"field {n}".encode(): str(n).encode() for n in range(100)}
            await db.rpush("list", *range(1000))
            assert await db.lrange("list", 0, -1) == [str(n).encode() for n in range(1000)]
            with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                await db.incr("list")
            assert await db.eval("return {KEYS[1], ARGV[1]}", 1, "key", "argument") == [b"key", b"argument"]
            for number in range(10):
                await db.xadd("stream", {"number": number})
            assert len(await db.xrange("stream")) == 10
            assert {key async for key in db.scan_iter()} == {b"blob", b"hash", b"list", b"stream"}

    on_loop(main())


@over
def test_many_tasks_share_a_pool(on_loop: OnLoop, redis_server: Address, over: str) -> None:
    async def main() -> None:
        async with client(redis_server, over, max_connections=50) as db:
            await db.flushall()

            async def worker(name: int) -> None:
                for number in range(20):
                    await db.set(f"{name}:{number}", "x" * name * number)
                    assert await db.get(f"{name}:{number}") == b"x" * name * number
                    await db.incr("count")

            await asyncio.gather(*(worker(name) for name in range(40)))
            assert await db.get("count") == b"800"
            async with db.pipeline(transaction=True) as pipe:
                for number in range(500):
                    pipe.set(f"piped {number}", number).get(f"piped {number}")
                answers = await pipe.execute()
            assert answers[1::2] == [str(number).encode() for number in range(500)]

    on_loop(main())


@over
def test_a_watched_key_that_changes_ends_the_transaction(on_loop: OnLoop, redis_server: Address, over: str) -> None:
    async def main() -> None:
        async with client(redis_server, over) as db, client(redis_server, over) as other:
            await db.set("key", 1)
            async with db.pipeline() as pipe:
                await pipe.watch("key")
                await other.set("key", 2)
                pipe.multi()
                pipe.set("key", 3)
                with pytest.raises(redis.WatchError):
                    await pipe.execute()
            assert await db.get("key") == b"2"

    on_loop(main())


@over
def test_subscribers_hear_what_is_published(on_loop: OnLoop, redis_server: Address, over: str) -> None:
    async def main() -> None:
        async with client(redis_server, over) as db:

            async def listen(ready: asyncio.Event) -> list[bytes]:
                heard = []
                async with db.pubsub() as channel:
                    await channel.subscribe("news")
                    async for message in channel.listen():
                        if message["type"] == "subscribe":
                            ready.set()
                        else:
                            heard.append(message["data"])
                            if message["data"] == b"end":
                                break
                return heard

            events = [asyncio.Event() for _ in range(5)]
            listeners = [asyncio.create_task(listen(event)) for event in events]
            await asyncio.gather(*(event.wait() for event in events))
            items = [f"item {number}".encode() for number in range(200)] + [b"end"]
            for item in items:
                assert await db.publish("news", item) == 5
            assert await asyncio.gather(*listeners) == [items] * 5

    on_loop(main())


@over
def test_a_blocked_client_is_served_cancelled_and_cut_off(on_loop: OnLoop, redis_server: Address, over: str) -> None:
    async def main() -> None:
        async with client(redis_server, over) as db, client(redis_server, over) as waiter:
            await db.flushall()

            async def blocked() -> bool:
                return any("b" in found["flags"] for found in await db.client_list())

            async def until(wanted: bool) -> None:
                while await blocked() is not wanted:
                    pass

            served = asyncio.create_task(waiter.blpop(["queue"], timeout=30))
            await until(True)
            await db.rpush("queue", "work")
            assert list(await served) == [b"queue", b"work"]

            cancelled = asyncio.create_task(waiter.blpop(["queue"], timeout=30))
            await until(True)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            # Its connection was given up with the answer that may still come: nobody takes the next item.
            await until(False)
            await db.rpush("queue", "kept")
            assert await db.llen("queue") == 1 and await waiter.lpop("queue") == b"kept"

            async with client(redis_server, over) as cut:
                number = await cut.client_id()
                await db.execute_command("CLIENT", "KILL", "ID", number)
                assert await cut.ping() is True, "a connection that was cut is made anew"

    on_loop(main())
