"""A suite in a temporary directory, to run the kit on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import spec

REPOSITORY = Path(spec.__file__).resolve().parent.parent


@dataclass
class Finished:
    """A run of pytest that ended: exit status, output, and the JSON document it wrote."""

    status: int
    output: str
    document: dict[str, Any]

    def outcomes(self) -> dict[str, str]:
        """Outcome by name of the test."""
        return {test["id"].partition("::")[2]: test["outcome"] for test in self.document["tests"]}

    def messages(self) -> dict[str, str]:
        """Message by name of the test."""
        return {test["id"].partition("::")[2]: test["message"] for test in self.document["tests"]}

    def clause(self, slug: str, label: str = "asyncio") -> str:
        """Outcome of a clause on a loop."""
        [found] = [clause for clause in self.document["clauses"] if clause["id"] == slug]
        return str(found["outcomes"][label]["outcome"])


class Suite:
    """A suite with one area, `sample`, and a loop of its own in the module `sampleloop`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sample").mkdir()
        (root / "deviations").mkdir()
        (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (root / "sample" / "__init__.py").touch()
        self.write(
            "sampleloop.py",
            """
            import asyncio

            class SampleLoop(asyncio.SelectorEventLoop):
                pass

            new_event_loop = SampleLoop

            def crashing():
                import os
                os.abort()
            """,
        )

    def write(self, name: str, text: str) -> None:
        """Write a file below the root."""
        (self.root / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def clauses(self, *names: str, level: str = "must", since: str = "3.11") -> None:
        """Add clauses `sample.topic.<name>`."""
        with (self.root / "sample" / "clauses.toml").open("a", encoding="utf-8") as file:
            for name in names:
                file.write(f'[[clause]]\nid = "sample.topic.{name}"\nlevel = "{level}"\nrule = "The rule of {name}."\n')
                file.write(f'cite = "nowhere"\nsince = "{since}"\n')

    def tests(self, text: str, name: str = "test_sample") -> None:
        """Write a module of tests."""
        preamble = "import asyncio, ctypes, os, threading, time\nimport pytest\nfrom spec._kit import clause\n\n"
        (self.root / "sample" / f"{name}.py").write_text(preamble + textwrap.dedent(text), encoding="utf-8")

    def deviations(self, label: str, text: str) -> None:
        """Write the deviations of a loop."""
        self.write(f"deviations/{label}.toml", text)

    def run(
        self, *arguments: str, paths: tuple[str, ...] = ("sample",), loops: tuple[str, ...] = ("asyncio",)
    ) -> Finished:
        """Run pytest on it."""
        results = self.root / "run.json"
        results.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-p", "spec._kit.plugin", "-p", "no:cacheprovider"]
        command += ["-c", str(self.root / "pytest.ini"), f"--spec-root={self.root}", f"--spec-json={results}"]
        command += [f"--loop={loop}" for loop in loops]
        command += [*arguments, *(str(self.root / path) for path in paths)]
        # No plugins but the kit: they cost more time than the tests.
        environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{self.root}"}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        run = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        document = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
        return Finished(run.returncode, run.stdout + run.stderr, document)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """An empty suite."""
    return Suite(tmp_path)
