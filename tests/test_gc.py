"""Cycles through the loop's objects are collected, and each object shows the collector what it holds.

Each test ties a knot through one kind of object, lets go of everything and asks whether a canary inside the knot died.
The loop lives on where it may (an object it let go of must not need the loop's own end), or is dropped, closed or not.
"""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spec._kit import peers
from tests import support

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop


class Canary:
    """Dies when what holds it is collected."""

    knot: Any = None


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is dropped open warns, as it should; that is no concern here. The collector runs when a test says so."""
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        gc.enable()


def died(canary: weakref.ref[Canary]) -> bool:
    """Is the canary dead once the collector has run?"""
    gc.collect()
    return canary() is None


def reaches(start: object, target: object, depth: int = 8) -> bool:
    """Does the collector find `target` from `start` within `depth` steps?"""
    seen, layer = {id(start)}, [start]
    for _ in range(depth):
        following = []
        for found in gc.get_referents(*layer):
            if found is target:
                return True
            if id(found) not in seen and not isinstance(found, type(gc)):
                seen.add(id(found))
                following.append(found)
        layer = following
    return False


def run_once(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


# ---- handles


def schedule_soon(loop: Loop, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
    return loop.call_soon(callback, *args)


def schedule_threadsafe(loop: Loop, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
    return loop.call_soon_threadsafe(callback, *args)


def schedule_later(loop: Loop, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
    return loop.call_later(0.0001, callback, *args)


def schedule_far(loop: Loop, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
    return loop.call_at(loop.time() + 3600, callback, *args)


Schedule = Callable[..., asyncio.Handle]
soonest = pytest.mark.parametrize("schedule", [schedule_soon, schedule_threadsafe, schedule_later])
scheduled = pytest.mark.parametrize("schedule", [schedule_soon, schedule_threadsafe, schedule_later, schedule_far])


@scheduled
def test_a_handle_shows_the_collector_its_callback_and_arguments(loop: Loop, schedule: Schedule) -> None:
    canary = Canary()
    assert reaches(schedule(loop, id, canary), canary)

    def callback() -> None: ...

    assert reaches(schedule(loop, callback), callback)


@scheduled
def test_the_loop_shows_the_collector_what_is_scheduled(loop: Loop, schedule: Schedule) -> None:
    canary = Canary()
    schedule(loop, id, canary)
    assert reaches(loop, canary)


@soonest
def test_a_handle_tied_to_its_arguments_is_collected_after_it_ran(loop: Loop, schedule: Schedule) -> None:
    canary = Canary()
    canary.knot = schedule(loop, id, canary)
    dead = weakref.ref(canary)
    del canary
    ran = loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert not ran.cancelled()
    assert died(dead)


@scheduled
def test_a_cancelled_handle_lets_go_of_its_arguments_at_once(loop: Loop, schedule: Schedule) -> None:
    canary = Canary()
    handle = schedule(loop, id, canary)
    dead = weakref.ref(canary)
    del canary
    handle.cancel()
    assert dead() is None, "the collector was not needed"


@scheduled
def test_a_cancelled_handle_tied_to_its_context_is_collected(loop: Loop, schedule: Schedule) -> None:
    canary = Canary()
    canary.knot = schedule(loop, canary.__init__)
    canary.knot.cancel()
    dead = weakref.ref(canary)
    del canary
    run_once(loop)
    # A timer that was cancelled far ahead of its time stays queued, on stock asyncio too; it holds no canary.
    assert died(dead)


@scheduled
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_tied_to_what_is_scheduled_on_it_is_collected(schedule: Schedule, *, closed: bool) -> None:
    loop = support.new_loop()
    canary = Canary()
    canary.knot = (loop, schedule(loop, id, canary, loop))
    if closed:
        loop.close()
    dead, gone = weakref.ref(canary), weakref.ref(loop)
    del canary, loop
    assert died(dead)
    assert gone() is None


def test_a_handle_is_collected_though_its_loop_is_gone() -> None:
    loop = support.new_loop()
    canary = Canary()
    canary.knot = loop.call_soon(id, canary)
    loop.close()
    del loop
    dead = weakref.ref(canary)
    del canary
    assert died(dead)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_a_transport_tied_to_an_attribute_of_its_own_is_collected(loop: Loop, kind: str, *, closed: bool) -> None:
    if kind == "stream":
        ours, theirs = peers.pair()
        made = loop.create_connection(asyncio.Protocol, sock=ours)
    else:
        theirs = socket.socket()
        made = loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    transport: Any = loop.run_until_complete(made)[0]
    canary = Canary()
    canary.knot, transport.knot = transport, canary
    assert reaches(transport, canary)
    dead = weakref.ref(canary)
    if closed:
        transport.abort()
        run_once(loop)
        run_once(loop)
    else:
        loop.close()
    del transport, canary, made
    theirs.close()
    assert died(dead)


@pytest.mark.parametrize("lent", ["_ready", "_scheduled"])
def test_a_loop_tied_to_what_it_lends_is_collected(lent: str) -> None:
    loop = support.new_loop()
    canary = Canary()
    schedule_soon(loop, id, canary)
    schedule_far(loop, id, canary)
    canary.knot = (loop, getattr(loop, lent))
    assert reaches(loop, canary)
    dead, gone = weakref.ref(canary), weakref.ref(loop)
    del canary, loop
    assert died(dead)
    assert gone() is None


def test_a_timer_shows_the_collector_the_number_it_was_given(loop: Loop) -> None:
    class Moment(float):
        pass

    moment = Moment(1e9)
    assert reaches(loop.call_at(moment, id, None), moment)


@soonest
def test_a_weak_reference_to_a_handle_never_finds_another(loop: Loop, schedule: Schedule) -> None:
    """A loop that keeps handles for later must not hand out one that somebody still watches."""
    seen = weakref.ref(schedule(loop, int))
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    following = [schedule(loop, int) for _ in range(100)]
    assert seen() not in following


# ---- the loop's own hooks


def test_a_loop_tied_to_its_exception_handler_and_task_factory_is_collected() -> None:
    loop = support.new_loop()
    canary = Canary()

    def handler(_loop: Loop, _context: dict[str, Any], held: Canary = canary) -> None: ...

    def tasks(loop: Loop, coro: Any, held: Canary = canary, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_exception_handler(handler)
    loop.set_task_factory(tasks)
    canary.knot = loop
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    dead = weakref.ref(canary)
    del loop, canary, handler, tasks
    assert died(dead)


def test_a_loop_that_ran_and_was_closed_is_collected() -> None:
    loop = support.new_loop()

    async def main() -> None:
        await asyncio.sleep(0.001)
        await asyncio.get_running_loop().run_in_executor(None, int)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


# ---- readers and writers


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_the_loop_shows_the_collector_what_is_watched(loop: Loop, method: str) -> None:
    canary = Canary()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        getattr(loop, method)(ours, id, canary)
        assert reaches(loop, canary)
        loop.remove_reader(ours)
        loop.remove_writer(ours)
        assert not reaches(loop, canary)


@pytest.mark.parametrize("method", ["reader", "writer"])
def test_a_removed_watcher_lets_go_of_its_callback(loop: Loop, method: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        canary = Canary()
        getattr(loop, f"add_{method}")(ours, id, canary)
        run_once(loop)
        getattr(loop, f"remove_{method}")(ours)
        run_once(loop)
        dead = weakref.ref(canary)
        del canary
        assert died(dead)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_tied_to_its_watchers_is_collected(method: str, *, closed: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop = support.new_loop()
        canary = Canary()
        canary.knot = loop
        getattr(loop, method)(ours, id, canary, loop)
        if closed:
            loop.close()
        dead = weakref.ref(canary)
        del loop, canary
        assert died(dead)


# ---- transports and servers


class Knot(asyncio.Protocol):
    """Holds its transport, as protocols do, and a canary."""

    def __init__(self) -> None:
        self.canary = Canary()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def connected() -> tuple[Knot, socket.socket]:
    """A protocol connected to a plain socket."""
    ours, theirs = peers.pair()
    _, protocol = await asyncio.get_running_loop().create_connection(Knot, sock=ours)
    return protocol, theirs


def test_a_transport_shows_the_collector_its_protocol(loop: Loop) -> None:
    protocol, peer = loop.run_until_complete(connected())
    with peer:
        assert reaches(protocol.transport, protocol.canary)
        protocol.transport.abort()  # type: ignore[attr-defined]
        run_once(loop)


@pytest.mark.parametrize("how", ["close", "abort", "peer"])
def test_a_transport_tied_to_its_protocol_is_collected_once_lost(loop: Loop, how: str) -> None:
    protocol, peer = loop.run_until_complete(connected())
    with peer:
        if how == "peer":
            peer.close()
        else:
            getattr(protocol.transport, how)()
        while not protocol.lost:
            loop.run_until_complete(asyncio.sleep(0.001))  # clause-delay: a turn that waits for I/O
        dead, gone = weakref.ref(protocol.canary), weakref.ref(protocol.transport)
        del protocol
        assert died(dead)
        assert gone() is None


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("queued", [0, 10_000_000])
def test_an_open_transport_is_collected_with_its_loop(queued: int, *, closed: bool) -> None:
    loop = support.new_loop()
    protocol, peer = loop.run_until_complete(connected())
    with peer:
        protocol.transport.write(bytes(queued))  # type: ignore[attr-defined]
        if closed:
            loop.close()
        dead, gone = weakref.ref(protocol.canary), weakref.ref(loop)
        del loop, protocol
        assert died(dead)
        assert gone() is None


def test_the_last_reference_to_an_idle_lost_transport_closes_its_socket(loop: Loop) -> None:
    protocol, peer = loop.run_until_complete(connected())
    with peer:
        protocol.transport.close()
        run_once(loop)
        run_once(loop)
        assert protocol.lost
        assert peer.recv(1) == b"", "the other side sees the end"


class Failing(asyncio.Protocol):
    """Holds its transport, and fails; its exception's traceback holds it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().stop()
        raise ValueError("of data_received()")


