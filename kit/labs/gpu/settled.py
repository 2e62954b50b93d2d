"""Notebook 05: the batch size at which streams stop paying, how far off the simulation is, and the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kit.labs.conclusions import Truth, in_a_cell
from kit.labs.gpu.measures import clocks_ns, copies_ns, hidden_ns, kernels_ns, returned_early, window_ns
from kit.labs.gpu.programs import BREADTH, DEPTH, LARGE, PINNED, PLAIN, SMALL, of_copies
from kit.labs.gpu.sources import CALLS, MACHINE, WHOLE, recorded, whose
from kit.labs.gpu.sweep import CAPTURED, EAGER, PAYS, Sweep
from kit.labs.gpu.told import compared, gain
from kit.labs.sentences import overlap_share
from kit.reprs import one_line
from kit.simulating.validation import busy_share, other_approach
from kit.text import markdown_table, time_text, times
from kit.trace import Trace

UNUSABLE = 0.5  # an error with which a simulation says nothing


def about_sweep(found: Sweep) -> str:
    """What streams gain for each batch size, and at which they pay, when Python launches and when a graph does."""
    rows, lines = [], []
    for name in (EAGER, CAPTURED):
        pays = found.pays(name)
        rows.append((name, *(f"**{times(x)}**" if x >= PAYS else times(x) for x in found.gains[name])))
        which = f"batch {', '.join(map(str, pays))}" if pays else "no batch size here"
        lines.append(f"- {name}: streams pay at **{'every batch size here' if pays == [*found.batches] else which}**.")
    head = ("gain, batch", *map(str, found.batches))
    said = f"So says {whose(found.trace)}. Streams pay where they gain {PAYS}x or more, in bold."
    return "\n".join([markdown_table(head, "l" + "r" * len(found.batches), rows), "", said, "", *lines])


@one_line
class Prediction(NamedTuple):
    """A recorded call, and what is predicted for it from the recording of the same network on one stream."""

    network: str
    approach: str
    trace: Trace
    low: float  # predicted busy share, if kernels fill nothing of the GPU or all of it: the smaller one
    high: float

    @property
    def recorded(self) -> float:
        """The recorded busy share."""
        return busy_share(self.trace)

    @property
    def error(self) -> float:
        """How far the nearer end is off: 0.1 is 10% too high. 0 if the recorded share lies between both."""
        found = self.recorded
        return max(self.low, min(self.high, found)) / found - 1


def predictions(calls: Mapping[str, Trace]) -> list[Prediction]:
    """For each recording that comes with the kit, and for the calls of the block if this machine's GPU made them."""
    given = {("Inception v3", "v3"): WHOLE, ("Inception block", "block"): CALLS}
    found = []
    for (title, network), approaches in given.items():
        found += _predicted(title, {name: recorded(network, name) for name in approaches})
    if whose(calls["sequential"]) == MACHINE:
        found += _predicted("Inception block, here", calls)
    return found


def _predicted(title: str, traces: Mapping[str, Trace]) -> list[Prediction]:
    one = traces["sequential"]
    return [
        Prediction(title, name, trace, *sorted(other_approach(one, name, fills) for fills in (0.0, 1.0)))
        for name, trace in traces.items()
    ]


def about_predictions(found: list[Prediction]) -> str:
    """The share of the time in which the GPU works: recorded, predicted, and by how much that is wrong."""
    rows = [
        (
            each.network,
            f"`{each.approach}`",
            f"{each.recorded:.1%}",
            f"{each.low:.1%}" if f"{each.low:.1%}" == f"{each.high:.1%}" else f"{each.low:.1%} to {each.high:.1%}",
            f"{each.error:+.1%}",
            whose(each.trace),
        )
        for each in found
    ]
    head = ("network", "approach", "GPU works, recorded", "predicted", "error", "recorded by")
    one = max(abs(each.error) for each in found if each.approach == "sequential")
    worst = max(found, key=lambda each: abs(each.error))
    told = (
        f"`sequential` is predicted within {one:.1%}. That proves little: the times of kernels and of the host come "
        "from the same recording, and only when a kernel begins is predicted. In the other rows the approach changes "
        f"too. The worst is `{worst.approach}` of the {worst.network}, **{worst.error:+.0%}**."
    )
    if abs(worst.error) > UNUSABLE:
        told += f" **Do not believe the simulation on `{worst.approach}`.**"
    return "\n".join([markdown_table(head, "llrrrl", rows), "", told])


# The card -------------------------------------------------------------------------------------------------------------


@one_line
class Heard(NamedTuple):
    """A line of the card: a claim, whether it is true, who says so, and by which numbers."""

    text: str
    truth: Truth
    trace: Trace  # that says it
    by: str


