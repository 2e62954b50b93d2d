"""Networks of torch through the library's converters and the kit's ``stepper``: what each takes, and its outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit.errors import KitError
from kit.labs.continual.sentences import kernels_in_words, speed_told
from kit.labs.modules.gallery import FRAMES, SIDE, Agreement, agreement, in_peace, split
from kit.labs.modules.specimens import C
from kit.measuring.comparison import Comparison
from kit.models.continual import stepper
from kit.regions import Branches, Concat
from kit.reprs import one_line
from kit.text import markdown_table

VIDEO, SIGNAL = (1, C, FRAMES, SIDE, SIDE), (1, C, FRAMES)


class Shortcut(nn.Module):
    """A network whose ``forward`` is written by hand: a convolution beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + x
        return out


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Networks of torch by name, each with the shape of its clip."""
    conv, encoder = nn.Conv3d(C, C, 3), nn.TransformerEncoderLayer(C, 2, 8, 0.0, batch_first=True)
    region = Branches({"one": nn.Conv3d(C, C, 1), "three": nn.Conv3d(C, C, 3, padding=1)}, Concat(1))
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "Conv3d": (nn.Conv3d(C, C, 3, (2, 1, 1), 1), VIDEO),
        "Conv3d, dilation 2": (nn.Conv3d(C, C, 3, dilation=(2, 1, 1)), VIDEO),
        "Conv3d, padding='same'": (nn.Conv3d(C, C, 3, padding="same"), VIDEO),
        "Conv3d, replicate": (nn.Conv3d(C, C, 3, padding=1, padding_mode="replicate"), VIDEO),
        "Conv3d, circular in space": (nn.Conv3d(C, C, 3, padding=(0, 1, 1), padding_mode="circular"), VIDEO),
        "Conv1d": (nn.Conv1d(C, C, 3), SIGNAL),
        "Conv2d": (nn.Conv2d(C, C, 3), VIDEO[:4]),
        "MaxPool3d, padding 1": (nn.MaxPool3d(3, 1, 1), VIDEO),
        "MaxPool3d, dilation 2": (nn.MaxPool3d(3, 1, dilation=(2, 1, 1)), VIDEO),
        "AvgPool3d, padding not counted": (nn.AvgPool3d(3, 1, 1, count_include_pad=False), VIDEO),
        "AvgPool3d, divisor 5": (nn.AvgPool3d(3, 1, divisor_override=5), VIDEO),
        "AdaptiveAvgPool3d((None, 1, 1))": (nn.AdaptiveAvgPool3d((None, 1, 1)), VIDEO),
        "Sequential": (nn.Sequential(conv, nn.BatchNorm3d(C), nn.ReLU(), nn.Conv3d(C, C, 3, padding=1)), VIDEO),
        "branches (kit.Branches)": (region, VIDEO),
        "a forward of its own": (Shortcut(), VIDEO),
        "GroupNorm": (nn.GroupNorm(2, C), VIDEO),
        "Softmax over time": (nn.Softmax(2), VIDEO),
        "Linear over the last axis": (nn.Linear(SIDE, 3), VIDEO),
        "LSTM": (nn.LSTM(C, 3, batch_first=True), SIGNAL),
        "TransformerEncoder": (nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False), SIGNAL),
        "Flatten": (nn.Flatten(), VIDEO),
    }
    return {name: (net.eval(), shape) for name, (net, shape) in found.items()}


@one_line
@dataclass(frozen=True)
class Taken:
    """What one converter made of one network: how its steps agree with the network on the clip, or why not taken."""

    agreement: Agreement | None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``equal``, ``wrong`` (taken, and other outputs), or ``refused``, which is also a step that fails."""
        if self.agreement is None:
            return "refused"
        return "equal" if self.agreement.equality.equal else "wrong"

    def __str__(self) -> str:
        if self.agreement is None:
            return self.reason
        return f"✓ {self.agreement}" if self.agreement.equality.equal else f"✗ WRONG, {self.agreement}"


