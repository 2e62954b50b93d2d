"""Notebook 09's drawings, quizzes, sentences, card and exercise checks; of calm, busy and missing measurements."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor, nn

from kit.equality import Equality
from kit.labs import continual as lab
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.measuring.statistics import with_verdicts
from kit.models import inception3d_block
from kit.models.continual import stepper
from kit.trace import Event, Lane, Trace, wall_ns
from kit.trace.kernels import Kernel, Kernels, Use
from kit.verbs import record
from kit.workloads.continual import WindowVersusStep
from kit.workloads.step_parts import PARTS, StepParts
from tests.labs.made_up import busy, made_up

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
    pattern, _, verdict = str(lab.frame_by_frame(module, lab.by_library(module), clip())).partition(" ")
    assert verdict.startswith("yes")
    assert pattern == "·" * module.delay + "█" * (9 - module.delay)
    drawing = lab.Diagram(module)._repr_html_()
    assert all(type(part).__name__ in drawing for part in module.modules())


def test_a_step_that_is_wrong_is_found_out() -> None:
    conv = nn.Conv3d(4, 4, 3, padding=(0, 1, 1)).eval()
    right = lab.by_kit(conv)
    assert "yes" in str(lab.frame_by_frame(conv, lab.by_kit(conv), clip()))

    def wrong(frame: Tensor) -> Tensor | None:
        out = right(frame)
        return None if out is None else out * 1.01

    found = lab.frame_by_frame(conv, wrong, clip())
    assert "NO" in str(found)
    assert f"Frame by frame, against the whole clip: <code>{found}</code>" in found._repr_html_()
    assert found.equality
    assert not found.equality.equal


def test_a_clip_that_is_too_short_for_any_output_proves_nothing() -> None:
    module = co.Conv3d(4, 4, 3)
    alone = lab.FrameByFrame((False, False), None)
    assert str(alone) == "·· no output within this clip"
    assert not lab.Stepped({"x": module}, {"x": alone}).equality["x"].equal


def test_stepped_modules_are_shown_with_their_outputs() -> None:
    page = lab.stepped({"a chain": co.Sequential(conv(), conv(padding=0))}, clip())._repr_html_()
    assert "<b>a chain</b>: receptive field 5, delay 3. <code>···██████ yes" in page


def test_influence_is_what_the_kernel_sees() -> None:
    strided = nn.Conv3d(4, 4, 3, stride=(2, 1, 1), padding=1).eval()
    found = lab.influence(lambda: lab.by_kit(strided), clip(frames=5))
    expected = [[-1] * 5, [1, 1, 0, 0, 0], [-1] * 5, [0, 1, 1, 1, 0], [-1] * 5]
    assert np.array_equal(found, expected)
    figure = lab.influence_figure(found)
    assert isinstance(figure, go.Figure)
    assert list(zip(figure.data[0].y, figure.data[0].x, strict=True)) == [(1, 0), (1, 1), (3, 1), (3, 2), (3, 3)]
    assert list(figure.data[1].y) == [0, 2, 4]
    assert (
        lab.influence_table(found).splitlines()[-1] == "| frames | no output | 0, 1 | no output | 1, 2, 3 | no output |"
    )
    assert lab.reach_answer(found) == "the second"


def test_the_explorer_follows_its_controls() -> None:
    explorer = lab.Explorer()
    assert "Receptive field <b>3</b>, delay <b>2</b>" in explorer.answer.value
    kernel, stride, padding, dilation = explorer.controls
    kernel.value, dilation.value, stride.value, padding.value = 5, 2, 2, 4
    assert "Receptive field <b>9</b>, delay <b>4</b>" in explorer.answer.value
    assert "····█·█·█" in explorer.answer.value
    kernel.value, dilation.value, stride.value, padding.value = 3, 1, 1, 0
    unpadded = re.findall("MACs of a step with an output: <b>([0-9,]+)", explorer.answer.value)
    padding.value = 1
    assert re.findall("MACs of a step with an output: <b>([0-9,]+)", explorer.answer.value) == unpadded
    padding.value = 4
    assert "pads 4 frames before the first" in explorer.answer.value


def test_every_millisecond_of_a_call_is_of_some_kind() -> None:
    trace = record(inception3d_block(4, (4, 4, 6, 2, 4, 4)), clip(), "sequential(threads=1)")
    found = lab.ms_by_kind(trace)
    assert sum(found.values()) == pytest.approx(wall_ns(trace) / 1e6)
    assert min(found["convolutions"], found["pooling"], found["outside operators (Python)"]) > 0


SLOW = {
    Kernel("convolution", "conv3d", "slow_conv3d"): Use(4, 0.6),
    Kernel("convolution", "conv3d", "oneDNN"): Use(2, 0.3),
}
FAST = {Kernel("convolution", "conv2d", "oneDNN"): Use(6, 0.8), Kernel("pooling", "max_pool2d", "own"): Use(1, 0.1)}
NOBODY, HALF = Taken(0.0, 0.0), Taken(0.5, 0.0)
TAKEN = "machine busy: other programs took 50% of the machine's CPU time during the rounds"


def timing(ms: float, scatter: float = 0.001, rounds: int = 12) -> Timing:
    """Rounds of which none is like another."""
    return Timing(1e6 * ms * np.geomspace(1 / (1 + scatter), 1 + scatter, rounds), 1, Trace.build([]))


def judged(
    rows: dict[str, Timing], kernels: dict[str, Kernels], taken: Taken | None = NOBODY, wrong: str = ""
) -> Comparison:
    """As measured rows are judged, over the first of them."""
    lead = next(iter(rows.values()))
    found = [
        Row(
            name,
            timing=each,
            equality=Equality(name != wrong, 0.0),
            paired_baseline=lead,
            kernels=kernels.get(name, {}),
            baseline=each is lead,
            ratio=Ratio(1, 1, 1) if each is lead else None,
        )
        for name, each in rows.items()
    ]
    rounds = len(lead.samples_ns)
    return gated(Comparison(tuple(with_verdicts(found)), rounds, "a clip", taken=taken, cores=2))


def against(
    window_ms: float = 20.0, step_ms: float = 2.0, window: Kernels = FAST, step: Kernels = FAST, **how: Any
) -> WindowVersusStep:
    """16 times the MACs; the rounds of the window scatter, so that the ratio has an interval."""
    rows = {"window": timing(window_ms, how.pop("scatter", 0.1)), "step": timing(step_ms)}
    return WindowVersusStep(judged(rows, {"window": window, "step": step}, **how), 160, 10)


BUSY, SCATTERED, WRONG = against(taken=HALF), against(scatter=3.0), against(wrong="step")
EXCHANGED = against(61.0, 2.0, SLOW, FAST)


def test_both_ratios_are_drawn_and_told() -> None:
    found = against()
    counted, measured = lab.ratios_chart({"16 frames": found}).data
    assert (counted.y, measured.y) == ((16.0,), (found.measured.estimate,))
    assert measured.error_y.array == pytest.approx((found.measured.high - found.measured.estimate,))
    assert measured.error_y.arrayminus == pytest.approx((found.measured.estimate - found.measured.low,))
    told = lab.against_table({"16 frames": found}).splitlines()[-1]
    assert told.startswith("| 16 frames | 20 ms | 2 ms | 16.0x | 10.0x [")
    assert re.search(r"\| 6[23]% \[5\d%, 6\d%\] \| oneDNN \(6 calls\) / oneDNN \(6 calls\) \| yes, identical \|$", told)


@pytest.mark.parametrize("found", [BUSY, SCATTERED, WRONG, EXCHANGED], ids=["busy", "scatter", "wrong", "kernels"])
def test_no_part_of_a_ratio_is_told_of_a_row_that_decides_nothing(found: WindowVersusStep) -> None:
    assert "| not decided |" in lab.against_table({"16 frames": found})
    assert "reaches" not in lab.share_told(found)
    told = lab.realised_told({"16 frames": found})
    assert told.startswith("Nothing is concluded from these rows:")
    assert "%**" not in told
    grey = lab.ratios_chart({"16 frames": found, "64 frames": against()}).data
    assert [each.name for each in grey] == ["MACs, counted", "time, measured [95%]", "time, decides nothing"]
    assert [list(each.x) for each in grey[1:]] == [["64 frames"], ["16 frames"]]
    assert lab.share_answer(found) not in lab.QUIZZES["share"][1]


def test_the_parts_reached_are_told_with_their_intervals() -> None:
    found = {"8 frames": EXCHANGED, "64 frames": against(20.0), "32 frames": against(24.0)}
    told = lab.realised_told(found)
    assert lab.against_told(found) == f"{lab.against_table(found)}\n\n{told}"
    assert re.search(r"\*\*6[23]% \[\d+%, \d+%\]\*\* \(64 frames\), \*\*75% \[\d+%, \d+%\]\*\* \(32 frames\)", told)
    assert "\n- 8 frames: window and step ran on different kernels" in told
    assert "16.0 times the MACs of the step. The speed-up reaches **6" in lab.share_told(against())


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (against(), "half to 85%"),
        (against(10.0), "less than half"),
        (against(31.0), "more than 85%"),
        (against(2.0), "less than half"),  # no faster at all
        (against(1.0), "less than half"),
        (BUSY, f"not decided: {TAKEN}"),
        (EXCHANGED, "not decided: window and step ran on different kernels"),
        (WRONG, "wrong output"),
    ],
)
def test_which_part_the_clock_sees(found: WindowVersusStep, says: str) -> None:
    assert lab.share_answer(found) == says


def test_an_interval_over_two_options_is_no_answer() -> None:
    assert re.fullmatch(
        r"not decided: 50% \[\d+%, \d+%\] leaves more than one answer open", lab.share_answer(against(16.0))
    )


def stepped(library: float, taken: Taken | None = NOBODY, scatter: float = 0.01, rounds: int = 12) -> Comparison:
    """A window of 100 ms, and the library's step."""
    return judged({"window": timing(100, scatter, rounds), "library": timing(library, 0.001, rounds)}, {}, taken)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (stepped(7), "more than 12 times as fast"),
        (stepped(12), "6 to 12 times as fast"),
        (stepped(30), "less than 6 times as fast"),
        (stepped(120), "less than 6 times as fast"),
        (stepped(7, HALF), f"not decided: {TAKEN}"),
        (stepped(7, rounds=5), "not decided: it needs 6 rounds or more"),
        (judged({"window": timing(100)}, {}), "not measured: library is not in the table"),
        (judged({"window": timing(9), "library": timing(1)}, {}, wrong="library"), "wrong output"),
    ],
)
def test_how_much_faster_the_library_s_step_is(steps: Comparison, says: str) -> None:
    assert lab.cost_answer(steps) == says