def test_a_run_that_ends_in_a_failing_callback_leaves_no_descriptor() -> None:
    def stop_while_data_is_received() -> None:
        with support.running() as loop:
            loop.set_exception_handler(lambda _loop, _context: None)
            ours, theirs = peers.pair()
            with theirs:
                loop.run_until_complete(loop.create_connection(Failing, sock=ours))
                theirs.sendall(b"x")
                loop.run_forever()

    before = support.fds()
    for _ in range(20):
        stop_while_data_is_received()
    gc.collect()
    assert support.fds() == before


def test_a_transport_shows_the_collector_the_exception_that_ends_it(loop: Loop) -> None:
    protocol, peer = loop.run_until_complete(connected())
    with peer:
        error = ValueError("told when the connection is lost")
        protocol.transport._force_close(error)  # type: ignore[attr-defined]
        assert reaches(protocol.transport, error) or not support.OURS, "stock keeps it with a scheduled call"
        run_once(loop)


@pytest.mark.parametrize("state", ["closed", "open, its loop closed", "open, its loop dropped"])
def test_a_server_tied_to_its_factory_is_collected(state: str) -> None:
    loop = support.new_loop()
    canary = Canary()

    made: list[int] = []

    def factory(held: Canary = canary) -> asyncio.Protocol:
        made.append(1)
        return Knot()

    canary.knot = server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname(), peers.TIMEOUT):
        while not made:
            loop.run_until_complete(asyncio.sleep(0.001))  # clause-delay: a turn that waits for I/O
        run_once(loop)
        if state == "closed":
            server.close()
            run_once(loop)
        if state != "open, its loop dropped":
            loop.close()
        dead = weakref.ref(canary)
        del factory, canary, server, loop
        assert died(dead)


