"""What the library's states keep: whether a module gives its state, and whether the state put back restores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kit.equality import compare_outputs
from kit.errors import KitError
from kit.labs.modules.gallery import FRAMES, SIDE, agreement, cleaned, in_peace, split, tried
from kit.labs.modules.specimens import WINDOW, C
from kit.models.continual import stepper
from kit.regions import Branches
from kit.reprs import one_line
from kit.text import counted, markdown_table

States = dict[str, Any]  # name of a module inside -> a copy of what its get_state() gave


@one_line
@dataclass(frozen=True)
class Kept:
    """What was seen of one module's state in the middle of a clip."""

    gives: bool  # get_state() gave something
    disturbed: bool  # frames of another clip in between changed the output
    restored: bool  # a copy of the state, put back with set_state(), gave the expected output
    inside: bool  # copies of the states of all modules inside, put back one by one, gave it


def take(module: Any) -> States:
    """Copies of the states of all modules inside, as ``get_state()`` of each gives them."""
    return {name: _copied(each.get_state()) for name, each in _stateful(module)}


def put(module: Any, states: States | None) -> None:
    """Put such copies back; None, and a module that had no state yet, begin a clip."""
    for name, each in _stateful(module):
        state = (states or {}).get(name)
        if state is None:
            each.clean_state()
        else:
            each.set_state(_copied(state))


