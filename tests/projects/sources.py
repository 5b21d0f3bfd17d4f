"""The sources of a project and an environment in which its tests run, both under `target/projects`.

Sources are a checkout's where there is one in the folder of checkouts (a work tree or a bare repository, by the
project's name), else the newest source distribution of PyPI. The environment is of the interpreter that runs this.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import support

TARGET = support.PROJECT / "target" / "projects"
CHECKOUTS = TARGET / "checkouts"
FILE = Path(__file__).with_name("projects.toml")


class SourcesError(Exception):
    """A project's tests cannot be had; the message says why."""


@dataclass(frozen=True)
class Project:
    """A table of `projects.toml`, which tells what each entry means."""

    name: str
    sdist: str
    tests: list[str]
    install: list[str]
    needs: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    checkout: bool = False


def projects(path: Path = FILE) -> dict[str, Project]:
    """The projects of a file, by name. TypeError where an entry has another name."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
    defaults = {name: {"sdist": name, "install": ["."]} for name in tables}
    return {name: Project(name, **{**defaults[name], **table}) for name, table in tables.items()}


def tree(project: Project, checkouts: Path) -> Path:
    """The unpacked sources. SourcesError where there is no checkout and the source distribution has no tests."""
    checkout = checkouts / project.name
    if project.checkout and not checkout.exists():
        raise SourcesError(f"its source distribution has no tests, and there is no checkout at {checkout}")
    place = TARGET / "sources" / project.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # Where pytest's search for the settings of a project that has none ends: not at those of this repository.
    (place.parent / "pytest.ini").touch()
    if checkout.exists():
        archive = _run("git", "-C", str(checkout), "archive", "HEAD")
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(place, filter="data")
        return place
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", project.sdist]
    _run(*download, "--dest", str(place), project.sdist)
    (packed_path,) = place.iterdir()
    with tarfile.open(packed_path) as packed:
        packed.extractall(place, filter="data")
    packed_path.unlink()
    (unpacked,) = place.iterdir()
    return unpacked


def version(sources: Path, checkouts: Path, project: Project) -> str:
    """What the sources are, for the report."""
    if sources.name != project.name:
        return sources.name
    return _run("git", "-C", str(checkouts / project.name), "describe", "--tags", "--always").decode().strip()


def interpreter(project: Project, sources: Path) -> Path:
    """The Python of an environment that has the project, from its sources, and what its tests need."""
    place = TARGET / f"venv-{sys.version_info[0]}.{sys.version_info[1]}" / project.name
    python = place / "bin" / "python"
    wanted = hashlib.sha256(repr((sys.version, project.needs)).encode()).hexdigest()
    stamp = place / "needs"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(place))
        _run(str(python), "-m", "pip", "install", "--quiet", "pytest", *project.needs)
        stamp.write_text(wanted)
    trees = [str(sources / part) for part in project.install]
    _run(str(python), "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", *trees)
    _run(str(python), "-m", "pip", "install", "--quiet", *trees)
    return python


def import_path(loop: str) -> Path:
    """A folder in which the loop's top package is found, and nothing else of where it is installed."""
    place = TARGET / "path"
    place.mkdir(parents=True, exist_ok=True)
    top = importlib.import_module(loop.partition(":")[0].partition(".")[0])
    file = Path(str(top.__file__))
    found = file.parent if file.name.startswith("__init__.") else file
    link = place / found.name
    link.unlink(missing_ok=True)
    link.symlink_to(found)
    return place


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": ""})
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise SourcesError(f"{' '.join(command)}: exit status {done.returncode}\n{said[-2000:]}")
    return done.stdout