def test_a_wide_interval_gives_no_cost() -> None:
    assert "leaves more than one answer open" in lab.cost_answer(stepped(100 / 12, scatter=0.2))


@pytest.mark.parametrize(
    ("comparison", "answer", "sentence"),
    [
        (made_up({"sequential": 10, "threads": 6}), "faster", r"A: threads is \*\*1\.6\dx \[.+\] as fast\*\* as B\."),
        (made_up({"sequential": 6, "threads": 12}), "slower", r"A: threads is \*\*2\.0\dx \[.+\] slower\*\* than B\."),
        (
            made_up({"sequential": 6, "threads": 6}),
            "no difference found",
            r"A: threads against B: \*\*no difference found: .+ or more would have been detected\*\* \(speed-up .+\)\.",
        ),
        (
            busy({"sequential": 10, "threads": 1}),
            f"not decided: {TAKEN}",
            r"A: threads against B: \*\*not decided: machine busy: .+\. A speed-up of .+ was seen; .+ nothing\.",
        ),
        (
            made_up({"sequential": 10, "threads": "one core is usable"}, cores=1),
            "not measured: one core is usable",
            r"A: threads against B: not measured: one core is usable\.",
        ),
        (
            made_up({"sequential": 10}),
            "not measured: threads is not in the table",
            r"A: threads against B: not measured: threads is not in the table\.",
        ),
        (
            made_up({"sequential": 10, "threads": 6}, wrong=("threads",)),
            "wrong output",
            r"A: threads against B: \*\*wrong output\*\*\.",
        ),
    ],
)
def test_a_row_against_another_in_one_sentence(comparison: Comparison, answer: str, sentence: str) -> None:
    assert lab.side_answer(comparison) == answer
    assert re.fullmatch(sentence, lab.speed_told(comparison, "threads", "a: threads", "B"))


