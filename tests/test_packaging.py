"""What a user gets: the wheel, the package's names, its types, its version."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import tokioloop
from tokioloop import _tokioloop

from .conftest import ROOT, RunPython

HAVE_POLICIES = sys.version_info < (3, 16)


def read_toml(name: str) -> dict:
    return tomllib.loads((ROOT / name).read_text("utf-8"))


def maturin(*arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "maturin", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the development build: the profile that is built already, packed as the release is."""
    out = tmp_path_factory.mktemp("wheel")
    features = ("--profile", "dev", "--features", "py,failpoints")
    maturin("build", *features, "--interpreter", sys.executable, "--out", str(out))
    (path,) = out.iterdir()
    return path


@pytest.mark.timeout(900)
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"tokioloop-{tokioloop.__version__}.dist-info"
    extension = f"tokioloop/_tokioloop{sysconfig.get_config_var('EXT_SUFFIX')}"
    files = [path for path in (ROOT / "tokioloop").iterdir() if path.suffix in {".py", ".pyi", ".typed"}]
    package = {f"tokioloop/{path.name}" for path in files}
    assert {"tokioloop/py.typed", "tokioloop/_tokioloop.pyi", "tokioloop/__main__.py"} <= package
    assert {name for name in names if not name.startswith(f"{info}/")} == package | {extension}
    assert {f"{info}/licenses/LICENSE-MIT", f"{info}/licenses/LICENSE-APACHE", f"{info}/METADATA"} <= names


@pytest.mark.timeout(900)
def test_the_wheel_runs_where_there_is_no_checkout(wheel: Path, run_python: RunPython, tmp_path: Path):
    place = tmp_path / "place"
    installed = run_python("-m", "pip", "install", "--no-deps", "--quiet", "--target", str(place), str(wheel))
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "app.py").write_text(
        "import asyncio, tokioloop\n"
        "async def main(): return type(asyncio.get_running_loop())\n"
        "print(asyncio.run(main()) is tokioloop.TokioLoop, tokioloop.__file__)\n"
    )
    result = run_python("-m", "tokioloop", "app.py", PYTHONPATH=str(place))
    assert (result.stdout, result.stderr) == (f"True {place}/tokioloop/__init__.py\n", "")


def test_the_source_distribution_has_every_file_that_cargo_asks_for(tmp_path: Path):
    maturin("sdist", "--out", str(tmp_path))
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    cargo = read_toml("Cargo.toml")
    wanted = {test["path"] for test in cargo["test"]} | {cargo["lib"]["path"], "Cargo.toml", "Cargo.lock"}
    wanted |= {"README.md", "LICENSE-MIT", "LICENSE-APACHE", "pyproject.toml", "tokioloop/_tokioloop.pyi"}
    examples = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert examples
    wanted |= examples
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_there_is_one_version():
    assert read_toml("Cargo.toml")["package"]["version"] == tokioloop.__version__ == metadata.version("tokioloop")


def test_the_oldest_python_and_the_licence_are_the_same_everywhere():
    project, package = read_toml("pyproject.toml")["project"], read_toml("Cargo.toml")["package"]
    assert project["license"] == package["license"]
    assert metadata.metadata("tokioloop")["Requires-Python"] == project["requires-python"]
    versions = [entry.rpartition(" :: ")[2] for entry in project["classifiers"] if ":: Python :: 3." in entry]
    assert versions[0] == project["requires-python"].removeprefix(">=")


def test_who_made_it_is_who_licenses_it_and_the_addresses_are_those_of_the_readme():
    project = read_toml("pyproject.toml")["project"]
    (author,) = project["authors"]
    assert re.search(rf"^Copyright .* {author['name']}$", (ROOT / "LICENSE-MIT").read_text("utf-8"), re.MULTILINE)
    assert project["urls"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert not [url for url in project["urls"].values() if f"({url})" not in readme]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "spec/README.md", "benchmarks/README.md"])
def test_the_links_of_a_page_lead_to_what_is_there(page: str):
    text = (ROOT / page).read_text("utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    headings = [re.sub(r"[^\w\- ]", "", title).replace(" ", "-").lower() for title in titles]
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https://")]
    gone = [link for link in links if link.startswith("#") and link[1:] not in headings]
    gone += [link for link in links if not link.startswith("#") and not (ROOT / page).parent.joinpath(link).exists()]
    assert not gone


@pytest.mark.timeout(300)
def test_the_pythons_that_are_named_are_those_that_are_tested():
    """By `make test`, by CI, by the classifiers and by the README."""

    def listed(name: str, pattern: str) -> list[str]:
        found = re.search(pattern, (ROOT / name).read_text("utf-8"), re.MULTILINE)
        assert found is not None, name
        return sorted(re.findall(r"3\.\d+", found[1]), key=minor)

    def minor(version: str) -> int:
        return int(version.partition(".")[2])

    versions = listed("Makefile", r"^VERSIONS = (.*)$")
    assert versions == [f"3.{number}" for number in range(minor(versions[0]), minor(versions[-1]) + 1)]
    assert listed(".github/workflows/test.yml", r"^ +python: \[(.*)\]$") == versions
    prefix = "Programming Language :: Python :: 3."
    classifiers = read_toml("pyproject.toml")["project"]["classifiers"]
    assert [name.rpartition(" ")[2] for name in classifiers if name.startswith(prefix)] == versions
    assert listed("README.md", r"tested on CPython (.*? to \S+\d)") == [versions[0], versions[-1]]
    assert set(listed("Makefile", r"^TESTING = (.*)$")) <= set(versions)


def test_the_wheel_is_for_the_python_that_it_was_built_for(wheel: Path):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"tokioloop-{tokioloop.__version__}.dist-info/WHEEL").decode()
    tags = [line.removeprefix("Tag: ") for line in text.splitlines() if line.startswith("Tag: ")]
    assert tags and all(found.startswith(f"{tag}-{tag}-") and found.endswith(platform.machine()) for found in tags)


