"""The seed of a run: a new one each day, printed, and the same draws when it is given again."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

DRAWS = """
from hypothesis import given, settings, strategies as st
from spec._kit.seeds import explored

@clause("sample.topic.seed")
def test_draws(loop, dice):
    drawn = []

    @explored(5)
    @given(st.integers(0, 1 << 60))
    def draw(number):
        drawn.append(number)

    draw()
    with open("drawn", "a") as file:
        print(drawn, dice.random(), file=file)
"""
SEED = re.compile(r"^spec seed: (\d+) ", re.MULTILINE)


def drawn(suite, *options, **keywords):
    """The run, and what its tests drew."""
    (suite.root / "drawn").unlink(missing_ok=True)
    finished = suite.run(*options, **keywords)
    return finished, (suite.root / "drawn").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def drawing(suite):
    suite.clauses("seed")
    suite.tests(DRAWS)
    return suite


@pytest.mark.parametrize("options", [(), ("-q",), ("-v",)], ids=" ".join)
def test_the_seed_is_printed_and_is_that_of_the_day(drawing, options):
    before = datetime.now(UTC)
    finished, _ = drawn(drawing, *options)
    after = datetime.now(UTC)
    printed = SEED.search(finished.output)
    assert printed, finished.output
    assert printed[1] in (f"{before:%Y%m%d}", f"{after:%Y%m%d}")
    assert str(finished.document["seed"]) == printed[1]


def test_a_seed_that_is_given_again_draws_the_same(drawing):
    runs = [drawn(drawing, f"--spec-seed={seed}") for seed in (7, 7, 8)]
    assert [finished.document["seed"] for finished, _ in runs] == [7, 7, 8]
    [first, again, other] = [draws for _, draws in runs]
    assert first == again != other


def test_every_loop_meets_the_same_draws(drawing):
    _, draws = drawn(drawing, loops=("asyncio", "sampleloop"))
    assert len(draws) == 2 and len(set(draws)) == 1


def test_a_seed_of_hypothesis_own_option_is_kept(drawing):
    options = ("-p", "_hypothesis_pytestplugin", "--hypothesis-seed=3")
    _, first = drawn(drawing, *options, "--spec-seed=1")
    _, again = drawn(drawing, *options, "--spec-seed=2")
    examples = [draws[0].partition("]")[0] for draws in (first, again)]
    assert examples[0] == examples[1]


def test_an_example_that_takes_long_to_fail_is_shown(suite):
    suite.clauses("slow")
    suite.tests(
        """
        from hypothesis import given, strategies as st
        from spec._kit.seeds import explored

        @clause("sample.topic.slow")
        @explored(20)
        @given(numbers=st.lists(st.integers(0, 1 << 60), min_size=5))
        def test_slow(loop, numbers):
            if sum(numbers) > 1000:
                time.sleep(0.3)
                assert False
        """
    )
    finished = suite.run("--spec-timeout=18")
    assert "numbers=[" in finished.output, finished.output
    assert "hung" not in finished.output


@pytest.mark.parametrize("options", [(), ("--spec-no-fork",)], ids=["forked", "not forked"])
def test_tests_of_other_kinds_keep_their_seeds(drawing, options):
    drawing.tests(
        """
        import hypothesis.core

        @clause("sample.topic.seed")
        def test_of_the_suite(loop):
            assert hypothesis.core.global_force_seed == 5

        def test_of_a_project():
            assert hypothesis.core.global_force_seed is None
        """
    )
    assert drawing.run("--spec-seed=5", *options).status == pytest.ExitCode.OK
