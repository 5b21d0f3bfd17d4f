"""A test that crashes, hangs, exits or leaves errors behind costs only itself, and is told from a plain failure."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pytest

from spec._kit.schedule import stretch

TESTS = """
@clause("sample.topic.bad")
def test_failing(loop):
    assert 1 == 2, "told why"

@clause("sample.topic.bad")
def test_crashing(loop):
    print("printed before the crash")
    ctypes.string_at(0)

@clause("sample.topic.bad")
def test_hanging(loop):
    loop.run_forever()

@clause("sample.topic.bad")
@pytest.mark.timeout(0.5)
def test_hanging_with_a_mark(loop):
    while True:
        pass

@clause("sample.topic.bad")
def test_exiting(loop):
    os._exit(0)

@clause("sample.topic.bad")
def test_interrupting(loop):
    raise KeyboardInterrupt

@clause("sample.topic.bad")
def test_error_not_taken(loop, tick):
    loop.call_soon(lambda: 1 / 0)
    tick()

@clause("sample.topic.bad")
def test_error_of_another_loop_not_taken(new_loop):
    other = new_loop()
    other.call_exception_handler({"message": "by hand"})

@clause("sample.topic.bad")
def test_task_exception_never_retrieved(loop, tick):
    async def main():
        raise LookupError
    loop.create_task(main())
    tick(3)

@clause("sample.topic.bad")
def test_exception_of_a_finaliser(loop):
    class Finalised:
        def __del__(self):
            raise LookupError
    Finalised()

@clause("sample.topic.bad")
def test_exception_of_a_thread(loop):
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

@clause("sample.topic.unknown")
def test_of_an_unknown_clause(loop):
    pass

@clause("sample.topic.good")
def test_passing(loop, errors, tick, run, new_loop):
    ticks = []
    def chain():
        ticks.append(1)
        loop.call_soon(chain)
    loop.call_soon(chain)
    tick(5)
    assert len(ticks) == 5
    async def main():
        return asyncio.get_running_loop()
    assert run(main()) is loop
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.call_exception_handler, {"message": "second"})
    tick(2)
    first, second = errors.take()
    assert isinstance(first["exception"], ZeroDivisionError) and second == {"message": "second"}
    loop.call_exception_handler({"message": "third"})
    assert errors.only() == {"message": "third"} and errors == []
    other = new_loop()
    assert other is not loop and new_loop.errors_of(other) == []
    loop.create_task(asyncio.sleep(3600))
    loop.stop()

@clause("sample.topic.good")
@pytest.mark.parametrize("value", [1, 2])
class TestClass:
    def test_method(self, loop, value):
        assert value

@clause("sample.topic.skipped")
def test_skipping(loop):
    pytest.skip("not on this machine")

@clause("sample.topic.young")
def test_of_a_clause_of_the_future(loop):
    raise AssertionError

@clause("sample.topic.bad")
def test_leaving_a_process_behind(loop):
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    with open(os.environ["LEFT_BEHIND"], "w") as file:
        file.write(str(child))
