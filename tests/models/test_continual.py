"""Networks frame by frame: the same outputs as on clips, when they are due, and states that nothing spoils."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kit import executors
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import KitError, ShapeError
from kit.executors.threads import Threads
from kit.models import inception3d_block
from kit.models.continual import Crop, Stepper, shallow_two_stream_3d, stepper
from kit.models.inception3d import EdgeConv3d
from kit.models.init import keep_signal
from kit.regions import Branches, Concat, Mean
from kit.transforms.channels_last import channels_last
from kit.transforms.merged import Merged

SOAK = os.environ.get("KIT_SOAK") == "1"


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(model: nn.Module, clip: Any, net: Stepper | None = None) -> Stepper:
    """Step by step through a clip: every output as on the whole clip, and None exactly where none is due."""
    net = net or stepper(model)
    clips: Sequence[Tensor] = clip if isinstance(clip, tuple) else (clip,)
    with torch.no_grad():
        whole, state, given = model(*clips), None, 0
        assert not inputs_without_effect(model, clips)
        for t in range(clips[0].shape[2]):
            frames = tuple(x[:, :, t] for x in clips)
            out, state = net(frames if isinstance(clip, tuple) else frames[0], state)
            assert (out is not None) == net.reach.gives(t)
            if out is not None:
                assert compare_outputs(whole[:, :, given], out).equal
                given += 1
    # What is missing needs frames padded after the clip's end.
    missing = whole.shape[2] - given
    assert 0 <= missing <= net.reach.padding
    assert given > 0
    return net


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A 3-D convolution and a clip that it takes."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 3))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 3))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 3))
    extent = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, e)) for e in extent)
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    mode = draw(st.sampled_from(["zeros", "zeros", "replicate"]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    conv = nn.Conv3d(4, 8, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode, dtype=dtype)
    keep_signal(conv, 0)
    sides = [e + 1 + draw(st.integers(0, 4)) for e in extent]
    return conv.eval(), randn(draw(st.integers(1, 2)), 4, *sides, dtype=dtype)


@settings(max_examples=600 if SOAK else 100, deadline=None, derandomize=True)
@given(convolutions())
def test_any_convolution(case: tuple[nn.Module, Tensor]) -> None:
    conv, clip = case
    assume(conv.weight[0].numel() > 1)
    check(conv, clip)


@st.composite
def pools(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A 3-D pool and a clip that it takes."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 3))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 3))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    if draw(st.booleans()):
        dilation = draw(st.tuples(*[st.integers(1, 2)] * 3))
        pool: nn.Module = nn.MaxPool3d(kernel, stride, padding, dilation)
    else:
        dilation = (1, 1, 1)
        divisor = draw(st.sampled_from([None, 3]))
        pool = nn.AvgPool3d(kernel, stride, padding, count_include_pad=draw(st.booleans()), divisor_override=divisor)
    sides = [(k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True)]
    return pool, randn(2, 3, *sides)


@settings(max_examples=300 if SOAK else 60, deadline=None, derandomize=True)
@given(pools())
def test_any_pool(case: tuple[nn.Module, Tensor]) -> None:
    check(*case)


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 4, 3, stride=(2, 1, 1), padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 5, (2, 1, 1), padding=(1, 0, 0), dilation=(2, 1, 1)),
    )


def residual() -> nn.Module:
    return Branches({"conv": nn.Conv3d(3, 3, 3, padding=1), "skip": nn.Identity()}, Mean())


def cropped() -> nn.Module:
    deep = nn.Sequential(nn.Conv3d(3, 2, 3), nn.ReLU(inplace=True), nn.Conv3d(2, 2, (3, 1, 1)))
    inner = Branches(
        {"conv": nn.Conv3d(3, 2, 3, padding=(0, 1, 1)), "same": nn.Sequential(Crop(1), nn.ReLU())}, Concat(1)
    )
    return nn.Sequential(
        Branches({"deep": deep, "inner": nn.Sequential(inner, nn.Conv3d(5, 2, 3))}, Concat(1)), nn.Tanh()
    )


MODELS = {
    "strided": (strided, (2, 3, 17, 8, 8)),
    "residual": (residual, (2, 3, 6, 5, 5)),
    "regions within regions": (cropped, (1, 3, 9, 6, 6)),
    "repeated frames": (lambda: EdgeConv3d(3, 4, 5, padding=2), (1, 3, 7, 6, 6)),
    "padding by name": (lambda: nn.Conv3d(3, 4, (3, 5, 3), padding="same"), (1, 3, 7, 6, 6)),
    "spatial pool": (lambda: nn.Sequential(nn.Conv3d(3, 4, 3), nn.AdaptiveAvgPool3d((None, 1, 1))), (1, 3, 7, 6, 6)),
    "inception module": (lambda: inception3d_block(8, (4, 4, 6, 2, 4, 4)), (2, 8, 6, 7, 7)),
}


@pytest.mark.parametrize("name", MODELS)
def test_networks(name: str) -> None:
    make, shape = MODELS[name]
    check(keep_signal(make(), 1).eval(), randn(*shape))


@pytest.mark.parametrize("merged", [False, True])
def test_the_shallow_two_stream_network(merged: bool) -> None:
    model, inputs = shallow_two_stream_3d(width=8), (randn(1, 3, 19, 64, 64), randn(1, 2, 19, 64, 64))
    if merged:
        with torch.no_grad():
            model = Merged().apply(model, inputs)
    net = check(model, inputs)
    assert net.reach == (16, 0, 1)
    with Threads(2) as pool, executors.use(pool), torch.no_grad():
        assert compare_outputs(model(*inputs), net.over(inputs)[0]).equal


def test_channels_last_stays_channels_last() -> None:
    net = stepper(inception3d_block(8, (4, 4, 6, 2, 4, 4)))
    for parameter in net.parameters():
        parameter.data = channels_last(parameter.data)
    with torch.no_grad():
        state = None
        for _ in range(3):
            out, state = net(channels_last(randn(1, 8, 7, 7)), state)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()


def test_convolutions_of_the_library_are_taken_too() -> None:
    co = pytest.importorskip("continual")
    model = co.Conv3d(3, 4, 3, padding=(0, 1, 1)).eval()
    clip = randn(1, 3, 6, 5, 5)
    net = check(keep_signal(model, 0), clip)
    assert (net.delay, net.reach.receptive_field) == (model.delay, model.receptive_field)
    with torch.no_grad():
        assert compare_outputs(model.forward_steps(clip), net.over(clip)[0]).equal


def test_clips_take_turns() -> None:
    net = stepper(shallow_two_stream_3d(width=8))
    clips = [(randn(1, 3, 17, 64, 64, seed=i), randn(1, 2, 17, 64, 64, seed=10 + i)) for i in range(3)]
    with torch.no_grad():
        alone = [net.over(clip)[0] for clip in clips]
        states: list[Any] = [None] * len(clips)
        outs: list[Any] = [None] * len(clips)
        for t in range(17):
            for i, clip in enumerate(clips):
                outs[i], states[i] = net(tuple(x[:, :, t] for x in clip), states[i])
    for out, want in zip(outs, alone, strict=True):
        assert torch.equal(out, want[:, :, -1])
    assert not torch.equal(outs[0], outs[1])


def test_a_state_can_be_used_again() -> None:
    net = stepper(keep_signal(cropped(), 0).eval())
    clip = randn(1, 3, 6, 6, 6)
    with torch.no_grad():
        _, state = net.over(clip)
        once, _ = net(clip[:, :, 0], state)
        net(clip[:, :, 1], state)
        again, _ = net(clip[:, :, 0], state)
    assert torch.equal(once, again)


def test_the_frame_s_memory_may_be_filled_again() -> None:
    conv = keep_signal(nn.Conv3d(3, 4, 3), 0).eval()
    net, clip, camera, state = stepper(conv), randn(1, 3, 3, 5, 5), torch.empty(1, 3, 5, 5), None
    with torch.no_grad():
        for t in range(3):
            camera.copy_(clip[:, :, t])
            out, state = net(camera, state)
        assert compare_outputs(conv(clip)[:, :, 0], out).equal


FRAME = randn(2, 3, 6, 6)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (randn(2, 3, 6, 7), "remembers frames (2, 3, 6, 6)"),
        (randn(1, 3, 6, 6), "now gets (1, 3, 6, 6)"),
        (FRAME.double(), "float64"),
        (FRAME.to("meta"), "on meta"),
        (randn(2, 3, 1, 6, 6), "remove the time axis"),
        (randn(2, 4, 6, 6), "0 takes frames of 3 channels, float32 on cpu, and gets (2, 4, 6, 6)"),
        ((FRAME, FRAME), "one stream"),
        ([[1.0]], "a step takes a frame"),
    ],
)
def test_a_frame_that_does_not_fit_leaves_the_state_as_it_was(frame: Any, words: str) -> None:
    model = keep_signal(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), residual_of(4)), 0).eval()
    net, clip = stepper(model), torch.stack([FRAME, FRAME.flip(0), FRAME * 2, FRAME + 1], 2)
    with torch.no_grad():
        state = None
        for t in range(3):
            _, state = net(clip[:, :, t], state)
        with pytest.raises(ShapeError) as caught:
            net(frame, state)
        assert words in str(caught.value)
        out, state = net(clip[:, :, 3], state)
        assert compare_outputs(model(clip)[:, :, 1], out).equal
        assert state.frames == 4


def residual_of(channels: int) -> nn.Module:
    return Branches({"conv": nn.Conv3d(channels, channels, 3, padding=1), "skip": nn.Identity()}, Mean())


def test_a_layer_that_does_not_take_the_first_frame_is_named() -> None:
    net = stepper(nn.Sequential(nn.Conv3d(3, 4, 1), nn.Conv3d(4, 4, (3, 7, 7))).eval())
    state = net.start()
    for _ in range(2):
        _, state = net(FRAME, state)
    with pytest.raises(ShapeError, match=r"^1 does not take the frame \(2, 4, 6, 6\)"):
        net(FRAME, state)


def test_a_model_that_takes_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(5), nn.Conv3d(5, 4, 3)).eval()
    with pytest.raises(
        KitError, match=r"no clip was found that Sequential takes.*4 elements not 5.*stepper\(model, clip"
    ):
        stepper(model)


def test_a_state_of_another_network_is_refused() -> None:
    conv = nn.Conv3d(3, 4, 3)
    one, other = stepper(conv), stepper(conv)
    with torch.no_grad(), pytest.raises(KitError, match="another network"):
        other(FRAME, one(FRAME)[1])


def test_a_clip_shorter_than_the_receptive_field() -> None:
    net = stepper(nn.Conv3d(3, 4, 5))
    with torch.no_grad(), pytest.raises(ShapeError, match=r"Conv3d looks at 5, gives its first output with frame 5"):
        net.over(randn(1, 3, 4, 6, 6))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Conv3d(3, 4, 3, padding=3)), "0 pads 3 frames before the first"),
        (nn.Conv3d(3, 4, 3, padding=1, padding_mode="circular"), "circular"),
        (nn.Conv3d(3, 4, 2, padding="same"), "uneven"),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.AdaptiveAvgPool3d(1)), "1 is AdaptiveAvgPool3d"),
        (nn.Sequential(nn.Flatten()), "0 is Flatten"),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)).train(), "1 is in training mode"),
        (Branches({"a": nn.Conv3d(3, 4, 3), "b": nn.Conv3d(3, 4, 1)}, Concat(1)), "other lengths"),
        (Branches({"a": nn.Conv3d(3, 4, 1, 2), "b": nn.Conv3d(3, 4, 1)}, Concat(1)), "other lengths"),
    ],
)
def test_what_cannot_go_frame_by_frame_is_named(model: nn.Module, words: str) -> None:
    if (
        not isinstance(model, nn.Sequential)
        or not model.training
        or len(model) < 2
        or not isinstance(model[1], nn.BatchNorm3d)
    ):
        model.eval()
    with pytest.raises(KitError) as caught:
        stepper(model)
    assert words in str(caught.value)


def test_the_model_is_left_as_it_is() -> None:
    model = inception3d_block(8, (4, 4, 6, 2, 4, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stepper(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": (2, 1, 1)}, {"padding": (2, 1, 1), "bias": False}])
def test_the_step_offered_to_the_library(options: dict[str, Any]) -> None:
    co = pytest.importorskip("continual")
    text = (Path(__file__).parents[2] / "docs/faster_step.md").read_text()
    namespace: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], namespace)
    theirs, offered = co.Conv3d(3, 4, 3, **options).eval(), namespace["FasterConv3d"](3, 4, 3, **options).eval()
    offered.load_state_dict(theirs.state_dict())
    clip = randn(1, 3, 8, 5, 5)
    with torch.no_grad():
        for t in range(clip.shape[2]):
            want, got = theirs.forward_step(clip[:, :, t]), offered.forward_step(clip[:, :, t])
            assert (want is None) == (got is None)
            assert want is None or compare_outputs(want, got).equal
        assert offered.delay == theirs.delay


def test_a_layer_inside_a_branch_is_named_too() -> None:
    net = stepper(residual_of(3).eval())
    with torch.no_grad():
        _, state = net(FRAME)
        with pytest.raises(KitError, match=r"branches\.conv remembers frames \(2, 3, 6, 6\)"):
            net(FRAME[:, :, 1:], state)


def test_a_clip_between_two_steps_changes_nothing() -> None:
    model = keep_signal(residual_of(3), 0).eval()
    net, clip = stepper(model), randn(1, 3, 4, 6, 6)
    with torch.no_grad():
        _, state = net.over(clip[:, :, :3])
        model(randn(2, 3, 7, 9, 9))
        net.over(randn(2, 3, 5, 9, 9))
        out, _ = net(clip[:, :, 3], state)
        assert compare_outputs(model(clip)[:, :, 2], out).equal
