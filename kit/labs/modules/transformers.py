"""Transformer encoders on a stream: which steps give what a sliding window gives, and for how long."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit.equality import RTOL
from kit.errors import KitError
from kit.labs.conclusions import Claim
from kit.models.continual import SlidingAttention, stepper
from kit.reprs import one_line
from kit.text import markdown_table

Step = Callable[[Tensor], Tensor | None]  # a token (1, E) -> an output (1, E), or None
QUIZ = (
    "The library's encoder of two blocks, with PyTorch's weights, on a stream. Its outputs are those of PyTorch's "
    "encoder on a sliding window ...",
    ["for the whole stream", "at first, and then no more", "never"],
)
ONE, TWO, REPAIRED, CHAINED = "one block", "two blocks", "two blocks, index repaired", "two single-output blocks"


def encoder(layers: int, *, features: int = 16, heads: int = 2, seed: int = 0) -> nn.TransformerEncoder:
    """PyTorch's encoder of ``layers`` blocks, in eval mode, for tokens ``(N, T, features)``.

    Its weights are so large that attention is not nearly uniform, as it is with PyTorch's own initialisation.
    """
    generator = torch.Generator().manual_seed(seed)
    block = nn.TransformerEncoderLayer(features, heads, 2 * features, dropout=0.0, batch_first=True)
    net = nn.TransformerEncoder(block, layers, enable_nested_tensor=False).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1 / features**0.5, generator=generator)
    return net.requires_grad_(False)


def of_library(net: nn.TransformerEncoder, window: int) -> Any:
    """The library's encoder, with the weights of PyTorch's: of two blocks, a retroactive and a single-output one."""
    import continual as co

    build: Any = co.TransformerEncoder.build_from
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it reads the weights in a way that PyTorch will drop
        return build(net, sequence_len=window).eval()


def chained(net: nn.TransformerEncoder, window: int) -> Any:
    """The library's single-output blocks in a row, one for each block of PyTorch's encoder."""
    import continual as co

    singles = []
    for layer in net.layers:
        single = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        singles.append(of_library(single, window))
    return co.Sequential(*singles).eval()


def repaired(net: Any) -> Any:
    """The library's encoder of two blocks, whose residual counts its index round all of its buffer.

    In 1.2.4 the index of the buffer of ``delay + 1`` tokens goes round after ``delay`` tokens.
    """
    from continual.transformer import RetroactiveUnity

    class Repaired(RetroactiveUnity):  # type: ignore[misc]  # the library has no types
        def _forward_step(self, token: Tensor, state: Any) -> tuple[Tensor | None, Any]:
            buffer, index = self.init_state(token) if state is None else state
            size = self.delay + 1
            buffer[index % size] = token
            out = buffer.roll(int(-index - 1), 0).permute(1, 2, 0) if index >= 0 else None
            return out, (buffer, (index + 1) % size if index >= 0 else index + 1)

    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) is RetroactiveUnity:
                setattr(module, name, Repaired(child.delay))
    return net


@one_line
@dataclass(frozen=True)
class Errors:
    """How far the outputs of steps are from those of a sliding window."""

    first: int | None  # the step with the first output, counted from 1; None: no output
    relative: tuple[float, ...]  # from then on: the largest error / the largest output of the window
    refused: str = ""  # why there are no steps

    @property
    def wrong(self) -> int | None:
        """The first step whose output differs by more than 1e-4, counted from 1; None: none does."""
        found = next((i for i, error in enumerate(self.relative) if not error <= RTOL), None)
        return None if found is None or self.first is None else self.first + found

    @property
    def worst(self) -> float:
        """The largest relative error; 0 without outputs."""
        return max(self.relative, default=0.0)


def errors(step: Step, net: nn.Module, tokens: Tensor, window: int) -> Errors:
    """Compare steps with the last output of an encoder over each window.

    Args:
        net: takes ``(N, window, E)``.
        tokens: ``(1, T, E)``.
    """
    first, found = None, []
    with torch.inference_mode():
        for t in range(tokens.shape[1]):
            out = step(tokens[:, t])
            if out is None or t + 1 < window:
                continue
            want = net(tokens[:, t + 1 - window : t + 1])[:, -1]
            first = first or t + 1
            found.append(float((out.reshape(want.shape) - want).abs().max() / want.abs().max()))
    return Errors(first, tuple(found))


def by_kit(net: nn.Module, window: int) -> Step:
    """The kit's step of an encoder on a sliding window.

    Raises:
        KitError: as :func:`kit.models.continual.stepper`: of more than one block.
    """
    steps, states = stepper(SlidingAttention(net, window)), [None]

    def step(token: Tensor) -> Tensor | None:
        out: Tensor | None
        out, states[0] = steps(token, states[0])
        return out

    return step


def streams(tokens: Tensor, window: int) -> dict[tuple[str, str], Errors]:
    """(Whose step, of what) -> its errors over a stream of tokens ``(1, T, E)``."""
    one, two = (encoder(layers, features=tokens.shape[2]) for layers in (1, 2))
    found = {
        ("library", ONE): errors(of_library(one, window).forward_step, one, tokens, window),
        ("kit", ONE): errors(by_kit(one, window), one, tokens, window),
        ("library", TWO): errors(of_library(two, window).forward_step, two, tokens, window),
        ("library", REPAIRED): errors(repaired(of_library(two, window)).forward_step, two, tokens, window),
        ("library", CHAINED): errors(chained(two, window).forward_step, two, tokens, window),
    }
    try:
        found["kit", TWO] = errors(by_kit(two, window), two, tokens, window)
    except KitError as error:
        found["kit", TWO] = Errors(None, (), str(error))
    return found


def streams_table(found: Mapping[tuple[str, str], Errors]) -> str:
    """What the steps gave, against the sliding window, as Markdown."""
    rows = []
    for (whose, what), each in found.items():
        if each.refused:
            rows.append((whose, what, "refused", "-", "-"))
            continue
        wrong = "none" if each.wrong is None else f"step {each.wrong}"
        rows.append((whose, what, str(each.first or "none"), wrong, f"{each.worst:.0e}"))
    head = ("step by", "encoder", "first output: step", "first that differs", "largest relative error")
    return markdown_table(head, "llrrr", rows)


def streams_told(found: Mapping[tuple[str, str], Errors]) -> str:
    """Where one block is exact and two are not, by how much, and whether the repair shows the cause."""
    lines = []
    exact = [whose for (whose, what), each in found.items() if what == ONE and each.relative and each.wrong is None]
    lines.append(
        f"One block is exact, by the step of: {', '.join(exact)}." if exact else "One block is exact by no step."
    )
    two, fixed = found.get(("library", TWO)), found.get(("library", REPAIRED))
    if two and two.wrong and two.first:
        right = two.wrong - two.first
        lines.append(
            f"Two blocks by the library are exact for **{right}** outputs, and differ from step {two.wrong} on, by up "
            f"to **{two.worst:.0%}** of the output."
        )
        if fixed and fixed.relative and fixed.wrong is None:
            lines.append(
                "With the index of its residual repaired, and nothing else, all outputs are exact: the index is the "
                "cause."
            )
        elif fixed:
            lines.append(f"With the index repaired they still differ, by up to {fixed.worst:.0%}: there is more to it.")
    elif two and two.relative:
        lines.append("Two blocks by the library are exact too.")
    if (row := found.get(("library", CHAINED))) and row.wrong:
        lines.append(
            f"Two single-output blocks in a row are another network: its outputs begin with step {row.first}, and "
            f"differ by up to {row.worst:.0%}."
        )
    if (kit := found.get(("kit", TWO))) and kit.refused:
        lines.append(f"The kit refuses two blocks: {kit.refused}")
    return "\n".join(f"- {line}" for line in lines)


def cancelled(scales: Sequence[float], window: int, length: int) -> dict[float, Errors]:
    """Scale of the tokens -> errors of two blocks by the library, index repaired.

    A retroactive block does not compute its sums of exponentials anew: it subtracts the oldest and adds the newest.
    With large tokens a few terms are much larger than the others, and what is left after their subtraction is rounding.
    """
    net = encoder(2)
    tokens = torch.randn(1, length, 16, generator=torch.Generator().manual_seed(1))
    return {
        scale: errors(repaired(of_library(net, window)).forward_step, net, scale * tokens, window) for scale in scales
    }


def cancelled_told(found: Mapping[float, Errors]) -> str:
    """How the errors of a retroactive block grow with its tokens."""
    rows = [(f"{scale:g}", f"{each.worst:.0e}") for scale, each in found.items()]
    wrong = [scale for scale, each in found.items() if each.wrong is not None]
    said = (
        f"From tokens {min(wrong):g} times as large on, the outputs differ by more than 1e-4: the block subtracts "
        "large sums of exponentials from each other."
        if wrong
        else "At none of these sizes do the outputs differ by more than 1e-4."
    )
    return f"{markdown_table(('tokens times', 'largest relative error'), 'rr', rows)}\n\n{said}"


def blocks_answer(found: Mapping[tuple[str, str], Errors]) -> str:
    """The quiz's answer: for how long two blocks by the library agree with a sliding window."""
    each = found["library", TWO]
    always, first, never = QUIZ[1]
    if not each.relative:
        return "not known: it gave no output"
    return always if each.wrong is None else never if each.wrong == each.first else first


def encoder_claims(found: Mapping[tuple[str, str], Errors]) -> list[Claim]:
    """The claims on encoders by steps."""
    claims = []
    for (whose, what), each in found.items():
        if what not in (ONE, TWO):
            continue
        text = f"An encoder of {what} by the {whose}'s step gives what a sliding window gives"
        if each.refused:
            claims.append(Claim(text, "not decided", "refused by the kit"))
        elif each.wrong is None:
            claims.append(Claim(text, "true" if each.relative else "not decided", f"{len(each.relative)} outputs"))
        else:
            claims.append(Claim(text, "false", f"from step {each.wrong} on, off by up to {each.worst:.0%}"))
    return claims
