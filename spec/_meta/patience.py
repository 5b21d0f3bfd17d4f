"""A plugin for runs on mutants: only what was asked for is collected, and what is known to hang has little time."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

from spec._kit.schedule import Terms


class Hang(str):
    """The id of a test that hangs on its mutant, always or at times. It has `--hang` seconds."""

    __slots__ = ()


_WANTED = pytest.StashKey[dict[Path, set[str]]]()
_HANGS = pytest.StashKey[frozenset[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--hangs TEST`, an id below `spec/`, and `--hang SECONDS`."""
    group = parser.getgroup("mutants")
    group.addoption("--hangs", action="append", default=[], metavar="TEST", help="a test that hangs; repeatable")
    group.addoption("--hang", type=float, default=1.5, metavar="SECONDS", help="time-out of what hangs")


def pytest_configure(config: pytest.Config) -> None:
    """Note the functions that the ids on the command line are of. No failure needs to be made small."""
    hypothesis.settings.register_profile("mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile("mutants")
    config.stash[_HANGS] = frozenset(config.getoption("hangs"))
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
    for item in items:
        if _may_hang(item):
            item.add_marker(pytest.mark.timeout(config.getoption("hang")), append=False)


def pytest_loopspec_terms(item: pytest.Item, terms: Terms) -> Terms:
    """Alone at once, as it is to fail. A busy machine gives what may hang no more time: it would be waited for."""
    hangs = _may_hang(item)
    return replace(terms, deviates=True, hangs=hangs, stretches=not hangs)


def _may_hang(item: pytest.Item) -> bool:
    return item.nodeid.removeprefix("spec/") in item.config.stash[_HANGS]
