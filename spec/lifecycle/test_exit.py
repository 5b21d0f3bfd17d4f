"""The end of the interpreter, with loops still there; and interpreters beside the main one."""

from __future__ import annotations

import textwrap

import pytest

from .._kit import clause, programs

OPEN = {
    "new": "",
    "ran": "loop.run_until_complete(asyncio.sleep(0.001))",
    "callbacks": """
        loop.call_soon(print, 'never')
        loop.call_later(3600, print, 'never')
        loop.call_soon_threadsafe(print, 'never')
    """,
    "task": "task = loop.create_task(asyncio.sleep(3600)); loop.call_soon(loop.stop); loop.run_forever()",
    "watcher": """
        import socket
        pair = socket.socketpair()
        loop.add_reader(pair[0].fileno(), print)
        loop.add_writer(pair[1].fileno(), print)
    """,
    "server": "server = loop.run_until_complete(loop.create_server(asyncio.Protocol, '127.0.0.1', 0))",
    "connection": """
        server = loop.run_until_complete(loop.create_server(asyncio.Protocol, '127.0.0.1', 0))
        address = server.sockets[0].getsockname()
        transport, protocol = loop.run_until_complete(loop.create_connection(asyncio.Protocol, *address))
        transport.write(b'x' * 1_000_000)
        loop.run_until_complete(asyncio.sleep(0.001))
    """,
    "socket_operation": """
        import socket
        pair = socket.socketpair()
        pair[0].setblocking(False)
        task = loop.create_task(loop.sock_recv(pair[0], 10))
        loop.call_soon(loop.stop)
        loop.run_forever()
    """,
    "asyncgen": """
        async def generate():
            yield 1
            yield 2
        generator = generate()
        loop.run_until_complete(anext(generator))
    """,
    "executor": "loop.run_until_complete(loop.run_in_executor(None, len, ()))",
    "exception_handler_of_its_own": "loop.set_exception_handler(lambda loop, context: None); loop.own = loop",
}


def ended(run, stdout="end\n"):
    """A program ended well: what was left open may warn, nothing else."""
    assert run.returncode == 0, run.stderr
    assert run.stdout == stdout
    for word in ("Traceback", "Fatal", "panick", "Segmentation"):
        assert word not in run.stderr, run.stderr


@clause("lifecycle.exit.loop-left-open")
@pytest.mark.parametrize("what", OPEN)
def test_a_program_that_leaves_a_loop_open_ends(loop_under_test, what):
    body = textwrap.dedent(OPEN[what])
    ended(programs.run(loop_under_test, f"loop = new_loop()\n{body}\nprint('end', flush=True)\n"))


@clause("lifecycle.exit.loop-closed-late")
def test_a_loop_may_be_closed_by_a_finalizer_at_the_end(loop_under_test):
    source = """
        class Owner:
            def __init__(self):
                self.loop = new_loop()
                self.loop.call_later(3600, print)
            def __del__(self):
                self.loop.close()
        owner = Owner()
        owner.itself = owner
        print("end", flush=True)
    """
    ended(programs.run(loop_under_test, source))


@clause("lifecycle.exit.daemon-thread")
@pytest.mark.parametrize("busy", [False, True])
def test_a_loop_in_a_daemon_thread_does_not_keep_a_program_from_ending(loop_under_test, busy):
    source = f"""
        started = threading.Event()
        async def main():
            started.set()
            while True:
                await asyncio.sleep({0 if busy else 3600})
        def work():
            new_loop().run_until_complete(main())
        threading.Thread(target=work, daemon=True).start()
        started.wait()
        print("end", flush=True)
    """
    for _ in range(3):
        ended(programs.run(loop_under_test, source))


@clause("lifecycle.exit.status")
@pytest.mark.parametrize("where", ["callback", "task", "main", "executor"])
def test_sys_exit_in_a_run_ends_the_program_with_its_status(loop_under_test, where):
    call = {
        "callback": "asyncio.get_running_loop().call_soon(sys.exit, 3)",
        "task": "asyncio.create_task(other())",
        "main": "sys.exit(3)",
        "executor": "await asyncio.get_running_loop().run_in_executor(None, sys.exit, 3)",
    }[where]
    source = f"""
        async def other():
            sys.exit(3)
        async def main():
            try:
                {call}
                await asyncio.sleep(3600)
            finally:
                print("cleaned up", flush=True)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    """
    run = programs.run(loop_under_test, source)
    assert (run.returncode, run.stdout) == (3, "cleaned up\n"), run.stderr


@clause("lifecycle.exit.atexit")
def test_a_loop_may_be_run_when_the_program_exits(loop_under_test):
    source = """
        import atexit
        kept = new_loop()
        async def main(name):
            await asyncio.sleep(0.001)
            print(name, flush=True)
        @atexit.register
        def last():
            kept.run_until_complete(main("an old one"))
            kept.close()
            loop = new_loop()
            loop.run_until_complete(main("a new one"))
            loop.close()
    """
    ended(programs.run(loop_under_test, source), stdout="an old one\na new one\n")


@clause("lifecycle.exit.os-exit")
def test_os_exit_in_a_callback_ends_the_program_at_once(loop_under_test):
    source = """
        loop = new_loop()
        loop.call_soon(os._exit, 5)
        try:
            loop.run_forever()
        finally:
            print("never", flush=True)
    """
    run = programs.run(loop_under_test, source)
    assert (run.returncode, run.stdout, run.stderr) == (5, "", "")


@clause("lifecycle.subinterpreter.works-or-is-refused")
@pytest.mark.parametrize("config", ["legacy", "isolated"])
def test_another_interpreter_runs_a_loop_or_is_told_that_it_cannot(loop_under_test, config, saw):
    module, _, attribute = loop_under_test.name.partition(":")
    source = f"""
        import _interpreters
        id = _interpreters.create({config!r})
        failed = _interpreters.exec(id, '''if True:
            import asyncio
            try:
                import {module} as module
            except ImportError as error:
                print("refused", flush=True)
            else:
                loop = module.{attribute or "new_event_loop"}()
                loop.run_until_complete(asyncio.sleep(0.001))
                loop.close()
                print("works", flush=True)
        ''')
        if failed:
            print("failed", failed, flush=True)
        _interpreters.destroy(id)
        loop = new_loop()
        print(loop.run_until_complete(asyncio.sleep(0, "and so does the main one")), flush=True)
        loop.close()
    """
    run = programs.run(loop_under_test, source)
    assert run.returncode == 0, run.stderr
    assert run.stdout in ("works\nand so does the main one\n", "refused\nand so does the main one\n"), run.stderr
    works = run.stdout.startswith("works")
    saw(
        "lifecycle.subinterpreter.works-or-is-refused",
        "the loop works there" if works else "the import raises ImportError",
    )
