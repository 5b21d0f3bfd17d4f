"""Every private name of CPython that tokioloop relies on exists in this CPython.

`TokioLoop` inherits from `asyncio.BaseEventLoop` and talks to asyncio's servers, TLS protocol and handles by names that
CPython may change without notice. Each is listed here, with what it is needed for; a CPython that lacks one fails a
test whose name says which. The list is complete: what the sources mention and CPython has must be on it.
"""

from __future__ import annotations

import ast
import asyncio
import asyncio.base_events
import asyncio.base_subprocess
import asyncio.constants
import asyncio.events
import asyncio.format_helpers
import asyncio.sslproto
import asyncio.trsock
import contextvars
import importlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import support

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="the names are those that tokioloop relies on"),
]

BASE = "asyncio.base_events:BaseEventLoop"
PROCESS = "asyncio.base_subprocess:BaseSubprocessTransport"
NEEDED = {
    # Hooks: BaseEventLoop calls what tokioloop fills.
    f"{BASE}._run_once": "a turn, called by run_forever",
    f"{BASE}._write_to_self": "the wake-up of call_soon_threadsafe, called when the default executor ends",
    f"{BASE}._make_socket_transport": "transports of create_connection and connect_accepted_socket",
    f"{BASE}._make_ssl_transport": "the same, with TLS",
    f"{BASE}._make_datagram_transport": "transports of create_datagram_endpoint",
    f"{BASE}._make_read_pipe_transport": "transports of connect_read_pipe and of a child's output",
    f"{BASE}._make_write_pipe_transport": "transports of connect_write_pipe and of a child's input",
    "asyncio.unix_events:_UnixSelectorEventLoop.create_unix_connection": "borrowed as it is",
    "asyncio.unix_events:_UnixSelectorEventLoop.create_unix_server": "borrowed as it is",
    # Methods and attributes of BaseEventLoop that tokioloop uses or keeps in Rust.
    f"{BASE}._check_callback": "debug mode's check of callbacks",
    f"{BASE}._check_closed": "run_forever on a closed loop",
    f"{BASE}._check_running": "run_forever in a running loop",
    f"{BASE}._check_thread": "debug mode's check of threads",
    f"{BASE}._check_sendfile_params": "the arguments of sendfile",
    f"{BASE}._sendfile_native": "loop.sendfile tries it first",
    f"{BASE}._sendfile_fallback": "loop.sendfile over TLS and of what is no regular file",
    f"{BASE}._sock_sendfile_native": "loop.sock_sendfile tries it first",
    f"{BASE}._sock_sendfile_fallback": "loop.sock_sendfile of what is no regular file",
    f"{BASE}._connect_sock": "one attempt of create_connection",
    f"{BASE}._create_connection_transport": "its transport, once it is connected",
    f"{BASE}._getaddrinfo_debug": "debug mode: lookups are logged",
    f"{BASE}._ensure_resolved": "the address of sock_connect",
    f"{BASE}._closed": "set by close, kept in Rust",
    f"{BASE}._debug": "set by set_debug, kept in Rust",
    f"{BASE}._stopping": "set by stop, kept in Rust",
    f"{BASE}._thread_id": "set by run_forever, kept in Rust",
    f"{BASE}._current_handle": "debug mode: where a future was made",
    # What libraries look for: see tokioloop/insides.py.
    f"{BASE}._ready": "the queue of callbacks, lent to who asks",
    f"{BASE}._scheduled": "the timers, lent to who asks",
    f"{BASE}._selector": "looks at I/O for who asks",
    f"{BASE}._process_events": "queues what the selector found",
    f"{BASE}._add_callback": "queues a handle",
    f"{BASE}._clock_resolution": "how early a timer is due by a clock that is not the loop's",
    f"{BASE}._timer_cancelled_count": "timers that are lent and were cancelled",
    f"{BASE}._timer_handle_cancelled": "told of a timer that is lent and was cancelled",
    "asyncio.base_events:_MIN_CANCELLED_TIMER_HANDLES_FRACTION": "when cancelled timers that are lent leave",
    "asyncio.base_events:_MIN_SCHEDULED_TIMER_HANDLES": "the same",
    "asyncio.events:Handle._repr_info": "shown by those who write a repr of their own",
    "asyncio.unix_events:_UnixSelectorEventLoop._handle_signal": "schedules the handler of a signal",
    "asyncio.selector_events:BaseSelectorEventLoop._add_reader": "asyncio's own transports watch by it",
    "asyncio.selector_events:BaseSelectorEventLoop._add_writer": "the same",
    "asyncio.selector_events:BaseSelectorEventLoop._remove_reader": "the same",
    "asyncio.selector_events:BaseSelectorEventLoop._remove_writer": "the same",
    # Helpers of other modules.
    "asyncio.base_events:_check_ssl_socket": "sock_* refuse SSL sockets",
    "asyncio.base_events:_format_handle": "the report of a slow callback",
    "asyncio.format_helpers:_format_callback_source": "repr of handles, the report of a failed callback",
    "asyncio.format_helpers:extract_stack": "debug mode: where a handle was made",
    "asyncio.constants:_SendfileMode.TRY_NATIVE": "loop.sendfile(fallback=False) asks for the system call",
    "asyncio.constants:_SendfileMode.UNSUPPORTED": "loop.sendfile refuses pipes",
    "asyncio.trsock:TransportSocket": "get_extra_info('socket')",
    # Servers count their connections.
    "asyncio.base_events:Server._attach": "a connection of a server was made",
    "asyncio.base_events:Server._detach": "a connection of a server was lost",
    # Attributes that CPython looks for on our handles, transports and awaitables.
    "asyncio.events:Handle._args": "shown by repr, and by debuggers",
    "asyncio.events:Handle._callback": "the report of a slow callback: is it a task's?",
    "asyncio.events:Handle._cancelled": "read where handles are queued",
    "asyncio.events:Handle._context": "read by debuggers",
    "asyncio.events:Handle._loop": "read by debuggers",
    "asyncio.events:Handle._run": "called by those who run handles themselves",
    "asyncio.events:Handle._source_traceback": "debug mode: where a handle was made",
    "asyncio.events:TimerHandle._scheduled": "told to the loop when a timer is cancelled",
    "asyncio.events:TimerHandle._when": "compared where timers are queued",
    "asyncio.selector_events:_SelectorTransport._force_close": "SSLProtocol aborts its transport by it",
    "asyncio.selector_events:_SelectorTransport._sock": "libraries look for the socket there",
    "asyncio.selector_events:BaseSelectorEventLoop._transports": "asyncio's own transports enter themselves",
    "asyncio.selector_events:_SelectorSocketTransport": "transports of sockets with methods of their own",
    "asyncio.selector_events:_SelectorTransport._sock_fd": "libraries look for the state of a transport",
    "asyncio.selector_events:_SelectorTransport._protocol": "the same",
    "asyncio.selector_events:_SelectorTransport._closing": "the same",
    "asyncio.selector_events:_SelectorTransport._conn_lost": "the same",
    "asyncio.selector_events:_SelectorTransport._paused": "the same",
    "asyncio.selector_events:_SelectorTransport._server": "the same",
    "asyncio.selector_events:_SelectorSocketTransport._eof": "the same",
    "asyncio.selector_events:_SelectorDatagramTransport._address": "the same",
    "asyncio.sslproto:SSLProtocol._sslcontext": "libraries look for the state of a TLS connection",
    "asyncio.sslproto:SSLProtocol._server_hostname": "the same",
    "asyncio.sslproto:SSLProtocol._server_side": "the same",
    "asyncio.sslproto:SSLProtocol._extra": "the same",
    "asyncio.sslproto:SSLProtocol._loop": "the same",
    "asyncio.selector_events:_SelectorSocketTransport._read_ready": "a transport's callback, for who has the queue",
    "asyncio.selector_events:_SelectorSocketTransport._write_ready": "the same",
    "asyncio.selector_events:_SelectorSocketTransport._make_empty_waiter": "sendfile waits for the buffer to drain",
    "asyncio.selector_events:_SelectorSocketTransport._reset_empty_waiter": "sendfile has waited",
    "asyncio.selector_events:_SelectorSocketTransport._sendfile_compatible": "loop.sendfile asks transports for it",
    "asyncio.sslproto:SSLProtocol._app_transport": "the transport of a TLS connection",
    "asyncio.sslproto:_SSLProtocolTransport": "the class of TLS transports, for whoever asks",
    "asyncio.sslproto:_SSLProtocolTransport._ssl_protocol": "there for whoever looks below a TLS transport",
    "asyncio.sslproto:_SSLProtocolTransport._start_tls_compatible": "loop.start_tls asks transports for it",
    "asyncio.sslproto:_SSLProtocolTransport._test__append_write_backlog": "CPython's own tests call it",
    "asyncio.sslproto:SSLProtocol._app_protocol": "the protocol of a TLS connection",
    "asyncio.sslproto:SSLProtocol._transport": "the stream below a TLS connection",
    "runpy:_get_module_details": "finds the code of `python -m tokioloop -m MODULE`, as `python -m MODULE` does",
    "ssl:SSLObject._sslobj": "the core of an SSL object, which is called without the layer in Python",
    "asyncio.transports:_FlowControlMixin": "the class of transports that loop.sendfile takes",
    "asyncio.transports:_FlowControlMixin._protocol_paused": "loop.sendfile asks whether to wait",
    "asyncio.transports:_FlowControlMixin._loop": "asyncio's own code asks transports for their loop",
    "asyncio.transports:BaseTransport._extra": "asyncio's own code adds to what get_extra_info tells",
    "asyncio.streams:StreamReader._buffer": "start_tls takes the hello that was read ahead",
    "asyncio.streams:StreamReaderProtocol._stream_reader": "the same",
    "asyncio:Future._asyncio_future_blocking": "how a task knows that a future is awaited, not yielded",
    # Subprocesses.
    f"{BASE}._make_subprocess_transport": "transports of subprocess_exec and subprocess_shell",
    f"{PROCESS}._start": "called by the constructor to start the child",
    f"{PROCESS}._connect_pipes": "makes the transports of the pipes; ours looks whether it could",
    f"{PROCESS}._process_exited": "told when the child has exited",
    f"{PROCESS}._try_finish": "told when pipes that were never connected are closed",
    f"{PROCESS}._check_proc": "a signal to a child whose transport is lost",
    f"{PROCESS}._wait": "waits for a child whose start was cancelled",
    f"{PROCESS}._proc": "the Popen object",
    f"{PROCESS}._pid": "the number of the child",
    f"{PROCESS}._pipes": "which pipes are not connected",
    f"{PROCESS}._pending_calls": "calls of the protocol until the pipes are connected; then none",
    f"{PROCESS}._exit_waiters": "the futures of wait(), ended when the child has exited",
    f"{PROCESS}._protocol": "taken away where the pipes could not be connected",
    f"{PROCESS}._returncode": "has the exit been told?",
    "subprocess:Popen._waitpid_lock": "who takes the status of a child",
}
if sys.version_info >= (3, 14):
    NEEDED["asyncio.events:_ThreadSafeHandle"] = "the class of what call_soon_threadsafe returns"


