"""getnameinfo(): what socket.getnameinfo() gives. No name server is asked: every address is this machine's own."""

from __future__ import annotations

import inspect
import socket

import pytest

from .._kit import clause
from .asking import outcome, outcome_of

NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


@pytest.fixture
def same(loop, run):
    """Asks the loop and socket.getnameinfo() the same and returns both outcomes."""

    def same(sockaddr, flags):
        return run(outcome_of(loop.getnameinfo(sockaddr, flags))), outcome(socket.getnameinfo, sockaddr, flags)

    return same


@clause("dns.getnameinfo.numeric")
@pytest.mark.parametrize(
    "sockaddr",
    [("127.0.0.1", 80), ("192.0.2.7", 0), ("::1", 80), ("::1", 80, 0, 0), ("2001:db8::7", 65535, 7), ("127.1", 80)],
    ids=str,
)
def test_an_address_in_numbers_is_text(same, sockaddr):
    got, expected = same(sockaddr, NUMERIC)
    assert got == expected
    assert type(got) is tuple
    assert got[1] == str(sockaddr[1])


@clause("dns.getnameinfo.name")
def test_the_name_of_this_machine_is_found(loop, run):
    assert run(loop.getnameinfo(("127.0.0.1", 80))) == socket.getnameinfo(("127.0.0.1", 80), 0)


@clause("dns.getnameinfo.flags-argument")
def test_flags_are_zero_by_default_and_may_be_given_by_position_or_name(loop, run):
    async def main():
        return [
            await loop.getnameinfo(("127.0.0.1", 80), 0) == await loop.getnameinfo(("127.0.0.1", 80)),
            await loop.getnameinfo(sockaddr=("127.0.0.1", 80), flags=NUMERIC),
        ]

    assert run(main()) == [True, ("127.0.0.1", "80")]


@clause("dns.getnameinfo.service")
@pytest.mark.parametrize("port", [22, 53, 512])
@pytest.mark.parametrize("flags", [socket.NI_NUMERICHOST, socket.NI_NUMERICHOST | socket.NI_DGRAM], ids=["tcp", "udp"])
def test_the_service_is_named_for_its_protocol(same, port, flags):
    got, expected = same(("127.0.0.1", port), flags)
    assert got == expected
    assert got[0] == "127.0.0.1"


@clause("dns.getnameinfo.scope")
def test_the_scope_of_an_ipv6_address_is_named(same):
    index, _ = socket.if_nameindex()[0]
    for flags in (NUMERIC, socket.NI_NUMERICHOST):
        got, expected = same(("fe80::1", 80, 0, index), flags)
        assert got == expected


@clause("dns.getnameinfo.coroutine")
def test_getnameinfo_returns_a_coroutine(loop, run):
    pending = loop.getnameinfo(("127.0.0.1", 80), NUMERIC)
    assert inspect.isawaitable(pending)
    assert run(pending) == ("127.0.0.1", "80")


@clause("dns.getnameinfo.host-name")
@pytest.mark.parametrize("flags", [0, NUMERIC])
def test_a_host_name_in_the_address_raises_gaierror(same, flags):
    got, expected = same(("localhost", 80), flags)
    assert got == expected
    assert got[0] is socket.gaierror


@clause("dns.getnameinfo.errors")
@pytest.mark.parametrize(
    "sockaddr",
    ["127.0.0.1", ["127.0.0.1", 80], None, (), ("127.0.0.1",), (None, 80), ("127.0.0.1", "80"), ("127.0.0.1", 70000),
     ("127.0.0.1", -1), ("127.0.0.1", 80, 1), ("127.0.0.1", 1 << 70), ("::1", 80, 1 << 20, 0), ("::1", 80, -1, 0)],
    ids=repr,
)  # fmt: skip
def test_addresses_that_cannot_be_raise_what_socket_raises(same, sockaddr):
    got, expected = same(sockaddr, NUMERIC)
    assert got == expected


@clause("dns.getnameinfo.errors")
@pytest.mark.parametrize("flags", ["1", 1.5, None, 1 << 40, 1 << 20], ids=repr)
def test_flags_that_cannot_be_raise_what_socket_raises(same, flags):
    got, expected = same(("127.0.0.1", 80), flags)
    assert got == expected