"""


@pytest.fixture
def finished(suite, monkeypatch, tmp_path):
    monkeypatch.setenv("LEFT_BEHIND", str(tmp_path / "pid"))
    suite.clauses("good", "bad", "skipped")
    suite.clauses("young", since="3.99")
    suite.tests(TESTS)
    return suite.run("--spec-timeout=1.5", "--spec-matrix")


def test_each_outcome_is_told(finished, tmp_path):
    outcomes = finished.outcomes()
    messages = finished.messages()
    expected = {
        "test_failing[asyncio]": "told why",
        "test_crashing[asyncio]": "crashed (signal 11)",
        "test_hanging[asyncio]": "hung for 1.5 s",
        "test_hanging_with_a_mark[asyncio]": "hung for 0.5 s",
        "test_exiting[asyncio]": "exited with status 0 before it had a result",
        "test_interrupting[asyncio]": "KeyboardInterrupt left the test",
        "test_error_not_taken[asyncio]": "reached the exception handler",
        "test_error_of_another_loop_not_taken[asyncio]": "reached the exception handler",
        "test_task_exception_never_retrieved[asyncio]": "reached the exception handler",
        "test_exception_of_a_finaliser[asyncio]": "PytestUnraisableExceptionWarning",
        "test_exception_of_a_thread[asyncio]": "PytestUnhandledThreadExceptionWarning",
        "test_of_an_unknown_clause[asyncio]": "unknown clause: sample.topic.unknown",
        "test_leaving_a_process_behind[asyncio]": "left behind: process ",
    }
    assert {name for name, outcome in outcomes.items() if outcome == "failed"} == set(expected)
    for name, words in expected.items():
        assert words in messages[name]
    assert {name for name, outcome in outcomes.items() if outcome == "passed"} == {
        "test_passing[asyncio]",
        "TestClass::test_method[asyncio-1]",
        "TestClass::test_method[asyncio-2]",
    }
    assert outcomes["test_skipping[asyncio]"] == outcomes["test_of_a_clause_of_the_future[asyncio]"] == "skipped"
    assert messages["test_skipping[asyncio]"] == "Skipped: not on this machine"
    assert finished.status == pytest.ExitCode.TESTS_FAILED

    # Stacks of what crashed and hung, and what was printed before.
    assert "Segmentation fault" in finished.output and "printed before the crash" in finished.output
    assert "in test_hanging\n" in finished.output and "in test_hanging_with_a_mark\n" in finished.output

    assert [finished.clause(f"sample.topic.{name}") for name in ("good", "bad", "skipped", "young")] == [
        "passed",
        "failed",
        "skipped",
        "skipped",
    ]
    assert "sample  1/4" in finished.output
    assert "must   sample.topic.bad" in finished.output and "asyncio: failed: " in finished.output

    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    assert is_gone(pid), "what a test forks ends with it"


def is_gone(pid: int) -> bool:
    """Has the process, killed by another, ended? It is a zombie until init looks."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
    return False


def test_a_test_can_be_run_in_this_process_to_debug_it(suite):
    suite.clauses("good")
    suite.tests(
        """
        import sys
        seen = []

        @clause("sample.topic.good")
        def test_first(loop):
            seen.append(1)

        @clause("sample.topic.good")
        def test_second(loop):
            assert seen == [1]
        """
    )
    assert suite.run("--spec-no-fork").outcomes() == {"test_first[asyncio]": "passed", "test_second[asyncio]": "passed"}


@pytest.mark.parametrize("options", [(), ("--spec-no-fork",)])
def test_an_unknown_clause_fails_its_test_in_any_process(suite, options):
    suite.clauses("good")
    suite.tests(
        """
        @clause("sample.topic.unknown")
        def test_passing(loop):
            pass
        """
    )
    assert suite.run(*options).messages() == {"test_passing[asyncio]": "unknown clause: sample.topic.unknown"}


def test_a_verdict_other_than_passed_never_comes_from_a_process_that_other_tests_used(suite):
    suite.clauses("good")
    suite.tests(
        """
        seen = []

        @clause("sample.topic.good")
        def test_first(loop):
            seen.append(1)

        @clause("sample.topic.good")
        def test_that_fails_where_another_was(loop):
            assert seen == []

        @clause("sample.topic.good")
        def test_that_dies_where_another_was(loop):
            if seen:
                os._exit(3)

        @clause("sample.topic.good")
        def test_that_leaves_a_descriptor_where_another_was(loop):
            if seen:
                os.dup(0)

        @clause("sample.topic.good")
        def test_that_fails_anywhere(loop):
            assert seen == [1]
        """
    )
    assert set(suite.run().outcomes().values()) == {"passed", "failed"}
    assert suite.run().outcomes()["test_that_fails_anywhere[asyncio]"] == "failed"
    assert list(suite.run("--spec-workers=1").outcomes().values()) == ["passed"] * 4 + ["failed"]


