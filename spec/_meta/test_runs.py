"""What a run is asked for and what it makes of it: loops that cannot be had, levels, manifests, an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from spec._kit import cli, deviations, probe
from spec._meta.conftest import REPOSITORY

BAD = """
import asyncio, os, signal, sys, threading, time

def raising():
    raise ValueError("of two\\nlines")

def exiting():
    sys.exit(3)

def ending():
    os._exit(3)

def number():
    return 42

def hanging():
    time.sleep(1000)

def asking():
    return input("which one?")

def forking_and_ending():
    if not os.fork():
        time.sleep(1000)
    os._exit(0)

def closing_all():
    os.closerange(3, 1000)
    return asyncio.SelectorEventLoop()

def printing():
    print("hello")
    print("there", file=sys.stderr)
    return asyncio.SelectorEventLoop()

def closing():
    os.close(0)
    os.close(2)
    return asyncio.SelectorEventLoop()

def forking():
    if not os.fork():
        time.sleep(1000)
    return asyncio.SelectorEventLoop()

def threading_():
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return asyncio.SelectorEventLoop()

def handling():
    signal.signal(signal.SIGTERM, print)
    return asyncio.SelectorEventLoop()
"""
PASSING = '@clause("sample.topic.kept")\ndef test_kept(loop, tick):\n    tick()\n'


@pytest.fixture
def bad(suite):
    """A suite with one test that passes, and the module `badloops`."""
    suite.clauses("kept")
    suite.tests(PASSING)
    suite.write("badloops.py", BAD)
    return suite


@pytest.fixture
def badloops(tmp_path, monkeypatch):
    """The module alone, for `probe` in this process."""
    (tmp_path / "badloops.py").write_text(BAD, encoding="utf-8")
    (tmp_path / "badimport.py").write_text(f"print('imported')\n{BAD}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("attribute", "error"),
    [
        ("raising", "ValueError: of two lines"),
        ("exiting", "SystemExit: 3"),
        ("ending", "making it ended the process: exited with status 3"),
        ("number", "makes an object of type 'int', no event loop: it has no run_forever()"),
        ("hanging", "making it took more than 1 s"),
        ("asking", "EOFError: EOF when reading a line"),
        ("forking_and_ending", "making it ended the process: exited with status 0"),
        ("closing_all", "making it ended the process: exited with status 0"),
        ("missing", "AttributeError: module 'badloops' has no attribute 'missing'"),
        ("asyncio", "TypeError: badloops:asyncio is not callable"),
    ],
)
def test_why_a_loop_cannot_be_had_is_told_in_one_line(badloops, attribute, error):
    started = time.monotonic()
    facts = probe.probe("badloops", attribute, timeout=1)
    assert facts == probe.Facts(error=error)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("attribute", "notes"),
    [
        ("printing", ["printed 'hello there'"]),
        ("closing", ["closed descriptor 0", "closed descriptor 2"]),
        ("forking", ["left process "]),
        ("threading_", ["left thread "]),
        ("handling", ["had SIGTERM handled"]),
    ],
)
def test_what_making_a_loop_does_beside_is_noted(badloops, attribute, notes):
    facts = probe.probe("badloops", attribute)
    assert (facts.error, facts.label, facts.lazily) == ("", "asyncio", False)
    assert len(facts.notes) == len(notes)
    assert all(
        note.startswith(f"making and closing it {words}") for note, words in zip(facts.notes, notes, strict=True)
    )


def test_a_module_whose_import_does_something_is_imported_by_those_who_make_its_loops(badloops):
    facts = probe.probe("badimport", "printing")
    assert facts.lazily and facts.notes[0] == "importing it printed 'imported'"
    assert "badimport" not in sys.modules
    make = probe.lazy_factory_of("badimport", "asyncio.SelectorEventLoop")
    assert "badimport" not in sys.modules
    make().close()
    assert sys.modules.pop("badimport")


def test_the_other_loops_of_a_run_go_on_without_one_that_cannot_be_had(bad):
    finished = bad.run("--spec-matrix", loops=("badloops:raising", "badloops:number", "asyncio"))
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert finished.outcomes() == {"test_kept[asyncio]": "passed"}
    assert [(loop["label"], loop.get("error", "")) for loop in finished.document["loops"]] == [
        ("asyncio", ""),
        ("badloops:raising", "ValueError: of two lines"),
        ("badloops:number", "makes an object of type 'int', no event loop: it has no run_forever()"),
    ]
    assert finished.document["complete"] is True
    assert "\nloop 'badloops:raising': ValueError: of two lines\n" in finished.output
    assert "badloops:raising: could not be run: ValueError: of two lines" in finished.output
    lenient = bad.run("--strict-loop=asyncio", loops=("badloops:raising", "asyncio"))
    assert lenient.status == pytest.ExitCode.OK
    strict = bad.run("--strict-loop=badloops:raising", loops=("badloops:raising", "asyncio"))
    assert strict.status == pytest.ExitCode.TESTS_FAILED


def test_a_run_of_no_loop_that_can_be_had_writes_why(bad):
    finished = bad.run(loops=("badloops:raising", "badloops:exiting"))
    assert finished.status == pytest.ExitCode.USAGE_ERROR
    assert [loop["error"] for loop in finished.document["loops"]] == ["ValueError: of two lines", "SystemExit: 3"]
    assert finished.document["complete"] is False


def test_a_loop_that_prints_is_tested_and_its_output_kept_apart(bad):
    finished = bad.run(loops=("badloops:printing",))
    assert finished.status == pytest.ExitCode.OK
    assert "note: loop 'badloops:printing': making and closing it printed 'hello there'" in finished.output
    assert finished.output.count("hello") == 1
    assert finished.document["loops"][0]["notes"] == ["making and closing it printed 'hello there'"]


LEVELS = """
@clause("sample.topic.needed")
def test_needed(loop):
    pass

