"""The suite is whole: clauses, tests, deviations and the neutrality of it all."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from spec._kit import clauses, deviations

ROOT = Path(clauses.__file__).resolve().parent.parent
AREAS = clauses.areas(ROOT)
SOURCES = sorted(path for path in ROOT.rglob("*.py"))
ALLOWED = {"pytest", "_pytest", "hypothesis", "trustme", "spec"}
"""What the suite may import besides the standard library."""
FIXED = {"Random", "seed", "settings"}
"""What fixes, or may fix, what a property test draws."""


@functools.cache
def known(area: str) -> dict[str, clauses.Clause]:
    return clauses.load_area(ROOT, area)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def slugs_in(path: Path) -> Iterator[str]:
    """Every string in `path` that looks like the id of a clause of some area."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            area, dot, _ = node.value.partition(".")
            if dot and area in AREAS and clauses.SLUG.fullmatch(node.value):
                yield node.value


@pytest.mark.parametrize("area", AREAS)
def test_clauses_are_well_formed(area):
    assert known(area), f"{area} has no clauses"
    for clause in known(area).values():
        assert clause.rule.endswith("."), f"{clause.id}: the rule is a sentence"


@pytest.mark.parametrize("area", AREAS)
def test_an_area_is_a_package_with_tests(area):
    assert (ROOT / area / "__init__.py").exists(), "test modules of two areas may have one name"
    assert list((ROOT / area).glob("test_*.py"))


def test_ids_are_unique():
    ids = [slug for area in AREAS for slug in known(area)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("area", AREAS)
def test_every_clause_has_a_test_and_every_test_known_clauses(area, collected):
    named = {slug for slugs in collected[area].values() for slug in slugs}
    assert set(known(area)) - named == set(), "clauses without a test"
    assert named - set(known(area)) == set(), "unknown clauses"
    assert [test for test, slugs in collected[area].items() if not slugs] == [], "tests without a clause"


@pytest.mark.parametrize("area", AREAS)
def test_tests_say_which_of_the_permitted_outcomes_they_saw(area, functions):
    """Every clause that permits several has a test that says so, for each of them, and in no other words."""
    for slug, clause in known(area).items():
        said, other = set(), False
        for code in functions.get(slug, ()):
            for outcome in outcomes_said(code, slug):
                said |= set(outcome or ())
                other |= outcome is None
        assert said <= set(clause.permits), f"{slug}: {said - set(clause.permits)} is not among its permits"
        assert other or said == set(clause.permits), f"{slug}: no test says {set(clause.permits) - said}"
        assert len(clause.permits) != 1, f"{slug}: one outcome is no choice"


def outcomes_said(code: types.CodeType, slug: str) -> Iterator[set[str] | None]:
    """What each call of saw() for the clause in a test may say; None where the source does not tell."""
    [test] = [
        node
        for node in ast.walk(tree_of(Path(code.co_filename)))
        if isinstance(node, ast.FunctionDef)
        if code.co_firstlineno == min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    ]
    names: dict[str, list[ast.expr]] = {}
    for node in ast.walk(test):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.setdefault(node.targets[0].id, []).append(node.value)
    for node in ast.walk(test):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "saw":
            name, outcome = node.args
            if isinstance(name, ast.Constant) and name.value in (slug, slug.partition(".")[2]):
                yield constants(outcome, names)


def constants(node: ast.expr, names: dict[str, list[ast.expr]]) -> set[str] | None:
    """The strings that an expression can come to; None where it is not made of constants and conditions."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            several = [body, orelse]
        case ast.Name(id=name) if name in names:
            several = names[name]
        case _:
            return None
    found = [constants(each, names) for each in several]
    return None if None in found else set().union(*(each or () for each in found))


@pytest.fixture(scope="module")
def functions(items) -> dict[str, set[types.CodeType]]:
    """The code of the tests of each clause."""
    found: dict[str, set[types.CodeType]] = {}
    for item in items:
        for slug in slugs_of(item):
            found.setdefault(slug, set()).add(inspect.unwrap(item.function).__code__)
    return found


def slugs_of(item: pytest.Item) -> set[str]:
    """The clauses that a test decides."""
    return {slug for mark in item.iter_markers("clause") for slug in mark.args}


@pytest.fixture(scope="module")
def collected(items) -> dict[str, dict[str, set[str]]]:
    """Clauses by test, by area."""
    found: dict[str, dict[str, set[str]]] = {area: {} for area in AREAS}
    for item in items:
        area = item.path.relative_to(ROOT).parts[0]
        found[area].setdefault(item.nodeid, set()).update(slugs_of(item))
    return found


@pytest.fixture(scope="module")
def items(pytestconfig) -> list[pytest.Function]:
    """All that pytest collects; on the standard library's loop."""
    found: list[pytest.Function] = []

    class Collector:
        @staticmethod
        def pytest_collection_finish(session):
            found.extend(session.items)

    arguments = [str(ROOT / area) for area in AREAS]
    options = ["--collect-only", "-qq", "--loop=asyncio", "-p", "no:cacheprovider"]
    status = pytest.main([*options, f"--rootdir={pytestconfig.rootpath}", *arguments], plugins=[Collector()])
    assert status == pytest.ExitCode.OK
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "deviations").glob("*.toml")), ids=lambda path: path.stem)
def test_deviations_name_known_clauses_with_reasons(path):
    assert path.stem == path.stem.lower()
    seen = set()
    for deviation in deviations.load(path):
        area = deviation.clause.partition(".")[0]
        assert area in AREAS and deviation.clause in known(area), f"unknown clause {deviation.clause}"
        assert len(deviation.reason.split()) > 3, f"{deviation.clause}: the reason says nothing"
        named = (deviation.clause, deviation.by_pattern)
        condition = (*named, deviation.python, deviation.platform, deviation.loop_version)
        assert condition not in seen, f"{deviation.clause} is there twice"
        seen.add(condition)


