"""getaddrinfo(): what socket.getaddrinfo() gives, in every form it is asked for. No name server is asked."""

from __future__ import annotations

import inspect
import socket

import pytest

from .._kit import clause
from .asking import outcome, outcome_of

NUMERIC = ["127.0.0.1", "0.0.0.0", "255.255.255.255", "192.0.2.7", "::1", "::", "2001:db8::7", "::ffff:127.0.0.1"]
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def same(loop, run):
    """Asks the loop and socket.getaddrinfo() the same and returns both outcomes."""

    def same(host, port, **arguments):
        expected = outcome(socket.getaddrinfo, host, port, **arguments)
        return run(outcome_of(loop.getaddrinfo(host, port, **arguments))), expected

    return same


@clause("dns.getaddrinfo.numeric")
@pytest.mark.parametrize("host", NUMERIC)
def test_numeric_hosts_give_what_socket_gives(same, host):
    got, expected = same(host, 80)
    assert got == expected
    assert isinstance(got, list)
    assert all(type(info) is tuple and len(info) == 5 for info in got)


@clause("dns.getaddrinfo.name")
def test_a_name_gives_what_socket_gives(same):
    got, expected = same("localhost", 80)
    assert got == expected
    assert got


@clause("dns.getaddrinfo.enumerations")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_families_and_types_are_enumerations(loop, run, host):
    for family, kind, _, _, _ in run(loop.getaddrinfo(host, 80)):
        assert isinstance(family, socket.AddressFamily)
        assert isinstance(kind, socket.SocketKind)


@clause("dns.getaddrinfo.coroutine")
def test_getaddrinfo_returns_a_coroutine_that_does_nothing_before_it_is_awaited(loop, run):
    pending = loop.getaddrinfo("127.0.0.1", object())  # no port at all: OSError, when asked
    assert inspect.isawaitable(pending)
    with pytest.raises(OSError):
        run(pending)


@clause("dns.getaddrinfo.keyword-only")
def test_what_follows_the_port_is_given_by_name(loop, run):
    async def main():
        with pytest.raises(TypeError):
            await loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET)
        return await loop.getaddrinfo(host="127.0.0.1", port=80, family=socket.AF_INET, type=STREAM, proto=0, flags=0)

    assert run(main()) == socket.getaddrinfo("127.0.0.1", 80, socket.AF_INET, STREAM)


@clause("dns.getaddrinfo.arguments")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", None])
@pytest.mark.parametrize(
    "arguments",
    [
        {"type": STREAM},
        {"type": DGRAM},
        {"type": socket.SOCK_RAW},
        {"proto": socket.IPPROTO_TCP},
        {"proto": socket.IPPROTO_UDP, "type": DGRAM},
        {"proto": socket.IPPROTO_UDP, "type": STREAM},
        {"family": socket.AF_INET, "type": STREAM},
        {"family": socket.AF_INET6, "type": STREAM},
        {"family": socket.AF_UNSPEC, "type": STREAM},
    ],
    ids=str,
)
def test_family_type_and_proto_choose_as_in_socket(same, host, arguments):
    if host == "localhost" and arguments.get("family") == socket.AF_INET6:
        pytest.skip("a name server may be asked")
    got, expected = same(host, 80, **arguments)
    assert got == expected


@clause("dns.getaddrinfo.flags")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", None])
@pytest.mark.parametrize(
    "flags",
    [
        socket.AI_PASSIVE,
        socket.AI_CANONNAME,
        socket.AI_NUMERICHOST,
        socket.AI_NUMERICSERV,
        socket.AI_PASSIVE | socket.AI_NUMERICSERV,
        socket.AI_ADDRCONFIG,
        socket.AI_V4MAPPED,
        1 << 30,
    ],
    ids=lambda flags: getattr(flags, "name", None) or hex(flags),
)
@pytest.mark.parametrize("family", [0, socket.AF_INET6], ids=["any", "ipv6"])
def test_flags_do_what_they_do_in_socket(same, host, flags, family):
    if host == "localhost" and family == socket.AF_INET6:
        pytest.skip("a name server may be asked")
    got, expected = same(host, 80, flags=flags, family=family, type=STREAM)
    assert got == expected


@clause("dns.getaddrinfo.no-host")
def test_no_host_is_loopback_or_any_address(loop, run):
    async def main():
        return (
            await loop.getaddrinfo(None, 80, family=socket.AF_INET, type=STREAM),
            await loop.getaddrinfo(None, 80, family=socket.AF_INET, type=STREAM, flags=socket.AI_PASSIVE),
            await outcome_of(loop.getaddrinfo(None, None)),
        )

    loopback, wildcard, neither = run(main())
    assert [info[4] for info in loopback] == [("127.0.0.1", 80)]
    assert [info[4] for info in wildcard] == [("0.0.0.0", 80)]
    assert neither == outcome(socket.getaddrinfo, None, None)
    assert neither[0] is socket.gaierror


