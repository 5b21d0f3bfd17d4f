"""Event loops by name.

`NAME` stands for `NAME:new_event_loop`; `module:factory` names any other factory. A loop is looked at in a process
of its own, so that one that is missing, or that crashes on import, costs only itself.

    python loops.py NAME [--tls]        prints the version, or the reason why the loop cannot be used

With `--tls` a loop that does not serve TLS cannot be used.
"""

import asyncio
import contextlib
import importlib
import importlib.metadata
import platform
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# What is always measured, and what takes longer than it tells.
DEFAULT = "asyncio,uvloop,rloop,blazio,tokioloop"
ALL = "asyncio,uvloop,rloop,blazio,loopmini,talyn,veloxloop,uringcore,tokioloop"

# Where the factory is of a loop that has no `new_event_loop`.
FACTORIES = {"talyn": "Loop", "uringcore": "UringEventLoop"}


def split(text: str) -> list[str]:
    """The loop names in `text`, separated by commas or blanks, each once."""
    return list(dict.fromkeys(name for name in re.split(r"[,\s]+", text) if name))


def factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The callable that makes a loop of this name. Raises ImportError or AttributeError where there is none."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute or FACTORIES.get(module, "new_event_loop"))


def version(name: str) -> str:
    """Version of the package that holds the loop; CPython's for asyncio."""
    package = name.partition(":")[0].partition(".")[0]
    if package == "asyncio":
        return f"CPython {platform.python_version()}"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def available(names: list[str], *, tls: bool = False, left_out: dict[str, str] | None = None) -> dict[str, str]:
    """Name to version of the loops that can be made here; each other one is named on stderr with the reason.

    `tls`: only those that serve TLS. `left_out` is told the reasons, too.
    """
    found = {}
    for name in names:
        command = [sys.executable, str(Path(__file__).resolve()), name, *(["--tls"] if tls else [])]
        probe = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if probe.returncode == 0:
            found[name] = probe.stdout.strip()
        else:
            reason = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
            print(f"{name}: left out ({reason})", file=sys.stderr, flush=True)
            if left_out is not None:
                left_out[name] = reason
    if not found:
        raise SystemExit("none of these loops can be used: " + ", ".join(names))
    return found


async def serve_tls() -> None:
    """Open and close a TLS server. Raises what the loop raises."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
    server.close()


def main() -> None:
    """Make the loop named on the command line, close it, and print its version."""
    name, *flags = sys.argv[1:]
    with contextlib.closing(factory(name)()) as loop:
        if "--tls" in flags:
            loop.run_until_complete(serve_tls())
    print(version(name))


if __name__ == "__main__":
    main()
