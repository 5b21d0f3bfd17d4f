"""Runs tests of the suite on mutants: loops with one bug each, which some test must fail."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

_SPEC = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """The mutants of one module, and the tests that each of them fails.

    A test is an id below `spec/`, with `{}` for the loop. No mutant breaks `harmless`: one that fails everything shows
    nothing. `patience` is the time-out of a test, in seconds.
    """

    module: ModuleType
    caught_by: dict[str, list[str]]
    harmless: str
    patience: int

    def classes(self) -> list[str]:
        """The names of the module's loops."""
        classes = inspect.getmembers(self.module, inspect.isclass)
        own = [name for name, value in classes if value.__module__ == self.module.__name__]
        return sorted(name for name in own if name.startswith("Spec"))

    def pairs(self) -> list[tuple[str, str]]:
        """Each mutant with each test that it fails."""
        return [(mutant, test) for mutant, tests in self.caught_by.items() for test in tests]

    def outcomes(self, directory: Path) -> dict[str, str]:
        """Outcomes by test, of one run of all these tests on the mutants."""
        results = directory / "run.json"
        loops = [f"--loop={self.module.__name__}:{mutant}" for mutant in self.caught_by]
        tests = [
            str(_SPEC / test.format(mutant))
            for mutant, caught in self.caught_by.items()
            for test in (*caught, self.harmless)
        ]
        # The same examples each time: a mutant must not escape by luck.
        options = ["-q", "--hypothesis-seed=0", f"--spec-timeout={self.patience}", f"--spec-json={results}"]
        command = [sys.executable, "-m", "pytest", *options, *loops, *tests]
        run = subprocess.run(command, cwd=_SPEC.parent, capture_output=True, text=True, timeout=590, check=False)
        assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
        document = json.loads(results.read_text(encoding="utf-8"))
        return {test["id"].removeprefix("spec/"): test["outcome"] for test in document["tests"]}


class MutationTests:
    """What is tested of each module of mutants: a subclass says in `mutation` which."""

    mutation: ClassVar[Mutation]

    @pytest.fixture(scope="class")
    @classmethod
    def outcomes(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        """Outcomes by test: all mutants meet all their tests in one run."""
        return cls.mutation.outcomes(tmp_path_factory.mktemp("mutants"))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each mutant with each test that it fails."""
        if "mutant" in metafunc.fixturenames:
            metafunc.parametrize(("mutant", "test"), self.mutation.pairs())

    def test_every_mutant_is_listed(self) -> None:
        """No mutant goes untried."""
        assert sorted(self.mutation.caught_by) == self.mutation.classes()

    @pytest.mark.timeout(600)
    def test_a_mutant_fails_the_test_that_forbids_what_it_does(
        self, outcomes: dict[str, str], mutant: str, test: str
    ) -> None:
        """It fails that test, and passes the harmless one."""
        assert outcomes[test.format(mutant)] == "failed"
        assert outcomes[self.mutation.harmless.format(mutant)] == "passed"
