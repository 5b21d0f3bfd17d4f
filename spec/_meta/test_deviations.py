"""Deviations are strict both ways; loops are found, labelled and judged as they are asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys

import pytest

from spec._kit import clauses, deviations, loops

TESTS = """
@clause("sample.topic.kept")
def test_kept(loop):
    pass

@clause("sample.topic.broken")
def test_broken(loop):
    assert not type(loop).__name__.startswith("{}"), "broken here"

@clause("sample.topic.broken", "sample.topic.kept")
def test_broken_in_part(loop):
    pass
"""
DEVIATION = """
[[deviation]]
clause = "sample.topic.{}"
reason = "Known to be broken in this way."
"""


@pytest.fixture
def broken(suite):
    """A suite that every loop fails."""
    suite.clauses("kept", "broken")
    suite.tests(TESTS.format(""))
    return suite


def test_an_undeclared_failure_fails_the_run(broken):
    finished = broken.run()
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert finished.clause("sample.topic.broken") == "failed"


def test_a_declared_failure_deviates(broken):
    broken.deviations("asyncio", DEVIATION.format("broken"))
    finished = broken.run("--spec-matrix", "-ra")
    assert finished.status == pytest.ExitCode.OK, finished.output
    assert finished.outcomes()["test_broken[asyncio]"] == "deviates"
    assert finished.clause("sample.topic.broken") == "deviates"
    assert finished.clause("sample.topic.kept") == "passed"
    assert "asyncio: deviates: Known to be broken in this way." in finished.output
    assert finished.document["stale_deviations"] == []


def test_one_entry_declares_all_that_has_one_cause(suite):
    suite.clauses("kept", "broken", "other")
    suite.tests(TESTS.format("") + '@clause("sample.topic.other")\ndef test_other(loop):\n    assert 0\n')
    cause = '[[deviation]]\nclauses = ["sample.*"]\nexcept = ["*.kept"]\nreason = "Whatever it is."\n'
    suite.deviations("asyncio", cause)
    finished = suite.run("--spec-matrix")
    assert finished.status == pytest.ExitCode.OK, finished.output
    outcomes = {name: finished.clause(f"sample.topic.{name}") for name in ("kept", "broken", "other")}
    assert outcomes == {"kept": "passed", "broken": "deviates", "other": "deviates"}
    assert "asyncio: deviates: Whatever it is." in finished.output

    # What is said of a clause by its id comes first, wherever it stands.
    suite.deviations("asyncio", DEVIATION.format("other") + cause)
    assert "deviates: Known to be broken in this way." in suite.run("--spec-matrix").output


def test_each_clause_of_an_entry_is_stale_by_itself(suite):
    suite.clauses("kept", "broken")
    suite.tests(TESTS.format(""))
    suite.deviations("asyncio", '[[deviation]]\nclauses = ["sample.topic.*"]\nreason = "Whatever it is."\n')
    finished = suite.run("--deselect=sample/test_sample.py::test_broken_in_part")
    assert finished.status == pytest.ExitCode.OK  # not to be judged from a part of the tests
    suite.tests(TESTS.format("").partition('@clause("sample.topic.broken", "sample')[0])
    finished = suite.run()
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert finished.document["stale_deviations"] == [{"loop": "asyncio", "clause": "sample.topic.kept"}]


def test_a_stale_deviation_fails_the_run(suite):
    suite.clauses("kept", "broken")
    suite.tests(TESTS.format("Nothing"))
    suite.deviations("asyncio", DEVIATION.format("broken"))
    finished = suite.run()
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert "stale deviation: sample.topic.broken passes on asyncio" in finished.output
    assert finished.document["stale_deviations"] == [{"loop": "asyncio", "clause": "sample.topic.broken"}]

    # Not to be judged from a part of the tests.
    assert suite.run("-k", "test_broken_in_part").status == pytest.ExitCode.OK
    assert suite.run(paths=("sample/test_sample.py",)).status == pytest.ExitCode.OK


@pytest.mark.parametrize(
    "condition",
    [
        "intermittent = true",
        'python = "<3.0"',
        f'python = ">{sys.version_info[0]}.{sys.version_info[1]}"',
        'platform = "x"',
    ],
)
def test_a_deviation_may_be_intermittent_or_for_elsewhere(suite, condition):
    suite.clauses("kept", "broken")
    suite.tests(TESTS.format("Nothing"))
    suite.deviations("asyncio", DEVIATION.format("broken") + condition)
    assert suite.run().status == pytest.ExitCode.OK


def test_a_deviation_for_elsewhere_excuses_nothing(broken):
    broken.deviations("asyncio", DEVIATION.format("broken") + 'python = "<3.0"')
    assert broken.run().status == pytest.ExitCode.TESTS_FAILED


def test_a_deviation_that_hangs_is_given_little_time(suite):
    suite.clauses("hangs")
    suite.tests('@clause("sample.topic.hangs")\ndef test_hangs(loop):\n    loop.run_forever()\n')
    suite.deviations("asyncio", DEVIATION.format("hangs") + "hangs = true")
    finished = suite.run()
    assert finished.outcomes() == {"test_hangs[asyncio]": "deviates"}
    assert finished.messages() == {"test_hangs[asyncio]": "hung for 3 s"}


def test_a_strict_loop_alone_fails_the_run(suite):
    suite.clauses("kept", "broken")
    suite.tests(TESTS.format("Sample"))
    both = ("asyncio", "sampleloop")
    finished = suite.run(loops=both)
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert finished.clause("sample.topic.broken", "SampleLoop") == "failed"
    assert finished.clause("sample.topic.broken", "asyncio") == "passed"
    assert suite.run("--strict-loop=asyncio", loops=both).status == pytest.ExitCode.OK
    assert suite.run("--strict-loop=SampleLoop", loops=both).status == pytest.ExitCode.TESTS_FAILED
    assert suite.run("--strict-loop=other", loops=both).status == pytest.ExitCode.USAGE_ERROR
    selected = suite.run("-k", "SampleLoop", loops=both).outcomes()
    assert len(selected) == 3 and all("[SampleLoop]" in name for name in selected)


def test_a_failure_that_is_no_loops_fails_a_strict_run_too(suite):
    suite.clauses("broken")
    suite.tests(
        '@clause("sample.topic.broken")\ndef test_broken(loop):\n    assert 0\n\ndef test_no_loop():\n    assert 0\n'
    )
    arguments = ("--strict-loop=asyncio",)
    assert suite.run(*arguments, loops=("asyncio", "sampleloop")).status == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        ("nowhere_to_be_found", "loop 'nowhere_to_be_found': module 'nowhere_to_be_found' cannot be imported"),
        ("sampleloop:missing", "loop 'sampleloop:missing': AttributeError"),
        ("sampleloop:asyncio", "loop 'sampleloop:asyncio': TypeError"),
        ("sampleloop:crashing", "loop 'sampleloop:crashing': making it ended the process: crashed (signal 6)"),
        (":", "loop ':': expected NAME or module:factory"),
    ],
)
def test_a_loop_that_cannot_be_had_is_an_error_that_says_so(suite, loop, words):
    finished = suite.run(loops=(loop,))
    assert finished.status == pytest.ExitCode.USAGE_ERROR
    assert words in finished.output


def test_the_matrix_is_written_as_markdown(broken):
    broken.deviations("sampleloop", DEVIATION.format("broken"))
    broken.deviations("asyncio", DEVIATION.format("broken"))
    path = broken.root / "MATRIX.md"
    assert broken.run(f"--spec-write-matrix={path}", loops=("asyncio", "sampleloop")).status == pytest.ExitCode.OK
    text = path.read_text(encoding="utf-8")
    assert "| sample | 1/2 | 1/2 |" in text
    assert "## SampleLoop" in text
    assert "| deviates | Known to be broken in this way. | `sample.topic.broken` (must) |" in text


def test_labels():
    def made_in(module, name):
        return type(name, (), {"__module__": module})

    assert loops.label_of(asyncio.SelectorEventLoop) == "asyncio"
    assert loops.label_of(made_in("fastloop.core", "FastLoop")) == "FastLoop"
    assert loops.label_of(made_in("fastloop.core", "Loop")) == "fastloop"
    assert loops.label_of(made_in("fastloop", "FASTLOOPPolicy")) == "FASTLOOPPolicy"


@pytest.mark.parametrize(
    ("condition", "version", "holds"),
    [
        ("", "1.0", True),
        (">=3.12", "3.12.1", True),
        ("<3.12", "3.12.1", False),
        (">=3.13,<3.13.3", "3.13.0", True),
        (">=3.13,<3.13.3", "3.13.3", False),
        ("==0.23", "0.23.1", True),
        (">0.9", "0.10", True),
        (">1.2.3", "1.2", False),
    ],
)
def test_conditions_of_deviations(condition, version, holds):
    assert deviations.matches(condition, version) is holds


GOOD = '[[clause]]\nid = "sample.topic.rule"\nlevel = "must"\nrule = "A rule."\ncite = "x"\nsince = "3.11"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + GOOD, "twice"),
        (GOOD.replace("sample.topic.rule", "sample.topic"), "an id is"),
        (GOOD.replace("sample.topic.rule", "sample.topic.Rule"), "an id is"),
        (GOOD.replace("sample.topic.rule", "sample.topic.12"), "an id is"),
        (GOOD.replace("sample.topic.rule", "other.topic.rule"), "starts with 'sample.'"),
        (GOOD.replace('"must"', '"shall"'), "level"),
        (GOOD.replace('cite = "x"\n', ""), "'cite' is missing"),
        (GOOD.replace('"x"', '""'), "'cite' must be a non-empty str"),
        (GOOD.replace("3.11", "2.7"), "since"),
        (GOOD + "because = 1\n", "unknown key 'because'"),
        (GOOD + "permits = [1]\n", "'permits' is a list of strings"),
        (GOOD.replace("[[clause]]", "[[rule]]"), "only [[clause]]"),
        ("not TOML", "clauses.toml"),
        ('[[contract]]\nof = "sample"\nrules = ["topic.rule"]\n', "this area itself"),
        ('[[contract]]\nof = "other"\nrules = ["topic.rule"]\n', "there is no clause other.topic.rule"),
        ('[[contract]]\nof = "other"\n', "'rules' is missing"),
    ],
)
def test_a_clause_that_is_not_well_formed_is_an_error(tmp_path, text, words):
    (tmp_path / "sample").mkdir()
    path = tmp_path / "sample" / "clauses.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert list(clauses.load_area(tmp_path, "sample")) == ["sample.topic.rule"]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(clauses.SpecError, match=words.replace("[", r"\[")):
        clauses.load_area(tmp_path, "sample")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('clauses = ["sample.topic.rule"]\nclause = "sample.topic.rule"', "'clause' is one id"),
        ('clause = "sample.*"', "'clause' is one id"),
        ('clause = "sample.topic.rule"\nexcept = ["sample.*"]', "'clause' is one id"),
        ("hangs = true", "'clause' or 'clauses' is missing"),
        ("clauses = []", "lists of ids and patterns"),
        ("clauses = [1]", "lists of ids and patterns"),
        ('clauses = "sample.*"', "'clauses' must be a list"),
        ('clauses = ["other.*"]', "'other.*' matches no clause"),
        ('clauses = ["sample.*.[a-z]"]', "only '*' stands for something"),
        ('clauses = ["sample.*"]\nexcept = ["other.*"]', "'other.*' excepts nothing"),
        ('clauses = ["sample.*"]\nbecause = 1', "unknown key 'because'"),
    ],
)
def test_an_entry_that_is_not_well_formed_is_an_error(tmp_path, text, words):
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "clauses.toml").write_text(GOOD, encoding="utf-8")
    path = tmp_path / "some.toml"
    path.write_text(f'[[deviation]]\nreason = "Known to be broken."\n{text}\n', encoding="utf-8")
    with pytest.raises(clauses.SpecError, match=re.escape(words)):
        deviations.load(path, tmp_path)


def test_an_area_takes_over_the_clauses_of_another_by_name(tmp_path):
    for area, text in (
        ("sample", GOOD + GOOD.replace("topic.rule", "topic.other")),
        ("taker", '[[contract]]\nof = "sample"\nrules = ["topic.rule"]\n'),
    ):
        (tmp_path / area).mkdir()
        (tmp_path / area / "clauses.toml").write_text(text, encoding="utf-8")
    [model, _] = clauses.load_area(tmp_path, "sample").values()
    [taken] = clauses.load_area(tmp_path, "taker").values()
    assert taken == dataclasses.replace(model, id="taker.topic.rule", area="taker")


def test_the_mark_takes_ids():
    with pytest.raises(TypeError):
        clauses.clause()
    with pytest.raises(TypeError):
        clauses.clause(lambda: None)


LEAKING = """
kept = []

