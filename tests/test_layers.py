"""The rules of the house that no compiler checks: what a layer may mention, where unsafe code is, how long files are.

The checks read the sources. Code is looked at without its comments and the contents of its strings; what stands in them
is for readers.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.rust import ROOT, Source, circles, folder_circles, imports, read, sources, without_comments_and_strings

MAX_LINES = 600
# Files that need each other are read together.
MAX_CIRCLE = 4

CORE_FORBIDS = {
    r"\bcrate::(io|py|sim)\b": "an outer layer, or the simulator",
    r"\b(tokio|socket2|libc|pyo3)\b": "a crate: core is std only",
    r"\bstd::(env|fs|io|net|os|process|sync|thread)\b": "the world outside: core is told what happened there",
    r"\b(Instant|SystemTime)\b": "a clock: time is an argument",
    r"\b(Mutex|RwLock|Condvar|OnceLock|LazyLock|Atomic\w+)\b": "a lock or an atomic: core has one owner",
    r"\bunsafe\b": "unsafe code",
}
# The simulator knows `core` only, and has its whole world in its own memory.
SIM_FORBIDS = {r"\bcrate::(io|py)\b": "a layer that it stands in for"} | {
    what: why for what, why in CORE_FORBIDS.items() if "crate::" not in what
}
IO_FORBIDS = {
    r"\bcrate::(py|sim)\b": "an outer layer, or the simulator",
    r"\b(pyo3|PyO3|PyObject|PyErr|PyResult|Py<)": "Python",
}
PY_FORBIDS = {r"\bcrate::sim\b": "the simulator"}


def mentions(folder: str, forbidden: dict[str, str]) -> list[str]:
    return [
        f"{source.name}:{at + 1}: {found}: {why}"
        for source in sources(folder)
        for pattern, why in forbidden.items()
        for at, found in source.find(pattern)
    ]


def fences() -> list[str]:
    """The files with unsafe code, by the table in ARCHITECTURE.md, under "Fences"."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    section = re.search(r"(?ms)^## Fences\n(.*?)(?=^## |\Z)", text)
    assert section, "ARCHITECTURE.md has no section 'Fences'"
    listed = re.findall(r"(?m)^\| `(src/[\w/]+\.rs)` \|", section[1])
    assert listed, "ARCHITECTURE.md: the table under 'Fences' lists no `src/...rs`"
    return listed


def is_justified(source: Source, at: int) -> bool:
    """Is there a `// SAFETY:` on the line, or above its statement?"""
    if "// SAFETY:" in source.lines[at]:
        return True
    for above in range(at - 1, -1, -1):
        line = source.lines[above].strip()
        if line.startswith("//"):
            if "SAFETY:" in line:
                return True
        elif line.endswith((";", "{", "}")) or not line:
            return False
    return False


def has_reason(source: Source, at: int) -> bool:
    """Is there a comment on the line, or on the one above its statement?"""
    for line in (at, at - 1, at - 2):
        if line >= 0 and "//" in source.lines[line]:
            return True
        if line != at and source.code[line].rstrip().endswith((";", "}")):
            return False
    return False


def shown(findings: list[str]) -> str:
    return "\n" + "\n".join(findings)


def test_core_mentions_nothing_but_itself_and_std_without_the_world():
    found = mentions("src/core", CORE_FORBIDS)
    assert not found, shown(found)


def test_io_mentions_no_python():
    found = mentions("src/io", IO_FORBIDS)
    assert not found, shown(found)


def test_the_simulator_knows_core_only():
    found = mentions("src/sim", SIM_FORBIDS)
    assert not found, shown(found)


def test_nothing_that_ships_knows_the_simulator():
    found = mentions("src/py", PY_FORBIDS)
    assert not found, shown(found)


@pytest.mark.parametrize("module", ["core", "sim"])
def test_the_compiler_forbids_unsafe_code_outside_of_io_and_py(module: str):
    lines = read(ROOT / "src/lib.rs").lines
    assert lines[lines.index(f"pub mod {module};") - 1] == "#[forbid(unsafe_code)]"


def test_unsafe_code_is_in_the_fenced_files_only():
    fenced = set(fences())
    having = {source.name for source in sources("src") if any(source.find(r"\bunsafe\b"))}
    assert having == fenced, (
        f"unsafe code outside the files that ARCHITECTURE.md lists: {sorted(having - fenced)}; "
        f"listed, but without unsafe code: {sorted(fenced - having)}"
    )


@pytest.mark.parametrize("layer", ["io", "py"])
def test_the_compiler_denies_unsafe_code_in_every_module_without_a_fence(layer: str):
    fenced = {Path(path).stem for path in fences() if path.startswith(f"src/{layer}/")}
    source = read(ROOT / "src" / layer / "mod.rs")
    modules = [(at, re.sub(r".*\bmod (\w+);.*", r"\1", line)) for at, line in enumerate(source.code) if "mod " in line]
    modules = [(at, name) for at, name in modules if source.code[at].rstrip().endswith(";")]
    assert modules
    for at, name in modules:
        attributes = []
        while source.code[at - 1 - len(attributes)].startswith("#["):
            attributes.append(source.code[at - 1 - len(attributes)])
        denied = "#[deny(unsafe_code)]" in attributes
        assert denied != (name in fenced), f"{source.name}:{at + 1}: mod {name}: fenced: {name in fenced}"


