"""The door: what is no model, and what a model does not take, is said in a sentence that names it and what would do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kit
from kit import models
from kit.approaches import parse
from kit.errors import KitError, ShapeError, brief
from kit.inputs import called_with, opened


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.bn(self.conv(x)).mean((2, 3)))
        return scores


class Text(nn.Module):
    """Keywords only, as many models of text have them, and a region."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.region = kit.Branches({"a": nn.Linear(4, 4), "b": nn.Linear(4, 2)}, kit.Concat(-1))

    def forward(self, *, ids: Tensor, mask: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"scores": self.region(self.embedding(ids) * mask[..., None] * scale)}


NET, TEXT = Net().eval(), Text().eval()
X = torch.rand(2, 3, 8, 8)
TOKENS = {"mask": torch.rand(2, 5), "ids": torch.randint(0, 10, (2, 5))}


def run_function(x: Tensor) -> Tensor:
    return x


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("resnet", "the model is the string 'resnet': give an nn.Module"),
        (None, "the model is NoneType"),
        (X, r"the model is \(2, 3, 8, 8\) float32 on cpu"),
        (NET.state_dict(), "the model is OrderedDict"),
        ([NET, NET], "the model is list"),
        (Net, r"Net is a class: give an instance of it in eval mode, as in Net\(\.\.\.\)\.eval\(\)"),
        (run_function, "run_function is a function: call it in the forward of an nn.Module"),
        (torch.relu, "relu is a function"),
        (functools.partial(run_function), "the model is partial"),
        (NET.forward, "forward is a method of Net: give the Net itself"),
        (nn.ModuleList([NET]), "ModuleList has no forward"),
        (nn.ModuleDict({"a": NET}), "ModuleDict has no forward"),
        (nn.Sequential(nn.LazyLinear(2)).eval(), r"0\.weight of Sequential has no shape before its first call"),
        (Net().to("meta").eval(), "Net is on the device meta, which computes nothing"),
        (Net(), r"Net is in training mode.*call model\.eval\(\)"),
    ],
)
def test_what_is_no_model_is_named(model: Any, says: str) -> None:
    for verb in (kit.compare, kit.record):
        with pytest.raises(KitError, match=says) as caught:
            verb(model, X)
        assert len(str(caught.value)) < 250


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_model_would_be_a_false_baseline() -> None:
    inside, in_place = nn.Sequential(torch.compile(nn.Linear(2, 2))).eval(), nn.Linear(2, 2)  # type: ignore[arg-type]
    in_place.compile()
    for model, part in ((torch.compile(NET), "OptimizedModule"), (inside, "0 of Sequential"), (in_place, "Linear")):
        with pytest.raises(KitError, match=f"{part} is already compiled.*'compiled' as an approach"):
            kit.compare(model, X, "sequential")  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [X, (X, X), X.numpy(), [1]])
def test_swapped_arguments(first: Any) -> None:
    for verb in (kit.compare, kit.record, kit.graph):
        with pytest.raises(KitError, match=r"the model comes first, then its inputs: swap .* and Net\."):
            verb(first, NET)


