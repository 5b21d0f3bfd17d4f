"""Server: its whole life, with clients, without, and short of descriptors."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import resource
import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, turns
from .serving import LOCALHOST, Echo, connect, exchange


@clause("tcp.server.start-serving-false", "tcp.server.is-serving")
def test_a_server_made_idle_serves_once_it_is_started(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0, start_serving=False)
        addr = server.sockets[0].getsockname()
        answers = [server.is_serving()]
        with pytest.raises(ConnectionRefusedError):  # bound, and not listening yet
            await aside(exchange, addr)
        await server.start_serving()
        await server.start_serving()  # idempotent
        answers.append(server.is_serving())
        got = await aside(exchange, addr)
        server.close()
        answers.append(server.is_serving())
        return answers, got

    assert run(main()) == ([False, True, False], b"ping")


@clause("tcp.server.get-loop")
def test_get_loop_is_the_loop_of_the_server(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        before = server.get_loop() is loop
        server.close()
        return before

    assert run(main())


@clause("tcp.server.sockets")
def test_sockets_is_a_copy_of_the_real_listening_sockets(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        sock = server.sockets[0]
        facts = (
            len(server.sockets),
            bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)),
            sock.fileno() >= 0 and bool(os.fstat(sock.fileno())),
            sock.family == socket.AF_INET,
        )
        server.close()
        return facts, len(server.sockets)

    assert run(main()) == ((1, True, True, True), 0)


@clause("tcp.server.abstract-server")
def test_a_server_is_an_abstract_server(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        server.close()
        return isinstance(server, asyncio.AbstractServer)

    assert run(main())


@clause("tcp.server.close-refuses", "tcp.server.close-twice")
def test_close_closes_the_listeners_and_may_be_called_again(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        fd = server.sockets[0].fileno()
        server.close()
        server.close()
        await turns()  # stock asyncio closes at once; loops that need an iteration to close a descriptor have it here
        with pytest.raises(OSError):
            os.fstat(fd)
        with pytest.raises(ConnectionRefusedError):
            connect(addr)
        server.close()

    run(main())


@clause("tcp.server.clients-live-on")
def test_clients_live_on_when_their_server_is_closed(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        client = connect(server.sockets[0].getsockname())
        client.sendall(b"before")
        before = await aside(peers.recv_exactly, client, 6)
        server.close()
        await turns(20)
        client.sendall(b"after")
        after = await aside(peers.recv_exactly, client, 5)
        client.close()
        await turns(20)
        return before, after

    assert run(main()) == (b"before", b"after")


@clause("tcp.server.wait-closed")
def test_wait_closed_waits_for_close_and_for_every_client(loop, run):
    async def main():
        accepted = Recorder(loop)
        server = await loop.create_server(lambda: accepted, LOCALHOST, 0)
        waiting = loop.create_task(server.wait_closed())
        await turns(20)
        answers = [waiting.done()]
        client = connect(server.sockets[0].getsockname())
        await accepted.called("connection_made")
        server.close()
        await turns(20)
        answers.append(waiting.done())
        client.close()
        await waiting
        answers.append(accepted.lost.done())
        await server.wait_closed()  # and again, at once
        return answers

    assert run(main()) == [False, False, True]


@clause("tcp.server.wait-closed-idle")
def test_wait_closed_of_a_closed_server_without_clients_returns(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        server.close()
        await server.wait_closed()
        await server.wait_closed()

    run(main())


@clause("tcp.server.async-with")
def test_async_with_closes_the_server(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        async with server as same:
            addr = server.sockets[0].getsockname()
            got = await aside(exchange, addr)
        with pytest.raises(ConnectionRefusedError):
            connect(addr)
        return same is server, got, server.is_serving()

    assert run(main()) == (True, b"ping", False)


@clause("tcp.server.serve-forever")
def test_serve_forever_serves_until_it_is_cancelled_and_then_closes(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0, start_serving=False)
        addr = server.sockets[0].getsockname()
        serving = loop.create_task(server.serve_forever())
        await turns()
        got = await aside(exchange, addr)
        open_before = not serving.done() and server.is_serving()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(ConnectionRefusedError):
            connect(addr)
        return got, open_before, server.is_serving()

    assert run(main()) == (b"ping", True, False)


@clause("tcp.server.serve-forever-cancelled")
def test_cancelling_serve_forever_closes_the_connections(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        serving = loop.create_task(server.serve_forever())
        with await aside(connect, server.sockets[0].getsockname()) as client:
            await aside(client.sendall, b"x")
            assert await aside(client.recv, 1) == b"x"
            serving.cancel()
            end = await aside(client.recv, 1)
            with pytest.raises(asyncio.CancelledError):
                await serving
        return end

    assert run(main()) == b""


@clause("tcp.server.serve-forever-close")
def test_close_ends_serve_forever(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        serving = loop.create_task(server.serve_forever())
        await turns()
        server.close()
        await asyncio.wait({serving})
        return serving.cancelled()

    assert run(main())


@clause("tcp.server.serve-forever-once")
def test_serve_forever_twice_or_on_a_closed_server_raises_runtime_error(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, 0)
        serving = loop.create_task(server.serve_forever())
        await turns()
        with pytest.raises(RuntimeError):
            await server.serve_forever()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(RuntimeError):
            await server.serve_forever()

    run(main())


@clause("tcp.server.close-clients")
def test_close_clients_closes_every_connection_after_its_flush(loop, run):
    blob = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main():
        made = []

        def factory():
            made.append(Recorder(loop, connection_made=lambda transport: transport.write(blob)))
            return made[-1]

        server = await loop.create_server(factory, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        clients = [connect(addr) for _ in range(3)]
        while len(made) < 3:
            await turns()
        for protocol in made:
            await protocol.called("connection_made")
        server.close()
        server.close_clients()
        closing = [protocol.transport.is_closing() for protocol in made]
        got = [await aside(drain, client) for client in clients]
        reasons = [await protocol.lost for protocol in made]
        await server.wait_closed()
        return closing, got, reasons

    closing, got, reasons = run(main())
    assert closing == [True] * 3
    assert got == [blob] * 3
    assert reasons == [None] * 3


@clause("tcp.server.abort-clients")
def test_abort_clients_ends_every_connection_at_once(loop, run):
    blob = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main():
        accepted = Recorder(loop, connection_made=lambda transport: transport.write(blob))
        server = await loop.create_server(lambda: accepted, LOCALHOST, 0)
        client = connect(server.sockets[0].getsockname())
        await accepted.called("connection_made")
        server.close()
        server.abort_clients()
        reason = await accepted.lost
        await server.wait_closed()
        got = await aside(drain, client)
        return reason, len(got) < len(blob)

    assert run(main()) == (None, True)


@clause("tcp.server.factory-raises")
def test_a_server_lives_on_when_its_protocol_factory_raises(loop, run, errors, saw):
    attempts = []

    def factory():
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("not this time")
        return Echo()

    async def main():
        server = await loop.create_server(factory, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        first = await aside(lambda: drain(connect(addr)))
        second = await aside(exchange, addr)
        server.close()
        return first, second

    assert run(main()) == (b"", b"ping")
    # Stock asyncio reports it in debug mode only; another loop may always.
    reported = errors.take()
    assert all(isinstance(context["exception"], ValueError) for context in reported)
    silent = "it is not reported without debug mode"
    saw("tcp.server.factory-raises", "it is reported without debug mode" if reported else silent)


@clause("tcp.server.factory-per-connection")
def test_the_factory_is_called_once_for_each_connection(loop, run):
    made = []

    def factory():
        made.append(Echo())
        return made[-1]

    async def main():
        server = await loop.create_server(factory, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        before = len(made)
        for _ in range(3):
            await aside(exchange, addr)
        server.close()
        return before

    assert run(main()) == 0
    assert len({id(protocol) for protocol in made}) == len(made) == 3


class Seeing(Echo):
    """Calls `see` in each callback."""

    def __init__(self, see):
        self.see = see

    def connection_made(self, transport):
        self.see()
        super().connection_made(transport)

    def data_received(self, data):
        self.see()
        super().data_received(data)


@clause("tcp.server.context")
def test_accepted_connections_run_in_the_context_of_create_server(loop, run):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def factory():
        seen.append(variable.get())
        return Seeing(lambda: seen.append(variable.get()))

    async def main():
        variable.set("server")
        server = await loop.create_server(factory, LOCALHOST, 0)
        variable.set("later")
        await aside(exchange, server.sockets[0].getsockname())
        server.close()

    run(main())
    assert seen == ["server"] * 3


@clause("tcp.server.context-per-connection")
def test_what_the_factory_sets_is_seen_by_the_callbacks_of_its_connection_only(loop, run):
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    def factory():
        variable.set(variable.get() + 1)
        return Seeing(lambda: seen.append(variable.get()))

    async def main():
        server = await loop.create_server(factory, LOCALHOST, 0)
        for _ in range(2):
            await aside(exchange, server.sockets[0].getsockname())
        server.close()

    run(main())
    assert seen == [1] * 4


@clause("tcp.server.context-started-later")
def test_a_server_started_later_serves_in_the_context_that_made_it(loop, run):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def factory():
        seen.append(variable.get())
        return Echo()

    async def main():
        variable.set("made")
        server = await loop.create_server(factory, LOCALHOST, 0, start_serving=False)
        variable.set("started")
        await server.start_serving()
        await aside(exchange, server.sockets[0].getsockname())
        server.close()

    run(main())
    assert seen == ["made"]


@clause("tcp.server.emfile")
@pytest.mark.timeout(40)
def test_running_out_of_descriptors_is_reported_and_the_server_goes_on_later(loop, run, errors):
    """The limit is lowered in this test's own process; clients wait in the backlog until it is raised again."""

    async def main():
        made = []
        lost = loop.create_future()

        class Served(Echo):
            def connection_lost(self, exc):
                lost.done() or lost.set_result(None)

        def factory():
            made.append(Served())
            return made[-1]

        server = await loop.create_server(factory, LOCALHOST, 0)
        addr = server.sockets[0].getsockname()
        await aside(exchange, addr)  # whatever the loop opens for its first connection is open now
        await lost  # and what the connection had is free
        await turns(20)
        clients = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        top = max(int(name) for name in os.listdir("/dev/fd"))
        fillers = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (top + 1, hard))
            while True:
                try:
                    fillers.append(os.dup(0))
                except OSError:
                    break
            for sock in clients:
                sock.settimeout(peers.TIMEOUT)
                sock.connect(addr)
                sock.sendall(b"patience")
            for _ in range(1000):
                if errors:
                    break
                await turns(1)
            reported = errors.take()
            served_early = len(made) - 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
        answers = []
        for sock in clients:
            answers.append(await aside(peers.recv_exactly, sock, 8))
            sock.close()
        server.close()
        await turns(20)
        return reported, served_early, answers

    reported, served_early, answers = run(main())
    errors.take()  # it may be told more than once
    assert reported
    assert all(context["exception"].errno == errno.EMFILE for context in reported)
    assert all(context["message"] for context in reported)
    assert served_early == 0
    assert answers == [b"patience"] * 3


