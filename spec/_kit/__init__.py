"""Tools of the conformance suite: clauses, peers, timing and the pytest plugin (`spec._kit.plugin`)."""

from . import peers, timing
from .clauses import clause

__all__ = ["clause", "peers", "timing"]
