"""What closing a loop does to what is open on it, and what a closed loop still answers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import signal
import socket
import threading
import warnings
import weakref

import pytest

from .._kit import clause, peers
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES


class Recorder(asyncio.Protocol):
    """Notes every call."""

    def __init__(self):
        self.calls = []

    def connection_made(self, transport):
        self.calls.append("connection_made")

    def data_received(self, data):
        self.calls.append("data_received")

    def eof_received(self):
        self.calls.append("eof_received")

    def pause_writing(self):
        self.calls.append("pause_writing")

    def resume_writing(self):
        self.calls.append("resume_writing")

    def connection_lost(self, exc):
        self.calls.append("connection_lost")


def descriptors():
    return {name: os.readlink(f"/dev/fd/{name}") for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")}


@pytest.fixture
def _quiet():
    """What is left open on a closed loop warns when it is collected; that is another clause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@clause("lifecycle.close.executor-not-awaited")
def test_close_does_not_wait_for_the_executor(loop, tick):
    started, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        started.set()
        go.wait(peers.TIMEOUT)
        ended.set()

    loop.run_in_executor(None, work)
    assert started.wait(peers.TIMEOUT)
    tick()
    loop.close()
    assert not ended.is_set()
    go.set()
    assert ended.wait(peers.TIMEOUT)


@clause("lifecycle.close.executor-result-dropped")
@pytest.mark.parametrize("raises", [False, True])
def test_what_an_executor_finishes_after_close_is_dropped_quietly(loop, errors, caplog, raises):
    started, go = threading.Event(), threading.Event()
    threads = []

    def work():
        threads.append(threading.current_thread())
        started.set()
        go.wait(peers.TIMEOUT)
        if raises:
            raise LookupError

    future = loop.run_in_executor(None, work)
    assert started.wait(peers.TIMEOUT)
    loop.close()
    go.set()
    threads[0].join(peers.TIMEOUT)
    assert not threads[0].is_alive(), "the threads of the executor end"
    assert not future.done() and errors == [] and caplog.records == []


@clause("lifecycle.close.protocols-not-called")
@pytest.mark.usefixtures("_quiet")
def test_the_protocols_of_open_connections_are_not_called_any_more(loop, run):
    ours, theirs = peers.pair()
    with theirs:
        _, protocol = run(loop.create_connection(Recorder, sock=ours))
        theirs.sendall(b"data that is there when the loop is closed")
        loop.close()
        gc.collect()
        assert protocol.calls == ["connection_made"]


@contextlib.contextmanager
def socket_transport(loop, run):
    """A transport over a socket, and the file of its other end."""
    ours, theirs = peers.pair()
    with theirs, theirs.makefile("rwb", buffering=0) as file:
        yield run(loop.create_connection(Recorder, sock=ours))[0], file


@contextlib.contextmanager
def reading_pipe(loop, run):
    """The same of a pipe's reading end."""
    reading, writing = os.pipe()
    with io.FileIO(writing, "wb") as file:
        yield run(loop.connect_read_pipe(Recorder, io.FileIO(reading, "rb")))[0], file


@contextlib.contextmanager
def writing_pipe(loop, run):
    """The same of a pipe's writing end."""
    reading, writing = os.pipe()
    with io.FileIO(reading, "rb") as file:
        yield run(loop.connect_write_pipe(Recorder, io.FileIO(writing, "wb")))[0], file


@clause("lifecycle.close.reading-not-resumed")
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("paused", ["before", "after"])
@pytest.mark.parametrize("make", [socket_transport, reading_pipe])
def test_on_a_closed_loop_reading_can_be_paused_but_not_resumed(loop, run, make, paused):
    with make(loop, run) as (transport, _):
        if paused == "before":
            transport.pause_reading()
        loop.close()
        if paused == "after":
            transport.resume_reading()  # it reads: nothing is to be done
        transport.pause_reading()
        assert not transport.is_reading()
        with pytest.raises(RuntimeError, match="closed"):
            transport.resume_reading()


@clause("lifecycle.close.reading-not-resumed")
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("make", [socket_transport, reading_pipe])
def test_on_a_closed_loop_a_transport_that_was_closed_takes_both(loop, run, make):
    with make(loop, run) as (transport, _):
        transport.pause_reading()
        transport.close()
        loop.close()
        transport.resume_reading()
        transport.pause_reading()
        assert not transport.is_reading()


@clause("lifecycle.close.writing-not-awaited")
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("make", [socket_transport, writing_pipe])
def test_on_a_closed_loop_what_the_kernel_takes_is_written_and_more_refused(loop, run, make):
    with make(loop, run) as (transport, file):
        loop.close()
        transport.write(b"small")
        assert file.read(100) == b"small"
        with pytest.raises(RuntimeError, match="closed"):
            transport.write(bytes(MORE_THAN_THE_KERNEL_TAKES))


