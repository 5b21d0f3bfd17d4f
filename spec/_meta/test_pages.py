"""What is shown of results and of the specification: counts, merging, escaping, links, badges, texts."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree as ET

import pytest

from spec._kit import matrix
from spec._kit.clauses import areas, load_area
from spec._kit.pages import (
    DocumentError,
    Report,
    read_document,
    write_badge,
    write_html,
    write_markdown,
    write_specification,
)
from spec._kit.pages.badge import badge_of
from spec._kit.pages.document import check
from spec._kit.pages.markdown import render
from spec._kit.pages.report import ROOT
from spec._meta.documents import document, write_suite

EVIL = "<script>alert('1')</script> & \"quoted\" | `code` \x1b[31m \udc80"
VOID = {"br", "hr", "img", "link", "meta", "wbr"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def root(tmp_path) -> Path:
    """A suite of two areas."""
    return write_suite(tmp_path / "suite")


def only(report: Report):
    [column] = report.columns
    return column


class TestCounts:
    def test_levels_are_counted_apart_and_what_was_not_decided_is_not_passed(self):
        run = document(
            levels={"one.topic.e": "should", "one.topic.f": "may"},
            one_topic_a="passed",
            one_topic_b="failed",
            one_topic_c="skipped",
            one_topic_d="untested",
            one_topic_e="deviates",
            one_topic_f="passed",
        )
        report = Report([run])
        musts = report.count(only(report), "must")
        assert (musts.passed, musts.total, musts.ratio) == (1, 4, "1/4")
        assert musts.sentence == "of 4 musts, 1 passes"
        assert musts.rest == "1 fails, 1 skipped, 1 not run"
        assert report.count(only(report), "should").sentence == "of 1 should, 0 pass"
        assert report.count(only(report), "may").ratio == "1/1"

    @pytest.mark.parametrize(
        ("outcomes", "worst"),
        [
            (("passed", "passed"), "passed"),
            (("passed", "skipped"), "passed"),
            (("skipped", "skipped"), "skipped"),
            (("passed", "untested"), "untested"),
            (("passed", "deviates"), "deviates"),
            (("failed", "deviates"), "failed"),
        ],
    )
    def test_the_sign_of_many_is_that_of_the_worst(self, outcomes, worst):
        report = Report([document(one_topic_a=outcomes[0], one_topic_b=outcomes[1])])
        assert report.count(only(report), "must").worst == worst

    def test_the_terminal_tells_each_level_and_what_differs(self):
        run = document(
            levels={"one.topic.b": "should"},
            reasons={"one.topic.b": "no good"},
            one_topic_a="passed",
            one_topic_b="failed",
        )
        text = matrix.render_text(run)
        assert re.search(r"^one +1/1 +0/1$", text, re.MULTILINE)
        assert "alpha: of 1 must, 1 passes; of 1 should, 0 pass (1 fails)" in text
        assert "should one.topic.b\n         alpha: failed: no good" in text

    def test_the_terminal_does_not_list_what_no_loop_was_run_on(self):
        text = matrix.render_text(document(one_topic_a="untested", one_topic_b="skipped"))
        assert "one.topic.a" not in text
        assert "one.topic.b" in text

    def test_the_terminal_tells_where_loops_chose_different_permitted_outcomes(self):
        runs = [
            document(
                "alpha",
                saw={"one.topic.a": ["this"], "one.topic.b": ["same"]},
                one_topic_a="passed",
                one_topic_b="passed",
            ),
            document(
                "beta",
                saw={"one.topic.a": ["that"], "one.topic.b": ["same"]},
                one_topic_a="passed",
                one_topic_b="passed",
            ),
        ]
        _, _, choices = matrix.render_report(Report(runs)).partition("permits several outcomes")
        assert "one.topic.a\n         alpha: this\n         beta: that" in choices
        assert "one.topic.b" not in choices


class TestMerging:
    def test_a_column_is_a_loop_of_one_version_on_one_python(self):
        runs = [
            document(one_topic_a="passed"),
            document(one_topic_a="passed", python="3.12.1"),
            document(one_topic_a="passed", version="2.0"),
            document("beta", one_topic_a="passed"),
            document(one_topic_a="passed"),
        ]
        report = Report(runs)
        assert len(report.columns) == 4
        assert report.labels == ["alpha", "beta"]

    def test_areas_of_several_runs_make_one_column(self):
        report = Report([document(one_topic_a="passed"), document(two_topic_a="failed")])
        assert report.count(only(report), "must").ratio == "1/2"

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_a_failure_is_not_made_good_by_another_run(self, order):
        runs = [
            document(one_topic_a="failed", reasons={"one.topic.a": "why"}),
            document(one_topic_a="passed", reasons={"one.topic.a": ""}),
        ]
        report = Report([runs[place] for place in order])
        verdict = report.verdict("one.topic.a", only(report))
        assert (verdict.outcome, verdict.reason) == ("failed", "why")

    def test_a_clause_that_a_loop_was_not_run_on_is_untested_there(self):
        report = Report([document(one_topic_a="passed"), document("beta", two_topic_a="passed")])
        alpha, beta = report.columns
        assert report.verdict("two.topic.a", alpha).outcome == "untested"
        assert report.count(beta, "must").rest == "1 not run"

    def test_a_loop_that_could_not_be_made_is_told_and_is_no_column(self, tmp_path, root):
        run = document(one_topic_a="passed")
        run["loops"].append({"name": "broken:new", "error": "no module <broken>"})
        run["complete"] = False
        run["suite"] = "2026.11"
        run["loops"][0]["notes"] = ["it prints <something>"]
        report = Report([run])
        assert report.broken == [("broken:new", "no module <broken>")]
        assert len(report.columns) == len(report.incomplete) == 1
        assert "broken:new: could not be run" in matrix.render_report(report)
        page = write_html([run], tmp_path / "site", root).read_text(encoding="utf-8")
        assert "no module &lt;broken&gt;" in page
        assert "was interrupted" in page
        assert "Version of the suite: 2026.11." in page
        assert "it prints &lt;something&gt;" in (tmp_path / "site" / "loops" / "alpha.html").read_text(encoding="utf-8")

    def test_the_days_of_the_runs_are_shown_where_the_documents_have_them(self, tmp_path, root):
        first, second, old = (document(one_topic_a="passed") for _ in range(3))
        first["date"], second["date"] = "2026-11-30", "2026-11-29"
        report = Report([first, old, second, first])
        assert report.dates[report.columns[0]] == ("2026-11-29", "2026-11-30")
        assert "| linux-x86\\_64 | 2026-11-29, 2026-11-30 |" in render(report)
        write_html([first], tmp_path / "site", root)
        assert "Run on 2026-11-30." in (tmp_path / "site" / "loops" / "alpha.html").read_text(encoding="utf-8")

    def test_a_run_of_nothing_is_shown(self, tmp_path, root):
        run = document(one_topic_a="passed")
        run["loops"] = [{"label": "broken:new", "name": "broken:new", "error": "no module"}]
        for clauses in (run["clauses"], []):
            run["clauses"] = clauses
            assert matrix.render_text(run).startswith("broken:new: could not be run: no module")
            write_html([run], tmp_path / "site", root)
            index = check_site(tmp_path / "site")[tmp_path / "site" / "index.html"]
            write_markdown([run], tmp_path / "M.md", root)
            for text in (index.text, (tmp_path / "M.md").read_text(encoding="utf-8")):
                assert "broken:new could not be run: no module" in text
            with pytest.raises(DocumentError, match="there are none"):
                badge_of(Report([run], root), None)

    @pytest.mark.parametrize("value", [None, 3, "x", [], {}, [1], [None], {"a": 1}, True])
    def test_whatever_is_in_the_place_of_a_part_of_a_document_is_refused_or_shown(self, value):
        def places(part, place=()):
            yield place
            inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
            for key, element in inner:
                yield from places(element, (*place, key))

        whole = document(saw={"one.topic.a": ["that"]}, one_topic_a="passed", one_topic_b="failed")
        for *outer, last in filter(None, places(whole)):
            changed = part = copy.deepcopy(whole)
            for key in outer:
                part = part[key]
            part[last] = value
            try:
                check(changed, "it")
            except DocumentError:
                continue
            report = Report([changed])
            assert matrix.render_report(report)
            assert render(report)
            for label in report.labels:
                assert badge_of(report, label).svg()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "not JSON"),
            ("[]", "not the result of a run"),
            ('{"schemaVersion": 1}', "not the result of a run"),
            ('{"format": 99, "loops": [], "clauses": []}', "has format 99"),
            ('{"format": 1, "loops": [{}], "clauses": []}', "a loop has no label"),
            ('{"format": 1, "loops": [], "clauses": [{"id": "x"}]}', r"clauses\[0\] has no area"),
            ('{"format": 1, "loops": [{"label": 3}], "clauses": []}', r"loops\[0\].label is no str"),
            ('{"format": 1, "loops": [], "clauses": [], "tests": {}}', "tests is no list"),
            ("[" * 100_000, "not JSON"),
        ],
    )
    def test_a_file_that_is_no_result_is_named_with_what_is_wrong(self, tmp_path, content, message):
        path = tmp_path / "run.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DocumentError, match=message) as caught:
            read_document(path)
        assert str(path) in str(caught.value)

    def test_an_unknown_outcome_is_refused(self, tmp_path):
        path = tmp_path / "run.json"
        path.write_text(json.dumps(document(one_topic_a="wonderful")), encoding="utf-8")
        with pytest.raises(DocumentError, match=r"clauses\[0\]\.outcomes\.alpha\.outcome is none of failed, "):
            read_document(path)


class Page(HTMLParser):
    """A page as the checks need it: elements, ids, links, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