def test_every_unsafe_block_says_why_it_is_sound():
    found = [
        f"{source.name}:{at + 1}: no // SAFETY: above"
        for source in sources("src")
        for at, _ in source.find(r"\bunsafe\s*(\{|impl\b|$)")
        if not is_justified(source, at)
    ]
    assert not found, shown(found)


def test_the_debug_of_what_is_shared_by_force_is_written_by_hand():
    # A derived one reads the fields, by whichever thread and without what makes sharing them sound.
    found = []
    for source in sources("src"):
        shared = [re.search(r"\bSync for (\w+)", line) for line in source.code if "unsafe impl" in line]
        for name in (match[1] for match in shared if match):
            [(at, _)] = source.find(rf"\b(struct|enum) {name}\b")
            attributes = itertools.takewhile(lambda line: line.startswith("#["), reversed(source.code[:at]))
            derived = [line for line in attributes if re.search(r"\bderive\(.*\bDebug\b", line)]
            found += [f"{source.name}:{at + 1}: {name}: {line}" for line in derived]
    assert not found, shown(found)


def test_nothing_unwraps_without_the_reason_why_it_cannot_fail():
    # The simulator and loom's models are for tests: there a panic is how they report.
    found = [
        f"{source.name}:{at + 1}: {what.strip()}: no comment above says why it cannot fail"
        for source in sources("src")
        if not source.name.startswith("src/sim/") and source.path.name != "model.rs"
        for at, what in source.find(
            r"\.(unwrap|expect|unwrap_err|expect_err)\(|\b(panic|unreachable|todo|unimplemented)!", source.tests_begin()
        )
        if not has_reason(source, at)
    ]
    assert not found, shown(found)


def test_no_result_is_dropped_by_an_underscore():
    found = [
        f"{source.name}:{at + 1}: let _ = drops whatever it is"
        for source in sources("src")
        for at, _ in source.find(r"\blet _ =", source.tests_begin())
    ]
    assert not found, shown(found)


def test_no_file_is_longer_than_it_can_be_read():
    folders = ["benchmarks", "fuzz/fuzz_targets", "spec", "src", "tests", "tokioloop"]
    paths = [
        path for folder in folders for path in sorted((ROOT / folder).rglob("*.*")) if path.suffix in {".rs", ".py"}
    ]
    assert paths
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in paths}
    found = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > MAX_LINES]
    assert not found, shown(found)


def test_few_files_need_each_other():
    found = [f"{len(circle)} files: {' '.join(circle)}" for circle in circles(imports()) if len(circle) > MAX_CIRCLE]
    assert not found, shown(found)


def test_no_folder_is_in_a_circle():
    found = [" ".join(circle) for circle in folder_circles(imports())]
    assert not found, shown(found)


def test_circles_of_imports_are_found():
    graph = {"a/x.rs": {"a/y.rs"}, "a/y.rs": {"b/z.rs"}, "b/z.rs": {"a/x.rs", "b/w.rs"}, "b/w.rs": set()}
    assert circles(graph) == [["a/x.rs", "a/y.rs", "b/z.rs"]]
    assert folder_circles(graph) == [["a", "b"]]
    # A module's own file and its folder are one.
    assert (
        folder_circles({"a.rs": {"a/x.rs"}, "a/x.rs": {"a.rs"}, "b/mod.rs": {"b/x.rs"}, "b/x.rs": {"b/mod.rs"}}) == []
    )


def test_an_import_is_found_however_it_is_written():
    graph = imports()
    # By `crate`, by `super` in a folder, in a tree of names, in an inline module, and in the middle of code by a name
    # that a `use` brought in.
    assert "src/core/fault.rs" in graph["src/core/stream.rs"]
    assert "src/core/drive/mod.rs" in graph["src/core/drive/stream.rs"]
    assert "src/core/stream.rs" in graph["src/core/tls.rs"]
    assert "src/py/errors.rs" in graph["src/py/mod.rs"]
    assert "src/core/drive/tls.rs" in graph["src/sim/tls/host.rs"]
    assert not graph["src/core/ready.rs"]


def test_no_test_sleeps_to_wait_for_something():
    # spec/_meta tests the time-outs of the suite: hanging is what its tests are about.
    paths = [path for folder in ("spec", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        if ROOT / "spec" / "_meta" not in path.parents
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"\btime\.sleep\(", line) and "# clause-delay" not in line
    ]
    assert not found, shown(found)


def test_the_checks_see_code_and_not_comments_or_strings():
    text = """\
        let a = "unsafe"; // unsafe
        let b = '"'; /* unsafe
        */ let c: &'static str = r#"un"safe unsafe"#;
        unsafe {}"""
    code = without_comments_and_strings(text).split("\n")
    assert [at for at, line in enumerate(code) if "unsafe" in line] == [3]
    assert "&'static str" in code[2]
