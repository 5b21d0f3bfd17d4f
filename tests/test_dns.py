"""What is all numbers is answered without a thread, and just as `socket` answers it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import socket
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec.dns.asking import outcome, outcome_of
from tests import support

pytestmark = pytest.mark.skipif(not support.OURS, reason="other loops use a thread for every lookup")

NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
HOSTS = ["127.0.0.1", "255.255.255.255", "::1", "::", "2001:db8::1", "::ffff:1.2.3.4", b"127.0.0.1", b"::1", None]
PORTS = [0, 80, 65536, -1, "80", b"80", "0080", None, 1 << 40]
LOOPBACK = f"fe80::1%{socket.if_nameindex()[0][1]}"


class NoExecutor(concurrent.futures.ThreadPoolExecutor):
    """Refuses all work."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"a thread was asked for: {function} {args}")


class Refusing(NoExecutor):
    """Notes the work, and does it not."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[tuple[Any, ...]] = []

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(args)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result("from the thread")
        return future


def ask(executor: concurrent.futures.ThreadPoolExecutor, *questions: Any) -> list[Any]:
    """The outcomes of `question(loop)` on a loop with that default executor."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(executor)
        return [await outcome_of(question(loop)) for question in questions]

    with asyncio.Runner(loop_factory=support.factory()) as runner:
        return runner.run(main())


@pytest.mark.parametrize("host", [*HOSTS, LOOPBACK], ids=repr)
@pytest.mark.parametrize("debug", [False, True])
def test_numeric_hosts_and_ports_are_answered_without_a_thread_as_socket_does(host: Any, debug: bool) -> None:
    flags = [0, socket.AI_PASSIVE, socket.AI_CANONNAME, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV, 1 << 20]
    families = [0, socket.AF_INET, socket.AF_INET6, 99]
    types = [(0, 0), (socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, socket.IPPROTO_UDP), (77, 0)]
    cases = list(itertools.product(PORTS, families, types, flags))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        loop.slow_callback_duration = 60  # seconds: this one task takes its time
        loop.set_default_executor(NoExecutor(1))
        for port, family, (kind, proto), flag in cases:
            got = await outcome_of(
                loop.getaddrinfo(host, port, family=family, type=kind, proto=proto, flags=flag)  # type: ignore[arg-type]
            )
            assert got == outcome(socket.getaddrinfo, host, port, family, kind, proto, flag), (port, family, kind, flag)

    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("localhost", 80),
        ("127.0.0.1", "http"),
        ("127.0.0.1", ""),
        ("127.0.0.1", " 80"),
        ("127.0.0.1", "\uff18\uff10"),
        (None, "http"),
        ("", 80),
        ("127.0.0.1 ", 80),
        ("127.1", 80),
        ("1234", 80),
        ("[::1]", 80),
        ("::1::", 80),
        ("1.2.3.4%lo", 80),
        ("127.0.0.1\0", 80),
        ("\ud800", 80),
        ("face", 80),
        (b"\xff\xfe", 80),
        (7, 80),
        ("127.0.0.1", 1.5),
        ("127.0.0.1", object()),
    ],
    ids=repr,
)
def test_whatever_may_have_to_be_looked_up_goes_to_the_default_executor(host: Any, port: Any) -> None:
    executor = Refusing()
    answers = ask(executor, lambda loop: loop.getaddrinfo(host, port, family=2, type=1, proto=6, flags=3))
    assert executor.asked == [(host, port, 2, 1, 6, 3)]
    assert answers == ["from the thread"]


@settings(max_examples=500, deadline=None)
@given(st.text("0123456789abcdefx.:%[] \0", max_size=20))
def test_no_name_is_taken_for_an_address(host: str) -> None:
    """An address is what `getaddrinfo(3)` takes for one; AI_NUMERICHOST makes it refuse what is a name."""
    from tokioloop.dns import _is_address

    if _is_address(host) and "%" not in host:
        assert socket.getaddrinfo(host, 80, flags=socket.AI_NUMERICHOST)


@given(st.ip_addresses())
@settings(max_examples=200, deadline=None)
def test_every_address_is_taken_for_one(address: Any) -> None:
    from tokioloop.dns import _is_address

    assert _is_address(str(address))
    assert _is_address(str(address).encode())
    assert _is_address(address.exploded)


@pytest.mark.parametrize("sockaddr", [("127.0.0.1", 80), ("::1", 80, 0, 1), ("localhost", 80), ("127.0.0.1",), None, 7])
@pytest.mark.parametrize("flags", [NUMERIC, NUMERIC | socket.NI_DGRAM, NUMERIC | socket.NI_NAMEREQD, NUMERIC | 1 << 20])
def test_names_in_numbers_are_given_without_a_thread_as_socket_does(sockaddr: Any, flags: int) -> None:
    answers = ask(NoExecutor(1), lambda loop: loop.getnameinfo(sockaddr, flags))
    assert answers == [outcome(socket.getnameinfo, sockaddr, flags)]


@pytest.mark.parametrize("flags", [0, socket.NI_NUMERICHOST, socket.NI_NUMERICSERV, "3", None, 3.0], ids=repr)
def test_names_that_may_have_to_be_looked_up_go_to_the_default_executor(flags: Any) -> None:
    executor = Refusing()
    answers = ask(executor, lambda loop: loop.getnameinfo(("127.0.0.1", 80), flags))
    assert executor.asked == [(("127.0.0.1", 80), flags)]
    assert answers == ["from the thread"]


def test_numbers_are_answered_after_the_default_executor_was_shut_down() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError):
            await loop.getaddrinfo("localhost", 80)
        return await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    with asyncio.Runner(loop_factory=support.factory()) as runner:
        assert runner.run(main()) == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


def test_a_subclass_of_the_loop_may_have_a_resolver_of_its_own() -> None:
    import tokioloop

    class Loop(tokioloop.TokioLoop):
        async def getaddrinfo(self, host: Any, port: Any, **arguments: Any) -> Any:
            if host == "name.invalid":
                host = "127.0.0.1"
            return await super().getaddrinfo(host, port, **arguments)

    async def main() -> Any:
        return await asyncio.get_running_loop().getaddrinfo("name.invalid", 80, type=socket.SOCK_STREAM)

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main())[0][4] == ("127.0.0.1", 80)


@pytest.mark.parametrize("function", ["getaddrinfo", "getnameinfo"])
def test_a_function_that_took_the_place_of_the_sockets_is_called_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """It may block: a slow name server, as a test has it."""
    called_in: list[int] = []

    def slow(*_: Any) -> list[Any]:
        called_in.append(threading.get_ident())
        return []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        if function == "getaddrinfo":
            return await loop.getaddrinfo("127.0.0.1", 80)
        return await loop.getnameinfo(("127.0.0.1", 80), NUMERIC)

    monkeypatch.setattr(socket, function, slow)
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        assert runner.run(main()) == []
    assert len(called_in) == 1
    assert called_in != [threading.get_ident()]
