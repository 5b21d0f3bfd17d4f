"""`python -m tokioloop script.py` and `python -m tokioloop -m module`: run an asyncio program on `TokioLoop`.

The program is not changed: whatever asks asyncio for a new loop (`asyncio.run`, `Runner`, `new_event_loop`) gets a
`TokioLoop`. It sees what it would see under `python script.py` or `python -m module`: `sys.argv`, `sys.path[0]`, its
own `__main__`, its own tracebacks and exit status.
"""

from __future__ import annotations

import asyncio
import io
import os
import pkgutil
import platform
import runpy
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import Any, NoReturn

import tokioloop

NAME = "python -m tokioloop"
USAGE = f"usage: {NAME} [-h] [--version] [--coalesce] (SCRIPT | -m MODULE) [ARGUMENT ...]"
HELP = f"""{USAGE}

Run an asyncio program, unchanged, on tokioloop.

  SCRIPT       a Python file, or a directory or zip file with a __main__.py
  -m MODULE    a module, as python -m
  ARGUMENT     goes to the program

  --coalesce   what is written in a turn of the loop leaves when the turn ends, in one send per connection
  -h, --help   show this help
  --version    show the versions of tokioloop and Python
"""


@dataclass
class Program:
    """Code to run as `__main__`, and what it finds there."""

    code: types.CodeType
    argv0: str
    path0: str | None
    """What `sys.path[0]` becomes; None leaves it."""
    names: dict[str, Any] = field(default_factory=dict)
    imported: bool = False
    """Is it a directory or zip file, which is on the path under `python -P` as well?"""


def main(arguments: list[str]) -> None:
    """Run the program that `arguments` name. SystemExit: 2 for bad usage or no such script, 1 for no such module."""
    factory = tokioloop.new_event_loop
    if arguments[:1] == ["--coalesce"]:
        factory, arguments = tokioloop.new_coalescing_event_loop, arguments[1:]
    match arguments:
        case ["-h" | "--help", *_]:
            print(HELP, end="")
        case ["--version", *_]:
            print("tokioloop", tokioloop.__version__, "on", platform.python_implementation(), platform.python_version())
        case ["-m"]:
            _refuse("-m needs the name of a module")
        case ["-m", module, *rest]:
            _run(_module, module, rest, factory)
        case [option, *_] if option.startswith("-"):
            _refuse(f"unknown option {option}")
        case [script, *rest]:
            _run(_script, script, rest, factory)
        case _:
            _refuse("a script or -m MODULE is needed")


def install(factory: Callable[[], asyncio.AbstractEventLoop] = tokioloop.new_event_loop) -> None:
    """Make what `factory` makes what asyncio makes when asked for a new loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if hasattr(asyncio, "set_event_loop_policy") and hasattr(tokioloop, "EventLoopPolicy"):
            asyncio.set_event_loop_policy(tokioloop.EventLoopPolicy(factory))
            return
    # No policies, from CPython 3.16 on. Runner looks the function up in asyncio.events each time.
    asyncio.new_event_loop = asyncio.events.new_event_loop = factory


def _script(path: str) -> Program:
    """A file, directory or zip file, as `python PATH` takes it."""
    full = os.path.abspath(path)
    importer = pkgutil.get_importer(full)
    if importer is not None:
        spec = importer.find_spec("__main__")
        get_code = getattr(spec and spec.loader, "get_code", None)
        code = get_code and get_code("__main__")
        if spec is None or code is None:
            _fail(f"can't find '__main__' module in {path!r}", 1)
        return Program(code, argv0=path, path0=full, names=_names_of(spec), imported=True)
    try:
        with io.open_code(full) as file:
            source = file.read()
    except OSError as error:
        _fail(f"can't open file {full!r}: [Errno {error.errno}] {error.strerror}", 2)
    names = {"__file__": full, "__loader__": SourceFileLoader("__main__", full), "__package__": None, "__spec__": None}
    code = compile(source, full, "exec", dont_inherit=True)
    return Program(code, argv0=path, path0=os.path.dirname(os.path.realpath(full)), names=names)


def _module(name: str) -> Program:
    """A module, or the `__main__` of a package, as `python -m NAME` takes it."""
    try:
        _, spec, code = runpy._get_module_details(name, _NoModuleError)  # type: ignore[attr-defined]
    except _NoModuleError as error:
        _fail(str(error), 1)
    return Program(code, argv0=spec.origin or name, path0=None, names=_names_of(spec))


class _NoModuleError(Exception):
    """There is no such module to be run: what `runpy` raises, and no error of the module or its package."""


def _names_of(spec: ModuleSpec) -> dict[str, Any]:
    return {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__loader__": spec.loader,
        "__package__": spec.parent,
        "__spec__": spec,
    }


def _run(
    load: Callable[[str], Program],
    name: str,
    arguments: list[str],
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    try:
        program = load(name)
        install(factory)
        sys.argv[:] = [program.argv0, *arguments]
        if program.path0 is not None and not sys.flags.safe_path:
            sys.path[0] = program.path0
        elif program.path0 is not None and program.imported:
            sys.path.insert(0, program.path0)
        module = types.ModuleType("__main__")
        module.__dict__.update(program.names, __builtins__=__builtins__)
        # pickle and multiprocessing look there. This module lives on: the interpreter runs it.
        sys.modules["__main__"] = module
        exec(program.code, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        _cut(error)
        raise


def _cut(error: BaseException) -> None:
    """Show the error without the frames of this file, which the program knows nothing of.

    It goes on as it is, so that the interpreter does with it what it does for any program (Ctrl-C ends it by SIGINT);
    only what the last hook is given is cut.
    """
    theirs = error.__traceback__
    while theirs is not None and theirs.tb_frame.f_code.co_filename == _cut.__code__.co_filename:
        theirs = theirs.tb_next

    def excepthook(kind: type[BaseException], value: BaseException, traceback: types.TracebackType | None) -> None:
        sys.excepthook = hook
        if value is error:
            value, traceback = value.with_traceback(theirs), theirs
        hook(kind, value, traceback)

    hook, sys.excepthook = sys.excepthook, excepthook


def _refuse(message: str) -> NoReturn:
    print(USAGE, file=sys.stderr)
    _fail(message, 2)


def _fail(message: str, status: int) -> NoReturn:
    print(f"{NAME}: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