@clause("sample.topic.wished")
def test_wished(loop):
    assert 0

@clause("sample.topic.extra", "sample.topic.needed")
def test_both(loop):
    pass

@clause("sample.topic.extra")
def test_extra(loop):
    assert 0

def test_of_no_loop():
    pass
"""


def test_a_level_leaves_out_what_decides_nothing_of_it(suite):
    suite.clauses("needed")
    suite.clauses("wished", level="should")
    suite.clauses("extra", level="may")
    suite.tests(LEVELS)
    finished = suite.run("--spec-level=must")
    assert finished.status == pytest.ExitCode.OK
    assert finished.outcomes() == {"test_needed[asyncio]": "passed", "test_both[asyncio]": "passed"}
    assert [clause["id"] for clause in finished.document["clauses"]] == ["sample.topic.needed"]
    assert "2 deselected" in finished.output and finished.document["complete"] is True
    assert set(suite.run("--spec-level=should").outcomes()) == {
        "test_needed[asyncio]",
        "test_both[asyncio]",
        "test_wished[asyncio]",
    }
    assert len(suite.run("--spec-level=may").outcomes()) == len(suite.run().outcomes()) == 4


BROKEN = """
@clause("sample.topic.broken")
def test_broken(loop):
    assert 0

@clause("sample.topic.kept")
def test_kept(loop):
    pass