def exists(path: str) -> bool:
    """Is `module:dotted.name` there: an attribute, a slot, or one that the methods of a class set or read?"""
    module, _, dotted = path.partition(":")
    try:
        found: object = importlib.import_module(module)
    except ImportError:
        return False
    for name in dotted.split("."):
        if hasattr(found, name):
            found = getattr(found, name)
            continue
        if not isinstance(found, type):
            return False
        return any(name in mentioned(cls) for cls in found.__mro__)
    return True


def mentioned(cls: type) -> set[str]:
    """The names that the methods of a class mention."""
    functions = [value for value in vars(cls).values() if isinstance(value, types.FunctionType)]
    return {name for function in functions for name in function.__code__.co_names}


def missing(paths: list[str]) -> list[str]:
    """Those of `paths` that this CPython lacks."""
    return [path for path in paths if not exists(path)]


@pytest.mark.parametrize("path", NEEDED)
def test_cpython_has(path: str) -> None:
    assert exists(path), (
        f"CPython {sys.version.split()[0]} has no {path.replace(':', '.')}, "
        f"which tokioloop relies on for: {NEEDED[path]}"
    )


@pytest.mark.parametrize("path", [f"{BASE}._no_such_hook", "asyncio.base_events:_no_such", "asyncio.no_such:thing"])
def test_a_name_that_cpython_lacks_is_found_out(path: str) -> None:
    assert missing([path]) == [path]


