"""CPython's own asyncio tests pass on our loop as they do on stock asyncio, module by module (see `tests/cpython`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import support
from tests.cpython import __main__ as harness
from tests.cpython import exceptions

MODULES = exceptions.read().modules


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", MODULES)
def test_cpythons_own_tests_pass_as_on_stock_asyncio(module: str) -> None:
    command = [sys.executable, "-m", "tests.cpython", "--loop", support.LOOP, "--quick", "--module", module]
    done = subprocess.run(
        command,
        cwd=support.PROJECT,
        env=support.environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode == harness.NO_TESTS:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