"""
ENTRY = '[[deviation]]\nclause = "sample.topic.{}"\nreason = "{}"\n'


@pytest.fixture
def broken(suite):
    suite.clauses("broken", "kept")
    suite.tests(BROKEN)
    return suite


def test_a_manifest_declares_the_deviations_of_its_loops_only(broken):
    broken.write("mine.toml", 'loops = ["sampleloop"]\n' + ENTRY.format("broken", "Of the manifest."))
    mine = f"--deviations={broken.root / 'mine.toml'}"
    finished = broken.run(mine, loops=())
    assert finished.status == pytest.ExitCode.OK, "its loops are those that are run"
    assert finished.outcomes()["test_broken[SampleLoop]"] == "deviates"
    both = broken.run(mine, loops=("sampleloop", "asyncio"))
    assert both.status == pytest.ExitCode.TESTS_FAILED
    assert both.outcomes()["test_broken[SampleLoop]"] == "deviates"
    assert both.outcomes()["test_broken[asyncio]"] == "failed"


def test_the_manifest_in_the_current_folder_is_read(broken):
    broken.write(deviations.MANIFEST, 'loops = ["sampleloop"]\n' + ENTRY.format("broken", "Of the manifest."))
    assert broken.run(loops=()).outcomes()["test_broken[SampleLoop]"] == "deviates"
    assert broken.run(loops=("SampleLoop",)).status == pytest.ExitCode.USAGE_ERROR
    broken.write("other.toml", 'loops = ["asyncio"]\n')
    other = broken.run(f"--deviations={broken.root / 'other.toml'}", loops=("sampleloop",))
    assert other.outcomes()["test_broken[SampleLoop]"] == "failed"


def test_a_manifest_comes_before_what_the_suite_declares(broken):
    broken.deviations("sampleloop", ENTRY.format("broken", "Of the suite.") + ENTRY.format("kept", "Of the suite."))
    alone = broken.run(loops=("sampleloop",))
    assert alone.status == pytest.ExitCode.TESTS_FAILED, "stale"
    broken.write(deviations.MANIFEST, 'loops = ["sampleloop"]\n' + ENTRY.format("broken", "Of the manifest."))
    finished = broken.run()
    finished = broken.run(loops=("sampleloop",))
    [clause] = [clause for clause in finished.document["clauses"] if clause["id"] == "sample.topic.broken"]
    assert clause["outcomes"]["SampleLoop"]["reason"] == "Of the manifest."
    assert finished.status == pytest.ExitCode.OK, "who has the manifest cannot mend the suite's own file"
    assert "stale deviation: sample.topic.kept passes on SampleLoop" in finished.output

    broken.write(deviations.MANIFEST, 'loops = ["sampleloop"]\n' + ENTRY.format("kept", "Of the manifest."))
    finished = broken.run(loops=("sampleloop",))
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert f"remove it from {broken.root / deviations.MANIFEST}" in finished.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'loops' must be a list"),
        ("loops = []", "'loops' must be a list"),
        ('loops = "sampleloop"', "'loops' must be a list"),
        ('loops = ["sampleloop"]\n' + ENTRY.format("nothing", "It is not there."), "there is no clause sample.topic.n"),
        ('loops = ["sampleloop"]\n[[deviation]]\nclause = "sample.topic.kept"\n', "'reason' is missing"),
        ('loops = ["sampleloop"]\nother = 1\n', "entries are expected"),
        ("not TOML", deviations.MANIFEST),
    ],
)
def test_a_manifest_that_is_not_well_formed_is_an_error(broken, text, words):
    broken.write(deviations.MANIFEST, text)
    finished = broken.run()
    assert finished.status == pytest.ExitCode.USAGE_ERROR and words in finished.output


def test_a_manifest_that_is_not_there_is_an_error(broken):
    assert broken.run("--deviations=nowhere.toml").status == pytest.ExitCode.USAGE_ERROR


WAITING = """
@clause("sample.topic.kept")
def test_first(loop):
    pass

