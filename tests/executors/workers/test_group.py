"""Who is in a group: ranks and hosts by name, as rank 0 is told."""

import os
import socket
from typing import Any

import pytest

from kit.approaches import parse
from kit.errors import UnavailableError
from kit.executors.workers import group
from kit.executors.workers.membership import boot_id
from kit.models import inception_block


class Told:
    """A connection over which a rank has said who it is."""

    def __init__(self, *message: Any) -> None:
        self.message = message

    def receive(self) -> tuple[Any, ...]:
        return self.message


def test_ranks_are_in_order_and_hosts_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = socket.gethostname()
    told = [
        Told(3, "node", "boot x", 30),
        Told(1, here, boot_id(), os.getpid()),
        Told(2, "other", "boot y", 20),
        Told(4, "node", "boot z", 40),
        Told(5, "node", "boot x", 50),
        Told(6, "namespace", boot_id(), 60),
    ]
    monkeypatch.setattr(group, "also_own", own := set[int]())
    peers = group._peers(told)  # type: ignore[arg-type]
    assert own == {os.getpid(), 60}, "the CPU time of ranks on this machine is not that of other programs"
    assert [(peer.name, peer.same_clock) for peer in peers] == [
        (f"rank 1 on {here}", True),
        ("rank 2 on other", False),
        ("rank 3 on node (3)", False),
        ("rank 4 on node (4)", False),
        ("rank 5 on node (3)", False),
        ("rank 6 on namespace", False),
    ]


def test_a_rank_that_has_not_joined_its_group_does_not_start_ranks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnavailableError, match="has not joined the group of its RANK: start the ranks as `torchrun"):
        parse("ranks").prepare(inception_block(3), None)