def examples() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Modules of the library by name, each with the shape of its clip."""
    import continual as co

    def conv() -> Any:
        return co.Conv3d(C, C, 3, padding=1)

    layer = co.TransformerEncoderLayerFactory(C, 2, 8, 0.0, sequence_len=WINDOW)
    tokens, video = (1, C, FRAMES), (1, C, FRAMES, SIDE, SIDE)
    own = {"batch_first": True, "embed_dim_second": True, "sequence_len": WINDOW}
    return {
        "Conv3d": (conv(), video),
        "MaxPool3d": (co.MaxPool3d(3, 1), video),
        "Delay": (co.Delay(2), video),
        "LSTM": (co.LSTM(C, 3), tokens),
        "SingleOutputMultiheadAttention": (co.SingleOutputMultiheadAttention(C, 2, **own), tokens),
        "RecyclingPositionalEncoding": (co.RecyclingPositionalEncoding(C, 17), tokens),
        "Sequential": (co.Sequential(conv(), nn.ReLU(), conv()), video),
        "Residual": (co.Residual(conv()), video),
        "BroadcastReduce": (co.BroadcastReduce(conv(), co.Delay(1)), video),
        "Conditional": (co.Conditional(lambda *_: True, conv(), conv()), video),
        "TransformerEncoder": (co.TransformerEncoder(layer, 1), tokens),
    }


def kept() -> dict[str, Kept]:
    """What was seen of the state of each of :func:`examples`."""
    with in_peace():
        return {
            name: seen(module.eval(), torch.randn(shape), torch.randn(shape))
            for name, (module, shape) in examples().items()
        }


def seen(module: Any, one: Tensor, two: Tensor) -> Kept:
    """Stop in the middle of one clip, let frames of another come, put the state back, and go on."""
    half = one.shape[2] // 2 + 1
    found: Any = None

    def after(between: Callable[[], None]) -> Tensor:
        cleaned(module)
        for t in range(half):
            module.forward_step(one[:, :, t])
        between()
        out: Tensor = module.forward_step(one[:, :, half])
        return out.clone()

    def others() -> None:
        for t in range(3):
            module.forward_step(two[:, :, t])

    def and_back() -> None:
        nonlocal found
        found = _copied(module.get_state())
        others()
        module.set_state(found)

    def each_back() -> None:
        states = take(module)
        others()
        put(module, states)

    expected = after(lambda: None)
    same = [_same(expected, partial(after, between)) for between in (others, and_back, each_back)]
    return Kept(found is not None, not same[0], same[1], same[2])


def kept_table(found: Mapping[str, Kept]) -> str:
    """A row for each module, as Markdown."""
    rows = [
        (
            name,
            "a state" if each.gives else "**None**",
            *("yes" if yes else "**no**" for yes in (each.disturbed, each.restored, each.inside)),
        )
        for name, each in found.items()
    ]
    head = (
        "module",
        "get_state() gives",
        "another clip disturbs it",
        "set_state(copy) restores it",
        "copies of all states inside restore it",
    )
    return markdown_table(head, "lllll", rows)


def kept_told(found: Mapping[str, Kept]) -> str:
    """For which modules a state can be taken out and put back, in sentences."""
    said = {
        "`get_state()` and a copy put back with `set_state()` restore": [
            n for n, each in found.items() if each.restored
        ],
        "`get_state()` gives None, and `set_state()` restores nothing, of": [
            n for n, each in found.items() if not each.gives and not each.restored
        ],
        "`get_state()` gives a state that does not restore": [
            n for n, each in found.items() if each.gives and not each.restored
        ],
        "Not even the states of all modules inside restore": [n for n, each in found.items() if not each.inside],
    }
    return "\n".join(f"- {text}: {', '.join(names)}." for text, names in said.items() if names)


# Two special cases ----------------------------------------------------------------------------------------------------


@one_line
@dataclass(frozen=True)
class Switched:
    """A ``Conditional`` whose condition changes in the middle of a clip."""

    silent: int  # steps without an output after the change
    wrong: int  # outputs after the change that are not those of the side on the whole clip
    outputs: int  # outputs after the change


def switched(change: int = 5) -> Switched:
    """Let a condition be true for the first frames of a clip, and false from frame ``change`` on."""
    import continual as co

    with in_peace():
        clip, now = torch.randn(1, C, 12, SIDE, SIDE), {"true": True}
        sides = [co.Conv3d(C, C, 3, padding=1).eval() for _ in range(2)]
        net, outs = co.Conditional(lambda *_: now["true"], *sides), []
        for t in range(clip.shape[2]):
            now["true"] = t < change
            outs.append(net.forward_step(clip[:, :, t]))
        want = sides[1](clip)
    late = list(enumerate(outs))[change:]
    given = [(want[:, :, t - 1], out) for t, out in late if out is not None]
    return Switched(len(late) - len(given), sum(not compare_outputs(*pair).equal for pair in given), len(given))


def switched_told(found: Switched) -> str:
    """What a change of the condition costs, in a sentence."""
    when = "When the condition changes in the middle of a clip"
    if not found.silent and not found.wrong:
        return f"{when}, each output is that of the new side on the whole clip."
    return (
        f"{when}, the new side has seen none of the earlier frames: {counted(found.silent, 'step')} without an output, "
        f"and {found.wrong} of the {counted(found.outputs, 'output')} after that not those of this side on the whole "
        "clip. A step runs one side only, so the state of the other side stands still."
    )


def excited() -> dict[str, Any]:
    """Squeeze and excitation by the mean of a window, on a clip of that window and on a longer one.

    Returns:
        What was tried -> an :class:`~kit.labs.modules.gallery.Agreement` with ``forward``, or what was raised.
    """
    import continual as co

    with in_peace():
        clip = torch.randn(1, C, FRAMES, SIDE, SIDE)
        mean = co.AdaptiveAvgPool3d((1, 1, 1), kernel_size=WINDOW)
        net = co.Residual(co.Sequential(mean, co.Conv3d(C, C, 1), nn.Sigmoid()), reduce="mul").eval()

        def steps(frames: int, **options: Any) -> Any:
            cleaned(net)
            given = clip[:, :, :frames]
            whole, outs = split(net.forward(given)), split(net.forward_steps(given, **options))
            return agreement(whole, outs)

        tries: dict[str, Callable[[], Any]] = {
            f"a clip of {WINDOW} frames": partial(steps, WINDOW),
            f"a clip of {FRAMES} frames": partial(steps, FRAMES),
            f"a clip of {FRAMES} frames, pad_end=True": partial(steps, FRAMES, pad_end=True),
            "the kit's stepper": _excited_by_kit,
        }
        return {name: tried(call) for name, call in tries.items()}


def excited_told(found: Mapping[str, Any]) -> str:
    """What :func:`excited` found, a line for each try."""
    lines = [f"- {name}: {each}{'' if str(each).endswith('.') else '.'}" for name, each in found.items()]
    head = f"Squeeze and excitation by the mean of {WINDOW} frames, the outputs of its steps against `forward`:"
    return "\n".join([f"{head}\n", *lines])


def _excited_by_kit() -> str:
    scale = nn.Sequential(nn.AvgPool3d((WINDOW, SIDE, SIDE), 1), nn.Conv3d(C, C, 1), nn.Sigmoid())
    try:
        stepper(Branches({"scale": scale, "clip": nn.Identity()}, _product))
    except KitError as error:
        return f"refuses it: {error}"
    return "takes it"


def _product(outputs: list[Tensor]) -> Tensor:
    return outputs[0] * outputs[1]


def _stateful(module: Any) -> Iterator[tuple[str, Any]]:
    """The modules inside that give a state of their own, this one included; containers have none of their own."""
    import continual as co

    for name, each in module.named_modules():
        if getattr(type(each), "get_state", co.CoModule.get_state) is not co.CoModule.get_state:
            yield name, each


def _copied(state: Any) -> Any:
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, state)


def _same(expected: Tensor, call: Callable[[], Tensor]) -> bool:
    answer = tried(lambda: compare_outputs(expected, call()).equal)
    return answer is True


def in_turns(step: Callable[[str, Tensor], Any], clips: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Frames of several clips in turns: what ``step(name of the clip, frame)`` gave for each."""
    outs: dict[str, list[Any]] = {name: [] for name in clips}
    for t in range(min(clip.shape[2] for clip in clips.values())):
        for name, clip in clips.items():
            outs[name].append(step(name, clip[:, :, t]))
    return outs


def turns_agree(outs: Mapping[str, Sequence[Any]], want: Mapping[str, Tensor]) -> dict[str, int]:
    """Of each clip, how many steps of :func:`in_turns` were wrong: another output, one too early, or none.

    Args:
        want: of each clip, ``(N, C, T', H, W)``: the outputs of its last ``T'`` steps. Those before give none.
    """
    return {name: sum(map(_wrong, each, _due(len(each), want[name]))) for name, each in outs.items()}


def _due(steps: int, want: Tensor) -> list[Tensor | None]:
    return [None] * (steps - want.shape[2]) + list(want.unbind(2))


def _wrong(out: Any, due: Tensor | None) -> bool:
    if out is None or due is None:
        return out is not due
    return not compare_outputs(due, out).equal


def turns_told(wrong: Mapping[str, Mapping[str, int]]) -> str:
    """What two clips in turns gave, a line for each way to keep their states.

    Args:
        wrong: how the states were kept -> from :func:`turns_agree`.
    """
    return "\n".join(
        f"- {how[0].upper()}{how[1:]}: wrong steps: {', '.join(f'{n} of clip {name}' for name, n in counts.items())}."
        for how, counts in wrong.items()
    )
