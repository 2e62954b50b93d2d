"""docs/many_machines.md: what it says is computed is what its own measured numbers give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import machines
from kit.errors import KitError
from kit.models import inception_block
from kit.scheduling.links import Branch
from kit.scheduling.many_machines import Job
from kit.workloads import branch_costs

PAGE = Path(__file__).parents[2] / "docs" / "many_machines.md"
JOB = Job(Branch(0.02, 1000, 40), ((Branch(0.0051234, 100, 10), Branch(0.01, 900, 10)), (Branch(0.001, 7, 7),)))


def test_the_page_computes_from_its_own_measured_numbers() -> None:
    text = PAGE.read_text(encoding="utf-8")
    jobs = machines.read_costs(machines.block(text, "measured"))
    assert jobs.keys() == machines.NETWORKS.keys()
    assert machines.block(text, "computed") == machines.computed(jobs)
    assert machines.block(text, "origin").startswith("made 20")


def test_costs_are_read_as_they_are_printed() -> None:
    jobs = {"a": machines.rounded(JOB), "b": machines.rounded(JOB)}
    table = machines.costs_table(jobs)
    assert machines.read_costs(table) == jobs
    page = machines.with_blocks("x\n<!-- measured -->\nold\n<!-- end of measured -->\ny", {"measured": table})
    assert machines.block(page, "measured") == table
    assert page.startswith("x\n")
    assert page.endswith("\ny")
    for call in (lambda: machines.with_blocks("x", {"measured": ""}), lambda: machines.block("x", "measured")):
        with pytest.raises(KitError, match="no marks"):
            call()


def test_an_arrangement_that_cannot_says_why() -> None:
    text = machines.computed({"slow": Job(Branch(20.0, 10**9, 0), ())})
    assert "cannot keep up" in text
    assert "the link is full" in text


def test_the_costs_of_a_network_are_its_regions_with_their_bytes() -> None:
    block, x = inception_block(8).eval(), torch.rand(1, 8, 12, 12)
    job = branch_costs.job(block, x, calls=1)
    (region,) = job.regions
    assert [branch.sent for branch in region] == [x.nbytes] * 4
    assert sum(branch.received for branch in region) == job.whole.received == block(x).nbytes
    assert job.whole.sent == x.nbytes
    assert all(branch.work > 0 for branch in region)


def test_regions_within_a_branch_are_a_part_of_it() -> None:
    from kit.models import inception_v3

    job = branch_costs.job(inception_v3(10, width=0.125), torch.rand(1, 3, 96, 96), calls=1)
    assert len(job.regions) == 11


def test_a_network_without_regions_is_refused() -> None:
    with pytest.raises(KitError, match="no region"):
        branch_costs.job(torch.nn.Linear(2, 2), torch.rand(1, 2))
