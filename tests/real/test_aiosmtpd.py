"""aiosmtpd, on a loop of the test's and under its own controller's thread, with smtplib as the client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spec._kit import peers
from tests.real import servers
from tests.real.certificates import Certificates
from tests.real.conftest import OnLoop
from tests.support import Program

smtp = pytest.importorskip("aiosmtpd.smtp", reason="aiosmtpd is not installed (make test-real installs it)")
controller = pytest.importorskip("aiosmtpd.controller")

LIMIT = 1 << 20
TIMEOUT = 15.0


class Inbox:
    """Takes mail for example.org."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, tuple[str, ...], bytes]] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if not address.endswith("@example.org"):
            return "550 not relaying"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append((envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content))
        return "250 taken"


@contextlib.asynccontextmanager
async def serving(inbox: Inbox, **options: Any) -> AsyncIterator[int]:
    """An SMTP server on the running loop; its port."""
    loop = asyncio.get_running_loop()

    def protocol() -> Any:
        return smtp.SMTP(inbox, hostname="mx.example.org", data_size_limit=LIMIT, loop=loop, **options)

    async with await loop.create_server(protocol, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def text(name: int, number: int) -> bytes:
    """A message with lines that begin with dots, longer the later it is."""
    return f"Subject: {name}.{number}\r\n\r\n.\r\n..dots\r\n".encode() + b"x" * 70 + b"\r\n" * (1000 * number + 1)


def send(port: int, name: int, count: int) -> int:
    """Send some messages over one connection."""
    with smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT) as client:
        for number in range(count):
            refused = client.sendmail(f"{name}@example.com", [f"{number}@example.org"], text(name, number))
            assert refused == {}
    return count


def test_mail_of_many_clients_arrives_whole(on_loop: OnLoop) -> None:
    inbox = Inbox()

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            async with serving(inbox) as port:
                loop = asyncio.get_running_loop()
                sent = await asyncio.gather(*(loop.run_in_executor(pool, send, port, name, 6) for name in range(8)))
        assert sum(sent) == len(inbox.messages) == 48

    on_loop(main())
    wanted = {(f"{a}@example.com", (f"{n}@example.org",), text(a, n)) for a in range(8) for n in range(6)}
    assert set(inbox.messages) == wanted


def test_bad_mail_is_refused_and_the_session_goes_on(on_loop: OnLoop) -> None:
    inbox = Inbox()

    def client(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT) as mail:
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                mail.sendmail("a@example.com", ["b@example.net"], b"nobody")
            mail.docmd("RSET")
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                mail.sendmail("a@example.com", ["b@example.org"], b"x" * (LIMIT + 1))
            assert refused.value.smtp_code == 552
            assert mail.docmd("EXPN", "list")[0] == 502
            assert mail.docmd("DATA")[0] == 503
            assert mail.sendmail("a@example.com", ["b@example.net", "c@example.org"], b"one of two").keys() == {
                "b@example.net"
            }
        # A client that goes in the middle of a message, and one that sends its commands in one piece.
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
            sock.sendall(b"HELO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@example.org>\r\nDATA\r\nhalf a mes")
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
            sock.sendall(b"NOOP\r\n" * 100 + b"QUIT\r\n")
            replies = peers.recv_all(sock).split(b"\r\n")
            assert [reply[:3] for reply in replies] == [b"220", *[b"250"] * 100, b"221", b""]

    async def main() -> None:
        async with serving(inbox) as port:
            await asyncio.to_thread(client, port)

    on_loop(main())
    assert inbox.messages == [("a@example.com", ("c@example.org",), b"one of two\r\n")]


def test_a_session_is_upgraded_to_tls(on_loop: OnLoop, certificates: Certificates) -> None:
    inbox, theirs, ours = Inbox(), certificates.server(), certificates.client()

    def client(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT) as mail:
            mail._host = "localhost"  # type: ignore[attr-defined]
            assert mail.docmd("MAIL FROM:<a@example.com>")[0] >= 500, "TLS first"
            mail.starttls(context=ours)
            mail.sendmail("a@example.com", ["b@example.org"], text(1, 20))

    async def main() -> None:
        async with serving(inbox, require_starttls=True, tls_context=theirs) as port:
            await asyncio.gather(*(asyncio.to_thread(client, port) for _ in range(3)))

    on_loop(main())
    assert inbox.messages == [("a@example.com", ("b@example.org",), text(1, 20))] * 3


def test_a_client_that_does_not_trust_the_server_leaves(
    on_loop: OnLoop, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    caplog.set_level(logging.CRITICAL, "mail.log")  # the program logs the error that it gets, as it should

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
            sock.sendall(b"EHLO me\r\nSTARTTLS\r\n")
            while b"220 Ready" not in sock.recv(4096):
                pass
            with pytest.raises(ssl.SSLCertVerificationError):
                ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")

    async def main() -> None:
        async with serving(inbox, require_starttls=True, tls_context=certificates.server()) as port:
            await asyncio.gather(*(asyncio.to_thread(client, port) for _ in range(3)))

    on_loop(main())
    assert inbox.messages == []


def test_openssl_upgrades_a_session(on_loop: OnLoop, certificates: Certificates) -> None:
    inbox, openssl = Inbox(), servers.openssl()

    def client(port: int) -> None:
        options = ["-starttls", "smtp", "-crlf", "-brief", "-CAfile", certificates.authority, "-verify_return_error"]
        with Program(openssl, "s_client", "-connect", f"127.0.0.1:{port}", *options) as program:
            for line, answer in (("EHLO me", "250 HELP"), ("MAIL FROM:<a@b>", "250 OK"), ("DATA", "503 ")):
                program.tell(line)
                program.wait_for(answer)
            program.tell("quit")  # a capital Q were a command of the program's own
            program.wait_for("221 ")
            assert program.end() == 0, program.output

    async def main() -> None:
        async with serving(inbox, require_starttls=True, tls_context=certificates.server()) as port:
            await asyncio.to_thread(client, port)

    on_loop(main())


def test_the_controllers_thread_serves_tcp(on_loop: OnLoop) -> None:
    inbox = Inbox()
    with on_loop.checked():
        served = controller.Controller(inbox, "127.0.0.1", peers.free_port(), loop=on_loop.new_loop())
        served.start()
        try:
            assert send(served.port, 1, 5) == 5
        finally:
            served.stop()
    assert [message[2] for message in inbox.messages] == [text(1, number) for number in range(5)]


def test_the_controllers_thread_serves_a_unix_socket(on_loop: OnLoop, tmp_path: Path) -> None:
    inbox, path = Inbox(), str(tmp_path / "smtp")
    with on_loop.checked():
        served = controller.UnixSocketController(inbox, path, loop=on_loop.new_loop())
        served.start()
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(TIMEOUT)
                sock.connect(path)
                sock.sendall(b"HELO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n")
                sock.sendall(b"hello\r\n.\r\nQUIT\r\n")
                replies = peers.recv_all(sock).split(b"\r\n")
                assert [reply[:3] for reply in replies] == [b"220", *[b"250"] * 3, b"354", b"250", b"221", b""]
        finally:
            served.stop()
    assert inbox.messages == [("a@b", ("c@example.org",), b"hello\r\n")]