@pytest.mark.parametrize("kind", ["script", "trace", "parallel"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_other_kinds_of_modules_run(kind: str) -> None:
    make = {"script": torch.jit.script, "trace": lambda net: torch.jit.trace(net, X), "parallel": nn.DataParallel}
    model = make[kind](NET).eval()
    assert len(kit.record(model, X, operators=False)) == 1
    with pytest.raises(ShapeError, match="channels come last"):
        kit.record(model, X.movedim(1, -1))


# Inputs that do not fit -----------------------------------------------------------------------------------------------

PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("inputs", "given", "instead"),
    [
        (X.numpy(), r"numpy array \(2, 3, 8, 8\) float32", "torch.from_numpy(x)"),
        (X.double().numpy(), "float64", "torch.from_numpy(x).to(torch.float32)"),
        (PICTURE, r"\(8, 8, 3\) uint8", "torch.from_numpy(x).movedim(-1, -3)[None].to(torch.float32)"),
        (X.double(), r"float64 on cpu: its weights are torch\.float32", "x.to(torch.float32)"),
        (X.half(), "float16", "x.to(torch.float32)"),
        (X.byte(), "uint8", "x.to(torch.float32)"),
        (X.long(), "int64", "x.to(torch.float32)"),
        (X[0], r"\(3, 8, 8\).*the batch dimension is missing", "x[None]"),
        (X.movedim(1, -1), "its channels come last", "x.movedim(-1, -3)"),
        ([X[0].double()], "batch dimension is missing and its weights", "x[None].to(torch.float32)"),
    ],
)
def test_the_remedy_is_one_that_was_tried(inputs: Any, given: str, instead: str) -> None:
    for verb in (
        kit.compare,
        kit.record,
        functools.partial(kit.record, first=True, operators=False),
        kit.graph,
    ):
        with pytest.raises(ShapeError, match=f"Net does not take these inputs, .*{given}") as caught:
            verb(NET, inputs)
        assert f". Give {instead} for each such input x" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None
    x = inputs[0] if isinstance(inputs, list) else inputs
    NET(eval(instead, {"torch": torch, "x": x}))


def test_a_remedy_within_a_region_and_for_some_of_several_inputs() -> None:
    with pytest.raises(ShapeError, match=r"Branches does not take .*Give torch\.from_numpy\(x\)"):
        kit.record(models.inception_block(16), torch.rand(1, 16, 8, 8).numpy(), "threads")
    with pytest.raises(ShapeError, match=r"Give torch\.from_numpy\(x\)\.to\(torch\.float32\)"):
        kit.compare(TEXT, {"mask": TOKENS["mask"].double().numpy(), "ids": TOKENS["ids"]}, "sequential")


def test_a_remedy_is_told_where_a_transform_met_the_inputs_first() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    region = kit.Branches({"a": model}, kit.Concat(1)).eval()
    for approach in ("folded", "channels_last", "merged + threads", "scripted_fork"):
        with pytest.raises(KitError) as caught:
            kit.record(region, X.double(), approach)
        if approach != "merged + threads":  # which has nothing to merge here, whatever the inputs
            assert "Give x.to(torch.float32)" in str(caught.value), approach


class Pil:
    """In place of a picture of PIL, which is not installed here."""

    __module__ = "PIL.Image"


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (None, "the inputs are missing: give a tensor"),
        ("picture.png", "input 1 is a str: give a tensor"),
        (3, "input 1 is a int: give a tensor"),
        (Pil(), r"input 1 is a Pil: give a tensor, as in torch\.from_numpy\(numpy\.array\(x\)\)"),
        (np.array([None]), r"numpy array \(1,\) object: input 1 is a ndarray"),
        (np.float32(1), r"numpy array \(\) float32: input 1 is a float32"),
        (torch.utils.data.DataLoader(X), r"input 1 is a DataLoader: take one batch out of it"),  # type: ignore[arg-type]
        (torch.utils.data.TensorDataset(X), "input 1 is a TensorDataset: take one batch"),
        ((x for x in X), "input 1 is a generator: take one batch"),
        ((), r"these inputs, nothing: its forward takes \(x\), .*missing a required argument: 'x'"),
        ((X, X), r"its forward takes \(x\), .*too many.*torch\.stack"),
        ([X[0].numpy()] * 20, r"\.\.\. 20 in all: its forward takes \(x\)"),
        (
            X[:, :1],
            r"its conv, Conv2d\(3, 4, .*\), was given \(2, 1, 8, 8\) float32 on cpu: RuntimeError: Given groups=1",
        ),
        (X.to(torch.cfloat), "complex64"),
        ({"y": X}, r"does not take these keyword arguments, 'y': its forward takes \(x\), .*'x'"),
        ({}, "a dict of inputs must hold keyword arguments"),
        ({1: X}, "a dict of inputs must hold keyword arguments"),
    ],
)
def test_what_no_change_would_mend_is_named(inputs: Any, says: str) -> None:
    with pytest.raises(ShapeError, match=says) as caught:
        kit.compare(NET, inputs, "sequential")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_an_input_on_another_device() -> None:
    with pytest.raises(KitError, match=r"an input, \(2, 3, 8, 8\) float32 on meta, is on the device meta"):
        kit.compare(NET, X.to("meta"))


def test_torchs_signatures_and_colours_are_left_out() -> None:
    with pytest.raises(TypeError) as caught:
        nn.Conv2d(1, 1, 1)("text")
    assert len(str(caught.value)) > 500
    assert brief(caught.value).endswith("int)")
    assert brief(ValueError("\x1b[96mone\x1b[0m\ntwo")) == "ValueError: one two"


