"""Outcomes that a clause permits: a test says which it saw, and that reaches the results."""

from __future__ import annotations

import pytest

CLAUSES = """
[[clause]]
id = "sample.topic.either"
level = "must"
rule = "Either of two."
permits = ["one", "the other"]
cite = "nowhere"
since = "3.11"

[[clause]]
id = "sample.topic.plain"
level = "must"
rule = "One only."
cite = "nowhere"
since = "3.11"
"""

OPTIONS = pytest.mark.parametrize("options", [(), ("--spec-no-fork",)], ids=["forked", "not forked"])


@pytest.fixture
def either(suite):
    suite.write("sample/clauses.toml", CLAUSES)
    return suite


@OPTIONS
def test_what_a_test_saw_is_in_the_results(either, options):
    either.tests(
        """
        @pytest.mark.parametrize("outcome", ["one", "the other"])
        @clause("sample.topic.either", "sample.topic.plain")
        def test_it(loop, saw, outcome):
            saw("sample.topic.either", outcome)
            saw("topic.either", outcome)
        """
    )
    document = either.run(*options).document
    assert [test["saw"] for test in document["tests"]] == [
        {"sample.topic.either": ["one"]},
        {"sample.topic.either": ["the other"]},
    ]
    [clause, plain] = document["clauses"]
    assert clause["permits"] == ["one", "the other"] and plain["permits"] == []
    assert clause["outcomes"]["asyncio"]["saw"] == ["one", "the other"]
    assert plain["outcomes"]["asyncio"]["saw"] == []


def test_what_a_test_saw_is_kept_where_it_fails(either):
    either.tests(
        """
        @clause("sample.topic.either")
        def test_it(loop, saw):
            saw("sample.topic.either", "one")
            assert False
        """
    )
    [test] = either.run().document["tests"]
    assert test["outcome"] == "failed" and test["saw"] == {"sample.topic.either": ["one"]}


@pytest.mark.parametrize(
    ("slug", "outcome", "message"),
    [
        ("sample.topic.either", "a third", "is none of ['one', 'the other']"),
        ("sample.topic.plain", "one", "is none of []"),
        ("sample.topic.unknown", "one", "the test is of sample.topic.either, sample.topic.plain"),
        ("either", "one", "the test is of sample.topic.either, sample.topic.plain"),
    ],
)
def test_an_outcome_that_no_clause_of_the_test_permits_fails_it(either, slug, outcome, message):
    either.tests(
        f"""
        @clause("sample.topic.either", "sample.topic.plain")
        def test_it(loop, saw):
            saw({slug!r}, {outcome!r})
        """
    )
    [test] = either.run().document["tests"]
    assert test["outcome"] == "failed" and message in test["message"] and test["saw"] == {}
