"""How far off the simulated GPU is for recordings: ``python -m bench.simulation FOLDER ...`` prints a table.

For each trace its kernels and the host time between its launches are taken as they were, and launched again as one
stream. So the table checks when a launched kernel begins, what waits for what, and what is left of the GPU's time; it
does not check durations. A graph's kernels have one launch in a recording: as launches of their own they are another
program, and several streams are one here, so "one stream" is what the table is about.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kit.errors import KitError
from kit.simulating.validation import busy_share, one_stream
from kit.text import markdown_table
from kit.trace import launch_delays, load_trace

ENOUGH = 50  # kernels


def row(path: Path) -> tuple[str, ...]:
    """Of the table, for one file."""
    trace = load_trace(path)
    delays = launch_delays(trace)
    if not len(delays.launch):
        return path.name, "0", "-", "-", "-", "no GPU"
    recorded, predicted = busy_share(trace), one_stream(trace)
    streams, graphs = len(set(trace.lane[delays.start].tolist())), len({*delays.launch.tolist()}) < len(delays.launch)
    kind = "graph" if graphs else f"{streams} streams" if streams > 1 else "one stream"
    few = "" if len(delays.start) >= ENOUGH else ", few kernels"
    error = f"{predicted / recorded - 1:+.1%}"
    return path.name, str(len(delays.start)), f"{recorded:.1%}", f"{predicted:.1%}", error, kind + few


def main(folders: list[str]) -> None:
    """Print the table of all traces in these folders."""
    paths = [path for folder in folders for path in sorted(Path(folder).glob("*.json*"))]
    if not paths:
        raise KitError("name folders that hold traces, as in: python -m bench.simulation data/traces")
    head = ("recording", "kernels", "busy, recorded", "busy, predicted", "error", "what it is")
    print(markdown_table(head, "lrrrrl", map(row, paths)))


if __name__ == "__main__":
    main(sys.argv[1:])
