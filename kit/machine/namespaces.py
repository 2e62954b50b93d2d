"""Two hosts on one machine, for tests and lessons: network namespaces of Linux, with a virtual link between them.

Each host has an address, a name and a network of its own; processor, memory, files and clock are the machine's. The
link can be cut, and ``tc`` makes it slow: so a test meets what a real network does.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any, Self

from kit.errors import UnavailableError

_NEEDED = {"ip": "iproute2", "unshare": "util-linux"}  # program -> the package that has it
_LINK = "kit0"  # the name of the interface in each namespace
_AS_HOST = 'hostname "$0" && exec "$@"'  # in a UTS namespace of its own


def unavailable_because() -> str | None:
    """Why hosts cannot be made here; None if they can."""
    if not hasattr(os, "geteuid") or not Path("/proc/self/ns/net").exists():
        return "network namespaces need Linux."
    missing = [f"{program} (package {package})" for program, package in _NEEDED.items() if which(program) is None]
    if missing:
        return f"network namespaces need {' and '.join(missing)}: install it."
    if os.geteuid() != 0:
        return "only root may make network namespaces: run this as root, or in a container with CAP_SYS_ADMIN."
    probe = f"kit-{os.getpid()}-probe"
    try:
        _ip("netns", "add", probe)
    except UnavailableError as error:
        return str(error)
    _ip("netns", "delete", probe)
    return None


class Hosts:
    """Two hosts, ``host-a`` and ``host-b``, with a link between them. A context manager: at its end nothing is left.

    What a killed process left behind is removed when the next one makes hosts, and so are its processes.

    Raises:
        UnavailableError: the system does not let this process make them; the message says why.
    """

    def __init__(self) -> None:
        _sweep()
        self.addresses = {"host-a": "10.87.0.1", "host-b": "10.87.0.2"}
        self._namespaces = {name: f"kit-{os.getpid()}-{name}" for name in self.addresses}
        self._started: list[subprocess.Popen[str]] = []
        atexit.register(self.close)
        try:
            for namespace in self._namespaces.values():
                _ip("netns", "add", namespace)
            one, other = self._namespaces.values()
            _ip("-n", one, "link", "add", _LINK, "type", "veth", "peer", "name", _LINK, "netns", other)
            for name, namespace in self._namespaces.items():
                _ip("-n", namespace, "address", "add", f"{self.addresses[name]}/24", "dev", _LINK)
                for link in ("lo", _LINK):
                    _ip("-n", namespace, "link", "set", link, "up")
        except BaseException:
            self.close()
            raise

    def start(self, host: str, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program on a host; options are those of ``subprocess.Popen``."""
        inside = ["ip", "netns", "exec", self._namespaces[host], "unshare", "--uts", "sh", "-c", _AS_HOST, host]
        started = subprocess.Popen([*inside, *command], text=True, **options)
        self._started.append(started)
        return started

    def cut(self, host: str = "host-b") -> None:
        """Cut the link at this host: what is sent is lost, and nobody is told."""
        _ip("-n", self._namespaces[host], "link", "set", _LINK, "down")

    def mend(self, host: str = "host-b") -> None:
        """Connect the link again."""
        _ip("-n", self._namespaces[host], "link", "set", _LINK, "up")

    def slow(self, *, mbit_s: float | None = None, delay_ms: float | None = None) -> None:
        """Limit the link, in both directions alike.

        Args:
            mbit_s: bandwidth in megabits per second.
            delay_ms: milliseconds that a packet takes one way.

        Raises:
            UnavailableError: ``tc`` or the kernel has no such limit.
        """
        for namespace in self._namespaces.values():
            with suppress(UnavailableError):  # there is none yet
                _tc(namespace, "delete", "root")
            where = ["root"]
            if delay_ms is not None:
                _tc(namespace, "add", *where, "handle", "1:", "netem", "delay", f"{delay_ms}ms")
                where = ["parent", "1:"]
            if mbit_s is not None:
                burst = f"{max(32, mbit_s):g}kbit"  # what it sends in a millisecond: with less, the timer sets the rate
                _tc(namespace, "add", *where, "tbf", "rate", f"{mbit_s}mbit", "burst", burst, "latency", "400ms")

    def sent_bytes(self, host: str) -> int:
        """All that a host has sent over the link so far, headers included."""
        (link,) = json.loads(_ip("-n", self._namespaces[host], "-s", "-j", "link", "show", "dev", _LINK))
        found: int = link["stats64"]["tx"]["bytes"]
        return found

    def processes(self) -> list[int]:
        """The ids of all processes on the hosts."""
        return [pid for namespace in self._namespaces.values() for pid in _processes(namespace)]

    def close(self) -> None:
        """Kill what still runs on the hosts, and remove them. Closing twice is harmless."""
        for namespace in self._namespaces.values():
            _remove(namespace)
        for started in self._started:
            with suppress(BrokenPipeError), started:  # which closes its pipes and waits
                pass
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _ip(*words: str) -> str:
    return _done("ip", *words)


def _tc(namespace: str, verb: str, *words: str) -> None:
    if which("tc") is None:
        raise UnavailableError("a slow link needs tc (package iproute2): install it.")
    _done("ip", "netns", "exec", namespace, "tc", "qdisc", verb, "dev", _LINK, *words)


def _done(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise UnavailableError(f"the system refused `{' '.join(command)}`: {said}")
    return done.stdout


def _processes(namespace: str) -> list[int]:
    try:
        return [int(pid) for pid in _ip("netns", "pids", namespace).split()]
    except UnavailableError:  # it is not there
        return []


def _remove(namespace: str) -> None:
    deadline = time.monotonic() + 5
    while (left := _processes(namespace)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    with suppress(UnavailableError):
        _ip("netns", "delete", namespace)


def _sweep() -> None:
    """Remove the hosts of processes that have been killed."""
    for line in _ip("netns", "list").splitlines():
        kit, _, rest = line.split()[0].partition("-")
        pid = rest.partition("-")[0]
        if kit == "kit" and pid.isdigit() and not Path("/proc", pid).exists():
            _remove(line.split()[0])
