"""Requests on two hosts, by branch and by request, over a declared network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kit.errors import KitError
from kit.executors.declared import DeclaredNetwork
from kit.scheduling.links import Link
from kit.views.badge import badge
from kit.workloads import two_hosts
from kit.workloads.two_hosts import BY_BRANCH, BY_REQUEST, ONE, REQUESTS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_hosts, "SIZES", (4, 4000))
    monkeypatch.setattr(two_hosts, "ECHOES", 2)
    monkeypatch.setattr(two_hosts, "CALLS", 2)


def test_all_ways_give_the_outputs_of_one_host_and_carry_what_is_counted(small: None, tmp_path: Path) -> None:
    with DeclaredNetwork(Link(1e12)) as network:
        found = two_hosts.measure(network, 6, lambda: network.carried)
    assert [row.name for row in found.scatter.rows] == [ONE, BY_BRANCH, BY_REQUEST]
    assert all(row.equality is None or row.equality.equal for row in found.scatter.rows)
    assert any("its network is simulated" in caveat for caveat in found.scatter.caveats)
    model, images = two_hosts.network()
    output = model(images[0])
    assert found.carried[BY_REQUEST] == (images[0].nbytes + output.nbytes) / 2  # every second request stays here
    assert found.carried[BY_BRANCH] > found.carried[BY_REQUEST]
    assert [size for size, _ in found.copies] == [4, 4000]
    assert badge(found.call).startswith("Simulated, not measured: a network of 1,000 Gbit/s")
    assert found.call.start_ns.min() == 0
    two_hosts.save(found, tmp_path)
    again = two_hosts.load(tmp_path)
    assert again.copies == found.copies
    assert again.carried == found.carried
    assert str(again.scatter) == str(found.scatter)
    assert len(again.call) == len(found.call)


def test_requests_differ_and_so_do_their_outputs() -> None:
    """Else mixed-up requests would pass for right ones."""
    model, images = two_hosts.network()
    with torch.inference_mode():
        outputs = [model(image) for image in images]
    assert len(outputs) == REQUESTS
    assert not any(torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    assert isinstance(model, nn.Module)


def test_outside_of_a_group_the_program_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(KitError, match="torchrun"):
        two_hosts.main(str(tmp_path), "6")
