"""The benchmarks measure what they say: each row is served, each case ends, what fails is in the report."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import support

FOLDER = support.PROJECT / "benchmarks"
sys.path.insert(0, str(FOLDER))
try:
    import allocator
    import c_echo
    import cases_io  # noqa: F401 - they register themselves
    import certificate
    import counts
    import loops
    import marks
    import micro
    import report
    import results
    import rows
    import targets
    import wrk
    from cases import CASES, Lateness, Meter

    import benchmarks
finally:
    sys.path.remove(str(FOLDER))

ECHOES = [name for name, kind in rows.KINDS.items() if kind.run == "echo"]


@pytest.mark.parametrize(("state", "said"), [("fresh", "mapped anew"), ("freed", "taken from the heap")])
def test_a_freed_block_is_what_the_two_states_differ_by(state: str, said: str):
    command = [sys.executable, str(FOLDER / "allocator.py"), state]
    found = subprocess.run(command, capture_output=True, text=True, timeout=support.TIMEOUT, check=True).stdout.strip()
    if found == "not known":
        pytest.skip("the C library has no mallinfo2()")
    assert found == said


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    options = argparse.Namespace(duration=0.02, warmup=0.01, pin="no", full=False)
    made = benchmarks.Bench(options, tmp_path)
    certificate.write(made.certificate)
    return made


@pytest.mark.parametrize("name", ECHOES)
def test_each_kind_of_row_is_measured_in_both_states(bench: Any, name: str):
    kind = rows.KINDS[name]
    point = {**kind.measured(full=True)[0]}
    point["concurrency"] = min(point["concurrency"], 10)
    found = bench.measure(kind, point, "asyncio")
    assert list(found) == list(allocator.STATES)
    assert all(state["figure"] is not None for state in found.values())


@pytest.mark.parametrize("name", [name for name in ECHOES if rows.KINDS[name].c])
def test_the_server_in_c_serves_the_same_rows(bench: Any, name: str):
    try:
        c_echo.compiled()
    except c_echo.NoCompilerError as error:
        pytest.skip(str(error))
    kind = rows.KINDS[name]
    point = {**kind.measured(full=True)[-1]}
    point["concurrency"] = min(point["concurrency"], 10)
    found = bench.measure(kind, point, c_echo.NAME)
    assert found["fresh"] == found["freed"] and found["fresh"]["figure"] >= 0


def test_without_a_compiler_the_server_in_c_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(c_echo.shutil, "which", lambda _: None)
    with pytest.raises(c_echo.NoCompilerError, match="no C compiler"):
        c_echo.compiled.__wrapped__()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.heavy])
@pytest.mark.parametrize("loop_name", ["asyncio:new_event_loop", support.LOOP])
def test_each_case_runs_at_least_as_often_as_it_was_told(name: str, loop_name: str):
    loop = support.factory(loop_name)()
    try:
        done = CASES[name].run(loop, 10, Meter())
    finally:
        loop.close()
    assert len(done.samples) == 10 if isinstance(done, Lateness) else done >= 10


def test_every_target_is_about_rows_that_are_measured():
    for target in targets.TARGETS:
        if target.kind == targets.MICRO:
            assert target.cases and set(target.cases) <= set(CASES)
            continue
        points = rows.KINDS[target.kind].measured(full=False)
        assert set(target.labels) <= {rows.label(point) for point in points}, target
        assert set(target.connections) <= {point["concurrency"] for point in points}, target


def test_marks_are_clauses_of_the_suite_and_fall_on_who_does_not_keep_them():
    clauses = {
        clause["id"]
        for file in (support.PROJECT / "spec").glob("*/clauses.toml")
        for clause in tomllib.loads(file.read_text("utf-8"))["clause"]
    }
    names = {*rows.KINDS, *CASES}
    for start, about in marks.ABOUT.items():
        assert any(name.startswith(start) for name in names), f"{start} is the start of no row"
        assert {clause for clause, _ in about} <= clauses
    assert [clause for clause, _ in marks.broken("call_soon_chain", "rloop")] == [marks.LOOK[0]]
    assert [clause for clause, _ in marks.broken("proto", "blazio")] == [marks.AT_ONCE[0]]
    assert not [name for name in names if marks.broken(name, results.SUBJECT)]


def test_the_loops_compared_are_those_that_are_installed():
    listed = (FOLDER / "peers.txt").read_text("utf-8").split()
    assert ["asyncio", *listed, results.SUBJECT] == loops.split(loops.ALL)
    assert set(loops.split(loops.DEFAULT)) <= set(loops.split(loops.ALL))


def measured(kind: str, figures: dict[str, tuple[float, float] | str], **more: Any) -> list[dict[str, Any]]:
    """Two rounds of a row, the figure of each loop in each state, or why there is none."""
    entries = []
    for number, (loop, found) in itertools.product(range(2), figures.items()):
        entry = {"round": number, "loop": loop, "label": "1 KiB", "concurrency": 10, **more}
        if isinstance(found, str):
            entry["error"] = found
        else:
            entry["states"] = {
                state: {"figure": figure * (1 + number / 10), "requests_per_second": 1, "server_busy": 0.5}
                for state, figure in zip(allocator.STATES, found, strict=True)
            }
        entries.append(entry)
    kinds = rows.KINDS.get(kind)
    results_of = {"kind": kind, "title": getattr(kinds, "title", ""), "request": "request", "unit": "us of CPU"}
    results_of |= {"machine": results.machine(), "loops": dict.fromkeys(figures, "1"), "settings": {"how": "By hand."}}
    return {**results_of, "measurements": entries}


Saved = Callable[..., str]


@pytest.fixture
def reported(tmp_path: Path) -> Saved:
    def reported(kind: str, figures: dict[str, Any], **more: Any) -> str:
        results.save(tmp_path, kind, measured(kind, figures, **more))
        return report.render(tmp_path).read_text("utf-8")

    return reported


def lines(text: str, *starts: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| " + " | ".join(starts))
    ]


def test_a_row_that_fails_is_an_error_in_the_report(reported: Saved):
    text = reported("proto", {"uvloop": (6.0, 5.0), "rloop": "the loop hung", "tokioloop": (5.0, 5.0)})
    assert lines(text, "1 KiB", "10", "rloop")[0][3:5] == ["**error**", "**error**"]
    assert "- **error**: rloop, 1 KiB x10: the loop hung" in text


def test_a_target_is_met_only_where_it_holds_in_both_states(reported: Saved):
    others = {"uvloop": (10.0, 10.0), "blazio": (9.0, 7.0), "C": (8.0, 8.0)}
    text = reported("proto", {**others, "tokioloop": (8.0, 8.0)})
    found = {cells[1]: cells[3:] for cells in lines(text, "`proto`, 1 KiB, 10 connections")}
    assert found == {
        "uvloop": ["0.80", "0.80", "met"],
        "blazio": ["0.89", "1.14", "**missed**"],
        "C": ["1.00", "1.00", "met"],
    }
    assert "† blazio does not keep" in text


def test_who_breaks_a_clause_is_not_the_peer_to_be_below(reported: Saved):
    figures = {"uvloop": (10.0, 10.0), "rloop": (4.0, 4.0), "tokioloop": (5.0, 5.0)}
    text = reported("micro", figures, case="call_soon_chain", concurrency=1)
    found = {cells[1]: cells[3:] for cells in lines(text, "1 KiB") if len(cells) == 6}
    assert found == {
        "best peer that keeps the clause (uvloop)": ["0.50", "0.50", "met"],
        "best of the others (rloop)": ["1.25", "1.25", "**missed**"],
    }


def test_the_pictures_are_svg_with_a_mark_for_each_loop(reported: Saved, tmp_path: Path):
    reported("proto", {"uvloop": (6.0, 5.0), "asyncio": (20.0, 7.0), "tokioloop": (5.0, 5.0), "C": (4.0, 4.0)})
    for file in ("ratios.svg", "allocator.svg"):
        root = ET.fromstring((tmp_path / file).read_text("utf-8"))
        kinds = [element.get("class", "").split()[-1] for element in root.iter() if element.tag.endswith("circle")]
        assert {"mine", "a", "b"} <= set(kinds)


def test_more_instructions_are_named_unless_they_were_counted_elsewhere():
    here = {"python": "3.13.0"}
    committed = {"tools": here, "instructions": {"chain": 100.0, "timers": 100.0, "echo": 100.0}}
    found = {"chain": 101.0, "timers": 103.0, "echo": 90.0, "new": 5.0}
    said, grown = counts.compared(found, committed, here)
    assert grown == ["timers"] and len(said) == 4
    said, grown = counts.compared(found, {**committed, "tools": {"python": "3.12.0"}}, here)
    assert not grown and said[-1].startswith("not judged")


def test_every_path_whose_instructions_are_counted_is_a_case():
    assert set(counts.PATHS) <= set(CASES)
    assert counts.collected("==1== Collected : 1234\n") == 1234


WRK = """\
  Latency Distribution
     50%  350.00us
     99%    1.50ms
  123456 requests in 1.00s, 10.00MB read
{}Requests/sec: 123000.50
"""


def test_what_wrk_says_is_read_and_its_errors_are_errors():
    assert wrk.parse(WRK.format("")) == {
        "requests": 123456, "requests_per_second": 123000.5, "p50_us": 350.0, "p99_us": 1500.0,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="Non-2xx"):
        wrk.parse(WRK.format("  Non-2xx or 3xx responses: 12\n"))
    with pytest.raises(RuntimeError, match="timeout 3"):
        wrk.parse(WRK.format("  Socket errors: connect 0, read 0, write 0, timeout 3\n"))


def test_a_case_is_measured_in_both_states_by_a_process_of_its_own():
    found = micro.measure("call_soon_chain", "asyncio", 0.01, None)
    assert list(found) == list(allocator.STATES) and all(state["figure"] > 0 for state in found.values())
    with pytest.raises(RuntimeError, match="nowhere"):
        micro.measure("call_soon_chain", "nowhere", 0.01, None)


def test_a_loop_that_cannot_be_had_is_left_out_with_the_reason():
    left_out: dict[str, str] = {}
    assert list(loops.available(["asyncio", "nowhere"], left_out=left_out)) == ["asyncio"]
    assert "nowhere" in left_out["nowhere"]


def test_a_server_that_ends_says_why():
    with pytest.raises(RuntimeError, match="nowhere"), benchmarks.server("nowhere", []):
        pass
