"""create_unix_connection() and the streams and sockets below it: addresses, refusals, what a transport tells."""

from __future__ import annotations

import array
import asyncio
import os
import pathlib
import socket
import ssl
import struct

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import aside, drain, turns
from .makers import abstract, dial, folder, listening

KINDS = {"str": str, "bytes": os.fsencode, "PathLike": pathlib.Path}


def answer(listener, data=b"hello"):
    """Accept one connection, send `data`, and return what the other end sends."""
    conn, _ = listener.accept()
    with conn:
        conn.settimeout(peers.TIMEOUT)
        conn.sendall(data)
        return drain(conn)


async def greet(loop, path):
    """Connect to `path`, receive a greeting of 5 bytes, answer, close; the greeting."""
    transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), path)
    await protocol.received(5)
    transport.write(b"bye")
    transport.close()
    assert await protocol.lost is None
    return bytes(protocol.data)


@clause("unix.connect.path-kinds")
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_may_be_str_bytes_or_path_like(loop, run, kind):
    with folder() as path, listening(path) as listener, peers.thread(answer, listener) as peer:
        assert run(greet(loop, KINDS[kind](path))) == b"hello"
        assert peer.result() == b"bye"


@clause("unix.connect.abstract")
@pytest.mark.parametrize("kind", ["str", "bytes"])
def test_an_abstract_address_is_connected_to(loop, run, kind):
    address = abstract("connect")
    with listening(address) as listener, peers.thread(answer, listener) as peer:
        assert run(greet(loop, KINDS[kind](address))) == b"hello"
        assert peer.result() == b"bye"


@clause("unix.connect.returns-pair")
def test_the_transport_and_the_protocol_of_the_factory_are_returned_once_connected(loop, run):
    protocol = Recorder(loop)

    async def main(path):
        transport, given = await loop.create_unix_connection(lambda: protocol, path)
        calls = list(protocol.calls)
        same = transport is protocol.transport
        transport.close()
        await protocol.lost
        return given is protocol, same, calls

    with folder() as path, listening(path):
        assert run(main(path)) == (True, True, ["connection_made"])


@clause("unix.connect.errors")
def test_connecting_to_a_path_that_is_not_there_raises_file_not_found(loop, run):
    with folder() as path, pytest.raises(FileNotFoundError):
        run(loop.create_unix_connection(asyncio.Protocol, path))


@clause("unix.connect.errors")
@pytest.mark.parametrize("left_by", ["closed listener", "regular file"])
def test_connecting_to_a_path_that_nobody_listens_on_is_refused(loop, run, left_by):
    with folder() as path:
        if left_by == "closed listener":
            with listening(path):
                pass
        else:
            pathlib.Path(path).touch()
        with pytest.raises(ConnectionRefusedError):
            run(loop.create_unix_connection(asyncio.Protocol, path))


@clause("unix.connect.errors-leave-no-descriptor")
def test_a_connection_that_fails_leaves_no_descriptor_open(loop, run):
    async def main(path):
        counts = []
        for attempts in (1, 10):
            for _ in range(attempts):
                with pytest.raises(FileNotFoundError):
                    await loop.create_unix_connection(asyncio.Protocol, path)
            await turns(10)
            counts.append(len(os.listdir("/proc/self/fd")))
        return counts

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc")
    with folder() as path:
        before, after = run(main(path))
    assert before == after


@clause("unix.connect.backlog-full")
def test_a_connection_to_a_full_backlog_waits_or_raises_and_the_loop_goes_on(loop, run, saw):
    """Linux refuses a non-blocking connect() with EAGAIN where the backlog is full: connect(2) has no way to wait."""

    async def main(path):
        task = loop.create_task(loop.create_unix_connection(asyncio.Protocol, path))
        await asyncio.sleep(0.05)  # clause-delay: whether it waits shows in time only
        waited = not task.done()
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        return waited, outcome

    with folder() as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = []
        try:
            while True:
                sock = socket.socket(socket.AF_UNIX)
                waiting.append(sock)
                sock.setblocking(False)
                sock.connect(path)
        except BlockingIOError:
            pass
        waited, outcome = run(main(path))
        for sock in waiting:
            sock.close()
    assert isinstance(outcome, asyncio.CancelledError if waited else OSError)
    saw("unix.connect.backlog-full", "waits until there is room" if waited else "raises OSError")