@clause("sample.topic.kept")
def test_second(loop):
    with open(os.environ["BEGUN"], "w") as file:
        file.write("begun")
    loop.run_forever()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_what_it_has(suite, number, tmp_path):
    suite.clauses("kept")
    suite.tests(PASSING, name="test_before")
    suite.tests(WAITING)
    suite.deviations("asyncio", '[[leak]]\nwhat = "nothing"\nreason = "Not met in what was run."\n')
    os.mkfifo(tmp_path / "begun")
    results = tmp_path / "run.json"
    command = [sys.executable, "-m", "pytest", "-p", "spec._kit.plugin", "-p", "no:cacheprovider", "--loop=asyncio"]
    command += ["-c", str(suite.root / "pytest.ini"), f"--spec-root={suite.root}", f"--spec-json={results}"]
    command.append("--spec-workers=1")  # the module before has ended when this one begins
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "BEGUN": str(tmp_path / "begun")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command.append(str(suite.root / "sample"))
    with subprocess.Popen(command, cwd=suite.root, env=environment, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert (tmp_path / "begun").read_text(encoding="utf-8") == "begun"
            run.send_signal(number)
            output, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    document = json.loads(results.read_text(encoding="utf-8"))
    assert document["complete"] is False
    assert "test_kept[asyncio]" in {test["id"].partition("::")[2] for test in document["tests"]}
    assert document["stale_deviations"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere orphans are those of process 1")
def test_what_tests_have_started_ends_with_the_command_whatever_session_it_is_in(tmp_path):
    (tmp_path / "leaving.py").write_text(LEAVING, encoding="utf-8")
    command = [sys.executable, "-m", "spec", "--loop", "leaving:new_event_loop", "--area", "errors", "--json"]
    command += [str(tmp_path / "run.json"), "-n", "1", "--", "-k", "repr_of_a_loop or with_their_repr"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "LEFT": str(tmp_path / "left")}
    subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=60, check=False)
    left = (tmp_path / "left").read_text(encoding="utf-8").split()
    assert len(left) > 1
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


LEAVING = """
import asyncio, os, subprocess

def new_event_loop():
    with open(os.environ["LEFT"], "a") as file:
        subprocess.run("sleep 600 >/dev/null 2>&1 & echo $!", shell=True, start_new_session=True, stdout=file)
    return asyncio.SelectorEventLoop()
"""


def test_a_run_that_stops_at_a_failure_is_not_complete(broken):
    finished = broken.run("-x", "--spec-workers=1")
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert finished.document["complete"] is False


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command asks of pytest: a function of the command's arguments."""
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.pytest, "main", lambda command: commands.append(command) or pytest.ExitCode.OK)

    def ask(*arguments):
        assert cli.main(arguments) == 0
        return commands.pop()

    return ask


def test_the_command_is_run_where_none_is_named(asked):
    assert asked() == asked("run")
    assert asked("--loop", "here", "--", "-x", "run") == asked("run", "--loop", "here", "--", "-x", "run")
    assert asked()[-1].endswith("unix") and f"--spec-json={cli.RESULTS}" in asked()


def test_what_the_command_asks_of_pytest(asked, tmp_path):
    command = asked(
        "run", "--loop", "a:b", "--loop", "c", "--strict-loop", "c", "--area", "tcp", "--area", "dns", "-n", "7",
        "--patient", "--level", "must", "--json", "run.json", "--junit", "junit.xml", "--deviations", "mine.toml",
        "--", "-k", "half",
    )  # fmt: skip
    assert {
        "--loop=a:b",
        "--loop=c",
        "--strict-loop=c",
        "--spec-level=must",
        "--spec-workers=7",
        "--spec-patient",
        f"--spec-json={tmp_path / 'run.json'}",
        f"--junitxml={tmp_path / 'junit.xml'}",
        f"--deviations={tmp_path / 'mine.toml'}",
    } <= set(command)
    assert command[-4:] == ["-k", "half", str(cli.ROOT / "tcp"), str(cli.ROOT / "dns")]


@pytest.mark.parametrize(
    "arguments", [("--area", "nowhere"), ("--level", "shall"), ("--no-such-option",), ("run", "something")]
)
def test_arguments_that_say_nothing_are_an_error(asked, arguments):
    with pytest.raises(SystemExit) as exited:
        asked(*arguments)
    assert exited.value.code == 2


def test_the_command_tells_its_version_and_its_commands(capsys):
    for arguments, words in ((["--version"], "loopspec 20"), (["--help"], "run the suite on loops")):
        with pytest.raises(SystemExit) as exited:
            cli.main(arguments)
        assert not exited.value.code
        assert words in capsys.readouterr().out
