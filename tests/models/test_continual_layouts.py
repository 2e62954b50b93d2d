"""Steps of layers in one and two dimensions over time, of tokens, and of attention over a sliding window."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import KitError, ShapeError
from kit.models.continual import Crop, SlidingAttention, stepper
from kit.models.continual.layout import Layout, layout_of
from kit.models.init import keep_signal
from kit.regions import Branches, Concat, Product
from kit.workloads.continual import OneStep

FLAT, LINE, TOKENS = Layout(4), Layout(3), Layout(3, 1)
C = 4


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def block(norm_first: bool = False, layers: int = 1, **options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first, **options)
    return layer if layers == 1 else nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def tokens(layer: nn.Module, window: int = 5) -> nn.Module:
    return nn.Sequential(nn.Linear(C, 8), SlidingAttention(layer, window), nn.LayerNorm(8), nn.GELU())


MODELS: dict[str, tuple[Callable[[], nn.Module], Layout]] = {
    "line": (lambda: nn.Sequential(nn.Conv1d(C, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU()), LINE),
    "line, dilated and grouped": (lambda: nn.Conv1d(C, 8, 2, dilation=3, groups=2, bias=False), LINE),
    "line, strided": (lambda: nn.Sequential(nn.Conv1d(C, C, 3, 2), nn.Conv1d(C, C, 2)), LINE),
    "line, repeated": (lambda: nn.Conv1d(C, C, 3, padding=2, padding_mode="replicate"), LINE),
    "line, same": (lambda: nn.Conv1d(C, C, 5, padding="same"), LINE),
    "line, max": (lambda: nn.MaxPool1d(3, 1, 1, dilation=2), LINE),
    "line, max, ceil": (lambda: nn.MaxPool1d(3, 2, ceil_mode=True), LINE),
    "line, mean": (lambda: nn.AvgPool1d(4, 2, 1, count_include_pad=False), LINE),
    "line, residual": (lambda: Branches({"a": nn.Conv1d(C, C, 3), "b": Crop(1)}, sum), LINE),
    "flat": (lambda: nn.Conv2d(C, 8, 3, padding=1), FLAT),
    "flat, strided in space": (lambda: nn.Conv2d(C, 8, (2, 5), (1, 2), (0, 2), (2, 1)), FLAT),
    "flat, reflect in space": (lambda: nn.Conv2d(C, 8, (2, 5), padding=(0, 2), padding_mode="reflect"), FLAT),
    "flat, max": (lambda: nn.MaxPool2d((2, 3), 1, (1, 1)), FLAT),
    "flat, mean of a divisor": (lambda: nn.AvgPool2d((2, 3), 1, (0, 1), divisor_override=5), FLAT),
    "flat, adaptive": (lambda: nn.Sequential(nn.Conv2d(C, C, 3), nn.AdaptiveAvgPool2d((None, 1))), FLAT),
    "flat, norm and linear": (lambda: nn.Sequential(nn.Conv2d(C, C, (3, 1)), nn.LayerNorm(10), nn.Linear(10, 3)), FLAT),
    "flat, branches": (lambda: Branches({"a": nn.Conv2d(C, C, 3, padding=1), "b": nn.Identity()}, Concat(-1)), FLAT),
    "linear within frames": (lambda: nn.Sequential(nn.Conv3d(C, C, (2, 1, 1)), nn.Linear(10, 6)), Layout()),
    "factors": (
        lambda: Branches({"a": nn.AdaptiveAvgPool3d((None, 1, 1)), "b": nn.Identity()}, Product()),
        Layout(),
    ),
    "attention": (lambda: tokens(nn.MultiheadAttention(8, 2, batch_first=True)), TOKENS),
    "attention without bias": (lambda: tokens(nn.MultiheadAttention(8, 4, bias=False, batch_first=True)), TOKENS),
    "attention of one token": (lambda: tokens(block(), 1), TOKENS),
    "encoder layer": (lambda: tokens(block()), TOKENS),
    "encoder layer, norm first": (lambda: tokens(block(True, activation="gelu")), TOKENS),
    "encoder layer, a module": (lambda: tokens(block(activation=nn.ReLU())), TOKENS),
    "encoder": (
        lambda: tokens(nn.TransformerEncoder(block(), 1, nn.LayerNorm(8), enable_nested_tensor=False)),
        TOKENS,
    ),
    "a chain of windows": (lambda: nn.Sequential(tokens(block(), 3), SlidingAttention(block(), 4)), TOKENS),
    "branches of tokens": (
        lambda: Branches({"a": tokens(block()), "b": tokens(block(True))}, Concat(-1)),
        TOKENS,
    ),
}


def given(layout: Layout, frames: int = 18) -> Tensor:
    size = (2, frames, C) if layout.time == 1 else (2, C, frames, 11, 10)[: layout.rank]
    return torch.randn((*size[:3], 10)) if layout == FLAT else torch.randn(size)


@pytest.mark.filterwarnings("ignore:.*nested")
@pytest.mark.parametrize("name", MODELS)
def test_frame_by_frame(name: str) -> None:
    make, layout = MODELS[name]
    model, clip = keep_signal(make(), 0).eval(), given(layout)
    net, state, outputs = stepper(model), None, []
    assert net.layout == layout
    whole = model(clip)
    assert not inputs_without_effect(model, (clip,))
    for t in range(clip.shape[layout.time]):
        out, state = net(clip.select(layout.time, t), state)
        assert (out is not None) == net.reach.gives(t)
        outputs += [] if out is None else [out]
    found = torch.stack(outputs, layout.time)
    assert compare_outputs(whole.narrow(layout.time, 0, len(outputs)), found).equal
    assert torch.equal(net.over(clip)[0], found)
    assert len(outputs) >= 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.Linear(9, 3)), "1 is Linear.* takes in the dimension of time"),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.LayerNorm(9)), "1 is LayerNorm.* takes in the dimension of time"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm((9, 9))), "1 is LayerNorm.* time"),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.Softmax(-1)), "1 is Softmax.* takes in the dimension of time"),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3)), "Conv1d for .N, C, T. and Conv2d for"),
        (lambda: nn.Sequential(nn.Conv1d(8, 8, 3), SlidingAttention(block(), 3)), "SlidingAttention for .N, T, E."),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, (2, 3), padding="same")), "0 pads time unevenly"),
        (lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), "pads time in mode 'circular'"),
        (lambda: nn.Sequential(nn.Linear(3, 8), block()), "1 is TransformerEncoderLayer, in which every token"),
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), "SlidingAttention.layer, window"),
        (lambda: tokens(block(layers=2)), "1 is TransformerEncoder of 2 layers: the later ones attend to all outputs"),
        (lambda: nn.Sequential(SlidingAttention(block(), 3), Crop(1)), "1 is Crop"),
        (lambda: nn.Sequential(SlidingAttention(block(), 3), nn.PReLU(8)), "1 is PReLU"),
        (lambda: nn.Sequential(SlidingAttention(block(), 3), nn.SyncBatchNorm(8)), "1 is SyncBatchNorm"),
        (lambda: tokens(block(activation=torch.tanh)), "with the activation"),
        (lambda: tokens(nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)), "1 is Mult.* with bias_k"),
        (lambda: tokens(nn.MultiheadAttention(8, 2, kdim=8, vdim=4, batch_first=True)), "keys of other sizes"),
        (lambda: Branches({"a": tokens(block()), "b": tokens(block())}, Concat(1)), "merges by Concat"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*nested")
def test_what_mixes_frames_is_refused_by_name(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(KitError, match=words):
        stepper(make().eval())


def test_what_is_changed_inside_attention_is_named() -> None:
    hooked = block()
    hooked.linear1.register_forward_hook(lambda module, args, out: out + 1)
    with pytest.raises(KitError, match=r"1\.layer\.linear1 has forward hooks"):
        stepper(tokens(hooked).eval())
    other = block()
    other.norm1 = nn.RMSNorm(8)
    with pytest.raises(KitError, match="1 is TransformerEncoderLayer with RMSNorm"):
        stepper(tokens(other).eval())
    with pytest.raises(KitError, match="in training mode"):
        stepper(tokens(block()))


def test_a_wrong_step_of_attention_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tokens(block()).eval()
    heads = "kit.models.continual.attention.AttentionStep._heads"
    monkeypatch.setattr(heads, lambda step, x: x.view(*x.shape[:2], 4, -1).transpose(1, 2))
    with pytest.raises(KitError, match="steps of 1 do not give what it gives"):
        stepper(model)


def test_a_window_sees_nothing_before_it() -> None:
    model = tokens(block(), 3).eval()
    net, x = stepper(model), given(TOKENS, 9)
    other = x.clone()
    other[:, 0] = 7
    ours, theirs = net.over(x)[0], net.over(other)[0]
    assert not torch.allclose(ours[:, 0], theirs[:, 0])
    assert torch.equal(ours[:, 1:], theirs[:, 1:])


def test_sliding_attention_says_what_it_takes() -> None:
    with pytest.raises(KitError, match="batch_first=True"):
        SlidingAttention(nn.MultiheadAttention(8, 2), 3)
    with pytest.raises(KitError, match="was given Linear and 3"):
        SlidingAttention(nn.Linear(3, 3), 3)
    with pytest.raises(ShapeError, match="2 tokens are fewer than a window of 3"):
        SlidingAttention(block(), 3)(torch.randn(1, 2, 8))


def test_frames_that_do_not_fit_are_told_in_their_own_dimensions() -> None:
    net = stepper(nn.Conv1d(3, 4, 3))
    with pytest.raises(ShapeError, match=r"takes a frame \(N, C\), but was given \(1, 3, 1\)"):
        net(torch.randn(1, 3, 1))
    with pytest.raises(ShapeError, match=r"an example clip is \(N, C, T\)"):
        stepper(nn.Conv1d(3, 4, 3), torch.randn(1, 3, 9, 8))
    tokens_net = stepper(tokens(block()).eval())
    with pytest.raises(ShapeError, match=r"takes a frame \(N, E\)"):
        tokens_net(torch.randn(1, 9, C))


def test_layers_of_the_library() -> None:
    co = pytest.importorskip("continual")
    for module, layout in (
        (co.Conv1d(C, C, 3, padding=1), LINE),
        (co.Conv2d(C, C, 3, padding=(0, 1)), FLAT),
        (nn.Sequential(co.Conv3d(C, C, 3), co.Linear(C, 3, channel_dim=1)), Layout()),
    ):
        module, clip = keep_signal(module, 0).eval(), given(layout)
        out, _ = stepper(module).over(clip)
        assert compare_outputs(module(clip)[:, :, : out.shape[2]], out).equal
    with pytest.raises(KitError, match=r"1 is Linear.* takes in the dimension of time"):
        stepper(nn.Sequential(co.Conv1d(C, C, 3), co.Linear(C, 3, channel_dim=2)).eval())


def test_a_step_of_tokens_is_a_workload() -> None:
    clip = given(TOKENS, 7)
    model = tokens(block()).eval()
    step = OneStep(stepper(model), clip)
    assert [tuple(x.shape) for x in step.frames] == [(2, C)]
    assert compare_outputs(model(clip)[:, -1], step(*step.frames)[0]).equal


def test_layouts_in_words() -> None:
    assert (Layout().clip, Layout().frame) == ("(N, C, T, H, W)", "(N, C, H, W)")
    assert (FLAT.clip, FLAT.frame, LINE.clip, LINE.frame) == ("(N, C, T, W)", "(N, C, W)", "(N, C, T)", "(N, C)")
    assert (TOKENS.clip, TOKENS.frame) == ("(N, T, E)", "(N, E)")
    assert layout_of([nn.Dropout2d(), nn.ReLU()], "x") == Layout()