def test_the_stubs_describe_the_extension():
    result = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "tokioloop._tokioloop"],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(300)
def test_a_typed_program_passes_mypy(tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "import asyncio\n"
        "import tokioloop\n"
        "async def main() -> int:\n"
        "    return 1\n"
        "number: int = tokioloop.run(main(), debug=True)\n"
        "loop: asyncio.AbstractEventLoop = tokioloop.new_event_loop()\n"
        "handle: asyncio.TimerHandle = tokioloop.TokioLoop().call_later(1.0, print, 'words')\n"
        "policy: asyncio.AbstractEventLoopPolicy = tokioloop.EventLoopPolicy()\n"
        "with asyncio.Runner(loop_factory=tokioloop.new_event_loop) as runner:\n"
        "    result: int = runner.run(main())\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "app.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_warns_of_nothing(run_python: RunPython):
    result = run_python("-W", "error", "-c", "import tokioloop; print(sorted(tokioloop.__all__))")
    assert result.stderr == ""
    names = ["TokioLoop", "Watch", "__version__", "dump", "new_coalescing_event_loop", "new_event_loop", "run", "watch"]
    assert result.stdout == f"{names}\n"


def test_new_event_loop_makes_a_fresh_loop_and_sets_nothing():
    first, second = tokioloop.new_event_loop(), tokioloop.new_event_loop()
    try:
        assert type(first) is type(second) is tokioloop.TokioLoop
        assert first is not second
        assert isinstance(first, asyncio.AbstractEventLoop)
        assert not first.is_running()
        assert not first.is_closed()
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("debug", [True, False])
def test_run_returns_the_result_and_closes_the_loop(debug: bool):
    async def main() -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        assert loop.get_debug() is debug
        return loop

    loop = tokioloop.run(main(), debug=debug)
    assert type(loop) is tokioloop.TokioLoop
    assert loop.is_closed()


def test_run_raises_what_main_raises():
    async def main() -> None:
        raise LookupError("nothing")

    with pytest.raises(LookupError, match="nothing"):
        tokioloop.run(main())


def test_run_takes_a_coroutine_only():
    with pytest.raises((ValueError, TypeError)):
        tokioloop.run(42)


def test_run_is_refused_while_a_loop_runs():
    async def inner() -> None:
        raise AssertionError

    async def main() -> None:
        coroutine = inner()
        with pytest.raises(RuntimeError, match=r"tokioloop\.run\(\) cannot be called from a running event loop"):
            tokioloop.run(coroutine)
        coroutine.close()

    tokioloop.run(main())


@pytest.mark.skipif(not HAVE_POLICIES, reason="this CPython has no event loop policies")
def test_the_policy_makes_asyncio_use_our_loop(run_python: RunPython, tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "import asyncio, warnings, tokioloop\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "asyncio.set_event_loop_policy(tokioloop.EventLoopPolicy())\n"
        "async def main(): return asyncio.get_running_loop()\n"
        "loops = [asyncio.run(main()), asyncio.new_event_loop()]\n"
        "loops[1].close()\n"
        "print({type(loop) for loop in loops} == {tokioloop.TokioLoop})\n"
    )
    result = run_python("app.py")
    assert (result.stdout, result.stderr) == ("True\n", "")


@pytest.mark.skipif(not HAVE_POLICIES, reason="this CPython has no event loop policies")
def test_asking_for_the_policy_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vars(tokioloop).pop("EventLoopPolicy", None)
        sys.modules.pop("tokioloop.policy", None)
        assert issubclass(tokioloop.EventLoopPolicy, object)


def test_without_policies_the_policy_is_an_attribute_error_that_says_what_to_use(monkeypatch: pytest.MonkeyPatch):
    # None in sys.modules makes the import fail, as the missing asyncio.DefaultEventLoopPolicy does on CPython 3.16.
    monkeypatch.delitem(vars(tokioloop), "EventLoopPolicy", raising=False)
    monkeypatch.setitem(sys.modules, "tokioloop.policy", None)
    with pytest.raises(AttributeError, match=r"no event loop policies.*loop_factory=tokioloop\.new_event_loop"):
        tokioloop.EventLoopPolicy  # noqa: B018


def test_an_unknown_attribute_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="module 'tokioloop' has no attribute 'nothing'"):
        tokioloop.nothing  # noqa: B018


def test_make_shows_its_targets():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    wanted = [
        "help",
        "build",
        "release",
        "spec",
        "test",
        "test-core",
        "test-real",
        "test-testing",
        "test-projects",
        "lint",
        "fuzz",
        "mutants",
        "loom",
        "miri",
        "sanitize",
        "bench",
        "bench-full",
        "bench-counts",
        "clean",
    ]
    assert listed == wanted


def test_a_loop_keeps_its_state_out_of_a_dict():
    loop = tokioloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        loop.set_task_factory(None)
        assert vars(loop) == {}, "an instance dict makes each look-up of a method slower"
    finally:
        loop.close()


def test_methods_are_adopted_from_a_base_class_only():
    with pytest.raises(TypeError, match="from a base class only"):
        _tokioloop.adopt_methods(int)
    with pytest.raises(TypeError):
        tokioloop.TokioLoop.call_soon(object(), print)