def unconnected(family=socket.AF_UNIX, kind=socket.SOCK_STREAM):
    return lambda: socket.socket(family, kind)


@clause("unix.connect.arguments")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "here", "sock": unconnected()},
        {"sock": unconnected(socket.AF_INET)},
        {"sock": unconnected(kind=socket.SOCK_DGRAM)},
    ],
    ids=["neither path nor sock", "both path and sock", "a TCP socket", "a datagram socket"],
)
def test_a_path_or_a_unix_stream_socket_is_needed_and_not_both(loop, run, arguments):
    made = {name: value() if callable(value) else value for name, value in arguments.items()}
    with pytest.raises(ValueError):
        run(loop.create_unix_connection(asyncio.Protocol, **made))
    if "sock" in made:
        made["sock"].close()


@clause("unix.connect.ssl-arguments")
@pytest.mark.parametrize(
    "arguments",
    [{"server_hostname": "localhost"}, {"ssl_handshake_timeout": 1.0}, {"ssl_shutdown_timeout": 1.0}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_about_tls_are_refused_without_tls(loop, run, arguments):
    with folder() as path, listening(path), pytest.raises(ValueError):
        run(loop.create_unix_connection(asyncio.Protocol, path, **arguments))


@clause("unix.connect.ssl-arguments")
def test_tls_without_a_server_name_is_refused(loop, run):
    with folder() as path, listening(path), pytest.raises(ValueError):
        run(loop.create_unix_connection(asyncio.Protocol, path, ssl=ssl.create_default_context()))


@clause("unix.connect.sock")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_connected_socket_is_used_and_made_non_blocking(loop, run, blocking):
    async def main(ours, theirs):
        transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=ours)
        timeout = ours.gettimeout()
        theirs.sendall(b"in")
        await protocol.received(2)
        transport.write(b"out")
        transport.close()
        got = await aside(drain, theirs)
        await protocol.lost
        theirs.close()
        return timeout, bytes(protocol.data), got, ours.fileno()

    ours, theirs = peers.unix_pair()
    ours.setblocking(blocking)
    assert run(main(ours, theirs)) == (0.0, b"in", b"out", -1)


@clause("unix.info.socket")
def test_a_transport_tells_its_socket_and_the_names_of_both_ends(loop, run):
    async def main(path):
        transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), path)
        sock = transport.get_extra_info("socket")
        facts = (
            sock.family,
            sock.type,
            transport.get_extra_info("sockname"),
            transport.get_extra_info("peername"),
        )
        transport.close()
        await protocol.lost
        return facts

    with folder() as path, listening(path):
        assert run(main(path)) == (socket.AF_UNIX, socket.SOCK_STREAM, "", path)


@clause("unix.info.peer-credentials")
def test_the_credentials_of_the_peer_are_read_from_the_transports_socket(loop, run):
    async def main(ours):
        transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=ours)
        size = struct.calcsize("3i")
        found = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        transport.close()
        await protocol.lost
        return struct.unpack("3i", found)

    if not hasattr(socket, "SO_PEERCRED"):
        pytest.skip("no SO_PEERCRED")
    ours, theirs = peers.unix_pair()
    with theirs:
        assert run(main(ours)) == (os.getpid(), os.getuid(), os.getgid())


@clause("unix.read.ancillary-data")
def test_data_that_carries_descriptors_is_delivered_whole(loop, run):
    def send(theirs):
        reading, writing = os.pipe()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading]))]
        theirs.sendall(b"before ")
        theirs.sendmsg([b"with "], rights)
        theirs.sendall(b"after")
        os.close(reading)
        os.close(writing)
        theirs.close()

    async def main(ours, theirs):
        _, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=ours)
        await aside(send, theirs)
        reason = await protocol.lost
        return bytes(protocol.data), reason

    assert run(main(*peers.unix_pair())) == (b"before with after", None)