def pages_of(folder: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}


def check_site(folder: Path) -> dict[Path, Page]:
    """Every page is whole, every link within the site leads somewhere."""
    pages = pages_of(folder)
    assert folder / "index.html" in pages
    for path, page in pages.items():
        assert len(page.all("h1")) == 1, path
        assert page.all("html")[0]["lang"] == "en"
        assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
        assert len(page.all("title")) == 1
        assert len(page.ids) == len(set(page.ids)), path
        assert page.all("script") == []
        assert all(image.get("alt") for image in page.all("img"))
        tables = page.all("table")
        assert len(page.all("caption")) == len(tables)
        assert len([head for head in page.all("th") if head.get("scope") == "col"]) >= 2 * len(tables)
        assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), path
        for _, attributes in page.elements:
            for address in filter(None, (attributes.get("href"), attributes.get("src"))):
                if address.startswith("https://") or address == "data:,":
                    assert attributes.get("src") is None, "nothing is loaded from elsewhere"
                    continue
                assert ":" not in address
                file, fragment = urldefrag(address)
                target = (path.parent / unquote(file)).resolve() if file else path
                assert target.is_file(), f"{path}: {address}"
                if fragment:
                    assert unquote(fragment) in pages[target].ids, f"{path}: {address}"
    return pages


