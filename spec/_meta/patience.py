"""A plugin for runs on mutants: only what was asked for is collected, and what is known to hang has little time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

from spec._kit import plugin
from spec._kit.isolation import Outcome
from spec._kit.schedule import Schedule, Terms, _Job, stretch

_WANTED = pytest.StashKey[dict[Path, set[str]]]()
_HANGS = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--hangs TEST`, an id below `spec/`, and `--hang SECONDS`."""
    group = parser.getgroup("mutants")
    group.addoption("--hangs", action="append", default=[], metavar="TEST", help="a test that hangs; repeatable")
    group.addoption("--hang", type=float, default=1.5, metavar="SECONDS", help="time-out of what hangs")


def pytest_configure(config: pytest.Config) -> None:
    """Note the functions that the ids on the command line are of. No failure needs to be made small."""
    hypothesis.settings.register_profile("mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile("mutants")
    plugin.Schedule = _Alone  # type: ignore[misc]
    wanted = config.stash[_WANTED] = {}
    for test in config.args:
        path, *_, name = test.partition("[")[0].split("::")
        wanted.setdefault(Path(path), set()).add(name)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    """Make nothing of any other function: each would be parametrised with all the loops, then thrown away."""
    unwanted = inspect.isfunction(obj) and name not in collector.config.stash[_WANTED].get(collector.path, ())
    return [] if unwanted else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the short time-out before any other mark."""
    hangs = set(config.getoption("hangs"))
    for item in items:
        if item.nodeid.removeprefix("spec/") in hangs:
            item.add_marker(pytest.mark.timeout(config.getoption("hang")), append=False)
            item.stash[_HANGS] = True


class _Alone(Schedule):
    """Every test alone in its child at once, as it is to fail, with its time-out however many others have hung."""

    def __init__(
        self,
        items: Iterable[pytest.Item],
        workers: int,
        terms: Callable[[pytest.Item], Terms],
        done: Callable[[pytest.Item, Outcome], None],
    ) -> None:
        super().__init__(items, workers, lambda item: replace(terms(item), deviates=True, hangs=True), done)

    def _timeout(self, job: _Job, item: pytest.Item) -> float:
        """A busy machine gives what is known to hang no more time: the fixture `run` would end it first."""
        timeout = super()._timeout(job, item)
        return timeout / stretch() if item.stash.get(_HANGS, False) else timeout
