"""What the gallery tries of the library continual-inference: its modules, with the settings that show how they differ.

A clip is ``(N, C, T)``, ``(N, C, T, S)`` or ``(N, C, T, H, W)``, with ``N = 2``, ``C = 4``, ``T = 9`` and sides of 5.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from kit.reprs import one_line

C, WINDOW = 4, 4  # channels; frames or tokens that attention and global pools look at
Clips = Callable[[Tensor], Any]  # from a clip to the output on it

MAX_PADS_ZEROS = "its first windows hold zeros, where torch pads with -infinity"
INDEX = "its buffer is written at an index modulo the kernel, and read as if it held all dilated frames"
AVERAGES_ZEROS = "its steps count padding as zeros, whatever count_include_pad says"
DIVISOR = "its steps divide each frame by divisor_override, and then again by the number of frames"
UNDILATED = "forward is torch's, which has no dilation; the steps have one, by the same index as those of MaxPool3d"
WHOLE_CLIP = "forward pools over the whole clip, and a step over kernel_size frames"
QUERIES = "the delay counts from the query's position, and not the tokens that must have come"
FILLS = "padding in time has an option of its own, temporal_fill, which is zeros if nobody sets it"
RUNS_OUT = "pad_end lets the delay of the residual run out, and the convolution beside it does not pad"
ONE_SIDE = "pad_end is not handed on to the side that runs, and the delay before the faster side is not counted"
NO_DELAY = "it does not count the frames that it leaves out"
TWICE = "auto_shrink waits twice as long as the delay that it tells"
REMEMBERS = "its hidden state remembers every frame"
WRAPS = "the buffer of its residual holds as many tokens as the window, and its index returns to 0 one token too early"


@one_line
@dataclass(frozen=True)
class Specimen:
    """A module of the library with its settings, and what it is compared with."""

    name: str  # in the library
    case: str  # the settings
    kind: str
    make: Callable[[], Any]
    axes: int = 3  # of a clip after its channels: time, and the rest
    torch: Callable[[Any], Clips] | None = None  # torch's module with the weights of this one, on a clip
    window: int = 0  # a step is compared with forward on its last frames; 0: with forward on the clip
    every: bool = False  # a step gives the outputs of all positions of its window
    streams: int = 0  # inputs that it takes as a list; 0: it takes one tensor
    why: str = ""  # the reason, in the source of the library; told only where a difference was measured


def torch_like(kind: type[nn.Module], *args: Any, **options: Any) -> Callable[[Any], Clips]:
    """torch's module of this class with the weights of the library's one."""

    def loaded(module: Any) -> nn.Module:
        twin = kind(*args, **options)
        twin.load_state_dict(module.state_dict())
        return twin.eval()

    return loaded


def specimens() -> Iterator[Specimen]:
    """Everything in the library that is a module or makes one."""
    yield from _convolutions()
    yield from _pools()
    yield from _pointwise()
    yield from _containers()
    yield from _recurrent()
    yield from _attention()


def _convolutions() -> Iterator[Specimen]:
    import continual as co

    for axes in (1, 2, 3):
        make, twin = getattr(co, f"Conv{axes}d"), getattr(nn, f"Conv{axes}d")
        cases: dict[str, dict[str, Any]] = {"kernel 3": {}, "kernel 3, padding 1": {"padding": 1}}
        if axes == 3:
            cases |= {
                "kernel 3, padding 1, stride 2": {"padding": 1, "stride": 2},
                "kernel 3, 2 groups": {"groups": 2},
                "kernel 3, dilation 2 in space": {"dilation": (1, 2, 2)},
                "kernel 3, dilation 2 in time": {"dilation": (2, 1, 1)},
                "padding 1, replicate": {"padding": 1, "padding_mode": "replicate"},
                "padding 1, replicate, temporal_fill": {"padding": 1, "padding_mode": "replicate"},
                "padding 1, circular": {"padding": 1, "padding_mode": "circular"},
            }
        for case, options in cases.items():
            yield Specimen(
                f"Conv{axes}d",
                case,
                "convolution",
                partial(make, C, C, 3, **options, **({"temporal_fill": "replicate"} if "fill" in case else {})),
                axes,
                torch_like(twin, C, C, 3, **options),
                why=FILLS if "replicate" in case else "",
            )


def _pools() -> Iterator[Specimen]:
    import continual as co

    for name in ("MaxPool", "AvgPool"):
        for axes in (1, 2, 3):
            cases: dict[str, tuple[dict[str, Any], str]] = {
                "kernel 3": ({}, ""),
                "kernel 3, padding 1": ({"padding": 1}, MAX_PADS_ZEROS if name == "MaxPool" else ""),
            }
            if axes == 3:
                cases["kernel 3, stride 2"] = ({"stride": 2}, "")
            if name == "MaxPool":
                cases["padding 1, temporal_fill neg_inf"] = ({"padding": 1, "temporal_fill": "neg_inf"}, "")
                cases["kernel 3, dilation 2"] = ({"dilation": (2, *[1] * (axes - 1))}, INDEX)
            elif axes == 3:
                cases["padding 1, not counted"] = ({"padding": 1, "count_include_pad": False}, AVERAGES_ZEROS)
                cases["kernel 3, divisor 5"] = ({"divisor_override": 5}, DIVISOR)
                cases["kernel 3, dilation 2"] = ({"dilation": (2, 1, 1)}, UNDILATED)
            for case, (options, why) in cases.items():
                own = {"stride": 1} | options
                taken = own.keys() - {"temporal_fill"} - ({"dilation"} if name == "AvgPool" else set())
                make, twin = getattr(co, f"{name}{axes}d"), getattr(nn, f"{name}{axes}d")
                yield Specimen(
                    f"{name}{axes}d",
                    case,
                    "pool",
                    partial(make, 3, **own),
                    axes,
                    torch_like(twin, 3, **{key: value for key, value in own.items() if key in taken}),
                    why=why,
                )
    for name in ("AdaptiveAvgPool", "AdaptiveMaxPool"):
        for axes in (2, 3):
            make, twin = getattr(co, f"{name}{axes}d"), getattr(nn, f"{name}{axes}d")
            for case, window, why in (("on windows", WINDOW, ""), ("on a longer clip", 0, WHOLE_CLIP)):
                yield Specimen(
                    f"{name}{axes}d",
                    case,
                    "pool",
                    partial(make, (1,) * axes, kernel_size=WINDOW),
                    axes,
                    torch_like(twin, (1,) * axes),
                    window,
                    why=why,
                )


def _pointwise() -> Iterator[Specimen]:
    import continual as co

    makers: dict[str, tuple[Callable[[], Any], Clips]] = {
        "Add": (lambda: co.Add(2.0), lambda x: x + 2),
        "Multiply": (lambda: co.Multiply(2.0), lambda x: x * 2),
        "Constant": (lambda: co.Constant(2.0), lambda x: x * 0 + 2),
        "Zero": (co.Zero, lambda x: x * 0),
        "One": (co.One, lambda x: x * 0 + 1),
        "Identity": (co.Identity, nn.Identity()),
        "Lambda": (lambda: co.Lambda(nn.Sigmoid()), nn.Sigmoid()),
    }
    for name, (make, twin) in makers.items():
        yield Specimen(name, "", "each frame", make, torch=partial(_given, twin))
    yield Specimen("Linear", "over channels", "each frame", lambda: co.Linear(C, 3, channel_dim=1), torch=_linear)
    yield Specimen(
        "Linear", "over the last axis", "each frame", lambda: co.Linear(5, 3), torch=torch_like(nn.Linear, 5, 3)
    )
    yield Specimen("Reshape", "", "each frame", lambda: co.Reshape(2, C * 25), torch=lambda _: _reshaped)
    yield Specimen("Delay", "2", "over time", lambda: co.Delay(2))
    yield Specimen("Delay", "2, auto_shrink", "over time", lambda: co.Delay(2, auto_shrink=True), why=TWICE)
    yield Specimen("Skip", "2", "over time", lambda: co.Skip(2), torch=lambda _: lambda x: x[:, :, 2:], why=NO_DELAY)


def _given(twin: Clips, module: Any) -> Clips:
    return twin


def _linear(module: Any) -> Clips:
    return lambda x: nn.functional.linear(x.movedim(1, -1), module.weight, module.bias).movedim(-1, 1)


def _reshaped(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2).transpose(1, 2)  # (N, C, T, H, W) -> (N, C * H * W, T)


def _containers() -> Iterator[Specimen]:
    import continual as co

    def conv(kernel: int = 3, padding: int = 1) -> Any:
        return co.Conv3d(C, C, (kernel, 3, 3), padding=(padding, 1, 1))

    def unpadded(how: bool | str) -> Any:
        return co.Residual(conv(3, 0), residual_shrink=how)

    def excited(window: int) -> Any:
        mean = co.AdaptiveAvgPool3d((1, 1, 1), kernel_size=window)
        return co.Residual(co.Sequential(mean, nn.Sigmoid()), reduce="mul")

    def conditional(side: bool) -> Any:
        return co.Conditional(lambda module, x: side, conv(), conv(3, 0))

    yield Specimen("Sequential", "padded, and not", "container", lambda: co.Sequential(conv(), nn.ReLU(), conv(2, 0)))
    yield Specimen("BroadcastReduce", "delays 0 and 1", "container", lambda: co.BroadcastReduce(conv(1, 0), conv()))
    yield Specimen("Broadcast", "2 streams", "container", lambda: co.Broadcast(2))
    yield Specimen("Parallel", "delays 1 and 0", "container", lambda: co.Parallel(conv(), conv(1, 0)), streams=2)
    yield Specimen("ParallelDispatch", "[1, 0, 0]", "container", lambda: co.ParallelDispatch([1, 0, 0]), streams=2)
    for how in ("sum", "concat", "mul", "max"):
        yield Specimen("Reduce", how, "container", partial(co.Reduce, how), streams=2)
    yield Specimen("Residual", "padded", "container", lambda: co.Residual(conv()))
    ways: dict[str, bool | str] = {"shrunk": True, "lagging": "lagging", "leading": "leading"}
    for text, shrink in ways.items():
        yield Specimen(
            "Residual",
            f"not padded, {text}",
            "container",
            partial(unpadded, shrink),
            why=RUNS_OUT,
        )
    scale = "forward scales a clip by its mean, and a step by that of a window: they meet on clips of one window only"
    for window in (9, WINDOW):
        yield Specimen(
            "Residual",
            f"squeeze and excite, window {window} of 9",
            "container",
            partial(excited, window),
            why=scale,
        )
    for side in (True, False):
        yield Specimen(
            "Conditional",
            f"always {side}".lower(),
            "container",
            partial(conditional, side),
            why=ONE_SIDE,
        )


def _recurrent() -> Iterator[Specimen]:
    import continual as co

    for name in ("RNN", "LSTM", "GRU"):
        make, twin = getattr(co, name), getattr(nn, name)
        for layers in (1, 2):
            yield Specimen(
                name,
                f"{layers} layer{'s' * (layers > 1)}",
                "recurrent",
                partial(make, C, 3, layers),
                1,
                partial(_over_time, torch_like(twin, C, 3, layers, batch_first=True)),
                why=REMEMBERS,
            )


def _over_time(twin: Callable[[Any], Clips], module: Any) -> Clips:
    recurrent = twin(module)
    return lambda x: recurrent(x.transpose(1, 2))[0].transpose(1, 2)


def _attention() -> Iterator[Specimen]:
    import continual as co

    own: dict[str, Any] = {"embed_dim_second": True, "batch_first": True, "forward_returns_attn_mask": False}
    layer: dict[str, Any] = {"d_model": C, "nhead": 2, "dim_feedforward": 8, "dropout": 0.0, "sequence_len": WINDOW}

    def encoder(layers: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return co.TransformerEncoder(co.TransformerEncoderLayerFactory(**layer), num_layers=layers)

    def attention(module: Any) -> Clips:
        twin: Any = torch_like(nn.MultiheadAttention, C, 2, batch_first=True)(module)

        def last(x: Tensor) -> Tensor:
            tokens = x.transpose(1, 2)
            query = tokens[:, -1:] if type(module) is co.SingleOutputMultiheadAttention else tokens
            out: Tensor = twin(query, tokens, tokens)[0]
            return out.transpose(1, 2)

        return last

    yield Specimen(
        "SingleOutputMultiheadAttention",
        f"window {WINDOW}",
        "attention",
        lambda: co.SingleOutputMultiheadAttention(C, 2, sequence_len=WINDOW, **own),
        1,
        attention,
        WINDOW,
        why=QUERIES,
    )
    yield Specimen(
        "RetroactiveMultiheadAttention",
        f"window {WINDOW}",
        "attention",
        lambda: co.RetroactiveMultiheadAttention(C, 2, sequence_len=WINDOW, **own),
        1,
        attention,
        WINDOW,
        every=True,
    )
    for name, every in (("SingleOutputTransformerEncoderLayer", False), ("RetroactiveTransformerEncoderLayer", True)):
        make = getattr(co, name)
        yield Specimen(name, f"window {WINDOW}", "attention", partial(make, **layer), 1, None, WINDOW, every, why=WRAPS)
    for layers in (1, 2):
        yield Specimen(
            "TransformerEncoder",
            f"{layers} layer{'s' * (layers > 1)}, window {WINDOW}",
            "attention",
            partial(encoder, layers),
            1,
            None,
            WINDOW,
            why=WRAPS,
        )
    for learned in (True, False):
        yield Specimen(
            "RecyclingPositionalEncoding",
            "learned" if learned else "cyclic",
            "attention",
            partial(co.RecyclingPositionalEncoding, C, 17, learned=learned),
            1,
        )