class TestSite:
    def test_links_lead_somewhere_and_pages_are_whole(self, tmp_path, root):
        runs = [
            document(one_topic_a="passed", one_topic_b="deviates", one_topic_c="skipped"),
            document(one_topic_a="passed", one_topic_b="failed", python="3.12.1"),
            document("beta", one_topic_a="untested", saw={"one.topic.b": ["that"]}, one_topic_b="passed"),
        ]
        folder = tmp_path / "site"
        assert write_html(runs, folder, root) == folder / "index.html"
        pages = check_site(folder)
        names = {str(path.relative_to(folder)) for path in pages}
        assert {"areas/one.html", "areas/two.html", "loops/alpha.html", "loops/beta.html"} < names
        assert "of 2 musts, 1 passes" in pages[folder / "loops" / "alpha.html"].text.lower()
        area = pages[folder / "areas" / "one.html"]
        assert "It <must> hold & stay." in area.text
        assert "this <way>" in area.text
        assert "; saw: that" in area.text
        assert "one/test_x.py::test_it" in area.text
        assert "https://github.com/some/project/issues/7" in [link["href"] for link in area.all("a")]

    def test_a_citation_is_a_link_to_its_text(self, tmp_path, root):
        write_html([document(one_topic_a="passed")], tmp_path / "site", root)
        links = {
            link["href"] for link in pages_of(tmp_path / "site")[tmp_path / "site" / "areas" / "two.html"].all("a")
        }
        assert "https://docs.python.org/3/library/asyncio.html#a" in links
        assert "https://github.com/python/cpython/blob/main/Lib/asyncio/base_events.py" in links

    def test_evidence_is_shown_where_there_is_one(self, tmp_path, root):
        folder = tmp_path / "site"
        run = document("Alpha", one_topic_a="passed", one_topic_b="deviates", two_topic_a="failed")
        write_html([run], folder, root)
        pages = check_site(folder)
        assert 'print("<x>")' in pages[folder / "evidence" / "short.html"].text
        for name, script in (("areas/one", "short"), ("areas/two", "two.topic.a"), ("loops/alpha", "short")):
            addresses = [link["href"] for link in pages[folder / f"{name}.html"].all("a")]
            assert f"../evidence/{script}.html" in addresses

    def test_a_script_that_several_loops_have_failed_is_one_page_that_all_of_them_link_to(self, tmp_path, root):
        folder = tmp_path / "site"
        runs = [document(label, one_topic_b="deviates") for label in ("Alpha", "beta", "gamma")]
        write_html(runs, folder, root)
        pages = check_site(folder)
        links = {path: {link["href"] for link in page.all("a")} for path, page in pages.items()}
        loops = {name: folder / "loops" / f"{name}.html" for name in ("alpha", "beta", "gamma")}
        shown = {name: "../evidence/short.html" in links[path] for name, path in loops.items()}
        assert shown == {"alpha": True, "beta": True, "gamma": False}
        back = links[folder / "evidence" / "short.html"]
        assert {name: f"../loops/{name}.html" in back for name in loops} == shown
        area = (folder / "areas" / "one.html").read_text(encoding="utf-8")
        assert area.count("../evidence/short.html") == 1, "loops with one outcome stand together"

    def test_evidence_of_one_clause_is_evidence_of_the_cause_it_shares_with_others(self, tmp_path, root):
        reasons = {"one.topic.b": "A cause.", "one.topic.c": "A cause.", "one.topic.d": "Another."}
        run = document(reasons=reasons, **{f"one_topic_{letter}": "deviates" for letter in "bcd"})
        write_html([run], tmp_path / "site", root)
        text = (tmp_path / "site" / "areas" / "one.html").read_text(encoding="utf-8")
        sections = re.findall(r'<section id="([^"]*)"(.*?)</section>', text)
        shown = {slug: "evidence/short.html" in content for slug, content in sections}
        assert shown == {"one.topic.b": True, "one.topic.c": True, "one.topic.d": False}

    def test_whatever_a_document_says_is_text(self, tmp_path, root):
        run = document(
            EVIL, version=EVIL, reasons={"one.topic.a": EVIL}, saw={"one.topic.a": [EVIL]}, one_topic_a="failed"
        )
        run["clauses"][0] |= {"rule": EVIL, "area": "../../up", "id": "up.topic.a"}
        run["clauses"][0]["outcomes"][EVIL]["reason"] = EVIL
        run["tests"][0]["id"] = EVIL
        folder = tmp_path / "deep" / "er" / "site"
        write_html([run], folder, root)
        check_site(folder)
        assert [path.name for path in tmp_path.iterdir() if path.name not in ("deep", "suite")] == []
        for path in folder.rglob("*.svg"):
            ET.fromstring(path.read_bytes())
        write_markdown([run], tmp_path / "M.md", root)
        assert "<script>" not in (tmp_path / "M.md").read_text(encoding="utf-8")
        assert "\x1b" not in matrix.render_text(run)

    def test_two_labels_that_make_one_name_have_two_pages(self, tmp_path, root):
        write_html(
            [document("a b", one_topic_a="passed"), document("a/b", one_topic_a="passed")], tmp_path / "site", root
        )
        check_site(tmp_path / "site")
        assert len(list((tmp_path / "site" / "loops").iterdir())) == 2

    def test_the_specification_is_a_site_without_results(self, tmp_path, root):
        write_specification(tmp_path / "all", root=root)
        pages = check_site(tmp_path / "all")
        assert {path.name for path in pages} == {"index.html", "one.html", "two.html"}
        write_specification(tmp_path / "one", ["one"], root)
        assert {path.name for path in check_site(tmp_path / "one")} == {"index.html", "one.html"}

    def test_the_suite_itself_makes_a_whole_site(self, tmp_path):
        write_specification(tmp_path / "site")
        pages = check_site(tmp_path / "site")
        shown = {slug for page in pages.values() for slug in page.ids}
        assert {slug for area in areas(ROOT) for slug in load_area(ROOT, area)} <= shown

    @pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
    @pytest.mark.parametrize("width", [390, 1280])
    def test_no_page_is_wider_than_the_screen(self, tmp_path, root, width):
        long = "x" * 300
        runs = [
            document(f"loop{number}", reasons={"one.topic.a": long}, one_topic_a="failed", one_topic_b="passed")
            for number in range(12)
        ]
        runs.append(document(one_topic_b="failed"))
        with (root / "evidence" / "short.py").open("a", encoding="utf-8") as file:
            file.write(f"# {long}\n")
        folder = tmp_path / "site"
        write_html(runs, folder, root)
        assert (folder / "evidence").exists()
        probe = tmp_path / "probe.html"
        frames = "".join(f'<iframe src="site/{path.relative_to(folder)}"></iframe>' for path in pages_of(folder))
        probe.write_text(
            f"<style>iframe {{ width: {width}px; height: 800px; border: 0 }}</style>{frames}<pre></pre><script>"
            "onload = () => { document.querySelector('pre').textContent = [...document.querySelectorAll('iframe')].map("
            "frame => { const e = frame.contentDocument.documentElement; return e.scrollWidth + '/' + e.clientWidth })"
            ".join(' ') }</script>",
            encoding="utf-8",
        )
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        [said] = re.findall(r"<pre>([^<]*)</pre>", run.stdout)
        widths = [tuple(map(int, pair.split("/"))) for pair in said.split()]
        assert len(widths) == len(pages_of(folder))
        assert all(content <= seen and width - 20 <= seen <= width for content, seen in widths), widths