def test_no_must_deviates_on_the_standard_library():
    """A run of the standard library's loop then fails where a `must` does: every run of the project has one."""
    declared = deviations.load(deviations.path_of(ROOT, "asyncio"))
    levels = {slug: clause.level for area in AREAS for slug, clause in known(area).items()}
    assert [deviation.clause for deviation in declared if levels[deviation.clause] == "must"] == []
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert "asyncio" in project["tool"]["pytest"]["ini_options"]["spec_loops"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_suite_imports_nothing_of_a_loop(path):
    imported = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - ALLOWED == set()


def test_the_suite_names_no_loop():
    """Outside of deviations, the scripts that show them, prose and generated results."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    names = {path.stem for path in (ROOT / "deviations").glob("*.toml")} - {"asyncio"} | {project}
    pattern = re.compile("|".join(map(re.escape, sorted(names))), re.IGNORECASE)
    sources = [path for path in SOURCES if (ROOT / "evidence") not in path.parents]
    sources += [ROOT / area / "clauses.toml" for area in AREAS]
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize("area", AREAS)
def test_no_test_is_excused_but_by_a_deviation(area):
    for path in (ROOT / area).glob("*.py"):
        for node in ast.walk(tree_of(path)):
            name = getattr(node, "attr", getattr(node, "id", ""))
            assert name not in ("xfail", "importorskip"), f"{path.name}:{node.lineno}: {name}"


@pytest.mark.parametrize("area", AREAS)
def test_waits_are_for_events(area):
    """`time.sleep` only where a clause needs the delay, and the line says so."""
    for path in [*(ROOT / area).glob("*.py"), *(ROOT / "_kit").rglob("*.py")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
                assert "# clause-delay" in lines[node.lineno - 1], f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("area", AREAS)
def test_what_is_drawn_by_chance_follows_from_the_seed_of_the_run(area):
    """By `explored` and the fixture `dice`; what is the same in every run has the reason in the line above."""
    for path in (ROOT / area).glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in FIXED:
                assert lines[node.lineno - 2].lstrip().startswith("# "), f"{path.name}:{node.lineno}"
