"""Event loops by name.

`NAME` stands for `NAME:new_event_loop`; `module:factory` names any other factory. A loop is looked at in a process
of its own, so that one that is missing, or that crashes on import, costs only itself.

    python loops.py NAME        prints the version, or the reason why the loop cannot be used
"""

import asyncio
import importlib
import importlib.metadata
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

DEFAULT = "asyncio,uvloop,rloop,tokioloop"


def split(text: str) -> list[str]:
    """The loop names in `text`, separated by commas or blanks, each once."""
    return list(dict.fromkeys(name for name in re.split(r"[,\s]+", text) if name))


def factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The callable that makes a loop of this name. Raises ImportError or AttributeError where there is none."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute or "new_event_loop")


def version(name: str) -> str:
    """Version of the package that holds the loop; CPython's for asyncio."""
    package = name.partition(":")[0].partition(".")[0]
    if package == "asyncio":
        return f"CPython {platform.python_version()}"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def available(names: list[str]) -> dict[str, str]:
    """Name to version of the loops that can be made here; each other one is named on stderr with the reason."""
    found = {}
    for name in names:
        command = [sys.executable, str(Path(__file__).resolve()), name]
        probe = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if probe.returncode == 0:
            found[name] = probe.stdout.strip()
        else:
            reason = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
            print(f"{name}: left out ({reason})", file=sys.stderr, flush=True)
    if not found:
        raise SystemExit("none of these loops can be used: " + ", ".join(names))
    return found


def main() -> None:
    """Make the loop named on the command line, close it, and print its version."""
    name = sys.argv[1]
    factory(name)().close()
    print(version(name))


if __name__ == "__main__":
    main()