class TestMarkdown:
    def test_causes_are_told_once_with_the_clauses_they_break(self, tmp_path, root):
        why = {f"one.topic.{letter}": "The <same> cause | here." for letter in "abcdefgh"}
        run = document(reasons=why, **{f"one_topic_{letter}": "deviates" for letter in "abcdefgh"})
        write_markdown([run], tmp_path / "M.md", root)
        text = (tmp_path / "M.md").read_text(encoding="utf-8")
        [line] = [line for line in text.splitlines() if "cause" in line]
        assert line.startswith(r"| deviates | The &lt;same&gt; cause \| here. | `one.topic.a` (must), ")
        assert line.endswith(" and 5 more |")
        assert "Not run: two." in text

    def test_evidence_is_linked_to_in_the_folder_of_the_suite(self, tmp_path, root):
        for folder in (root, tmp_path):
            write_markdown([document(one_topic_b="deviates")], folder / "M.md", root)
        assert "[evidence](evidence/short.py)" in (root / "M.md").read_text(encoding="utf-8")
        assert "[evidence]" not in (tmp_path / "M.md").read_text(encoding="utf-8")

    def test_addresses_in_memory_are_left_out(self):
        runs = [
            document(reasons={"one.topic.a": f"<Handle at {address:#x}>"}, one_topic_a="failed")
            for address in (2**44, 2**45)
        ]
        assert render(Report(runs[:1])) == render(Report(runs[1:]))

    def test_every_row_of_a_table_has_the_cells_of_its_head(self, tmp_path, root):
        runs = [document(one_topic_a="failed"), document("be|ta", one_topic_a="passed", two_topic_a="skipped")]
        write_markdown(runs, tmp_path / "M.md", root)
        for block in (tmp_path / "M.md").read_text(encoding="utf-8").split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, block


