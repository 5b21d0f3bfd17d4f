"""A line server by asyncio's streams, and ten clients at once. Nothing here knows of tokioloop.

python -m tokioloop examples/echo_streams.py
"""

from __future__ import annotations

import asyncio


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each line in capitals until the client is done."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(host: str, port: int, words: list[str]) -> list[str]:
    """Send a line per word; the answers."""
    reader, writer = await asyncio.open_connection(host, port)
    answers = []
    for word in words:
        writer.write(f"{word}\n".encode())
        answers.append((await reader.readline()).decode().strip())
    writer.close()
    await writer.wait_closed()
    return answers


async def main() -> None:
    """Serve on a free port, ask ten times at once, stop."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        async with asyncio.timeout(10):
            everything = await asyncio.gather(*(ask(host, port, ["one", "two", f"client {n}"]) for n in range(10)))
    print(type(asyncio.get_running_loop()).__name__)
    print(*everything[-1], sep=", ")


if __name__ == "__main__":
    asyncio.run(main())
