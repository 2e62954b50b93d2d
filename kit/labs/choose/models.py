"""What notebook 11 looks at and measures beside the learner's own model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from kit.approaches.workload import Workload
from kit.errors import KitError
from kit.graphs.operators import Graph
from kit.inputs import opened
from kit.labs.conclusions import in_a_cell
from kit.machine import hardware
from kit.models import inception_block, toy_two_stream, two_stream
from kit.regions import Branches
from kit.reprs import one_line
from kit.verbs import graph as find
from kit.views.graph_picture import graph_picture


@one_line
class NoGraph(NamedTuple):
    """That a model has no graph, and why: its branches cannot be looked for."""

    reason: str

    def __str__(self) -> str:
        return (
            f"Branches could not be looked for: {self.reason} So `threads` and `processes` have nothing to run at the "
            "same time, and the later cells have nothing to show of them. Many requests (section 3) need no branches."
        )

    def _repr_markdown_(self) -> str:
        return in_a_cell(self)


def look(model: nn.Module, inputs: Any) -> Graph | NoGraph:
    """The graph of a model, or why it has none: its ``forward`` may decide by values what to do next."""
    try:
        return find(model, inputs)
    except KitError as error:
        return NoGraph(str(error))


def picture(graph: Graph | NoGraph) -> Any:
    """The picture of a graph; where there is none, the sentence that says why."""
    return graph if isinstance(graph, NoGraph) else graph_picture(graph)


def requests(model: nn.Module, inputs: Any) -> Workload:
    """Requests that a model serves, as a workload: ``sequential`` takes one at a time, ``threads`` one on each core.

    Raises: as :func:`kit.compare`, of the model and its inputs.
    """
    network, args = opened(model, inputs)
    count = max(8, hardware.detect().cores)
    takes = {f"request {i}": tuple(range(len(args))) for i in range(count)}
    served = Branches(dict.fromkeys(takes, network), list, takes)
    return Workload("requests", served, args, count, "requests", f"{count} requests")


def earlier() -> dict[str, tuple[nn.Module, Any]]:
    """Models of the earlier notebooks, with their inputs."""
    return {
        "two streams, toy": (toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))),
        "two streams": (two_stream(), (torch.rand(1, 3, 112, 112), torch.rand(1, 20, 112, 112))),
        "Inception block": (inception_block(), torch.rand(1, 192, 35, 35)),
    }
