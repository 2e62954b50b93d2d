"""Which kernel an operator ran on, from recordings; and what comparisons say where their sides differ in that."""

import pytest
import torch
from torch import nn

import kit
from kit import Branches, Concat
from kit.trace import Event, Lane, Trace
from kit.trace.kernels import Exchange, Kernel, Use, caveats, exchanged, kernels, told

MAIN = Lane(1, 1, "caller")


def recorded(*calls: tuple[str, ...]) -> Trace:
    """A call of 1 ms, with chains of operators, each inside the one before it, as long as each other."""
    events, each = [Event("call", "call", 0, 1_000_000, MAIN)], 900_000 // len(calls)
    for i, names in enumerate(calls):
        for depth, name in enumerate(names):
            events.append(Event(name, "cpu_op", 1000 + i * each + depth, each - 2 * depth - 10, MAIN))
    return Trace.build(events)


def conv(dims: int, *ran: str) -> tuple[str, ...]:
    return (f"aten::conv{dims}d", "aten::convolution", "aten::_convolution", *ran)


SLOW = conv(3, "aten::slow_conv3d", "aten::slow_conv3d_forward")
THNN = conv(2, "aten::thnn_conv2d", "aten::_slow_conv2d_forward")


@pytest.mark.parametrize(
    ("names", "kernel"),
    [
        (SLOW, ("convolution", "conv3d", "slow_conv3d")),
        (THNN, ("convolution", "conv2d", "thnn_conv2d")),
        (conv(2, "aten::mkldnn_convolution"), ("convolution", "conv2d", "oneDNN")),
        (conv(1, "aten::cudnn_convolution"), ("convolution", "conv1d", "cuDNN")),
        (conv(2, "aten::_nnpack_available"), ("convolution", "conv2d", "an unnamed kernel")),
        (conv(2, "aten::_conv_depthwise2d"), ("convolution", "conv2d", "conv_depthwise2d")),
        (conv(2, "aten::slow_conv_dilated2d"), ("convolution", "conv2d", "slow_conv_dilated2d")),
        (("aten::mkldnn_convolution",), ("convolution", "convolution", "oneDNN")),
        (("mkldnn::_convolution_pointwise",), ("convolution", "convolution", "oneDNN")),
        (("aten::linear", "aten::addmm"), ("matrix product", "linear", "BLAS")),
        (("aten::linear", "aten::matmul", "aten::bmm"), ("matrix product", "linear", "BLAS")),
        (("aten::linear", "aten::mkldnn_linear"), ("matrix product", "linear", "oneDNN")),
        (
            ("aten::scaled_dot_product_attention", "aten::_scaled_dot_product_attention_math", "aten::matmul"),
            ("attention", "scaled_dot_product_attention", "scaled_dot_product_attention_math"),
        ),
        (("aten::lstm", "aten::mkldnn_rnn_layer"), ("recurrent layer", "lstm", "oneDNN")),
        (("aten::lstm", "aten::linear", "aten::addmm"), ("recurrent layer", "lstm", "PyTorch's own operators")),
        (
            ("aten::max_pool3d", "aten::max_pool3d_with_indices"),
            ("pooling", "max_pool3d", "PyTorch's own kernel"),
        ),
        (("aten::batch_norm", "aten::native_batch_norm"), ("normalisation", "batch_norm", "PyTorch's own kernel")),
    ],
    ids=lambda each: each[-1],
)
def test_an_operator_s_kernel(names: tuple[str, ...], kernel: tuple[str, str, str]) -> None:
    assert {used: use.calls for used, use in kernels(recorded(names)).items()} == {Kernel(*kernel): 1}


def test_calls_and_their_share_of_the_time() -> None:
    found = kernels(recorded(SLOW, THNN, THNN, ("aten::relu",)))
    slow, thnn = Kernel("convolution", "conv3d", "slow_conv3d"), Kernel("convolution", "conv2d", "thnn_conv2d")
    assert found.keys() == {slow, thnn}
    assert (found[slow].calls, found[thnn].calls) == (1, 2)
    assert found[slow].share == pytest.approx(0.225, abs=0.001)
    assert found[thnn].share == pytest.approx(0.45, abs=0.001)
    assert kernels(Trace.build([])) == {}


ONE_DNN = conv(3, "aten::mkldnn_convolution")


def test_two_sides_on_other_kernels() -> None:
    one, other = kernels(recorded(SLOW, ONE_DNN)), kernels(recorded(ONE_DNN, ONE_DNN))
    (exchange,) = exchanged(one, other)
    assert told("window", exchange, "step") == (
        "conv3d ran as slow_conv3d in window and as oneDNN in step (1 call, 45% of the time of window)"
    )
    (back,) = exchanged(other, one)
    assert told("step", back, "window").startswith("conv3d ran as oneDNN in step and as slow_conv3d in window")


