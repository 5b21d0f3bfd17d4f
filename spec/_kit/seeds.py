"""The seed of a run: what its property tests explore. A new one each day, printed, and given again by `--spec-seed`.

Everything that a spec test draws by chance follows from it: the examples of hypothesis, and the fixture `dice`. The
tests of one run draw the same on each loop, so that loops are told apart by what they do. Other projects' tests in the
same run keep hypothesis' own seeds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from .loops import LoopUnderTest

if TYPE_CHECKING:
    from hypothesis import settings

SHRINKING = 5
"""Seconds that hypothesis has to make a failing example smaller: with its own five minutes, one that takes long to fail
would be a time-out, and would not be shown.
"""
_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--spec-seed`."""
    group = parser.getgroup("spec", "conformance of event loops")
    group.addoption(
        "--spec-seed",
        metavar="N",
        type=int,
        help="seed of what property tests draw (default: the day, as 20261231, in UTC; printed at the head of the run)",
    )


def seed_of(config: pytest.Config) -> int:
    """The seed of this run; the same at each call, midnight or not."""
    if _SEED not in config.stash:
        given = config.getoption("spec_seed", default=None)
        config.stash[_SEED] = int(datetime.now(UTC).strftime("%Y%m%d")) if given is None else int(given)
    return config.stash[_SEED]


def explored(max_examples: int) -> settings:
    """Settings for a property test of an area: so many examples, drawn by the seed of the run and by nothing else.

    There is no deadline, because a machine may be busy, and no database: what an earlier run found is in no seed.
    """
    # Imported here: most areas do without it.
    from hypothesis import HealthCheck, settings

    return settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the seed when the run begins."""
    seed_of(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print the seed, whatever -q says: without it a failure of a property test cannot be had again."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and not session.config.getoption("collectonly") and any(map(_is_spec, session.items)):
        reporter.write_line(f"spec seed: {seed_of(session.config)} (--spec-seed draws the same again)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Have hypothesis draw from the seed of the run, unless its own option gave another one."""
    core = sys.modules.get("hypothesis.core")
    engine = sys.modules.get("hypothesis.internal.conjecture.engine")
    if core is None or engine is None or not _is_spec(item):
        yield
        return
    seed, limit = core.global_force_seed, engine.MAX_SHRINKING_SECONDS
    if seed is None:
        core.global_force_seed = seed_of(item.config)
    engine.MAX_SHRINKING_SECONDS = SHRINKING
    try:
        yield
    finally:
        core.global_force_seed, engine.MAX_SHRINKING_SECONDS = seed, limit


@pytest.fixture
def dice(pytestconfig: pytest.Config) -> random.Random:
    """A generator of random numbers that starts from the seed of the run: for orders, sizes and data."""
    return random.Random(seed_of(pytestconfig))


def _is_spec(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and isinstance(callspec.params.get("loop_under_test"), LoopUnderTest)
