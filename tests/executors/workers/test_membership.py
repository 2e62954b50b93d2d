"""Which rank a process is, from the variables of torchrun and Slurm."""

import re

import pytest

from kit.errors import KitError
from kit.executors.workers.membership import Membership, host_names, interface_towards, membership

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}


def test_torchrun_and_slurm_say_which_rank_this_is() -> None:
    assert membership(TORCHRUN) == Membership(1, 4, 2, "a", 29500)
    assert membership({**SLURM, "MASTER_ADDR": "a", "MASTER_PORT": "1"}) == Membership(3, 4, 1, "a", 1)
    assert membership(SLURM | TORCHRUN) == Membership(1, 4, 2, "a", 29500), "torchrun within a job"


@pytest.mark.parametrize("outside", [{}, SLURM, {**TORCHRUN, "WORLD_SIZE": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "0"}])
def test_outside_of_a_group_there_is_no_rank(outside: dict[str, str]) -> None:
    assert membership(outside) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"MASTER_PORT": None, "MASTER_ADDR": None}, "but MASTER_ADDR, MASTER_PORT is not"),
        ({"RANK": "one"}, "must be numbers (invalid literal for int() with base 10: 'one')"),
        ({"RANK": "4"}, "RANK is 4, but a group of WORLD_SIZE=4 has the ranks 0 to 3"),
    ],
)
def test_what_is_missing_or_wrong_is_named(change: dict[str, str | None], says: str) -> None:
    environment = {name: value for name, value in (TORCHRUN | change).items() if value is not None}
    with pytest.raises(KitError, match=re.escape(says)):
        membership(environment)


def test_gloo_is_told_the_interface_of_the_address() -> None:
    assert interface_towards("127.0.0.1") in ("lo", None)
    assert interface_towards("no.such.host.invalid") is None


def test_hosts_of_one_name_are_told_apart_by_their_first_process() -> None:
    assert host_names([("a", "1"), ("b", "2"), ("a", "1")]) == ["a", "b", "a"]
    assert host_names([("a", "1"), ("a", "2"), ("b", "3"), ("a", "2")]) == ["a (0)", "a (1)", "b", "a (1)"]