CHANGES = {
    "signal handlers": "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "descriptors 0 to 2": "os.close(0); os.open('/dev/zero', os.O_RDONLY)",
    "environment": "os.environ['CHANGED'] = '1'",
    "working folder": "os.chdir('/')",
    "signal.set_wakeup_fd()": (
        "kept += socket.socketpair(); kept[0].setblocking(False); signal.set_wakeup_fd(kept[0].fileno())"
    ),
    "names of time": "time.sleep = lambda seconds: None",
    "garbage collector": "gc.disable()",
    "running loop": "asyncio._set_running_loop(loop)",
}


def test_a_process_that_is_no_longer_what_it_was_serves_no_other_test(suite):
    suite.clauses("good")
    text = "import gc, signal, socket\nkept = []\nused = []\n"
    for place, change in enumerate(CHANGES.values()):
        text += f"""
@clause("sample.topic.good")
def test_change_{place}(new_loop):
    loop = new_loop
    {change}
    used.append({place})

@clause("sample.topic.good")
def test_behind_{place}(new_loop):
    assert {place} not in used
"""
    suite.tests(text)
    finished = suite.run()
    for place, what in enumerate(CHANGES):
        if what not in {"descriptors 0 to 2", "signal.set_wakeup_fd()"}:  # which are left behind as well
            assert f"asyncio: {what}: sample/test_sample.py::test_change_{place}[asyncio]" in finished.output
            assert finished.outcomes()[f"test_change_{place}[asyncio]"] == "passed"
        assert finished.outcomes()[f"test_behind_{place}[asyncio]"] == "passed"


def test_a_loop_that_always_hangs_is_through_soon_and_says_so(suite):
    suite.clauses("good")
    suite.tests(
        """
        @clause("sample.topic.good")
        @pytest.mark.parametrize("number", range(100))
        def test_hanging(loop, number):
            loop.run_forever()
        """
    )
    suite.write("quiet.py", "import os\nos.getloadavg = lambda: (0.0, 0.0, 0.0)\n")
    finished = suite.run("-p", "quiet", "--spec-timeout=1")
    words = list(finished.messages().values())
    assert set(finished.outcomes().values()) == {"failed"}
    assert words.count("hung for 1 s") >= 4 and words.count("not run: 4 tests of sample hung") > 50


def test_a_loop_of_which_every_test_waits_in_vain_is_through_soon_and_says_so(suite):
    suite.clauses("good")
    suite.tests(
        """
        import threading

        @clause("sample.topic.good")
        @pytest.mark.parametrize("number", range(100))
        def test_waiting(loop, number):
            assert threading.Event().wait(0.3)
        """
    )
    suite.write("vain.py", "from spec._kit import schedule\nschedule.VAIN = 0.2\nschedule.stretch = lambda: 1.0\n")
    words = list(suite.run("-p", "vain").messages().values())
    assert words.count("not run: 4 tests of sample hung") > 50
    assert 4 <= sum(words.count(other) for other in set(words) if not other.startswith("not run")) < 50


def test_a_loop_that_always_crashes_is_through_soon_and_says_so(suite):
    suite.clauses("good")
    suite.tests(
        """
        @clause("sample.topic.good")
        @pytest.mark.parametrize("number", range(100))
        def test_crashing(loop, number):
            os.abort()
        """
    )
    finished = suite.run()
    words = list(finished.messages().values())
    assert set(finished.outcomes().values()) == {"failed"}
    assert words.count("crashed (signal 6)") >= 20
    assert words.count("not run: 20 tests of sample ended their process") > 50
    assert set(suite.run("--spec-patient").messages().values()) == {"crashed (signal 6)"}


def test_a_busy_machine_is_given_time(monkeypatch):
    load = 0.0
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert stretch() == 1.0
    load = 4.0
    assert stretch() == 1.0
    load = 24.0
    assert stretch() == 6.0
    load = 1e9
    assert stretch() == 20.0


