"""`python -m tokioloop`: a program sees what it sees under `python`, and runs on our loop."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import tokioloop

from .conftest import RunPython

# Says, as JSON, which loop each way to get one leads to, and what the program finds in its interpreter.
PROGRAM = """
import asyncio, json, sys

async def main():
    return type(asyncio.get_running_loop()).__name__

def closed(loop):
    loop.close()
    return type(loop).__name__

if __name__ == "__main__":
    with asyncio.Runner() as runner:
        of_runner = runner.run(main())
    print(json.dumps({
        "run": asyncio.run(main()),
        "runner": of_runner,
        "new_event_loop": closed(asyncio.new_event_loop()),
        "events": closed(asyncio.events.new_event_loop()),
        "argv": sys.argv,
        "path": sys.path[0],
        "file": __file__,
        "package": __package__,
        "spec": __spec__ and __spec__.name,
        "main": sys.modules["__main__"].__dict__ is globals(),
    }))
"""
LOOPS = dict.fromkeys(["run", "runner", "new_event_loop", "events"], "TokioLoop")


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def said(result) -> dict[str, object]:
    """What PROGRAM said; nothing else went wrong."""
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def without_frames_of_python(stderr: str) -> str:
    """A traceback without `python -m`'s own frames and the markers under source lines."""
    lines = stderr.splitlines()
    kept, skip = [], False
    for line in lines:
        if line.startswith("  File "):
            skip = "<frozen runpy>" in line
        elif not line.startswith("    "):
            skip = False
        if not skip and set(line) - set(" ^~"):
            kept.append(line)
    return "\n".join(kept)


def test_a_script_runs_on_our_loop_and_finds_what_python_gives_a_script(run_python: RunPython, tmp_path: Path):
    path = write(tmp_path, "programs/app.py", PROGRAM)
    facts = said(run_python("-m", "tokioloop", "programs/app.py", "-x", "two words", "-m"))
    assert facts == LOOPS | {
        "argv": ["programs/app.py", "-x", "two words", "-m"],
        "path": str(path.parent.resolve()),
        "file": str(path),
        "package": None,
        "spec": None,
        "main": True,
    }


def test_what_a_script_finds_is_what_python_itself_gives_it(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "programs/app.py", PROGRAM)
    ours = said(run_python("-m", "tokioloop", "programs/app.py", "a"))
    theirs = said(run_python("programs/app.py", "a"))
    assert {name: value for name, value in ours.items() if name not in LOOPS} == {
        name: value for name, value in theirs.items() if name not in LOOPS
    }


@pytest.mark.parametrize("module", ["package", "package.part", "single"])
def test_what_a_module_finds_is_what_python_itself_gives_it(run_python: RunPython, tmp_path: Path, module: str):
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/__main__.py", PROGRAM)
    write(tmp_path, "package/part.py", PROGRAM)
    write(tmp_path, "single.py", PROGRAM)
    ours = said(run_python("-m", "tokioloop", "-m", module, "a", "-m"))
    theirs = said(run_python("-m", module, "a", "-m"))
    assert ours == theirs | LOOPS
    assert ours["argv"][1:] == ["a", "-m"]


def test_a_directory_with_a_main_module_runs(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "program/__main__.py", PROGRAM)
    ours = said(run_python("-m", "tokioloop", "program", "a"))
    assert ours == said(run_python("program", "a")) | LOOPS