def test_another_operator_of_the_same_family_is_named_as_well() -> None:
    (exchange,) = exchanged(kernels(recorded(SLOW)), kernels(recorded(conv(2, "aten::mkldnn_convolution"))))
    assert "conv3d ran as slow_conv3d in window and conv2d as oneDNN in step" in told("window", exchange, "step")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([SLOW, THNN], [THNN, SLOW]),
        ([ONE_DNN] * 4, [ONE_DNN]),  # siblings merged into one
        ([SLOW, ONE_DNN], [ONE_DNN]),  # less is asked for
        ([SLOW, ("aten::batch_norm", "aten::native_batch_norm")], [SLOW]),  # folded
        ([("aten::linear", "aten::addmm")], [("aten::linear", "aten::matmul", "aten::mm")]),  # with and without a bias
        ([SLOW], [("aten::relu",)]),  # nothing of it was recorded, as of a captured graph
    ],
    ids=["equal", "merged", "subset", "folded", "bias", "none"],
)
def test_no_alarm(one: list[tuple[str, ...]], other: list[tuple[str, ...]]) -> None:
    assert exchanged(kernels(recorded(*one)), kernels(recorded(*other))) == []
    assert exchanged(kernels(recorded(*other)), kernels(recorded(*one))) == []


def test_what_takes_no_time_is_left_out() -> None:
    slow, fast = Kernel("convolution", "conv2d", "thnn_conv2d"), Kernel("convolution", "conv2d", "oneDNN")
    assert exchanged({slow: Use(1, 0.009)}, {fast: Use(1, 0.001)}) == []
    assert exchanged({slow: Use(1, 0.009)}, {fast: Use(1, 0.02)}) == [Exchange({slow: 1}, {fast: 1}, 0.009)]


def test_a_caveat_says_whether_the_kernel_was_exchanged_on_purpose() -> None:
    slow, fast = kernels(recorded(SLOW, SLOW)), kernels(recorded(ONE_DNN, ONE_DNN))
    said = caveats("sequential", slow, [("threads", fast, False), ("same", slow, False), ("processes", fast, False)])
    assert said == [
        "conv3d ran as slow_conv3d in sequential and as oneDNN in threads and processes (2 calls, 90% of the time of "
        "sequential): a part of the difference in time is due to PyTorch's choice of kernel, not to concurrency."
    ]
    (said,) = caveats("sequential", slow, [("channels_last", fast, True)])
    assert said.endswith("other kernels are a part of the effect of this rewriting.")
    assert caveats("sequential", slow, [("onnxruntime", {}, True), ("processes_cold", None, False)]) == []


# Whole comparisons ----------------------------------------------------------------------------------------------------


def heads() -> Branches:
    """1x1 convolutions: on one intra-op thread PyTorch runs them itself, on more it gives them to oneDNN."""
    return Branches({name: nn.Conv2d(64, 64, 1) for name in "ab"}, Concat(1)).eval()


@pytest.mark.parametrize(
    "other", ["sequential(threads=1)", "threads(workers=2, threads=1)", "processes(workers=2, threads=1)"]
)
def test_a_comparison_names_the_kernels_that_differ(other: str) -> None:
    approaches = ["sequential(threads=2)", other]
    found = kit.compare(heads(), torch.rand(1, 64, 28, 28), approaches, rounds=6, progress=False)
    (said,) = [caveat for caveat in found.caveats if " ran as " in caveat]
    assert said.startswith(f"conv2d ran as oneDNN in sequential(threads=2) and as thnn_conv2d in {other} (2 calls, ")
    assert said in kit.explain(found, other).notes


def test_a_comparison_of_equal_kernels_says_nothing() -> None:
    approaches = ["sequential(threads=1)", "threads(workers=2, threads=1)", "folded"]
    model = Branches({name: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)) for name in "ab"}, Concat(1)).eval()
    found = kit.compare(model, torch.rand(2, 3, 16, 16), approaches, rounds=6, progress=False)
    assert all(row.kernels for row in found.rows), [row.reason for row in found.rows]
    assert not [caveat for caveat in found.caveats if " ran as " in caveat]


def test_a_comparison_goes_on_under_somebody_else_s_profiler() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        found = kit.compare(heads(), torch.rand(1, 64, 8, 8), "sequential", rounds=6, progress=False)
    assert found["sequential"].kernels is None