def test_the_private_names_of_base_event_loop_that_are_overridden_are_listed() -> None:
    import tokioloop

    base = asyncio.BaseEventLoop
    for cls in (tokioloop.TokioLoop, *tokioloop.TokioLoop.__mro__[1 : tokioloop.TokioLoop.__mro__.index(base)]):
        for name, value in vars(cls).items():
            if isinstance(value, types.MemberDescriptorType):
                continue  # a slot for an attribute of CPython's, whatever it is called
            if is_private(name) and name not in OWN and (hasattr(base, name) or name in mentioned(base)):
                assert f"{BASE}.{name}" in NEEDED, f"{cls.__name__}.{name} overrides CPython's, and is not listed"


def test_the_private_names_that_the_sources_mention_are_listed() -> None:
    """A private name in the sources that any part of asyncio has too is taken for CPython's, unless it is in OWN."""
    listed = {re.split("[.:]", path)[-1] for path in NEEDED} | OWN
    theirs = names_of_asyncio()
    for path in [*(support.PROJECT / "tokioloop").glob("*.py"), *(support.PROJECT / "src" / "py").rglob("*.rs")]:
        unlisted = (private_names(path) & theirs) - listed
        assert not unlisted, f"{path.name} mentions {sorted(unlisted)}: list what is CPython's in NEEDED, else in OWN"


