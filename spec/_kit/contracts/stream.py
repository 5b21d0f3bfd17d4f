"""The contract of a stream transport: makers, rules, and how an area turns rules into its tests.

A maker opens one connection between a protocol on the loop under test and a peer. The peer is a blocking object with
`sendall`, `recv`, `close` and, where the kind has half-close, `shutdown(socket.SHUT_WR)`: a plain socket where it can
be. It works in threads, never on the loop. A rule says in `needs` which abilities of the kind it uses; rules whose
needs a maker lacks are left out of that area.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import pkgutil
import threading
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import pytest

from .. import clause
from .recording import Recording

T = TypeVar("T")

ABILITIES = frozenset({"read", "write", "half_close", "full_duplex"})

# More than the kernel takes while the peer does not read: Linux's largest automatic socket buffers are 4 MiB to send
# and 6 MiB to receive (tcp(7), tcp_wmem and tcp_rmem), and makers ask for small ones.
MORE_THAN_THE_KERNEL_TAKES = 12 * 1024 * 1024


class Peer(Protocol):
    """The blocking far end of a connection."""

    def sendall(self, data: bytes) -> None: ...
    def recv(self, size: int) -> bytes: ...
    def shutdown(self, how: int) -> None: ...
    def close(self) -> None: ...


class Maker(Protocol):
    """Opens connections of one kind of stream."""

    abilities: frozenset[str]

    async def connect(
        self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol
    ) -> tuple[asyncio.Transport, Peer]:
        """A connection on which connection_made was called. The peer's operations give up after 15 s."""


class Rule(NamedTuple):
    names: tuple[str, ...]
    needs: frozenset[str]
    function: Callable[..., None]


_rules: list[Rule] = []


def rule(*names: str, needs: str = "read write full_duplex") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a function into the contract, as the test of the clauses `<area>.<name>`."""
    wanted = frozenset(needs.split())
    assert wanted <= ABILITIES, wanted - ABILITIES

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        _rules.append(Rule(names, wanted, function))
        return function

    return enter


def contract(area: str, maker: Maker, *, without: frozenset[str] = frozenset()) -> type:
    """A class with one test per rule that `maker` is able to keep, but for the rules named in `without`."""
    body: dict[str, Any] = {
        "__doc__": f"The stream contract, kept by {maker!r}.",
        "maker": _maker_fixture(maker),
        "stream": _stream_fixture(maker),
    }
    for names, needs, function in _all_rules():
        if needs <= maker.abilities and not without.intersection(names):
            bound = clause(*(f"{area}.{name}" for name in names))(_copy(function))
            body[f"test_{function.__name__}"] = staticmethod(bound)
    return type("StreamContract", (), body)


async def aside(function: Callable[..., T], *args: Any) -> T:
    """Run a peer's blocking function in a thread of its own while the loop goes on; its result or its exception."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(method: Callable[[Any], None], outcome: object) -> None:
        if not done.done():
            method(outcome)

    def work() -> None:
        try:
            result = function(*args)
        except BaseException as exc:  # handed to the awaiting test, whatever it is
            loop.call_soon_threadsafe(settle, done.set_exception, exc)
        else:
            loop.call_soon_threadsafe(settle, done.set_result, result)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    result = await done
    thread.join()
    return result


def end_child(transport: asyncio.Transport, end: str) -> NoReturn:
    """End the child of a fork: it "exits", "closes" or "aborts" the transport first, or "leaves the loop"."""
    if end == "closes":
        transport.close()
    elif end == "aborts":
        transport.abort()
    elif end == "leaves the loop":
        raise SystemExit
    os._exit(0)


async def in_callback(function: Callable[[], T]) -> T:
    """Call `function` in a plain callback of the running loop; its result or its exception.

    A child that it forks there can end by SystemExit: since CPython 3.15 a forked child has no current task, and so
    no step of a task can end in it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            result = function()
        except Exception as exc:  # handed to the awaiting test, whatever it is
            done.set_exception(exc)
        else:
            done.set_result(result)

    loop.call_soon(call)
    return await done


async def turns(count: int = 5) -> None:
    """Let the loop make `count` iterations, so that what could happen at once has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


async def close_and_drain(transport: asyncio.Transport, protocol: Recording, peer: Peer) -> tuple[bytes, Any]:
    """Close a transport: all that its peer gets, and what `connection_lost()` is called with."""
    transport.close()
    got = await aside(drain, peer)
    return got, await protocol.lost


def close_with_a_transport_open(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """Close a loop that has a transport over `fd`, to which nothing else refers: it warns, and `fd` is closed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        gc.collect()
    assert [w for w in caught if w.category is ResourceWarning and "transport" in str(w.message).lower()], caught
    with pytest.raises(OSError):
        os.fstat(fd)


def drain(peer: Peer) -> bytes:
    """Everything the peer gets until the end, be the end an EOF or a reset."""
    got = bytearray()
    while True:
        try:
            piece = peer.recv(262144)
        except (ConnectionResetError, BrokenPipeError):
            return bytes(got)
        if not piece:
            return bytes(got)
        got += piece


def _all_rules() -> list[Rule]:
    from . import rules

    for module in pkgutil.iter_modules(rules.__path__):
        importlib.import_module(f"{rules.__name__}.{module.name}")
    return _rules


def _copy(function: Callable[..., None]) -> Callable[..., None]:
    """A second function of the same code: clauses are marked on the function, and differ from area to area."""
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        f"test_{function.__name__}",
        function.__defaults__,
        function.__closure__,
    )
    copy.__dict__.update({**function.__dict__, "pytestmark": list(getattr(function, "pytestmark", ()))})
    copy.__doc__, copy.__module__, copy.__kwdefaults__ = function.__doc__, function.__module__, function.__kwdefaults__
    return copy


def _maker_fixture(maker: Maker) -> Any:
    @pytest.fixture(name="maker")
    def given_maker(self: object) -> Maker:
        """The maker itself, for rules about what happens to a transport that no fixture holds on to."""
        return maker

    return given_maker


def _stream_fixture(maker: Maker) -> Any:
    @pytest.fixture
    def stream(self: object, loop: asyncio.AbstractEventLoop, run: Callable[..., Any]) -> Iterator[Any]:
        """Opens connections for a protocol, as pairs of transport and peer; those left open are aborted at the end."""
        opened: list[tuple[asyncio.Transport, Peer, Any]] = []

        async def connect(protocol: Any) -> tuple[asyncio.Transport, Peer]:
            transport, peer = await maker.connect(loop, protocol)
            opened.append((transport, peer, protocol))
            return transport, peer

        yield connect
        for transport, peer, protocol in opened:
            if not (loop.is_closed() or protocol.lost.done()):
                _abort(transport)
                run(_end(protocol.lost))
            peer.close()

    return stream


def _abort(transport: asyncio.Transport) -> None:
    try:
        transport.abort()
    except (AttributeError, NotImplementedError):
        transport.close()  # the reading end of a pipe


async def _end(lost: Awaitable[object]) -> None:
    await asyncio.wait([asyncio.ensure_future(lost)], timeout=1)
