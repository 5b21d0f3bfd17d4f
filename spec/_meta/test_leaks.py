"""What a test leaves behind fails it, and is named; what ends by itself is not left behind."""

from __future__ import annotations

import pytest

from spec._meta.conftest import Suite

PRELUDE = """
import _thread, concurrent.futures, select, signal, socket, subprocess, sys, tempfile

kept = []
pid = os.getpid()
"""

LEFT = {
    "file": ("kept.append(open('/dev/null'))", "-> /dev/null"),
    "socket": ("kept.append(socket.socket())", "-> socket:["),
    "epoll": ("kept.append(select.epoll())", "-> anon_inode:[eventpoll]"),
    "pipe": ("kept.append(os.pipe())", "-> pipe:["),
    "replaced_descriptor": (
        "taken = tempfile.TemporaryFile(); os.dup2(taken.fileno(), 0); taken.close()",
        "descriptor 0 -> /",
    ),
    "zombie": (
        "child = os.spawnlp(os.P_NOWAIT, 'true', 'true'); os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)",
        "true, a zombie",
    ),
    "process": ("kept.append(os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '60'))", "still running"),
    "thread": ("threading.Thread(target=signal.pause, daemon=True, name='stray').start()", "'stray' of threading"),
    "raw_thread": (
        (
            "started = threading.Event(); _thread.start_new_thread(lambda: (started.set(), signal.pause()), ());"
            " started.wait()"
        ),
        "not of threading",
    ),
    "executor": (
        "loop.run_in_executor(None, signal.pause); loop.close()",
        "of threading",
    ),
    "task": (
        (
            "kept.append(loop.create_task(asyncio.sleep(3600), name='stray')); loop.call_soon(loop.stop);"
            " loop.run_forever(); loop.close()"
        ),
        "name='stray'",
    ),
    "task_of_a_bare_loop": (
        (
            "bare = loop_factory(); kept.append(bare.create_task(asyncio.sleep(3600), name='stray'));"
            " bare.call_soon(bare.stop); bare.run_forever(); bare.close()"
        ),
        "name='stray'",
    ),
    "loop": ("kept.append(loop_factory())", "not closed"),
}
NOT_LEFT = {
    "nothing": "pass",
    "cycle": "cycle = [socket.socket()]; cycle.append(cycle)",
    "idle_executor": "loop.run_until_complete(loop.run_in_executor(None, len, ())); loop.close()",
    "bare_loop_with_an_idle_executor": (
        "bare = loop_factory(); bare.run_until_complete(bare.run_in_executor(None, len, ())); bare.close()"
    ),
    "ending_thread": "threading.Thread(target=lambda: time.sleep(0.2)).start()",
    "ending_process_that_a_thread_waits_for": (
        "child = os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '0.2');"
        " threading.Thread(target=os.waitpid, args=(child, 0)).start()"
    ),
    "logged_exception": (
        "import logging\n    try:\n        opened = socket.socket()\n        1 / 0\n"
        "    except ZeroDivisionError:\n        logging.exception('its frame has the socket')"
    ),
    "dropped_loop": "import gc, warnings\n    warnings.simplefilter('ignore')\n    loop_factory()\n    gc.collect()",
}
# What they leave is not told: the failure may be the reason.
OTHER = {
    "failed": ("kept.append(socket.socket()); assert 0, 'told'", "failed", "told"),
    "skipped": ("kept.append(socket.socket()); pytest.skip('told')", "skipped", "Skipped: told"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a suite with a test for each of these."""
    suite = Suite(tmp_path_factory.mktemp("leaks"))
    suite.clauses("rule")
    bodies = {**{name: body for name, (body, _) in LEFT.items()}, **NOT_LEFT}
    bodies |= {name: body for name, (body, _, _) in OTHER.items()}
    tests = [
        f'@clause("sample.topic.rule")\ndef test_{name}(loop, loop_factory):\n    {body}\n'
        for name, body in bodies.items()
    ]
    suite.tests(PRELUDE + "\n".join(tests))
    return suite.run("-W", "ignore::ResourceWarning")


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_behind_fails_the_test_and_is_named(finished, name):
    assert finished.outcomes()[f"test_{name}[asyncio]"] == "failed", finished.output
    message = finished.messages()[f"test_{name}[asyncio]"]
    assert message.startswith("left behind: ") and LEFT[name][1] in finished.output
    assert LEFT[name][1] in message


@pytest.mark.parametrize("name", NOT_LEFT)
def test_what_ends_by_itself_is_not_left_behind(finished, name):
    assert finished.outcomes()[f"test_{name}[asyncio]"] == "passed", finished.output


@pytest.mark.parametrize("name", OTHER)
def test_only_a_test_that_passed_is_judged(finished, name):
    _, outcome, message = OTHER[name]
    assert finished.outcomes()[f"test_{name}[asyncio]"] == outcome
    assert finished.messages()[f"test_{name}[asyncio]"].splitlines()[0].endswith(message)
