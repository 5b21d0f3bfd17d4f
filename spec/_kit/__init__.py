"""Tools of the conformance suite: clauses, peers, programs, timing and the pytest plugin (`spec._kit.plugin`)."""

from . import cycles, peers, programs, timing
from .clauses import clause

__all__ = ["clause", "cycles", "peers", "programs", "timing"]
