"""Every public method and attribute of a loop and of what it hands out has a clause that decides it."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from spec._kit import surface
from spec._kit.clauses import Clause, SpecError

CLAUSES = surface.all_clauses(surface.ROOT)
SAMPLE = Clause(id="tcp.topic.rule", area="tcp", level="must", rule="A rule.", cite="nowhere", since="3.11")


def sample(**values: object) -> Clause:
    return dataclasses.replace(SAMPLE, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", surface.SURFACE)
def test_every_name_of_the_surface_has_a_clause(name):
    found = surface.clauses_by_name(CLAUSES)[name]
    assert [clause for clause in found if clause.since_version <= surface.SINCE.get(name, (3, 11))], (
        f"no clause decides {name} on each CPython that has it"
    )


def test_the_surface_is_what_this_python_has():
    younger = {name for name, since in surface.SINCE.items() if sys.version_info < since}
    assert surface.names_of_this_python() == set(surface.SURFACE) - surface.ELSEWHERE - younger


def test_the_file_is_what_the_clauses_make_of_it():
    """`python -m spec._kit.surface` writes it."""
    assert (surface.ROOT / "SURFACE.md").read_text(encoding="utf-8") == surface.render(CLAUSES)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"covers": ("Handle.cancel", "loop.time")}, {"Handle.cancel", "loop.time"}),
        ({"cite": "https://docs.python.org/3/library/x.html#asyncio.loop.stop"}, {"loop.stop"}),
        ({"cite": "https://docs.python.org/3/library/x.html#asyncio.run"}, set()),
        ({"cite": "CPython, Lib/asyncio/base_events.py, BaseEventLoop.stop"}, {"loop.stop"}),
        ({"cite": "CPython, Lib/asyncio/selector_events.py, _SelectorSocketTransport.abort"}, {"WriteTransport.abort"}),
        ({"cite": "CPython, Lib/asyncio/events.py, Handle._run"}, set()),
        ({"rule": "add_reader() and not remove_reader, nor x.call_soon()."}, {"loop.add_reader"}),
        ({"rule": "close() of a transport."}, {"BaseTransport.close"}),
        ({"rule": "close() of a server.", "id": "tcp.server.rule"}, {"Server.close"}),
        ({"rule": "close() of a loop.", "id": "lifecycle.topic.rule", "area": "lifecycle"}, {"loop.close"}),
    ],
)
def test_a_clause_tells_what_it_decides(values, names):
    assert surface.covered(sample(**values)) == names


def test_a_clause_covers_only_what_asyncio_has():
    with pytest.raises(SpecError, match=r"tcp\.topic\.rule: covers 'loop\.no_such'"):
        surface.covered(sample(covers=("loop.no_such",)))


def test_a_rule_that_areas_share_is_written_once():
    clauses = [sample(id=f"{area}.topic.rule", area=area, covers=("loop.time",)) for area in ("tcp", "tls", "unix")]
    text = surface.render([*clauses, sample(id="tcp.topic.other", rule="Another.", covers=("loop.time",))])
    assert "| `loop.time` | 4 | **tcp** topic.rule (tls, unix), topic.other |" in text
