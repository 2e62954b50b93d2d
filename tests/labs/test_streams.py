"""Notebook 12, sections on encoders, the published table and ONNX: its experiments in small, and every sentence."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kit.equality import Equality
from kit.labs.modules import lengths, onnx_step, published, transformers
from kit.labs.modules.lengths import Length
from kit.labs.modules.onnx_step import Streamed
from kit.labs.modules.transformers import CHAINED, ONE, REPAIRED, TWO, Errors
from kit.machine.load import Taken
from kit.macs import macs_of_call
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.models.continual import stepper
from kit.models.init import keep_signal
from kit.models.resnet3d import resnet50_3d
from kit.models.x3d import Size, x3d
from kit.trace.kernels import Kernel, Use
from kit.workloads.published import PUBLISHED, Clocked, Published, Work, clocked, counted

YES, NO = Equality(True, 1e-7), Equality(False, 0.3)
EXACT = Errors(6, (1e-7,) * 9)
WRONG = Errors(6, (1e-7,) * 5 + (0.64, 0.2))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


# Encoders -------------------------------------------------------------------------------------------------------------


def test_encoders_on_a_stream() -> None:
    pytest.importorskip("continual")
    found = transformers.streams(torch.randn(1, 24, 16), 5)
    assert found["library", ONE].wrong is found["kit", ONE].wrong is None
    assert found["library", ONE].first == found["kit", ONE].first == 5
    assert "2 layers" in found["kit", TWO].refused
    assert found["library", REPAIRED].wrong is None
    assert found["library", TWO].wrong == 9  # its index goes round after delay = window - 1 = 4 tokens
    assert found["library", CHAINED].first == 9  # the second block waits for a window of its own


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({("kit", ONE): EXACT, ("library", ONE): WRONG}, "One block is exact, by the step of: kit."),
        ({("kit", ONE): WRONG}, "exact by no step"),
        ({("library", TWO): WRONG}, "exact for **5** outputs, and differ from step 11 on, by up to **64%**"),
        ({("library", TWO): EXACT}, "exact too"),
        ({("library", TWO): WRONG, ("library", REPAIRED): EXACT}, "the index is the cause"),
        ({("library", TWO): WRONG, ("library", REPAIRED): WRONG}, "there is more to it"),
        ({("library", CHAINED): WRONG}, "are another network: its outputs begin with step 6"),
        ({("kit", TWO): Errors(None, (), "no step can keep them.")}, "The kit refuses two blocks: no step can keep"),
    ],
)
def test_sentences_on_encoders(found: dict[tuple[str, str], Errors], words: str) -> None:
    assert words in transformers.streams_told(found)
    assert len(transformers.streams_table(found).splitlines()) == 2 + len(found)


def test_errors_in_numbers() -> None:
    assert (WRONG.wrong, WRONG.worst, EXACT.wrong) == (11, 0.64, None)
    assert Errors(3, (float("nan"),)).wrong == 3
    assert (Errors(None, ()).wrong, Errors(None, ()).worst) == (None, 0.0)


def test_claims_on_encoders() -> None:
    found = {
        ("kit", ONE): EXACT,
        ("library", TWO): WRONG,
        ("kit", TWO): Errors(None, (), "why"),
        ("library", ONE): Errors(None, ()),
        ("library", CHAINED): WRONG,
    }
    claims = transformers.encoder_claims(found)
    assert [claim.truth for claim in claims] == ["true", "false", "not decided", "not decided"]
    assert "from step 11 on" in claims[1].by


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (EXACT, "for the whole stream"),
        (WRONG, "at first, and then no more"),
        (Errors(6, (0.5, 0.5)), "never"),
        (Errors(None, ()), "not known: it gave no output"),
    ],
)
def test_the_quiz_on_blocks(found: Errors, answer: str) -> None:
    assert transformers.blocks_answer({("library", TWO): found}) == answer


def test_large_tokens_cancel() -> None:
    pytest.importorskip("continual")
    found = transformers.cancelled((0.5, 4), 5, 60)
    assert found[0.5].wrong is None
    assert found[4].worst > 10 * found[0.5].worst
    assert "From tokens 2 times" in transformers.cancelled_told({1: EXACT, 2: WRONG, 3: WRONG})
    assert "At none of these sizes" in transformers.cancelled_told({1: EXACT})


# Lengths and positions ------------------------------------------------------------------------------------------------


def timing(ms: float) -> Timing:
    return Timing(np.full(12, ms * 1e6), 1, None)  # type: ignore[arg-type]


def compared(ratios: dict[str, Ratio | None], doubt: str | None = None, **kernels: Any) -> Comparison:
    rows = [Row("window", timing=timing(10), ratio=Ratio(1, 1, 1), baseline=True, equality=YES, kernels=kernels)]
    for name, ratio in ratios.items():
        rows.append(
            Row(
                name,
                timing=timing(5),
                ratio=ratio,
                equality=YES,
                paired_baseline=timing(10),
                doubt=doubt,
                rewritten=True,
            )
        )
    return Comparison(tuple(rows), 12, "made up")


FASTER, SLOWER, SAME = Ratio(2.0, 1.9, 2.1), Ratio(0.5, 0.4, 0.6), Ratio(1.0, 0.99, 1.01)


def test_lengths_of_windows_in_small() -> None:
    pytest.importorskip("continual")
    found = lengths.by_length((4, 8), features=16, rounds=6)
    for window, each in found.items():
        assert all(row.equality and row.equality.equal for row in each.comparison.rows)
        assert each.ratio("kit") == each.ratio("library") == window
    assert lengths.lengths_chart(found).still()
    assert len(lengths.lengths_table(found).splitlines()) == 2 + 2 * 2


def test_sentences_on_lengths() -> None:
    macs = {"window": 800, "library": 100, "kit": 100}
    found = {
        8: Length(compared({"library": SLOWER, "kit": SAME}), macs),
        16: Length(compared({"library": FASTER, "kit": FASTER}), macs),
        32: Length(compared({"library": FASTER, "kit": FASTER}, doubt="machine busy"), macs),
    }
    said = lengths.lengths_told(found)
    assert "the library's step is slower at: 8 tokens" in said
    assert "the kit's step is faster at: 16 tokens" in said
    assert "Not decided for the kit's step at: 32 tokens" in said
    assert "decides nothing" in {trace.name.partition(", ")[2] for trace in lengths.lengths_chart(found).data}


def test_positions() -> None:
    by_place, recycled = lengths.positions(3, None, 4), lengths.positions(3, 5, 4)
    assert [row[row >= 0].tolist() for row in by_place] == [[0, 1, 2]] * 4
    assert [row[row >= 0].tolist() for row in recycled] == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]]
    for column in recycled.T:
        assert len({*column.tolist()} - {-1}) == 1  # a token keeps its encoding
    assert lengths.positions_figure(recycled).still()
    assert "token 5" in lengths.positions_table(recycled)


def test_recycled_encodings_are_those_of_the_stream() -> None:
    pytest.importorskip("continual")
    found = lengths.recycled(4, 7, torch.randn(1, 20, 16))
    assert [same.equal for same in found.values()] == [False, True]
    assert "encodings are recycled" in lengths.recycled_told(found)
    assert "neither" in lengths.recycled_told({"recycled": NO})


# The published table --------------------------------------------------------------------------------------------------


def small() -> nn.Sequential:
    return x3d(Size(4, 32, 0.2, (8, 8, 16, 16)), classes=5)


def test_what_is_counted_is_what_runs() -> None:
    model, clip = small(), torch.randn(1, 3, 4, 32, 32)
    window, step = counted(model, clip)
    assert window.macs == macs_of_call(model, clip)
    net = stepper(model)
    _, state = net.over(torch.randn(1, 3, net.reach.receptive_field, 32, 32))
    assert step.macs == macs_of_call(lambda: net(clip[:, :, 0], state))
    assert 0 < step.elementwise < step.macs


def test_the_networks_are_of_the_published_sizes() -> None:
    with torch.device("meta"):
        for name, millions in {"CoX3D-S": 3.8, "CoX3D-M": 3.8, "CoI3D": 28.0, "CoSlow": 32.5}.items():
            model, (frames, side) = PUBLISHED[name].make(), PUBLISHED[name].clip
            assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
            clip = torch.empty(1, 3, frames, side, side)
            assert model(clip).shape == (1, 400, 1, 1, 1)
            window, step = counted(model, clip)
            assert window.macs / 1e9 == pytest.approx(PUBLISHED[name].window, rel=0.05)
            assert (step.macs + 2 * step.elementwise) / 1e9 == pytest.approx(PUBLISHED[name].step, rel=0.02)


def test_a_random_network_keeps_its_signal_and_no_more() -> None:
    one, other = torch.randn(2, 1, 3, 8, 64, 64)
    for model in (x3d("S", window=8), resnet50_3d("slow"), resnet50_3d("i3d", window=4)):
        out = model(one)
        assert (model(other) - out).abs().max() > 0.1 * out.abs().max()
        assert (model(one + 1e-6 * other) - out).abs().max() < 1e-3 * out.abs().max()


TABLE = {
    "near": Published(1.0, 10.0, small, (4, 32)),
    "explained": Published(1.2, 10.0, small, (4, 32)),
    "open": Published(2.0, 10.0, small, (4, 32)),
}


def works(elementwise: float) -> tuple[Work, Work]:
    return Work(10e9, elementwise * 10e9), Work(1e9, elementwise / 2 * 1e9)


def test_sentences_on_the_published_table() -> None:
    found = {"near": works(0.0), "explained": works(0.2), "open": works(0.2)}
    said = published.published_told(found, TABLE)
    assert "within 5% of the published figure for near" in said
    assert "for explained they are with the elementwise operations, counted twice" in said
    assert "**not explained** is the difference for open" in said
    assert len(published.published_table(found, TABLE).partition("\n\n")[0].splitlines()) == 5
    assert "no measurements of ours" in published.published_table(found, TABLE)
    assert published.published_claim(found, TABLE).truth == "false"
    assert published.published_claim({"near": works(0.0)}, TABLE).truth == "true"


def test_a_window_and_a_step_of_a_network_in_small() -> None:
    model = keep_signal(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.AvgPool3d((4, 8, 8), 1)), 0).eval()
    (one, two) = clocked("small", model, torch.randn(1, 3, 4, 8, 8), rounds=6, batches=(1, 2))
    assert [row.name for row in one.comparison.rows] == ["window", "step", "window_onednn", "step_onednn"]
    assert all(row.equality and row.equality.equal for row in (*one.comparison.rows, *two.comparison.rows))
    assert one.ratio == 4
    assert {kernel.name for kernel in one.kernels("_onednn")["step"] if kernel.family == "convolution"} == {"oneDNN"}
    assert len(published.clocked_table([one, two]).splitlines()) == 2 + 4


def clock(step: Ratio, others: float = 0.0, equal: Equality = YES) -> Clocked:
    found = compared({"step": step, "window_onednn": SAME, "step_onednn": step})
    kernels = {Kernel("convolution", "conv3d", "slow_conv3d"): Use(3, 0.9)}
    rows = tuple(replace(row, kernels=kernels, equality=equal) for row in found.rows)
    times = {"window": 10.0, "window_onednn": 10.0, "step": 10 / step.estimate}
    times["step_onednn"] = times["step"]
    rng = np.random.default_rng(0)
    noise = 1 + 0.01 * rng.random(12)
    timings = {name: Timing(ms * 1e6 * noise, 1, None) for name, ms in times.items()}  # type: ignore[arg-type]
    rows = tuple(replace(row, timing=timings[row.name], paired_baseline=timings["window"]) for row in rows)
    found = gated(replace(found, rows=rows, taken=Taken(others, 0.0)))
    return Clocked("CoX3D-S", found, Work(800, 0), Work(100, 0), 1)


def test_sentences_on_the_clock() -> None:
    said = published.clocked_told([clock(FASTER)])
    assert "with the kernels that PyTorch chooses: the speed-up is **25%" in said
    busy = published.clocked_told([clock(FASTER, 0.5)])
    assert "machine busy" in busy
    assert "slow_conv3d (3 calls)" in published.clocked_table([clock(FASTER)])
    assert "not decided" in published.clocked_table([clock(FASTER, 0.5)])


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        (clock(FASTER), "true"),
        (clock(Ratio(20.0, 19.0, 21.0)), "false"),
        (clock(FASTER, 0.5), "not decided"),
        (clock(FASTER, equal=NO), "not decided"),
    ],
)
def test_claims_on_the_clock(found: Clocked, truth: str) -> None:
    (claim,) = published.reached_claims([found])
    assert claim.truth == truth
    assert "CoX3D-S, batch 1" in claim.text


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (clock(FASTER), "less than half"),
        (clock(Ratio(5.6, 5.5, 5.7)), "half to 85%"),
        (clock(Ratio(8.0, 7.9, 8.1)), "more than 85%"),
        (clock(FASTER, 0.5), "not decided: machine busy"),
        (replace(clock(FASTER), name="a small X3D"), "not measured: KIT_FAST=1 takes a small X3D"),
    ],
)
def test_the_quiz_on_the_clock(found: Clocked, answer: str) -> None:
    assert published.clock_answer([found]).startswith(answer)


# ONNX -----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_an_exported_step_runs_a_stream() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from kit.transforms.onnx_runtime import OnnxRuntime

    model = keep_signal(nn.Sequential(nn.Conv3d(3, 4, 3, padding=(1, 0, 0)), nn.ReLU(), nn.Conv3d(4, 2, 2)), 0).eval()
    found = onnx_step.streamed(model, torch.randn(1, 3, 16, 6, 6), OnnxRuntime(threads=1).apply)
    assert found.equality.equal
    assert (found.started, found.steps) == (4, 12)
    assert found.remembered == ((1, 3, 6, 6), (1, 3, 6, 6), (1, 4, 4, 4))


def test_sentences_on_exporting() -> None:
    found = Streamed(4, 12, YES, ((1, 3, 6, 6),))
    assert "1 tensor of state (1x3x6x6)" in onnx_step.streamed_told(found)
    assert "are **not** those" in onnx_step.streamed_told(replace(found, equality=NO))
    assert [onnx_step.onnx_claim(replace(found, equality=same)).truth for same in (YES, NO)] == ["true", "false"]
    assert "worked here" in onnx_step.exported_told("")
    assert "`ValueError: no`" in onnx_step.exported_told("ValueError: no")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (compared({"onnxruntime(threads=1)": FASTER}), "2.00x"),
        (compared({"onnxruntime": SLOWER}), "**slower**"),
        (compared({"onnxruntime": FASTER}, doubt="machine busy"), "**not decided: machine busy**"),
        (compared({}), "did not run: it was not asked for"),
    ],
)
def test_sentences_on_the_runtime(found: Comparison, words: str) -> None:
    assert words in onnx_step.runtime_told(found)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_librarys_own_export_is_tried() -> None:
    co = pytest.importorskip("continual")
    pytest.importorskip("onnxscript")
    error = onnx_step.exported_by_library(co.Conv3d(2, 2, 3).eval(), torch.randn(1, 2, 4, 4))
    assert "\n" not in error
