"""What a step's time is made of: each experiment takes out what it says, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from kit.approaches import FunctionRunner
from kit.equality import compare_outputs
from kit.machine.load import Taken
from kit.macs import macs_of_call
from kit.measuring.comparison import Timing
from kit.models import inception3d_block
from kit.recorder import record_call
from kit.trace import Trace
from kit.workloads.instead import Given, Replay, WithoutZeros, on_one_dnn
from kit.workloads.step_parts import PAIRS, PARTS, StepParts, library_step, step_parts, step_times

BLOCK = (4, 4, 6, 2, 4, 4)


def names(call: Callable[..., object], *args: torch.Tensor) -> list[str]:
    trace: Trace = record_call(FunctionRunner(partial(call, *args)))
    return [event.name for event in trace.events()]


@torch.inference_mode()
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
def test_every_convolution_goes_to_one_dnn_and_gives_the_same(memory: torch.memory_format) -> None:
    x = torch.randn(1, 4, 5, 9, 9).to(memory_format=memory)
    net = nn.Sequential(nn.Conv3d(4, 6, 3, 2, 1, groups=2), nn.Conv3d(6, 4, 1, bias=False)).eval()
    given = Given(on_one_dnn, net)
    found = names(given, x)
    assert found.count("aten::mkldnn_convolution") == 2
    assert "aten::slow_conv3d" not in found
    assert compare_outputs(net(x), given(x)).equal
    assert given(x).is_contiguous(memory_format=memory)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_padded_frame_without_its_zeros(groups: int) -> None:
    frame, weight = torch.randn(2, 4, 1, 7, 7), torch.randn(6, 4 // groups, 3, 3, 3)
    options = {"stride": (1, 2, 1), "padding": (2, 1, 0), "dilation": (1, 1, 1), "groups": groups}

    def step(x: torch.Tensor) -> torch.Tensor:
        return functional.conv3d(input=x, weight=weight, bias=None, **options)

    without = Given(WithoutZeros(), step)
    assert compare_outputs(step(frame), without(frame)).equal
    assert compare_outputs(step(frame), without(frame)).equal  # from the weights that it has kept
    found = names(without, frame)
    assert "aten::mkldnn_convolution" in found
    assert "aten::conv3d" not in found


@torch.inference_mode()
def test_a_convolution_that_is_no_padded_frame_keeps_its_zeros() -> None:
    conv, clip = nn.Conv3d(4, 4, 3, padding=1).eval(), torch.randn(1, 4, 5, 7, 7)
    assert compare_outputs(conv(clip), Given(WithoutZeros(), conv)(clip)).equal


@torch.inference_mode()
def test_what_is_replayed_does_no_work() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = torch.randn(1, 4, 9, 9)
    replayed = Given(Replay("conv", "pool"), net)
    first = replayed(x)
    assert compare_outputs(net(x), first).equal
    found = names(replayed, x)
    assert "aten::relu" in found
    assert not [name for name in found if "conv" in name or "pool" in name]
    assert compare_outputs(first, replayed(x)).equal
    assert "aten::max_pool2d" in names(Given(Replay("conv"), net), x)


def test_steps_of_library_and_kit_beside_a_window() -> None:
    pytest.importorskip("continual")
    model, clip = inception3d_block(8, BLOCK), torch.randn(1, 8, 6, 7, 7)
    found = step_times(model, clip, rounds=6)
    assert [row.name for row in found.rows] == [
        *("window", "library", "kit"),
        *("window_onednn", "library_onednn", "kit_onednn"),
    ]
    assert [row.baseline for row in found.rows] == [True, *[False] * 5]
    assert [row.rewritten for row in found.rows] == [False, *[True] * 5], "no number of cores limits what kernels gain"
    assert all(row.equality and row.equality.equal for row in found.rows)
    for row in found.rows[3:]:
        assert row.kernels
        assert {kernel.name for kernel in row.kernels if kernel.family == "convolution"} == {"oneDNN"}
    assert {kernel.name for kernel in found["window"].kernels or () if kernel.family == "convolution"} == {
        "slow_conv3d"
    }
    said = [caveat for caveat in found.caveats if " ran as " in caveat]
    assert any(
        caveat.startswith("conv3d ran as slow_conv3d in library and conv2d as thnn_conv2d in kit") for caveat in said
    )
    window, step = macs_of_call(model, clip), macs_of_call(Given(None, library_step(model, clip)), clip[:, :, -1])
    assert window / 6 < step < window  # the zeros it pads with


def test_a_step_is_taken_apart() -> None:
    pytest.importorskip("continual")
    found = step_parts(inception3d_block(8, BLOCK), torch.randn(1, 8, 6, 7, 7), rounds=6)
    assert {side: list(timings) for side, timings in found.timings.items()} == {
        "library": list(PARTS.values()),
        "kit": list(PARTS.values()),
    }
    assert {kernel.operator for kernel in found.kernels["library"] if kernel.family == "convolution"} == {"conv3d"}
    assert {kernel.operator for kernel in found.kernels["kit"] if kernel.family == "convolution"} == {"conv2d"}
    assert list(found.ms("kit")) == list(PARTS)
    assert found.taken is not None
    rows = found.comparison.rows
    assert [row.name for row in rows] == list(PAIRS)
    assert all(row.equality and row.equality.equal for row in rows)
    assert {row.verdict for row in rows[1:]} == {"not decided"}  # 6 rounds are too few for four rows


def test_a_row_of_the_parts_is_over_the_row_that_it_is_paired_with() -> None:
    def timing(ms: float) -> Timing:
        return Timing(ms * 1e6 * np.linspace(0.999, 1.001, 12), 1, Trace.build([]))

    library = dict(zip(PARTS.values(), map(timing, (32, 16, 8, 4, 2, 1)), strict=True))
    kit = dict(zip(PARTS.values(), map(timing, (20, 20, 4, 3, 2, 1)), strict=True))
    found = StepParts({"library": library, "kit": kit}, {"library": {}, "kit": {}})
    ratios = {row.name: row.ratio.estimate for row in found.comparison.rows if row.ratio and not row.baseline}
    wanted = {"library_onednn": 2, "library_without_zeros": 2, "kit": 1.6, "kit_onednn": 0.8}
    assert ratios == pytest.approx(wanted)
    busy = replace(found, taken=Taken(0.5, 0.0)).comparison
    assert {row.verdict for row in busy.rows[1:]} == {"not decided"}
