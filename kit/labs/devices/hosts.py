"""Notebook 06: two hosts on this machine with a network between them, or where that cannot be, a declared network."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import distributed

from kit.errors import KitError, UnavailableError, WorkerError
from kit.executors.declared import DeclaredNetwork
from kit.labs.speed import rounds
from kit.machine import namespaces
from kit.machine.namespaces import Hosts
from kit.reprs import one_line
from kit.scheduling.links import LINKS, Link
from kit.workloads import two_hosts as program
from kit.workloads.two_hosts import Measured

SPEED = "1 Gbit/s"
ROUNDS = 40  # of the requests: twelve could not tell a fifth
LIMIT_S = 300.0  # of the whole program, on a machine that is busy
_PORT = "29406"


@one_line
class Over(NamedTuple):
    """What was measured over two hosts, and what is known of the network between them."""

    found: Measured
    link: Link | None  # what was declared; of a real link its limit, without the latency; None: no limit
    why_not: str = ""  # why no two hosts could be made, so that the network is declared; empty: it is real

    @property
    def real(self) -> bool:
        """Whether bytes went over a network."""
        return not self.why_not


def two_hosts() -> Over:
    """A two-stream network, copies and several requests over two hosts of one link of 1 Gbit/s.

    The hosts are network namespaces of this machine, and torchrun starts a rank on each. Where the system does not
    allow that, the same is measured over a declared network, and ``why_not`` says the reason.
    """
    why_not = namespaces.unavailable_because()
    if why_not is None and not (distributed.is_available() and distributed.is_gloo_available()):
        why_not = "this PyTorch has no gloo."
    if why_not is None:
        try:
            return _over_namespaces()
        except UnavailableError as error:
            why_not = str(error)
    return declared(LINKS[SPEED], why_not)


def declared(link: Link, why_not: str) -> Over:
    """The same over a network that is declared, and slept."""
    with DeclaredNetwork(link) as hosts:
        return Over(program.measure(hosts, rounds(ROUNDS, 2), lambda: hosts.carried), link, why_not)


def _over_namespaces() -> Over:
    with Hosts() as hosts, tempfile.TemporaryDirectory() as folder:
        link: Link | None = Link(LINKS[SPEED].bits_per_second)
        try:
            hosts.slow(mbit_s=1000)
        except UnavailableError:  # no tc: the link is as fast as the memory
            link = None
        found = _program(hosts, Path(folder))
    limit = f"limited to {SPEED}" if link else "without a limit of its speed"
    told = f"Two hosts are network namespaces of this machine and share its cores; their virtual link is {limit}"
    command = f"torchrun --nnodes=2 -m {program.__name__}"  # without the folder, which is gone by now
    call = replace(found.call, about={**found.call.about, "command": command, "hosts": told})
    scatter = replace(found.scatter, about=replace(found.scatter.about, command=command))
    return Over(found._replace(call=call, scatter=scatter), link)


def _program(hosts: Hosts, folder: Path) -> Measured:
    """Run the program by torchrun on both hosts.

    Raises:
        WorkerError: it failed, with the last line of what it said, or did not end within ``LIMIT_S`` seconds.
    """
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launch += [f"--master-addr={hosts.addresses['host-a']}", f"--master-port={_PORT}"]
    command = ["-m", program.__name__, str(folder), str(rounds(ROUNDS, 2))]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]))
    logs = [folder / f"{host}.err" for host in hosts.addresses]
    started = []
    for rank, (host, log) in enumerate(zip(hosts.addresses, logs, strict=True)):
        with log.open("w") as errors:
            words = [*launch, f"--node-rank={rank}", *command]
            environment = os.environ | {"PYTHONPATH": path}
            started.append(hosts.start(host, words, env=environment, stdout=subprocess.DEVNULL, stderr=errors))
    try:
        ends = [each.wait(LIMIT_S) for each in started]
    except subprocess.TimeoutExpired:
        raise WorkerError(f"the program on two hosts did not end within {LIMIT_S:.0f} s.") from None
    if any(ends):
        said = [line for log in logs for line in log.read_text().splitlines() if "Error" in line]
        raise WorkerError(f"the program on two hosts failed: {said[0].strip() if said else f'status {ends}'}")
    try:
        return program.load(folder)
    except FileNotFoundError as error:
        raise KitError(f"the program on two hosts wrote no result: {error}") from error
