"""create_datagram_endpoint(): every argument, every way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import pathlib
import socket
import tempfile

import pytest

from .._kit import clause, peers
from .._kit.contracts.stream import aside, turns
from .recording import LOCALHOST, Datagrams, endpoint, far_end, name_of, receive


def open_fds():
    gc.collect()
    return len(os.listdir("/dev/fd"))


@contextlib.contextmanager
def no_fd_is_left():
    before = open_fds()
    yield
    assert open_fds() == before


@clause("udp.create.transport-and-protocol")
def test_the_transport_and_the_protocol_that_the_factory_made_are_returned(loop, run):
    made = []

    def factory():
        made.append(Datagrams(loop))
        return made[-1]

    async def main():
        transport, protocol = await loop.create_datagram_endpoint(factory, local_addr=(LOCALHOST, 0))
        calls = list(protocol.calls)
        transport.close()
        await protocol.lost
        return transport, protocol, calls

    transport, protocol, calls = run(main())
    assert made == [protocol]
    assert protocol.transport is transport
    assert calls == ["connection_made"]  # called before create_datagram_endpoint() returns


@clause("udp.create.transport-type")
def test_the_transport_is_an_asyncio_datagram_transport(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            return isinstance(protocol.transport, asyncio.DatagramTransport)

    assert run(main())


@clause("udp.create.local-addr")
def test_an_endpoint_with_a_local_address_receives_there_from_anybody(loop, run):
    async def main():
        async with endpoint(loop, local_addr=(LOCALHOST, 0)) as protocol:
            host, port = name_of(protocol)
            assert host == LOCALHOST
            assert port > 0
            with far_end() as one, far_end() as other:
                one.sendto(b"one", (host, port))
                await protocol.got(1)
                other.sendto(b"other", (host, port))
                await protocol.got(2)
                expected = [(b"one", one.getsockname()), (b"other", other.getsockname())]
            return protocol.received == expected

    assert run(main())


@clause("udp.create.local-port")
def test_a_port_that_is_given_is_the_one_bound(loop, run):
    with far_end() as sock:
        port = sock.getsockname()[1]

    async def main():
        async with endpoint(loop, local_addr=(LOCALHOST, port)) as protocol:
            return name_of(protocol)

    assert run(main()) == (LOCALHOST, port)


@clause("udp.create.remote-addr")
def test_an_endpoint_with_a_remote_address_is_connected_to_it(loop, run):
    async def main(far, stranger):
        async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
            ours = name_of(protocol)
            protocol.transport.sendto(b"ping")
            data, source = await aside(far.recvfrom, 100)
            stranger.sendto(b"not from there", ours)
            far.sendto(b"pong", ours)
            await protocol.got(1)
            await turns()
            return ours, data, source, protocol.received, protocol.transport.get_extra_info("peername")

    with far_end() as far, far_end() as stranger:
        ours, data, source, received, peername = run(main(far, stranger))
        assert (data, source) == (b"ping", ours)
        assert received == [(b"pong", far.getsockname())]
        assert peername == far.getsockname()


@clause("udp.create.both-addresses")
def test_an_endpoint_may_be_bound_and_connected(loop, run):
    async def main(far):
        with far_end() as sock:
            ours = sock.getsockname()
        async with endpoint(loop, local_addr=ours, remote_addr=far.getsockname()) as protocol:
            protocol.transport.sendto(b"x")
            _, source = await aside(far.recvfrom, 100)
            return ours, source, name_of(protocol), protocol.transport.get_extra_info("peername")

    with far_end() as far:
        ours, source, sockname, peername = run(main(far))
        assert ours == source == sockname
        assert peername == far.getsockname()


@clause("udp.create.family-only")
def test_a_family_alone_makes_an_endpoint_that_can_send(loop, run):
    async def main(far):
        async with endpoint(loop, family=socket.AF_INET) as protocol:
            protocol.transport.sendto(b"x", far.getsockname())
            return await aside(far.recv, 100), protocol.transport.get_extra_info("peername")

    with far_end() as far:
        assert run(main(far)) == (b"x", None)


@clause("udp.create.no-address")
def test_neither_address_nor_family_raises_value_error(loop, run):
    async def main():
        with pytest.raises(ValueError):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol)

    run(main())


@clause("udp.create.address-shape")
@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
@pytest.mark.parametrize("address", [LOCALHOST, ("127.0.0.1",), ("127.0.0.1", 1, 2), ["127.0.0.1", 1], 1], ids=repr)
def test_an_address_that_is_no_pair_raises_type_error(loop, run, argument, address):
    async def main():
        with pytest.raises(TypeError):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **{argument: address})

    run(main())


@clause("udp.create.families-differ")
def test_addresses_of_different_families_raise_value_error(loop, run):
    async def main():
        with pytest.raises(ValueError):
            await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(LOCALHOST, 0), remote_addr=("::1", 9)
            )

    if not peers.has_ipv6():
        pytest.skip("no IPv6 on this machine")
    run(main())


@clause("udp.create.family-of-address")
@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
def test_a_family_that_does_not_fit_the_address_raises(loop, run, argument):
    async def main():
        with no_fd_is_left(), pytest.raises(OSError):
            await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, family=socket.AF_INET6, **{argument: (LOCALHOST, 9)}
            )

    run(main())


@clause("udp.create.host-names")
def test_host_names_are_resolved(loop, run):
    async def main(far):
        there = "localhost", far.getsockname()[1]
        async with endpoint(loop, local_addr=("localhost", 0), remote_addr=there, family=socket.AF_INET) as protocol:
            protocol.transport.sendto(b"x")
            data, source = await aside(far.recvfrom, 100)
            return data, source == name_of(protocol)

    with far_end() as far:
        assert run(main(far)) == (b"x", True)


@clause("udp.create.unknown-name")
@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
def test_a_name_that_does_not_resolve_raises_gaierror(loop, run, argument):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **{argument: ("host with spaces", 9)})

    run(main())


@clause("udp.create.flags")
def test_flags_are_passed_to_getaddrinfo(loop, run):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("localhost", 9), flags=socket.AI_NUMERICHOST
            )

    run(main())


@clause("udp.create.proto")
def test_proto_is_the_protocol_of_the_socket(loop, run):
    async def main():
        async with endpoint(loop, local_addr=(LOCALHOST, 0), proto=socket.IPPROTO_UDP) as protocol:
            sock = protocol.transport.get_extra_info("socket")
            facts = sock.type, sock.proto
        with pytest.raises(OSError):
            await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, family=socket.AF_INET, proto=socket.IPPROTO_TCP
            )
        return facts

    assert run(main()) == (socket.SOCK_DGRAM, socket.IPPROTO_UDP)


@clause("udp.create.reuse-port")
def test_reuse_port_lets_several_endpoints_have_one_address(loop, run):
    async def main():
        async with endpoint(loop, local_addr=(LOCALHOST, 0), reuse_port=True) as one:
            address = name_of(one)
            async with endpoint(loop, local_addr=address, reuse_port=True) as other:
                options = [
                    protocol.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
                    for protocol in (one, other)
                ]
                with far_end() as far:
                    far.sendto(b"to one of them", address)
                    while not one.received and not other.received:
                        await asyncio.sleep(0)
                return options, one.data + other.data

    options, data = run(main())
    assert all(options)
    assert data == [b"to one of them"]


@clause("udp.create.address-in-use")
@pytest.mark.parametrize("reuse_port", [None, False, True])
def test_an_address_in_use_raises_oserror_and_leaves_no_descriptor(loop, run, reuse_port):
    async def main(address):
        with no_fd_is_left():
            with pytest.raises(OSError) as caught:
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=address, reuse_port=reuse_port)
            code = caught.value.errno
            del caught
        return code

    with far_end() as taken:  # without SO_REUSEPORT: that of the endpoint alone is not enough
        assert run(main(taken.getsockname())) == errno.EADDRINUSE


@clause("udp.create.address-in-use")
def test_an_endpoint_shares_its_address_with_no_other_that_did_not_ask_to(loop, run):
    async def main():
        async with endpoint(loop) as first:
            with pytest.raises(OSError) as caught:
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=name_of(first))
            return caught.value.errno

    assert run(main()) == errno.EADDRINUSE


@clause("udp.create.no-reuse-address")
def test_so_reuseaddr_is_not_set(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            sock = protocol.transport.get_extra_info("socket")
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)

    assert not run(main())


@clause("udp.create.reuse-address-gone")
def test_there_is_no_argument_reuse_address(loop, run):
    async def main():
        with pytest.raises(TypeError):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(LOCALHOST, 0), reuse_address=True)

    run(main())


@clause("udp.create.keyword-only")
def test_what_follows_the_addresses_is_given_by_name(loop, run):
    async def main():
        with pytest.raises(TypeError):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, (LOCALHOST, 0), None, socket.AF_INET)
        protocol = Datagrams(loop)
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, (LOCALHOST, 0), None)
        transport.close()
        await protocol.lost

    run(main())


BROADCAST = "127.255.255.255"


@clause("udp.create.allow-broadcast")
@pytest.mark.parametrize("allow", [None, False, True])
def test_broadcasting_is_allowed_only_where_it_was_asked_for(loop, run, allow):
    async def main(far):
        async with endpoint(loop, local_addr=(LOCALHOST, 0), allow_broadcast=allow) as protocol:
            sock = protocol.transport.get_extra_info("socket")
            option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
            assert bool(option) == bool(allow)
            protocol.transport.sendto(b"to all", (BROADCAST, far.getsockname()[1]))
            if allow:
                return await aside(far.recv, 100), protocol.failures
            await protocol.called("error_received")
            return protocol.failures

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("", 0))
        far.settimeout(peers.TIMEOUT)
        outcome = run(main(far))
    if allow:
        assert outcome == (b"to all", [])
    else:
        (failure,) = outcome
        assert isinstance(failure, PermissionError)


@clause("udp.create.broadcast-remote")
def test_an_endpoint_that_broadcasts_to_its_remote_address_gets_the_answers(loop, run):
    """It is not connected: the answers come from the addresses of those who answer."""

    async def main(far):
        there = BROADCAST, far.getsockname()[1]
        async with endpoint(loop, local_addr=(LOCALHOST, 0), remote_addr=there, allow_broadcast=True) as protocol:
            protocol.transport.sendto(b"who is there")
            data, source = await aside(far.recvfrom, 100)
            with far_end() as somebody:
                somebody.sendto(b"me", source)
                await protocol.got(1)
                expected = [(b"me", somebody.getsockname())]
            with pytest.raises(ValueError):
                protocol.transport.sendto(b"x", (LOCALHOST, 9))
            protocol.transport.sendto(b"again", there)
            return data, await aside(far.recv, 100), protocol.received == expected

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("", 0))
        far.settimeout(peers.TIMEOUT)
        assert run(main(far)) == (b"who is there", b"again", True)


@clause("udp.create.connect-fails")
def test_a_remote_address_that_cannot_be_connected_raises_and_leaves_no_descriptor(loop, run):
    made = []

    async def main():
        with no_fd_is_left(), pytest.raises(PermissionError):  # a broadcast address, without allow_broadcast
            await loop.create_datagram_endpoint(lambda: made.append(1), remote_addr=(BROADCAST, 9))
        return made

    assert run(main()) == []


@clause("udp.create.next-address")
def test_the_next_address_is_tried_where_one_fails(loop, run, monkeypatch):
    if not peers.has_ipv6():
        pytest.skip("the addresses of one name have two families")

    async def main(taken):
        addresses = {socket.AF_INET: taken, socket.AF_INET6: ("::1", taken[1], 0, 0)}
        infos = [(family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", addr) for family, addr in addresses.items()]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
        try:
            async with endpoint(loop, local_addr=("many.test", taken[1])) as protocol:
                return name_of(protocol)[0]
        except socket.gaierror:
            pytest.skip("the loop does not resolve names through socket.getaddrinfo()")

    # The port may be another test's on the second address, but not every time.
    for passed_over in ((OSError,),) * 4 + ((),):
        with far_end() as taken, contextlib.suppress(*passed_over):
            assert run(main(taken.getsockname())) == "::1"
            break


@clause("udp.create.sock")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_given_socket_is_used_as_it_is_and_made_non_blocking(loop, run, blocking):
    async def main(far):
        sock = far_end()
        sock.setblocking(blocking)
        name = sock.getsockname()
        async with endpoint(loop, sock=sock) as protocol:
            facts = not os.get_blocking(sock.fileno()), name_of(protocol) == name
            far.sendto(b"ping", name)
            await protocol.got(1)
            protocol.transport.sendto(b"pong", far.getsockname())
            answer = await aside(far.recvfrom, 100)
        return facts, protocol.received == [(b"ping", far.getsockname())], answer == (b"pong", name), sock.fileno()

    with far_end() as far:  # the socket object was the transport's, and is closed with it
        assert run(main(far)) == ((True, True), True, True, -1)


@clause("udp.create.sock-connected")
def test_a_given_socket_that_is_connected_needs_no_address(loop, run):
    async def main(far):
        sock = far_end()
        sock.connect(far.getsockname())
        async with endpoint(loop, sock=sock) as protocol:
            protocol.transport.sendto(b"ping")
            data, source = await aside(far.recvfrom, 100)
            far.sendto(b"pong", source)
            await protocol.got(1)
            return data, protocol.data, protocol.transport.get_extra_info("peername") == far.getsockname()

    with far_end() as far:
        assert run(main(far)) == (b"ping", [b"pong"], True)


@clause("udp.create.sock-unread")
def test_datagrams_that_wait_in_a_given_socket_come_after_connection_made(loop, run):
    async def main(far):
        sock = far_end()
        for data in (b"1", b"", b"3"):
            far.sendto(data, sock.getsockname())
        async with endpoint(loop, sock=sock) as protocol:
            await protocol.got(3)
            return protocol.calls, protocol.data

    with far_end() as far:
        assert run(main(far)) == (["connection_made"] + ["datagram_received"] * 3, [b"1", b"", b"3"])


@clause("udp.create.sock-stream")
def test_a_stream_socket_raises_value_error_and_stays_open(loop, run):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            with pytest.raises(ValueError):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
            return sock.fileno() >= 0

    assert run(main())


@clause("udp.create.sock-and-arguments")
@pytest.mark.parametrize(
    "argument",
    [
        {"local_addr": (LOCALHOST, 0)},
        {"remote_addr": (LOCALHOST, 9)},
        {"family": socket.AF_INET},
        {"proto": socket.IPPROTO_UDP},
        {"flags": socket.AI_PASSIVE},
        {"reuse_port": True},
        {"allow_broadcast": True},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_sock_with_an_argument_that_would_change_it_raises_value_error_naming_it(loop, run, argument):
    async def main():
        with far_end() as sock:
            with pytest.raises(ValueError, match=next(iter(argument))):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock, **argument)
            return sock.fileno() >= 0

    assert run(main())


@clause("udp.create.factory-raises")
def test_an_exception_of_the_factory_comes_out_and_leaves_no_descriptor(loop, run):
    class FactoryError(Exception):
        pass

    def factory():
        raise FactoryError

    async def main():
        with no_fd_is_left(), pytest.raises(FactoryError):
            await loop.create_datagram_endpoint(factory, local_addr=(LOCALHOST, 0))

    run(main())


@clause("udp.create.cancelled")
@pytest.mark.parametrize("host", [LOCALHOST, "localhost"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_a_cancelled_call_leaves_no_descriptor_and_no_open_endpoint(loop, run, host, count):
    made = []

    def factory():
        made.append(Datagrams(loop))
        return made[-1]

    async def main():
        await loop.getaddrinfo("localhost", 9)  # whatever threads it needs are there now
        with no_fd_is_left():
            task = loop.create_task(
                loop.create_datagram_endpoint(factory, remote_addr=(host, 9), family=socket.AF_INET)
            )
            await turns(count)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                task.result()[0].close()
            del task
            await turns()
        return [protocol.calls for protocol in made if protocol.calls]

    for calls in run(main()):
        assert calls == ["connection_made", "connection_lost"]


@clause("udp.create.unix")
def test_unix_addresses_are_paths(loop, run):
    async def main(directory):
        near, far = os.path.join(directory, "near"), os.path.join(directory, "far")
        async with (
            endpoint(loop, family=socket.AF_UNIX, local_addr=far) as server,
            endpoint(loop, family=socket.AF_UNIX, local_addr=near, remote_addr=far) as client,
        ):
            client.transport.sendto(b"ping")
            await server.got(1)
            data, source = server.received[0]
            server.transport.sendto(b"pong", source)
            await client.got(1)
            return data, source == near, client.received == [(b"pong", far)]

    with tempfile.TemporaryDirectory() as directory:
        assert run(main(directory)) == (b"ping", True, True)


@clause("udp.create.unix-stale-path")
def test_a_socket_that_nobody_has_any_more_is_replaced_and_a_file_is_not(loop, run):
    async def main(directory):
        stale, other = os.path.join(directory, "stale"), os.path.join(directory, "file")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(stale)
        async with endpoint(loop, family=socket.AF_UNIX, local_addr=stale) as protocol:
            with pytest.raises(OSError):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=socket.AF_UNIX, local_addr=other)
            return name_of(protocol) == stale

    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "file")
        file.touch()
        assert run(main(directory))
        assert file.is_file()


@clause("udp.create.unix-not-a-string")
@pytest.mark.parametrize("argument", ["local_addr", "remote_addr"])
@pytest.mark.parametrize("address", [("path", 0), b"path", 7], ids=repr)
def test_a_unix_address_that_is_no_string_raises_type_error(loop, run, argument, address):
    async def main():
        with pytest.raises(TypeError):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=socket.AF_UNIX, **{argument: address})

    run(main())


@clause("udp.create.ipv6")
def test_ipv6_addresses_are_bound_connected_and_reported(loop, run):
    if not peers.has_ipv6():
        pytest.skip("no IPv6 on this machine")

    async def main(far):
        async with endpoint(loop, local_addr=("::1", 0)) as open_to_all:
            open_to_all.transport.sendto(b"1", far.getsockname()[:2])
            open_to_all.transport.sendto(b"2", far.getsockname())
            data = await aside(receive, far, 2)
            far.sendto(b"3", name_of(open_to_all))
            await open_to_all.got(1)
            received = open_to_all.received == [(b"3", far.getsockname())]
        async with endpoint(loop, remote_addr=("::1", far.getsockname()[1])) as connected:
            connected.transport.sendto(b"4")
            fourth, source = await aside(far.recvfrom, 100)
            far.sendto(b"5", source)
            await connected.got(1)
            same = connected.transport.get_extra_info("peername") == far.getsockname()
            return data, received, fourth, same, connected.received == [(b"5", far.getsockname())]

    with far_end(socket.AF_INET6) as far:
        assert run(main(far)) == ([b"1", b"2"], True, b"4", True, True)
