"""The commands that show results and the specification, and the texts they print."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from spec._kit import cli_pages
from spec._kit.clauses import areas, load_area
from spec._kit.pages import Report
from spec._kit.pages.marks import Place, find_tests
from spec._kit.pages.report import ROOT
from spec._kit.pages.text import UnknownClauseError, clauses_text, explain
from spec._meta.documents import document, write_suite


@pytest.fixture
def root(tmp_path) -> Path:
    """A suite of two areas."""
    return write_suite(tmp_path / "suite")


@pytest.fixture(scope="module")
def tests() -> dict[str, list[Place]]:
    """The tests of every clause of the suite."""
    return find_tests(ROOT, [slug for area in areas(ROOT) for slug in load_area(ROOT, area)])


class TestTexts:
    @pytest.mark.parametrize("area", areas(ROOT))
    def test_every_clause_has_a_test_that_the_sources_name(self, area, tests):
        assert [slug for slug in load_area(ROOT, area) if not tests[slug]] == []

    def test_a_clause_is_explained(self):
        text = explain("tcp.close.flushes-before-lost")
        clause = load_area(ROOT, "tcp")["tcp.close.flushes-before-lost"]
        flat = " ".join(text.split())
        for said in (clause.id, clause.level, clause.rule, clause.quote, clause.cite, "tcp/test_contract.py::test_"):
            assert said in flat

    def test_a_clause_is_explained_with_what_it_came_to(self, root):
        run = document(reasons={"one.topic.b": "why"}, saw={"one.topic.b": ["that"]}, one_topic_b="deviates")
        text = explain("one.topic.b", Report([run], root), root)
        assert "alpha (1.0, CPython 3.13.0): deviates: why" in text
        assert "saw: that" in text
        assert "https://github.com/some/project/issues/7" in text
        assert str(root / "evidence" / "short.py") in text

    @pytest.mark.parametrize(
        ("slug", "hint"),
        [
            ("flushes", "close.flushes-before-lost"),
            ("tcp.close.flushes-before-list", "near ones: tcp.close.flushes-before-lost"),
            ("tcp.close", "near ones: tcp.close."),
            ("close.flushes-before-lost", "tcp.close.flushes-before-lost"),
            ("tcp", "is an area"),
            ("zzzzzz", "areas are "),
            ("", "areas are "),
        ],
    )
    def test_an_unknown_clause_is_refused_with_near_ones(self, slug, hint):
        with pytest.raises(UnknownClauseError, match=re.escape(hint)):
            explain(slug)

    def test_the_specification_as_text_has_every_clause(self):
        text = clauses_text()
        assert [slug for area in areas(ROOT) for slug in load_area(ROOT, area) if f"\n{slug}  (" not in text] == []
        assert "\nudp." not in clauses_text("timers")
        with pytest.raises(UnknownClauseError, match="no area 'nothing'; there are callbacks"):
            clauses_text("nothing")


class TestCommands:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(cli_pages, "RESULT_FOLDERS", (Path(".loopspec"),))

    @pytest.fixture
    def results(self, tmp_path) -> str:
        path = tmp_path / ".loopspec" / "run.json"
        path.parent.mkdir()
        path.write_text(json.dumps(document(timers_delay_nan="passed")), encoding="utf-8")
        (path.parent / "z-badge.json").write_text("{}")
        return str(path)

    def test_matrix_shows_and_writes(self, results, tmp_path, capsys):
        assert cli_pages.main(["matrix", results, results]) == 0
        assert "alpha: of 1 should" in capsys.readouterr().out
        assert cli_pages.main(["matrix", "--html", "site", "--md", "deep/M.md"]) == 0
        assert (tmp_path / "site" / "index.html").exists()
        assert (tmp_path / "deep" / "M.md").exists()

    def test_explain_tells_the_last_outcome(self, results, capsys):
        older = Path(results).with_name("older.json")
        older.write_text(json.dumps(document(timers_delay_nan="failed")), encoding="utf-8")
        os.utime(older, (1, 1))
        assert cli_pages.main(["explain", "timers.delay.nan"]) == 0
        assert "alpha (1.0, CPython 3.13.0): passed" in capsys.readouterr().out

    def test_badge_writes_what_it_is_asked_for(self, results, tmp_path):
        assert cli_pages.main(["badge", results, "--loop", "alpha", "--svg", "b.svg", "--json", "b.json"]) == 0
        assert (tmp_path / "b.svg").read_text().startswith("<svg")
        assert json.loads((tmp_path / "b.json").read_text())["schemaVersion"] == 1

    def test_clauses_shows_and_writes(self, tmp_path, capsys):
        assert cli_pages.main(["clauses", "timers"]) == 0
        assert "timers.delay.nan" in capsys.readouterr().out
        assert cli_pages.main(["clauses", "timers", "--html", "text"]) == 0
        assert (tmp_path / "text" / "areas" / "timers.html").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["matrix"], "no results"),
            (["matrix", "nothing.json"], "nothing.json: No such file or directory"),
            (["badge", "nothing.json"], "nothing.json: No such file or directory"),
            (["explain", "no.such.clause"], "no clause 'no.such.clause'"),
            (["clauses", "nothing"], "no area 'nothing'"),
        ],
    )
    def test_what_is_wrong_is_told_in_one_line(self, arguments, message, capsys):
        assert cli_pages.main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.count("\n") == 1
