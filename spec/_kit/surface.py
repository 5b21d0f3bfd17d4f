"""The surface: every public method and attribute that a loop has to have, each with the clauses that decide it.

Run as a module it writes `spec/SURFACE.md`. A clause decides what it `covers`, what the anchor of its citation names
(`#asyncio.loop.call_soon`) or, of CPython's source, its method (`BaseEventLoop.call_soon`), and what its rule writes as
`name()`: where several classes have that name, it is that of the class that the clause's topic or area is about.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .clauses import Clause, SpecError, areas, load_area

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the suite."""

CLASSES: dict[str, str] = {
    "loop": "AbstractEventLoop",
    "Server": "Server",
    "Handle": "Handle",
    "TimerHandle": "TimerHandle",
    "BaseTransport": "BaseTransport",
    "ReadTransport": "ReadTransport",
    "WriteTransport": "WriteTransport",
    "Transport": "Transport",
    "DatagramTransport": "DatagramTransport",
    "SubprocessTransport": "SubprocessTransport",
    "BaseProtocol": "BaseProtocol",
    "Protocol": "Protocol",
    "BufferedProtocol": "BufferedProtocol",
    "DatagramProtocol": "DatagramProtocol",
    "SubprocessProtocol": "SubprocessProtocol",
    "StreamReader": "StreamReader",
    "StreamWriter": "StreamWriter",
}
"""The classes of asyncio, by the word before the dot in the names of the surface, as its documentation writes them."""

NAMES: dict[str, str] = {
    "loop": """
        add_reader add_signal_handler add_writer call_at call_exception_handler call_later call_soon
        call_soon_threadsafe close connect_accepted_socket connect_read_pipe connect_write_pipe create_connection
        create_datagram_endpoint create_future create_server create_task create_unix_connection create_unix_server
        default_exception_handler get_debug get_exception_handler get_task_factory getaddrinfo getnameinfo is_closed
        is_running remove_reader remove_signal_handler remove_writer run_forever run_in_executor run_until_complete
        sendfile set_debug set_default_executor set_exception_handler set_task_factory shutdown_asyncgens
        shutdown_default_executor slow_callback_duration sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom
        sock_recvfrom_into sock_sendall sock_sendfile sock_sendto start_tls stop subprocess_exec subprocess_shell time
    """,
    "Server": """
        __aenter__ __aexit__ abort_clients close close_clients get_loop is_serving serve_forever sockets start_serving
        wait_closed
    """,
    "Handle": "cancel cancelled get_context",
    "TimerHandle": "cancel when",
    "BaseTransport": "close get_extra_info get_protocol is_closing set_protocol",
    "ReadTransport": "is_reading pause_reading resume_reading",
    "WriteTransport": """
        abort can_write_eof get_write_buffer_limits get_write_buffer_size set_write_buffer_limits write write_eof
        writelines
    """,
    "Transport": "",
    "DatagramTransport": "abort sendto",
    "SubprocessTransport": "get_pid get_pipe_transport get_returncode kill send_signal terminate",
    "BaseProtocol": "connection_lost connection_made pause_writing resume_writing",
    "Protocol": "data_received eof_received",
    "BufferedProtocol": "buffer_updated eof_received get_buffer",
    "DatagramProtocol": "datagram_received error_received",
    "SubprocessProtocol": "pipe_connection_lost pipe_data_received process_exited",
    "StreamReader": """
        __aiter__ __anext__ at_eof exception feed_data feed_eof read readexactly readline readuntil set_exception
        set_transport
    """,
    "StreamWriter": """
        can_write_eof close drain get_extra_info is_closing start_tls transport wait_closed write write_eof writelines
    """,
}
"""The names of each class itself, without those of its bases."""

SINCE: dict[str, tuple[int, int]] = {
    "Handle.get_context": (3, 12),
    "Server.abort_clients": (3, 13),
    "Server.close_clients": (3, 13),
}
"""The CPython that has a name first, where it is not in all of them."""

ELSEWHERE = {"loop.slow_callback_duration", "Server.__aenter__", "Server.__aexit__"}
"""Documented names that the class itself has not: they are a base's, or of each loop."""

SPECIAL = {"__aenter__", "__aexit__", "__aiter__", "__anext__"}
"""Names with underscores that are public: what `async with` and `async for` ask for."""

SURFACE: tuple[str, ...] = tuple(f"{word}.{name}" for word, names in NAMES.items() for name in names.split())
"""Every name, as `loop.call_soon`."""

