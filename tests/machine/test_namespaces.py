"""Hosts by network namespaces: each has its own name and network, and nothing of them is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.errors import UnavailableError
from kit.machine import namespaces
from kit.machine.namespaces import Hosts

ROOT = Path(__file__).parents[2]
WHY_NOT = namespaces.unavailable_because()
possible = pytest.mark.skipif(WHY_NOT is not None, reason=f"no two hosts here: {WHY_NOT}")
CALL = "import socket; socket.create_connection(('{}', 7777), 2).sendall(b'hello')"
ANSWER = (
    "import socket; server = socket.create_server(('', 7777)); print('up', flush=True); "
    "print(server.accept()[0].recv(5).decode())"
)


def listed() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@possible
def test_the_hosts_have_names_and_reach_each_other_until_the_link_is_cut() -> None:
    with Hosts() as hosts:
        name = hosts.start("host-b", ["hostname"], stdout=subprocess.PIPE)
        assert name.communicate()[0] == "host-b\n"
        server = hosts.start("host-b", [sys.executable, "-c", ANSWER], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        call = [sys.executable, "-c", CALL.format(hosts.addresses["host-b"])]
        before = hosts.sent_bytes("host-a")
        assert hosts.start("host-a", call).wait() == 0
        assert server.stdout.readline() == "hello\n"
        assert hosts.sent_bytes("host-a") > before
        hosts.cut()
        assert hosts.start("host-a", call, stderr=subprocess.DEVNULL).wait() != 0
    assert f"kit-{os.getpid()}-" not in listed()


@possible
def test_what_runs_there_ends_with_the_hosts() -> None:
    with Hosts() as hosts:
        sleeper = hosts.start("host-a", ["sleep", "1000"])
        hosts.start("host-b", ["true"]).wait()
    assert sleeper.poll() is not None


@possible
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal, time; from kit.machine.namespaces import Hosts; hosts = Hosts();"
        "hosts.start('host-a', ['sleep', '1000']);\n"
        "while not hosts.processes(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (tmp_path / "out").open("w") as out:
        killed = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=out, stderr=out)
        assert killed.wait(60) == -signal.SIGKILL
    assert f"kit-{killed.pid}-host-a" in listed()
    with Hosts():
        assert f"kit-{killed.pid}-" not in listed()


def test_where_hosts_cannot_be_made_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = namespaces.unavailable_because()
    assert said is not None
    assert "root" in said or "install" in said or "Linux" in said


@possible
def test_a_limit_that_the_system_refuses_is_an_error_with_its_words() -> None:
    with Hosts() as hosts:
        for mbit_s in (100, 10):  # the second takes the place of the first
            hosts.slow(mbit_s=mbit_s)
        with pytest.raises(UnavailableError, match=r"refused `.* tbf rate 0mbit .*: .*rate"):
            hosts.slow(mbit_s=0)
