"""An answer made of five writes, as frameworks make them: five sends, or one with `coalesce_writes`.

python examples/coalescing.py
"""

from __future__ import annotations

import asyncio

import tokioloop

PARTS = [b"HTTP/1.1 200 OK\r\n", b"content-length: 10\r\n", b"\r\n", b"hello", b"hello"]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write the answer in parts, and wait until the client is done."""
    for part in PARTS:
        writer.write(part)
    await reader.read()
    writer.close()


def sends(loop: tokioloop.TokioLoop) -> int:
    """How often the connections of the loop have sent."""
    return sum(endpoint["messages_out"] for endpoint in loop.stats()["endpoints"] if endpoint["kind"] == "tcp")


async def main(coalesce: bool) -> None:
    """Serve one answer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, tokioloop.TokioLoop)
    loop.coalesce_writes = coalesce
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        answer = await reader.readexactly(sum(map(len, PARTS)))
        assert answer == b"".join(PARTS)
        print(f"coalesce_writes = {coalesce}: {len(PARTS)} writes, {sends(loop)} sent")
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    tokioloop.run(main(coalesce=False))
    tokioloop.run(main(coalesce=True))