def converted(nets: Mapping[str, tuple[nn.Module, tuple[int, ...]]]) -> dict[str, tuple[Taken, Taken]]:
    """Each network by ``co.continual`` and by the kit's ``stepper``: its steps against it on a clip of noise.

    The library gets a copy: it changes pointwise layers in place.
    """
    with in_peace():
        return {
            name: tuple(_taken(how, net, torch.randn(shape) - 1) for how in (by_continual, by_stepper))  # type: ignore[misc]
            for name, (net, shape) in nets.items()
        }


def by_continual(net: nn.Module, clip: Tensor) -> list[Any]:
    """The outputs of the steps that ``co.continual`` makes; it does not take everything."""
    import continual as co

    module = co.continual(copy.deepcopy(net))
    return _given(module.forward_step(frame) for frame in clip.unbind(2))


def by_stepper(net: nn.Module, clip: Tensor) -> list[Any]:
    """The outputs of the kit's steps.

    Raises: as :func:`kit.models.continual.stepper`.
    """
    steps, state, outs = stepper(net, clip), None, []
    for frame in clip.unbind(2):
        out, state = steps(frame, state)
        outs.append(out)
    return _given(outs)


def by_forward_stepping(net: nn.Module, clip: Tensor) -> list[Any]:
    """The outputs of ``co.forward_stepping``, which takes everything."""
    import continual as co

    module: Any = co.forward_stepping(copy.deepcopy(net))
    return _given(module.forward_step(frame) for frame in clip.unbind(2))


def stepped_as_is() -> dict[str, tuple[Taken, Taken]]:
    """``co.forward_stepping`` of a convolution that sees one frame, and of those that see three, beside ``stepper``."""
    cases = {"kernel 1x1x1": (1, 0), "kernel 3x3x3": (3, 0), "kernel 3x3x3, padding 1": (3, 1)}
    with in_peace():
        clip = torch.randn(VIDEO)
        nets = {name: nn.Conv3d(C, C, kernel, padding=pad).eval() for name, (kernel, pad) in cases.items()}
        return {
            name: (_taken(by_forward_stepping, net, clip), _taken(by_stepper, net, clip)) for name, net in nets.items()
        }


def converted_table(found: Mapping[str, tuple[Taken, Taken]], library: str = "co.continual") -> str:
    """A row for each network, as Markdown.

    Args:
        library: what of the library made the first of each pair.
    """
    rows = [(name, *(str(each).replace("|", "&#124;") for each in pair)) for name, pair in found.items()]
    return markdown_table(("network", library, "kit's stepper"), "lll", rows)


def converted_told(found: Mapping[str, tuple[Taken, Taken]], library: str = "co.continual") -> str:
    """What each side takes, and what it takes and computes wrongly, in sentences."""
    lines = []
    for i, name in enumerate((library, "the kit's stepper")):
        sides = {network: pair[i].verdict for network, pair in found.items()}
        equal, wrong, refused = ([n for n in sides if sides[n] == each] for each in ("equal", "wrong", "refused"))
        told = f"- **{name}** gives the outputs of {len(equal)} of {len(sides)} networks, and takes {len(refused)} not."
        told += f" Other outputs, without a warning: **{', '.join(wrong)}**." if wrong else " None has other outputs."
        lines.append(told)
    return "\n".join(lines)


def _taken(how: Callable[[nn.Module, Tensor], list[Any]], net: nn.Module, clip: Tensor) -> Taken:
    try:
        outs = how(net, clip)
    except (KitError, AssertionError, TypeError, ValueError, RuntimeError, IndexError) as error:
        how_told = "refused" if isinstance(error, KitError | AssertionError) else f"fails, {type(error).__name__}"
        return Taken(None, f"{how_told}: {_first_sentence(str(error))}")
    answer = agreement(_whole(net, clip), outs)
    return Taken(answer) if isinstance(answer, Agreement) else Taken(None, str(answer))