# ---- sock_* operations


class Tied(socket.socket):
    """A socket that can hold what waits on it."""

    __slots__ = ("canary",)


def tied() -> tuple[Tied, socket.socket]:
    """A connected pair, the first with a canary."""
    ours, theirs = peers.pair()
    sock = Tied(fileno=ours.detach())
    sock.setblocking(False)
    sock.canary = Canary()
    return sock, theirs


WAITS: dict[str, Callable[[Loop, socket.socket], Any]] = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(10)),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, bytes(50_000_000)),
}
waits = pytest.mark.parametrize("name", WAITS)


@waits
def test_an_operation_that_nobody_awaits_is_collected(loop: Loop, name: str) -> None:
    sock, peer = tied()
    with peer:
        sock.canary.knot = WAITS[name](loop, sock)
        dead = weakref.ref(sock.canary)
        del sock
        assert died(dead)


@waits
def test_an_operation_that_was_cancelled_is_collected(loop: Loop, name: str) -> None:
    async def main(sock: Tied) -> None:
        sock.canary.knot = task = asyncio.ensure_future(WAITS[name](loop, sock))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    sock, peer = tied()
    with peer:
        dead = weakref.ref(sock.canary)
        loop.run_until_complete(main(sock))
        sock.close()
        del sock
        run_once(loop)
        assert died(dead)