def test_a_zip_file_with_a_main_module_runs(run_python: RunPython, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", PROGRAM)
    ours = said(run_python("-m", "tokioloop", "program.pyz"))
    assert ours == said(run_python("program.pyz")) | LOOPS


def test_a_script_imports_its_neighbours_and_not_those_of_the_current_directory(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "here.py", "")
    write(tmp_path, "programs/neighbour.py", "WORD = 'found'")
    write(
        tmp_path,
        "programs/app.py",
        """
        import neighbour
        print(neighbour.WORD)
        try:
            import here
        except ImportError:
            print("not here")
        """,
    )
    result = run_python("-m", "tokioloop", "programs/app.py")
    assert (result.returncode, result.stdout.split("\n")[:2]) == (0, ["found", "not here"]), result.stderr


def test_safe_path_adds_no_directory(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "app.py", "import sys, os; print(os.getcwd() in sys.path or '' in sys.path)")
    assert run_python("-P", "-m", "tokioloop", "app.py").stdout == "False\n"


def test_safe_path_has_a_program_that_is_a_directory(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "program/__main__.py", "import neighbour, sys; print(sys.path)")
    write(tmp_path, "program/neighbour.py", "")
    plain, ours = run_python("-P", "program"), run_python("-P", "-m", "tokioloop", "program")
    assert plain.stdout.startswith(f"['{tmp_path / 'program'}'")
    assert (ours.stdout, ours.stderr) == (plain.stdout, "")


def test_classes_of_the_program_can_be_pickled(run_python: RunPython, tmp_path: Path):
    write(
        tmp_path,
        "app.py",
        """
        import pickle
        class Thing: pass
        if __name__ == "__main__":
            print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
        """,
    )
    result = run_python("-m", "tokioloop", "app.py")
    assert (result.stdout, result.stderr) == ("True\n", "")


def test_a_spawned_process_imports_the_program_and_not_us(run_python: RunPython, tmp_path: Path):
    write(
        tmp_path,
        "app.py",
        """
        import multiprocessing
        def work(number): return number + 1
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(work, (1,)))
        """,
    )
    result = run_python("-m", "tokioloop", "app.py")
    assert (result.stdout, result.stderr) == ("2\n", "")


@pytest.mark.parametrize(
    ("statement", "status"),
    [("", 0), ("sys.exit(7)", 7), ("sys.exit()", 0), ("sys.exit('words')", 1), ("raise ValueError('no')", 1)],
)
@pytest.mark.parametrize("command", [["app.py"], ["-m", "app"]], ids=["script", "module"])
def test_exit_status_and_traceback_are_those_of_python(
    run_python: RunPython, tmp_path: Path, command: list[str], statement: str, status: int
):
    write(tmp_path, "app.py", f"import sys\ndef work():\n    {statement or 'pass'}\nwork()\n")
    ours, theirs = run_python("-m", "tokioloop", *command), run_python(*command)
    assert ours.returncode == theirs.returncode == status
    assert without_frames_of_python(ours.stderr) == without_frames_of_python(theirs.stderr)


def test_a_syntax_error_is_shown_as_python_shows_it(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "app.py", "def (:\n")
    ours, theirs = run_python("-m", "tokioloop", "app.py"), run_python("app.py")
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr == theirs.stderr


def test_an_error_from_a_coroutine_is_shown_from_the_program_on(run_python: RunPython, tmp_path: Path):
    path = write(
        tmp_path,
        "app.py",
        """
        import asyncio
        async def main():
            raise LookupError("nothing")
        asyncio.run(main())
        """,
    )
    result = run_python("-m", "tokioloop", "app.py")
    assert result.returncode == 1
    assert result.stderr.startswith(f'Traceback (most recent call last):\n  File "{path}", line 5, in <module>\n')
    assert result.stderr.endswith("LookupError: nothing\n")


def test_the_programs_own_excepthook_is_asked(run_python: RunPython, tmp_path: Path):
    write(
        tmp_path,
        "app.py",
        """
        import sys, traceback
        def hook(kind, value, tb):
            print(kind.__name__, [frame.name for frame in traceback.extract_tb(tb)], sys.excepthook is hook)
        sys.excepthook = hook
        raise ValueError
        """,
    )
    result = run_python("-m", "tokioloop", "app.py")
    assert (result.returncode, result.stdout, result.stderr) == (1, "ValueError ['<module>'] True\n", "")


def test_a_keyboard_interrupt_ends_the_program_by_the_signal_as_under_python(run_python: RunPython, tmp_path: Path):
    write(
        tmp_path,
        "app.py",
        """
        import asyncio, os, signal
        async def main():
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        asyncio.run(main())
        """,
    )
    result = run_python("-m", "tokioloop", "app.py")
    assert result.returncode == -signal.SIGINT
    assert result.stderr.endswith("KeyboardInterrupt\n")
    assert "tokioloop/__main__.py" not in result.stderr


COALESCES = """
import asyncio, sys

async def main():
    return asyncio.get_running_loop().coalesce_writes

print(asyncio.run(main()), asyncio.Runner().get_loop().coalesce_writes, sys.argv[1:])
"""


@pytest.mark.parametrize("what", [["app.py"], ["-m", "app"]])
@pytest.mark.parametrize(
    ("options", "variable", "on"), [([], "0", False), (["--coalesce"], "0", True), ([], "1", True)]
)
def test_writes_are_coalesced_where_it_is_asked_for(
    run_python: RunPython, tmp_path: Path, what: list[str], options: list[str], variable: str, on: bool
):
    write(tmp_path, "app.py", COALESCES)
    result = run_python("-m", "tokioloop", *options, *what, "--coalesce", TOKIOLOOP_COALESCE=variable)
    assert result.stdout == f"{on} {on} ['--coalesce']\n"
    assert result.returncode == 0


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_goes_to_standard_output(run_python: RunPython, option: str):
    result = run_python("-m", "tokioloop", option)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: python -m tokioloop ")


def test_version_names_ours_and_pythons(run_python: RunPython):
    result = run_python("-m", "tokioloop", "--version")
    python = ".".join(map(str, sys.version_info[:3]))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"tokioloop {tokioloop.__version__} on CPython {python}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a script or -m MODULE is needed"),
        (["-m"], "-m needs the name of a module"),
        (["--loop", "app.py"], "unknown option --loop"),
        (["--coalesce"], "a script or -m MODULE is needed"),
        (["--coalesce", "--coalesce", "app.py"], "unknown option --coalesce"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_exits_2(run_python: RunPython, arguments: list[str], message: str):
    result = run_python("-m", "tokioloop", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    usage, said = result.stderr.splitlines()
    assert usage.startswith("usage: ")
    assert said == f"python -m tokioloop: {message}"


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["nope.py"], "can't open file '{here}/nope.py': [Errno 2] No such file or directory", 2),
        (["empty"], "can't find '__main__' module in 'empty'", 1),
        (["-m", "nope"], "No module named nope", 1),
        (
            ["-m", "nope.part"],
            "Error while finding module specification for 'nope.part' (ModuleNotFoundError: No module named 'nope')",
            1,
        ),
        (["-m", "empty"], "No module named empty.__main__; 'empty' is a package and cannot be directly executed", 1),
        (["-m", ".part"], "Relative module names not supported", 1),
        (["-m", "sys"], "No code object available for sys", 1),
        (
            ["-m", "package"],
            "No module named package.__main__; 'package' is a package and cannot be directly executed",
            1,
        ),
    ],
)
def test_a_program_that_is_not_there_is_one_line_and_pythons_exit_status(
    run_python: RunPython, tmp_path: Path, arguments: list[str], message: str, status: int
):
    (tmp_path / "empty").mkdir()
    write(tmp_path, "package/__init__.py", "")
    result = run_python("-m", "tokioloop", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr == f"python -m tokioloop: {message.format(here=tmp_path)}\n"
    pythons = run_python(*arguments)
    assert pythons.returncode == status
    if arguments[0] == "-m":
        assert pythons.stderr == f"{sys.executable}: {message}\n"


def test_a_script_that_cannot_be_opened_says_why(run_python: RunPython, tmp_path: Path):
    (tmp_path / "app.py").symlink_to("app.py")
    result = run_python("-m", "tokioloop", "app.py")
    assert result.returncode == 2
    assert result.stderr.endswith(f"[Errno {errno.ELOOP}] {os.strerror(errno.ELOOP)}\n")


def test_what_a_module_fails_to_import_is_the_programs_error(run_python: RunPython, tmp_path: Path):
    write(tmp_path, "package/__init__.py", "import missing_one")
    write(tmp_path, "package/part.py", "")
    result = run_python("-m", "tokioloop", "-m", "package.part")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback ")
    assert result.stderr.endswith("ModuleNotFoundError: No module named 'missing_one'\n")


def test_without_policies_new_event_loop_is_replaced(run_python: RunPython, tmp_path: Path):
    # As CPython 3.16 is to be: Runner asks asyncio.events.new_event_loop, and nothing about policies exists.
    write(tmp_path, "app.py", PROGRAM)
    write(
        tmp_path,
        "future.py",
        """
        import asyncio, sys, warnings
        with warnings.catch_warnings(action="ignore"):
            asyncio.get_event_loop_policy()  # asyncio's own functions go on with it
        for name in [name for name in vars(asyncio) if "policy" in name.lower()]:
            delattr(asyncio, name)
        if "__getattr__" in vars(asyncio):
            del asyncio.__getattr__
        import tokioloop.__main__ as ours
        ours.main(sys.argv[1:])
        """,
    )
    facts = said(run_python("future.py", "app.py"))
    assert {name: facts[name] for name in LOOPS} == LOOPS
