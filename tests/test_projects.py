"""How other projects' tests are compared (`tests/projects`); the projects themselves are for `make test-projects`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import support
from tests.cpython import runner
from tests.cpython.runner import Child, ModuleRun, Outcome
from tests.projects import __main__ as harness
from tests.projects import sources

CHILD = Path(sources.__file__).with_name("child.py")
TESTS = """
import asyncio, os, sys, unittest
import pytest

def swapped():
    return type(asyncio.new_event_loop()).__module__.partition(".")[0] != "asyncio"

class Tests(unittest.IsolatedAsyncioTestCase):
    async def test_isolated(self):
        self.assertEqual(type(asyncio.get_running_loop()), type(asyncio.new_event_loop()))

@pytest.mark.parametrize("number", [1, 2])
def test_passes(number):
    assert asyncio.run(asyncio.sleep(0, number)) == number

def test_fails():
    assert not swapped(), "the loop is another one"

def test_fails_on_both():
    assert False

def test_skips():
    pytest.skip("never")

def test_crashes():
    if swapped():
        os.abort()

def test_hangs():
    if swapped():
        asyncio.new_event_loop().run_forever()

@pytest.fixture
def broken():
    yield
    assert not swapped()

def test_cannot_be_torn_down(broken):
    pass
"""
PROGRAM = """
import asyncio, sys
sys.exit(type(asyncio.new_event_loop()).__module__.partition(".")[0] != "asyncio")
"""


@pytest.fixture
def project(tmp_path: Path) -> Child:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "test_broken.py").write_text("import nothing_has_this_name\n")
    command = (
        sys.executable,
        str(CHILD),
        "--rootdir=.",
        "-p",
        "no:timeout",
        "test_it.py",
        "test_broken.py",
        "--program=program.py",
    )
    return Child(command, {"PYTHONPATH": str(support.PROJECT)}, tmp_path)


def run(project: Child, loop: str | None) -> ModuleRun:
    return runner.run_module("project", loop, skip=["test_it.py::test_skips"], timeout=3, child=project)


@pytest.mark.skipif(not support.OURS, reason="stock asyncio does not differ from itself")
def test_what_a_projects_tests_do_on_a_loop_is_compared_with_stock_asyncio(project: Child) -> None:
    stock, ours = run(project, None), run(project, support.LOOP)
    assert set(stock.tests) == set(ours.tests)
    assert "test_it.py::test_skips" not in stock.tests
    failed = [test for test, outcome in stock.tests.items() if outcome.outcome != "passed"]
    assert sorted(failed) == ["test_broken.py", "test_it.py::test_fails_on_both"]
    found = harness.differing(stock, ours)
    assert list(found) == [
        "program.py::run",
        "test_it.py::test_cannot_be_torn_down",
        "test_it.py::test_crashes",
        "test_it.py::test_fails",
        "test_it.py::test_hangs",
    ]
    assert "exit status -6" in found["test_it.py::test_crashes"].detail
    assert runner.last_line(found["test_it.py::test_hangs"].detail) == "hung"
    assert "the loop is another one" in found["test_it.py::test_fails"].detail
    assert ours.tests["test_it.py::test_passes[2]"].loops == 1


def test_a_test_that_passes_at_the_second_try_is_looked_at_again() -> None:
    stock = ModuleRun({name: Outcome("passed") for name in "abc"} | {"d": Outcome("failed")})
    ours = ModuleRun({"a": Outcome("passed"), "b": Outcome("passed", "once", unsteady=True), "d": Outcome("failed")})
    assert {test: outcome.detail for test, outcome in harness.differing(stock, ours).items()} == {
        "b": "once",
        "c": "not found",
    }


def test_a_project_without_tests_in_its_distribution_needs_a_checkout(tmp_path: Path) -> None:
    for project in sources.projects().values():
        assert project.tests
        if project.checkout:
            with pytest.raises(sources.SourcesError, match="no checkout"):
                sources.tree(project, tmp_path)
