"""Notebook 06: a Dask cluster of two workers on this machine, for as long as a block lasts."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit.executors.cluster import use_cluster
from kit.labs.conclusions import decided, in_a_cell
from kit.measuring.comparison import Comparison


@contextmanager
def local_cluster(workers: int = 2) -> Iterator[None]:
    """In this block the approach ``cluster`` runs on so many workers of Dask, processes of this machine.

    Without Dask it runs on none, and its row says what to install.
    """
    if importlib.util.find_spec("distributed") is None:
        yield
        return
    dask: Any = importlib.import_module("distributed")

    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR}
    options["preload"] = ["from kit.profiler import begin; begin()"]  # in the main thread of each worker
    with (
        dask.LocalCluster(n_workers=workers, **options) as local,
        dask.Client(local) as client,
    ):
        use_cluster(client)
        try:
            yield
        finally:
            use_cluster(None)


def about_cluster(comparison: Comparison) -> str:
    """What the cluster did beside ranks."""
    said = decided(comparison, "cluster", "ranks")
    if said.startswith("not measured"):
        return f"`cluster` is {in_a_cell(said)}"
    row = next(row for row in comparison.rows if row.name == "cluster")
    same = "the same output" if row.equality and row.equality.equal else "**another output**"
    than = f"against `ranks` it is {in_a_cell(said)}" if said.startswith("not ") else f"against `ranks`: **{said}**"
    return (
        f"`cluster` gave {same} as `sequential`; {than}. Both get their share of the weights once, and then only "
        "tensors. What differs: who starts the workers, who finds them, and who notices that one is gone."
    )
