"""create_connection() and connect_accepted_socket(): every argument, every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import os
import socket
import ssl
import time

import pytest

from .._kit import clause, cycles, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import drain, turns

LOCALHOST = "127.0.0.1"


def greet(conn):
    conn.sendall(b"hello")
    drain(conn)


@clause("tcp.connect.transport-and-protocol")
@pytest.mark.parametrize("host", [LOCALHOST, "localhost"])
def test_create_connection_returns_the_transport_and_the_protocol_it_made(loop, run, host):
    made = []

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    async def main(addr):
        transport, protocol = await loop.create_connection(factory, host, addr[1])
        calls = list(protocol.calls)
        await protocol.received(5)
        transport.close()
        await protocol.lost
        return transport, protocol, calls

    with peers.serve(greet) as addr:
        transport, protocol, calls = run(main(addr))
    assert made == [protocol]
    assert protocol.transport is transport
    assert calls[0] == "connection_made"  # called before create_connection() returns
    assert bytes(protocol.data) == b"hello"


@clause("tcp.connect.transport-type")
def test_the_transport_is_an_asyncio_transport(loop, run):
    async def main():
        ours, theirs = peers.pair()
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.close()
        await protocol.lost
        theirs.close()
        return isinstance(transport, asyncio.Transport)

    assert run(main())


@clause("tcp.connect.host-and-port-forms")
@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1", int), ("127.0.0.1", str), (b"127.0.0.1", int), ("localhost", str), (None, int)],
    ids=["address-int", "address-str", "bytes-int", "name-str", "none-int"],
)
def test_host_and_port_are_taken_in_every_form_getaddrinfo_takes(loop, run, host, port):
    async def main(addr):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), host, port(addr[1]), family=socket.AF_INET
        )
        peername = transport.get_extra_info("peername")
        transport.close()
        await protocol.lost
        return peername

    with peers.serve(greet) as addr:
        assert run(main(addr)) == addr


@clause("tcp.connect.refused")
def test_a_refused_connection_raises_connection_refused_error(loop, run):
    async def main():
        port = peers.closed_port()
        counts = []
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.create_connection(lambda: Recorder(loop), LOCALHOST, port)
            await turns()
            gc.collect()
            counts.append(len(os.listdir("/dev/fd")))
        return caught.value.errno, counts[-1] - counts[0]  # the first may open what the loop keeps

    assert run(main()) == (errno.ECONNREFUSED, 0)


@clause("tcp.connect.refused-leaves-no-cycle")
@pytest.mark.parametrize("address", [LOCALHOST, "localhost"])
@pytest.mark.parametrize("high", [False, True])
def test_a_refused_connection_leaves_no_reference_cycle(loop, run, address, high):
    async def main():
        connect = asyncio.open_connection if high else functools.partial(loop.create_connection, asyncio.Protocol)
        return await cycles.left_by(lambda: connect(address, peers.closed_port()), OSError)

    assert run(main()) == []


@clause("tcp.connect.factory-after-connect")
def test_the_factory_is_called_for_a_connection_that_exists_only(loop, run):
    made = []

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    async def main():
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(factory, LOCALHOST, peers.closed_port())

    run(main())
    assert not made


@clause("tcp.connect.unknown-name")
@pytest.mark.parametrize("host", ["no-such-host.invalid", "host with spaces"])
def test_a_name_that_does_not_resolve_raises_gaierror(loop, run, host):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_connection(asyncio.Protocol, host, 80)

    run(main())


@clause("tcp.connect.flags")
def test_flags_are_passed_to_getaddrinfo(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_connection(asyncio.Protocol, "localhost", 80, flags=socket.AI_NUMERICHOST)

    run(main())


@clause("tcp.connect.family")
def test_a_family_that_does_not_fit_the_host_raises(loop, run):
    async def main(addr):
        with pytest.raises(OSError):
            await loop.create_connection(asyncio.Protocol, LOCALHOST, addr[1], family=socket.AF_INET6)
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), LOCALHOST, addr[1], family=socket.AF_INET, proto=socket.IPPROTO_TCP
        )
        transport.close()
        await protocol.lost

    with peers.serve(greet) as addr:
        run(main(addr))


@clause("tcp.connect.sock")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_connected_socket_is_used_as_it_is_and_made_non_blocking(loop, run, blocking):
    async def main():
        ours, theirs = peers.pair()
        ours.setblocking(blocking)
        name = ours.getsockname()
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        non_blocking = not os.get_blocking(transport.get_extra_info("socket").fileno())
        theirs.sendall(b"x")
        await protocol.received(1)
        same = transport.get_extra_info("sockname") == name
        transport.close()
        await protocol.lost
        return non_blocking, same, ours.fileno()

    assert run(main()) == (True, True, -1)  # the socket object was the transport's, and is closed with it


@clause("tcp.connect.no-target")
@pytest.mark.parametrize("method", ["create_connection", "create_server"])
def test_neither_host_nor_port_nor_sock_raises_value_error(loop, run, method):
    async def main():
        with pytest.raises(ValueError):
            await getattr(loop, method)(asyncio.Protocol)

    run(main())


@clause("tcp.connect.sock-and-host")
@pytest.mark.parametrize("method", ["create_connection", "create_server"])
@pytest.mark.parametrize("where", [{"host": LOCALHOST}, {"port": 80}, {"host": LOCALHOST, "port": 80}], ids=str)
def test_sock_together_with_host_or_port_raises_value_error(loop, run, method, where):
    async def main():
        with socket.socket() as sock, pytest.raises(ValueError):
            await getattr(loop, method)(asyncio.Protocol, sock=sock, **where)

    run(main())


@clause("tcp.connect.sock-not-stream")
@pytest.mark.parametrize("method", ["create_connection", "create_server", "connect_accepted_socket"])
def test_a_socket_that_is_no_stream_raises_value_error(loop, run, method):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError):
                await getattr(loop, method)(asyncio.Protocol, sock=sock)
            return sock.fileno() >= 0

    assert run(main())


@clause("tcp.connect.ssl-socket")
@pytest.mark.parametrize("method", ["create_connection", "create_server", "connect_accepted_socket"])
def test_an_ssl_socket_raises_type_error(loop, run, method):
    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket(), do_handshake_on_connect=False) as sock, pytest.raises(TypeError):
            await getattr(loop, method)(asyncio.Protocol, sock=sock)

    run(main())


@clause("tcp.connect.ssl-arguments")
@pytest.mark.parametrize(
    "arguments",
    [
        {"server_hostname": "localhost"},
        {"ssl_handshake_timeout": 1.0},
        {"ssl_shutdown_timeout": 1.0},
    ],
    ids=str,
)
def test_arguments_of_tls_without_ssl_raise_value_error(loop, run, arguments):
    async def main():
        with pytest.raises(ValueError):
            await loop.create_connection(asyncio.Protocol, LOCALHOST, 1, **arguments)

    run(main())


@clause("tcp.connect.ssl-needs-hostname")
def test_ssl_without_a_host_needs_server_hostname(loop, run):
    async def main():
        ours, theirs = peers.pair()
        with ours, theirs, pytest.raises(ValueError):
            await loop.create_connection(asyncio.Protocol, sock=ours, ssl=ssl.create_default_context())

    run(main())


@clause("tcp.connect.local-addr")
def test_local_addr_binds_the_socket_before_it_connects(loop, run):
    port = peers.free_port()

    async def main(addr):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), *addr, local_addr=(LOCALHOST, port))
        names = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        transport.close()
        await protocol.lost
        return names, addr

    with peers.serve(greet) as addr:
        names, target = run(main(addr))
    assert names == ((LOCALHOST, port), target)


@clause("tcp.connect.local-addr-used")
def test_a_local_addr_that_cannot_be_bound_raises_os_error(loop, run):
    async def main(addr, taken):
        with pytest.raises(OSError) as caught:
            await loop.create_connection(asyncio.Protocol, *addr, local_addr=taken)
        return caught.value.errno

    with peers.serve(drain) as addr, peers.listener() as taken:
        assert run(main(addr, taken.getsockname())) == errno.EADDRINUSE


@clause("tcp.connect.tried-in-order")
def test_addresses_are_tried_in_order_until_one_connects(loop, run, monkeypatch):
    ports = [peers.closed_port(), peers.closed_port()]

    async def main(addr):
        asked = _resolve_to(loop, monkeypatch, [(LOCALHOST, port) for port in ports] + [addr, (LOCALHOST, ports[0])])
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), "many.test", 80)
        peername = transport.get_extra_info("peername")
        transport.close()
        await protocol.lost
        return asked, peername

    with peers.serve(greet) as addr:
        asked, peername = run(_or_skip(main(addr)))
        assert peername == addr
    assert asked == ["many.test"]


@clause("tcp.connect.all-fail")
def test_one_error_is_raised_when_every_address_fails(loop, run, monkeypatch, saw):
    """One OSError for all; where they say different things, its text has each."""
    ports = [peers.closed_port(), peers.closed_port()]

    async def main():
        _resolve_to(loop, monkeypatch, [(LOCALHOST, port) for port in ports])
        try:
            await loop.create_connection(asyncio.Protocol, "many.test", 80)
        except socket.gaierror:
            raise
        except OSError as error:
            return error

    error = run(_or_skip(main()))
    if isinstance(error, ConnectionRefusedError):
        saw("tcp.connect.all-fail", "a refusal")
    else:
        assert all(str(port) in str(error) for port in ports)
        saw("tcp.connect.all-fail", "an OSError that has the text of each failure")


@clause("tcp.connect.all-errors")
def test_all_errors_raises_an_exception_group_of_every_failure(loop, run, monkeypatch):
    async def main():
        ports = [peers.closed_port()]
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(asyncio.Protocol, LOCALHOST, ports[0], all_errors=True)
        return caught.value.exceptions

    (error,) = run(main())
    assert isinstance(error, ConnectionRefusedError)


@clause("tcp.connect.happy-eyeballs")
def test_happy_eyeballs_starts_the_next_attempt_after_the_delay(loop, run, monkeypatch):
    delay = 0.2
    with _black_hole() as silent, peers.serve(greet) as addr:

        async def main():
            _resolve_to(loop, monkeypatch, [silent, addr])
            started = time.monotonic()
            transport, protocol = await loop.create_connection(
                lambda: Recorder(loop), "many.test", 80, happy_eyeballs_delay=delay
            )
            took = time.monotonic() - started
            peername = transport.get_extra_info("peername")
            transport.close()
            await protocol.lost
            return took, peername

        took, peername = run(_or_skip(main()))
        assert peername == addr
        assert took >= delay - 0.001


@clause("tcp.connect.happy-eyeballs-failed")
def test_happy_eyeballs_does_not_wait_when_an_attempt_fails(loop, run, monkeypatch):
    with peers.serve(greet) as addr:

        async def main():
            _resolve_to(loop, monkeypatch, [(LOCALHOST, peers.closed_port()), addr])
            transport, protocol = await loop.create_connection(
                lambda: Recorder(loop), "many.test", 80, happy_eyeballs_delay=60
            )
            transport.close()
            await protocol.lost

        run(_or_skip(main()))  # run() gives up long before the delay is over


@clause("tcp.connect.happy-eyeballs")
def test_happy_eyeballs_with_one_address_simply_connects(loop, run):
    async def main(addr):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), *addr, happy_eyeballs_delay=0.25, interleave=1
        )
        await protocol.received(5)
        transport.close()
        await protocol.lost

    with peers.serve(greet) as addr:
        run(main(addr))


@clause("tcp.connect.interleave")
def test_interleave_alternates_the_families(loop, run, monkeypatch):
    """The first IPv4 address refuses; the IPv6 one that comes last in the list is tried before the second IPv4 one."""
    if not peers.has_ipv6():
        pytest.skip("no IPv6 on this machine")
    with peers.serve(drain, family=socket.AF_INET6) as six, peers.serve(drain) as four:

        async def main():
            _resolve_to(loop, monkeypatch, [(LOCALHOST, peers.closed_port()), four, six])
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), "many.test", 80, interleave=1)
            peername = transport.get_extra_info("peername")
            transport.close()
            await protocol.lost
            return peername

        assert run(_or_skip(main()))[:2] == six[:2]


@clause("tcp.connect.cancelled")
def test_a_cancelled_create_connection_leaves_nothing_behind(loop, run):
    with _black_hole() as silent:

        async def main():
            protocol = Recorder(loop)
            with pytest.raises(ConnectionRefusedError):  # opens what the loop keeps
                await loop.create_connection(lambda: protocol, LOCALHOST, peers.closed_port())
            before = len(os.listdir("/dev/fd"))
            connecting = loop.create_task(loop.create_connection(lambda: protocol, *silent))
            await turns(10)
            during = len(os.listdir("/dev/fd"))
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await turns()
            gc.collect()
            return before, during, len(os.listdir("/dev/fd")), protocol.calls

        before, during, after, calls = run(main())
    assert during > after == before
    assert not calls


@clause("tcp.connect.factory-raises")
def test_an_exception_of_the_factory_comes_out_of_create_connection(loop, run):
    class Boom(Exception):
        pass

    def factory():
        raise Boom

    async def main(addr):
        with pytest.raises(Boom):
            await loop.create_connection(factory, *addr)

    with peers.serve(drain) as addr:
        run(main(addr))
        gc.collect()  # the socket goes with the error at the latest, else drain() waits for it in vain


@clause("tcp.connect.fd-in-use")
def test_a_socket_that_already_has_a_transport_raises_runtime_error(loop, run, saw):
    async def main():
        ours, theirs = peers.pair()
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        with pytest.raises(RuntimeError):
            await loop.create_connection(lambda: Recorder(loop), sock=ours)
        if ours.fileno() == -1:
            saw("tcp.connect.fd-in-use", "the socket is closed, as by CPython since gh-153133")
            transport.abort()
            await protocol.lost
            return b"unharmed"
        saw("tcp.connect.fd-in-use", "the transport goes on")
        theirs.sendall(b"unharmed")
        await protocol.received(8)
        transport.close()
        await protocol.lost
        return bytes(protocol.data)

    assert run(main()) == b"unharmed"


@clause("tcp.connect.fd-watching-refused")
@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_the_descriptor_of_an_open_transport_cannot_be_watched(loop, run, method):
    async def main():
        ours, theirs = peers.pair()
        fd = ours.fileno()
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        arguments = (fd,) if method.startswith("remove") else (fd, print)
        with pytest.raises(RuntimeError):
            getattr(loop, method)(*arguments)
        transport.close()
        await protocol.lost
        theirs.close()

    run(main())


@clause("tcp.accepted.transport")
@pytest.mark.parametrize("blocking", [True, False])
def test_connect_accepted_socket_serves_a_socket_accepted_elsewhere(loop, run, blocking):
    def talk(sock):
        sock.sendall(b"ping")
        return drain(sock)

    async def main(conn):
        protocol = Recorder(loop)
        protocol.hooks["data_received"] = lambda data: (protocol.transport.write(data), protocol.transport.close())
        transport, got = await loop.connect_accepted_socket(lambda: protocol, conn)
        assert got is protocol
        assert protocol.calls[0] == "connection_made"
        assert transport is protocol.transport
        return await protocol.lost

    with peers.listener() as listener:
        listener.setblocking(True)
        with peers.client(listener.getsockname(), talk) as client:
            conn, _ = listener.accept()
            conn.setblocking(blocking)
            assert run(main(conn)) is None
            assert client.result() == b"ping"


@clause("tcp.accepted.ssl-arguments")
@pytest.mark.parametrize("argument", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_connect_accepted_socket_refuses_tls_timeouts_without_ssl(loop, run, argument):
    async def main():
        ours, theirs = peers.pair()
        with ours, theirs, pytest.raises(ValueError):
            await loop.connect_accepted_socket(asyncio.Protocol, ours, **{argument: 1.0})

    run(main())


def _resolve_to(loop, monkeypatch, addresses):
    """Make `many.test` resolve to `addresses`; the names asked for. A loop that resolves by itself skips the test."""
    asked = []

    def infos(port):
        return [
            (socket.AF_INET6 if ":" in addr[0] else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", addr)
            for addr in addresses
        ]

    def resolve(host, port, *_, **__):
        asked.append(host)
        return infos(port)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


async def _or_skip(awaitable):
    try:
        return await awaitable
    except socket.gaierror:
        pytest.skip("the loop does not resolve names through socket.getaddrinfo()")


@contextlib.contextmanager
def _black_hole():
    """A loopback address that neither accepts nor refuses: a listener whose queue is full drops what arrives."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(peers.listener(backlog=0))
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()
