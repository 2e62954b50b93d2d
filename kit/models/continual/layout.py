"""Where time is in a clip: which dimension of its tensors, and how many dimensions there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from kit.errors import KitError
from kit.models.continual.attention import SlidingAttention


class Layout(NamedTuple):
    """The dimensions of a clip."""

    rank: int = 5  # of a clip: 5 for frames (N, C, H, W), 4 for (N, C, W), 3 for (N, C) or for tokens (N, E)
    time: int = 2  # the dimension of time: 1 for tokens (N, T, E)

    @property
    def channels(self) -> int:
        """The dimension of channels in a clip."""
        return 3 - self.time

    @property
    def clip(self) -> str:
        """The shape of a clip as text."""
        return "(N, T, E)" if self.time == 1 else f"(N, C, T{''.join([', H, W', ', W', ''][5 - self.rank])})"

    @property
    def frame(self) -> str:
        """The shape of a frame as text."""
        return self.clip.replace("T, ", "").replace(", T)", ")")

    def size(self, batch: int, channels: int, frames: int, space: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a clip, in numbers."""
        return (batch, frames, *space) if self.time == 1 else (batch, channels, frames, *space)

    @property
    def space(self) -> int:
        """How many dimensions come behind that of time: height and width, or the features of tokens."""
        return self.rank - self.time - 1

    def looks_over_time(self, dim: int) -> bool:
        """Whether a dimension of a clip, which may be counted from the end, is time, or the batch, or none at all."""
        return not -self.rank <= dim < self.rank or dim % self.rank in (0, self.time)


def dimensions(module: nn.Module) -> int | None:
    """How many dimensions of time and space a layer is made for, by the way PyTorch names layers; else None."""
    for base in type(module).__mro__:
        found = re.search(r"([123])d$", base.__name__)
        if found and base.__module__.startswith(("torch.nn.", "continual.")) and not isinstance(module, _DropoutNd):
            return int(found[1])
    return None


def layout_of(modules: Iterable[nn.Module], title: str) -> Layout:
    """The layout that the layers of a model are made for; three dimensions of time and space where none says it.

    Raises:
        KitError: layers that are made for different ones.
    """
    found: dict[Layout, str] = {}
    for module in modules:
        if isinstance(module, SlidingAttention):
            found.setdefault(Layout(3, 1), type(module).__name__)
        elif count := dimensions(module):
            found.setdefault(Layout(2 + count), type(module).__name__)
    if len(found) > 1:
        said = " and ".join(f"{name} for {layout.clip}" for layout, name in found.items())
        raise KitError(
            f"the layers of {title} are made for clips of different dimensions, {said}: give each part a stepper of "
            "its own."
        )
    return next(iter(found), Layout())
