"""Ctrl-C does what it does on stock asyncio: idle, inside a callback, under a Runner; a handler runs at once.

Each program says `ready` when it is where the signal is to find it; all have only a timer an hour away to wake them,
so that a loop which notices the signal at its next timer does not end in time.
"""

from __future__ import annotations

import signal
import sys
import textwrap

import pytest

from tests import support
from tests.support import Program

pytestmark = pytest.mark.timeout(60)

PRELUDE = """
import asyncio, os, signal, socket, sys, threading, time
from tests import support

def ready():
    print("ready", flush=True)

def goes_on(loop):
    async def main():
        await asyncio.sleep(0.001)
        return await loop.run_in_executor(None, lambda: "goes on")
    print(loop.run_until_complete(main()), flush=True)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
"""


def interrupted(source: str, *, after: str = "ready\n", number: int = signal.SIGINT) -> Program:
    """Run a program up to `ready`, send it the signal and wait for its end."""
    program = Program(sys.executable, "-X", "faulthandler", "-c", PRELUDE + textwrap.dedent(source))
    with program:
        program.wait_for(after)
        program.status = program.end(number)  # type: ignore[attr-defined]
    return program


def expect(program: Program, output: str, status: int = 0) -> None:
    assert (program.output, program.status) == (output, status)  # type: ignore[attr-defined]


def test_an_idle_loop_raises_keyboard_interrupt_and_goes_on() -> None:
    program = interrupted(
        """
        loop = support.new_loop()
        loop.call_later(3600, print)
        loop.call_soon(ready)
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", loop.is_running(), flush=True)
        goes_on(loop)
        """
    )
    expect(program, "ready\ninterrupted False\ngoes on\n")


def test_a_loop_that_waits_for_sockets_raises_keyboard_interrupt_and_keeps_them() -> None:
    program = interrupted(
        """
        loop = support.new_loop()
        async def echo(reader, writer):
            writer.write(await reader.read(100))
            writer.close()
        server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
        addr = server.sockets[0].getsockname()
        reader, writer = loop.run_until_complete(asyncio.open_connection(*addr))
        loop.call_soon(ready)
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        writer.write(b"still here")
        print(loop.run_until_complete(reader.read()), flush=True)
        writer.close()
        loop.run_until_complete(writer.wait_closed())
        server.close()
        goes_on(loop)
        """
    )
    expect(program, "ready\ninterrupted\nb'still here'\ngoes on\n")


@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later", "add_reader"])
def test_a_callback_is_interrupted_and_the_loop_goes_on(schedule: str) -> None:
    arguments = {"call_later": "0.01, spin", "add_reader": "ours, spin"}.get(schedule, "spin")
    program = interrupted(
        f"""
        loop = support.new_loop()
        ran = []
        def spin():
            loop.call_soon(ran.append, "later")
            loop.remove_reader(ours)
            ready()
            while True:
                pass
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.send(b"x")
        loop.call_later(3600, print)
        loop.{schedule}({arguments})
        try:
            loop.run_forever()
        except KeyboardInterrupt as error:
            print("interrupted in", error.__traceback__.tb_next is not None, flush=True)
        goes_on(loop)
        print(ran)
        """
    )
    expect(program, "ready\ninterrupted in True\ngoes on\n['later']\n")


@pytest.mark.parametrize("where", ["connection_made", "data_received", "connection_lost"])
def test_a_protocol_is_interrupted_and_the_loop_goes_on(where: str) -> None:
    program = interrupted(
        f"""
        class Spins(asyncio.Protocol):
            def {where}(self, *_):
                ready()
                while True:
                    pass
        ours, theirs = socket.socketpair()
        listening = socket.create_server(("127.0.0.1", 0))
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
        theirs.send(b"x")
        theirs.close()
        loop = support.new_loop()
        loop.call_later(3600, print)
        async def main():
            await loop.connect_accepted_socket(Spins, ours)
            await asyncio.Event().wait()
        task = loop.create_task(main())
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        task.cancel()
        goes_on(loop)
        """
    )
    expect(program, "ready\ninterrupted\ngoes on\n")


def test_a_task_that_spins_is_ended_by_keyboard_interrupt() -> None:
    program = interrupted(
        """
        loop = support.new_loop()
        async def main():
            ready()
            while True:
                pass
        task = loop.create_task(main())
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt:
            print("interrupted", task.done(), type(task.exception()).__name__, flush=True)
        goes_on(loop)
        """
    )
    expect(program, "ready\ninterrupted True KeyboardInterrupt\ngoes on\n")


