"""Steps are the network's own: shown on an example clip, or refused with the name of the part."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.equality import compare_outputs
from kit.errors import KitError, ShapeError
from kit.models.continual import Crop, stepper
from kit.models.init import keep_signal
from kit.regions import Branches, Concat, Mean
from kit.transforms.merged import Merged


class Residual(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def conv(inputs: int = 3, outputs: int = 3, kernel: Any = 3, padding: Any = 1, **options: Any) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel, padding=padding, **options)


def clip(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def in_a_branch(layer: nn.Module, merge: Any = None) -> nn.Module:
    """The layer is named ``1.branches.b.0``."""
    branches = {"a": conv(), "b": nn.Sequential(layer, conv())}
    return nn.Sequential(conv(), Branches(branches, Mean() if merge is None else merge)).eval()


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of convolution is taken for what it is not, as if the list of what is known were wrong."""
    monkeypatch.setattr("kit.models.continual.known.CONVOLUTIONS", {nn.Conv3d, Residual})


@pytest.mark.usefixtures("trusting")
def test_what_is_taken_for_what_it_is_not_is_found_out() -> None:
    with pytest.raises(KitError, match=r"steps of 1\.branches\.b\.0 do not give what it gives on clips"):
        stepper(in_a_branch(Residual(3, 3, 3, padding=1)))


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("scale", [1e-3, 1e-6])
def test_a_wrong_step_is_found_behind_a_large_bias(scale: float) -> None:
    layer = keep_signal(Residual(3, 3, 3, padding=1), 0)
    right, wrong = nn.Sequential(conv(), conv(3, 3, 1, 0)), nn.Sequential(layer, conv(3, 3, 1, 0))
    for model in (right, wrong):
        nn.init.constant_(model[1].weight, scale)
        nn.init.constant_(model[1].bias, 10)
    stepper(right)
    with pytest.raises(KitError, match="steps of 0 do not give"):
        stepper(wrong)


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, out: out + 1)
    return layer


def patched(layer: nn.Module) -> nn.Module:
    forward = layer.forward
    layer.forward = lambda x: forward(x) + 1  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: Residual(3, 3, 3, padding=1), "b.0 is Residual, a subclass of Conv3d that may do something else"),
        (lambda: hooked(nn.ReLU()), "b.0 has forward hooks"),
        (lambda: patched(conv()), "b.0 has a forward of its own in the place of Conv3d's"),
        (lambda: torch.nn.utils.parametrizations.weight_norm(conv()), "remove_parametrizations"),
        (lambda: nn.LazyConv3d(3, 3), "b.0 is LazyConv3d without weights: call the model"),
        (lambda: nn.BatchNorm3d(3, track_running_stats=False), "without running statistics"),
        (lambda: nn.MaxPool3d(1, return_indices=True), "gives indices too"),
        (lambda: nn.AdaptiveMaxPool3d((None, 8, 9), return_indices=True), "gives indices too"),
        (lambda: nn.GroupNorm(1, 3), "b.0 is GroupNorm"),
        (lambda: conv(kernel=2, padding="same"), "b.0 pads time unevenly"),
        (lambda: conv(padding_mode="circular"), "b.0 pads time in mode 'circular'"),
        (lambda: Branches({"c": conv()}, lambda outputs: outputs[0].flip(2)), "mixes frames or writes into them"),
        (lambda: Branches({"c": conv(), "d": conv()}, Concat(2)), "b.0 merges by Concat(dim=2)"),
    ],
)
def test_what_is_not_known_exactly_is_named(layer: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(KitError) as caught:
        stepper(in_a_branch(layer()))
    assert "1.branches.b.0" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("before", [nn.Identity(), nn.Dropout(), Crop(0), nn.Sequential()])
def test_an_in_place_layer_that_meets_what_others_read(before: nn.Module) -> None:
    def region(**branches: nn.Module) -> nn.Module:
        return Branches(branches, Mean()).eval()

    writing = nn.Sequential(before, nn.ReLU(inplace=True), conv())
    later, x = region(a=conv(), b=writing), clip(2, 3, 6, 7, 7)
    outputs, _ = stepper(later).over(x)  # a has read what b writes into
    assert compare_outputs(later(x.clone())[:, :, : outputs.shape[2]], outputs).equal
    for other in (region(b=writing, a=conv()), region(skip=nn.Identity(), b=writing)):
        with pytest.raises(KitError, match=r"branches\.b\.1 writes in place .* that (a|skip) in Branches reads"):
            stepper(other)


def test_nothing_that_is_given_is_written_into() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), in_a_branch(nn.SiLU(inplace=True))).eval()
    with pytest.raises(KitError, match=r"1\.1"):
        stepper(nn.Sequential(nn.ReLU(inplace=True), nn.Sequential(conv(), Branches(
            {"b": nn.SiLU(inplace=True), "a": conv()}, Mean()))))  # fmt: skip
    net, frames = stepper(model), clip(2, 3, 6, 7, 7)
    given = frames.clone()
    _, state = net.over(frames)
    once, _ = net(frames[:, :, 0], state)
    kept = once.clone()
    once.zero_()
    again, _ = net(frames[:, :, 0], state)
    assert torch.equal(again, kept)
    assert torch.equal(frames, given)


def test_padding_repeats_the_clip_s_first_frame_with_dilation_too() -> None:
    layer = conv(1, 1, (2, 1, 1), (3, 0, 0), dilation=(3, 1, 1), padding_mode="replicate", bias=False)
    nn.init.constant_(layer.weight, 0)
    layer.weight.data[0, 0, 0] = 1  # the frame three before, or the first
    frames = torch.arange(1.0, 9).reshape(1, 1, 8, 1, 1)
    outputs, _ = stepper(layer, torch.randn(1, 1, 9, 4, 4)).over(frames)
    assert outputs.flatten().tolist() == [1, 1, 1, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("frames", "lacking"), [(7, 0), (8, 1)])
