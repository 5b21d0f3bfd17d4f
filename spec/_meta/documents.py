"""Documents of runs that were not run, and a suite they are of, for the tests of what is shown of them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any


def document(
    label: str = "alpha",
    *,
    python: str = "3.13.0",
    version: str = "1.0",
    levels: dict[str, str] | None = None,
    reasons: dict[str, str] | None = None,
    saw: dict[str, list[str]] | None = None,
    **outcomes: str,
) -> dict[str, Any]:
    """The document of a run; clauses are given as `area_topic_rule="outcome"`."""
    clauses = []
    for name, outcome in outcomes.items():
        slug = ".".join(name.split("_"))
        entry = {"outcome": outcome, "reason": (reasons or {}).get(slug, "")}
        if saw and slug in saw:
            entry["saw"] = saw[slug]
        clauses.append(
            {
                "id": slug,
                "area": slug.partition(".")[0],
                "level": (levels or {}).get(slug, "must"),
                "rule": f"The rule of {slug}.",
                "outcomes": {label: entry},
            }
        )
    return {
        "format": 1,
        "python": python,
        "implementation": "CPython",
        "platform": "linux-x86_64",
        "loops": [{"label": label, "name": label, "class": f"{label}.Loop", "version": version}],
        "clauses": clauses,
        "tests": [
            {"id": f"spec/{clause['area']}/test_x.py::test_it[{label}-1]", "loop": label, "clauses": [clause["id"]]}
            for clause in clauses
        ],
        "stale_deviations": [],
    }


def write_suite(root: Path) -> Path:
    """Write a suite of two areas, with tests, scripts of evidence and a report; its folder."""
    for area in ("one", "two"):
        (root / area).mkdir(parents=True)
        (root / area / "clauses.toml").write_text(
            "".join(
                textwrap.dedent(f"""
                    [[clause]]
                    id = "{area}.topic.{rule}"
                    level = "{level}"
                    rule = "The rule of {rule}."
                    cite = "{cite}"
                    quote = "It <must> hold & stay."
                    since = "3.11"
                    permits = ["this <way>", "that"]
                    """)
                for rule, level, cite in (
                    ("a", "must", "https://docs.python.org/3/library/asyncio.html#a, where it says so"),
                    ("b", "must", "CPython, Lib/asyncio/base_events.py, BaseEventLoop._run_once"),
                    ("c", "should", "select(2)"),
                    ("d", "may", "select(2)"),
                )
            ),
            encoding="utf-8",
        )
        (root / area / "test_x.py").write_text(
            f'from spec._kit import clause\n\n@clause("{area}.topic.a")\ndef test_it(loop): ...\n', encoding="utf-8"
        )
    (root / "evidence").mkdir()
    for name, about, loops, code in (
        ("short", "Shows <it>: one.topic.b.", ("alpha", "beta"), 'print("<x>")'),
        ("two.topic.a", "It.", ("alpha",), "print()"),
    ):
        seen = "".join(f"- {loop} 1.0 ({loop}:Loop) on CPython 3.13: in <a> way\n" for loop in loops)
        header = f'"""{about}\n\nNot kept by\n{seen}"""'
        (root / "evidence" / f"{name}.py").write_text(f"{header}\n{code}\n", encoding="utf-8")
    (root / "reports.toml").write_text(
        '[[report]]\nproject = "some"\nurl = "https://github.com/some/project/issues/7"\n'
        'behaviour = "It works."\nclauses = ["one.topic.b"]\n',
        encoding="utf-8",
    )
    return root