def test_a_step_and_a_window_side_by_side() -> None:
    calm, disturbed = made_up({"sequential": 10, "threads": 6}), busy({"sequential": 10, "threads": 1})
    step, window = lab.side_told(disturbed, calm).splitlines()
    assert step.startswith("- A step: threads against sequential: **not decided: machine busy")
    assert window.startswith("- A whole window: threads is **1.6")


def test_unequal_conditions_are_told_apart() -> None:
    rows = {"window": timing(40), "step": timing(8), "window_prepared": timing(10), "step_prepared": timing(2)}
    told = lab.prepared_told(judged(rows, {})).splitlines()
    assert told[0].startswith("- The prepared step is **20.0x [")
    assert told[1].startswith("- The prepared step is **5.00x [")
    assert told[2].startswith("- The unprepared step is **5.00x [")
    disturbed = lab.prepared_told(judged(rows, {}, HALF))
    assert "as fast" not in disturbed
    assert disturbed.count("it decides nothing") == 3


def left(**ms: float) -> dict[str, Timing]:
    """What a step takes with one thing after another taken out."""
    return {name: timing(each) for name, each in zip(PARTS.values(), ms.values(), strict=True)}


def parts(kit_ms: float, zeros: float = 0.0, taken: Taken | None = NOBODY, slow: float = 15.0) -> StepParts:
    """The library's step takes 32 ms on its kernels and 17 ms on oneDNN; the kit's as long on any."""
    library = left(a=17 + slow, b=17, c=17 - zeros, d=10, e=3, f=2)
    kit = left(a=kit_ms, b=kit_ms, c=kit_ms, d=5, e=1.5, f=1)
    return StepParts({"library": library, "kit": kit}, {"library": SLOW, "kit": FAST}, taken)


