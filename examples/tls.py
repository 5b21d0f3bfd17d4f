"""A TLS server and its client, with certificates of an authority of their own; and `start_tls` on a plain connection.

pip install trustme
python examples/tls.py
"""

from __future__ import annotations

import asyncio
import functools
import ssl

import trustme

import tokioloop


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes until the client is done."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
    """As a mail server: in the clear until the client asks for TLS."""
    assert await reader.readline() == b"STARTTLS\n"
    writer.write(b"READY\n")
    await writer.start_tls(context)
    await serve(reader, writer)


def describe(writer: asyncio.StreamWriter) -> str:
    """The version of TLS, and to whom the certificate says that we speak."""
    secured = writer.get_extra_info("ssl_object")
    certificate = writer.get_extra_info("peercert")
    return f"{secured.version()}, {certificate['subjectAltName'][0][1]}"


async def main() -> None:
    """Both servers on free ports, a client for each."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
        )
        writer.write(b"secret")
        print("ssl=:", describe(writer), (await reader.readexactly(6)).decode())
        writer.close()
        await writer.wait_closed()

    upgrading = functools.partial(upgrade, context=server_context)
    server = await asyncio.start_server(upgrading, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"READY\n"
        await writer.start_tls(client_context, server_hostname="localhost")
        writer.write(b"secret")
        print("start_tls:", describe(writer), (await reader.readexactly(6)).decode())
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    tokioloop.run(main())