def test_a_pool_with_ceil_mode_lacks_the_window_that_the_clip_s_end_cuts(frames: int, lacking: int) -> None:
    pool, x = nn.MaxPool3d(3, 2, ceil_mode=True), clip(1, 2, frames, 8, 8)
    outputs, _ = stepper(pool).over(x)
    assert pool(x).shape[2] - outputs.shape[2] == lacking
    assert torch.equal(pool(x)[:, :, : outputs.shape[2]], outputs)
    assert "ceil_mode" in (stepper.__doc__ or "")


def test_a_layer_that_is_there_twice_runs_twice_with_a_memory_each() -> None:
    relu, twice = nn.ReLU(), conv()
    model, x = nn.Sequential(twice, relu, twice, relu).eval(), clip(1, 3, 8, 7, 7)
    net = stepper(model)
    assert net.reach == (5, 2, 1)
    outputs, _ = net.over(x)
    assert compare_outputs(model(x)[:, :, :6], outputs).equal


def test_the_model_and_the_random_state_are_as_before() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm3d(3), nn.Dropout(), nn.ReLU(inplace=True)).eval()
    model[0].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random, net = torch.get_rng_state(), stepper(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [False, True, False, False, False]
    assert model[3].inplace
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    # The steps are a copy: what becomes of the model afterwards is not theirs.
    x = clip(1, 3, 5, 7, 7)
    outputs, _ = net.over(x)
    for value in model.state_dict().values():
        value.zero_()
    assert torch.equal(net.over(x)[0], outputs)
    assert not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (conv, clip(1, 3, 3, 8, 8), "has 3 frames, too few to compare the steps of Conv3d .* give at least 4"),
        (conv, clip(3, 9, 8, 8), "an example clip is"),
        (conv, clip(1, 3, 9, 8, 8).to(torch.uint8), "of floating-point numbers"),
        (conv, clip(1, 4, 9, 8, 8), r"does not take the clip \(2, 4, 9, 8, 8\)"),
        (
            lambda: nn.Sequential(conv(3, 3, (1, 2, 2), 0), nn.LayerNorm((7, 5))),
            None,
            r"no clip was found that Sequential takes.*stepper\(model, clip\)",
        ),
        (lambda: nn.Sequential(conv(), nn.Hardtanh(50, 60)), None, "does not move"),
        (lambda: nn.Conv3d(3, 3, 3, device="meta"), None, "on the device meta"),
    ],
)
def test_what_cannot_be_shown_is_refused(model: Callable[[], nn.Module], given: Any, words: str) -> None:
    with pytest.raises(KitError, match=words) as caught:
        stepper(model(), given)
    assert isinstance(caught.value, ShapeError) == ("example clip" in str(caught.value))


def test_an_example_of_one_s_own() -> None:
    model, x = nn.Sequential(conv(), nn.LayerNorm((7, 5))), clip(2, 3, 6, 7, 5)
    outputs, _ = stepper(model, x).over(x)
    assert compare_outputs(model(x)[:, :, :5], outputs).equal
    streams = Branches({"rgb": conv(), "flow": conv(2)}, Mean())
    assert stepper(streams, (clip(1, 3, 5, 8, 8), clip(1, 2, 5, 8, 8))).reach == stepper(streams).reach


def selecting() -> Branches:
    """Three streams: one for two branches, one for a region that takes two in another order, one beside it."""
    inner = Branches({"flow": conv(2), "rgb": conv()}, Mean())
    branches = {"rgb": conv(), "both": inner, "depth": conv(1), "again": conv()}
    return Branches(branches, Concat(1), takes={"rgb": 1, "both": (2, 1), "depth": 0, "again": 1})


@pytest.mark.parametrize("merged", [False, True])
def test_branches_take_the_streams_that_they_name(merged: bool) -> None:
    model = selecting().eval()
    clips = clip(1, 1, 5, 8, 9), clip(1, 3, 5, 8, 9), clip(1, 2, 5, 8, 9)
    if merged:
        heads = {name: nn.Sequential(nn.Conv3d(3, 3, 1), nn.ReLU(inplace=True), conv()) for name in ("rgb", "again")}
        model.branches.update(heads)
        model = Merged().apply(model.eval(), clips)
    net = stepper(model)
    outputs, _ = net.over(clips)
    whole = model(*clips)
    assert compare_outputs(whole[:, :, : outputs.shape[2]], outputs).equal
    with pytest.raises(ShapeError, match=r"got \d inputs, and its branch .both. takes"):
        net.over(clips[:2])


def test_who_shares_a_stream_is_said_by_what_branches_take() -> None:
    writing = nn.Sequential(nn.ReLU(inplace=True), conv())
    with pytest.raises(KitError, match=r"branches\.a\.0 writes in place .* that c in Branches reads"):
        stepper(Branches({"a": writing, "b": conv(), "c": conv()}, Mean(), {"a": 0, "b": 1, "c": 0}).eval())
    stepper(Branches({"a": writing, "b": conv()}, Mean(), {"a": 0, "b": 1}).eval())
    with pytest.raises(KitError, match="branch 'b' of Branches takes no input"):
        stepper(Branches({"a": conv(), "b": conv()}, Mean(), {"a": 0, "b": ()}).eval())


def test_a_stream_that_moves_nothing_is_named() -> None:
    still = conv(2)
    nn.init.zeros_(still.weight)
    with pytest.raises(KitError, match=r"does not move with \(1, 2, 4, 8, 9\)"):
        stepper(Branches({"rgb": conv(), "flow": still}, Mean()))