class Raises(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_ran_out_is_no_wrong_shape(error: Exception) -> None:
    with pytest.raises(KitError, match=r"memory ran out while Raises was called with .* smaller batch") as caught:
        kit.compare(Raises(error), X, "sequential")
    assert not isinstance(caught.value, ShapeError)


@pytest.mark.parametrize("error", [AttributeError("x"), KeyError("x"), AssertionError("x"), NotImplementedError("x")])
def test_whatever_a_forward_raises_is_a_kit_error(error: Exception) -> None:
    with pytest.raises(ShapeError, match=f"Raises does not take these inputs.*{type(error).__name__}: '?x"):
        kit.compare(Raises(error), X, "sequential")


def test_an_error_that_is_not_of_the_inputs_is_left_as_it_is() -> None:
    with pytest.raises(KitError, match="on purpose") as caught, called_with(NET, (X,)):
        raise KitError("on purpose") from ValueError()
    assert caught.value.__notes__ == ["Net was given (2, 3, 8, 8) float32 on cpu"]


def test_several_inputs_given_one_after_the_other() -> None:
    with pytest.raises(KitError, match="Put several inputs of a model into one tuple"):
        kit.compare(NET, X, X)  # type: ignore[arg-type]


# What fits ------------------------------------------------------------------------------------------------------------


class Numpy(nn.Module):
    def forward(self, x: Any) -> Tensor:
        assert isinstance(x, np.ndarray)
        return torch.from_numpy(x) * 2


def test_what_a_model_takes_is_never_refused_nor_changed() -> None:
    comparison = kit.compare(Numpy(), X.numpy(), "sequential", rounds=6, progress=False)
    assert comparison.inputs == "numpy array (2, 3, 8, 8) float32"


@pytest.mark.parametrize("make", [lambda: X.clone().requires_grad_(), lambda: nn.Parameter(X)])
def test_inputs_that_want_gradients_are_detached_and_left_as_they_are(make: Callable[[], Tensor]) -> None:
    x = make()
    _, (seen, nested) = opened(NET, (x, [x]))
    assert not seen.requires_grad
    assert not nested[0].requires_grad
    assert seen.data_ptr() == x.data_ptr()
    assert x.requires_grad


def test_a_dict_is_passed_as_keyword_arguments_whatever_its_order() -> None:
    model, args = opened(TEXT, TOKENS)
    assert [tuple(x.shape) for x in args] == [(2, 5), (2, 5)]
    wanted = TEXT(**TOKENS)["scores"]
    assert torch.equal(model(*args)["scores"], wanted)
    assert torch.equal(cloudpickle.loads(cloudpickle.dumps(model))(*args)["scores"], wanted)
    assert type(model).__name__ == "Text"
    assert not model.training
    assert list(dict(model.named_parameters()).values()) == list(TEXT.parameters())
    with pytest.raises(ShapeError, match=r"keyword arguments, 'ids', 'masks': .*To give the dict itself.*\(inputs,\)"):
        opened(TEXT, {"ids": TOKENS["ids"], "masks": TOKENS["mask"]})


def test_a_dict_in_a_tuple_is_an_argument() -> None:
    class Batch(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["x"] * 2

    assert len(kit.record(Batch(), ({"x": X},), operators=False)) == 1


@pytest.mark.parametrize("approach", ["threads", "scripted_fork", "replicated", "compiled", "compiled + threads"])
def test_keyword_arguments_go_the_whole_road(approach: str) -> None:
    comparison = kit.compare(TEXT, TOKENS, ["sequential", approach], rounds=6, progress=False)
    assert str(comparison[approach].equality).startswith("yes")
    assert comparison.inputs == "mask (2, 5) float32 on cpu, ids (2, 5) int64 on cpu"


def test_keyword_arguments_through_workers_onnx_records_descriptions_and_runners() -> None:
    pytest.importorskip("onnxruntime")
    comparison = kit.compare(TEXT, TOKENS, "processes,onnxruntime", rounds=6, progress=False)
    assert all(row.equality and row.equality.equal for row in comparison.rows)
    assert {event.name for event in kit.record(TEXT, TOKENS, "threads", operators=False).events()} >= {
        "region",
        "a",
        "b",
    }
    assert kit.graph(TEXT, TOKENS).regions[0].name == "region"
    with parse("threads").prepare(TEXT, TOKENS) as runner:
        wanted = TEXT(**TOKENS)["scores"]
        assert torch.equal(runner.run({"mask": TOKENS["mask"], "ids": TOKENS["ids"]})["scores"], wanted)
        assert torch.equal(runner()["scores"], wanted)
