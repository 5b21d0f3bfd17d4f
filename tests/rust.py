"""The Rust sources as text: their code without comments and strings, and which file needs which.

`python -m tests.rust` prints the files that need each other; with `--all` each file, too, and those it needs.

A file needs another one if it names that module, or something in it: by `use`, or by a path in the middle of code.
Unit tests at the end of a file do not count. Calls of methods are not followed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

# By a file's name, the files that it needs.
Graph = dict[str, set[str]]
# A module: the names that lead to it from the crate.
Module = tuple[str, ...]

# Raw strings, strings, characters (a lifetime has no closing quote), comments.
_TOKEN = re.compile(
    r"""(?P<string>\bb?r(?P<hashes>\#*)".*?"(?P=hashes)|(?:\bb)?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])')"""
    r"""|(?P<comment>//[^\n]*|/\*.*?\*/)""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Source:
    """A Rust file: its lines, and the same lines without comments and strings."""

    path: Path
    lines: list[str]
    code: list[str]

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def tests_begin(self) -> int:
        """The index of the line where the unit tests begin; they come last."""
        return next((at for at, line in enumerate(self.code) if line.strip() == "#[cfg(test)]"), len(self.code))

    def find(self, pattern: str, end: int | None = None) -> Iterator[tuple[int, str]]:
        """The lines (from 0) whose code has the pattern, up to `end`, and what was found."""
        for at, line in enumerate(self.code[:end]):
            if found := re.search(pattern, line):
                yield at, found[0]

    @property
    def module(self) -> Module:
        path = self.path.relative_to(ROOT / "src").with_suffix("")
        return path.parts[:-1] if path.name in {"mod", "lib"} else path.parts


def without_comments_and_strings(text: str) -> str:
    """Rust code with as many lines as `text` has."""

    def emptied(token: re.Match[str]) -> str:
        return ('""' if token["string"] else "") + "\n" * token[0].count("\n")

    return _TOKEN.sub(emptied, text)


@cache
def read(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, text.split("\n"), without_comments_and_strings(text).split("\n"))


def sources(folder: str) -> list[Source]:
    """The Rust files below a folder; there are some."""
    paths = sorted((ROOT / folder).rglob("*.rs"))
    assert paths, f"{folder} has no Rust files"
    return [read(path) for path in paths]


def imports() -> Graph:
    """The files of src/, each with those that it needs. The crate's own file, which lists the layers, is left out."""
    files = {source.module: source for source in sources("src") if source.module}
    return {source.name: set(_needed(source, files)) for source in files.values()}


def _needed(source: Source, files: dict[Module, Source]) -> Iterator[str]:
    code = "\n".join(source.code[: source.tests_begin()])
    inline = list(_inline_modules(code))
    # What a path may begin with: `crate`, `super`, a module below this one, one that a `use` brings in.
    begins: dict[str, Module] = {name: (name,) for name in ("crate", "super")}
    begins |= {module[-1]: ("crate", *module) for module in files if module[:-1] == source.module}
    done = 0
    while done < len(begins):
        names, done = list(begins)[done:], len(begins)
        for path in re.finditer(rf"(?<![\w:])(?:{'|'.join(names)})\s*::", code):
            here = source.module + tuple(name for name, begin, end in inline if begin <= path.start() < end)
            for segments, known_as in _tree(code, path.start()):
                whole = _resolved((*begins[segments[0]], *segments[1:]), here)
                module = next((whole[:end] for end in range(len(whole), 0, -1) if whole[:end] in files), ())
                if module and module == whole:
                    begins.setdefault(known_as, ("crate", *module))
                if module and files[module] is not source:
                    yield files[module].name


def _inline_modules(code: str) -> Iterator[tuple[str, int, int]]:
    """The modules that have their code in this file: name, begin, end."""
    for module in re.finditer(r"\bmod\s+(\w+)\s*\{", code):
        depth, end = 1, module.end()
        while depth and end < len(code):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        yield module[1], module.start(), end


def _resolved(names: Module, here: Module) -> Module:
    if names[0] == "crate":
        return names[1:]
    ups = next((at for at, name in enumerate(names) if name != "super"), len(names))
    return here[: len(here) - ups] + names[ups:]


def _tree(code: str, at: int) -> Iterator[tuple[Module, str]]:
    """The paths of the tree of names that begins there, `a::b` or `a::{b, c::{d}}`, each with what it is known as."""
    names: list[str] = []
    while name := re.compile(r"\s*(\w+)\s*").match(code, at):
        names += [] if name[1] == "self" else [name[1]]
        at = name.end()
        if not code.startswith("::", at):
            break
        at += 2
        if brace := re.compile(r"\s*\{").match(code, at):
            for part in _parts(code, brace.end()):
                for rest, known_as in _tree(part, 0):
                    yield (*names, *rest), known_as or names[-1]
            return
    alias = re.compile(r"as\s+(\w+)").match(code, at)
    yield tuple(names), alias[1] if alias else "".join(names[-1:])


def _parts(code: str, at: int) -> Iterator[str]:
    """What stands between commas, up to the closing brace."""
    depth, begin = 0, at
    for end in range(at, len(code)):
        if depth == 0 and code[end] in ",}":
            if code[begin:end].strip():
                yield code[begin:end]
            begin = end + 1
            if code[end] == "}":
                return
        depth += {"{": 1, "}": -1}.get(code[end], 0)


def circles(graph: Graph) -> list[list[str]]:
    """The sets of files of which each needs all others, by way of some; largest first."""
    reached = {name: _reached(graph, name) for name in graph}
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted((sorted(circle) for circle in found if circle), key=lambda circle: (-len(circle), circle))


def _reached(graph: Graph, name: str) -> set[str]:
    """What a file needs, by way of others, too."""
    reached: set[str] = set()
    left = list(graph[name])
    while left:
        if (other := left.pop()) not in reached:
            reached.add(other)
            left += graph.get(other, ())
    return reached


def folder_circles(graph: Graph) -> list[list[str]]:
    """Circles of what stands side by side in a folder, files and folders, in which there is a folder.

    A module's own file (`x.rs`, or `x/mod.rs`) belongs to its folder `x`, and to no folder below that.
    """
    folders = {parent for name in graph for parent in PurePosixPath(name).parents if parent.name}
    entries: dict[PurePosixPath, Graph] = {}
    for name, needed in graph.items():
        for other in needed:
            for mine, theirs in zip(pairwise(_way(name)), pairwise(_way(other)), strict=False):
                if mine[1] != theirs[1]:
                    side_by_side = entries.setdefault(mine[0], {})
                    side_by_side.setdefault(str(theirs[1]), set())
                    side_by_side.setdefault(str(mine[1]), set()).add(str(theirs[1]))
                    break
    return [
        circle
        for side_by_side in entries.values()
        for circle in circles(side_by_side)
        if any(PurePosixPath(entry) in folders for entry in circle)
    ]


def _way(name: str) -> list[PurePosixPath]:
    """The folders from the outermost on, and the file, by what it is in its folder."""
    path = PurePosixPath(name).with_suffix("")
    if path.name == "mod":
        path = path.parent
    return [PurePosixPath(), *reversed(path.parents[:-1]), path]


def _lines(graph: Graph, everything: bool) -> Iterable[str]:
    if everything:
        for name, needed in sorted(graph.items()):
            yield f"{name}: {' '.join(sorted(needed)) or '-'}"
    for circle in circles(graph):
        yield f"circle of {len(circle)} files: {' '.join(circle)}"
    for circle in folder_circles(graph):
        yield f"circle with a folder: {' '.join(circle)}"


if __name__ == "__main__":
    print("\n".join(_lines(imports(), "--all" in sys.argv[1:])))