_HEAD = """\
# The surface of asyncio

Made by `python -m spec._kit.surface` from the clauses; do not edit. Every public method and attribute of a loop and of
what it hands out, each with the clauses that decide it. An area that takes a contract over from another one is named
behind its rules.
"""
_ANCHOR = re.compile(r"#asyncio\.(\w+\.\w+)")
_CALL = re.compile(r"(?<![\w.])(\w+)\(")
_QUALIFIED = re.compile(r"(?<![\w./])(\w+)\.(\w+)")
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("EventLoop", ("loop",)),
    ("DatagramTransport", ("DatagramTransport", "BaseTransport")),
    ("SubprocessTransport", ("SubprocessTransport", "BaseTransport")),
    ("Transport", ("WriteTransport", "ReadTransport", "BaseTransport")),
    ("TimerHandle", ("TimerHandle", "Handle")),
    ("Handle", ("Handle",)),
    ("Server", ("Server",)),
    ("StreamReader", ("StreamReader",)),
    ("StreamWriter", ("StreamWriter",)),
)
"""How the classes end whose methods CPython's citations name, as `BaseEventLoop.stop`, and whose names these are."""
_STREAM = ("WriteTransport", "ReadTransport", "BaseTransport", "Protocol")
_TOPICS = {"server": ("Server",), "streams": ("StreamWriter", "StreamReader")}
_AREAS = {
    "callbacks": ("loop", "Handle"),
    "errors": (*_STREAM, "loop"),
    "lifecycle": ("loop", *_STREAM),
    "sockets": (),
    "streams": ("StreamWriter", "StreamReader", *_STREAM),
    "subprocess": ("SubprocessTransport", "StreamWriter", "BaseTransport"),
    "timers": ("TimerHandle", "Handle", "loop"),
    "udp": ("DatagramTransport", "BaseTransport", "loop"),
    **dict.fromkeys(("tcp", "unix", "pipes", "tls", "sendfile"), (*_STREAM, "loop", "Server")),
}
"""Whose a name is that several classes have, by the topic or else the area of a clause; elsewhere it is the loop's."""


def names_of_this_python() -> set[str]:
    """The public names of the classes themselves, as the running CPython has them."""
    return {
        f"{word}.{name}"
        for word, kind in CLASSES.items()
        for name in vars(getattr(asyncio, kind))
        if not name.startswith("_") or name in SPECIAL
    }


def covered(clause: Clause) -> set[str]:
    """The names that a clause decides. SpecError where it `covers` one that is none."""
    for name in clause.covers:
        if name not in SURFACE:
            raise SpecError(f"{clause.id}: covers {name!r}, which asyncio has not")
    return {*clause.covers, *_told(clause)}


def clauses_by_name(clauses: Iterable[Clause]) -> dict[str, list[Clause]]:
    """The clauses that decide each name of the surface, in their order; every name is there."""
    found: dict[str, list[Clause]] = {name: [] for name in SURFACE}
    for clause in clauses:
        for name in covered(clause):
            found[name].append(clause)
    return found


def all_clauses(root: Path) -> list[Clause]:
    """The clauses of every area below `root`."""
    return [clause for area in areas(root) for clause in load_area(root, area).values()]


def render(clauses: Iterable[Clause]) -> str:
    """The surface as Markdown."""
    found = clauses_by_name(clauses)
    lines = [_HEAD]
    for word, names in NAMES.items():
        own = [f"{word}.{name}" for name in names.split()]
        if not own:
            continue
        lines += [f"## {CLASSES[word]}", "", "| name | clauses | by area |", "| --- | ---: | --- |"]
        for name in own:
            since = SINCE.get(name)
            note = f" (CPython {since[0]}.{since[1]})" if since else ""
            rules = "; ".join(_by_area(found[name]))
            lines.append(f"| `{name}`{note} | {len(found[name])} | {rules} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _told(clause: Clause) -> Iterator[str]:
    for name in _ANCHOR.findall(clause.cite):
        if name in SURFACE:
            yield name
    if "#" not in clause.cite:
        for kind, attribute in _QUALIFIED.findall(clause.cite):
            words = next((words for end, words in _KINDS if kind.endswith(end)), ())
            yield from (name for word in words if (name := f"{word}.{attribute}") in SURFACE)
    for attribute in _CALL.findall(clause.rule):
        having = [name for name in SURFACE if name.endswith(f".{attribute}")]
        if len(having) == 1:
            yield having[0]
        elif having:
            area, topic, _ = clause.id.split(".")
            words = _TOPICS.get(topic) or _AREAS.get(area, ("loop",))
            yield from [name for word in words if (name := f"{word}.{attribute}") in having][:1]


def _by_area(clauses: Iterable[Clause]) -> Iterator[str]:
    """`area`: topic.rule, ... for each area; one that has the same rule as an area before it is behind it."""
    rules: dict[str, list[str]] = {}
    texts: dict[tuple[str, str], str] = {}
    for clause in clauses:
        area, _, rule = clause.id.partition(".")
        first = texts.setdefault((rule, clause.rule), area)
        rules.setdefault(rule if first == area else f"{first} {rule}", [])
        rules[rule if first == area else f"{first} {rule}"].append(area)
    by_area: dict[str, list[str]] = {}
    for clause in clauses:
        area, _, rule = clause.id.partition(".")
        if texts[rule, clause.rule] == area:
            others = rules.get(f"{area} {rule}", [])
            by_area.setdefault(area, []).append(f"{rule} ({', '.join(others)})" if others else rule)
    for area, own in by_area.items():
        yield f"**{area}** {', '.join(own)}"


def main() -> int:
    """Write the file."""
    (ROOT / "SURFACE.md").write_text(render(all_clauses(ROOT)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
