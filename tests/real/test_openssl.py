"""OpenSSL's own programs at the other end: `openssl s_client` of servers on the loop, `openssl s_server` of clients."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import random
import re
import signal
import ssl
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.real import servers
from tests.real.certificates import OWNER, Certificates
from tests.real.conftest import OnLoop
from tests.support import Program

TIMEOUT = 15.0
BLOB = random.Random(9).randbytes(1 << 20)
LINES = [f"{number} ".encode() + b"x" * (number * 37 % 9000) for number in range(300)]
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS)
flag = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


@pytest.fixture(scope="session")
def openssl() -> str:
    """The program, 1.1.1 or newer."""
    return servers.openssl()


class Echo(asyncio.Protocol):
    """Echoes, and is told to those who wait for it."""

    def __init__(self, made: list[Echo]) -> None:
        self.made, self.lost = made, asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport, self.tls = transport, transport.get_extra_info("ssl_object")
        self.made.append(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[Echo]]]:
    """A server that echoes; its port, and the protocol of each connection. At the end all of them must be lost."""
    made: list[Echo] = []
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Echo(made), "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1], made
        await asyncio.gather(*(echo.lost for echo in made))


async def serve(context: ssl.SSLContext, client: Callable[[int], object]) -> list[Echo]:
    """Have `client` called in a thread with the port of such a server; the protocol of each connection."""
    async with serving(context) as (port, made):
        await asyncio.to_thread(client, port)
    return made


class Client(Program):
    """`openssl s_client`, which verifies the server. Lines told are sent; `Q`, `K`, `k` and `R` alone are commands."""

    def __init__(self, openssl: str, port: int, certificates: Certificates, *options: str) -> None:
        trust = ["-CAfile", certificates.authority, "-verify_return_error"]
        super().__init__(openssl, "s_client", "-connect", f"127.0.0.1:{port}", *trust, *options)

    def exchange(self, line: str) -> None:
        """Send a line that was not sent before and wait for its echo."""
        self.tell(line)
        self.wait_for(line + "\n")

    def quit(self) -> None:
        """End the connection and the program."""
        self.tell("Q")
        assert self.end() == 0, self.output


# ---- servers on the loop


@versions
def test_a_client_is_served_with_what_it_asks_for(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    context, asked = certificates.server(), []
    context.set_alpn_protocols(["http/1.1", "echo"])
    context.sni_callback = lambda tls, name, context: asked.append(name)

    def client(port: int) -> None:
        options = (flag[version], "-servername", "one.example", "-alpn", "h2,echo")
        with Client(openssl, port, certificates, *options) as program:
            for number in range(20):
                program.exchange(f"line {number}.")
            program.quit()
        assert "Verify return code: 0 (ok)" in program.output
        assert "ALPN protocol: echo" in program.output

    async def main() -> None:
        async with serving(context) as (port, made):
            await asyncio.to_thread(client, port)
            assert [(echo.tls.version(), echo.tls.selected_alpn_protocol()) for echo in made] == [(version, "echo")]
            assert await made[0].lost is None
        assert asked == ["one.example"]

    on_loop(main())


@versions
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    context, other = certificates.server(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    other.load_cert_chain(certificates.client_cert, certificates.client_key)

    def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name == "two.example":
            tls.context = other
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if name == "nobody.example" else None

    context.sni_callback = choose

    def client(port: int) -> None:
        for name, verify in (
            ("one.example", ["-verify_hostname", "one.example"]),
            ("two.example", ["-verify_email", OWNER]),
        ):
            with Client(openssl, port, certificates, flag[version], "-servername", name, *verify) as program:
                program.exchange(f"to {name}.")
                program.quit()
        with Client(openssl, port, certificates, flag[version], "-servername", "nobody.example") as program:
            assert program.end() == 1, program.output

    assert len(on_loop(serve(context, client))) == 2


@versions
def test_a_mebibyte_comes_and_goes_whole(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    class Mirror(Echo):
        """Sends back what came, once it is all there, and ends the connection."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.got = bytearray()

        def data_received(self, data: bytes) -> None:
            self.got += data
            if len(self.got) == len(BLOB):
                self.transport.write(self.got)
                self.transport.close()

    def client(port: int) -> bytes:
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certificates.authority]
        command += ["-verify_return_error", "-quiet", "-nocommands", flag[version]]
        done = subprocess.run(command, input=BLOB, capture_output=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def main() -> None:
        loop, made = asyncio.get_running_loop(), []
        context = certificates.server()
        async with await loop.create_server(lambda: Mirror(made), "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            answers = await asyncio.gather(*(asyncio.to_thread(client, port) for _ in range(3)))
            assert answers == [BLOB] * 3
            assert [await echo.lost for echo in made] == [None] * 3

    on_loop(main())


@versions
def test_a_client_resumes_its_session(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str, tmp_path: Path
) -> None:
    session = str(tmp_path / "session")

    def client(port: int, *options: str) -> str:
        with Client(openssl, port, certificates, flag[version], *options) as program:
            program.exchange("hello")  # the tickets of TLS 1.3 come before the answer
            program.quit()
        return program.output

    async def main() -> None:
        async with serving(certificates.server()) as (port, made):
            said = [await asyncio.to_thread(client, port, "-sess_out", session)]
            said += [await asyncio.to_thread(client, port, "-sess_in", session) for _ in range(2)]
        assert [f"Reused, {version}" in text for text in said] == [False, True, True], said
        assert [echo.tls.session_reused for echo in made] == [False, True, True]

    on_loop(main())


@pytest.mark.parametrize("letter", ["k", "K"])
def test_a_client_changes_its_keys(on_loop: OnLoop, certificates: Certificates, openssl: str, letter: str) -> None:
    """With `K` it asks the server to change its own, too."""

    def client(port: int) -> None:
        with Client(openssl, port, certificates, "-tls1_3", "-brief") as program:
            for number in range(5):
                program.exchange(f"before {number}.")
                assert program.answer(letter) == "KEYUPDATE"
                program.exchange(f"after {number}." + "x" * 9000)
            program.quit()

    on_loop(serve(certificates.server(), client))


def test_a_client_may_not_renegotiate_of_its_own(on_loop: OnLoop, certificates: Certificates, openssl: str) -> None:
    def client(port: int) -> None:
        with Client(openssl, port, certificates, "-tls1_2", "-brief") as program:
            program.exchange("before")
            program.tell("R")
            assert program.end() == 1
            assert "no renegotiation" in program.output

    assert len(on_loop(serve(certificates.server(), client))) == 1


def test_a_client_renegotiates_where_the_context_allows_it(
    on_loop: OnLoop, certificates: Certificates, openssl: str
) -> None:
    context = certificates.server()
    context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3, which `ssl` has no name for

    def client(port: int) -> None:
        with Client(openssl, port, certificates, "-tls1_2", "-brief") as program:
            for number in range(3):
                program.exchange(f"before {number}.")
                assert program.answer("R") == "RENEGOTIATING"
                program.exchange(f"after {number}." + "x" * 9000)
            program.quit()

    assert len(on_loop(serve(context, client))) == 1


@versions
def test_a_client_shows_its_certificate_or_is_refused(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    context = certificates.server()
    context.load_verify_locations(certificates.authority)
    context.verify_mode = ssl.CERT_REQUIRED

    def client(port: int) -> None:
        own = ("-cert", certificates.client_cert, "-key", certificates.client_key)
        with Client(openssl, port, certificates, flag[version], *own) as program:
            program.exchange("it is me")
            program.quit()
        with Client(openssl, port, certificates, flag[version]) as program:
            assert program.end() == 1, program.output

    async def main() -> None:
        async with serving(context) as (port, made):
            await asyncio.to_thread(client, port)
            assert [echo.tls.getpeercert()["subjectAltName"] for echo in made] == [(("email", OWNER),)]

    on_loop(main())


@versions
def test_a_client_that_is_killed_is_noticed(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    def client(port: int) -> None:
        with Client(openssl, port, certificates, flag[version]) as program:
            program.exchange("here I am")
            assert program.end(signal.SIGKILL) == -signal.SIGKILL

    async def main() -> None:
        async with serving(certificates.server()) as (port, made):
            await asyncio.to_thread(client, port)
            assert await made[0].lost is None

    on_loop(main())


# ---- clients on the loop


class Server(Program):
    """`openssl s_server`. It serves one connection at a time. Lines told are sent; single letters are commands."""

    def __init__(self, openssl: str, certificates: Certificates, *options: str) -> None:
        files = ["-cert", certificates.cert, "-key", certificates.key]
        super().__init__(openssl, "s_server", "-accept", "127.0.0.1:0", *files, *options)

    def port(self) -> int:
        """Wait until it serves; where."""
        self.wait_for("ACCEPT 127.0.0.1:")
        while (found := re.search(r"ACCEPT 127\.0\.0\.1:(\d+)\n", self.output)) is None:
            assert self._read(time.monotonic() + TIMEOUT), self.output
        return int(found[1])

    def has_read(self) -> None:
        """Wait until it has read everything that it was told."""
        assert self._process.stdin is not None
        left = array.array("i", [0])

        def drained() -> bool:
            fcntl.ioctl(self._process.stdin, termios.FIONREAD, left)
            return left[0] == 0

        assert support.wait_until(drained)


async def connect(
    port: int, context: ssl.SSLContext, name: str = "localhost"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a server on this machine, which goes by that name."""
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name, limit=1 << 22)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@versions
def test_lines_come_back_reversed(on_loop: OnLoop, certificates: Certificates, openssl: str, version: str) -> None:
    async def client(port: int) -> None:
        reader, writer = await connect(port, certificates.client())
        assert writer.get_extra_info("ssl_object").version() == version
        assert writer.get_extra_info("cipher")[0]
        assert ("DNS", "one.example") in writer.get_extra_info("peercert")["subjectAltName"]
        writer.writelines(line + b"\n" for line in LINES)
        assert [await reader.readline() for _ in LINES] == [line[::-1] + b"\n" for line in LINES]
        await closed(writer)

    async def main(port: int) -> None:
        for _ in range(3):  # it serves one at a time
            await client(port)

    with Server(openssl, certificates, "-rev", flag[version]) as server:
        on_loop(main(server.port()))


@versions
def test_the_server_agrees_on_a_protocol_and_knows_its_names(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    context = certificates.client()
    context.check_hostname = False
    context.set_alpn_protocols(["spdy/1", "echo"])

    async def main(port: int) -> None:
        # It agrees on protocols for its first name only.
        for name, owner, protocol in (("one", ("DNS", "one.example"), "echo"), ("two", ("email", OWNER), None)):
            _, writer = await connect(port, context, f"{name}.example")
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == protocol
            assert owner in writer.get_extra_info("peercert")["subjectAltName"]
            await closed(writer)

    second = ("-servername", "two.example", "-cert2", certificates.client_cert, "-key2", certificates.client_key)
    with Server(openssl, certificates, "-rev", flag[version], "-alpn", "h2,echo", *second) as server:
        on_loop(main(server.port()))


class Resuming(ssl.SSLContext):
    """A context that resumes a session, which asyncio itself has no argument for."""

    session: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **{**named, "session": self.session})


@versions
def test_a_session_is_resumed(on_loop: OnLoop, certificates: Certificates, openssl: str, version: str) -> None:
    context = Resuming(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.authority)

    async def main(port: int) -> list[bool]:
        reused = []
        for _ in range(3):
            reader, writer = await connect(port, context)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            page = await reader.read()
            tls = writer.get_extra_info("ssl_object")
            assert (b"Reused, " if tls.session_reused else b"New, ") + version.encode() in page
            context.session = tls.session
            reused.append(tls.session_reused)
            await closed(writer)
        return reused

    with Server(openssl, certificates, "-www", flag[version]) as server:
        assert on_loop(main(server.port())) == [False, True, True]


def told_each_letter(on_loop: OnLoop, server: Server, letters: str, context: ssl.SSLContext) -> None:
    """Exchange lines with a server that is told a letter in between, which has it do something to the connection."""

    async def main() -> None:
        reader, writer = await connect(server.port(), context)
        for number, letter in enumerate(letters):
            writer.write(f"before {number}.\n".encode())
            await asyncio.to_thread(server.wait_for, f"before {number}.\n")
            server.tell(letter)
            await asyncio.to_thread(server.has_read)  # it looks for a letter at the beginning of what it reads
            server.tell(f"to you {number}." + "x" * 9000)
            assert await reader.readline() == f"to you {number}.".encode() + b"x" * 9000 + b"\n"
            writer.write(f"after {number}.".encode() + b"y" * 9000 + b"\n")
            await asyncio.to_thread(server.wait_for, f"after {number}." + "y" * 9000 + "\n")
        server.tell("q")
        assert await reader.read() == b""
        await closed(writer)

    on_loop(main())


def test_the_server_changes_its_keys(on_loop: OnLoop, certificates: Certificates, openssl: str) -> None:
    """With `K` it asks the client to change its own, too."""
    with Server(openssl, certificates, "-tls1_3") as server:
        told_each_letter(on_loop, server, "kKkKK", certificates.client())


def test_the_server_renegotiates(on_loop: OnLoop, certificates: Certificates, openssl: str) -> None:
    with Server(openssl, certificates, "-tls1_2") as server:
        told_each_letter(on_loop, server, "rrr", certificates.client())


def test_the_server_asks_for_a_certificate_later(on_loop: OnLoop, certificates: Certificates, openssl: str) -> None:
    context = certificates.client()
    context.load_cert_chain(certificates.client_cert, certificates.client_key)
    context.post_handshake_auth = True
    with Server(openssl, certificates, "-tls1_3", "-CAfile", certificates.authority) as server:
        told_each_letter(on_loop, server, "cc", context)


@versions
def test_the_server_wants_a_certificate(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    async def main(port: int) -> None:
        with pytest.raises(ssl.SSLError, match="ALERT"):
            reader, writer = await connect(port, certificates.client())
            try:  # with TLS 1.3 the handshake is over before the server has looked
                await reader.read()
            finally:
                writer.close()
        context = certificates.client()
        context.load_cert_chain(certificates.client_cert, certificates.client_key)
        reader, writer = await connect(port, context)
        writer.write(b"it is me\n")
        assert await reader.readline() == b"em si ti\n"
        await closed(writer)

    options = ("-rev", "-Verify", "1", "-verify_return_error", "-CAfile", certificates.authority, flag[version])
    with Server(openssl, certificates, *options) as server:
        on_loop(main(server.port()))


@versions
def test_a_server_that_is_killed_is_noticed(
    on_loop: OnLoop, certificates: Certificates, openssl: str, version: str
) -> None:
    async def main(server: Server, port: int) -> None:
        reader, writer = await connect(port, certificates.client())
        writer.write(b"hello\n")
        await asyncio.to_thread(server.wait_for, "hello\n")
        server.signal(signal.SIGKILL)
        assert await reader.read() == b""
        await closed(writer)

    with Server(openssl, certificates, flag[version]) as server:
        on_loop(main(server, server.port()))