class TestBadge:
    @pytest.mark.parametrize(
        ("outcomes", "message", "color"),
        [
            (("passed", "passed"), "2/2 musts", "brightgreen"),
            (("passed", "skipped"), "1/2 musts", "red"),
            (("passed", "failed"), "1/2 musts", "red"),
            (("untested", "untested"), "0/2 musts", "lightgrey"),
        ],
    )
    def test_it_tells_the_musts(self, root, outcomes, message, color):
        run = document(one_topic_a=outcomes[0], two_topic_a=outcomes[1])
        badge = badge_of(Report([run], root), None)
        assert (badge.message, badge.color) == (message, color)

    def test_it_has_the_form_that_shields_reads_and_is_well_formed(self, tmp_path, root):
        write_badge(document(EVIL[:20], one_topic_a="passed"), None, tmp_path / "badge.svg", root)
        content = json.loads((tmp_path / "badge.json").read_text(encoding="utf-8"))
        assert content == {
            "schemaVersion": 1,
            "label": "asyncio conformance",
            "message": "one: 1/1 musts",
            "color": "brightgreen",
        }
        svg = ET.fromstring((tmp_path / "badge.svg").read_bytes())
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert "one: 1/1 musts" in [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]

    def test_what_it_says_of_areas_is_text(self, tmp_path, root):
        run = document(one_topic_a="passed", other_topic_a="passed")
        run["clauses"][1]["area"] = EVIL
        write_badge(run, None, tmp_path / "badge.svg", root)
        ET.fromstring((tmp_path / "badge.svg").read_bytes())

    def test_of_several_pythons_it_tells_the_one_with_the_fewest_passed(self, root):
        runs = [
            document(one_topic_a="passed", two_topic_a="passed"),
            document(one_topic_a="failed", two_topic_a="passed", python="3.12.0"),
        ]
        assert badge_of(Report(runs, root), "ALPHA").message == "1/2 musts"

    @pytest.mark.parametrize("loop", [None, "gamma"])
    def test_a_loop_that_is_not_there_is_refused_with_those_that_are(self, root, loop):
        report = Report([document(one_topic_a="passed"), document("beta", one_topic_a="passed")], root)
        with pytest.raises(DocumentError, match="there are alpha, beta"):
            badge_of(report, loop)
