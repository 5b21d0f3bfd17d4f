"""CPython's own asyncio tests pass on our loop as they do on stock asyncio, module by module (see `tests/cpython`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.cpython import __main__ as harness
from tests.cpython import exceptions

MODULES = exceptions.modules().modules


def compare(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tests.cpython` on the loop under test."""
    return subprocess.run(
        [sys.executable, "-m", "tests.cpython", "--loop", support.LOOP, "--quick", *options],
        cwd=support.PROJECT,
        env={**support.environment(), **env},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", MODULES)
def test_cpythons_own_tests_pass_as_on_stock_asyncio(module: str) -> None:
    done = compare("--module", module)
    if done.returncode == harness.NO_TESTS:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the comparison itself

MODULE = """
import asyncio, os, unittest

def swapped():
    return not asyncio.SelectorEventLoop.__module__.startswith("asyncio")

class Tests(unittest.TestCase):
    def setUp(self):
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def test_passes(self):
        self.loop.run_until_complete(asyncio.sleep(0))
        self.assertTrue(not swapped() or isinstance(self.loop, asyncio.SelectorEventLoop))

    def test_runner(self):
        self.assertIs(asyncio.run(self.kind()), type(self.loop))

    async def kind(self):
        return type(asyncio.get_running_loop())

    def test_fails_on_both(self):
        self.fail("on both")

    def test_crashes(self):
        if swapped():
            os.abort()

    def test_exits(self):
        if swapped():
            os._exit(0)

    def test_hangs(self):
        if swapped():
            self.loop.run_forever()

    def test_fails(self):
        with self.subTest("here"):
            self.assertFalse(swapped())

    def test_skips(self):
        if swapped():
            self.skipTest("not on this one")
"""


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """The environment in which a module of tests called `fake.tests` is found."""
    package = tmp_path / "fake"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tests.py").write_text(MODULE)
    return {"PYTHONPATH": f"{tmp_path}:{support.PROJECT}"}


def files(folder: Path, *tests: str) -> tuple[str, ...]:
    """Options that have the module of tests compared, with these tests declared."""
    modules, declared = folder / "modules.toml", folder / "deviations.toml"
    modules.write_text('modules = ["fake.tests"]\n')
    declared.write_text("\n".join(f'[[cpython]]\ntest = "{test}"\nreason = "for this test"\n' for test in tests))
    return ("--modules", str(modules), "--deviations", str(declared), "--module", "fake.tests", "--timeout", "1")


@pytest.mark.timeout(120)
def test_what_differs_is_named_and_costs_only_itself(tmp_path: Path, fake: dict[str, str]) -> None:
    done = compare(*files(tmp_path), **fake)
    assert done.returncode == 1, done.stdout + done.stderr
    wrong = [line.removeprefix("differs: fake.tests.Tests.") for line in done.stdout.splitlines() if "differs:" in line]
    assert [line.partition(":")[0] for line in wrong] == [
        "test_crashes",
        "test_exits",
        "test_fails",
        "test_hangs",
        "test_skips",
    ], done.stdout
    assert "ended the process: exit status -6" in wrong[0]
    assert "AssertionError" in wrong[2]
    assert "hung" in wrong[3]
    row = next(line for line in done.stdout.splitlines() if line.startswith("fake.tests"))
    assert row.split()[1:4] == ["7", "2", "2"], "passes on asyncio, on the loop, and of these those that made a loop"


@pytest.mark.timeout(120)
def test_what_is_declared_may_differ_and_a_stale_entry_may_not_stand(tmp_path: Path, fake: dict[str, str]) -> None:
    differing = [f"fake.tests.Tests.test_{name}" for name in ("crashes", "exits", "fails", "hangs", "skips")]
    done = compare(*files(tmp_path, *differing), **fake)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differ as declared: 5" in done.stdout
    stale = (*differing, "fake.tests.Tests.test_passes", "fake.tests.Tests.test_gone")
    done = compare(*files(tmp_path, *stale), **fake)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("stale")]
    assert len(lines) == 2, done.stdout
    assert "test_passes passes" in lines[0] + lines[1]
    assert "test_gone" in lines[0] + lines[1]


def test_an_entry_needs_a_reason_and_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "deviations.toml"
    good = '[[cpython]]\ntest = "a"\nreason = "b"\n'
    path.write_text(good + 'until = "3.99"\n')
    assert [entry.test for entry in exceptions.read(path)] == ["a"]
    for text in ('[[cpython]]\ntest = "a"\n', good + good, good + 'kind = "c"\n', good + 'since = "later"\n'):
        path.write_text(text)
        with pytest.raises(exceptions.ExceptionsError):
            exceptions.read(path)