@waits
@pytest.mark.parametrize("closed", [True, False])
def test_an_operation_that_waits_is_collected_with_its_loop(name: str, *, closed: bool) -> None:
    async def main(sock: Tied, waiting: Any) -> None:
        sock.canary.knot = (asyncio.ensure_future(waiting), asyncio.get_running_loop())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop = support.new_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # "Task was destroyed but it is pending!"
    sock, peer = tied()
    with peer:
        dead = weakref.ref(sock.canary)
        loop.run_until_complete(main(sock, WAITS[name](loop, sock)))
        if closed:
            loop.close()
        del loop, sock
        assert died(dead)


@pytest.mark.parametrize("name", ["sock_accept", "sock_connect"])
def test_a_cancelled_accept_or_connect_is_collected(loop: Loop, name: str) -> None:
    with Tied() as sock, socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        sock.setblocking(False)
        sock.canary = Canary()
        if name == "sock_accept":
            sock.bind(("127.0.0.1", 0))
            sock.listen()

        async def main() -> None:
            args = () if name == "sock_accept" else (listening.getsockname(),)
            sock.canary.knot = task = asyncio.ensure_future(getattr(loop, name)(sock, *args))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        loop.run_until_complete(main())
        dead = weakref.ref(sock.canary)
        sock.canary = None
        del main
        run_once(loop)
        assert died(dead)


# ---- all of them, by their sources

SOURCES = support.PROJECT / "src" / "py"
STRUCT = re.compile(
    r"(?P<attributes>(?:#\[[^\n]*\n)*)(?:pub )?(?:struct|enum) (?P<name>\w+)[^{(;\n]* \{\n(?P<body>.*?)\n\}",
    re.DOTALL,
)
TRAVERSAL = re.compile(r"^( *)(?:pub )?fn (?:__)?traverse\w*\(.*?\n\1\}\n", re.DOTALL | re.MULTILINE)
#: Beside `bytes` and weak references, a lock: it refers to nothing.
HOLD_NOTHING = {("event_loop/threadsafe", "Run")}
FIELD = re.compile(r"^    (?:pub )?(\w+)(?:: |\()(.*?)\)?,$", re.MULTILINE)


def test_every_object_that_a_class_of_ours_keeps_is_shown_to_the_collector() -> None:
    """By its sources: each field that may hold an object, in a class or below one, is named in a traversal."""
    paths = {path.relative_to(SOURCES).with_suffix("").as_posix(): path for path in SOURCES.rglob("*.rs")}
    sources = {name: re.sub(r" *//[^\n]*", "", path.read_text()) for name, path in paths.items()}
    structs = {(file, found["name"]): found for file, text in sources.items() for found in STRUCT.finditer(text)}
    queue = [key for key, found in structs.items() if "#[pyclass" in found["attributes"]]
    assert {"LoopCore", "StreamTransport", "Handle", "SockOperation"} <= {name for _, name in queue}
    traversed = "".join(found[0] for text in sources.values() for found in TRAVERSAL.finditer(text))
    seen, missing = set(queue), []
    while queue:
        file, name = queue.pop()
        for field, kind in FIELD.findall(structs[file, name]["body"]):
            assert "PyErr" not in kind, f"{file} {name}.{field}: the collector cannot be shown a PyErr"
            if (
                "Py<" in re.sub(r"Py<(PyBytes|PyWeakrefReference)>", "", kind)
                and (file, name) not in HOLD_NOTHING
                and not re.search(rf"\b{field}\b", traversed)
            ):
                missing.append(f"{file} {name}.{field}: {kind}")
            for other in re.findall(r"\w+", re.sub(r"Py<\w+>", "", kind)):
                here = (file, other) in structs
                below = [key for key in structs if key[1] == other and (key[0] == file or not here)]
                queue += [key for key in below if key not in seen]
                seen |= set(below)
    assert not missing, "\n".join(missing)
