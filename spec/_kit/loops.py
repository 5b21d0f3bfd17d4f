"""Loops under test: from a name on the command line to a factory, a label and a version.

A loop is made for the first time in a forked child (`probe`), so that one that crashes or hangs while it is made costs
no run, and so that this process, which forks the children that run tests, never holds a loop, its descriptors or its
threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import leaks
from .probe import describe_status, factory_of, label_of, lazy_factory_of, probe

__all__ = ["LoopError", "LoopUnderTest", "MissingLoop", "describe_status", "find_all", "label_of"]


class LoopError(Exception):
    """The loop asked for cannot be had; the message says which and why."""


@dataclass(frozen=True)
class LoopUnderTest:
    """A loop by the name it was asked for, the label its results go by, and how to make one.

    `notes`: what making it does beside, a line each.
    """

    name: str
    label: str
    class_name: str
    version: str
    factory: Callable[[], asyncio.AbstractEventLoop]
    notes: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Is this the loop that was asked for by `name`, or that has this label?"""
        return name.lower() in (self.name.lower(), self.label.lower())

    def notes_told(self) -> list[str]:
        """The notes, in words for a terminal."""
        return [f"note: loop {self.name!r}: {note}" for note in self.notes]


@dataclass(frozen=True)
class MissingLoop:
    """A loop that cannot be had, by the name it was asked for, and why, in one line."""

    name: str
    error: str

    def is_called(self, name: str) -> bool:
        """Is this the loop that was asked for by `name`?"""
        return name.lower() == self.name.lower()

    def __str__(self) -> str:
        return f"loop {self.name!r}: {self.error}"


def find_all(names: Iterable[str]) -> tuple[list[LoopUnderTest], list[MissingLoop]]:
    """Resolve `NAME` (= `NAME:new_event_loop`) or `module:factory`, in order, doubles dropped: those that can be had,
    and those that cannot.

    LoopError where two have one label.
    """
    found: dict[str, LoopUnderTest] = {}
    missing: list[MissingLoop] = []
    for name in dict.fromkeys(names):
        loop = _find(name)
        if isinstance(loop, MissingLoop):
            missing.append(loop)
        elif loop.label in found:
            raise LoopError(f"loops {found[loop.label].name!r} and {name!r} have the same label, {loop.label!r}")
        else:
            found[loop.label] = loop
    return list(found.values()), missing


def _find(name: str) -> LoopUnderTest | MissingLoop:
    module, colon, attribute = name.partition(":")
    attribute = attribute if colon else "new_event_loop"
    if not module or not attribute:
        return MissingLoop(name, "expected NAME or module:factory")
    facts = probe(module, attribute)
    if facts.error:
        return MissingLoop(name, facts.error)
    factory = (lazy_factory_of if facts.lazily else factory_of)(module, attribute)
    return LoopUnderTest(
        name=name,
        label=facts.label,
        class_name=facts.class_name,
        version=facts.version,
        factory=leaks.tracked(factory),
        notes=facts.notes,
    )
