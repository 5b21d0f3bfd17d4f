"""A badge of a loop: its musts, as an SVG of the usual shape and as the JSON of shields' endpoint badge.

https://shields.io/badges/endpoint-badge: schemaVersion, label, message, color.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .document import DocumentError
from .markup import escape, plain
from .report import ROOT, Report

LABEL = "asyncio conformance"
_COLORS = {"brightgreen": "#2f8132", "yellow": "#a06a00", "red": "#b3261e", "lightgrey": "#5f6770"}
# Widths of Verdana's glyphs at 11 px, by what they look like; the text is fitted to what is made of them.
_WIDTHS = {**dict.fromkeys("ijl.,:;'|!I ", 4.2), **dict.fromkeys("frt()/-", 4.9), **dict.fromkeys("mwMW%@", 10.6)}


@dataclass(frozen=True)
class Badge:
    """What a badge says. `color` is one of shields' names."""

    message: str
    color: str
    label: str = LABEL

    @classmethod
    def of(cls, report: Report, label: str) -> Badge:
        """The badge of a loop; of several columns, that of the one with the fewest musts passed.

        Of a run of some areas only, it names them or says how many of all they are.
        """
        counts = min((report.count(column, "must") for column in report.of(label)), key=lambda counts: counts.passed)
        message = f"{counts.ratio} musts"
        if report.areas_not_run:
            areas = report.areas
            of_all = f"{len(areas)} of {len(report.suite_areas)} areas"
            message = f"{', '.join(areas) if len(areas) <= 2 else of_all}: {message}"
        if not counts.passed:
            color = "lightgrey" if counts.worst in ("untested", "skipped") else "red"
        elif counts.by_outcome["failed"] or counts.passed < 0.9 * counts.total:
            color = "red"
        elif counts.by_outcome["deviates"] or counts.by_outcome["untested"]:
            color = "yellow"
        else:
            color = "brightgreen"
        return cls(message, color)

    @property
    def alt(self) -> str:
        """The badge in words."""
        return f"{self.label}: {self.message}"

    def endpoint(self) -> str:
        """The JSON that shields' endpoint badge reads."""
        content = {"schemaVersion": 1, "label": self.label, "message": plain(self.message), "color": self.color}
        return json.dumps(content, indent=1) + "\n"

    def svg(self) -> str:
        """The badge as an SVG document."""
        left, right = (round(_width(text)) + 12 for text in (self.label, self.message))
        width = left + right
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
            f'aria-label="{escape(self.alt)}">\n'
            f"<title>{escape(self.alt)}</title>\n"
            f'<clipPath id="shape"><rect width="{width}" height="20" rx="3"/></clipPath>\n'
            f'<g clip-path="url(#shape)"><rect width="{left}" height="20" fill="#444b53"/>'
            f'<rect x="{left}" width="{right}" height="20" fill="{_COLORS[self.color]}"/></g>\n'
            f'<g fill="#fff" text-anchor="middle" font-family="Verdana,\'DejaVu Sans\',sans-serif" font-size="11">\n'
            f"{_text(self.label, left / 2, left - 12)}\n{_text(self.message, left + right / 2, right - 12)}\n"
            "</g>\n</svg>\n"
        )


def write_badge(document: dict[str, Any], loop: str | None, file: Path, root: Path = ROOT) -> None:
    """Write the badge of `loop` (None: the only one there is) to `file` and, ending in .json, beside it.

    DocumentError where the document does not have the loop, or has several and none is named.
    """
    badge = badge_of(Report([document], root), loop)
    for path, text in ((file, badge.svg()), (file.with_suffix(".json"), badge.endpoint())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def badge_of(report: Report, loop: str | None) -> Badge:
    """The badge of `loop`, named in any case; of the only one where it is None. DocumentError as `write_badge`."""
    return Badge.of(report, chosen_loop(report.labels, loop))


def chosen_loop(labels: Sequence[str], loop: str | None) -> str:
    """The label that `loop` names."""
    there = f"there {'is' if len(labels) == 1 else 'are'} {', '.join(labels) or 'none'}"
    if loop is None:
        if len(labels) != 1:
            raise DocumentError(f"which loop? {there}")
        return labels[0]
    for label in labels:
        if label.lower() == loop.lower():
            return label
    raise DocumentError(f"loop {loop!r} is not in the results; {there}")


def _text(text: str, middle: float, length: float) -> str:
    return f'<text x="{middle:g}" y="14" textLength="{length:g}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'


def _width(text: str) -> float:
    return sum(_WIDTHS.get(letter, 6.9) for letter in text)