def test_the_parts_of_a_step_add_up() -> None:
    found = parts(12.5)
    library, kit, gaps = found.ms("library"), found.ms("kit"), found.gaps()
    assert list(library) == list(kit) == list(gaps) == list(PARTS)
    assert [each.estimate for each in library.values()] == pytest.approx([15, 0, 7, 7, 1, 2], rel=0.01)
    assert [each.estimate for each in kit.values()] == pytest.approx([0, 0, 7.5, 3.5, 0.5, 1], rel=0.01)
    assert gaps["pooling"].low < 3.5 < gaps["pooling"].high
    told = lab.parts_table(found).splitlines()
    assert re.match(
        r"\| choice of kernel \| 15\.00 \[14\.\d\d, 15\.\d\d\] \| 0\.00 \[0\.00, 0\.00\] \| 15\.00 \[", told[2]
    )
    assert re.match(
        r"\| \*\*whole step\*\* \| \*\*32\.00 \[.+\]\*\* \| \*\*12\.50 \[.+\]\*\* \| \*\*19\.50 \[", told[-1]
    )


def test_a_step_s_speed_is_claimed_between_equal_kernels_only() -> None:
    ran, choice, zeros, equal, most = lab.parts_told(parts(12.5)).splitlines()
    assert "the library's convolutions ran on slow_conv3d (4 calls), oneDNN (2 calls)," in ran
    assert "and the kit's on oneDNN (6 calls)." in ran
    assert choice.startswith("- The library's step on oneDNN is **1.88x [")
    assert "no difference found" in zeros
    assert equal.startswith("- Both on oneDNN, the kit's step is **1.36x [")
    assert most.startswith("- The largest part of that difference is: pooling, 3.50 [")


@pytest.mark.parametrize(
    ("found", "says"),
    [(parts(17.0), "no difference found"), (parts(20.0), "slower"), (parts(12.5, taken=HALF), "not decided")],
)
def test_where_the_kit_s_step_is_not_known_to_be_faster_nothing_is_claimed(found: StepParts, says: str) -> None:
    *_, equal, last = lab.parts_told(found).splitlines()
    assert says in equal
    assert last.startswith("- So no speed-up is claimed for the kit's step.")


