"""Each script of `spec/evidence/` shows a defect: stock asyncio conforms, the loops named in its docstring deviate."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spec._kit import clauses, deviations
from spec._kit.pages.marks import deviants, find_evidence

ROOT = Path(clauses.__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "evidence").glob("*.py"))
HEADERS = {path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in SCRIPTS}
LOOPS = {path: deviants(header) for path, header in HEADERS.items()}

each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
each_loop = pytest.mark.parametrize(
    ("path", "loop"),
    [pytest.param(path, loop, id=f"{path.stem}-{loop.label}") for path, loops in LOOPS.items() for loop in loops],
)


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def clause_of(path: Path) -> str:
    return HEADERS[path].partition(":")[0]


@pytest.fixture(scope="module")
def on_stock():
    """What each script came to on stock asyncio: most of the time they wait."""
    with ThreadPoolExecutor((os.cpu_count() or 1) + 2) as pool:
        return dict(zip(SCRIPTS, pool.map(lambda path: run(path, "asyncio:new_event_loop"), SCRIPTS), strict=True))


@each_script
def test_stock_asyncio_conforms(on_stock, path):
    finished = on_stock[path]
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) > 1 and lines[-1] == "conforms"


@each_script
def test_a_script_is_about_one_clause_and_names_the_loops_that_do_not_keep_it(path):
    """Every line below the first is one of them: none is overlooked for how it is written."""
    slug = clause_of(path)
    assert slug in clauses.load_area(ROOT, slug.partition(".")[0])
    labels = [loop.label for loop in LOOPS[path]]
    assert labels and len(set(labels)) == len(labels) == len(HEADERS[path].partition("\n- ")[2].splitlines())


@each_script
def test_without_an_argument_a_script_runs_on_the_first_loop_it_names(path):
    [default] = re.findall(r'\(sys\.argv\[1:\] or \["([^"]*)"\]\)\[0\]', path.read_text(encoding="utf-8"))
    assert default == LOOPS[path][0].name


@each_loop
def test_the_loop_deviates_where_it_is_installed(path, loop):
    if importlib.util.find_spec(loop.name.partition(":")[0]) is None:
        pytest.skip("the loop is not installed")
    finished = run(path, loop.name)
    assert finished.returncode != 0, f"stale evidence: {finished.stdout}"


@each_loop
def test_evidence_is_for_a_declared_deviation(path, loop):
    declared = {deviation.clause for deviation in deviations.load(ROOT / "deviations" / f"{loop.label}.toml")}
    assert clause_of(path) in declared


def test_no_defect_of_a_loop_has_two_scripts():
    scripts = [(loop.label, clause_of(path)) for path, loops in LOOPS.items() for loop in loops]
    assert sorted(scripts) == sorted(find_evidence(ROOT))


def test_the_readme_lists_every_script_and_what_it_was_seen_with():
    lines = (ROOT / "evidence" / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if line.startswith("| [`")]
    wanted = [
        f"| [`{path.stem}`]({path.name}) | `{clause_of(path)}` | "
        + ", ".join(f"{loop.label} {loop.version}" for loop in loops)
        + " |"
        for path, loops in LOOPS.items()
    ]
    assert shown == wanted
