"""Every approach on every kind of region: the output of sequential, on inputs that the output reacts to."""

import functools
import gc
import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kit import hardware
from kit.approaches import parse
from kit.equality import compare_outputs, deaf_inputs
from kit.errors import KitError
from kit.models import two_stream
from kit.models.init import keep_signal
from kit.regions import Branches, Concat

DTYPES = [torch.float32, torch.bfloat16]
BATCHES = [1, 4]


def unit(dims: int, inputs: int, outputs: int, kernel: int | tuple[int, ...] = 1) -> nn.Sequential:
    sizes = (kernel,) * dims if isinstance(kernel, int) else kernel
    conv, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dims]
    padding = [size // 2 for size in sizes]
    return nn.Sequential(
        conv(inputs, outputs, sizes, padding=padding, bias=False), norm(outputs), nn.ReLU(inplace=True)
    )


def block(dims: int = 2) -> Branches:
    """What Inception blocks are made of: heads with and without a tail, a split in a branch, both kinds of pool."""
    average, largest = {2: (nn.AvgPool2d, nn.MaxPool2d), 3: (nn.AvgPool3d, nn.MaxPool3d)}[dims]
    wide, tall = (1,) * (dims - 1) + (3,), (3,) + (1,) * (dims - 1)
    split = Branches({"wide": unit(dims, 4, 3, wide), "tall": unit(dims, 4, 5, tall)}, Concat(1))
    return Branches(
        {
            "1x1": unit(dims, 6, 3),
            "3x3": nn.Sequential(unit(dims, 6, 4), unit(dims, 4, 5, 3)),
            "split": nn.Sequential(unit(dims, 6, 4), split),
            "average": nn.Sequential(average(3, stride=1, padding=1), unit(dims, 6, 2)),
            "largest": nn.Sequential(largest(3, stride=1, padding=1), unit(dims, 6, 2)),
        },
        Concat(1),
    )


def lively(model: nn.Module) -> nn.Module:
    """With batch norms that do something: those of a new model are nearly the identity, and would hide a fault."""
    generator = torch.Generator().manual_seed(0)
    for module in keep_signal(model, 0).modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.running_mean, module.bias):
                tensor.data.normal_(0, 0.5, generator=generator)
            for tensor in (module.running_var, module.weight):
                tensor.data.uniform_(0.5, 2, generator=generator)
    return model.eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "one block": (block, [(6, 9, 9)]),
    "a network": (lambda: nn.Sequential(unit(2, 3, 6, 3), block(), unit(2, 20, 6), block()), [(3, 9, 9)]),
    "volumes": (lambda: block(3), [(6, 5, 7, 7)]),
    "two streams": (lambda: two_stream(width=4), [(3, 32, 32), (20, 32, 32)]),
    "averaged streams": (lambda: two_stream(width=4, fusion="mean"), [(3, 32, 32), (20, 32, 32)]),
}
EAGER = ["threads", "channels_last", "folded", "merged", "scripted_fork", "replicated"]
TOGETHER = ["folded + merged + channels_last + threads", "merged + folded", "merged + scripted_fork"]


@functools.cache
def case(name: str, batch: int, dtype: torch.dtype) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make, sizes = MODELS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = tuple(torch.randn(batch, *size, generator=generator).to(dtype) for size in sizes)
    return lively(make()).to(dtype), inputs