@clause("sample.topic.kept")
def test_leaking(loop):
    kept.append(open("/dev/null"))

@clause("sample.topic.kept")
def test_leaking_more(loop):
    kept.extend([open("/dev/null"), open("/dev/zero")])
"""
LEAK = '[[leak]]\nwhat = "{}"\nreason = "Known to be left open in this way."\n'


def test_a_known_leak_fails_no_test_but_hides_no_other(suite):
    suite.clauses("kept")
    suite.tests(LEAKING)
    suite.deviations("asyncio", LEAK.format("descriptor * -> /dev/null"))
    finished = suite.run("-W", "ignore::ResourceWarning")
    assert finished.outcomes() == {"test_leaking[asyncio]": "passed", "test_leaking_more[asyncio]": "failed"}
    message = finished.messages()["test_leaking_more[asyncio]"]
    assert message.startswith("left behind: descriptor ") and message.endswith(" -> /dev/zero")


def test_a_leak_that_no_test_of_the_suite_meets_is_stale(suite):
    suite.clauses("kept")
    suite.tests('@clause("sample.topic.kept")\ndef test_kept(loop):\n    pass\n')
    suite.deviations("asyncio", LEAK.format("descriptor * -> /dev/null"))
    finished = suite.run()
    assert finished.status == pytest.ExitCode.TESTS_FAILED
    assert "stale deviation: descriptor * -> /dev/null" in finished.output
    assert suite.run("-k", "kept").status == pytest.ExitCode.OK
    assert suite.run(paths=("sample/test_sample.py",)).status == pytest.ExitCode.OK
