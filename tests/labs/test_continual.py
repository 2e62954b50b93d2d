"""Notebook 09's drawings, measurements and exercise checks."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor, nn

from kit.equality import Equality
from kit.labs import continual as lab
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.models import inception3d_block
from kit.trace import Trace, wall_ns
from kit.trace.kernels import Kernel, Kernels, Use
from kit.verbs import record
from kit.workloads.continual import WindowVersusStep
from kit.workloads.step_parts import PARTS, StepParts

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


def test_what_others_took_is_told_where_it_was_much() -> None:
    assert lab.taken_told(None) == lab.taken_told(Taken(0.05, 0.0)) == ""
    assert lab.taken_told(Taken(0.5, 0.0)).endswith(
        "other programs took 50% of the machine's CPU time during the rounds."
    )


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


SLOW = {
    Kernel("convolution", "conv3d", "slow_conv3d"): Use(4, 0.6),
    Kernel("convolution", "conv3d", "oneDNN"): Use(2, 0.3),
}
FAST = {Kernel("convolution", "conv2d", "oneDNN"): Use(6, 0.8), Kernel("pooling", "max_pool2d", "own"): Use(1, 0.1)}


def against(window_ms: float, step_ms: float, window: Kernels, step: Kernels) -> WindowVersusStep:
    ratio = window_ms / step_ms

    def timing(ms: float) -> Timing:
        return Timing(np.full(6, ms * 1e6), 1, Trace.build([]))

    rows = (
        Row("window", timing=timing(window_ms), ratio=Ratio(1, 1, 1), baseline=True, kernels=window),
        Row(
            "step",
            timing=timing(step_ms),
            ratio=Ratio(ratio, 0.8 * ratio, 1.1 * ratio),
            equality=Equality(True, 0.0),
            kernels=step,
        ),
    )
    return WindowVersusStep(Comparison(rows, 6, "a clip"), 160, 10)


def test_both_ratios_are_drawn_and_told() -> None:
    found = against(20.0, 2.0, FAST, FAST)
    counted, measured = lab.ratios_chart({"16 frames": found}).data
    assert (counted.y, measured.y) == ((16.0,), (10.0,))
    assert measured.error_y.array == pytest.approx((1.0,))
    assert measured.error_y.arrayminus == pytest.approx((2.0,))
    told = lab.against_table({"16 frames": found}).splitlines()[-1]
    assert told == (
        "| 16 frames | 20 ms | 2 ms | 16.0x | 10.0x [8.00, 11.0] | 62% | oneDNN 6 / oneDNN 6 | yes, identical |"
    )


def test_nothing_is_concluded_across_kernels() -> None:
    found = {
        "8 frames": against(61.0, 2.0, SLOW, FAST),
        "64 frames": against(20.0, 2.0, FAST, FAST),
        "32 frames": against(24.0, 2.0, FAST, FAST),
    }
    assert "| other kernels | slow_conv3d 4, oneDNN 2 / oneDNN 6 |" in lab.against_table(found)
    told = lab.realised_told(found)
    assert "from **62%** (64 frames) to **75%** (32 frames)" in told
    assert "Nothing is concluded from 8 frames" in told
    assert lab.realised_told({"8 frames": found["8 frames"]}).startswith("Nothing is concluded from 8 frames")


def taken(**ms: float) -> dict[str, Timing]:
    """Twelve rounds, of which none is like another, that take about so long with one thing after another taken out."""
    scatter = np.linspace(0.999, 1.001, 12)
    return {
        left: Timing(1e6 * each * scatter, 1, Trace.build([]))
        for left, each in zip(PARTS.values(), ms.values(), strict=True)
    }


def parts(kit_ms: float, zeros: float = 0.0) -> StepParts:
    """The library's step takes 32 ms on its kernels and 17 ms on oneDNN; the kit's as long on any."""
    library = taken(a=32, b=17, c=17 - zeros, d=10, e=3, f=2)
    kit = taken(a=kit_ms, b=kit_ms, c=kit_ms, d=5, e=1.5, f=1)
    return StepParts({"library": library, "kit": kit}, {"library": SLOW, "kit": FAST})


def test_the_parts_of_a_step_add_up() -> None:
    found = parts(12.5)
    library, kit = found.ms("library"), found.ms("kit")
    assert list(library) == list(PARTS)
    assert list(library.values()) == pytest.approx([15, 0, 7, 7, 1, 2], rel=0.01)
    assert list(kit.values()) == pytest.approx([0, 0, 7.5, 3.5, 0.5, 1], rel=0.01)
    told = lab.parts_table(found).splitlines()
    assert told[2] == "| choice of kernel | 15.00 | 0.00 | +15.00 |"
    assert told[-1] == "| **whole step** | **32.00** | **12.50** | **+19.50** |"


def test_a_step_s_speed_is_claimed_between_equal_kernels_only() -> None:
    told = lab.parts_told(parts(12.5))
    assert "the library's convolutions ran on slow_conv3d 4, oneDNN 2, the kit's on oneDNN 6" in told
    assert "of a difference of 19.50 ms, **15.00 ms are PyTorch's choice of kernel**" in told
    assert "the zeros cost nothing that could be measured" in told
    assert "Between equal kernels the kit's step is 1.36x" in told
    assert "**faster**, most by pooling (+3.50 ms)" in told
    assert "no speed may be claimed" not in told
    told = lab.parts_told(parts(17.0))
    assert "Between equal kernels **no difference was found**" in told
    assert "no speed may be claimed for it here. What it gives in any case: explicit states" in told
    told = lab.parts_told(parts(20.0, zeros=5.0))
    assert "**slower**" in told
    assert "no speed may be claimed" in told
    assert "the step without the zeros is 1.42x" in told


def test_where_a_step_takes_more_than_its_part() -> None:
    told = lab.gap_told(dict.fromkeys(lab.KINDS, 16.0), dict(zip(lab.KINDS, (3.0, 0.5, 1, 1, 1), strict=True)), 16.0)
    assert "A 16th of the window would be 5.00 ms, and the step took 6.50 ms" in told
    assert "Most is added by **convolutions**: +2.00 ms. **Pooling** took less than their part: -0.50 ms." in told


def test_what_conditions_bring_by_themselves() -> None:
    told = lab.apart_told({"as it is": against(40, 4, FAST, FAST), "all three": against(20, 2, FAST, FAST)})
    assert told.splitlines()[0] == "- all three: the window 2.00 times as fast as it was, the step 2.00 times"
    assert "would read 20.0 times; under the same conditions it is 10.0 times" in told


def test_macs_are_told() -> None:
    large, linear = nn.Linear(1000, 3000, bias=False), nn.Linear(1000, 1000, bias=False)
    sides = {"window": (large.eval(), [torch.ones(16, 1000)]), "library": (large, [torch.ones(1, 1000)])}
    told = lab.macs_told(sides | {"kit": (linear.eval(), [torch.ones(1, 1000)])})
    assert "48 million MACs, the library's step **3 million**, the kit's 1 million" in told
    assert told.endswith("the library does 3.0 times as much.")


def test_each_row_s_kernels_are_named() -> None:
    rows = (Row("window", kernels=SLOW), Row("kit", kernels=FAST), Row("cold"))
    assert lab.kernels_table(Comparison(rows, 6, "")).splitlines()[2:] == [
        "| window | slow_conv3d 4, oneDNN 2 |",
        "| kit | oneDNN 6 |",
        "| cold | none recorded |",
    ]


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
