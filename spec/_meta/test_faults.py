"""Each loop of the museum fails the clause of its own: `spec/_meta/faults`."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

from spec._kit.clauses import load_area
from spec._meta.faults import FOLDER, Fault, faults
from spec._meta.mutation import Mutation, MutationTests
from spec._meta.patience import Hang

FAULTS = faults()
# What none of them breaks: a loop that fails everything shows nothing.
HARMLESS = "callbacks/test_tasks.py::test_name_and_context_reach_the_task[{}]"


def module_of(fault: Fault) -> ModuleType:
    """The module that a loop of the museum is in."""
    return importlib.import_module(f"spec._meta.faults.{fault.module}")


def mutation_of(name: str) -> Mutation:
    """The loops of one module, and the tests that they fail."""
    own = [fault for fault in FAULTS if fault.module == name]
    kinds = {fault.loop: Hang if fault.hangs else str for fault in own}
    return Mutation(
        module_of(own[0]), {fault.loop: [kinds[fault.loop](test) for test in fault.tests] for fault in own}, HARMLESS
    )


MUTATIONS = {name: mutation_of(name) for name in dict.fromkeys(fault.module for fault in FAULTS)}


class TestFaults(MutationTests):
    mutations = MUTATIONS


def test_every_module_of_loops_is_tried():
    """But for the loops that break their process: `test_breakers.py`."""
    modules = {path.stem for path in FOLDER.glob("[!_]*.py") if "\nclass Spec" in path.read_text(encoding="utf-8")}
    assert modules - {"breakers"} == MUTATIONS.keys()


def test_no_two_loops_have_one_name():
    """The results go by it."""
    names = [fault.loop for fault in FAULTS]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.loop)
def test_a_loop_says_what_it_stands_for_and_its_test_is_of_its_clause(fault):
    text = inspect.getdoc(getattr(module_of(fault), fault.loop)) or ""
    assert "\n\nStands for " in text
    root = FOLDER.parent.parent
    area, _, rule = fault.clause.partition(".")
    assert fault.clause in load_area(root, area)
    for test in fault.tests:
        path, *_, name = test.partition("[")[0].split("::")
        if path.endswith("test_contract.py"):
            sources = sorted((root / "_kit" / "contracts" / "rules").glob("*.py"))
            wanted, name = f'"{rule}"', name.removeprefix("test_")
        else:
            sources, wanted = [root / path], f'"{fault.clause}"'
        marks = [before_of(source.read_text(encoding="utf-8"), name) for source in sources]
        assert any(wanted in mark for mark in marks)


def before_of(text: str, name: str) -> str:
    """The decorators of a function, in the text of its module."""
    before, found, _ = text.partition(f"def {name}(")
    return before.rpartition("\n\n\n")[2] if found else ""
