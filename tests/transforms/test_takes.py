"""Every approach on a region whose branches take what they name, nested containers among it, and give such back."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError, ShapeError
from kit.machine import hardware
from kit.models.init import keep_signal
from kit.regions import Branches


def unit() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))


class Nested(nn.Module):
    """``{"x": (N, 4, H, W), "bias": [(4,)]}`` -> ``(x, {"sums": [(N, 4), None], "layers": number})``."""

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.unit, self.number = unit(), number

    def forward(self, given: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        x = self.unit(given["x"] + 0) + given["bias"][0].view(4, 1, 1)
        return x, {"sums": [x.mean((2, 3)), None], "layers": self.number}


class Difference(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - 2 * y


class Prior(nn.Module):
    """A branch that takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self) -> Tensor:
        return self.table.exp()


def merge(outputs: list[Any]) -> dict[str, Any]:
    (x, more), difference, prior, first, second = outputs
    return {"scores": torch.cat([x, difference * prior, first, second], 1), "more": (more, prior)}


TAKES = {"nested": 2, "difference": (1, 0), "prior": (), "first": (1,), "second": 1}


def model(number: int | None = 3) -> nn.Module:
    branches = {
        "nested": Nested(number),
        "difference": Difference(),
        "prior": Prior(),
        "first": unit(),
        "second": nn.Sequential(unit(), nn.Conv2d(4, 2, 3, padding=1)),
    }
    return keep_signal(Branches(branches, merge, TAKES), 0).eval()


def inputs(seed: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, y, z = torch.randn(3, 2, 4, 6, 6, generator=generator).unbind()
    return x, y, {"x": z, "bias": [torch.randn(4, generator=generator)]}


RUNTIMES = ("onnxruntime", "openvino")
APPROACHES = [
    *("sequential", "threads", "processes", "processes_cold", "ranks"),
    *("channels_last", "folded", "merged", "replicated", "compiled", *RUNTIMES),
    *("folded + merged + channels_last + threads", "compiled + threads"),
]


def skip_without(approach: str) -> None:
    if reason := parse(approach).unavailable_because(hardware.detect()):
        pytest.skip(reason)


@pytest.mark.parametrize("approach", APPROACHES)
def test_the_same_output_on_the_inputs_it_was_prepared_with_and_on_others(approach: str) -> None:
    skip_without(approach)
    given = model(None if approach in RUNTIMES else 3)
    first, others = inputs(0), inputs(1)
    with torch.inference_mode():
        expected = [given(*first), given(*others)]
        for i in range(3):  # each input counts, or equal outputs would show nothing of it
            mixed = tuple(other if i == j else x for j, (x, other) in enumerate(zip(first, others, strict=True)))
            assert not compare_outputs(expected[0], given(*mixed)).equal
    with parse(approach).prepare(given, first) as runner, torch.inference_mode():
        torch.set_num_threads(runner.intra_op_threads)
        calls = [(expected[1], others)] if runner.cold else [(expected[0], first), (expected[1], others)]
        found = [(want, runner.run(args)) for want, args in calls]
    for want, got in found:
        assert compare_outputs(want, got).equal, str(compare_outputs(want, got))
        assert pytree.tree_structure(want) == pytree.tree_structure(got)


def test_torchscript_runs_branches_that_take_what_they_name() -> None:
    branches = {"difference": Difference(), "prior": Prior(), "first": unit()}
    takes = {"difference": (1, 0), "prior": (), "first": 1}
    region = keep_signal(
        Branches(branches, lambda parts: {"sum": parts[0] + parts[1], "last": parts[2]}, takes), 0
    ).eval()
    (x, y, *_), (*others, _) = inputs(0), inputs(1)
    with parse("scripted_fork").prepare(region, (x, y)) as runner, torch.inference_mode():
        assert compare_outputs(region(*others), runner.run(tuple(others))).equal
        assert not compare_outputs(region(x, y), runner.run(tuple(others))).equal


@pytest.mark.parametrize(
    ("branch", "given", "says"),
    [
        (nn.Identity(), ([torch.ones(3)],), "'Branches' was given list, but TorchScript traces only tensors"),
        (Prior(), (), "'Branches' was given nothing, but TorchScript traces only tensors"),
        (nn.MaxPool2d(2, return_indices=True), (torch.ones(1, 1, 4, 4),), "a branch returns tuple.* needs one tensor"),
    ],
)
def test_what_torchscript_cannot_fork_is_named(branch: nn.Module, given: tuple[Any, ...], says: str) -> None:
    region = Branches({"a": branch}, lambda parts: parts[0], takes={"a": tuple(range(len(given)))}).eval()
    with pytest.raises(KitError, match=says):
        parse("scripted_fork").prepare(region, given)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_another_runtime_cannot_take_or_give_is_said(runtime: str) -> None:
    skip_without(runtime)
    x, y, given = inputs(0)
    with pytest.raises(KitError, match=rf"^{runtime} takes CPU tensors of a dtype that numpy has, but .*dict"):
        parse(runtime).prepare(model(None), (x, y, given | {"bias": [2.0]}))
    with pytest.raises(KitError, match=f"a graph of {runtime} returns only tensors, but Branches also returns a int"):
        parse(runtime).prepare(model(), inputs(0))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_graph_of_another_runtime_takes_nothing_but_what_it_was_made_for(runtime: str) -> None:
    """OpenVINO by itself would cast numbers of another type without a word."""
    skip_without(runtime)
    net, x = unit().eval(), inputs(0)[0]
    with parse(runtime).prepare(net, x) as runner, torch.inference_mode():
        for other in (x[:1], x[..., :5], x.double(), [x, x], {"x": x}):
            with pytest.raises(ShapeError, match=r"exported for \(2, 4, 6, 6\) float32 on cpu, but was given .* again"):
                runner.model(other)
        assert compare_outputs(net(x.transpose(2, 3)), runner.run(x.transpose(2, 3))).equal  # of any strides