def test_zeros_that_cost_time_are_told() -> None:
    assert "the library's step without the zeros is **1.42x [" in lab.parts_told(parts(20.0, zeros=5.0))


def test_parts_of_a_disturbed_measurement_decide_nothing() -> None:
    told = lab.parts_told(parts(12.5, taken=HALF))
    assert told.count("it decides nothing") == 3
    assert "as fast" not in told
    assert "slower" not in told


def calls(window_ms: dict[str, float], step_ms: dict[str, float], taken: Taken | None = NOBODY) -> lab.Recorded:
    """Six calls of each, of which none is like another; a kind is an operator of its own."""
    names = dict(zip(lab.KINDS, ("aten::conv3d", "aten::max_pool3d", "aten::cat", "aten::relu", "call"), strict=True))

    def trace(ms: dict[str, float], scale: float) -> Trace:
        at, events = 0, []
        for kind, each in ms.items():
            events.append(Event(names[kind], "operator", at, round(each * scale * 1e6), Lane(1, 1, "lane")))
            at += round(each * scale * 1e6)
        return Trace.build(events)

    scales = np.linspace(0.99, 1.01, 7)
    sides = {"window": window_ms, "step": step_ms}
    return lab.Recorded({name: [trace(ms, scale) for scale in scales] for name, ms in sides.items()}, taken)


WINDOW_MS = dict.fromkeys(lab.KINDS, 16.0)
STEP_MS = dict(zip(lab.KINDS, (3.0, 0.5, 1, 1, 2), strict=True))


def test_where_a_step_takes_more_than_its_macs() -> None:
    found = calls(WINDOW_MS, STEP_MS)
    assert wall_ns(found.typical("window")) == pytest.approx(80e6, rel=1e-3)
    told = lab.gap_told(found, 16.0)
    assert "a step would take 1/16 of each line of the window" in told
    assert "| pooling | 16.00 [15.84, 16.16] | 1.00 [0.99, 1.01] | 0.50 [" in told
    assert "clearly more time than that in: convolutions, outside operators (Python); most in **convolutions**" in told
    equal = lab.gap_told(calls(WINDOW_MS, dict.fromkeys(lab.KINDS, 1.0)), 16.0)
    assert "In no line does the step clearly take more" in equal


def test_recorded_calls_of_a_disturbed_machine_decide_nothing() -> None:
    told = lab.gap_told(calls(WINDOW_MS, STEP_MS, HALF), 16.0)
    assert f"**Nothing is decided by this table: {TAKEN}.**" in told
    assert "clearly" not in told


def test_calls_are_recorded_in_turns() -> None:
    conv = nn.Conv3d(4, 4, 3).eval()
    found = lab.recorded({"one": (conv, [clip()]), "other": (nn.ReLU().eval(), [clip()])})
    assert {name: len(traces) for name, traces in found.traces.items()} == {"one": 7, "other": 7}
    assert found.ms("one")["convolutions"].low > 0
    assert found.ms("other")["convolutions"].high == 0


# The card -------------------------------------------------------------------------------------------------------------

YES, NO = Equality(True, 0.0), Equality(False, 0.5)
SEEN = lab.states(disturbed=True, restored=True, container=None)


def said(**changes: Any) -> list[tuple[str, str]]:
    """What the card says of each claim, and by what."""
    given: dict[str, Any] = {
        "as_torch": {"Conv3d": YES},
        "by_steps": {"Conv3d": YES, "Residual": YES},
        "seen": SEEN,
        "parts": parts(12.5),
        "against": {"module": (16, against()), "network": (16, against())},
    }
    lines = lab.conclusion(**(given | changes)).splitlines()[2:]
    return [(line.split(" | ")[1].strip("*"), line.split(" | ")[2].removesuffix(" |")) for line in lines]


