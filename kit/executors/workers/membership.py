"""Whether this process is a rank of a group that somebody has started, by torchrun or Slurm, and which rank."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kit.errors import KitError
from kit.reprs import one_line

_SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torch's env:// reads
_SIOCGIFADDR = 0x8915  # of Linux: the IPv4 address of an interface


@one_line
class Membership(NamedTuple):
    """A rank of a group, as its environment says."""

    rank: int
    size: int  # ranks of the group, >= 2
    on_this_host: int  # ranks of the group on this host
    address: str  # of rank 0's host
    port: int  # where ranks find each other


def membership(environment: Mapping[str, str] = os.environ) -> Membership | None:
    """The rank that this process is; None outside of a group, and in a group of one.

    ``torchrun`` sets all that is needed. In a job of Slurm's ``srun``, set ``MASTER_ADDR`` and ``MASTER_PORT``: rank
    and size are Slurm's.

    Raises:
        KitError: a variable is missing, or is no number.
    """
    found = dict(environment)
    if "MASTER_ADDR" in found:
        found = {ours: found[slurm] for ours, slurm in _SLURM.items() if slurm in found} | found
    if "RANK" not in found or found.get("WORLD_SIZE", "1") == "1":
        return None
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise KitError(
            f"RANK is set, so this process is a rank of a group, but {', '.join(missing)} is not: start it by "
            "torchrun, or unset RANK."
        )
    try:
        rank, size, port = (int(found[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        local = int(found.get("LOCAL_WORLD_SIZE", 1))
    except ValueError as error:
        raise KitError(f"RANK, WORLD_SIZE, LOCAL_WORLD_SIZE and MASTER_PORT must be numbers ({error}).") from error
    if not 0 <= rank < size:
        raise KitError(f"RANK is {rank}, but a group of WORLD_SIZE={size} has the ranks 0 to {size - 1}.")
    return Membership(rank, size, local, found["MASTER_ADDR"], port)


def interface_towards(address: str) -> str | None:
    """The network interface by which this host reaches an IPv4 address, for gloo; None if the system does not tell."""
    if sys.platform != "linux":
        return None
    import fcntl

    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # which sends nothing
        own = probe.getsockname()[0]
        if own.startswith("127."):
            return "lo"
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == own:
                    return name
    return None


def boot_id() -> str:
    """What processes have in common if they run under one kernel with the same process ids: a monotonic clock, too."""
    path, pids = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not path.exists():
        return socket.gethostname()
    return f"{path.read_text().strip()} {pids.readlink() if pids.is_symlink() else ''}"


def host_names(processes: Sequence[tuple[str, str]]) -> list[str]:
    """The host of each process, given its name and boot id; hosts of one name get the number of their first process."""
    first: dict[tuple[str, str], int] = {}
    for number, host in enumerate(processes):
        first.setdefault(host, number)
    names = [name for name, _ in first]
    return [f"{host[0]} ({first[host]})" if names.count(host[0]) > 1 else host[0] for host in processes]
