"""When the streams of a GPU were idle and why, and whether the launches of the host set the pace.

The idle time of a stream is the time between its kernels and copies. Each gap counts whole for one cause, with the
definitions of Holistic Trace Analysis (`Idle Time Breakdown
<https://hta.readthedocs.io/en/latest/source/features/idle_time_breakdown.html>`_), whose "other" is split here. The
first of these that holds for the work after the gap:

- ``host``: it was launched after the stream had become idle: ``launched > free``;
- ``copy``, ``stream``: then a copy, or a kernel, of another stream ended, which it waited for
  (:func:`kit.trace.streams.device_work`);
- ``kernel``: the launch was there, and the gap is short: ``gap < kernel_gap_ns``;
- ``other``: none of these, or the launch was not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.text import counted, html_table, time_text
from kit.trace.categories import Role, roles
from kit.trace.columns import Int64, Trace
from kit.trace.metrics import sums
from kit.trace.streams import DeviceWork, device_work, earlier
from kit.trace.tables import Rows, share

KERNEL_GAP_NS = 30_000  # HTA's 30, which it compares with times in microseconds

Verdict = Literal["launch-bound", "partly launch-bound", "waits for the host", "not launch-bound", "not decided"]


@one_line
class IdleRow(NamedTuple):
    """A stream, or all streams of a device together: from its first start to its last end."""

    where: str
    work: int  # kernels, copies and fills
    busy_ns: int
    host_ns: int  # idle, by cause
    copy_ns: int
    stream_ns: int
    kernel_ns: int
    other_ns: int

    @property
    def idle_ns(self) -> int:
        """All causes together."""
        return sum(self[3:])

    @property
    def wall_ns(self) -> int:
        """Busy and idle time together."""
        return self.busy_ns + self.idle_ns


class Idle(Rows[IdleRow]):
    """Idle time by cause: for each device all of its streams together, then each stream if it has several.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import idle
    >>> trace = kit.simulate([Launch("a", blocks=40, block_ns=20_000), Synchronize(), Launch("b", 40, 20_000)])
    >>> [(row.where, row.busy_ns, row.host_ns) for row in idle(trace)]
    [('GPU 0, 1 stream', 40000, 12000)]
    """

    __slots__ = ()

    def notes(self) -> list[str]:
        """Whether there is anything."""
        return super().notes() if self else ["no work of a GPU in this trace"]

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a line for each row that is shown; the causes are shares of the wall time."""
        head = ("GPU", "wall", "busy", "idle", "for the host", "for a copy", "another stream", "kernel gaps", "other")
        rows = self[: self.SHOWN]
        return [
            head,
            *(
                (
                    row.where,
                    time_text(row.wall_ns),
                    *(share(ns, row.wall_ns) for ns in (row.busy_ns, row.idle_ns, *row[3:])),
                )
                for row in rows
            ),
        ]


def idle(trace: Trace, kernel_gap_ns: int = KERNEL_GAP_NS) -> Idle:
    """The idle time of each device and stream by cause, in nanoseconds; empty if there is no work of a device.

    A device is idle while no stream of it works. Then the cause is that of the work which ends the gap.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import idle
    >>> print(idle(kit.simulate([Launch("a", blocks=40, block_ns=20_000), Synchronize(), Launch("b", 40, 20_000)])))
    GPU              wall     busy   idle   for the host  for a copy  another stream  kernel gaps  other
    GPU 0, 1 stream  52.0 µs  76.9%  23.1%  23.1%         0.0%        0.0%            0.0%         0.0%

    Args:
        kernel_gap_ns: a shorter gap, for which there is no other cause, is the usual time between two kernels.
    """
    work = device_work(trace)
    rows = []
    for number in np.unique(work.device).tolist():
        here = np.flatnonzero(work.device == number)
        streams = np.unique(work.lane[here]).tolist()
        label = f"{trace.lanes[streams[0]].group} GPU {trace.lanes[streams[0]].process}".strip()
        rows.append(_row(trace, work, here, f"{label}, {counted(len(streams), 'stream')}", kernel_gap_ns))
        if len(streams) > 1:
            rows += [
                _row(trace, work, here[work.lane[here] == lane], trace.lanes[lane].label, kernel_gap_ns)
                for lane in streams
            ]
    return Idle(rows)


def _row(trace: Trace, work: DeviceWork, here: Int64, where: str, kernel_gap_ns: int) -> IdleRow:
    here = here[np.argsort(trace.start_ns[work.event[here]], kind="stable")]
    gap, cause = _gaps(trace, work, here, kernel_gap_ns)
    start, end = trace.start_ns[work.event[here]], trace.end_ns[work.event[here]]
    idle_ns = sums(cause, gap, 5).tolist()
    return IdleRow(where, len(here), int(end.max() - start.min()) - sum(idle_ns), *idle_ns)


def _gaps(trace: Trace, work: DeviceWork, here: Int64, kernel_gap_ns: int) -> tuple[Int64, Int64]:
    """The gap before each of these, which are sorted by start, and its cause: 0 host, 1 copy, 2 stream ..."""
    start = trace.start_ns[work.event[here]]
    free = earlier(np.zeros(len(here), np.int64), trace.end_ns[work.event[here]])
    free[:1] = start[:1]
    gap = np.maximum(start - free, 0)
    released = work.released_by[here]
    waited = (released >= 0) & (trace.end_ns[released] > free)
    copy = waited & (roles(trace)[released] == Role.MEMORY)
    short = (work.launch[here] >= 0) & (gap < kernel_gap_ns)
    causes = [work.launched_ns[here] > free, copy, waited, short]
    return gap, np.select(causes, [0, 1, 2, 3], 4)