def test_the_card_of_a_calm_machine() -> None:
    found = said()
    assert [truth for truth, _ in found] == [*["true"] * 6, "false", "true", "false"]
    assert found[0][1] == "1 of 1 modules"
    assert found[2][1] == "counted, module: 16.0x with 16 frames; network: 16.0x with 16 frames"
    assert re.match(r"10\.0x \[.+\] of 16\.0x is 6[23]% \[.+\]; window on oneDNN \(6 calls\) and step on", found[3][1])
    assert re.match(r"1\.88x \[.+\], faster; PyTorch chose slow_conv3d \(4 calls\), oneDNN \(2 calls\)", found[5][1])


def test_the_card_of_a_busy_machine_contradicts_nothing() -> None:
    calm, disturbed = said(), said(parts=parts(12.5, taken=HALF), against={"m": (16, BUSY), "n": (16, BUSY)})
    assert [truth for truth, _ in disturbed] == ["true", "true", "true", *["not decided"] * 4, "true", "false"]
    assert all(b in (a, "not decided") for (a, _), (b, _) in zip(calm, disturbed, strict=True))
    assert all(by.startswith(TAKEN) for _, by in disturbed[3:7])


def test_the_card_names_what_is_wrong() -> None:
    found = said(by_steps={"Conv3d": YES, "Residual": NO}, seen=lab.states(disturbed=True, restored=False, container=1))
    assert found[1] == ("false", "1 of 2 modules; not Residual")
    assert [truth for truth, _ in found[-2:]] == ["false", "true"]
    assert said(as_torch={})[0][0] == "not decided"


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        (against(), "true"),
        (against(60.0), "false"),  # 30 of 16
        (against(32.0), "not decided"),  # all of it, more or less
        (SCATTERED, "not decided"),
        (WRONG, "not decided"),
        (EXCHANGED, "not decided"),
    ],
)
def test_whether_the_speed_up_reaches_the_macs(found: WindowVersusStep, truth: str) -> None:
    assert said(against={"m": (16, found)})[3][0] == truth


def test_a_network_with_fewer_macs_saved_makes_the_claim_false() -> None:
    assert said(against={"m": (16, against()), "n": (24, against())})[2][0] == "false"


@pytest.mark.parametrize(
    ("found", "choice", "zeros"),
    [
        (parts(12.5, zeros=5.0), "true", "true"),
        (parts(12.5, zeros=-5.0), "true", "false"),
        (parts(12.5, slow=-9.0), "false", "false"),
    ],
)
def test_what_makes_the_library_s_step_slower(found: StepParts, choice: str, zeros: str) -> None:
    assert [truth for truth, _ in said(parts=found)[5:7]] == [choice, zeros]


def test_macs_are_told() -> None:
    large, linear = nn.Linear(1000, 3000, bias=False), nn.Linear(1000, 1000, bias=False)
    sides = {"window": (large.eval(), [torch.ones(16, 1000)]), "library": (large, [torch.ones(1, 1000)])}
    told = lab.macs_told(sides | {"kit": (linear.eval(), [torch.ones(1, 1000)])})
    assert "48 million MACs, the library's step **3 million** and the kit's step 1 million" in told
    assert told.endswith("3.0 times as often as the kit's.")


def test_outputs_of_a_window_that_depend_on_padding() -> None:
    told = lab.padding_told(lab.two_blocks(), torch.randn(1, 16, 24, 8, 8), window=8)
    assert "against the whole clip: yes" in told
    errors = [int(error) for error in re.findall(r"(\d+)%", told)]
    assert [error > 5 for error in errors] == [True, True, *[False] * 4, True, True]
    assert "The first and the last 2 outputs" in told


def test_an_encoder_goes_step_by_step_with_pytorch_s_weights() -> None:
    layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False).eval()
    delay, same = lab.encoder_by_steps(encoder, torch.randn(1, 8, 7), window=4)
    assert delay == 3
    assert same.equal
    told = lab.encoder_told(encoder, torch.randn(1, 8, 7), window=4)
    assert told.startswith("The first 3 steps give no output. The others, against PyTorch on windows of 4 frames: yes")


def test_agreement_counts_the_modules_whose_steps_agree() -> None:
    yes, no = Equality(True, 0.0), Equality(False, 0.5)
    assert lab.agreement_told({"a": yes, "b": no}) == "1 of 2 give by steps what they give on the clip"
    assert lab.turns_told(yes).endswith("against PyTorch: yes, identical.")
    assert "against PyTorch: NO" in lab.turns_told(no)


