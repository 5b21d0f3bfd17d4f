"""asyncpg, which speaks the protocol itself over transports, and psycopg, which watches libpq's descriptor, with a real
PostgreSQL: over TCP, over TLS and over a Unix socket.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Any

import pytest

from tests.real.conftest import OnLoop
from tests.real.servers import Address

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed (make test-real installs it)")
psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed (make test-real installs it)")

BLOB = random.Random(1).randbytes(1 << 20)
over = pytest.mark.parametrize("over", ["tcp", "tls", "unix"])


def options(address: Address, over: str) -> dict[str, Any]:
    """Whom to connect to, by the names that libpq and asyncpg share."""
    return {"host": address.directory if over == "unix" else "127.0.0.1", "port": address.port, "user": "test"}


def by_asyncpg(address: Address, over: str) -> dict[str, Any]:
    """How to connect with asyncpg: TLS with everything verified, or none."""
    tls = ssl.create_default_context(cafile=address.authority) if over == "tls" else False
    return {**options(address, over), "database": "postgres", "ssl": tls}


def by_psycopg(address: Address, over: str) -> dict[str, Any]:
    """How to connect with psycopg: TLS with everything verified, or none."""
    tls = {"sslmode": "verify-full", "sslrootcert": address.authority} if over == "tls" else {"sslmode": "disable"}
    return {**options(address, over), "dbname": "postgres", **tls}


# ---- asyncpg


@over
def test_asyncpg_makes_tables_transactions_and_cursors(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        conn = await asyncpg.connect(**by_asyncpg(postgres, over))
        await conn.execute("CREATE TEMP TABLE words (id serial PRIMARY KEY, word text UNIQUE, extra jsonb)")
        await conn.executemany("INSERT INTO words (word) VALUES ($1)", [(f"word {n}",) for n in range(500)])
        assert await conn.fetchval("SELECT count(*) FROM words") == 500
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute("INSERT INTO words (word) VALUES ('word 1')")
        with pytest.raises(ZeroDivisionError):
            async with conn.transaction():
                await conn.execute("DELETE FROM words")
                raise ZeroDivisionError
        assert await conn.fetchval("SELECT count(*) FROM words") == 500, "rolled back"
        async with conn.transaction():
            found = [row["word"] async for row in conn.cursor("SELECT word FROM words ORDER BY id", prefetch=7)]
        assert found == [f"word {n}" for n in range(500)]
        await conn.copy_records_to_table("words", records=[(f"copy {n}",) for n in range(2000)], columns=["word"])
        assert await conn.fetchval("SELECT count(*) FROM words WHERE word LIKE 'copy %'") == 2000
        assert await conn.fetchval("SELECT $1::bytea", BLOB) == BLOB
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await conn.execute("SELEKT")
        await conn.close()

    on_loop(main())


@over
def test_asyncpg_serves_many_tasks_from_a_pool(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(**by_asyncpg(postgres, over), min_size=2, max_size=10) as pool:

            async def ask(number: int) -> int:
                async with pool.acquire() as conn, conn.transaction():
                    assert await conn.fetchval("SELECT $1::text", "x" * number) == "x" * number
                    return await conn.fetchval("SELECT sum(n) FROM generate_series(1, $1::int) AS n", number)

            answers = await asyncio.gather(*(ask(number) for number in range(1, 301)))
            assert answers == [n * (n + 1) // 2 for n in range(1, 301)]

    on_loop(main())


@over
def test_asyncpg_cancels_a_query_and_goes_on(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        conn = await asyncpg.connect(**by_asyncpg(postgres, over))
        with pytest.raises(TimeoutError):
            await conn.execute("SELECT pg_sleep(30)", timeout=0.05)  # clause-delay
        asleep = asyncio.create_task(conn.execute("SELECT pg_sleep(30)"))
        other = await asyncpg.connect(**by_asyncpg(postgres, over))
        asks = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
        while not await other.fetchval(asks, conn.get_server_pid()):
            pass
        asleep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asleep
        assert await conn.fetchval("SELECT 1") == 1
        await other.close()
        await conn.close()

    on_loop(main())


@over
def test_asyncpg_is_notified_and_notices_its_end(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        listener = await asyncpg.connect(**by_asyncpg(postgres, over))
        sender = await asyncpg.connect(**by_asyncpg(postgres, over))
        heard: asyncio.Queue[str] = asyncio.Queue()
        ended = asyncio.Event()
        await listener.add_listener("news", lambda *args: heard.put_nowait(args[-1]))
        listener.add_termination_listener(lambda _: ended.set())
        for number in range(50):
            await sender.execute(f"NOTIFY news, 'item {number}'")
        assert [await heard.get() for _ in range(50)] == [f"item {number}" for number in range(50)]
        waiting = asyncio.create_task(listener.execute("SELECT pg_sleep(30)"))
        asks = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
        while not await sender.fetchval(asks, listener.get_server_pid()):
            pass
        assert await sender.fetchval("SELECT pg_terminate_backend($1)", listener.get_server_pid())
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await waiting
        await ended.wait()
        assert listener.is_closed()
        await sender.close()

    on_loop(main())


ASKS_TLS = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize(("sslmode", "encrypted"), [("disable", False), ("prefer", True), ("require", True)])
def test_asyncpg_upgrades_the_connection_where_sslmode_says_so(
    on_loop: OnLoop, postgres: Address, sslmode: str, encrypted: bool
) -> None:
    async def main() -> None:
        conn = await asyncpg.connect(**options(postgres, "tcp"), database="postgres", ssl=sslmode)
        assert tuple(await conn.fetchrow(ASKS_TLS)) == (encrypted, "TLSv1.3" if encrypted else None)
        assert await conn.fetchval("SELECT $1::bytea", BLOB) == BLOB
        await conn.close()

    on_loop(main())


def test_asyncpg_upgrades_many_connections_at_once(on_loop: OnLoop, postgres: Address) -> None:
    async def ask(number: int) -> int:
        conn = await asyncpg.connect(**by_asyncpg(postgres, "tls"))
        assert await conn.fetchval("SELECT repeat('x', $1::int)", number * 1000) == "x" * number * 1000
        if number % 5 == 0:
            conn.terminate()
        else:
            await conn.close()
        return number

    async def main() -> None:
        assert await asyncio.gather(*(ask(number) for number in range(30))) == list(range(30))

    on_loop(main())


def test_asyncpg_refuses_a_server_it_does_not_trust(on_loop: OnLoop, postgres: Address) -> None:
    async def main() -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(**{**by_asyncpg(postgres, "tls"), "ssl": ssl.create_default_context()})

    on_loop(main())


# ---- psycopg


@pytest.mark.parametrize(("sslmode", "encrypted"), [("disable", False), ("require", True)])
def test_psycopg_asks_for_tls_where_sslmode_says_so(
    on_loop: OnLoop, postgres: Address, sslmode: str, encrypted: bool
) -> None:
    async def main() -> None:
        connecting = psycopg.AsyncConnection.connect(**options(postgres, "tcp"), dbname="postgres", sslmode=sslmode)
        async with await connecting as conn:
            cur = await conn.execute(ASKS_TLS)
            assert await cur.fetchone() == (encrypted, "TLSv1.3" if encrypted else None)

    on_loop(main())


@over
def test_psycopg_makes_tables_transactions_and_copies(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        connecting = psycopg.AsyncConnection.connect(**by_psycopg(postgres, over), autocommit=True)
        async with await connecting as conn, conn.cursor() as cur:
            await cur.execute("CREATE TEMP TABLE words (id serial PRIMARY KEY, word text UNIQUE)")
            await cur.executemany("INSERT INTO words (word) VALUES (%s)", [(f"word {n}",) for n in range(300)])
            with pytest.raises(psycopg.errors.UniqueViolation):
                await cur.execute("INSERT INTO words (word) VALUES ('word 1')")
            with pytest.raises(ZeroDivisionError):
                async with conn.transaction():
                    await cur.execute("DELETE FROM words")
                    raise ZeroDivisionError
            async with cur.copy("COPY words (word) FROM STDIN") as copy:
                for number in range(2000):
                    await copy.write_row((f"copy {number}",))
            await cur.execute("SELECT word FROM words ORDER BY id")
            words = [row[0] async for row in cur]
            assert sorted(words) == sorted([f"word {n}" for n in range(300)] + [f"copy {n}" for n in range(2000)])
            async with cur.copy("COPY (SELECT repeat('x', n) FROM generate_series(1, 2000) AS n) TO STDOUT") as copy:
                assert [len(row[0]) async for row in copy.rows()] == list(range(1, 2001))
            await cur.execute("SELECT %s::bytea", (BLOB,), binary=True)
            assert await cur.fetchone() == (BLOB,)

    on_loop(main())


@over
def test_psycopg_serves_many_connections_at_once(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        async def worker(name: int) -> int:
            total = 0
            async with await psycopg.AsyncConnection.connect(**by_psycopg(postgres, over)) as conn:
                for number in range(20):
                    cur = await conn.execute("SELECT %s::int + n FROM generate_series(1, 50) AS n", (number,))
                    rows = await cur.fetchall()
                    assert rows == [(number + n,) for n in range(1, 51)]
                    total += len(rows)
                async with conn.pipeline():
                    cursors = [await conn.execute("SELECT %s::int", (name * number,)) for number in range(20)]
                assert [await cursor.fetchone() for cursor in cursors] == [(name * number,) for number in range(20)]
            return total

        assert await asyncio.gather(*(worker(name) for name in range(8))) == [1000] * 8

    on_loop(main())


@over
def test_psycopg_cancels_a_query_and_hears_notifications(on_loop: OnLoop, postgres: Address, over: str) -> None:
    async def main() -> None:
        connect = psycopg.AsyncConnection.connect
        conn = await connect(**by_psycopg(postgres, over), autocommit=True)
        other = await connect(**by_psycopg(postgres, over), autocommit=True)
        async with conn, other:
            asleep = asyncio.create_task(conn.execute("SELECT pg_sleep(30)"))
            asks = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            while await (await other.execute(asks, (conn.info.backend_pid,))).fetchone() == (0,):
                pass
            asleep.cancel()
            with pytest.raises((asyncio.CancelledError, psycopg.errors.QueryCanceled)):
                await asleep
            cur = await conn.execute("SELECT 1")
            assert await cur.fetchone() == (1,)

            await conn.execute("LISTEN news")
            for number in range(20):
                await other.execute("SELECT pg_notify('news', %s)", (f"item {number}",))
            heard = []
            async for notice in conn.notifies():
                heard.append(notice.payload)
                if len(heard) == 20:
                    break
            assert heard == [f"item {number}" for number in range(20)]

    on_loop(main())
