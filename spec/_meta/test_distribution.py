"""The suite is a distribution of its own: pure Python, installed by pip, run by `loopspec`, with no checkout near."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest

import spec
from spec._kit import cli
from spec._kit.clauses import areas, load_area
from spec._kit.cli import ROOT

UNSHIPPED = ("_meta/", "_results/", "snapshots/", ".rs", ".pyc", ".gitignore")
pytestmark = pytest.mark.timeout(300)


def finish(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; no compiler can be found by it, nor the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL"))}
    kept["PATH"] = str(Path(str(command[0])).parent)
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution, made of the files that are there."""
    folder = tmp_path_factory.mktemp("built")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    backend = finish(*pip, "install", "--target", folder / "backend", "hatchling", cwd=folder)
    assert backend.returncode == 0, backend.stderr
    command = (sys.executable, "-m", "hatchling", "build", "-d", folder / "dist")
    result = finish(*command, cwd=ROOT, PYTHONPATH=str(folder / "backend"))
    assert result.returncode == 0, result.stderr + result.stdout
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    [path] = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The folder of programs of a fresh virtual environment that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("installed")
    result = finish(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert result.returncode == 0, result.stderr
    place = folder / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", place / "python", "--quiet", "--disable-pip-version-check")
    result = finish(*pip, "install", "--only-binary=:all:", wheel, cwd=folder)
    assert result.returncode == 0, result.stderr
    return place


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def test_the_wheel_holds_the_suite_and_not_the_tests_of_the_suite(wheel):
    assert wheel.name == f"loopspec-{spec.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert not [name for name in names if any(part in name for part in UNSHIPPED)]
    info = f"loopspec-{spec.__version__}.dist-info/"
    assert {f"{info}licenses/LICENSE-MIT", f"{info}licenses/LICENSE-APACHE", f"{info}entry_points.txt"} <= names
    assert all(name.startswith(("loopspec/", info)) for name in names)
    wanted = {f"{area}/clauses.toml" for area in areas(ROOT)}
    wanted |= {f"deviations/{path.name}" for path in (ROOT / "deviations").glob("*.toml")}
    wanted |= {name for name in files_of(ROOT) if name.endswith(".py") and not name.startswith("_meta/")}
    assert {f"loopspec/{name}" for name in wanted} <= names


def test_the_source_distribution_builds_the_same_wheel(built, wheel, tmp_path):
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    assert not [name for name in files_of(folder) if any(part in name for part in UNSHIPPED[:-1])]
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    result = finish(*command, cwd=folder, PYTHONPATH=str(built.parent / "backend"))
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(tmp_path / wheel.name) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_the_licences_are_those_of_the_repository():
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert (ROOT / name).read_bytes() == (ROOT.parent / name).read_bytes()
    ours, theirs = (
        tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for folder in (ROOT, ROOT.parent)
    )
    assert [ours[key] for key in ("license", "requires-python")] == [
        theirs[key] for key in ("license", "requires-python")
    ]


def test_the_version_is_a_year_and_a_month_and_has_its_changes():
    assert re.fullmatch(r"20\d\d\.([1-9]|1[0-2])(\.[1-9]\d*)?", spec.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", changes, re.MULTILINE)[0] == spec.__version__


def commands_in(text):
    """The arguments of every `loopspec` in a page, whose placeholders are filled in."""
    for found in re.findall(
        r"(?:^\$ |^ *|`)loopspec (run|matrix|clauses|explain|badge)( [^`\n]*)?", text, re.MULTILINE
    ):
        words = re.sub(r"\s#.*|[\[\]]|\.\.\.|\$\{BADGE:.*?\}|\"\$\{arguments.*", "", " ".join(found).strip())
        yield shlex.split(words.replace("AREA", "tcp"))


@pytest.mark.parametrize("page", ["spec/README.md", "spec/action.yml", "README.md"])
def test_the_commands_that_a_page_shows_are_those_that_there_are(page):
    commands = list(commands_in((ROOT.parent / page).read_text(encoding="utf-8")))
    assert {command[0] for command in commands} >= {"run"}
    for command in commands:
        parser, _ = cli._parser()
        parser.parse_args(command[: command.index("--")] if "--" in command else command)


def test_the_action_does_what_it_says(programs, tmp_path):
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    scripts = [textwrap.dedent(found) for found in re.findall(r"^      run: \|\n((?: {8}.*\n)+)", text, re.MULTILINE)]
    assert len(scripts) == 3 and "pip install" in scripts[0]
    named = set(re.findall(r"^  (\w+):$", text[: text.index("runs:")], re.MULTILINE))
    assert set(re.findall(r"inputs\.(\w+)", text)) == named
    inputs = {"LOOP": "asyncio", "AREA": "dns", "LEVEL": "must", "ARGUMENTS": "-- -k coroutine", "BADGE": "asyncio"}
    for script in scripts[1:]:
        command = ("/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
        environment = inputs | {"PATH": f"{programs}:/bin:/usr/bin", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
        result = finish(*command, cwd=tmp_path, **environment)
        assert result.returncode == 0, result.stdout + result.stderr
    names = {path.name for path in (tmp_path / "loopspec-results").iterdir()}
    assert names == {"run.json", "junit.xml", "matrix.md", "badge.svg", "badge.json"}
    assert "asyncio" in (tmp_path / "summary").read_text(encoding="utf-8")


@pytest.fixture
def project(programs):
    """A project that has the virtual environment in it, and a configuration of pytest that nothing else can use."""
    folder = programs.parents[1]
    ours = {
        "pytest.ini": "[pytest]\naddopts = --no-such-option\n",
        "conftest.py": "raise RuntimeError('the project')\n",
    }
    for name, text in ours.items():
        (folder / name).write_text(text, encoding="utf-8")
    yield folder
    for name in ours:
        (folder / name).unlink()


def test_the_command_runs_an_area_where_there_is_no_checkout(programs, project):
    command = (programs / "loopspec", "run", "--loop", "asyncio", "--area", "dns")
    result = finish(*command, "--json", "out/run.json", "--junit", "junit.xml", cwd=project)
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads((project / "out" / "run.json").read_text(encoding="utf-8"))
    assert [loop["label"] for loop in document["loops"]] == ["asyncio"]
    assert {clause["id"] for clause in document["clauses"]} == set(load_area(ROOT, "dns"))
    tests = ET.parse(project / "junit.xml").getroot().findall(".//testcase")
    assert len(tests) == len(document["tests"]) > 100
    assert (project / ".loopspec" / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert not list(programs.parent.rglob(".pytest_cache")) and not (project / ".pytest_cache").exists()


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(programs, tmp_path):
    (tmp_path / ".loopspec").touch()
    result = finish(programs / "loopspec", "run", "--loop", "asyncio", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (4, "loopspec: .loopspec: File exists\n"), result.stdout


def test_pytest_runs_an_area_by_its_name(programs, tmp_path):
    command = (programs / "python", "-m", "pytest", "-q", "--pyargs", "loopspec.dns", "--loop", "here:make")
    (tmp_path / "here.py").write_text("import asyncio\nmake = asyncio.SelectorEventLoop\n", encoding="utf-8")
    result = finish(*command, "-k", "coroutine", cwd=tmp_path)
    assert result.returncode == 0 and re.search(r"[1-9]\d* passed", result.stdout), result.stdout + result.stderr


OWN_TESTS = """
from loopspec import clause

def test_without_a_clause(loop, tick):
    ticks = []
    loop.call_soon(ticks.append, 1)
    tick()
    assert ticks == [1]

def test_that_crashes(loop):
    import os
    os.abort()
"""


def test_a_projects_own_tests_use_the_kit(programs, tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["loopspec.plugin"]\n', encoding="utf-8")
    (tmp_path / "test_own.py").write_text(OWN_TESTS, encoding="utf-8")
    result = finish(programs / "python", "-m", "pytest", "-q", "--loop", "asyncio", cwd=tmp_path)
    assert "1 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    assert "test_that_crashes[asyncio]" in result.stdout and "crashed (signal 6)" in result.stdout


def test_tests_that_do_not_ask_for_the_kit_are_not_disturbed_by_it(programs, tmp_path):
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--loop', default='theirs')\n", encoding="utf-8"
    )
    (tmp_path / "test_own.py").write_text(
        "import sys\n"
        "def test_own(pytestconfig, request):\n"
        "    assert pytestconfig.getoption('loop') == 'theirs'\n"
        "    assert 'loopspec._kit.pyargs' in sys.modules and 'loopspec._kit.plugin' not in sys.modules\n",
        encoding="utf-8",
    )
    result = finish(programs / "python", "-m", "pytest", "-q", "-W", "error", cwd=tmp_path)
    assert "1 passed" in result.stdout, result.stdout + result.stderr
