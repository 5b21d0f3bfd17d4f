"""sock_connect, sock_accept and the raw server that they make."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import time
from contextlib import ExitStack

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import pair_at
from .helpers import Late, cancelled, open_fds, pattern, turns

IPV6 = pytest.mark.skipif(not peers.has_ipv6(), reason="no IPv6 on this machine")


def stream(family=socket.AF_INET):
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


@clause("sockets.connect.connects")
def test_connect_connects(loop, run):
    async def main(addr):
        with stream() as sock:
            assert await loop.sock_connect(sock, addr) is None
            assert sock.getpeername() == addr
            assert await loop.sock_recv(sock, 10) == b"hello"

    with peers.serve(lambda conn: conn.sendall(b"hello")) as addr:
        run(main(addr))


@clause("sockets.connect.waits")
def test_connect_waits_for_room_in_the_backlog(loop, run):
    """The kernel drops what asks for a connection while the backlog is full; it is asked again after a second."""
    with ExitStack() as stack:
        listening = stack.enter_context(peers.listener(backlog=0))
        waiting = None
        for _ in range(10):
            sock = stack.enter_context(stream())
            code = sock.connect_ex(listening.getsockname())
            assert code in (0, errno.EINPROGRESS)
            time.sleep(0.02)  # clause-delay
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and not is_connected(sock):
                waiting = sock
                break
        if waiting is None:
            pytest.skip("the backlog of this kernel has no end")

        def accept():
            listening.settimeout(15)
            return [stack.enter_context(listening.accept()[0]) for _ in range(2)]

        async def main():
            late = Late()
            with stream() as sock, peers.thread(late, accept):
                await loop.sock_connect(sock, listening.getsockname())
                assert late.acted
                assert is_connected(sock)

        run(main())


def is_connected(sock):
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


@clause("sockets.connect.refused")
def test_connect_is_refused_where_nobody_listens(loop, run):
    async def main():
        for _ in range(3):
            with stream() as sock, pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(sock, ("127.0.0.1", peers.closed_port()))

    run(main())


@clause("sockets.connect.resolves-names")
def test_connect_resolves_a_name(loop, run):
    async def main(addr):
        with stream() as sock:
            await loop.sock_connect(sock, ("localhost", addr[1]))
            assert sock.getpeername() == addr

    with peers.serve(lambda conn: conn.recv(1)) as addr:
        run(main(addr))


@clause("sockets.connect.ipv6")
@IPV6
@pytest.mark.parametrize("length", [2, 4])
def test_connect_connects_ipv6(loop, run, length):
    async def main(addr):
        with stream(socket.AF_INET6) as sock:
            await loop.sock_connect(sock, addr[:length])
            assert sock.getpeername() == addr

    with peers.serve(lambda conn: conn.recv(1), socket.AF_INET6) as addr:
        run(main(addr))


@clause("sockets.connect.unix")
def test_connect_connects_a_unix_socket_or_says_why_not(loop, run, tmp_path):
    path = os.path.relpath(tmp_path / "s")  # a Unix address is short

    async def main():
        with socket.socket(socket.AF_UNIX) as listening:
            with stream(socket.AF_UNIX) as sock, pytest.raises(FileNotFoundError):
                await loop.sock_connect(sock, path)
            listening.bind(path)
            with stream(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(sock, path)
            listening.listen()
            listening.setblocking(False)
            with stream(socket.AF_UNIX) as sock:
                await loop.sock_connect(sock, path)
                conn, _ = await loop.sock_accept(listening)
                with conn:
                    await loop.sock_sendall(sock, b"hello")
                    assert await loop.sock_recv(conn, 10) == b"hello"

    run(main())


@clause("sockets.connect.twice")
def test_a_second_connect_is_refused_and_the_connection_goes_on(loop, run, saw):
    async def main(addr):
        with stream() as sock:
            await loop.sock_connect(sock, addr)
            try:
                await loop.sock_connect(sock, addr)
            except OSError:
                saw("sockets.connect.twice", "the second call raises")
            else:
                saw("sockets.connect.twice", "the kernel reports success to the second call, and the third raises")
            for _ in range(2):
                with pytest.raises(OSError) as caught:
                    await loop.sock_connect(sock, addr)
                assert caught.value.errno == errno.EISCONN
            await loop.sock_sendall(sock, b"echo")
            assert await loop.sock_recv(sock, 10) == b"echo"

    with peers.serve(lambda conn: conn.sendall(peers.recv_exactly(conn, 4))) as addr:
        run(main(addr))


@clause("sockets.connect.bad-address")
@pytest.mark.parametrize(
    ("address", "error"),
    [(None, TypeError), (5, TypeError), (("127.0.0.1", 70000), OverflowError), (("127.0.0.1", -1), OverflowError)],
    ids=["none", "number", "port-too-big", "port-negative"],
)
def test_an_address_that_is_none_is_refused(loop, run, address, error):
    async def main():
        with stream() as sock, pytest.raises(error):
            await loop.sock_connect(sock, address)

    run(main())


@clause("sockets.connect.cancelled")
def test_a_cancelled_connect_leaves_the_number_free_for_another_socket(loop, run):
    async def main():
        # Nobody answers at this address: a backlog that is full.
        with ExitStack() as stack:
            listening = stack.enter_context(peers.listener(backlog=0))
            for _ in range(8):
                stack.enter_context(stream()).connect_ex(listening.getsockname())
            await asyncio.sleep(0.02)  # clause-delay
            sock = stack.enter_context(stream())
            connecting = asyncio.create_task(loop.sock_connect(sock, listening.getsockname()))
            await turns()
            if connecting.done():
                pytest.skip("the backlog of this kernel has no end")
            await cancelled(connecting)
            fd = sock.fileno()
            sock.close()
            ours, theirs = pair_at(fd)
            with ours, theirs:
                waiting = asyncio.create_task(loop.sock_recv(ours, 10))
                await turns()
                await loop.sock_sendall(ours, b"to them")
                assert theirs.recv(10) == b"to them"
                assert not waiting.done()
                theirs.send(b"to us")
                assert await waiting == b"to us"

    run(main())


@clause("sockets.accept.waits-for-client")
def test_accept_on_an_idle_listener_waits_for_a_late_client(loop, run):
    async def main(listening):
        for _ in range(3):
            late = Late()
            with peers.thread(late, connect_and_send, listening.getsockname()) as client:
                conn, address = await loop.sock_accept(listening)
                assert late.acted
                with conn:
                    assert await loop.sock_recv(conn, 10) == b"hello"
                    assert client.result() == address

    def connect_and_send(addr):
        with socket.create_connection(addr, 15) as sock:
            sock.sendall(b"hello")
            return sock.getsockname()

    with peers.listener() as listening:
        run(main(listening))


@clause("sockets.accept.connection")
def test_an_accepted_connection_is_a_socket_ready_for_use(loop, run):
    async def main():
        with peers.listener() as listening, socket.create_connection(listening.getsockname(), 15) as client:
            result = await loop.sock_accept(listening)
            assert isinstance(result, tuple)
            conn, address = result
            with conn:
                assert isinstance(conn, socket.socket)
                assert conn is not listening
                assert (conn.family, conn.type, conn.gettimeout()) == (socket.AF_INET, socket.SOCK_STREAM, 0.0)
                assert conn.get_inheritable() is False
                assert address == client.getsockname() == conn.getpeername()

    run(main())


@clause("sockets.accept.queued-clients")
@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
def test_queued_clients_are_accepted_one_by_one(loop, run, late):
    clients = []

    def connect(addr):
        clients.extend(socket.create_connection(addr, 15) for _ in range(20))

    async def main():
        with peers.listener() as listening:
            addr = listening.getsockname()
            with peers.thread(Late(), connect, addr) if late else peers.thread(connect, addr) as peer:
                if not late:
                    peer.result()
                accepted = [await loop.sock_accept(listening) for _ in range(20)]
            waiting = asyncio.ensure_future(loop.sock_accept(listening))
            await turns()
            assert not waiting.done()
            await cancelled(waiting)
        names = [address for _, address in accepted]
        assert sorted(names) == sorted(client.getsockname() for client in clients)
        for sock in (*clients, *(conn for conn, _ in accepted)):
            sock.close()

    run(main())


@clause("sockets.accept.not-listening")
def test_a_socket_that_does_not_listen_cannot_accept(loop, run):
    async def main():
        with stream() as sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(OSError) as caught:
                await loop.sock_accept(sock)
            assert caught.value.errno == errno.EINVAL

    run(main())


@clause("sockets.accept.cancelled")
def test_a_cancelled_accept_takes_no_connection_and_leaks_no_fd(loop, run):
    async def main():
        with peers.listener() as listening:
            await cancel_one(listening)
            gc.collect()
            before = open_fds()
            for _ in range(10):
                await cancel_one(listening)
            assert open_fds() == before
            with socket.create_connection(listening.getsockname(), 15) as client:
                conn, address = await loop.sock_accept(listening)
                conn.close()
                assert address == client.getsockname()

    async def cancel_one(listening):
        waiting = asyncio.ensure_future(loop.sock_accept(listening))
        await turns()
        await cancelled(waiting)

    run(main())


def raw_client(addr):
    """Talk to an echo server with pauses; the number of bytes that came back."""
    total = 0
    time.sleep(0.05)  # clause-delay
    with socket.create_connection(addr, 15) as sock:
        for size in (1, 1000, 100_000):
            time.sleep(0.03)  # clause-delay
            data = pattern(size)
            with peers.thread(sock.sendall, data):
                assert peers.recv_exactly(sock, size) == data
            total += size
        sock.shutdown(socket.SHUT_WR)
        assert peers.recv_all(sock) == b""
    return total


async def raw_server(loop, listening, clients):
    """Accept `clients` connections and echo each in a task of its own; how many bytes each got."""

    async def echo(conn):
        total = 0
        with conn:
            while data := await loop.sock_recv(conn, 10_000):
                await loop.sock_sendall(conn, data)
                total += len(data)
        return total

    tasks = []
    for _ in range(clients):
        conn, _ = await loop.sock_accept(listening)
        tasks.append(asyncio.create_task(echo(conn)))
    return await asyncio.gather(*tasks)


@clause("sockets.server.raw-tcp")
@pytest.mark.parametrize("clients", [1, 5])
def test_raw_tcp_server(loop, run, clients):
    with peers.listener() as listening, ExitStack() as stack:
        threads = [stack.enter_context(peers.thread(raw_client, listening.getsockname())) for _ in range(clients)]
        assert run(raw_server(loop, listening, clients)) == [101_001] * clients
        assert [thread.result() for thread in threads] == [101_001] * clients


@clause("sockets.server.ipv6")
@IPV6
def test_raw_tcp_server_over_ipv6(loop, run):
    with (
        peers.listener(socket.AF_INET6) as listening,
        peers.thread(raw_client, listening.getsockname()[:2]) as client,
    ):
        assert run(raw_server(loop, listening, 1)) == [101_001]
        assert client.result() == 101_001


@clause("sockets.connect.many-fail")
@pytest.mark.parametrize("cancel", [False, True], ids=["all-refused", "every-second-cancelled"])
def test_hundreds_of_connects_that_fail_at_once_end_once_each(loop, run, cancel):
    port = peers.closed_port()

    async def main():
        with ExitStack() as stack:
            socks = [stack.enter_context(stream()) for _ in range(300)]
            tasks = [asyncio.create_task(loop.sock_connect(sock, ("127.0.0.1", port))) for sock in socks]
            if cancel:
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        allowed = (ConnectionRefusedError, asyncio.CancelledError) if cancel else ConnectionRefusedError
        assert all(isinstance(outcome, allowed) for outcome in outcomes), outcomes
        # Nothing of them is left: as many other sockets, with the same numbers, connect and work.
        with peers.serve(lambda conn: conn.sendall(conn.recv(10))) as addr, ExitStack() as stack:
            for _ in range(30):
                sock = stack.enter_context(stream())
                await loop.sock_connect(sock, addr)
                await loop.sock_sendall(sock, b"echo")
                assert await loop.sock_recv(sock, 10) == b"echo"

    run(main())