def private_names(path: Path) -> set[str]:
    """Attributes and methods with private names; in Rust: strings, getters, setters and functions."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".rs":
        return set(re.findall(r'(?:"|[gs]etter\(|fn )(_[a-z]\w*)["()]', text))
    return set(re.findall(r"(?:\w\.|def )(_[a-z]\w*)", text))


OWN = {
    "_unix_server_sockets",  # there for CPython's create_unix_server since 3.13
    "_get_running_loop",  # public: https://docs.python.org/3/library/asyncio-extending.html
    "_getframe",  # of sys
    "_accept_connection2",  # named in a docstring
    "_start_serving",  # of BaseSelectorEventLoop; Server asks its loop for it
    "_stop_serving",  # the same
    "_signal_handlers",  # asyncio's Unix loop has it, too
    "_children",  # of tokioloop.subprocess
    "_reap",  # the same; a watcher of CPython 3.14 has one, too
    "_pipes_connected",  # of BaseSubprocessTransport in later CPythons only; set for them
}
"""Private names of ours, or documented, that asyncio has somewhere too."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of_asyncio() -> set[str]:
    """Every private name in asyncio's modules: of functions, classes, methods and attributes."""
    found: set[str] = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("asyncio"):
            found |= set(re.findall(r"\b_[a-z]\w*", inspect.getsource(module)))
    return {name for name in found if is_private(name)}


# ---- signatures

STOCK = {
    "TokioLoop": ("asyncio.unix_events", "_UnixSelectorEventLoop"),
    "Handle": ("asyncio.events", "Handle"),
    "TimerHandle": ("asyncio.events", "TimerHandle"),
    "ThreadSafeHandle": ("asyncio.events", "_ThreadSafeHandle"),
    "StreamTransport": ("asyncio.selector_events", "_SelectorSocketTransport"),
    "DatagramTransport": ("asyncio.selector_events", "_SelectorDatagramTransport"),
    "ReadPipeTransport": ("asyncio.unix_events", "_UnixReadPipeTransport"),
    "WritePipeTransport": ("asyncio.unix_events", "_UnixWritePipeTransport"),
    "TlsTransport": ("asyncio.sslproto", "_SSLProtocolTransport"),
    "TlsProtocol": ("asyncio.sslproto", "SSLProtocol"),
    "ProcessTransport": ("asyncio.unix_events", "_UnixSubprocessTransport"),
}
"""Our classes, by name, and those of CPython that they stand for: what CPython calls on these, it calls on ours."""


def pairs() -> list[tuple[type, type]]:
    """Ours and stock's, where this CPython has it."""
    import tokioloop
    from tokioloop import _tokioloop, subprocess

    found = []
    for name, (module, theirs) in STOCK.items():
        stock = getattr(importlib.import_module(module), theirs, None)
        if stock is not None:
            found.append(
                (next(getattr(m, name) for m in (tokioloop, _tokioloop, subprocess) if hasattr(m, name)), stock)
            )
    return found


def methods() -> Iterator[tuple[type, type, str]]:
    """The methods that a class of ours has instead of CPython's."""
    for ours, theirs in pairs():
        own = [cls for cls in ours.__mro__ if cls.__module__.partition(".")[0] == "tokioloop"]
        for name in sorted({name for cls in own for name in vars(cls)}):
            dunder = name.startswith("__") and name.endswith("__")
            if not dunder and callable(getattr(ours, name)) and inspect.isfunction(getattr(theirs, name, None)):
                yield ours, theirs, name


