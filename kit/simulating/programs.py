"""Approaches: which thread launches the kernels of a model, into which stream, and what waits for what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kit.errors import KitError, UnknownNameError
from kit.scheduling.gpu import (
    DEFAULT,
    Await,
    Call,
    Copy,
    Gpu,
    Launch,
    LaunchGraph,
    Record,
    Signal,
    Synchronize,
    Wait,
    Work,
)
from kit.simulating.operations import Operation

APPROACHES = ("sequential", "cuda_streams", "cuda_streams_threads", "graphed", "graphed_streams")
CALLER, FORK = "caller", "fork"


def program(
    operations: Sequence[Operation], approach: str, gpu: Gpu, streams: int | None = None
) -> dict[str, list[Call]]:
    """Thread -> its calls, for one call of the model, in the order of the operations.

    A stream waits for an event of another one where an operation takes a result of it, unless it has waited for a later
    one already; a thread waits for the thread that launches it. In the end the caller waits for the GPU.

    >>> from kit.simulating import Gpu, Launch, Operation, program
    >>> kernel = Launch("conv", blocks=40, block_ns=20_000)
    >>> calls = program([Operation(kernel, branch=0), Operation(kernel, branch=1)], "cuda_streams", Gpu())
    >>> [call.stream for call in calls["caller"] if isinstance(call, Launch)]  # a stream for each branch
    [8, 9]

    Args:
        approach: one of ``APPROACHES``, which mean what they mean in :func:`kit.compare`.
        streams: at most so many beside the default stream; None: one for each branch.

    Raises:
        UnknownNameError: no such approach.
        KitError: no operations, fewer than one stream, or an operation that needs a later one.
    """
    if approach not in APPROACHES:
        raise UnknownNameError("simulated approach", approach, APPROACHES)
    if not operations:
        raise KitError("there are no operations to launch.")
    if streams is not None and streams < 1:
        raise KitError(f"streams is {streams}: at least 1 stream is needed.")
    most = min(gpu.pool, streams or gpu.pool)
    forks = "streams" in approach
    sides = [0 if each.branch < 0 or not forks else 1 + each.branch % most for each in operations]
    threads = [f"worker {side - 1}" if side and "threads" in approach else CALLER for side in sides]
    found = _ordered(operations, [DEFAULT + side for side in sides], threads, gpu)
    if approach.startswith("graphed"):
        captured = tuple(call for call in found[CALLER] if isinstance(call, Launch | Copy | Record | Wait))
        found = {CALLER: [LaunchGraph(captured)]}
    found[CALLER].append(Synchronize())
    return found


def _ordered(
    operations: Sequence[Operation], streams: Sequence[int], threads: Sequence[str], gpu: Gpu
) -> dict[str, list[Call]]:
    """The launches with the events and flags that keep their order over streams and threads."""
    calls: dict[str, list[Call]] = {CALLER: []}
    needed: dict[int, set[str]] = defaultdict(set)  # operation -> what has to be told of it: "stream", or a thread
    waits: list[list[int]] = []  # of each operation: those of other streams that its stream waits for
    seen: dict[tuple[int | str, int | str], int] = {}  # (who waits, for whom) -> the latest operation
    last: dict[int, int] = {}  # stream -> its last operation
    awaits: list[list[int]] = []
    for i, each in enumerate(operations):
        if any(not 0 <= j < i for j in each.after):
            raise KitError(f"operation {i} ({each.kernel.name}) needs {each.after}: give those that come before it.")
        waits.append([])
        awaits.append([])
        for j in sorted(each.after, reverse=True):
            if streams[j] != streams[i] and seen.get((streams[i], streams[j]), -1) < j:
                seen[streams[i], streams[j]] = j
                waits[i].append(j)
                needed[j].add("event")
            if threads[j] != threads[i] and seen.get((threads[i], threads[j]), -1) < j:
                seen[threads[i], threads[j]] = j
                awaits[i].append(j)
                needed[j].add("flag")
        last[streams[i]] = i
    forked = {streams[i] for i in range(len(operations)) if streams[i] != DEFAULT} - {
        streams[i] for i in range(len(operations)) if waits[i] and i == streams.index(streams[i])
    }
    if forked:
        calls[CALLER].append(Record(FORK))
    workers = dict.fromkeys(thread for thread in threads if thread != CALLER)
    calls |= {worker: [] for worker in workers}
    for i, each in enumerate(operations):
        mine = calls[threads[i]]
        mine += [Await(f"launched {j}") for j in awaits[i]]
        if streams[i] in forked:
            forked.remove(streams[i])
            mine.append(Wait(FORK, streams[i]))
        mine += [Wait(f"event {j}", streams[i]) for j in waits[i]]
        host = max(0, gpu.eager_ns - gpu.launch_ns) if each.host_ns is None else each.host_ns
        mine.append(Work(host, each.kernel.name))
        mine.append(each.kernel._replace(stream=streams[i]))
        joins = streams[i] != DEFAULT and last[streams[i]] == i
        mine += [Record(f"event {i}", streams[i])] if "event" in needed[i] or joins else []
        mine += [Signal(f"launched {i}")] if "flag" in needed[i] or (joins and threads[i] != CALLER) else []
    for stream, i in last.items():
        if stream != DEFAULT and seen.get((DEFAULT, stream), -1) < i:
            calls[CALLER] += [Await(f"launched {i}")] if threads[i] != CALLER else []
            calls[CALLER].append(Wait(f"event {i}"))
    return calls
