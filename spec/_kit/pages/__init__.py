"""How results and the specification are shown: terminal, Markdown, a static site, badges.

Everything here reads JSON documents of runs (`results.as_json`) and the suite's own files; nothing runs a test. A
clause is counted as passed only where its tests passed: what was skipped or not run is told apart, and so are levels.
"""

from .badge import write_badge
from .document import DocumentError, read_document
from .markdown import write_markdown
from .report import Report
from .site import write_html, write_specification

__all__ = [
    "DocumentError",
    "Report",
    "read_document",
    "write_badge",
    "write_html",
    "write_markdown",
    "write_specification",
]