def test_each_row_s_kernels_are_named() -> None:
    rows = (Row("window", kernels=SLOW), Row("kit", kernels=FAST), Row("cold"))
    assert lab.kernels_table(Comparison(rows, 6, "")).splitlines()[2:] == [
        "| window | slow_conv3d (4 calls), oneDNN (2 calls) |",
        "| kit | oneDNN (6 calls) |",
        "| cold | none recorded |",
    ]


def test_check_reach() -> None:
    def field(layers):  # type: ignore[no-untyped-def]
        return 1 + sum(kernel - 1 for kernel, _ in layers)

    def padding(layers):  # type: ignore[no-untyped-def]
        return sum(p for _, p in layers)

    def stub(layers): ...  # type: ignore[no-untyped-def]

    def forgotten(layers):  # type: ignore[no-untyped-def]
        field(layers)

    def hint(answer: Callable[..., object]) -> str:
        found = lab.check_reach(answer)
        assert found.state == "hint"
        return found.message

    assert lab.check_reach(stub).state == "not attempted yet"
    assert "tuple" in hint(field)
    assert "is there a return?" in hint(forgotten)
    assert "receptive field first" in hint(lambda x: (field(x) - 1 - padding(x), field(x)))
    assert "overlap" in hint(lambda x: (sum(k for k, _ in x), sum(k - 1 for k, _ in x)))
    assert "padding" in hint(lambda x: (field(x), field(x) - 1))
    assert "one side" in hint(lambda x: (field(x), field(x) - 1 - 2 * padding(x)))
    assert "receptive field" in hint(lambda x: (field(x) - padding(x), field(x) - 1 - padding(x)))
    assert lab.check_reach(lambda x: (field(x), field(x) - 1 - padding(x))).state == "passed"
    assert lab.check_reach(lambda x: [field(x), field(x) - 1 - padding(x)]).state == "passed"


def test_check_partial_sums() -> None:
    def partial(conv: nn.Conv3d, frame: Tensor) -> Tensor:
        weight = conv.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        return nn.functional.conv2d(frame, weight, padding=conv.padding[1:]).unflatten(1, (conv.kernel_size[0], -1))

    def unsorted(conv: nn.Conv3d, frame: Tensor) -> Tensor:
        found = nn.functional.conv2d(frame, conv.weight.transpose(1, 2).flatten(0, 1), padding=conv.padding[1:])
        return found.unflatten(1, (conv.kernel_size[0], -1))

    def unpadded(conv: nn.Conv3d, frame: Tensor) -> Tensor:
        weight = conv.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        return nn.functional.conv2d(frame, weight).unflatten(1, (conv.kernel_size[0], -1))

    def stub(conv, frame): ...  # type: ignore[no-untyped-def]

    def forgotten(conv, frame):  # type: ignore[no-untyped-def]
        partial(conv, frame)

    def hint(answer: Callable[[nn.Conv3d, Tensor], Tensor | None]) -> str:
        found = lab.check_partial_sums(answer)
        assert found.state == "hint"
        return found.message

    assert lab.check_partial_sums(stub).state == "not attempted yet"
    assert lab.check_partial_sums(partial).state == "passed"
    assert "order" in hint(lambda conv, x: partial(conv, x).flip(1))
    assert "unflatten" in hint(lambda conv, x: partial(conv, x).flatten(1, 2))
    assert "padding" in hint(unpadded)
    assert "permute" in hint(unsorted)
    assert "(N, kt, O" in hint(lambda conv, x: partial(conv, x).transpose(1, 2))
    assert "differ" in hint(lambda conv, x: partial(conv, x) * 2)
    assert "is there a return?" in hint(forgotten)


def test_how_far_a_network_looks_is_told_with_its_steps() -> None:
    said = lab.network_told(stepper(nn.Conv3d(2, 2, 3)), NO)
    assert said.startswith("Receptive field 3 frames, delay 2: the first 2 frames give no output")
    assert said.endswith(f"The same outputs as on the whole clip: {NO}.")
