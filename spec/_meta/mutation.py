"""Runs tests of the suite on mutants: loops with one bug each, which some test must fail.

All mutants that a session of pytest has tests of are run beside each other: those of each module by a pytest of its
own, as many of these at once as there are processors. A table declares what may hang, and that has `HANG` seconds; a
hang that no table declares takes `PATIENCE` and is warned of. Neither decides a verdict: whether a test of a faulty
loop waits or fails is often for the machine to say.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from spec._meta.patience import Hang

_SPEC = Path(__file__).resolve().parent.parent
PATIENCE = 60.0
"""Seconds of a test that is not declared to hang: it ends, but the machine may be busy."""
HANG = 1.5
"""Seconds of a test that may, a `Hang`."""
WORKERS = 3
"""Tests that each run has going on at once: what hangs sleeps."""


@dataclass(frozen=True)
class Verdict:
    """What a test came to on a mutant, why, in one line, and after how many seconds."""

    outcome: str
    message: str
    duration: float

    @property
    def hung(self) -> bool:
        """Did it use up its time?"""
        return self.message.startswith("hung ")


@dataclass(frozen=True, eq=False)
class Mutation:
    """The mutants of one module, and the tests that each of them fails.

    A test is an id below `spec/`, with `{}` for the loop. No mutant breaks `harmless`: one that fails everything shows
    nothing.
    """

    module: ModuleType
    caught_by: dict[str, list[str]]
    harmless: str

    @classmethod
    def of(cls, name: str) -> Mutation:
        """The mutants of `spec/_meta/<name>.py`, which has `CAUGHT_BY` and `HARMLESS` beside them."""
        module = importlib.import_module(f"spec._meta.{name}")
        return cls(module, module.CAUGHT_BY, module.HARMLESS)

    def classes(self) -> list[str]:
        """The names of the module's loops."""
        classes = inspect.getmembers(self.module, inspect.isclass)
        own = [name for name, value in classes if value.__module__ == self.module.__name__]
        return sorted(name for name in own if name.startswith("Spec"))

    def pairs(self) -> list[tuple[str, str]]:
        """Each mutant with each test that it fails."""
        return [(mutant, test) for mutant, tests in self.caught_by.items() for test in tests]

    def areas(self) -> Iterator[str]:
        """The area of each mutant: that of the first test which fails on it."""
        return (area_of(tests[0]) for tests in self.caught_by.values())

    def verdicts(self, mutants: Iterable[str], results: Path) -> dict[str, Verdict]:
        """Verdicts by test, of one run of all tests of these mutants. `results` is a file to write them to."""
        tests = [(mutant, test) for mutant in mutants for test in (*self.caught_by[mutant], self.harmless)]
        hangs = [test.replace("{}", mutant) for mutant, test in tests if isinstance(test, Hang)]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "spec._meta.patience", "-p", "no:cacheprovider"]
        # What differs in megabytes that are not equal takes seconds to find, and is not looked at.
        command += ["--assert=plain", "--tb=no"]
        # The same examples each time: a mutant must not escape by luck.
        command += [
            "--spec-seed=0",
            f"--spec-workers={WORKERS}",
            f"--spec-timeout={PATIENCE}",
            f"--spec-json={results}",
            f"--hang={HANG}",
        ]
        command += [f"--hangs={test}" for test in hangs]
        command += [f"--loop={self.module.__name__}:{mutant}" for mutant in mutants]
        command += dict.fromkeys(str(_SPEC / test.replace("{}", mutant)) for mutant, test in tests)
        run = subprocess.run(command, cwd=_SPEC.parent, capture_output=True, text=True, timeout=590, check=False)
        assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
        document = json.loads(results.read_text(encoding="utf-8"))
        return {
            test["id"].removeprefix("spec/"): Verdict(test["outcome"], test["message"], test["duration"])
            for test in document["tests"]
        }


class Runs:
    """The runs of one session, begun all at once and waited for one by one."""

    _KEY = pytest.StashKey["Runs"]()

    def __init__(self, wanted: dict[Mutation, list[str]], directory: Path) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count())
        # The longest first: they are what is waited for in the end.
        longest = sorted(wanted, key=lambda mutation: -sum(len(mutation.caught_by[name]) for name in wanted[mutation]))
        self._runs: dict[Mutation, Future[dict[str, Verdict]]] = {
            mutation: self._pool.submit(mutation.verdicts, wanted[mutation], directory / f"{number}.json")
            for number, mutation in enumerate(longest)
        }

    @classmethod
    def of(cls, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Runs:
        """The runs of the session, begun by whoever asks first, of the mutants whose tests were selected."""
        stash = request.config.stash
        if cls._KEY not in stash:
            wanted: dict[Mutation, list[str]] = {}
            for item in request.session.items:
                if issubclass(getattr(item, "cls", None) or object, MutationTests) and "mutant" in item.fixturenames:
                    mutants = wanted.setdefault(item.callspec.params["mutation"], [])
                    mutant = item.callspec.params["mutant"]
                    if mutant not in mutants:
                        mutants.append(mutant)
            stash[cls._KEY] = runs = cls(wanted, factory.mktemp("mutants"))
            request.config.add_cleanup(lambda: runs._pool.shutdown(cancel_futures=True))
        return stash[cls._KEY]

    def verdicts(self, mutation: Mutation) -> dict[str, Verdict]:
        """Verdicts by test of the module's run, as soon as that has ended."""
        return self._runs[mutation].result()


class MutationTests:
    """What is tested of modules of mutants: a subclass says in `mutations` of which, by their names."""

    mutations: ClassVar[dict[str, Mutation]]

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
        """The runs of all mutants of this session."""
        return Runs.of(request, tmp_path_factory)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each module, or of each mutant with each test that it fails."""
        if "mutant" in metafunc.fixturenames:
            rows = [
                pytest.param(mutation, mutant, test, id=f"{name}-{mutant}-{test.replace('{}', '')}")
                for name, mutation in self.mutations.items()
                for mutant, test in mutation.pairs()
            ]
            metafunc.parametrize(("mutation", "mutant", "test"), rows)
        elif "mutation" in metafunc.fixturenames:
            metafunc.parametrize("mutation", self.mutations.values(), ids=self.mutations.keys())

    def test_every_mutant_is_listed(self, mutation: Mutation) -> None:
        """No mutant goes untried."""
        assert sorted(mutation.caught_by) == mutation.classes()

    @pytest.mark.timeout(600)
    def test_a_mutant_fails_the_test_that_forbids_what_it_does(
        self, runs: Runs, mutation: Mutation, mutant: str, test: str
    ) -> None:
        """It fails that test, be it by a hang, and passes the harmless one."""
        verdicts = runs.verdicts(mutation)
        verdict = verdicts[test.replace("{}", mutant)]
        assert verdict.outcome == "failed", verdict
        if verdict.hung and not isinstance(test, Hang):
            warnings.warn(f"not declared as a Hang(): {verdict}", stacklevel=1)
        harmless = verdicts[mutation.harmless.replace("{}", mutant)]
        assert harmless.outcome == "passed", harmless


def area_of(test: str) -> str:
    """The area of a test, by its id below `spec/`."""
    return test.partition("/")[0]
