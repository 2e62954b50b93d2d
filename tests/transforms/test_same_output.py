"""Every approach on every kind of region: the output of sequential, on inputs that the output reacts to."""

import ctypes
import functools
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.approaches import REGISTRY, Runs, parse
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import KitError
from kit.machine import hardware
from kit.models import inception2d, two_stream
from kit.models.inception import inception_a
from kit.models.init import keep_signal
from kit.regions import Branches, Concat

DTYPES = [torch.float32, torch.bfloat16]
BATCHES = [1, 4]
SOAK = os.environ.get("KIT_SOAK") == "1"


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


def two_heads() -> Branches:
    """The least that every transform finds something to do in, also after another."""
    return Branches({"a": unit(2, 8, 8), "b": nn.Sequential(unit(2, 8, 4), unit(2, 4, 8, 3))}, Concat(1))


def inception() -> nn.Sequential:
    """Inception's own blocks, with a few channels each: v3's A to E, of which B and D reduce, v1's, and v1's in 3-D."""

    def few(channels: int) -> int:
        return max(2, channels // 32)

    v1 = [few(channels) for channels in inception2d.V1_BLOCKS["3a"]]
    blocks = [
        inception_a(6, 32, few),  # (N, 9, 11, 11)
        inception2d._b(9, few),  # (N, 24, 5, 5)
        inception2d._c(24, 128, few),  # (N, 24, 5, 5)
        inception2d._d(24, few),  # (N, 40, 2, 2)
        inception2d._e(40, few),  # (N, 64, 2, 2)
        inception2d.inception_v1_block(64, *v1),  # (N, 10, 2, 2)
        nn.Unflatten(1, (5, 2)),
        inception2d.inception_v1_block(5, *v1, conv=nn.Conv3d),  # (N, 10, 2, 2, 2)
    ]
    return nn.Sequential(unit(2, 3, 6, 3), *blocks)


def nested() -> Branches:
    """An input for each of two branches, and in them the other kinds of region; little to compile, little to send."""
    split = Branches({"wide": unit(2, 4, 4, (1, 3)), "tall": unit(2, 4, 4, (3, 1))}, Concat(1))
    average = nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), unit(2, 6, 4))
    block = Branches(
        {"1x1": unit(2, 6, 4), "split": nn.Sequential(unit(2, 6, 4), split), "average": average}, Concat(1)
    )
    reduction = Branches({"3x3": nn.Conv2d(16, 4, 3, stride=2), "largest": nn.MaxPool2d(3, stride=2)}, Concat(1))
    largest = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), unit(3, 6, 4))
    volumes = Branches({"1x1": unit(3, 6, 4), "largest": largest}, Concat(1))
    streams = {"images": nn.Sequential(block, reduction, nn.Flatten()), "volumes": nn.Sequential(volumes, nn.Flatten())}
    return Branches(streams, Concat(1))


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
    "two heads": (two_heads, [(8, 4, 4)]),
    "one block": (block, [(6, 9, 9)]),
    "inception": (inception, [(3, 11, 11)]),
    "nested": (nested, [(6, 9, 9), (6, 3, 5, 5)]),
    "volumes": (lambda: block(3), [(6, 5, 7, 7)]),
    "two streams": (lambda: two_stream(width=4), [(3, 32, 32), (20, 32, 32)]),
    "averaged streams": (lambda: two_stream(width=4, fusion="mean"), [(3, 32, 32), (20, 32, 32)]),
}
TOGETHER = [
    "folded + merged + channels_last + threads",
    "folded + merged + channels_last + processes",
    "channels_last + compiled(freezing=True) + threads",
    "onnxruntime(execution=parallel, inter_op=2)",
    "openvino(hint=throughput, threads=1)",
]
SLOW = {  # what compiles many kernels or starts processes -> the networks it is tried on; `make soak` tries them all
    "onnxruntime": ["nested", "volumes"],
    "openvino": ["nested", "volumes"],
    "processes": ["nested"],
    "ranks": ["nested"],
    "compiled": ["nested"],
    "processes_cold": ["nested"],
}


def home(approach: str) -> str:
    """On a GPU goes what needs one, and what wants one where there is one."""
    without, with_one = (
        parse(approach).unavailable_because(replace(hardware.detect(), gpus=gpus)) for gpus in ((), ("any",))
    )
    wants = "replicated" in approach and torch.cuda.is_available()
    return "cuda" if wants or (without and not with_one) else "cpu"


def marked(approach: str, *values: Any) -> Any:
    """A parameter set, skipped with the approach's own reason where it cannot run here."""
    marks = [pytest.mark.gpu] if home(approach) == "cuda" else []
    if reason := parse(approach).unavailable_because(hardware.detect()):
        marks.append(pytest.mark.skip(reason))
    elif "packed" in approach and home(approach) == "cuda":
        marks.append(pytest.mark.skip("packed is for convolutions on the CPU"))
    return pytest.param(approach, *values, marks=marks)


