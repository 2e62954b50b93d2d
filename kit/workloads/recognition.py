"""The classes that the trained two-stream network predicts for a clip, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from kit import clips
from kit.models import TwoStream
from kit.models.two_stream import TRAINED_SIZE, trained_two_stream
from kit.reprs import one_line

HALVES = {"texture": clips.TEXTURES, "motion": clips.MOTIONS}  # a class is a texture with a motion
LENGTH = 10  # flow fields in a stack
Result = TypeVar("Result")


@one_line
class Guess(NamedTuple):
    """A class and the probability that the network gives it, 0 to 1."""

    name: str
    probability: float  # 0 to 1, over the classes of its kind


@one_line
@dataclass(frozen=True)
class Recognition:
    """The predictions of the fused network for a clip, and the time of each stage."""

    source: str
    texture: tuple[Guess, ...]  # the likeliest first
    motion: tuple[Guess, ...]
    stages_ms: dict[str, float]  # decode, flow, spatial, temporal, fusion: each one once, and in this order

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {half: [guess._asdict() for guess in getattr(self, half)] for half in HALVES}

    def __str__(self) -> str:
        lines = [
            f"{half:8} " + ", ".join(f"{guess.name} {guess.probability:.0%}" for guess in getattr(self, half)[:3])
            for half in HALVES
        ]
        stages = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in self.stages_ms.items())
        return "\n".join([self.source, *lines, f"{'took':8} {stages}"])


def recognise(source: clips.Clip | str | Path, model: TwoStream | None = None) -> Recognition:
    """Texture and motion of the middle of a clip, by a network such as :func:`kit.models.trained_two_stream`.

    It knows only its generated classes: for any other clip it gives the most similar ones. Of a file, only the first
    100 frames are read, each shrunk at once. The stages run one after the other, each once.

    Raises:
        ClipError: the clip cannot be read or has fewer than 11 frames.
        WeightsError: no model was given and the trained weights cannot be read.
    """
    stages: dict[str, float] = {}

    def timed(stage: str, call: Callable[[], Result]) -> Result:
        start = time.perf_counter_ns()
        result = call()
        stages[stage] = (time.perf_counter_ns() - start) / 1e6
        return result

    network = model or trained_two_stream()
    square = (TRAINED_SIZE, TRAINED_SIZE)
    clip = timed(
        "decode", lambda: source if isinstance(source, clips.Clip) else clips.load(source, max_frames=100, size=square)
    )
    frames = clips.middle(clip, TRAINED_SIZE, LENGTH)
    flow = timed("flow", lambda: torch.from_numpy(clips.flow_stack(clips.optical_flow(frames))[None]))
    frame = torch.from_numpy(clips.rgb_input(frames[LENGTH // 2]))
    streams = network.streams.branches
    with torch.inference_mode():
        outputs = [timed("spatial", lambda: streams["spatial"](frame))]
        outputs.append(timed("temporal", lambda: streams["temporal"](flow)))
        scores = timed("fusion", lambda: network.streams.merge(outputs))
    return Recognition(clip.source, **guesses(scores), stages_ms=stages)


def halves(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``(N, textures * motions)`` as probabilities of textures and of motions, ``(N, 5)`` and ``(N, 9)``."""
    odds = scores.softmax(1).reshape(len(scores), len(clips.TEXTURES), len(clips.MOTIONS))
    return odds.sum(2), odds.sum(1)


def guesses(scores: Tensor) -> dict[str, tuple[Guess, ...]]:
    """Scores ``(1, textures * motions)`` as guesses of ``texture`` and of ``motion``, the likeliest first."""
    found = {}
    for (half, names), odds in zip(HALVES.items(), halves(scores), strict=True):
        every = map(Guess, names, odds[0].tolist())
        found[half] = tuple(sorted(every, key=lambda guess: -guess.probability))
    return found
