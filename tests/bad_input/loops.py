"""Wrong types, closed loops, runs and callbacks that raise."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import warnings

from spec._kit import peers
from tests.bad_input import attempt, case, outcome, run

# ---- wrong types


@case
def callbacks_that_cannot_be_called(loop, step):
    loop.call_soon(None)
    loop.call_soon(5, 1)
    loop.call_later(0, "text")
    loop.call_soon_threadsafe(object())
    loop.call_later(0.01, loop.stop)
    step("scheduled")
    loop.run_forever()


@case
def callbacks_that_cannot_be_called_in_debug_mode(loop, step):
    loop.set_debug(True)
    for schedule in (loop.call_soon, loop.call_soon_threadsafe, lambda callback: loop.call_later(1, callback)):
        attempt(step, schedule, None)


@case
def coroutines_as_callbacks_in_debug_mode(loop, step):
    async def main() -> None: ...

    loop.set_debug(True)
    coro = main()
    attempt(step, loop.call_soon, main)
    attempt(step, loop.call_soon, coro)
    attempt(step, loop.call_later, 1, main)
    attempt(step, loop.run_in_executor, None, main)
    coro.close()


@case(says_the_same=False)
def missing_and_unknown_arguments(loop, step):
    attempt(step, loop.call_soon)
    attempt(step, loop.call_soon_threadsafe)
    attempt(step, loop.call_later)
    attempt(step, loop.call_later, 1)
    attempt(step, loop.call_at, 1)
    attempt(step, loop.call_soon, print, nonsense=1)
    attempt(step, loop.call_later, 1, print, nonsense=1)
    attempt(step, loop.add_reader, 0)
    attempt(step, loop.remove_reader)
    attempt(step, loop.time, 1)


@case(says_the_same=False)
def delays_that_are_no_numbers(loop, step):
    attempt(step, loop.call_later, None, print)
    attempt(step, loop.call_later, "1", print)
    attempt(step, loop.call_at, None, print)
    attempt(step, loop.call_later, [], print)


@case(says_the_same=False)
def contexts_that_are_none(loop, step):
    loop.set_exception_handler(lambda _loop, context: step(type(context["exception"]).__name__))
    attempt(step, loop.call_soon, print, context=None)
    loop.call_soon(loop.stop)
    loop.run_forever()


@case
def what_is_no_awaitable(loop, step):
    attempt(step, loop.run_until_complete, None)
    attempt(step, loop.run_until_complete, 5)
    attempt(step, loop.run_until_complete, print)


@case(says_the_same=False)
def what_is_no_coroutine_as_a_task(loop, step):
    attempt(step, loop.create_task, None)
    attempt(step, loop.create_task, 5)


@case
def exception_handlers_and_task_factories_that_cannot_be_called(loop, step):
    attempt(step, loop.set_exception_handler, 5)
    attempt(step, loop.set_task_factory, "text")
    attempt(step, loop.set_default_executor, object())


@case
def file_objects_that_are_none(loop, step):
    for method in (loop.add_reader, loop.add_writer):
        attempt(step, method, None, print)
        attempt(step, method, "text", print)
        attempt(step, method, 1.5, print)
        attempt(step, method, object(), print)
    for method in (loop.remove_reader, loop.remove_writer):
        attempt(step, method, None)
        attempt(step, method, "text")
        attempt(step, method, object())


@case
def file_descriptors_that_are_not(loop, step):
    for method in (loop.add_reader, loop.add_writer):
        attempt(step, method, -1, print)
        attempt(step, method, 1_000_000, print)
    for method in (loop.remove_reader, loop.remove_writer):
        attempt(step, method, -1)
        step(method(1_000_000))


@case(says_the_same=False)
def file_descriptors_beyond_an_int(loop, step):
    attempt(step, loop.add_reader, 1 << 31, print)
    attempt(step, loop.add_reader, 1 << 70, print)


@case
def a_closed_file(loop, step):
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    attempt(step, loop.add_reader, ours, print)
    attempt(step, loop.add_writer, ours, print)
    attempt(step, loop.remove_reader, ours)


@case
def a_regular_file_as_a_reader(loop, step):
    with tempfile.TemporaryFile() as file:
        attempt(step, loop.add_reader, file, print)
        attempt(step, loop.add_writer, file, print)
        step(loop.remove_reader(file))


@case
def callbacks_of_readers_that_cannot_be_called(loop, step):
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def handler(_loop, context):
            step(outcome(context["exception"]))
            loop.remove_reader(ours)
            loop.stop()

        loop.set_exception_handler(handler)
        theirs.send(b"x")
        attempt(step, loop.add_reader, ours, None)
        attempt(step, loop.run_forever)


@case
def a_transports_file_as_a_reader(loop, step):
    ours, theirs = peers.pair()
    with theirs:
        transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=ours))
        fd = transport.get_extra_info("socket").fileno()
        for method in (loop.add_reader, loop.add_writer):
            attempt(lambda said: step(said[0] if isinstance(said, tuple) else said), method, fd, print)
        for method in (loop.remove_reader, loop.remove_writer):
            attempt(lambda said: step(said[0] if isinstance(said, tuple) else said), method, fd)
        transport.close()


# ---- a closed loop


@case
def everything_on_a_closed_loop(loop, step):
    sock, other = socket.socketpair()
    sock.setblocking(False)
    loop.close()
    loop.close()
    step("closed twice")
    attempt(step, loop.run_forever)
    coro = asyncio.sleep(0)
    attempt(step, loop.run_until_complete, coro)
    coro.close()
    attempt(step, loop.call_soon, print)
    attempt(step, loop.call_later, 1, print)
    attempt(step, loop.call_at, 1, print)
    attempt(step, loop.call_soon_threadsafe, print)
    attempt(step, loop.add_reader, sock, print)
    attempt(step, loop.add_writer, sock, print)
    attempt(step, loop.run_in_executor, None, print)
    coro = asyncio.sleep(0)
    attempt(step, loop.create_task, coro)
    coro.close()
    attempt(step, loop.time)
    attempt(step, loop.is_running)
    attempt(step, loop.get_debug)
    attempt(step, loop.stop)
    attempt(step, loop.create_future)
    attempt(step, repr, loop)
    sock.close()
    other.close()


@case
def removing_watchers_of_a_closed_loop(loop, step):
    sock, other = socket.socketpair()
    with sock, other:
        loop.add_reader(sock, print)
        loop.close()
        attempt(step, loop.remove_reader, sock)
        attempt(step, loop.remove_writer, sock)


@case
def sock_operations_on_a_closed_loop(loop, step):
    sock, other = socket.socketpair()
    sock.setblocking(False)
    runner = asyncio.new_event_loop()

    async def each() -> None:
        for make in (
            lambda: loop.sock_recv(sock, 1),
            lambda: loop.sock_recv_into(sock, bytearray(1)),
            lambda: loop.sock_recvfrom(sock, 1),
            lambda: loop.sock_sendall(sock, b"x" * 10_000_000),
        ):
            try:
                await make()
            except Exception as error:
                step(type(error).__name__)

    loop.close()
    with sock, other:
        runner.run_until_complete(each())
    runner.close()


@case
def a_transport_used_after_its_loop_is_closed(loop, step):
    ours, theirs = peers.pair()
    with theirs, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=ours))
        loop.close()
        attempt(step, transport.is_closing)
        attempt(step, transport.get_write_buffer_size)
        attempt(step, transport.write, b"x")
        attempt(step, transport.write_eof)
        attempt(step, repr, None)
        attempt(step, transport.close)


# ---- runs


@case
def closing_a_running_loop(loop, step):
    async def main():
        attempt(step, loop.close)

    run(loop, main())


@case
def a_loop_stopped_before_its_future_is_done(loop, step):
    loop.call_soon(loop.stop)
    attempt(step, loop.run_until_complete, loop.create_future())


@case
def the_future_of_another_loop(loop, step):
    other = asyncio.new_event_loop()
    future = other.create_future()
    attempt(step, loop.run_until_complete, future)

    async def main():
        await future

    task = loop.create_task(main())
    attempt(step, loop.run_until_complete, task)
    other.close()


@case
def the_wrong_thread_in_debug_mode(loop, step):
    loop.set_debug(True)

    async def main():
        for method in (loop.call_soon, lambda callback: loop.call_later(1, callback), loop.call_soon_threadsafe):
            thread = threading.Thread(target=attempt, args=(step, method, int))
            thread.start()
            thread.join()

    run(loop, main())


@case
def a_default_executor_that_is_shut_down(loop, step):
    run(loop, loop.run_in_executor(None, int))
    run(loop, loop.shutdown_default_executor())
    attempt(step, loop.run_in_executor, None, int)


# ---- callbacks that raise


@case
def a_callback_that_raises(loop, step):
    def bad():
        raise KeyError("bad")

    loop.call_soon(bad)
    loop.call_soon(step, "the next one runs")
    loop.call_later(0.001, bad)
    loop.call_soon_threadsafe(bad)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


@case
def a_reader_that_raises_is_called_again(loop, step):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        calls = []

        def bad():
            calls.append(1)
            if len(calls) == 3:
                loop.call_soon(loop.remove_reader, ours)
                loop.call_soon(loop.stop)
            raise ValueError("bad")

        theirs.send(b"x")
        loop.add_reader(ours, bad)
        loop.run_forever()
        step(len(calls) >= 3)


@case
def an_exception_handler_that_raises(loop, step):
    def handler(_loop, _context):
        step("handler")
        raise RuntimeError("worse")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(step, "next")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


@case
def system_exit_in_a_callback(loop, step):
    def leave():
        raise SystemExit(3)

    loop.call_soon(leave)
    loop.call_soon(step, "later")
    try:
        loop.run_forever()
    except SystemExit as error:
        step(error.code)
    loop.call_soon(loop.stop)
    loop.run_forever()