def check(approach: str, name: str, batch: int, dtype: torch.dtype) -> None:
    """Same output, twice; the output reacts to every input; and the model is what it was."""
    model, inputs = case(name, batch, dtype)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = list(model.modules())
    with parse("sequential").prepare(model) as sequential, torch.inference_mode():
        expected = sequential(*inputs)
        assert deaf_inputs(sequential, inputs) == []
    with parse(approach).prepare(model, inputs) as runner, torch.inference_mode():
        if parse(approach).kind.startswith("compiled"):
            torch.set_num_threads(runner.intra_op_threads)
        for _ in range(2):
            found = runner(*inputs)
            assert compare_outputs(expected, found).equal, f"off by {compare_outputs(expected, found).max_abs_error}"
        moved = tuple(x + torch.randn_like(x) for x in inputs)  # a shift alone is lost on filters that sum to zero
        assert not compare_outputs(expected, runner(*moved)).equal
        assert compare_outputs(expected, found).equal, "the second output is the caller's, and was overwritten"
    assert list(model.modules()) == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(value.is_inference() or value.is_shared() for value in model.state_dict().values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("approach", [*EAGER, *TOGETHER])
def test_same_output(approach: str, name: str, batch: int, dtype: torch.dtype) -> None:
    if name == "volumes" and dtype is torch.bfloat16:
        pytest.skip("torch has no average pool of bfloat16 volumes on a CPU")
    if "merged" in approach and "streams" in name:
        model, inputs = case(name, batch, dtype)
        with pytest.raises(KitError, match="no region of TwoStream has two branches that begin with a 1x1"):
            parse(approach).prepare(model, inputs)
    else:
        check(approach, name, batch, dtype)


@pytest.mark.skipif(parse("compiled").unavailable_because(hardware.detect()) is not None, reason="no compiler")
@pytest.mark.parametrize(
    ("approach", "name", "batch", "dtype"),
    [
        ("compiled", "a network", 1, torch.float32),
        ("compiled", "one block", 4, torch.bfloat16),
        ("compiled", "volumes", 4, torch.float32),
        ("compiled", "two streams", 4, torch.float32),
        ("compiled(freezing=True) + threads", "one block", 1, torch.float32),
        ("compiled(freezing=True) + threads", "two streams", 1, torch.bfloat16),
        ("folded + merged + channels_last + compiled + threads", "one block", 4, torch.float32),
    ],
)
def test_same_output_compiled(approach: str, name: str, batch: int, dtype: torch.dtype) -> None:
    check(approach, name, batch, dtype)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_same_output_onnxruntime(name: str, batch: int) -> None:
    approach = "onnxruntime(execution=parallel, inter_op=2)" if batch == 1 else "folded + onnxruntime"
    check(approach, name, batch, torch.float32)


def test_same_output_in_processes() -> None:
    check("folded + merged + channels_last + processes", "a network", 4, torch.float32)


def test_what_needs_no_regions_runs_without() -> None:
    model, x = lively(nn.Sequential(unit(2, 3, 4, 3), unit(2, 4, 4))), torch.randn(2, 3, 8, 8)
    for approach in ("channels_last", "folded", "folded + channels_last", "replicated"):
        with parse(approach).prepare(model, x) as runner, torch.inference_mode():
            assert compare_outputs(model(x), runner(x)).equal


@pytest.mark.parametrize("approach", ["merged", "scripted_fork", "folded + threads", "compiled + threads"])
def test_what_needs_regions_says_how_to_make_them(approach: str) -> None:
    with pytest.raises(KitError, match=r"Sequential has no region.*kit\.Branches\("):
        parse(approach).prepare(lively(nn.Sequential(unit(2, 3, 4))), torch.randn(1, 3, 8, 8))


def resources() -> tuple[int, int, int]:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return threading.active_count(), len(os.listdir("/proc/self/fd")), resident  # noqa: PTH208


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux what this process holds")
@pytest.mark.parametrize("approach", ["sequential", *EAGER, "folded + merged + channels_last + threads"])
def test_500_times_prepared_and_closed_leave_nothing(approach: str) -> None:
    model = lively(Branches({"a": unit(2, 8, 8), "b": unit(2, 8, 8)}, Concat(1)))
    x = torch.randn(1, 8, 4, 4)

    def cycles(times: int) -> tuple[int, int, int]:
        for _ in range(times):
            with parse(approach).prepare(model, x) as runner, torch.inference_mode():
                runner(x)
        return resources()

    threads, descriptors, resident = cycles(50)
    after = cycles(500)
    assert after[:2] == (threads, descriptors)
    if approach != "scripted_fork":  # TorchScript keeps what it compiled, half a megabyte a cycle
        assert after[2] - resident < 16 * 2**20