@clause("dns.getaddrinfo.host-forms")
@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1",
        b"::1",
        b"localhost",
        "127.1",
        "0x7f.1",
        "2130706433",
        "",
        b"",
        "127.0.0.1 ",
        "[::1]",
        "::1%",
        "1.2.3.4.5",
    ],
    ids=repr,
)
def test_hosts_are_taken_in_every_form_that_socket_takes(same, host):
    if host in {"127.0.0.1 ", "[::1]", "::1%", "1.2.3.4.5"}:
        got, expected = same(host, 80, flags=socket.AI_NUMERICHOST)  # they are names, and no server shall be asked
    else:
        got, expected = same(host, 80)
    assert got == expected


@clause("dns.getaddrinfo.port-forms")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize(
    "port",
    [0, 80, "80", b"80", None, "", b"", "http", b"domain", 65535, 65536, 70000, "70000", -1, 1 << 40, " 80", "0080"],
    ids=repr,
)
def test_ports_are_taken_in_every_form_that_socket_takes(same, host, port):
    got, expected = same(host, port, type=STREAM)
    assert got == expected


@clause("dns.getaddrinfo.scope")
@pytest.mark.parametrize("scope", ["name", "number", "unknown"])
def test_scopes_of_ipv6_addresses_are_as_in_socket(same, scope):
    index, name = socket.if_nameindex()[0]
    text = {"name": name, "number": str(index), "unknown": "no-such-interface"}[scope]
    got, expected = same(f"fe80::1%{text}", 80, type=STREAM)
    assert got == expected
    if scope != "unknown" and isinstance(got, list):
        assert got[0][4][3] == index


@clause("dns.getaddrinfo.idna")
@pytest.mark.parametrize(
    "host",
    [
        "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54",  # localhost in fullwidth letters
        "\uff11\uff12\uff17.0.0.1",  # 127.0.0.1, the first number in fullwidth digits
        "127\u30020\u30020\u30021",  # with ideographic full stops, which IDNA takes for dots
    ],
    ids=ascii,
)
def test_names_are_encoded_by_idna(same, host):
    got, expected = same(host, 80, type=STREAM)
    assert got == expected


@clause("dns.errors.gaierror")
@pytest.mark.parametrize(
    ("host", "arguments"),
    [
        ("localhost", {"flags": socket.AI_NUMERICHOST}),
        ("127.0.0.1", {"family": socket.AF_INET6}),
        ("::1", {"family": socket.AF_INET}),
        ("127.0.0.1", {"type": 77}),
        ("127.0.0.1", {"family": 99}),
        ("127.0.0.1", {"proto": 254}),
        ("127.0.0.1", {"flags": 1 << 20}),
        ("", {"flags": socket.AI_NUMERICHOST}),
    ],
    ids=str,
)
def test_errors_are_gaierror_with_the_number_that_socket_gives(same, host, arguments):
    got, expected = same(host, 80, **arguments)
    assert got == expected
    assert got[0] is socket.gaierror
    assert isinstance(got[1], int)


@clause("dns.errors.unknown-name")
def test_an_unknown_name_raises_gaierror(same):
    got, _ = same("no-such-host.invalid", 80)  # the number tells how the machine is connected, and may change
    assert got[0] is socket.gaierror


@clause("dns.errors.unknown-service")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
def test_an_unknown_service_raises_gaierror(same, host):
    got, expected = same(host, "no-such-service")
    assert got == expected
    assert got[0] is socket.gaierror


@clause("dns.errors.numeric-service")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
def test_a_service_name_where_numbers_are_asked_for_raises_gaierror(same, host):
    got, expected = same(host, "http", flags=socket.AI_NUMERICSERV)
    assert got == expected
    assert got[0] is socket.gaierror


@clause("dns.errors.wrong-types")
@pytest.mark.parametrize(
    ("host", "port"),
    [
        (1, 80),
        (["127.0.0.1"], 80),
        (bytearray(b"127.0.0.1"), 80),
        (object(), 80),
        ("127.0.0.1", 1.5),
        ("127.0.0.1", True),
        ("127.0.0.1", [80]),
        ("127.0.0.1", bytearray(b"80")),
        ("127.0.0.1", 1 << 70),
        (None, object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_hosts_and_ports_of_wrong_types_raise_what_socket_raises(same, host, port, saw):
    got, expected = same(host, port)
    if port is True:
        assert got in (expected, outcome(socket.getaddrinfo, host, 1))  # it is an int
        if got == expected:
            saw("dns.errors.wrong-types", "a port of True is what socket.getaddrinfo() takes it for")
        else:
            saw("dns.errors.wrong-types", "a port of True is the port 1")
    else:
        assert got == expected


@clause("dns.errors.wrong-types")
@pytest.mark.parametrize("name", ["family", "type", "proto", "flags"])
@pytest.mark.parametrize("value", ["0", None, 1.0, 1 << 40], ids=repr)
def test_numbers_of_wrong_types_raise_what_socket_raises(same, name, value):
    got, expected = same("127.0.0.1", 80, **{name: value})
    assert got == expected


@clause("dns.errors.idna")
@pytest.mark.parametrize("host", ["x" * 64, "a..b", "\ud800"], ids=ascii)
def test_names_that_idna_cannot_encode_raise_unicode_error(same, host):
    got, expected = same(host, 80)
    if isinstance(expected, tuple) and issubclass(expected[0], UnicodeError):
        assert issubclass(got[0], UnicodeError)
    else:
        assert got == expected
