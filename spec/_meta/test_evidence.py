"""Each script of `spec/evidence/<label>/` shows a defect of that loop: stock asyncio conforms, the loop deviates."""

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

ROOT = Path(clauses.__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "evidence").glob("*/*.py"))


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def loop_of(path: Path) -> str:
    """The module:factory that a script takes where none is named."""
    [found] = re.findall(r'\["(\w+:\w+)"\]\)\[0\]', path.read_text(encoding="utf-8"))
    return str(found)


def body_of(path: Path) -> str:
    """A script without the loop that it names: several loops may have the same defect."""
    return path.read_text(encoding="utf-8").replace(loop_of(path), "")


@pytest.fixture(scope="module")
def on_stock():
    """What each script came to on stock asyncio, by its body: most of the time they wait."""
    bodies = {body_of(path): path for path in SCRIPTS}
    with ThreadPoolExecutor((os.cpu_count() or 1) + 2) as pool:
        return dict(
            zip(bodies, pool.map(lambda path: run(path, "asyncio:new_event_loop"), bodies.values()), strict=True)
        )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_stock_asyncio_conforms(on_stock, path):
    finished = on_stock[body_of(path)]
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) > 1 and lines[-1] == "conforms"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_loop_deviates_where_it_is_installed(path):
    if importlib.util.find_spec(loop_of(path).partition(":")[0]) is None:
        pytest.skip("the loop is not installed")
    finished = run(path)
    assert finished.returncode != 0, f"stale evidence: {finished.stdout}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_evidence_is_for_a_declared_deviation(path):
    slug = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition(":")[0]
    assert slug in clauses.load_area(ROOT, slug.partition(".")[0])
    declared = {deviation.clause for deviation in deviations.load(ROOT / "deviations" / f"{path.parent.name}.toml")}
    assert slug in declared
