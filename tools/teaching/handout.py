"""The handout: the words of the workshop on one A4 page, with pictures that the kit draws of made-up times."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kit.equality import Equality
from kit.graphs import analysed
from kit.graphs.any_model import graph_of
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.simulating import Gpu, Launch, Synchronize, simulate
from kit.text import html_table
from kit.trace import Event, Lane, Trace, stack
from kit.views.boxes import boxes, opened_at_first
from kit.views.graph_still import graph_svg
from kit.views.static import figure_svg

MS = 1_000_000
NETWORK = {
    "branch": "a part of a network that needs nothing of its siblings.",
    "region": "where branches begin after the same operator (fork), run, and join again (merge).",
    "work": "the time of all operators, one after the other, on one thread.",
    "span": "the time of the critical path: the longest chain in which each operator needs the one before it.",
    "parallelism": "work / span: with unlimited cores it cannot become faster than this many times.",
}
TIMELINE = {
    "approach": "a way to run the same network, as <code>sequential</code> or <code>threads</code>.",
    "lane": "one thread, process or GPU stream. Time runs to the right.",
    "task": "a coloured bar: one branch runs. Grey bars around it: the call and its region.",
    "overlap": "two tasks above one another in the same approach: they run at the same time.",
    "load balance": "1 where all lanes work until the join; less where lanes wait for the longest branch.",
    "cores": "the budget: workers &times; threads of each should not exceed them (oversubscription).",
}
TABLE = {
    "round": "every approach has one turn, in random order; only times of the same round are compared.",
    "speed-up [95%]": "time of the baseline / time of this approach, with the interval that holds for the whole table.",
    "faster, slower": "the whole interval is more than 1% away from 1.",
    "no difference found": "with the smallest difference that such rounds would have found in 9 of 10 tables.",
    "not decided": "the rounds allow no verdict: other programs used the cores, or timings vary a lot. Measure again.",
}
GPU = {
    "launch": "the host puts a kernel into a stream and goes on: asynchronous is not concurrent.",
    "stream": "a queue of kernels. Kernels of two streams can run at the same time, if there is room for both.",
    "synchronise": "wait until the GPU is done. A time without it is the time of launching.",
    "badge": "says whether a picture was measured here, recorded elsewhere, or <i>simulated</i>.",
}
CHOICE = (
    "One request, as fast as possible: try threads where branches are large and cores are free. Many requests: give "
    "each one a core. For both, first do less work: fold, merge, compile, a step instead of a window."
)
STYLE = """
@page { size: A4; margin: 9mm }
:root { color-scheme: light }
body { margin: 0 auto; max-width: 192mm; color: #111; background: #fff;
  font: 11px/1.35 system-ui, Helvetica, Arial, sans-serif }
h1 { font-size: 18px; margin: 0 0 2px }
h2 { font-size: 13px; margin: 0 0 3px }
p, dl, dd { margin: 0 }
section { border-top: 1px solid #888; margin-top: 6px; padding-top: 5px; break-inside: avoid }
section > div { display: grid; grid-template-columns: 1.2fr 1fr; gap: 14px; align-items: center }
dt { font-weight: 700; display: inline }
dd { display: inline }
dl > div { margin-bottom: 2px }
img { display: block; max-width: 100%; max-height: 78mm; margin: auto }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #bbb }
@media (max-width: 600px) { section > div { grid-template-columns: 1fr } }
"""


class Block(nn.Module):
    """Three branches of unequal work."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.long = (
            nn.Conv2d(8, 8, 1),
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2)),
        )
        self.middle = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.short(x), self.long(x), self.middle(x)], 1)


class Network(nn.Module):
    """A stem, a region, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 8, 3, padding=1), Block(), nn.Conv2d(24, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.block(self.stem(image)))
        return scores


def network_svg() -> str:
    """The network as boxes, whose widths are MACs: nothing is measured."""
    graph = graph_of(analysed(Network().eval(), (torch.zeros(1, 3, 16, 16),)), "network", "(1, 3, 16, 16)")
    tree = boxes(graph)
    return graph_svg(graph, tree, opened_at_first(tree))


def lanes(threads: Sequence[Sequence[tuple[str, float, float]]], end: float) -> Trace:
    """A call with its tasks (name, start and length in ms) on each lane, up to its end."""
    caller = Lane(1, 1, "caller")
    whole = [Event("call", "call", 0, int(end * MS), caller), Event("region", "region", 0, int(end * MS), caller)]
    places = [caller if len(threads) == 1 else Lane(1, 2 + i, f"worker {i}") for i in range(len(threads))]
    return Trace.build(
        [
            *whole,
            *(
                Event(name, "task", int(start * MS), int(length * MS), place)
                for place, tasks in zip(places, threads, strict=True)
                for name, start, length in tasks
            ),
            Event("merge", "merge", int((end - 0.5) * MS), int(0.5 * MS), caller),
        ]
    )


def approaches() -> dict[str, Trace]:
    """Two approaches with made-up times."""
    return {
        "sequential": lanes([[("spatial", 0.2, 4), ("temporal", 4.2, 6)]], 10.8),
        "threads": lanes([[("temporal", 0.4, 7)], [("spatial", 0.4, 4.5)]], 8.0),
    }


def comparison() -> Comparison:
    """A table with made-up times, in which threads are faster."""

    def timing(ms: float, trace: Trace) -> Timing:
        return Timing(np.full(12, ms * MS), 3, trace, (None,) * 12)

    same, traces = Equality(True, 0.0), approaches()
    base = Row("sequential", None, timing(10.8, traces["sequential"]), Ratio(1, 1, 1), same, True)
    fast = Row("threads", None, timing(8.0, traces["threads"]), Ratio(1.35, 1.31, 1.39), same)
    even = Row("folded", None, timing(10.7, traces["sequential"]), Ratio(1.01, 0.97, 1.05), same)
    return Comparison((base, fast, even), 12, "", cores=2)


def streams() -> Trace:
    """Two streams on a simulated GPU with room for both kernels."""
    kernels = [Launch(name, 60, 30_000, stream=stream) for stream, name in ((7, "spatial"), (8, "temporal"))]
    return simulate([*kernels, Synchronize()], gpu=Gpu())


def page() -> str:
    """The whole page as HTML, without anything from the network."""
    table = html_table(comparison().table(), [])
    network = _image(network_svg(), "A stem, a region of three branches, a head; the critical path has a thick line")
    line = _image(figure_svg(stack(approaches()), width=520), "Two approaches on one time axis")
    gpu = _image(figure_svg(streams(), width=520), "A host launches two kernels onto two streams")
    parts = (
        ("A network", network, NETWORK),
        ("A timeline, of made-up times", line, TIMELINE),
        ("A table, of made-up times", f"<div>{table}</div>", TABLE),
        ("A GPU, simulated", gpu, GPU),
    )
    sections = (
        f"<section><h2>{title}</h2><div>{shown}{_words(words)}</div></section>" for title, shown, words in parts
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Branch Lab: the words</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        "<h1>Branch Lab: the words, on one page</h1>"
        "<p>How do I run the parts of a network at the same time, does it help, and why (not)?</p>"
        f"{''.join(sections)}<section><h2>What to try first</h2><p>{CHOICE}</p></section></body></html>\n"
    )


def _image(svg: str, alt: str) -> str:
    """A picture of its own: ids in one SVG would be those of the next."""
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">'


def _words(words: dict[str, str]) -> str:
    return f"<dl>{''.join(f'<div><dt>{word}:</dt> <dd>{meaning}</dd></div>' for word, meaning in words.items())}</dl>"
