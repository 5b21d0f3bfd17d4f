"""What a loop is doing, seen from outside: its counters, and a dump of one that hangs in a callback.

python examples/looking_in.py

A service has the dump on a signal: `signal.signal(signal.SIGUSR1, lambda *_: tokioloop.dump())`, then `kill -USR1 PID`.
"""

from __future__ import annotations

import asyncio
import io
import threading

import tokioloop


def hang(begun: threading.Event, seen: threading.Event) -> None:
    """A bug: a callback that blocks the loop until somebody has looked."""
    begun.set()
    seen.wait()


def show_counters(loop: tokioloop.TokioLoop) -> None:
    """From any thread, while the loop runs."""
    stats = loop.stats()
    print("callbacks run:", "some" if stats["callbacks"] else "none")
    for endpoint in sorted(stats["endpoints"], key=lambda endpoint: endpoint.get("bytes_in", 0)):
        if endpoint["kind"] == "tcp":
            print(f"tcp: in {endpoint['bytes_in']} B, out {endpoint['bytes_out']} B")


def show_dump() -> None:
    """As above; of the text only what a reader looks for: since when, and in which line of ours."""
    text = io.StringIO()
    tokioloop.dump(text)
    lines = text.getvalue().splitlines()
    print(lines[0])
    print("busy" if "busy for" in text.getvalue() else "not busy")
    print(*(line.strip() for line in lines if "in hang" in line or "seen.wait()" in line), sep="\n")


def watch(loop: tokioloop.TokioLoop, begun: threading.Event, seen: threading.Event) -> None:
    """The other thread: it looks, and ends what hangs."""
    begun.wait()
    show_counters(loop)
    show_dump()
    seen.set()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and wait until the client is done."""
    writer.write(b"welcome")
    await reader.read()
    writer.close()


async def main() -> None:
    """A connection with something on it, and a callback that hangs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, tokioloop.TokioLoop)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.readexactly(7)

        begun, seen = threading.Event(), threading.Event()
        watching = loop.run_in_executor(None, watch, loop, begun, seen)
        loop.call_soon(hang, begun, seen)
        await watching
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    tokioloop.run(main())