def test_a_child_that_was_given_time_is_told_to_hang_by_the_time_out_of_a_quiet_machine(suite):
    suite.clauses("good")
    suite.write("busy.py", "import os\nos.getloadavg = lambda: (4.0 * os.cpu_count(), 0.0, 0.0)\n")
    suite.tests(
        """
        @clause("sample.topic.good")
        def test_of_a_second_and_a_half(loop):
            loop.run_until_complete(asyncio.sleep(1.5))

        @clause("sample.topic.good")
        def test_hanging(loop):
            loop.run_forever()
        """
    )
    finished = suite.run("-p", "busy", "--spec-timeout=1")
    assert finished.outcomes() == {"test_of_a_second_and_a_half[asyncio]": "passed", "test_hanging[asyncio]": "failed"}
    assert finished.messages()["test_hanging[asyncio]"] == "hung for 1 s"


def test_the_order_is_drawn_from_a_seed_that_is_told(suite):
    suite.clauses("good")
    suite.tests(
        """
        @clause("sample.topic.good")
        @pytest.mark.parametrize("number", range(20))
        def test_in_order(loop, number, capsys):
            with capsys.disabled():
                os.write(2, f"<{number}>".encode())
        """
    )
    drawn = suite.run("--spec-shuffle", "random", "--spec-workers=1")
    seed = re.search(r"--spec-shuffle=(\d+)", drawn.output)[1]
    order = re.findall(r"<(\d+)>", drawn.output)
    assert sorted(order, key=int) == [str(number) for number in range(20)] != order
    again = suite.run(f"--spec-shuffle={seed}", "--spec-workers=1")
    assert re.findall(r"<(\d+)>", again.output) == order
    assert list(again.outcomes()) == list(suite.run().outcomes()), "results are in the order of the files"


def test_progress_is_told(suite):
    suite.clauses("good")
    suite.tests(
        """
        @clause("sample.topic.good")
        @pytest.mark.parametrize("number", range(20))
        def test_passing(loop, number):
            assert number != 7
        """
    )
    finished = suite.run("--spec-progress", "-rf")
    assert re.search(r"\d+/20, sample done, asyncio: 1 failed, took 0:0\d", finished.output)
    assert "FAILED sample/test_sample.py::test_passing[asyncio-7]" in finished.output
    assert "1 failed, 19 passed" in finished.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_children_and_writes_what_it_has(suite, tmp_path, number):
    suite.clauses("good")
    suite.tests(
        f"""
        import signal

        @clause("sample.topic.good")
        def test_passing(loop):
            pass

        @clause("sample.topic.good")
        def test_waiting(loop):
            with open({str(tmp_path / "pid")!r}, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getppid(), {int(number)})
            signal.pause()
        """
    )
    finished = suite.run("--spec-workers=1")
    assert finished.status == pytest.ExitCode.INTERRUPTED
    assert finished.outcomes() == {"test_passing[asyncio]": "passed"}
    assert is_gone(int((tmp_path / "pid").read_text(encoding="utf-8")))


def test_an_interruption_counts_though_its_exception_gets_lost(suite):
    suite.write(
        "conftest.py",
        """
        import os, signal

        def pytest_runtest_logreport(report):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass
        """,
    )
    suite.clauses("good")
    suite.tests(
        """
        @clause("sample.topic.good")
        @pytest.mark.parametrize("number", range(200))
        def test_passing(loop, number):
            pass
        """
    )
    finished = suite.run("--spec-workers=1")
    assert finished.status == pytest.ExitCode.INTERRUPTED
    assert 0 < len(finished.outcomes()) < 200


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a child that its parent has ended")
def test_what_hangs_ends_with_a_run_that_is_killed(suite, tmp_path):
    suite.clauses("good")
    suite.tests(
        f"""
        import signal

        @clause("sample.topic.good")
        def test_hanging(loop):
            with open({str(tmp_path / "pid")!r}, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getppid(), signal.SIGKILL)
            loop.run_forever()
        """
    )
    assert suite.run().status == -signal.SIGKILL
    assert is_gone(int((tmp_path / "pid").read_text(encoding="utf-8")))
