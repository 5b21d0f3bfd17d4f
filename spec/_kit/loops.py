"""Loops under test: from a name on the command line to a factory, a label and a version.

A loop is made for the first time in a forked child, so that one that crashes or hangs while it is made costs no run,
and so that this process, which forks once per test, never holds a loop, its descriptors or its threads.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass

from . import leaks

MAKE_TIMEOUT = 20.0
"""Seconds a loop may take to be imported, made and closed."""


class LoopError(Exception):
    """The loop asked for cannot be had; the message says which and why."""


@dataclass(frozen=True)
class LoopUnderTest:
    """A loop by the name it was asked for, the label its results go by, and how to make one."""

    name: str
    label: str
    class_name: str
    version: str
    factory: Callable[[], asyncio.AbstractEventLoop]


def find(names: list[str]) -> list[LoopUnderTest]:
    """Resolve `NAME` (= `NAME:new_event_loop`) or `module:factory`, in order, doubles dropped.

    LoopError where one cannot be imported or made, or where two have one label.
    """
    found: dict[str, LoopUnderTest] = {}
    for name in dict.fromkeys(names):
        loop = _find(name)
        if loop.label in found:
            raise LoopError(f"loops {found[loop.label].name!r} and {name!r} have the same label, {loop.label!r}")
        found[loop.label] = loop
    return list(found.values())


def label_of(cls: type) -> str:
    """The class name where it starts with its top module's name, ignoring case; else that module's name."""
    top = cls.__module__.partition(".")[0]
    return cls.__name__ if top != "asyncio" and cls.__name__.lower().startswith(top.lower()) else top


def _find(name: str) -> LoopUnderTest:
    module, colon, attribute = name.partition(":")
    attribute = attribute if colon else "new_event_loop"
    if not module or not attribute:
        raise LoopError(f"loop {name!r}: expected NAME or module:factory")
    facts = _probe(module, attribute)
    if "error" in facts:
        raise LoopError(f"loop {name!r}: {facts['error']}")
    return LoopUnderTest(
        name=name,
        label=facts["label"],
        class_name=facts["class"],
        version=facts["version"],
        factory=leaks.tracked(_factory(module, attribute)),
    )


def _factory(module: str, attribute: str) -> Callable[[], asyncio.AbstractEventLoop]:
    factory = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    if not callable(factory):
        raise TypeError(f"{module}:{attribute} is not callable")
    return factory


def _probe(module: str, attribute: str) -> dict[str, str]:
    """Import, make and close the loop in a child; what it says of itself, or `error`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            facts = _facts(module, attribute)
        except BaseException as error:
            facts = {"error": f"{type(error).__name__}: {error}"}
        try:
            os.write(writing, json.dumps(facts).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(writing)
    readable: list[int] = []
    said = b""
    try:
        readable, _, _ = select.select([reading], [], [], MAKE_TIMEOUT)
        said = os.read(reading, 65_536) if readable else b""
    finally:
        os.close(reading)
        if not readable:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if said:
        return dict(json.loads(said))
    if not readable:
        return {"error": f"making it took more than {MAKE_TIMEOUT:g} s"}
    return {"error": f"making it ended the process: {describe_status(status)}"}


def describe_status(status: int) -> str:
    """A wait status in words: `crashed (signal 11)` or `exited with status 3`."""
    code = os.waitstatus_to_exitcode(status)
    return f"crashed (signal {-code})" if code < 0 else f"exited with status {code}"


def _facts(module: str, attribute: str) -> dict[str, str]:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return {"error": f"module {module!r} cannot be imported ({error})"}
    loop = _factory(module, attribute)()
    cls = type(loop)
    loop.close()
    return {"label": label_of(cls), "class": f"{cls.__module__}.{cls.__qualname__}", "version": _version(cls)}


def _version(cls: type) -> str:
    top = cls.__module__.partition(".")[0]
    if top == "asyncio":
        return platform.python_version()
    distributions = importlib.metadata.packages_distributions().get(top, [])
    if distributions:
        return importlib.metadata.version(distributions[0])
    return str(getattr(importlib.import_module(top), "__version__", "unknown"))