@clause("unix.read.peer-closes-with-unread-data")
def test_a_peer_that_closes_with_unread_data_ends_the_connection_once(loop, run, saw):
    """Linux reports this as a reset, after what the peer had sent."""

    async def main(ours, theirs):
        transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=ours)
        transport.write(b"never read")
        await asyncio.sleep(0)
        theirs.close()
        reason = await protocol.lost
        return protocol.calls.count("connection_lost"), reason

    count, reason = run(main(*peers.unix_pair()))
    assert count == 1
    assert reason is None or isinstance(reason, ConnectionError)
    saw(
        "unix.read.peer-closes-with-unread-data",
        f"connection_lost({'ConnectionError' if reason else None})",
    )


@clause("unix.raw.connect-and-accept")
@pytest.mark.parametrize("kind", KINDS)
def test_sock_connect_and_sock_accept_work_on_unix_sockets(loop, run, kind):
    async def main(listener, path):
        ours = socket.socket(socket.AF_UNIX)
        ours.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        await asyncio.sleep(0)
        await loop.sock_connect(ours, os.fspath(KINDS[kind](path)))
        theirs, _ = await accepting
        sending = loop.create_task(loop.sock_sendall(theirs, pattern(300_000)))
        got = bytearray()
        while len(got) < 300_000:
            got += await loop.sock_recv(ours, 65536)
        await sending
        ours.close()
        theirs.close()
        return bytes(got)

    with folder() as path, listening(path) as listener:
        listener.setblocking(False)
        assert run(main(listener, path)) == pattern(300_000)


@clause("unix.streams.client")
def test_open_unix_connection_reads_and_writes(loop, run):
    def serve(listener):
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(peers.TIMEOUT)
            conn.sendall(b"first\nsecond\n")
            return drain(conn)

    async def main(path):
        reader, writer = await asyncio.open_unix_connection(path)
        lines = [await reader.readline(), await reader.readline()]
        writer.write(b"request")
        await writer.drain()
        writer.write_eof()
        rest = await reader.read()
        writer.close()
        await writer.wait_closed()
        return lines, rest

    with folder() as path, listening(path) as listener, peers.thread(serve, listener) as peer:
        assert run(main(path)) == ([b"first\n", b"second\n"], b"")
        assert peer.result() == b"request"


@clause("unix.fd.reused-gets-no-old-data")
def test_a_descriptor_number_used_again_gets_nothing_of_the_old_connection(loop, run):
    async def main():
        seen = []
        for round_ in range(20):
            ours, theirs = peers.unix_pair()
            transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=ours)
            number = ours.fileno()
            theirs.sendall(b"%d" % round_)
            await protocol.called("data_received")
            transport.close()
            await protocol.lost
            theirs.close()
            seen.append((number, bytes(protocol.data)))
        return seen

    seen = run(main())
    assert [data for _, data in seen] == [b"%d" % round_ for round_ in range(20)]
    assert len({number for number, _ in seen}) < 20, "no number came back: the test tested nothing"


@clause("unix.connect.both-ends-in-one-loop")
def test_both_ends_may_live_in_one_loop(loop, run):
    async def main(path):
        served = Recorder(loop)
        served.hooks["connection_made"] = lambda transport: served.hooks.update(data_received=transport.write)
        server = await loop.create_unix_server(lambda: served, path)
        transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), path)
        transport.write(pattern(500_000))
        await protocol.received(500_000)
        transport.close()
        await protocol.lost
        await served.lost
        server.close()
        await server.wait_closed()
        return bytes(protocol.data)

    with folder() as path:
        assert run(main(path)) == pattern(500_000)


@clause("unix.connect.cancelled")
def test_a_cancelled_connection_attempt_leaves_nothing_behind(loop, run):
    async def main(path):
        task = loop.create_task(loop.create_unix_connection(lambda: Recorder(loop), path))
        await asyncio.sleep(0)
        task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    with folder() as path, listening(path) as listener:
        [outcome] = run(main(path))
        assert isinstance(outcome, asyncio.CancelledError)
        with dial(path):
            pass
        # Both attempts are in the backlog: the cancelled one has ended.
        for _ in range(2):
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(peers.TIMEOUT)
                assert conn.recv(1) == b""