def conclusion(
    calls: Mapping[str, Trace],
    long: Trace,
    sizes: Mapping[str, Trace],
    orders: Mapping[str, Trace],
    copies: Mapping[str, Trace],
    race: Trace,
    batches: Sweep,
) -> str:
    """The notebook's claims: true, false or not decided, and whose machine, recording or simulation said it.

    Args:
        calls: an Inception block under each approach.
        long: ten long kernels.
        race: a kernel that uses what another stream computes, without a wait.
    """
    claims = [
        *_of_calls(calls),
        _clock(long),
        _sized("On several streams, small kernels run at the same time", sizes, SMALL),
        _sized("On several streams, kernels that fill the GPU run at the same time", sizes, LARGE),
        _order(orders),
        *_copying(copies),
        _racing(race),
        _paying(batches),
    ]
    rows = [
        (in_a_cell(c.text), c.truth if c.truth == "not decided" else f"**{c.truth}**", whose(c.trace), in_a_cell(c.by))
        for c in claims
    ]
    here = sum(whose(each.trace) == MACHINE for each in claims)
    left = (
        f"{here} of {len(claims)} claims were measured on {MACHINE}. What is simulated stays to be measured."
        if here
        else "None of this was measured on this machine. On one with a GPU, the same notebook measures a part of it."
    )
    return "\n".join([markdown_table(("claim", "answer", "so says", "by"), "llll", rows), "", left])


def _of_calls(calls: Mapping[str, Trace]) -> list[Heard]:
    one = calls["sequential"]
    early, count = returned_early(one)
    share = overlap_share(one, "kernel")
    at_once = "Independent branches of plain PyTorch run at the same time, since calls are asynchronous"
    return [
        Heard(
            "Calls to a GPU are asynchronous: they return before its work has ended",
            "true" if early == count else "false" if not early else "not decided",
            one,
            f"{early} of {count} launches",
        ),
        Heard(at_once, "true" if share else "false", one, f"two kernels at once for {share:.0%} of the time"),
        *(
            _shorter(text, calls, name)
            for text, name in (
                ("A stream for each branch shortens this call", "cuda_streams"),
                ("A thread and a stream for each branch shorten this call", "cuda_streams_threads"),
                ("A captured graph with a stream for each branch shortens this call", "graphed_streams"),
            )
        ),
    ]


def _shorter(text: str, calls: Mapping[str, Trace], name: str) -> Heard:
    before, after = (window_ns(calls[each]) for each in ("sequential", name))
    found: Truth = {1: "true", 0: "false", -1: "false", 2: "not decided"}[compared(before, after)]  # type: ignore[assignment]
    return Heard(text, found, calls[name], f"{time_text(after)} against {time_text(before)}, one call each")


def _clock(long: Trace) -> Heard:
    at_once, waited = clocks_ns(long)
    by = f"{time_text(at_once)} of {time_text(waited)}"
    right = abs(at_once / waited - 1) <= 0.1
    return Heard("A clock that does not wait shows the GPU's time", "true" if right else "false", long, by)


def _sized(text: str, sizes: Mapping[str, Trace], size: str) -> Heard:
    trace = sizes[f"{size}, four streams"]
    share = overlap_share(trace, "kernel")
    by = f"two at once for {share:.0%} of the time; {times(gain(sizes, size))}x as fast"
    return Heard(text, "true" if share else "false", trace, by)


def _order(orders: Mapping[str, Trace]) -> Heard:
    first, second = (window_ns(orders[each]) for each in (DEPTH, BREADTH))
    by = f"{DEPTH} {time_text(first)}, {BREADTH} {time_text(second)}"
    return Heard("The order of launches does not matter", "true" if first == second else "false", orders[DEPTH], by)


def _copying(copies: Mapping[str, Trace]) -> list[Heard]:
    plain, pinned = of_copies(copies, PLAIN), of_copies(copies, PINNED)
    moved, computed = copies_ns(plain), kernels_ns(plain)
    hidden = hidden_ns(pinned)
    return [
        Heard(
            "Copies between CPU and GPU can be the bottleneck",
            "true" if moved > computed else "false",
            plain,
            f"{time_text(moved)} of copies, {time_text(computed)} of kernels",
        ),
        Heard(
            "Pinned memory alone lets copies and kernels overlap",
            "true" if hidden else "false",
            pinned,
            f"at once for {time_text(hidden)}" if hidden else "no copy ran beside a kernel",
        ),
    ]


def _racing(race: Trace) -> Heard:
    found = race.about.get("races", [])
    text = "A stream of PyTorch waits by itself for what another stream computes"
    return Heard(text, "false" if found else "true", race, "; ".join(found) or "everything is ordered")


def _paying(batches: Sweep) -> Heard:
    everywhere = all(gain >= PAYS for gains in batches.gains.values() for gain in gains)
    sizes = (batches.batches[0], batches.batches[-1])
    by = "; ".join(
        f"{name} {times(gains[0])}x at batch {sizes[0]}, {times(gains[-1])}x at batch {sizes[1]}"
        for name, gains in batches.gains.items()
    )
    return Heard("Streams pay at every batch size", "true" if everywhere else "false", batches.trace, by)
