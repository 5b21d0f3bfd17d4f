"""What wrk says of an HTTP server, and what the server's CPU clock says meanwhile."""

import re
import shutil
import socket
import subprocess
from typing import Any

from client import process_cpu_ns
from server import parse_addr

MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}
# wrk takes whole seconds.
SECONDS = 1


class NoWrkError(Exception):
    """wrk is not here."""


def program() -> str:
    """Where wrk is. Raises NoWrkError."""
    if (found := shutil.which("wrk")) is None:
        raise NoWrkError("wrk is not installed")
    return found


def parse(text: str) -> dict[str, Any]:
    """Requests, their rate and latencies from the output of `wrk --latency`. Raises RuntimeError where any failed."""
    if trouble := re.search(r"(Non-2xx.*|Socket errors: (?!connect 0, read 0, write 0, timeout 0).*)", text):
        raise RuntimeError(f"wrk: {trouble[1].strip()}")
    total = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    latencies = {
        f"p{percent}_us": round(float(value) * MICROSECONDS[unit], 2)
        for percent, value, unit in re.findall(r"^\s*(\d+)%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    }
    if total is None or rate is None or not int(total[1]):
        raise RuntimeError("wrk: nothing was answered")
    return {"requests": int(total[1]), "requests_per_second": float(rate[1]), **latencies}


def warm(addr: str, requests: int = 300) -> None:
    """Have the server answer some requests, so that the interpreter has specialised what it runs.

    Raises RuntimeError.
    """
    try:
        with socket.create_connection(parse_addr(addr), timeout=10) as sock:
            for _ in range(requests):
                sock.sendall(f"GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n".encode())
                answer = b""
                while b"\r\n\r\n" not in answer:
                    data = sock.recv(65536)
                    if not data:
                        raise RuntimeError("the server closed a connection")
                    answer += data
    except OSError as error:
        raise RuntimeError(f"the server does not answer: {error}") from error


def measure(addr: str, connections: int, pid: int) -> dict[str, Any]:
    """Load the server for a moment. Raises NoWrkError, and RuntimeError where it fails.

    The server's CPU time includes accepting the connections, which is little beside the requests.
    """
    command = [program(), "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", f"http://{addr}/"]
    before = process_cpu_ns(pid)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = process_cpu_ns(pid)
    if done.returncode:
        raise RuntimeError(f"wrk: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    found = parse(done.stdout)
    if before is None or after is None:
        return {**found, "figure": None, "server_busy": None}
    spent = (after - before) / 1e3
    found["figure"] = round(spent / found["requests"], 3)
    found["server_busy"] = round(spent / 1e6 / SECONDS, 3)
    return found
