"""Where the time of a recorded call went: by cause, and by the parts of an item's work."""

from __future__ import annotations

import numpy as np

from kit.text import markdown_table
from kit.trace import Trace, busy_ns, wall_ns
from kit.trace.columns import concatenate
from kit.workloads.medians import Median

# What a moment counts for: the first of these that happens then, in any lane. Names of spans, or a category.
CAUSES: dict[str, tuple[str, ...]] = {
    "compute": ("preprocess", "forward", "sleep"),
    "model load": ("load", "load network"),
    "imports": ("imports", "import OpenCV"),
    "spawn": ("start", "spawn"),
    "queue": ("send", "receive"),
    "ending": ("end", "join"),
}
MEANING = {
    "compute": "some process preprocesses, infers or sleeps",
    "model load": "none of the above; some process unpickles or reads the network",
    "imports": "none of the above; some process imports PyTorch or OpenCV",
    "spawn": "none of the above; some process starts its Python interpreter",
    "queue": "none of the above; an image or a result is sent to another process",
    "ending": "none of the above; the caller waits for the processes to end",
    "not named": "nothing that has a name",
}


def causes_ms(trace: Trace) -> dict[str, float]:
    """Milliseconds of a recorded call by cause; with ``not named`` they add up to its wall time."""
    found, counted_ns, so_far = {}, 0, []
    for cause, names in CAUSES.items():
        so_far.append(trace.select(names=names))
        covered = busy_ns(concatenate(so_far))
        found[cause], counted_ns = (covered - counted_ns) / 1e6, covered
    return {**found, "not named": (wall_ns(trace) - counted_ns) / 1e6}


def named_share(trace: Trace) -> float:
    """The share of a call's wall time that has a named cause, 0 to 1."""
    return 1 - causes_ms(trace)["not named"] * 1e6 / max(1, wall_ns(trace))


def causes_table(trace: Trace) -> str:
    """Where the wall time of a recorded call went, in Markdown."""
    whole = wall_ns(trace) / 1e6
    found = causes_ms(trace).items()
    rows = [(cause, f"{ms:,.1f} ms", f"{ms / whole:.1%}", MEANING[cause]) for cause, ms in found]
    return markdown_table(("cause", "time", "share", "what happens at that moment"), "lrrl", rows)


def about_causes(trace: Trace) -> str:
    """The table of a recorded call, and what of it is work."""
    work = causes_ms(trace)["compute"] * 1e6 / max(1, wall_ns(trace))
    return (
        f"{causes_table(trace)}\n\nThis is the call that the timeline shows, the round nearest the median. "
        f"{named_share(trace):.1%} of its time has a cause, and **{work:.1%}** of it is work on the images. The rest "
        "is the cost of new processes; threads have no part in it."
    )


def part_ms(trace: Trace) -> dict[str, Median]:
    """Milliseconds of the parts of an item's work: preprocess, forward. Medians over the items of a recorded call."""
    parts = trace.select(categories=["part"])
    return {parts.names[name]: Median.of(parts.duration_ns[parts.name == name] / 1e6) for name in np.unique(parts.name)}