def refused(ours: Callable[..., object], theirs: Callable[..., object]) -> list[str]:
    """What may be passed to `theirs` and not to `ours`, a line for each argument."""
    own = inspect.signature(ours).parameters
    kinds = {parameter.kind for parameter in own.values()}
    if {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds:
        return []  # it hands on what it gets
    lines = []
    for place, parameter in enumerate(inspect.signature(theirs).parameters.values()):
        taken = own.get(parameter.name)
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            if parameter.kind not in kinds:
                lines.append(f"{parameter}: not taken")
        elif place == 0 and parameter.name == "self":
            pass
        elif taken is None or taken.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            lines.append(f"{parameter.name!r}: not taken")
        elif parameter.kind is not inspect.Parameter.KEYWORD_ONLY and (
            taken.kind is inspect.Parameter.KEYWORD_ONLY or list(own).index(parameter.name) != place
        ):
            lines.append(f"{parameter.name!r}: not taken by position")
        elif (
            parameter.kind is not inspect.Parameter.POSITIONAL_ONLY and taken.kind is inspect.Parameter.POSITIONAL_ONLY
        ):
            lines.append(f"{parameter.name!r}: not taken by name")
        elif parameter.default is not parameter.empty and taken.default is taken.empty:
            lines.append(f"{parameter.name!r}: has to be given")
    return lines


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [pytest.param(*method, id=f"{method[0].__name__}.{method[2]}") for method in (methods() if support.OURS else ())],
)
def test_what_cpythons_method_takes_ours_takes(ours: type, theirs: type, name: str) -> None:
    lines = refused(getattr(ours, name), getattr(theirs, name))
    assert not lines, (
        f"{ours.__name__}.{name}() takes less than {theirs.__name__}.{name}() of CPython {sys.version.split()[0]}: "
        + "; ".join(lines)
    )


def test_the_hooks_are_among_the_methods_whose_signatures_are_compared() -> None:
    compared = {name for ours, _, name in methods() if ours.__name__ == "TokioLoop"}
    hooks = {path.partition(".")[2].rpartition(".")[2] for path in NEEDED if path.startswith(f"{BASE}._make_")}
    assert hooks | {"_start_serving", "_stop_serving", "create_datagram_endpoint", "start_tls"} <= compared


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (lambda self, sock, waiter=None, *, extra=None, context=None: ..., ["'context': not taken"]),
        (lambda self, sock, extra=None: ..., ["'extra': not taken by position"]),
        (lambda self, waiter, sock: ..., ["'waiter': not taken by position", "'sock': not taken by position"]),
        (lambda self, sock=None: ..., ["'sock': has to be given"]),
        (lambda self, sock, *rest, **options: ..., ["*rest: not taken", "**options: not taken"]),
        (lambda self, sock, waiter=None, *, extra=None: ..., []),
    ],
)
def test_an_argument_that_ours_does_not_take_is_found_out(theirs: Callable[..., object], expected: list[str]) -> None:
    def ours(self: object, sock: object, waiter: object = None, *, extra: object = None) -> None: ...

    assert refused(ours, theirs) == expected


def test_servers_ask_their_loop_to_serve_and_to_stop_by_the_names_we_have() -> None:
    """Not attributes of BaseEventLoop, so looked up where CPython calls them."""
    source = textwrap.dedent(inspect.getsource(asyncio.base_events.Server))
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for name in ("_start_serving", "_stop_serving"):
        asked = [call for call in calls if ast.unparse(call.func) == f"self._loop.{name}"]
        assert asked, f"CPython {sys.version.split()[0]}: asyncio's Server no longer calls self._loop.{name}()"


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="CPython's hooks take a context")
@pytest.mark.parametrize(
    "name", ["_make_socket_transport", "_make_ssl_transport", "_start_serving", "_add_reader", "_add_writer"]
)
def test_hooks_refuse_a_context_where_cpythons_do(name: str) -> None:
    import tokioloop

    for cls in (asyncio.SelectorEventLoop, tokioloop.TokioLoop):
        loop = cls()
        try:
            with pytest.raises(TypeError, match="unexpected keyword argument 'context'"):
                getattr(loop, name)(None, None, None, context=contextvars.copy_context())
        finally:
            loop.close()