@one_line
@dataclass(frozen=True)
class LaunchBound:
    """Whether the GPU waits for launches, with the numbers that say so. Devices are added up.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import launch_bound
    >>> found = launch_bound(kit.simulate([*[Launch("large", blocks=400, block_ns=50_000)] * 20, Synchronize()]))
    >>> found.verdict, found.launches
    ('not launch-bound', 20)
    """

    verdict: Verdict
    reason: str = field(repr=False)  # and with it what is measured: a stored output must not change
    wall_ns: int = field(default=0, repr=False)  # from a device's first start to its last end
    busy_ns: int = field(default=0, repr=False)
    idle_ns: int = field(default=0, repr=False)
    host_ns: int = field(default=0, repr=False)  # of it idle, since the next work was launched only afterwards
    launches: int = field(default=0, repr=False)  # calls that launched work
    short: int = field(
        default=0, repr=False
    )  # of these, whose work takes less than the host took from the launch before to this one
    delay_ns: int = field(
        default=0, repr=False
    )  # median time from a launch to the start of its work, where the stream was free

    def table(self) -> list[tuple[str, ...]]:
        """The numbers, as text."""
        return [
            ("launch-bound?", self.verdict),
            ("GPU busy", f"{share(self.busy_ns, self.wall_ns)} of {time_text(self.wall_ns)}"),
            ("idle, waiting for the host", f"{share(self.host_ns, self.wall_ns)}, {time_text(self.host_ns)}"),
            ("of the idle time", share(self.host_ns, self.idle_ns)),
            ("launches", f"{self.launches:,}"),
            ("whose work is shorter than the host's time for it", share(self.short, self.launches)),
            ("median delay from launch to start on a free stream", time_text(self.delay_ns)),
        ]

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"

    def _repr_html_(self) -> str:
        return html_table(self.table(), [self.reason])


def launch_bound(trace: Trace, *, least: float = 0.1, most: float = 0.5) -> LaunchBound:
    """Whether the time between launches, and not the GPU's work, sets the pace.

    With h = (idle time of devices that waits for the host) / (their wall time), and s = the share of launches whose
    work on the GPU takes less than the time from the previous launch of the same thread to this one:

    - ``not launch-bound`` if h < ``least``: with launches that cost nothing, at most h of the time would go;
    - ``launch-bound`` if h >= ``most`` and s >= 1/2, ``partly launch-bound`` if only s >= 1/2;
    - ``waits for the host`` if s < 1/2: there are few long pauses, as when inputs are loaded, and not many short ones;
    - ``not decided`` if there is no work of a device, or the launches of more than half of it are not recorded.

    >>> from kit.simulating import Launch, Synchronize, Work
    >>> from kit.trace import launch_bound
    >>> eager = [Work(50_000), Launch("small", blocks=1, block_ns=2_000)] * 20
    >>> found = launch_bound(kit.simulate([*eager, Synchronize()]))
    >>> found.verdict, round(found.host_ns / found.wall_ns, 2)  # the GPU waits for the host
    ('launch-bound', 0.96)
    """
    work = device_work(trace)
    known = work.launch >= 0
    if not len(known):
        return LaunchBound("not decided", "the trace has no kernels or copies of a GPU.")
    rows = [
        _row(trace, work, np.flatnonzero(work.device == number), "", KERNEL_GAP_NS)
        for number in np.unique(work.device).tolist()
    ]
    wall, busy, host = (sum(getattr(row, name) for row in rows) for name in ("wall_ns", "busy_ns", "host_ns"))
    if 2 * np.count_nonzero(known) <= len(known):
        reason = (
            f"the launches of {np.count_nonzero(~known):,} of {len(known):,} kernels and copies are not in the trace."
        )
        return LaunchBound("not decided", reason, wall, busy, wall - busy)
    launches, launch = np.unique(work.launch[known], return_inverse=True)
    took = sums(launch, trace.duration_ns[work.event[known]], len(launches))
    order = np.lexsort((trace.start_ns[launches], trace.lane[launches]))
    start, thread = trace.start_ns[launches[order]], trace.lane[launches[order]]
    same = np.append(False, thread[1:] == thread[:-1])
    pace = np.where(same, np.append(0, np.diff(start)), trace.duration_ns[launches[order]])
    short = int(np.count_nonzero(took[order] < pace))
    free = known & (work.launched_ns > work.free_ns)
    delays = trace.start_ns[work.event[free]] - work.launched_ns[free]
    delay = int(np.median(delays)) if len(delays) else 0
    part, many = host / wall if wall else 0.0, 2 * short >= len(launches)
    verdict: Verdict = "waits for the host"
    if part < least:
        verdict = "not launch-bound"
    elif many:
        verdict = "launch-bound" if part >= most else "partly launch-bound"
    reason = (
        f"for {share(host, wall)} of its time the GPU is idle and its next work is not yet launched; the work of "
        f"{short:,} of {len(launches):,} launches is shorter than the host's time for the launch."
    )
    return LaunchBound(verdict, reason, wall, busy, wall - busy, host, len(launches), short, delay)
