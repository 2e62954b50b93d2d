"""How far a layer looks in time: which frames an output is made of, and when the last of them has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kit.errors import KitError


class Reach(NamedTuple):
    """Output i of a layer is made of the frames ``i * stride - padding`` to that ``+ receptive_field - 1``.

    >>> from kit.models.continual import Reach
    >>> conv = Reach(receptive_field=3)
    >>> conv.then(conv), conv.then(conv).delay  # two convolutions over time, one after the other
    (Reach(receptive_field=5, padding=0, stride=1), 4)
    """

    receptive_field: int = 1
    padding: int = 0  # frames before the first, of zeros or repeated; as many come after the last
    stride: int = 1

    @property
    def delay(self) -> int:
        """Frames that must have come before the one that brings the first output."""
        return self.receptive_field - 1 - self.padding

    @property
    def shrink(self) -> int:
        """Frames that a clip loses where the stride is 1."""
        return self.receptive_field - 1 - 2 * self.padding

    def then(self, after: Reach) -> Reach:
        """The reach of this layer and another one after it."""
        return Reach(
            self.receptive_field + (after.receptive_field - 1) * self.stride,
            self.padding + after.padding * self.stride,
            self.stride * after.stride,
        )

    def gives(self, frame: int) -> bool:
        """Whether frame number ``frame`` of a stream, counted from 0, brings an output."""
        return frame >= self.delay and (frame - self.delay) % self.stride == 0


def beside(reaches: Sequence[Reach], name: str) -> Reach:
    """The reach of branches on one input, whose outputs number i are merged.

    Raises:
        KitError: branches of other strides, or that give clips of other lengths.
    """
    if len({(reach.stride, reach.shrink) for reach in reaches}) > 1:
        found = ", ".join(f"stride {reach.stride} and {reach.shrink} frames less" for reach in reaches)
        raise KitError(
            f"the branches of {name} give clips of other lengths ({found}), so their outputs cannot be merged frame by "
            "frame: pad them alike, or put a Crop into the shorter ones."
        )
    padding = max(reach.padding for reach in reaches)
    ahead = max(reach.receptive_field - reach.padding for reach in reaches)
    return Reach(padding + ahead, padding, reaches[0].stride)
