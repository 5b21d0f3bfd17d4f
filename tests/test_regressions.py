"""Bugs that were found once and stay fixed. The tests pass on stock asyncio, too, unless it has a bug of its own."""

from __future__ import annotations

import array
import asyncio
import contextlib
import contextvars
import gc
import inspect
import socket
import sys
import weakref
from typing import Any

import pytest

from spec._kit import peers
from spec.tls import certificates, peer
from tests import support

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop


def turns(loop: Loop, n: int = 20) -> None:
    """Run `n` turns of the stopped loop, each with a look at I/O."""
    for _ in range(n):
        loop.call_soon(loop.stop)
        loop.run_forever()


def connect(loop: Loop, protocol: asyncio.BaseProtocol, sock: socket.socket) -> asyncio.Transport:
    transport, _ = loop.run_until_complete(loop.create_connection(lambda: protocol, sock=sock))
    return transport


def close(loop: Loop, transport: asyncio.Transport) -> None:
    transport.abort()
    turns(loop, 3)


@pytest.mark.skipif(not support.OURS, reason="asyncio leaves that connection open until it is collected")
def test_a_descriptor_is_free_again_after_a_factory_that_closed_its_server(loop: Loop) -> None:
    """The server takes no transport then; the one that was made must not keep the descriptor's number."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main() -> None:
        def factory() -> asyncio.Protocol:
            closing.close()
            return asyncio.Protocol()

        closing = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(closing.sockets[0].getsockname()) as peer:
            peer.settimeout(support.TIMEOUT)
            await loop.run_in_executor(None, hung_up, peer)
        reports.clear()
        made = 0

        class Made(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                nonlocal made
                made += 1
                transport.write(b"made")

        server = await loop.create_server(Made, "127.0.0.1", 0)
        clients = []
        for _ in range(8):
            clients.append(socket.create_connection(server.sockets[0].getsockname()))
            clients[-1].settimeout(support.TIMEOUT)
            assert await loop.run_in_executor(None, clients[-1].recv, 4) == b"made"
        for client in clients:
            client.close()
        server.close()
        await asyncio.wait_for(server.wait_closed(), support.TIMEOUT)
        assert made == 8

    def hung_up(peer: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""

    loop.run_until_complete(main())
    turns(loop)
    assert reports == []


def test_the_exception_of_an_aborted_connection_may_hold_what_asks_the_transport(loop: Loop) -> None:
    """It is dropped where nothing is borrowed: a finalizer may call the transport."""
    seen: list[bool] = []
    unraisable: list[Any] = []
    loop.set_exception_handler(lambda *_: None)

    class Asks:
        def __init__(self, transport: asyncio.Transport) -> None:
            self.transport = transport

        def __del__(self) -> None:
            seen.append(self.transport.is_closing())

    class Held(Exception):
        pass

    def held(transport: asyncio.Transport) -> Held:
        error = Held()
        error.asks = Asks(transport)  # type: ignore[attr-defined]
        return error

    class Aborts(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.abort()
            raise held(self.transport)

    ours, theirs = peers.unix_pair()
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with theirs:
            connect(loop, Aborts(), ours)
            theirs.sendall(b"x")
            turns(loop)
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert seen == [True]
    assert unraisable == []


def test_a_server_accepts_on_after_its_factory_raised_system_exit(loop: Loop) -> None:
    made: list[asyncio.Transport] = []

    class Made(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(transport)

    first = True

    def factory() -> asyncio.Protocol:
        nonlocal first
        if first:
            first = False
            raise SystemExit(3)
        return Made()

    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    with socket.create_connection(address), pytest.raises(SystemExit):
        turns(loop)
    with socket.create_connection(address):
        turns(loop)
        assert len(made) == 1
    server.close()
    close(loop, made[0])


def test_a_server_accepts_on_after_accept_failed(loop: Loop) -> None:
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failed.append(context))
    listener = socket.create_server(("127.0.0.1", 0))

    async def main() -> None:
        accepted = loop.create_future()

        class Made(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                accepted.set_result(transport)

        server = await loop.create_server(Made, sock=listener)
        listener.shutdown(socket.SHUT_RDWR)
        while not failed:
            await asyncio.sleep(0)
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            (await accepted).abort()
        server.close()

    loop.run_until_complete(asyncio.wait_for(main(), support.TIMEOUT))
    turns(loop)


def test_a_server_whose_socket_is_closed_by_a_factory_takes_no_connection_of_who_has_the_number_then(
    loop: Loop,
) -> None:
    loop.set_exception_handler(lambda *_: None)
    listener = socket.create_server(("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    others: list[socket.socket] = []

    class Made(asyncio.Protocol):
        def __init__(self) -> None:
            if not others:
                number = listener.fileno()
                listener.close()
                others.append(socket.create_server(("127.0.0.1", 0)))
                assert others[0].fileno() == number
                clients.append(socket.create_connection(others[0].getsockname()))

        def connection_made(self, transport: Any) -> None:
            transport.abort()

    server = loop.run_until_complete(loop.create_server(Made, sock=listener))
    turns(loop)
    [other] = others
    with other:
        other.settimeout(support.TIMEOUT)
        conn, address = other.accept()
        assert address == clients[-1].getsockname()
        conn.close()
    for client in clients:
        client.close()
    with contextlib.suppress(ValueError):
        server.close()


@pytest.mark.parametrize("buffered", [False, True])
def test_a_transport_reads_on_after_its_protocol_raised_keyboard_interrupt(loop: Loop, buffered: bool) -> None:
    got: list[bytes] = []

    def take(data: bytes) -> None:
        got.append(data)
        if data == b"x":
            raise KeyboardInterrupt

    class Plain(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            take(data)

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(1)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            take(bytes(self.buffer[:nbytes]))

    ours, theirs = peers.unix_pair()
    with theirs:
        transport = connect(loop, Buffered() if buffered else Plain(), ours)
        theirs.sendall(b"x")
        with pytest.raises(KeyboardInterrupt):
            turns(loop)
        theirs.sendall(b"y")
        turns(loop)
        assert got == [b"x", b"y"]
        close(loop, transport)


@pytest.mark.skipif(not support.OURS, reason="asyncio fails an assertion in every turn from then on")
@pytest.mark.parametrize("end", ["write_eof", "close"])
def test_an_end_that_was_asked_for_comes_after_resume_writing_raised_keyboard_interrupt(loop: Loop, end: str) -> None:
    """The outbox is empty by then."""
    started: list[Any] = []

    class Interrupted(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = loop.create_future()

        def resume_writing(self) -> None:
            raise KeyboardInterrupt

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    def fill() -> None:
        transport.set_write_buffer_limits(high=0)
        while not transport.get_write_buffer_size():
            transport.write(b"x" * 10_000)
        getattr(transport, end)()
        started.append(peers.thread(peers.recv_all, theirs))

    ours, theirs = peers.unix_pair()
    with theirs:
        protocol = Interrupted()
        transport = connect(loop, protocol, ours)
        loop.call_soon(fill)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(asyncio.wait_for(asyncio.to_thread(started[0].result), support.TIMEOUT))
        transport.close()
        loop.run_until_complete(asyncio.wait_for(protocol.lost, support.TIMEOUT))
        assert protocol.lost.result() is None


@pytest.mark.skipif(not support.OURS, reason="asyncio leaves the connection open")
def test_a_fatal_error_ends_its_connection_though_the_exception_handler_raises_keyboard_interrupt(loop: Loop) -> None:
    lost: list[Exception | None] = []

    class Fails(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise LookupError

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    def interrupt(_loop: Any, _context: Any) -> None:
        raise KeyboardInterrupt

    loop.set_exception_handler(interrupt)
    ours, theirs = peers.unix_pair()
    with theirs:
        connect(loop, Fails(), ours)
        theirs.sendall(b"x")
        with pytest.raises(KeyboardInterrupt):
            turns(loop)
        turns(loop, 3)
    assert [type(exc) for exc in lost] == [LookupError]


def test_pausing_and_resuming_in_each_read_leaves_one_read_for_each_turn(loop: Loop) -> None:
    most = reads = 0

    class Pauses(asyncio.BufferedProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.buffer = transport, bytearray(1)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            nonlocal reads
            reads += 1
            self.transport.pause_reading()
            self.transport.resume_reading()

    ours, theirs = peers.unix_pair()
    with theirs:
        theirs.sendall(bytes(1000))
        transport = connect(loop, Pauses(), ours)
        for _ in range(20):
            reads = 0
            turns(loop, 1)
            most = max(most, reads)
        close(loop, transport)
    assert most == 1


def test_an_event_beside_a_queued_read_is_no_second_read_of_that_turn(loop: Loop) -> None:
    reads = 0

    class Reads(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(1)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            nonlocal reads
            reads += 1

    def go_on() -> None:
        transport.pause_reading()
        transport.resume_reading()

    ours, theirs = peers.unix_pair()
    with theirs:
        transport = connect(loop, Reads(), ours)
        turns(loop)
        theirs.sendall(bytes(1000))
        # It runs before the event of the same turn, which has been found by then.
        loop.call_soon(go_on)
        most = 0
        for _ in range(20):
            reads = 0
            turns(loop, 1)
            most = max(most, reads)
        close(loop, transport)
    assert most == 1


def test_what_waits_for_the_end_of_the_turn_pauses_no_protocol_when_limits_are_set(loop: Loop) -> None:
    calls: list[str] = []

    class Told(asyncio.Protocol):
        def pause_writing(self) -> None:
            calls.append("pause")

        def resume_writing(self) -> None:
            calls.append("resume")

    async def main(transport: asyncio.Transport) -> None:
        transport.write(b"a")
        transport.write(b"b")
        transport.set_write_buffer_limits(high=0)

    ours, theirs = peers.unix_pair()
    with theirs:
        transport = connect(loop, Told(), ours)
        loop.run_until_complete(main(transport))
        assert calls == []
        close(loop, transport)


def test_connection_lost_keeps_its_place_in_the_queue_however_much_was_written(loop: Loop) -> None:
    calls: list[str] = []

    class Told(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            calls.append("lost")

    async def main(transport: asyncio.Transport) -> None:
        transport.write(b"a")
        transport.write(b"b")
        transport.close()
        loop.call_soon(calls.append, "behind")

    ours, theirs = peers.unix_pair()
    with theirs:
        loop.run_until_complete(main(connect(loop, Told(), ours)))
        turns(loop)
        assert peers.recv_all(theirs) == b"ab"
    assert calls == ["lost", "behind"]


def test_resume_writing_runs_in_a_context_of_the_connection(loop: Loop) -> None:
    where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="outside")
    calls: list[str] = []

    class Told(asyncio.Protocol):
        def resume_writing(self) -> None:
            calls.append(where.get())

    async def main(ours: socket.socket, theirs: socket.socket) -> None:
        where.set("inside")
        transport, _ = await loop.create_connection(Told, sock=ours)
        transport.write(bytes(1 << 22))
        await loop.run_in_executor(None, peers.recv_exactly, theirs, 1 << 22)
        while not calls:
            await asyncio.sleep(0)
        transport.close()

    ours, theirs = peers.unix_pair()
    with theirs:
        loop.run_until_complete(asyncio.wait_for(main(ours, theirs), support.TIMEOUT))
    turns(loop)
    assert calls == ["inside"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="writelines joined with bytes.join")
def test_writelines_takes_whatever_has_the_buffer_protocol(loop: Loop) -> None:
    ours, theirs = peers.unix_pair()
    with theirs:
        transport = connect(loop, asyncio.Protocol(), ours)
        transport.writelines([array.array("H", [0x4141]), bytearray(b"b"), memoryview(b"c")])
        with pytest.raises(TypeError):
            transport.writelines(["text"])  # type: ignore[list-item]
        transport.close()
        turns(loop)
        assert peers.recv_all(theirs) == b"AAbc"


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_dropped_with_a_watcher_that_was_set_while_it_ran_is_collected() -> None:
    ours, theirs = peers.unix_pair()

    def tie() -> weakref.ref[Any]:
        class Knot:
            def __init__(self, loop: Loop) -> None:
                self.loop = loop

            def ready(self) -> None:
                pass

        async def main(loop: Loop) -> weakref.ref[Any]:
            # Handles that ran may be used again.
            for _ in range(50):
                loop.call_soon(int)
            await asyncio.sleep(0)
            knot = Knot(loop)
            loop.add_reader(ours, knot.ready)
            return weakref.ref(knot)

        loop = support.new_loop()
        return loop.run_until_complete(main(loop))

    with ours, theirs:
        knot = tie()
        gc.collect()
        gc.collect()
        assert knot() is None


def test_a_loop_takes_attributes_and_subclasses_override_its_methods(loop: Loop) -> None:
    calls = []

    class Overriding(type(loop)):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

        def time(self):
            return 7.0

    other = Overriding()
    try:
        other.name = "mine"
        assert vars(other)["name"] == "mine"
        callback = other.stop
        other.call_soon(callback)
        timer = other.call_later(1, print)
        other.run_forever()
        assert callback in calls
        assert timer.when() == 8.0
    finally:
        other.close()


def test_a_server_whose_socket_was_closed_lets_go_of_its_factory(loop: Loop) -> None:
    def factory() -> asyncio.Protocol:
        return asyncio.Protocol()

    sock = socket.create_server(("127.0.0.1", 0))
    server = loop.run_until_complete(loop.create_server(factory, sock=sock))
    seen = weakref.ref(factory)
    del factory
    sock.close()
    # asyncio raises it here, and lets go of the factory only when the loop is closed.
    with contextlib.suppress(ValueError):
        server.close()
    del server
    turns(loop, 2)
    gc.collect()
    assert seen() is None


@pytest.mark.skipif(not support.OURS, reason="asyncio loses what was read ahead before CPython 3.14.4 (gh-142352)")
def test_start_tls_begins_with_what_the_reader_has_read_of_the_handshake(loop: Loop) -> None:
    """spec/tls has it, too, for the versions of CPython that do so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        await writer.start_tls(certificates.server())
        writer.write(line + await reader.readline())
        writer.close()

    def talk(addr: Any) -> bytes:
        with socket.create_connection(addr, peers.TIMEOUT) as sock:
            wire = peer.Wire(sock, certificates.client())
            sock.sendall(b"PROXY\n" + wire.hello())
            wire.handshake()
            wire.send(b"ping\n")
            return wire.recv()

    async def main() -> bytes:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            return await asyncio.to_thread(talk, server.sockets[0].getsockname())

    assert loop.run_until_complete(asyncio.wait_for(main(), support.TIMEOUT)) == b"PROXY\nping\n"


PUBLIC = [
    name
    for name in dir(asyncio.SelectorEventLoop)
    if not name.startswith("_") and callable(getattr(asyncio.SelectorEventLoop, name))
]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_method_shows_the_parameters_that_asyncio_shows(loop: Loop, name: str) -> None:
    """Decorators and mocks ask for them (`inspect.signature`, `unittest.mock.create_autospec`)."""

    def shown(method: Any) -> list[tuple[str, Any, Any]]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()]

    stock = asyncio.SelectorEventLoop()
    stock.close()
    assert shown(getattr(loop, name)) == shown(getattr(stock, name))


def test_a_future_is_of_the_class_that_asyncio_has_now(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    class Future(asyncio.Future[Any]):
        pass

    assert type(loop.create_future()) is asyncio.Future
    monkeypatch.setattr("asyncio.futures.Future", Future)
    assert type(loop.create_future()) is Future
    monkeypatch.delattr("asyncio.futures.Future")
    with pytest.raises(AttributeError):
        loop.create_future()
