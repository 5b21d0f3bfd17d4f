"""The tests of callbacks and timers can fail: every mutant fails the clause that forbids what it does."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from spec._meta import mutants

ROOT = Path(mutants.__file__).resolve().parent.parent
CAUGHT_BY = {
    "SpecEarly": "timers/test_deadlines.py::test_no_timer_is_early[{}-call_at]",
    "SpecInline": "callbacks/test_order.py::test_scheduling_does_not_call[{}]",
    "SpecGreedy": "callbacks/test_order.py::test_what_arrives_during_a_batch_is_read_while_the_next_ones_run[{}]",
    "SpecLifo": "callbacks/test_order.py::test_callbacks_are_called_in_the_order_they_were_scheduled[{}]",
    "SpecOneContext": "callbacks/test_contexts.py::test_callbacks_do_not_see_what_one_another_set[{}]",
    "SpecDeaf": "callbacks/test_threadsafe.py::test_another_thread_wakes_an_idle_loop[{}]",
    "SpecCatchAll": "callbacks/test_errors.py::test_a_subclass_of_an_exit_is_an_exit[{}]",
    "SpecHoarder": "timers/test_cancel.py::test_a_million_cancelled_timers_hold_no_memory[{}]",
    "SpecLeaky": "callbacks/test_closing.py::test_closing_gives_every_descriptor_back[{}]",
    "SpecCoarse": "timers/test_deadlines.py::test_the_clock_advances_within_a_callback[{}]",
    "SpecStopsTwice": "callbacks/test_running.py::test_stopping_twice_does_not_stop_the_next_run[{}]",
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "callbacks/test_tasks.py::test_name_and_context_reach_the_task[{}]"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, str]:
    """Outcomes by test, of one run of some tests on the mutants."""
    results = tmp_path_factory.mktemp("mutants") / "run.json"
    loops = [f"--loop=spec._meta.mutants:{name}" for name in CAUGHT_BY]
    tests = [str(ROOT / test.format(name)) for name, caught in CAUGHT_BY.items() for test in (caught, HARMLESS)]
    command = [sys.executable, "-m", "pytest", "-q", "--spec-timeout=2", f"--spec-json={results}", *loops, *tests]
    run = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    document = json.loads(results.read_text(encoding="utf-8"))
    return {test["id"].removeprefix("spec/"): test["outcome"] for test in document["tests"]}


def test_every_mutant_is_listed():
    classes = [
        name for name, value in inspect.getmembers(mutants, inspect.isclass) if value.__module__ == mutants.__name__
    ]
    assert sorted(CAUGHT_BY) == sorted(classes)


@pytest.mark.parametrize(("mutant", "test"), CAUGHT_BY.items())
def test_a_mutant_fails_the_test_that_forbids_what_it_does(outcomes, mutant, test):
    assert outcomes[test.format(mutant)] == "failed"
    assert outcomes[HARMLESS.format(mutant)] == "passed"
