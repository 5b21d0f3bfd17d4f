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
import importlib
import inspect
import re
import sys
import textwrap
import types
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
    f"{BASE}._getaddrinfo_debug": "debug mode: lookups are logged",
    f"{BASE}._ensure_resolved": "the address of sock_connect",
    f"{BASE}._closed": "set by close, kept in Rust",
    f"{BASE}._debug": "set by set_debug, kept in Rust",
    f"{BASE}._stopping": "set by stop, kept in Rust",
    f"{BASE}._thread_id": "set by run_forever, kept in Rust",
    f"{BASE}._current_handle": "debug mode: where a future was made",
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
    for path in [*(support.PROJECT / "tokioloop").glob("*.py"), *(support.PROJECT / "src" / "py").glob("*.rs")]:
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


def test_servers_ask_their_loop_to_serve_and_to_stop_by_the_names_we_have() -> None:
    """Not attributes of BaseEventLoop, so looked up where CPython calls them."""
    source = inspect.getsource(asyncio.base_events.Server)
    for call in ("self._loop._start_serving(", "self._loop._stop_serving("):
        assert call in source, f"CPython {sys.version.split()[0]}: asyncio's Server no longer calls {call}...)"


def test_the_arguments_of_the_hooks_are_those_that_cpython_passes() -> None:
    """CPython may add an argument; the hooks must take it, by name."""
    import tokioloop

    for name in ("_make_socket_transport", "_make_ssl_transport"):
        ours = inspect.signature(getattr(tokioloop.TokioLoop, name)).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in ours.values())
        for wanted in inspect.signature(getattr(asyncio.BaseEventLoop, name)).parameters:
            assert wanted in ours or takes_any, f"{name}() gets {wanted!r} from CPython and does not take it"
    source = textwrap.dedent(inspect.getsource(asyncio.base_events.Server._start_serving))
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if getattr(node.func, "attr", "") == "_start_serving"]
    inspect.signature(tokioloop.TokioLoop._start_serving).bind(
        "self", *call.args, **{keyword.arg: None for keyword in call.keywords if keyword.arg}
    )
