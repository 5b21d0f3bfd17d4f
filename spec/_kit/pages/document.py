"""Documents of runs, as `results.as_json` makes them: read from files, and checked before anything is made of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..clauses import LEVELS
from ..results import FORMAT

OUTCOMES = ("failed", "deviates", "passed", "skipped", "untested")
"""Worst first; the last two decide nothing."""

# What is read of a document. A key with "?" may be missing, that of "*" stands for any.
_LOOP = {"label?": str, "name?": str, "version?": str, "class?": str, "error?": str, "notes?": [str]}
_CLAUSE = {
    "id": str,
    "area": str,
    "level": LEVELS,
    "rule": str,
    "outcomes": {"*": {"outcome": OUTCOMES, "reason?": str, "saw?": [str]}},
}
_DOCUMENT = {
    "format": int,
    "suite?": str,
    "date?": str,
    "complete?": bool,
    "python?": str,
    "implementation?": str,
    "platform?": str,
    "loops": [_LOOP],
    "clauses": [_CLAUSE],
    "tests?": [{"id": str, "clauses": [str]}],
}


class DocumentError(Exception):
    """A file is not the result of a run, or lacks what is asked of it; the message says which and why."""


def read_document(path: Path) -> dict[str, Any]:
    """The document of a run. DocumentError where the file cannot be read or is no such document."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path}: not JSON ({error})") from error
    check(document, str(path))
    return dict(document)


def newest_document(folders: Iterable[Path]) -> dict[str, Any] | None:
    """The results that were written last, of `*.json` in `folders`; None where none of the files has any."""
    files = [path for folder in folders for path in folder.glob("*.json")]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        with contextlib.suppress(DocumentError):
            return read_document(path)
    return None


def check(document: Any, where: str) -> None:
    """DocumentError, which names `where`, unless `document` is the result of a run."""
    if not isinstance(document, dict) or not {"format", "loops", "clauses"} <= document.keys():
        raise DocumentError(f"{where}: not the result of a run (written by `run --json FILE`)")
    if document["format"] != FORMAT:
        raise DocumentError(f"{where}: has format {document['format']!r}, this version reads {FORMAT}")
    if wrong := _wrong(document, _DOCUMENT, ""):
        raise DocumentError(f"{where}: not the result of a run: {wrong}")
    for loop in document["loops"]:
        if not loop.get("error") and "label" not in loop:
            raise DocumentError(f"{where}: not the result of a run: a loop has no label")


def _wrong(value: Any, shape: Any, place: str) -> str:
    """What is wrong with `value`; empty where it has the shape."""
    if isinstance(shape, Mapping):
        return _wrong_table(value, shape, place)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place} is no list"
        found = (_wrong(element, shape[0], f"{place}[{number}]") for number, element in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(shape, tuple):
        return "" if value in shape else f"{place} is none of {', '.join(shape)}"
    return "" if isinstance(value, shape) else f"{place} is no {shape.__name__}"


def _wrong_table(value: Any, shape: Mapping[str, Any], place: str) -> str:
    if not isinstance(value, dict):
        return f"{place} is no table"
    for key, expected in shape.items():
        name = key.removesuffix("?")
        if name == "*":
            found = (_wrong(element, expected, f"{place}.{each}") for each, element in value.items())
            wrong = next(filter(None, found), "")
        elif name in value:
            wrong = _wrong(value[name], expected, f"{place}.{name}".removeprefix("."))
        else:
            wrong = "" if name != key else f"{place} has no {name}"
        if wrong:
            return wrong
    return ""
