"""create_server(): every argument, and every way to fail."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys

import pytest

from .._kit import clause, peers, timing
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, drain, turns
from .serving import LOCALHOST, Echo, connect, exchange


@clause("tcp.server.port-zero")
def test_port_zero_is_a_free_port_that_sockets_tell(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        got = await aside(exchange, addr)
        server.close()
        return addr, got

    (host, port), got = run(main())
    assert host == LOCALHOST
    assert port > 0
    assert got == b"ping"


@clause("tcp.server.all-interfaces")
@pytest.mark.parametrize("host", [None, ""])
def test_host_none_or_empty_listens_on_all_interfaces(loop, run, host):
    async def main():
        server = await loop.create_server(Echo, host, 0)
        names = [sock.getsockname() for sock in server.sockets]
        (port,) = {name[1] for name in names if name[0] == "0.0.0.0"}
        got = await aside(exchange, (LOCALHOST, port))
        server.close()
        return names, got

    names, got = run(main())
    assert {name[0] for name in names} <= {"0.0.0.0", "::"}
    assert got == b"ping"


@clause("tcp.server.host-list")
@pytest.mark.parametrize("hosts", [["127.0.0.1", "127.0.0.2"], ("127.0.0.1", "127.0.0.2"), ["127.0.0.1"] * 3])
def test_a_sequence_of_hosts_is_bound_once_for_each_address(loop, run, hosts):
    if sys.platform != "linux" and "127.0.0.2" in hosts:
        pytest.skip("only Linux has all of 127/8 on loopback")

    async def main():
        server = await loop.create_server(Echo, hosts, peers.free_port())
        names = [sock.getsockname() for sock in server.sockets]
        got = [await aside(exchange, name) for name in names]
        server.close()
        return names, got

    names, got = run(main())
    assert sorted(name[0] for name in names) == sorted(set(hosts))
    assert set(got) == {b"ping"}


@clause("tcp.server.family")
def test_family_forces_ipv4_or_ipv6(loop, run):
    async def main():
        server = await loop.create_server(Echo, None, 0, family=socket.AF_INET)
        families = {sock.family for sock in server.sockets}
        server.close()
        return families

    assert run(main()) == {socket.AF_INET}


@clause("tcp.server.flags")
def test_flags_are_passed_to_getaddrinfo(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_server(Echo, "localhost", 0, flags=socket.AI_NUMERICHOST)

    run(main())


@clause("tcp.server.unknown-name")
def test_a_host_that_does_not_resolve_raises_gaierror(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_server(Echo, "no-such-host.invalid", 0)

    run(main())


@clause("tcp.server.client-waiting")
def test_a_client_that_waited_has_its_transport_three_turns_later(loop, run):
    async def main(sock):
        made = []

        def factory():
            made.append(Recorder(loop))
            return made[-1]

        await turns(20)
        with socket.create_connection(sock.getsockname(), peers.TIMEOUT):
            server = await loop.create_server(factory, sock=sock)
            took = await timing.turns_until(lambda: made and made[0].calls)
            server.close()
        await made[0].lost
        return took

    assert run(main(peers.listener())) <= 3


@clause("tcp.server.between-runs")
def test_what_clients_did_between_runs_is_found_by_the_first_turns_of_the_next(loop, tick):
    made = []

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    server = loop.run_until_complete(loop.create_server(factory, LOCALHOST, 0))
    for n in range(1, 21):
        with socket.create_connection(server.sockets[0].getsockname(), peers.TIMEOUT) as client:
            tick(3)
            assert len(made) == n
            client.sendall(b"data")
            tick()
            assert made[-1].data == b"data"
        tick(2)
        assert made[-1].calls[-2:] == ["eof_received", "connection_lost"]
    server.close()


@clause("tcp.server.sock")
@pytest.mark.parametrize("listening", [True, False])
def test_a_bound_socket_is_served_as_it_is(loop, run, listening):
    async def main():
        sock = peers.listener() if listening else socket.socket()
        if not listening:
            sock.bind((LOCALHOST, 0))  # blocking, not listening: create_server() does both
        addr = sock.getsockname()
        server = await loop.create_server(Echo, sock=sock)
        names = [one.getsockname() for one in server.sockets]
        got = await aside(exchange, addr)
        server.close()
        await turns()
        return names == [addr], got, sock.fileno()

    assert run(main()) == (True, b"ping", -1)


@clause("tcp.server.backlog")
def test_the_backlog_bounds_the_connections_that_wait(loop, run):
    """With a small backlog and a loop that does not run, connections beyond it are not completed."""
    if sys.platform != "linux":
        pytest.skip("systems round the backlog differently")

    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0, backlog=3)
        addr = server.sockets[0].getsockname()
        clients = []
        completed = 0
        for _ in range(20):  # no await: nothing is accepted meanwhile
            sock = socket.socket()
            sock.setblocking(False)
            clients.append(sock)
            with contextlib.suppress(BlockingIOError):
                sock.connect(addr)
        for sock in clients:
            with contextlib.suppress(BlockingIOError):
                sock.send(b"x")
                completed += 1
        for sock in clients:
            sock.close()
        server.close()
        await turns(20)
        return completed

    assert 3 <= run(main()) <= 6


@clause("tcp.server.used-port")
def test_a_used_port_raises_address_in_use_and_leaves_nothing_open(loop, run):
    async def main(addr):
        before = len(os.listdir("/dev/fd"))
        with pytest.raises(OSError) as caught:
            await loop.create_server(Echo, *addr)
        return caught.value.errno, len(os.listdir("/dev/fd")) - before

    with peers.listener() as taken:
        assert run(main(taken.getsockname())) == (errno.EADDRINUSE, 0)


@clause("tcp.server.reuse-address")
@pytest.mark.parametrize(
    ("argument", "expected"), [({}, True), ({"reuse_address": True}, True), ({"reuse_address": False}, False)]
)
def test_reuse_address_is_set_by_default(loop, run, argument, expected):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0, **argument)
        value = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        server.close()
        return bool(value)

    assert run(main()) is expected


@clause("tcp.server.reuse-address")
def test_a_port_is_served_again_right_after_its_connections_ended(loop, run):
    async def main():
        closing = []

        def factory():
            closing.append(Recorder(loop, connection_made=lambda transport: transport.close()))
            return closing[-1]

        server = await loop.create_server(factory, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        await aside(lambda: drain(connect(addr)))  # our end closes first, so it is left in TIME_WAIT
        server.close()
        await closing[0].lost
        second = await loop.create_server(Echo, *addr)
        got = await aside(exchange, addr)
        second.close()
        return got

    assert run(main()) == b"ping"


@clause("tcp.server.reuse-port")
def test_reuse_port_lets_two_servers_share_a_port(loop, run):
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("no SO_REUSEPORT")

    async def main():
        first = await loop.create_server(Echo, LOCALHOST, 0, reuse_port=True)
        addr = first.sockets[0].getsockname()
        second = await loop.create_server(Echo, *addr, reuse_port=True)
        both = [bool(s.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) for s in (first, second)]
        first.close()
        await turns()
        got = await aside(exchange, addr)  # the second one still serves
        second.close()
        return both, got

    assert run(main()) == ([True, True], b"ping")


@clause("tcp.server.keep-alive")
def test_keep_alive_sets_the_option(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0, keep_alive=True)
        value = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        server.close()
        return bool(value)

    assert run(main())


@clause("tcp.server.ssl-arguments")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"ssl": True}, TypeError),
        ({"ssl": False}, TypeError),
        ({"ssl_handshake_timeout": 1.0}, ValueError),
        ({"ssl_shutdown_timeout": 1.0}, ValueError),
    ],
    ids=str,
)
def test_tls_arguments_that_make_no_sense_raise(loop, run, arguments, error):
    async def main():
        with pytest.raises(error):
            await loop.create_server(Echo, LOCALHOST, 0, **arguments)

    run(main())