@functools.cache
def case(name: str, batch: int, dtype: torch.dtype, device: str) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
    """A model, inputs that its output reacts to, and that output."""
    make, sizes = MODELS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = tuple(torch.randn(batch, *size, generator=generator).to(device, dtype) for size in sizes)
    model = lively(make()).to(device, dtype)
    with parse("sequential").prepare(model, inputs) as sequential, torch.inference_mode():
        assert inputs_without_effect(lambda *args: sequential.run(args), inputs) == []
        return model, inputs, sequential()


def check(approach: str, name: str, batch: int, dtype: torch.dtype) -> None:
    """Same output, twice; other inputs give another; and the model is what it was."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # which a CPU does not have
        model, inputs, expected = case(name, batch, dtype, home(approach))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        modules = list(model.modules())
        with parse(approach).prepare(model, inputs) as runner, torch.inference_mode():
            torch.set_num_threads(runner.intra_op_threads)  # compiled code takes no others
            found = [runner() for _ in range(1 if runner.cold else 2)]
            moved = tuple(x + torch.randn_like(x) for x in inputs)  # a shift alone is lost on filters that sum to zero
            assert not compare_outputs(expected, runner.run(moved)).equal
        for output in found:  # only now: outputs are the caller's, and no later call may overwrite them
            assert compare_outputs(expected, output).equal, str(compare_outputs(expected, output))
    assert list(model.modules()) == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    weights = model.state_dict().values()
    # Memory of a GPU counts as shared always.
    assert not any(value.is_inference() or (value.is_shared() and not value.is_cuda) for value in weights)


def settings_for(approach: str) -> list[tuple[str, int, torch.dtype]]:
    """Network, batch and type: every combination, but for what is slow, and what is only to be skipped."""
    everything = list(itertools.product(MODELS, BATCHES, DTYPES))
    if parse(approach).unavailable_because(hardware.detect()):
        return everything[:1]
    few = next((names for kind, names in SLOW.items() if kind in parse(approach).kind.split(" + ")), None)
    if few is None or SOAK:
        return everything
    other = [] if approach == "processes_cold" else [(few[0], 4, torch.bfloat16)]  # sent as processes send it
    return [*((name, 1, torch.float32) for name in few), *other]


CROSS = [marked(approach, *setting) for approach in [*REGISTRY, *TOGETHER] for setting in settings_for(approach)]


@pytest.mark.parametrize(("approach", "name", "batch", "dtype"), CROSS)
def test_same_output(approach: str, name: str, batch: int, dtype: torch.dtype) -> None:
    if name == "volumes" and dtype is torch.bfloat16 and (home(approach) == "cpu" or approach == "devices"):
        pytest.skip("torch has no average pool of bfloat16 volumes on a CPU")
    refusal = None
    if "merged" in approach and "streams" in name:
        refusal = "no region of TwoStream has two branches that begin with a 1x1"
    if approach.startswith(("onnxruntime", "openvino")) and dtype is torch.bfloat16:
        refusal = r"^o\w+ takes CPU tensors of a dtype that numpy has, but was given .* bfloat16"
    if refusal is None:
        check(approach, name, batch, dtype)
    else:
        model, inputs, _ = case(name, batch, dtype, home(approach))
        with pytest.raises(KitError, match=refusal):
            parse(approach).prepare(model, inputs)


GOES_ON = ("channels_last", "folded", "merged")  # after which the model can be rewritten and its regions run
EXECUTORS = [kind for kind, entry in REGISTRY.items() if isinstance(entry, Runs)]


PAIRS = list(itertools.product(REGISTRY, REGISTRY))
GO_TOGETHER = [
    (first, second)
    for first, second in PAIRS
    if first != second
    and (
        first in GOES_ON
        or (first == "packed" and (second in EXECUTORS or second == "scheduled"))
        or (first == "compiled" and second in EXECUTORS and not REGISTRY[second].sends)
    )
]
# What is slow after one rewriting is not asked again after each of the others.
AFTER_FOLDED = {*REGISTRY} - {"processes_cold"}  # which sends what processes send
TRIED = [
    pair for pair in GO_TOGETHER if SOAK or pair[1] not in SLOW or (pair[0] == "folded" and pair[1] in AFTER_FOLDED)
]


@pytest.mark.parametrize("pair", [marked(f"{first} + {second}") for first, second in TRIED])
def test_a_pair_gives_the_same_output(pair: str) -> None:
    check(pair, "two heads", 1, torch.float32)


def test_a_pair_that_does_not_go_together_says_why_not() -> None:
    for first, second in set(PAIRS) - set(GO_TOGETHER):
        with pytest.raises(KitError, match=rf"^{first} \+ {second}: .*{first if first != second else 'twice'}.*\.$"):
            parse(f"{first} + {second}")


def test_what_needs_no_regions_runs_without() -> None:
    model, x = lively(nn.Sequential(unit(2, 3, 4, 3), unit(2, 4, 4))), torch.randn(2, 3, 8, 8)
    for approach in ("channels_last", "folded", "folded + channels_last", "replicated"):
        with parse(approach).prepare(model, x) as runner, torch.inference_mode():
            assert compare_outputs(model(x), runner()).equal


@pytest.mark.parametrize("approach", ["merged", "scripted_fork", "folded + threads", "compiled + threads"])
def test_what_needs_regions_says_how_to_make_them(approach: str) -> None:
    with pytest.raises(KitError, match=r"Sequential has no region.*kit\.Branches\("):
        parse(approach).prepare(lively(nn.Sequential(unit(2, 3, 4))), torch.randn(1, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:The input to trace is already a Script")
def test_forked_runners_live_by_themselves_and_leave_torchscript_to_others() -> None:
    unit_of_all, x = torch.jit._state._python_cu, torch.randn(1, 8, 4, 4)
    scripted = Branches({"a": torch.jit.script(unit(2, 8, 3)), "b": unit(2, 8, 3)}, Concat(1))
    models = [lively(two_heads()), scripted.eval()]
    runners = [parse("scripted_fork").prepare(model, x) for model in models]
    assert torch.jit._state._python_cu is unit_of_all
    assert torch.jit.script(two_heads().branches["a"])(x).shape == x.shape
    with torch.inference_mode():
        runners[0].close()
        assert compare_outputs(models[1](x), runners.pop()()).equal
        gc.collect()
        assert compare_outputs(models[0](x), runners[0]()).equal


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for this process's threads")
def test_forks_start_no_helpers_of_their_own() -> None:
    """More OpenMP threads than cores would slow down whatever else is compared in the same process."""
    code = """
