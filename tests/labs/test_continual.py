"""Notebook 09's drawings, measurements and exercise checks."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor, nn

from kit.comparison import Ratio
from kit.equality import Equality
from kit.labs import continual as lab
from kit.models import inception3d_block
from kit.trace import wall_ns
from kit.verbs import record
from kit.workloads.continual import Against

co = pytest.importorskip("continual")


def clip(channels: int = 4, frames: int = 9) -> Tensor:
    return torch.randn(1, channels, frames, 7, 7, generator=torch.Generator().manual_seed(0))


def conv(kernel: int = 3, padding: int = 1) -> co.Conv3d:
    return co.Conv3d(4, 4, kernel, padding=(padding, 1, 1)).eval()


@pytest.mark.parametrize(
    "module",
    [
        co.Sequential(conv(), nn.ReLU(), conv(padding=0)),
        co.BroadcastReduce(conv(), co.Delay(1), reduce="concat"),
        co.Residual(conv(padding=0), residual_shrink=True),
    ],
    ids=["chain", "branches", "residual"],
)
def test_containers_step_as_they_run_on_clips_and_are_drawn(module: co.CoModule) -> None:
    line = lab.frame_by_frame(module, lab.by_library(module), clip())
    pattern, _, verdict = line.partition(" ")
    assert verdict.startswith("yes")
    assert pattern == "·" * module.delay + "█" * (9 - module.delay)
    drawing = lab.Diagram(module)._repr_html_()
    assert all(type(part).__name__ in drawing for part in module.modules())


def test_a_step_that_is_wrong_is_found_out() -> None:
    conv = nn.Conv3d(4, 4, 3, padding=(0, 1, 1)).eval()
    right = lab.by_kit(conv)
    assert "yes" in lab.frame_by_frame(conv, lab.by_kit(conv), clip())

    def wrong(frame: Tensor) -> Tensor | None:
        out = right(frame)
        return None if out is None else out * 1.01

    assert "NO" in lab.frame_by_frame(conv, wrong, clip())


def test_influence_is_what_the_kernel_sees() -> None:
    strided = nn.Conv3d(4, 4, 3, stride=(2, 1, 1), padding=1).eval()
    found = lab.influence(lambda: lab.by_kit(strided), clip(frames=5))
    expected = [[-1] * 5, [1, 1, 0, 0, 0], [-1] * 5, [0, 1, 1, 1, 0], [-1] * 5]
    assert np.array_equal(found, expected)
    figure = lab.influence_figure(found)
    assert isinstance(figure, go.Figure)
    assert list(zip(figure.data[0].y, figure.data[0].x, strict=True)) == [(1, 0), (1, 1), (3, 1), (3, 2), (3, 3)]
    assert list(figure.data[1].y) == [0, 2, 4]


def test_the_explorer_follows_its_controls() -> None:
    explorer = lab.Explorer()
    assert "Receptive field <b>3</b>, delay <b>2</b>" in explorer.answer.value
    kernel, stride, padding, dilation = explorer.controls
    kernel.value, dilation.value, stride.value, padding.value = 5, 2, 2, 4
    assert "Receptive field <b>9</b>, delay <b>4</b>" in explorer.answer.value
    assert "····█·█·█" in explorer.answer.value
    kernel.value, dilation.value = 3, 1
    assert "pads 4 frames before the first" in explorer.answer.value


def test_every_millisecond_of_a_call_is_of_some_kind() -> None:
    trace = record(inception3d_block(4, (4, 4, 6, 2, 4, 4)), clip(), "sequential(threads=1)")
    found = lab.ms_by_kind(trace)
    assert sum(found.values()) == pytest.approx(wall_ns(trace) / 1e6)
    assert min(found["convolutions"], found["pooling"], found["outside operators (Python)"]) > 0
    head, _rule, *rows, whole = lab.kinds_table({"step": found, "twice": {k: 2 * v for k, v in found.items()}}).split(
        "\n"
    )
    assert head == "| ms | step | twice |"
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(lab.KINDS)
    assert whole.endswith(f"| **{2 * sum(found.values()):.2f}** |")


def test_both_ratios_are_drawn_and_told() -> None:
    against = Against(20.0, 2.0, Ratio(10.0, 8.0, 11.0), 160, 10, Equality(True, 0.0))
    counted, measured = lab.ratios_chart({"16 frames": against}).data
    assert (counted.y, measured.y) == ((16.0,), (10.0,))
    assert (measured.error_y.array, measured.error_y.arrayminus) == ((1.0,), (2.0,))
    told = lab.against_table({"16 frames": against}).splitlines()[-1]
    assert told == "| 16 frames | 20 ms | 2 ms | 16.0x | 10.00x [8.00, 11.00] | 62% | yes, identical |"


def test_check_reach() -> None:
    def field(layers):  # type: ignore[no-untyped-def]
        return 1 + sum(kernel - 1 for kernel, _ in layers)

    def stub(layers): ...  # type: ignore[no-untyped-def]

    assert lab.check_reach(stub).state == "not attempted yet"
    assert "tuple" in lab.check_reach(field).message
    assert "overlap" in lab.check_reach(lambda x: (sum(k for k, _ in x), sum(k - 1 for k, _ in x))).message
    assert "padding" in lab.check_reach(lambda x: (field(x), field(x) - 1)).message
    assert lab.check_reach(lambda x: (field(x), field(x) - 1 - sum(p for _, p in x))).state == "passed"


def test_check_partial_sums() -> None:
    def partial(conv: nn.Conv3d, frame: Tensor) -> Tensor:
        weight = conv.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        return nn.functional.conv2d(frame, weight, padding=conv.padding[1:]).unflatten(1, (conv.kernel_size[0], -1))

    def stub(conv, frame): ...  # type: ignore[no-untyped-def]

    assert lab.check_partial_sums(stub).state == "not attempted yet"
    assert lab.check_partial_sums(partial).state == "passed"
    assert "order" in lab.check_partial_sums(lambda conv, x: partial(conv, x).flip(1)).message
    assert "should be" in lab.check_partial_sums(lambda conv, x: partial(conv, x).flatten(1, 2)).message
    assert "differ" in lab.check_partial_sums(lambda conv, x: partial(conv, x) * 2).message
