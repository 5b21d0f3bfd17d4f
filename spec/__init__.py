"""Conformance suite for asyncio event loops; `python -m spec --help`, or spec/README.md.

Installed, it is called `loopspec`. `loopspec.clause` is the mark, and `pytest -p loopspec.plugin` brings the fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._kit import clause, cycles, peers, programs, timing

__all__ = ["__version__", "clause", "cycles", "peers", "programs", "timing"]

__version__ = "2026.11"
"""Year and month of the release."""


def __getattr__(name: str) -> Any:
    """The kit's public names, imported when they are asked for: pytest imports this module wherever it is installed."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _kit

    return getattr(_kit, name)