def _whole(net: nn.Module, clip: Tensor) -> list[Any]:
    """What torch's network gives on the clip: batch, time, channels where it is recurrent or attends."""
    if isinstance(net, nn.RNNBase):
        return split(net(clip.transpose(1, 2))[0].transpose(1, 2))
    if isinstance(net, nn.TransformerEncoder):
        return split(net(clip.transpose(1, 2)).transpose(1, 2))
    whole = net(clip)
    return split(whole) if whole.ndim > 2 else [whole]


def _given(outs: Any) -> list[Any]:
    return [out for out in outs if isinstance(out, Tensor)]


def _first_sentence(text: str) -> str:
    text = " ".join(text.split()).partition(". ")[0].rstrip(".")
    return text if len(text) < 120 else f"{text[:117]}..."


def changed(net: nn.Module) -> list[str]:
    """The layers of a network whose ``forward`` was replaced, as the library's converters do it in place."""
    return [f"{name} ({type(each).__name__})" for name, each in net.named_modules() if "forward" in vars(each)]


def changed_told(names: Sequence[str]) -> str:
    """Whether a converter left the network that it was given as it was, in a sentence."""
    if not names:
        return "The network that was given is as it was."
    return (
        f"The network that was given is another one now: {', '.join(names)} got a `forward` of its own. Give "
        "`co.continual` a copy, as in `co.continual(copy.deepcopy(net))`."
    )


def modes_agree(module: Any, frames: Sequence[Tensor]) -> dict[str, bool]:
    """The ways to call a step of the library, and whether each gives what ``forward_step`` gives.

    Also what a ``with`` inside another leaves behind: the library keeps one earlier mode, and no stack of them.
    """
    import continual as co

    mode = co.call_mode
    before = mode.cur, mode.prev

    def steps(call: Callable[[Tensor], Any]) -> list[Any]:
        module.clean_state()
        return _given(call(frame) for frame in frames)

    def same(outs: list[Any]) -> bool:
        answer = agreement(want, outs, all_in=True)
        return isinstance(answer, Agreement) and answer.equality.equal

    def by_property(frame: Tensor) -> Any:
        module.call_mode = "forward_step"
        try:
            return module(frame)
        finally:
            module.call_mode = "forward"

    def by_context(frame: Tensor) -> Any:
        with co.call_mode("forward_step"):
            return module(frame)

    want = steps(module.forward_step)
    found = {"net.call_mode = 'forward_step'": same(steps(by_property)), "with co.call_mode": same(steps(by_context))}
    try:
        with co.call_mode("forward_step"), co.call_mode("forward_steps"):
            pass
        found["with co.call_mode, after one with inside another"] = same(steps(_quietly(by_context)))
    finally:
        mode.cur, mode.prev = before
    return found


def _quietly(call: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def answered(frame: Tensor) -> Any:
        try:
            return call(frame)
        except (AssertionError, KeyError, RuntimeError):
            return None

    return answered


def modes_told(found: Mapping[str, bool]) -> str:
    """Which ways to call a step give the step, in a sentence for each."""
    said = {True: "is a step", False: "is **no step** any more"}
    return "\n".join(f"- `{name}`: a plain call {said[same]}." for name, same in found.items())


def steps_told(steps: Comparison) -> str:
    """How fast the kit's step is against the library's, as PyTorch chooses kernels and on equal ones, and both kernels.

    Args:
        steps: from :func:`kit.workloads.step_parts.step_times`.
    """
    ran = {name: kernels_in_words(steps[name].kernels or {}) for name in ("library", "kit")}
    lines = [
        speed_told(steps, "kit", "as PyTorch chooses kernels, the kit's step", "the library's", "library"),
        speed_told(steps, "kit_onednn", "both on oneDNN, the kit's step", "the library's", "library_onednn"),
        f"As PyTorch chooses, the library's convolutions ran on {ran['library']}, and the kit's on {ran['kit']}.",
    ]
    return "\n".join(f"- {line}" for line in lines)
