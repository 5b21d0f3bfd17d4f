"""Isolation keeps its teeth: a loop that breaks its process is told by name, and no verdict on another one changes."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from spec._meta.faults import FOLDER, Breaker, breakers

SPEC = FOLDER.parent.parent
BREAKERS = breakers()
ANY = "callbacks/test_contexts.py"
"""What all of them run: quick tests that no loop here fails for what it does in a turn."""


@dataclass(frozen=True)
class Run:
    """Outcome and message of each test on each loop, and what was printed."""

    verdicts: dict[tuple[str, str], tuple[str, str]]
    output: str

    @classmethod
    def of(cls, loops: list[str], tests: list[str], folder: Path, *options: str) -> Run:
        """Run `tests` on stock asyncio and on `loops`."""
        results = folder / "run.json"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", f"--spec-json={results}"]
        command += [*options, "--loop=asyncio", *(f"--loop=spec._meta.faults.breakers:{loop}" for loop in loops)]
        command += [str(SPEC / test) for test in tests]
        run = subprocess.run(command, cwd=SPEC.parent, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
        document = json.loads(results.read_text(encoding="utf-8"))
        verdicts = {
            (test["loop"], test["id"].removeprefix("spec/")): (test["outcome"], test["message"])
            for test in document["tests"]
        }
        return cls(verdicts, run.stdout)

    def on(self, loop: str) -> dict[str, tuple[str, str]]:
        """Outcome and message of each test on one loop."""
        return {test: verdict for (label, test), verdict in self.verdicts.items() if label == loop}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """All of them beside stock asyncio, so that their processes are each other's neighbours."""
    return Run.of([breaker.loop for breaker in BREAKERS], [ANY], tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Those with a test of their own, on that."""
    own = [breaker for breaker in BREAKERS if breaker.test]
    tests = [breaker.test.format(label) for breaker in own for label in ("asyncio", breaker.loop)]
    hangs = [f"--hangs={breaker.test.format(breaker.loop)}" for breaker in own if breaker.message.startswith("hung")]
    options = ["-p", "spec._meta.patience", *hangs]
    return Run.of([breaker.loop for breaker in own], tests, tmp_path_factory.mktemp("apart"), *options)


def test_every_loop_is_listed_and_says_what_it_stands_for():
    found = {
        name: value
        for name, value in inspect.getmembers(importlib.import_module("spec._meta.faults.breakers"), inspect.isclass)
        if name.startswith("Spec")
    }
    assert sorted(found) == sorted(breaker.loop for breaker in BREAKERS)
    for loop in found.values():
        assert "\n\nStands for " in (inspect.getdoc(loop) or "")


@pytest.mark.timeout(300)
def test_no_verdict_on_stock_asyncio_changes_beside_them(together, apart):
    for run in (together, apart):
        verdicts = run.on("asyncio")
        assert verdicts
        assert {test: verdict for test, verdict in verdicts.items() if verdict[0] != "passed"} == {}
        assert "\nasyncio: " not in run.output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("breaker", BREAKERS, ids=lambda breaker: breaker.loop)
def test_what_it_does_is_told_by_its_name(together, apart, breaker: Breaker):
    verdicts = (apart if breaker.test else together).on(breaker.loop)
    assert len(verdicts) >= 1
    for outcome, message in verdicts.values():
        if breaker.message:
            assert (outcome, breaker.message in message) == ("failed", True), message
        else:
            assert outcome == "passed", message
    if breaker.alters:
        assert f"\n{breaker.loop}: {breaker.alters}" in together.output
