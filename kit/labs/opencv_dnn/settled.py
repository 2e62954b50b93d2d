"""Notebook 07: the forum's numbers beside those of this machine, and the card."""

from __future__ import annotations

from kit.labs.conclusions import Claim, card, decided, row_of, told, truth
from kit.labs.opencv_dnn.answers import cold
from kit.labs.opencv_dnn.sentences import about_net, pair
from kit.labs.sentences import speed
from kit.measuring.comparison import Comparison
from kit.text import markdown_table
from kit.workloads.forum import Forked
from kit.workloads.opencv_dnn import Misuse


def theirs_and_ours(forked: Forked | str, started: Comparison, slept: Comparison) -> str:
    """The forum's numbers beside those of this machine, pair by pair, and whether the order is the same."""
    long = "four times a sleep of 1 s and an inference"
    if not isinstance(forked, str) and forked.seconds != 1:
        long += f" (here {forked.seconds:g} s)"
    pairs = [
        ("four images: loop, pool", 41.9, 84.3, "images", "pool", started),
        ("four images: loop, one batch", 41.9, 90.4, "images", "batch", None),
        ("four sleeps of 10 ms: loop, pool", 40.4, 24.2, "sleeps", "pool", slept),
        (f"{long}: loop, pool", 4048.0, 1072.0, "long", "pool", None),
    ]
    rows = []
    for what, base, own, kind, name, spawned in pairs:
        theirs = f"{base:,.4g} → {own:,.4g} ms, {'slower' if own > base else 'faster'}"
        here = "not measured", "-"
        if not isinstance(forked, str):
            here = _beside(getattr(forked, kind), "loop", name, own > base)
        ours = _beside(spawned, spawned.baseline.name, cold(spawned), own > base) if spawned else ("not run", "-")
        rows.append((what, theirs, *here, *ours))
    head = ("experiment", "theirs", "here, forked", "same order?", "here, spawned", "same order?")
    note = f"\n\n{forked}" if isinstance(forked, str) else ""
    return markdown_table(head, "llllll", rows) + note


def conclusion(
    started: Comparison, forked: Forked | str, slept: Comparison, fixes: Comparison, batched: Comparison, shared: Misuse
) -> str:
    """The notebook's claims, and for each what this machine said."""
    all_cores, _, threads, processes, crowded = (row.name for row in fixes.rows)
    if isinstance(forked, str):
        theirs = [Claim("The forum's forked pool of four is slower than its loop", "not decided", forked)]
    else:
        theirs = [
            _claim("A pool that is forked for four images is slower than a loop", forked.images, "pool", "loop", True),
            _claim("For four sleeps of 10 ms, a forked pool is faster than a loop", forked.sleeps, "pool", "loop"),
            _claim("Four images in one batch are slower than a loop", forked.images, "batch", "loop", True),
        ]
    lead = started.baseline.name
    nothing = "A pool that is spawned for four sleeps is slower than a loop: its start alone costs more than it saves"
    return card(
        [
            *theirs,
            _claim("A pool that is spawned for four images is slower than a loop", started, cold(started), lead, True),
            _claim(nothing, slept, cold(slept), slept.baseline.name, True),
            _claim(
                "Processes that are kept, with one OpenCV thread each, are faster than a loop",
                fixes,
                processes,
                all_cores,
            ),
            _claim("One OpenCV thread in each worker is faster than all of them in each", fixes, processes, crowded),
            _claim(
                "Threads with a Net each are faster than a loop: the GIL does not stop them", fixes, threads, all_cores
            ),
            _claim("A batch of eight images is faster than a loop", batched, "batch", batched.baseline.name),
            Claim(
                "Two threads must not share a Net",
                "not decided" if shared.harmless else "true",
                about_net(shared),
            ),
        ]
    )


def _claim(text: str, comparison: Comparison, name: str, baseline: str, slower: bool = False) -> Claim:
    """The claim that an approach is faster (or slower) than another, and what this machine said."""
    want, other = ("slower", "faster") if slower else ("faster", "slower")
    said = told(comparison, name, baseline, faster="faster", slower="slower", same=other)
    row = row_of(comparison, name, baseline)
    verdict = decided(comparison, name, baseline)
    return Claim(text, truth(said, want), f"{speed(row)}: {verdict}" if row and row.ratio else verdict)


def _beside(comparison: Comparison, base: str, name: str, theirs_slower: bool) -> tuple[str, str]:
    """Medians and speed of a pair, and whether the verdict is that of the forum."""
    said = decided(comparison, name, base)
    same = {"slower": theirs_slower, "faster": not theirs_slower}.get(said)
    return pair(comparison, base, name), said.partition(":")[0] if same is None else ["no", "yes"][same]
