"""Fixtures of our own tests: Python in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import support

# It knows the options in pyproject.toml that are the suite's.
pytest_plugins = ("spec._kit.plugin",)

ROOT = Path(__file__).resolve().parent.parent

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def loop() -> Iterator[Any]:
    """A loop that lives through the test."""
    loop = support.new_loop()
    yield loop
    loop.close()


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """`run_python(*arguments, **environment)`: this interpreter, in an empty directory."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        # Warnings are part of what a user sees; a coverage or debug setting of this process is not.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=kept | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