import os, time, torch
from kit import approaches, regions
conv = lambda: torch.nn.Conv2d(8, 64, 3)
model = regions.Branches({"a": conv(), "b": conv(), "c": conv()}, regions.Concat(1)).eval()
x = torch.randn(1, 8, 256, 256)
torch.set_num_threads(6)
with torch.inference_mode():
    model(x)
    before = len(os.listdir("/proc/self/task"))
    assert before >= 6, "helpers of the calling thread"
    with approaches.parse("scripted_fork").prepare(model, x) as runner:
        for _ in range(3):
            runner()
    assert len(os.listdir("/proc/self/task")) <= before + torch.get_num_interop_threads()
time.sleep(0.5)  # torch aborts a process that ends while a fork's threads still let go of their tensors
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def resources() -> tuple[int, int, int, int]:
    """Threads, open descriptors, and bytes of memory: of this process, and on a GPU."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what malloc keeps for later is not held: it comes and goes by megabytes
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    on_gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return threading.active_count(), len(os.listdir("/proc/self/fd")), resident, on_gpu  # noqa: PTH208


CYCLES = {
    "compiled": 3,
    "onnxruntime": 3,
    "openvino": 3,
}  # of what takes a second each; `make soak` goes on for a minute
USUAL = 500 if SOAK else 50
KEEPS = {"compiled": 2**20}  # bytes a cycle: torch keeps each compilation's generated module and guards


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux what this process holds")
@pytest.mark.parametrize(
    "approach",
    [marked(kind) for kind, entry in REGISTRY.items() if not (isinstance(entry, Runs) and entry.sends)]
    + [marked("folded + merged + channels_last + threads")],
)
def test_preparing_and_closing_again_and_again_leaves_nothing(approach: str, request: pytest.FixtureRequest) -> None:
    model, inputs, _ = case("two heads", 1, torch.float32, home(approach))
    times = CYCLES.get(approach, USUAL)

    def cycles(times: int, seconds: float) -> tuple[int, tuple[int, int, int, int]]:
        start, done = time.monotonic(), 0
        while done < times or time.monotonic() - start < seconds:
            with parse(approach).prepare(model, inputs) as runner, torch.inference_mode():
                torch.set_num_threads(runner.intra_op_threads)
                runner()
            gc.collect()  # else the heap of many cycles that were not collected lies between those of one
            done += 1
        return done, resources()

    gc.collect()
    gc.freeze()  # a collection then looks at this test's objects only
    request.addfinalizer(gc.unfreeze)
    _, (threads, descriptors, resident, on_gpu) = cycles(max(2, times // 10), 0)
    done, after = cycles(times, 60 if SOAK and approach in CYCLES else 0)
    assert (after[0], after[1], after[3]) == (threads, descriptors, on_gpu)
    grown = after[2] - resident
    print(f"{approach}: {grown / 2**20:.1f} MiB in {done} cycles")
    # What a library sets up comes once; 32 kB a cycle would be a tensor of each preparation.
    assert grown < 4 * 2**20 + done * KEEPS.get(approach, 2**15)