@clause("lifecycle.close.everything-open")
@pytest.mark.usefixtures("_quiet")
def test_a_loop_with_everything_open_is_closed_and_gives_all_of_it_back(loop_factory, caplog):
    loop_factory().close()  # whatever the first loop of a process opens for good
    before = descriptors()
    watched = []

    def open_everything():
        async def generate():
            yield 1
            yield 2

        async def main():
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            transport, _ = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            transport.write(b"x" * 1_000_000)
            generator = generate()
            await anext(generator)
            loop.add_reader(ours.fileno(), print)
            loop.add_writer(theirs.fileno(), print)
            receiving = loop.create_task(loop.sock_recv(idle, 10))
            waiting = loop.create_task(asyncio.sleep(3600))
            future = loop.create_future()
            future.add_done_callback(print)
            loop.call_later(3600, print, loop)
            await loop.run_in_executor(None, len, ())
            await asyncio.sleep(0)
            loop.call_soon(print, loop)
            return server, transport, generator, receiving, waiting, future

        loop = loop_factory()
        loop.set_exception_handler(lambda _loop, context: reported.append(context["message"]))
        kept = loop.run_until_complete(main())
        watched.extend(weakref.ref(thing) for thing in (loop, *kept))
        loop.close()
        assert loop.is_closed() and not loop.is_running()

    reported = []
    ours, theirs = peers.unix_pair()
    idle, other = peers.unix_pair()
    with ours, theirs, idle, other:
        open_everything()
        for _ in range(3):
            gc.collect()
        assert [ref() for ref in watched] == [None] * len(watched)
    assert descriptors() == before
    assert reported == ["Task was destroyed but it is pending!"] * 2


@clause("lifecycle.close.asyncgen-dropped-later")
def test_an_asynchronous_generator_dropped_after_close_is_dropped_quietly(loop, run, errors, caplog):
    async def generate():
        try:
            yield 1
        finally:
            seen.append("finally")

    async def main():
        generator = generate()
        await anext(generator)
        return generator

    seen = []
    generator = run(main())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del generator
        gc.collect()
    assert errors == [] and caplog.records == []
    assert seen == [], "nothing runs it any more"


@clause("lifecycle.close.answers")
def test_a_closed_loop_still_answers(loop, errors):
    def handler(_loop, context):
        seen.append(context)

    def factory(_loop, coroutine, **_):
        raise AssertionError

    seen = []
    before = loop.time()
    loop.close()
    assert loop.is_closed() and not loop.is_running()
    assert loop.time() >= before
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.call_exception_handler({"message": "late"})
    assert seen == [{"message": "late"}]
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert loop.slow_callback_duration == 0.1
    assert repr(loop)
    loop.stop()


@clause("lifecycle.close.futures-usable")
def test_a_future_of_a_closed_loop_takes_a_result_but_calls_nobody(loop):
    first, second = loop.create_future(), loop.create_future()
    second.add_done_callback(print)
    loop.close()
    first.set_result("kept")
    assert first.result() == "kept"
    with pytest.raises(RuntimeError):
        second.set_result("its callbacks cannot be scheduled")


def connect(loop, address):
    return loop.create_connection(Recorder, *address)


def connect_socket(loop, address):
    sock = socket.create_connection(address)
    sock.setblocking(False)
    return loop.create_connection(Recorder, sock=sock)


def serve(loop, address):
    return loop.create_server(Recorder, "127.0.0.1", 0)


def run_in_executor(loop, address):
    async def main():
        return await loop.run_in_executor(None, len, ())

    return main()


def resolve(loop, address):
    return loop.getaddrinfo("localhost", 80)


def resolve_back(loop, address):
    return loop.getnameinfo(("127.0.0.1", 80))


def receive_datagrams(loop, address):
    return loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))


@clause("lifecycle.close.methods-refuse")
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    "method", [connect, connect_socket, serve, run_in_executor, resolve, resolve_back, receive_datagrams]
)
def test_coroutines_of_a_closed_loop_raise_and_leave_nothing(new_loop, method):
    closed, runs = new_loop(), new_loop()
    with peers.listener() as listening:
        address = listening.getsockname()
        closed.close()
        runs.run_until_complete(asyncio.sleep(0))  # for what a first run opens
        before = descriptors()
        # Some of them need a loop to run: another one.
        with pytest.raises(RuntimeError):
            runs.run_until_complete(method(closed, address))
        gc.collect()
        after = descriptors()
        assert set(after) <= set(before)


@clause("lifecycle.close.signal-handlers-refused")
def test_a_closed_loop_takes_no_signal_handler(loop):
    before = signal.getsignal(signal.SIGUSR1)
    loop.close()
    with pytest.raises(RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, print)
    assert signal.getsignal(signal.SIGUSR1) is before


@clause("lifecycle.close.warning-names-the-loop")
def test_the_warning_of_an_unclosed_loop_has_it_as_its_source(loop_factory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        shown = repr(loop)
        del loop
        gc.collect()
    found = [warning for warning in caught if warning.category is ResourceWarning and "loop" in str(warning.message)]
    assert any(shown in str(warning.message) for warning in found), [str(warning.message) for warning in caught]


@clause("lifecycle.close.transport-ended-later")
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("how", ["close", "abort", "let go"])
def test_a_transport_that_is_ended_on_a_closed_loop_ends_its_connection(loop, run, saw, how):
    with socket_transport(loop, run) as (transport, file):
        loop.close()
        if how != "let go":
            raised = False
            try:
                getattr(transport, how)()
            except RuntimeError:  # its protocol can be told nothing any more
                raised = True
            saw("lifecycle.close.transport-ended-later", "RuntimeError" if raised else "nothing is raised")
        del transport
        gc.collect()
        assert file.read(100) == b""