@clause("tcp.server.accepts-many-at-once")
def test_connections_that_wait_in_the_backlog_are_all_accepted(loop, run):
    made = []

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    async def main():
        server = await loop.create_server(factory, LOCALHOST, 0, backlog=100)
        addr = server.sockets[0].getsockname()
        clients = [connect(addr) for _ in range(100)]  # no await: they wait in the backlog
        before = len(made)
        while len(made) < 100:
            await turns(1)
        for protocol in made:
            await protocol.called("connection_made")
        for client in clients:
            client.close()
        for protocol in made:
            await protocol.lost
        server.close()
        return before

    assert run(main()) == 0
    assert len(made) == 100


@clause("tcp.server.closed-while-connecting")
def test_a_server_closed_with_connections_in_its_backlog_resets_or_serves_them(loop, run, saw):
    """Which of the two is open: the kernel resets what was not accepted. What is accepted is served to its end."""
    made = []

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    async def main():
        server = await loop.create_server(factory, LOCALHOST, 0)
        clients = [connect(server.sockets[0].getsockname()) for _ in range(10)]
        await turns(1)
        server.close()
        await turns(20)
        for client in clients:
            client.close()
        for protocol in made:
            await protocol.lost
        return [protocol.calls[0] for protocol in made]

    calls = run(main())
    assert set(calls) <= {"connection_made"}
    if calls:
        saw("tcp.server.closed-while-connecting", "it was accepted and gets connection_made() and connection_lost()")
    if len(calls) < 10:
        saw("tcp.server.closed-while-connecting", "the kernel resets it")