def test_a_runner_cancels_its_task_and_raises_keyboard_interrupt() -> None:
    program = interrupted(
        """
        async def main():
            asyncio.get_running_loop().call_soon(ready)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                await asyncio.sleep(0)
                raise
            finally:
                print("cleaned up", flush=True)
        try:
            with asyncio.Runner(loop_factory=support.factory()) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    expect(program, "ready\ncancelled\ncleaned up\ninterrupted\n")


def test_a_runner_goes_on_when_its_task_ignores_the_cancellation() -> None:
    program = interrupted(
        """
        async def main():
            asyncio.get_running_loop().call_soon(ready)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return "kept on"
        with asyncio.Runner(loop_factory=support.factory()) as runner:
            print(runner.run(main()), flush=True)
            print(runner.run(asyncio.sleep(0.001, "again")), flush=True)
        """
    )
    expect(program, "ready\nkept on\nagain\n")


def test_a_second_ctrl_c_interrupts_what_a_runner_waits_for() -> None:
    source = """
        async def main():
            asyncio.get_running_loop().call_soon(ready)
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    # From a callback: the next signal may come before print() returns, and is not to hit this task.
                    asyncio.get_running_loop().call_soon(lambda: print("ignored", flush=True))
        try:
            with asyncio.Runner(loop_factory=support.factory()) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            os._exit(7)
        """
    with Program(sys.executable, "-c", PRELUDE + textwrap.dedent(source)) as program:
        program.wait_for("ready\n")
        program.signal(signal.SIGINT)
        program.wait_for("ignored\n")
        # The second one raises inside run(); on its way out the Runner cancels what is left, which goes on ignoring.
        program.signal(signal.SIGINT)
        program.wait_for("ignored\nignored\n")
        program.signal(signal.SIGINT)
        assert program.end() == 7
    assert program.output.endswith("interrupted\n")


def test_an_uncaught_keyboard_interrupt_ends_the_process_by_the_signal() -> None:
    program = interrupted(
        """
        async def main():
            asyncio.get_running_loop().call_soon(ready)
            await asyncio.Event().wait()
        with asyncio.Runner(loop_factory=support.factory()) as runner:
            runner.run(main())
        """
    )
    assert program.status == -signal.SIGINT  # type: ignore[attr-defined]
    assert program.output.endswith("KeyboardInterrupt\n")
    assert "panicked" not in program.output


@pytest.mark.skipif(not support.OURS, reason="stock asyncio runs the handler at its next event")
@pytest.mark.parametrize("blocked", [True, False])
def test_a_signal_handler_runs_at_once_whatever_thread_the_signal_lands_on(*, blocked: bool) -> None:
    program = interrupted(
        f"""
        loop = support.new_loop()
        def handler(number, frame):
            print("handled", flush=True)
            loop.call_soon_threadsafe(loop.stop)
        signal.signal(signal.SIGUSR1, handler)
        other = threading.Thread(target=threading.Event().wait, daemon=True)
        other.start()
        if {blocked}:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # so that the other thread gets it
        loop.call_later(3600, print)
        loop.call_soon(ready)
        loop.run_forever()
        goes_on(loop)
        os._exit(0)
        """,
        number=signal.SIGUSR1,
    )
    expect(program, "ready\nhandled\ngoes on\n")


def test_a_signal_handler_runs_at_once_while_the_loop_is_idle() -> None:
    program = interrupted(
        """
        loop = support.new_loop()
        def handler(number, frame):
            print("handled", flush=True)
            loop.call_soon_threadsafe(loop.stop)
        signal.signal(signal.SIGUSR1, handler)
        loop.call_later(3600, print)
        loop.call_soon(ready)
        loop.run_forever()
        goes_on(loop)
        """,
        number=signal.SIGUSR1,
    )
    expect(program, "ready\nhandled\ngoes on\n")


def test_an_exception_of_a_signal_handler_leaves_run_forever_and_the_loop_goes_on() -> None:
    program = interrupted(
        """
        loop = support.new_loop()
        def handler(number, frame):
            raise LookupError("from the handler")
        signal.signal(signal.SIGUSR1, handler)
        loop.call_later(3600, print)
        # No Python function: a handler that ran inside would raise into the callback.
        loop.call_soon(os.write, 1, b"ready\\n")
        try:
            loop.run_forever()
        except LookupError as error:
            print(error, flush=True)
        goes_on(loop)
        """,
        number=signal.SIGUSR1,
    )
    expect(program, "ready\nfrom the handler\ngoes on\n")


def test_the_programs_own_wakeup_fd_is_back_after_a_run() -> None:
    said = support.check(
        PRELUDE
        + textwrap.dedent("""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        loop = support.new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print(signal.set_wakeup_fd(-1) == theirs.fileno())
        loop = support.new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        print(signal.set_wakeup_fd(-1))
        loop.close()
        """)
    )
    assert said == "True\n-1\n"
