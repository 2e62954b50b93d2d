"""Colours and hatches, which the timeline widget, its still picture and the charts share.

The hues are Okabe and Ito's, which people with colour-blindness can tell apart. Colour is never the only cue: each
branch also has its own hatch, and everything else is grey or pale.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

# Without their black, which a dark page swallows.
OKABE_ITO = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")
NEUTRAL = "#8A8F98"
_SHADES = (1.0, 0.55, 0.75)  # of a hue that comes for the first, second and third time

# Line patterns as SVG path data in a tile of 8 x 8 pixels: SVG and Canvas (Path2D) both draw them.
TILE = 8
HATCHES = (
    "",
    "M-2 2L2 -2M0 8L8 0M6 10L10 6",
    "M0 2H8M0 6H8",
    "M1 2H3M5 6H7",
    "M-2 6L2 10M0 0L8 8M6 -2L10 2",
    "M2 0V8M6 0V8",
    "M0 0L8 8M0 8L8 0",
)

MODES = ("branch", "name", "category")  # what the colours can stand for


class Look(NamedTuple):
    """How the events of one kind are drawn."""

    colour: str  # "#rrggbb"
    strength: float = 0.4  # 1.0 is the colour itself, 0.0 the page; operators are pale, so that branches stand out
    hatch: str = ""  # path data of one tile


KNOT = Look(NEUTRAL, 1.0, HATCHES[6])  # of what is not series-parallel, in the picture of a graph

_OWN = {  # the kit's own spans that are not branches
    "call": Look(NEUTRAL, 0.55),
    "region": Look(NEUTRAL, 0.3),
    "merge": Look(NEUTRAL, 0.8, HATCHES[4]),
    "startup": Look(OKABE_ITO[5], 0.5, HATCHES[5]),
    "wait": Look(NEUTRAL, 0.15),
    "transfer": Look(OKABE_ITO[4], 0.5, HATCHES[2]),
}
_MEANING = {  # what the legend adds to a category that its name alone does not explain
    "region": "fork to join",
    "merge": "joins outputs",
    "startup": "of threads or processes",
    "wait": "for another thread",
    "transfer": "of data",
}
_OPERATORS = {  # mode -> what the legend says of everything that a profiler reports
    "branch": ("operators (paler, as their branch)", Look(NEUTRAL)),
    "name": ("operators (a tint per name)", Look(OKABE_ITO[0])),
}


def branch_look(position: int) -> Look:
    """The look of a comparison's n-th branch: 21 colours, and colour and hatch together repeat only after 49.

    Hues are repeated in other shades, since a hatch is not visible on a bar of three pixels or on operators.
    """
    count = len(OKABE_ITO)
    turn, hue = divmod(position, count)
    shade = _SHADES[turn % len(_SHADES)]
    colour = OKABE_ITO[hue] if shade == 1 else mix(OKABE_ITO[hue], "#000000", shade)
    return Look(colour, 1.0, HATCHES[(position + turn) % count])


def in_order(names: Iterable[str]) -> list[str]:
    """The distinct names of branches in the order of their looks, independent of which ran first.

    So a name has the same look in every timeline of a model, in the picture of its graph, and in every region.
    """
    return sorted(set(names))


@dataclass(frozen=True)
class Palette:
    """How each kind of event of one trace looks, for one meaning of the colours."""

    by: str  # one of MODES
    branches: tuple[str, ...]  # the names of all tasks, in order
    categories: tuple[str, ...]  # those that occur

    def look(self, category: str, name: str, branch: int = -1) -> Look:
        """The look of one kind of event; ``branch`` is the index of the branch that it runs in, or -1."""
        if category in _OWN:
            return _OWN[category]
        if self.by == "category":
            return self._category_look(category)
        if category == "task":
            return branch_look(self.branches.index(name))
        if self.by == "branch":
            return Look(NEUTRAL if branch < 0 else branch_look(branch).colour)
        hue = zlib.crc32(name.encode("utf-8", "replace")) % len(OKABE_ITO)  # the same in every run, as hash() is not
        return Look(OKABE_ITO[hue])

    def legend(self) -> list[tuple[str, Look]]:
        """What the colours mean: a line per branch or category, then one per other kind that occurs."""
        own = [(_explained(category), look) for category, look in _OWN.items() if category in self.categories]
        others = [category for category in sorted(self.categories) if category not in _OWN]
        if self.by == "category":
            return [(category or "no category", self._category_look(category)) for category in others] + own
        lines = [(name, branch_look(position)) for position, name in enumerate(self.branches)] + own
        if set(others) - {"task"}:
            lines.append(_OPERATORS[self.by])
        return lines

    def _category_look(self, category: str) -> Look:
        others = [name for name in sorted(self.categories) if name not in _OWN]
        return branch_look(others.index(category))._replace(strength=0.6)


def _explained(category: str) -> str:
    return f"{category}: {_MEANING[category]}" if category in _MEANING else category


def mix(colour: str, page: str, strength: float) -> str:
    """``strength`` parts of a colour on a page of another; both and the result are "#rrggbb"."""
    pairs = zip(_channels(colour), _channels(page), strict=True)
    return "#" + "".join(f"{round(strength * above + (1 - strength) * below):02x}" for above, below in pairs)


def ink(fill: str) -> str:
    """Black or white, whichever reads better on this fill (WCAG relative luminance)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(fill)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
