"""Echo over TCP: raw sockets first, then transports, from one byte to 64 MiB, and thousands of connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import threading
import time

import pytest

from .._kit import clause, peers, timing
from .._kit.contracts.recording import BufferedRecorder, Recorder, pattern
from .._kit.contracts.stream import aside, turns

MIB = 1024 * 1024


@clause("tcp.raw.accept-waits")
def test_raw_tcp_server(loop, run):
    """A raw server on an idle listener: sock_accept, sock_recv and sock_sendall each wait before the peer acts."""
    log = []

    def talk(addr):
        time.sleep(0.05)  # clause-delay: the listener is idle when sock_accept begins
        log.append("connect")
        with socket.create_connection(addr, timeout=peers.TIMEOUT) as sock:
            time.sleep(0.05)  # clause-delay: the connection is idle when sock_recv begins
            log.append("send")
            sock.sendall(b"ping")
            got = peers.recv_exactly(sock, 4)
            time.sleep(0.05)  # clause-delay: sock_recv waits again, for the end of the stream
            log.append("close")
        return got

    async def serve(listener):
        conn, addr = await loop.sock_accept(listener)
        log.append("accepted")
        with conn:
            conn.setblocking(False)
            while data := await loop.sock_recv(conn, 1024):
                log.append("received")
                await loop.sock_sendall(conn, data)
        log.append("ended")
        return addr

    with peers.listener() as listener, peers.thread(talk, listener.getsockname()) as peer:
        addr = run(serve(listener))
        assert peer.result() == b"ping"
    assert addr[0] == "127.0.0.1"
    assert log == ["connect", "accepted", "send", "received", "close", "ended"]


@clause("tcp.raw.accept-waits")
def test_sock_accept_on_an_idle_listener_lets_the_loop_run(loop, run):
    async def main(listener):
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await turns(50)
        idle = not accepting.done()
        client = socket.create_connection(listener.getsockname(), timeout=peers.TIMEOUT)
        conn, addr = await accepting
        same = addr == client.getsockname()
        conn.close()
        client.close()
        return idle, same

    with peers.listener() as listener:
        assert run(main(listener)) == (True, True)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.buffer = bytearray(65536)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.transport.write(bytes(self.buffer[:nbytes]))


@clause("tcp.echo.whole")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("protocol", [Echo, BufferedEcho])
@pytest.mark.parametrize("size", [1, 2, 1023, 65536, 65537, MIB, 16 * MIB, 64 * MIB])
def test_a_server_echoes_every_byte_in_order(loop, run, protocol, size):
    sent = pattern(size)

    def talk(addr):
        # Both directions at once, as the echo does.
        with socket.create_connection(addr, timeout=peers.TIMEOUT) as sock, peers.thread(sock.sendall, sent):
            return peers.recv_exactly(sock, size)

    async def main():
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        got = await aside(talk, server.sockets[0].getsockname())
        server.close()
        return got

    # 64 MiB on a busy machine may take longer than run() gives.
    assert loop.run_until_complete(main()) == sent


@clause("tcp.echo.whole")
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("size", [1, 65536, 8 * MIB])
def test_a_client_gets_its_own_bytes_back_from_an_echoing_peer(loop, run, kind, size):
    def echo(conn):
        while data := conn.recv(65536):
            conn.sendall(data)

    async def main(addr):
        protocol = kind(loop)
        transport, _ = await loop.create_connection(lambda: protocol, *addr)
        transport.write(pattern(size))
        await protocol.received(size)
        transport.close()
        await protocol.lost
        return bytes(protocol.data)

    with peers.serve(echo) as addr:
        assert run(main(addr)) == pattern(size)


@clause("tcp.echo.both-ends-in-one-loop")
@pytest.mark.parametrize("size", [1, 4 * MIB])
def test_client_and_server_of_one_loop_talk_to_each_other(loop, run, size):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname())
        transport.write(pattern(size))
        await protocol.received(size)
        transport.close()
        await protocol.lost
        server.close()
        await turns(20)  # the server's end sees the EOF
        return bytes(protocol.data)

    assert run(main()) == pattern(size)


@clause("tcp.echo.both-ends-in-step")
@pytest.mark.parametrize("turns_before", [0, 1, 7, 20])
def test_what_one_end_writes_the_other_end_has_two_turns_later(loop, run, turns_before):
    async def main():
        ours, theirs = Recorder(loop), Recorder(loop)
        server = await loop.create_server(lambda: theirs, "127.0.0.1", 0)
        await loop.create_connection(lambda: ours, *server.sockets[0].getsockname())
        await timing.turns_until(lambda: theirs.calls)
        took = []
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            await turns(turns_before)
            sender.transport.write(b"data")
            took.append(await timing.turns_until(lambda receiver=receiver: receiver.data))
        ours.transport.close()
        took.append(await timing.turns_until(lambda: "eof_received" in theirs.calls) - 1)
        await theirs.lost
        server.close()
        return took

    # One more for the end: a socket is closed in the iteration behind close().
    assert max(run(main())) <= 2


@clause("tcp.connect.server-knows")
def test_the_server_of_the_loop_has_been_told_of_a_connection_once_it_is_made(loop, run):
    async def main():
        theirs = []

        def made():
            theirs.append(Recorder(loop))
            return theirs[-1]

        server = await loop.create_server(made, "127.0.0.1", 0)
        told = []
        for _ in range(10):
            ours = Recorder(loop)
            await loop.create_connection(lambda ours=ours: ours, *server.sockets[0].getsockname())
            told.append(len(theirs) == len(told) + 1 and theirs[-1].calls == ["connection_made"])
            ours.transport.close()
            await theirs[-1].lost
        server.close()
        return told

    assert run(main()) == [True] * 10


@clause("tcp.echo.pressure")
@pytest.mark.timeout(60)
def test_an_echo_with_flow_control_bounds_its_buffer(loop, run):
    """Reading is paused while writing is: a peer that sends without reading is made to wait."""
    high = 256 * 1024
    total = 24 * MIB
    sizes = []

    class Polite(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=high)

        def data_received(self, data):
            super().data_received(data)
            sizes.append(self.transport.get_write_buffer_size())

        def pause_writing(self):
            self.transport.pause_reading()

        def resume_writing(self):
            self.transport.resume_reading()

    def talk(addr):
        with socket.create_connection(addr, timeout=peers.TIMEOUT) as sock:
            stalled = threading.Event()

            def send():
                sock.settimeout(0.5)  # reaching it means that the server has stopped reading
                view = memoryview(pattern(total))
                while view:
                    try:
                        view = view[sock.send(view) :]
                    except TimeoutError:
                        stalled.set()
                        sock.settimeout(peers.TIMEOUT)
                stalled.set()

            with peers.thread(send):
                assert stalled.wait(peers.TIMEOUT)
                sock.settimeout(peers.TIMEOUT)
                return peers.recv_exactly(sock, total)

    async def main():
        server = await loop.create_server(Polite, "127.0.0.1", 0)
        got = await aside(talk, server.sockets[0].getsockname())
        server.close()
        return got

    got = loop.run_until_complete(main())
    assert got == pattern(total)
    assert max(sizes) > high  # it was paused at least once
    assert max(sizes) < high + 4 * MIB  # by no more than the one piece that crossed the limit


@clause("tcp.many.connections")
@pytest.mark.timeout(120)
def test_thousands_of_connections_are_served_and_leave_no_descriptor(loop, run):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(2000, (soft - 200) // 2)
    before = len(os.listdir("/dev/fd"))

    def talk(addr):
        """Every connection is opened before the first one says anything, and answered before the first is closed."""
        socks = []
        for _ in range(count):
            sock = socket.create_connection(addr, timeout=peers.TIMEOUT)
            socks.append(sock)
        for number, sock in enumerate(socks):
            sock.sendall(b"%08d" % number)
        answers = [peers.recv_exactly(sock, 8) for sock in socks]
        for sock in socks:
            sock.close()
        return answers

    open_now = set()
    lost = []

    class Counted(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            open_now.add(self)

        def connection_lost(self, exc):
            open_now.discard(self)
            lost.append(exc)
            if len(lost) == count:
                all_lost.set_result(None)

    async def main():
        server = await loop.create_server(Counted, "127.0.0.1", 0, backlog=1024)
        answers = await aside(talk, server.sockets[0].getsockname())
        await all_lost
        server.close()
        await server.wait_closed()
        return answers

    all_lost = loop.create_future()
    answers = loop.run_until_complete(main())
    assert answers == [b"%08d" % number for number in range(count)]
    assert not open_now
    assert lost == [None] * count
    run(turns())
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= before + 8  # what the loop itself opened for its run


@clause("tcp.fd.reused-gets-no-old-data")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_connection_on_a_reused_descriptor_gets_nothing_of_the_old_one(loop, run, end):
    """Old ends have data queued, unread data waiting and events under way when their descriptor number is reused."""
    rounds = 60

    async def main():
        reused = 0
        for number in range(rounds):
            ours, theirs = peers.pair()
            fd = ours.fileno()
            old = Recorder(loop)
            transport, _ = await loop.create_connection(lambda old=old: old, sock=ours)
            del ours
            transport.write(b"old %d;" % number)
            if end == "abort":
                transport.write(pattern(8 * MIB))
            theirs.sendall(b"unread" * 100)
            getattr(transport, end)()
            transport.write(b"late")
            await old.lost
            await turns(1)
            ours, new_peer = peers.pair()
            reused += ours.fileno() == fd
            new = Recorder(loop)
            new_transport, _ = await loop.create_connection(lambda new=new: new, sock=ours)
            with contextlib.suppress(RuntimeError):  # whether a dead transport may refuse is another clause's
                transport.write(b"from the dead")
                transport.abort()
            theirs.close()
            new_peer.sendall(b"hello new")
            await new.received(9)
            new_transport.write(b"new %d" % number)
            new_transport.close()
            got = await aside(peers.recv_all, new_peer)
            new_peer.close()
            assert bytes(new.data) == b"hello new"
            assert got == b"new %d" % number
            assert old.calls[-1] == "connection_lost"
            assert old.calls.count("connection_lost") == 1
        return reused

    # The kernel hands out the lowest free number, so a loop that closes what it should reuses it nearly every time.
    assert loop.run_until_complete(main()) > rounds // 2
