"""asyncssh, server and client on one loop: sessions, files, forwarded ports and sockets, processes behind pipes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import OnLoop

asyncssh = pytest.importorskip("asyncssh", reason="asyncssh is not installed (make test-real installs it)")

BLOB = random.Random(3).randbytes(1 << 20)
UPPER = [sys.executable, "-c", "import sys; [print(line.upper(), end='', flush=True) for line in sys.stdin]"]


class Keys:
    """Key pairs of the host and of a user, made once: each takes a while."""

    def __init__(self) -> None:
        self.host = asyncssh.generate_private_key("ssh-ed25519")
        self.user = asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


class Server(asyncssh.SSHServer):
    """Lets in whoever has the key or the password, and forwards whatever is asked for."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("ada", "lovelace")

    def connection_requested(self, *_: object) -> bool:
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return True


async def handle(process: Any) -> None:
    """What a session's command does."""
    match process.command.split():
        case ["cat"]:
            while data := await process.stdin.read(65_536):
                process.stdout.write(data)
                await process.stdout.drain()
            process.exit(0)
        case ["exit", status]:
            process.stderr.write(b"leaving\n")
            process.exit(int(status))
        case ["wait"]:
            process.stdout.write(b"waiting\n")
            with contextlib.suppress(asyncssh.TerminalSizeChanged, asyncssh.BreakReceived):
                try:
                    await process.stdin.read()
                except asyncssh.SignalReceived as received:
                    process.exit_with_signal(received.signal)
                    return
            process.exit(1)
        case ["upper", "streams"]:
            child = await asyncio.create_subprocess_exec(*UPPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            await process.redirect(stdin=child.stdin, stdout=child.stdout)
            status = await child.wait()
            # The child's exit is no end of its output, which a redirection hands on until the session is ended.
            while not child.stdout.at_eof():
                await asyncio.sleep(0)
            process.exit(status)
            await process.wait_closed()
        case ["upper", "pipes"]:
            popen = await asyncio.to_thread(subprocess.Popen, UPPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            await process.redirect(stdin=popen.stdin, stdout=popen.stdout)
            status = await asyncio.to_thread(popen.wait)
            # As above; the transport that reads the pipe closes it at its end.
            while not popen.stdout.closed:
                await asyncio.sleep(0)
            process.exit(status)
            await process.wait_closed()
        case command:
            process.stderr.write(f"no such command: {command}\n".encode())
            process.exit(127)


@contextlib.asynccontextmanager
async def serving(keys: Keys, **options: Any) -> AsyncIterator[int]:
    """A server; its port."""
    allowed = asyncssh.import_authorized_keys(keys.user.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[keys.host], authorized_client_keys=allowed,
        process_factory=handle, encoding=None, config=None, **options,
    )  # fmt: skip
    try:
        yield server.get_port()
    finally:
        server.close()
        await server.wait_closed()


def connect(keys: Keys, port: int, **options: Any) -> Any:
    """A client's connection, with the user's key unless `options` say otherwise."""
    options = {
        "client_keys": [keys.user],
        "known_hosts": ([keys.host.convert_to_public()], [], []),
        "username": "ada",
    } | options
    return asyncssh.connect("127.0.0.1", port, config=None, agent_path=None, **options)


def test_many_sessions_of_many_clients_run_at_once(on_loop: OnLoop, keys: Keys) -> None:
    async def main() -> None:
        async with serving(keys) as port:

            async def session(conn: Any, number: int) -> None:
                blob = random.Random(number).randbytes(200_000 + number)
                done = await conn.run("cat", input=blob, encoding=None)
                assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(blob).digest()
                done = await conn.run(f"exit {number}")
                assert (done.exit_status, done.stderr) == (number, "leaving\n")

            async def client(name: int) -> None:
                async with connect(keys, port) as conn:
                    await asyncio.gather(*(session(conn, 10 * name + number) for number in range(5)))

            await asyncio.gather(*(client(name) for name in range(5)))

    on_loop(main())


def test_whoever_has_no_right_gets_in_nowhere(on_loop: OnLoop, keys: Keys) -> None:
    async def main() -> None:
        async with serving(keys) as port:
            async with connect(keys, port, client_keys=None, password="lovelace") as conn:
                assert (await conn.run("exit 3")).exit_status == 3
            for options in ({"client_keys": None, "password": "byron"}, {"client_keys": [keys.host]}):
                with pytest.raises(asyncssh.PermissionDenied):
                    async with connect(keys, port, **options):
                        pass
            with pytest.raises(asyncssh.HostKeyNotVerifiable):
                async with connect(keys, port, known_hosts=([keys.user.convert_to_public()], [], [])):
                    pass

    on_loop(main())


def test_a_session_is_signalled_and_another_is_cut_off(on_loop: OnLoop, keys: Keys) -> None:
    async def main() -> None:
        async with serving(keys) as port, connect(keys, port) as conn:
            async with conn.create_process("wait") as process:
                assert await process.stdout.readline() == "waiting\n"
                process.terminate()
                done = await process.wait()
                assert done.exit_signal is not None and done.exit_signal[0] == "TERM"
            async with conn.create_process("wait") as process:
                assert await process.stdout.readline() == "waiting\n"
                conn.abort()
                assert await process.stdout.read() == ""

    on_loop(main())


def test_files_go_both_ways_by_sftp(on_loop: OnLoop, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "mine").write_bytes(BLOB)

    def factory(channel: Any) -> Any:
        return asyncssh.SFTPServer(channel, chroot=str(tmp_path / "served").encode())

    async def main() -> None:
        async with (
            serving(keys, sftp_factory=factory) as port,
            connect(keys, port) as conn,
            conn.start_sftp_client() as sftp,
        ):
            await asyncio.gather(*(sftp.put(str(tmp_path / "mine"), f"copy {number}") for number in range(4)))
            assert sorted(set(await sftp.listdir()) - {".", ".."}) == [f"copy {number}" for number in range(4)]
            assert (await sftp.stat("copy 1")).size == len(BLOB)
            await sftp.rename("copy 1", "other")
            await sftp.get("other", str(tmp_path / "back"))
            await sftp.remove("other")
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await sftp.stat("other")
            async with sftp.open("copy 2", "rb") as file:
                await file.seek(1000)
                assert await file.read(50) == BLOB[1000:1050]
        assert (tmp_path / "back").read_bytes() == BLOB
        assert (tmp_path / "served" / "copy 3").read_bytes() == BLOB

    on_loop(main())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def through(opened: Any, number: int) -> None:
    """Send a blob through a connection to `echo` and see it come back, and the end after it."""
    reader, writer = await opened
    blob = random.Random(number).randbytes(100_000)
    writer.write(blob)
    writer.write_eof()
    assert await reader.read() == blob
    writer.close()
    await writer.wait_closed()


def test_ports_are_forwarded_both_ways(on_loop: OnLoop, keys: Keys) -> None:
    async def main() -> None:
        target = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with target, serving(keys) as port, connect(keys, port) as conn:
            where = target.sockets[0].getsockname()
            local = await conn.forward_local_port("127.0.0.1", 0, *where)
            remote = await conn.forward_remote_port("127.0.0.1", 0, *where)
            for listener in (local, remote):
                opening = (asyncio.open_connection("127.0.0.1", listener.get_port()) for _ in range(5))
                await asyncio.gather(*(through(opened, number) for number, opened in enumerate(opening)))
            for listener in (local, remote):
                listener.close()
                await listener.wait_closed()

    on_loop(main())


def test_unix_sockets_are_forwarded(on_loop: OnLoop, keys: Keys, tmp_path: Path) -> None:
    async def main() -> None:
        target = await asyncio.start_unix_server(echo, str(tmp_path / "target"))
        async with target, serving(keys) as port, connect(keys, port) as conn:
            path = str(tmp_path / "forwarded")
            listener = await conn.forward_local_path(path, str(tmp_path / "target"))
            opening = (asyncio.open_unix_connection(path) for _ in range(5))
            await asyncio.gather(*(through(opened, number) for number, opened in enumerate(opening)))
            listener.close()
            await listener.wait_closed()

    on_loop(main())


@pytest.mark.parametrize("how", ["streams", "pipes"])
def test_a_session_talks_to_a_process_behind_pipes(on_loop: OnLoop, keys: Keys, how: str) -> None:
    async def main() -> None:
        async with serving(keys) as port, connect(keys, port) as conn:

            async def talk(number: int) -> None:
                async with conn.create_process(f"upper {how}") as process:
                    for line in ("first", f"number {number}"):
                        process.stdin.write(line + "\n")
                        assert await process.stdout.readline() == line.upper() + "\n"
                    process.stdin.write("line\n" * 5000)
                    process.stdin.write_eof()
                    assert await process.stdout.read() == "LINE\n" * 5000
                    assert (await process.wait()).exit_status == 0

            await asyncio.gather(*(talk(number) for number in range(4)))

    on_loop(main())
