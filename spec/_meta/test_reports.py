"""The table of reports: each has clauses that exist, and the page is what the module makes of the table."""

from __future__ import annotations

import pytest

from spec._kit import reports
from spec._kit.clauses import SpecError

KNOWN = {"tcp.close.lost-none", "timers.handle.when"}
GOOD = {
    "project": "someloop",
    "url": "https://github.com/someone/someloop/issues/426",
    "behaviour": 'Timers "are".',
    "clauses": ["timers.handle.when"],
}


def entry(**changes: object) -> str:
    """A [[report]] entry: GOOD with changes, None for a key that is left out."""
    keys = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    lines = (f"{key} = {value!r}" for key, value in keys.items())
    return "\n".join(["[[report]]", *lines, ""])


@pytest.fixture
def load(tmp_path):
    def load(*entries: str) -> list[reports.Report]:
        path = tmp_path / "reports.toml"
        path.write_text("\n".join(entries), encoding="utf-8")
        return reports.load(path, KNOWN)

    return load


def test_there_are_at_least_a_hundred_and_twenty_reports_of_many_projects():
    found = reports.load_all()
    assert len(found) >= 120
    assert len({report.project for report in found}) >= 20


def test_the_page_is_what_the_module_makes_of_the_table():
    page = (reports.ROOT / "REPORTS.md").read_text(encoding="utf-8")
    assert page == reports.render(reports.load_all()), "run python -m spec._kit.reports"


def test_a_good_entry_is_loaded_as_it_is(load):
    (report,) = load(entry())
    assert (report.project, report.url, report.behaviour) == (GOOD["project"], GOOD["url"], GOOD["behaviour"])
    assert (report.clauses, report.area, report.number) == (("timers.handle.when",), "timers", 426)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"project": None}, "'project' is missing"),
        ({"url": None}, "'url' is missing"),
        ({"behaviour": ""}, "'behaviour' must be a non-empty str"),
        ({"clauses": []}, "'clauses' must be a non-empty list"),
        ({"clauses": ["tcp.no.such"]}, "there is no clause tcp.no.such"),
        ({"clauses": ["timers.handle.when"] * 2}, "each once"),
        ({"clauses": [1]}, "clauses are ids"),
        ({"behaviour": "no sentence"}, "is a sentence"),
        ({"url": "https://example.org/1"}, "the address of an issue"),
        ({"url": "https://github.com/someone/someloop"}, "the address of an issue"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_a_bad_entry_is_refused_by_name(load, changes, message):
    with pytest.raises(SpecError, match=r"reports\.toml: ") as caught:
        load(entry(**changes))
    assert message in str(caught.value)


def test_one_thread_is_there_once(load):
    with pytest.raises(SpecError, match="is there twice"):
        load(entry(), entry(project="somebody"))


def test_what_is_no_report_is_refused(load):
    with pytest.raises(SpecError, match="only"):
        load('[[rumour]]\nurl = "x"\n')


def test_the_page_has_a_table_for_each_area_by_project_and_number(load):
    found = load(
        entry(),
        entry(url="https://github.com/someone/someloop/pull/42", behaviour="A | b."),
        entry(project="another", url="https://github.com/someone/another/issues/7", clauses=["tcp.close.lost-none"]),
    )
    page = reports.render(found)
    assert "3 reports of 2 projects." in page
    rows = [line for line in page.splitlines() if line.startswith(("## ", "| ["))]
    assert rows == [
        "## tcp",
        '| [another #7](https://github.com/someone/another/issues/7) | Timers "are". | `tcp.close.lost-none` |',
        "## timers",
        r"| [someloop #42](https://github.com/someone/someloop/pull/42) | A \| b. | `timers.handle.when` |",
        '| [someloop #426](https://github.com/someone/someloop/issues/426) | Timers "are". | `timers.handle.when` |',
    ]
