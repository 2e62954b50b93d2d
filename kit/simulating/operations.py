"""The kernels of a model, from its graph with a guess for each operator, or from a recording as they were."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kit.errors import KitError
from kit.graphs.operators import Graph, Operator
from kit.reprs import one_line
from kit.scheduling.gpu import Gpu, Launch
from kit.trace import Trace, launch_delays
from kit.trace.categories import Role, having
from kit.trace.columns import Int64

TILE = 64 * 64  # outputs that a block of a convolution or of a matrix product computes: a usual tile of CUTLASS
THREADS, EACH = 128, 4  # of an elementwise kernel, and outputs of a thread: PyTorch, native/cuda/thread_constants.h
BYTES = 4  # of a number
# Operators that change what a tensor looks like, and launch no kernel.
NO_KERNEL = (
    "view view_as reshape flatten Flatten permute transpose t squeeze unsqueeze expand expand_as chunk split unbind "
    "select narrow getitem getattr size Identity Dropout Dropout2d Dropout3d dropout detach contiguous"
)


@one_line
class Operation(NamedTuple):
    """A kernel of a model, and what it needs.

    >>> from kit.simulating import Launch, Operation
    >>> kernel = Launch("conv", blocks=40, block_ns=20_000)
    >>> block = [Operation(kernel, branch=0), Operation(kernel, branch=1), Operation(kernel, after=(0, 1))]
    >>> sorted(lane.label for lane in kit.simulate(block, "cuda_streams").lanes)
    ['GPU 0 stream 7', 'GPU 0 stream 8', 'GPU 0 stream 9', 'caller']
    """

    kernel: Launch  # its stream is chosen by an approach
    branch: int = -1  # which of a region's branches it is in; -1: none
    after: tuple[int, ...] = ()  # indices of the operations whose results it takes, all smaller than its own
    host_ns: int | None = None  # host time before its launch; None: the GPU's eager_ns, less the launch


def operations_of(graph: Graph, gpu: Gpu) -> list[Operation]:
    """One kernel for each operator of a captured model, with a guess of its time by the roofline model.

    An operator takes its FLOPs at the GPU's peak or its bytes (inputs, weights, output) at the GPU's bandwidth, the
    longer of the two, and ``kernel_ns`` at least; if it has fewer blocks than the GPU has SMs, only their part of both
    is available to it. A block takes the share of its SM that it uses. A branch is one of an outermost region.

    It is a guess: real kernels reach a part of the peak, and libraries choose other blocks.

    Source: Williams, Waterman & Patterson, *Roofline: An Insightful Visual Performance Model for Multicore
    Architectures*, 2009.

    >>> from kit import models
    >>> from kit.simulating import Gpu, operations_of
    >>> graph = kit.graph(models.inception_block(8, 8), torch.rand(1, 8, 9, 9))
    >>> sorted({each.branch for each in operations_of(graph, Gpu())})  # -1: in no branch
    [-1, 0, 1, 2, 3]
    """
    branch_of = {i: k for region in graph.regions for k, branch in enumerate(region.branches) for i in branch.operators}
    sizes = [_elements(each.shape) for each in graph.operators]
    free = {i for i, each in enumerate(graph.operators) if each.kind in NO_KERNEL.split()}
    place: dict[int, tuple[int, ...]] = {}  # operator -> the operations that give what it gives
    found: list[Operation] = []
    for i, each in enumerate(graph.operators):
        after = tuple(sorted({j for needed in (*each.data, *each.order) for j in place[needed]}))
        place[i] = after if i in free else (len(found),)
        if i not in free:
            read, weights = sum(sizes[j] for j in each.data), _weights(each, sizes[i])
            kernel = _guess(each, sizes[i], read, weights, gpu)
            found.append(Operation(kernel, branch_of.get(i, -1), after))
    return found


def _guess(operator: Operator, outputs: int, read: int, weights: int, gpu: Gpu) -> Launch:
    tiled = operator.macs > 0
    # Reductions are split by what they read, and matrices times few rows by their weights; convolutions hardly ever.
    divided = max(outputs, 0 if _is_convolution(operator) else weights if tiled else read)
    blocks = max(1, math.ceil(divided / (TILE if tiled else THREADS * EACH)))
    threads = min(2 * THREADS if tiled else THREADS, gpu.threads_per_sm)
    per_sm = min(gpu.blocks_per_sm, gpu.threads_per_sm // threads, math.ceil(blocks / gpu.sms))
    waves = math.ceil(blocks / (gpu.sms * per_sm))
    busy = min(1.0, blocks / gpu.sms)  # of the SMs
    moved = BYTES * (read + weights + outputs)
    needs = max(2 * operator.macs / gpu.flops, moved / gpu.bytes_per_s) * 1e9 / busy
    takes = max(needs, gpu.kernel_ns)
    return Launch(operator.name, blocks, max(1, round(takes / waves)), threads, needs / takes / per_sm)


def _is_convolution(operator: Operator) -> bool:
    return operator.kind.lower().startswith("conv")


def _elements(shape: str) -> int:
    """Of all tensors in the text that a graph has for the shapes of an output."""
    shapes = [each.strip() for each in shape.split(",") if each.strip()]
    return sum(math.prod(map(int, each.split("x"))) if each != "scalar" else 1 for each in shapes)


def _weights(operator: Operator, outputs: int) -> int:
    """How many weights it reads, by its MACs: each weight meets each place of the output once."""
    sizes = [int(size) for size in operator.shape.split(",")[0].split("x") if size.strip().isdigit()]
    if not operator.macs or not outputs or len(sizes) < 2:
        return 0
    if _is_convolution(operator):
        return operator.macs * sizes[1] // outputs
    return operator.macs * sizes[-1] // outputs if operator.kind.lower() == "linear" else 0


def recorded_operations(trace: Trace, gpu: Gpu, fills: float = 1.0) -> list[Operation]:
    """What a GPU ran in a recording: durations as they were, and the host time before each launch.

    Only work whose launch was recorded is taken, in the order of the launches. What the host spent in waiting for the
    GPU is left out. Kernels that were launched within the branches of a region, which recordings of the kit name, are
    independent of the region's other branches; all others need what is before them.

    >>> from kit.data_files import data_file
    >>> from kit.simulating import Gpu, recorded_operations
    >>> recorded = kit.load_trace(data_file("traces/h200-inception-block-sequential.json.gz"))
    >>> len(recorded_operations(recorded, Gpu()))
    29
    >>> kit.simulate(recorded, "graphed_streams")
    Trace(31 events in 6 lanes)

    Args:
        fills: the part of the SMs that each kernel fills, 0 to 1; few recordings say which.

    Raises:
        KitError: the recording has no GPU work with its launch.
    """
    if not 0 <= fills <= 1:
        raise KitError(f"fills is {fills}: it is a part of the SMs, from 0 to 1.")
    delays = launch_delays(trace)
    if not len(delays.launch):
        raise KitError(f"{trace!r} has no kernel whose launch was recorded, so there is nothing to simulate.")
    begins = trace.start_ns[delays.launch]
    order = np.lexsort((trace.start_ns[delays.start], begins))
    calls = having(trace, Role.RUNTIME)
    waits = calls[["Synchronize" in trace.names[name] for name in trace.name[calls].tolist()]]
    returned, waited = np.sort(trace.end_ns[waits]), np.append(0, np.cumsum(trace.duration_ns[waits]))
    at = begins[order].tolist()
    lost = waited[np.searchsorted(returned, at)].tolist()
    host = [b - a - (y - x) - gpu.launch_ns for (a, b), (x, y) in zip(pairwise(at), pairwise(lost), strict=True)]
    blocks = max(1, round(fills * gpu.sms))
    inside = _branches(trace, delays.launch[order])
    found: list[Operation] = []
    region = -1  # the one that is open
    fork: tuple[int, ...] = ()  # what was before it
    ends: dict[int, int] = {}  # branch -> its last operation
    for i, (event, (where, branch)) in enumerate(zip(delays.start[order].tolist(), inside, strict=True)):
        name, duration = trace.names[trace.name[event]], max(1, int(trace.duration_ns[event]))
        kernel = Launch(name, blocks, duration, threads=1, share=1.0)
        if branch < 0 or where != region:
            region, fork, ends = where, tuple(ends.values()) or fork, {}
        after = (ends[branch],) if branch in ends else fork
        found.append(Operation(kernel, branch, after, max(0, host[i - 1]) if i else 0))
        ends[branch] = i
    return found


def _branches(trace: Trace, launches: Int64) -> list[tuple[int, int]]:
    """For each launch, the outermost region around it (-1: none), and the place of the region's branch (-1: none)."""
    spans = {kind: np.flatnonzero(trace.of_category(kind)).tolist() for kind in ("region", "task")}
    start, end = trace.start_ns.tolist(), trace.end_ns.tolist()
    of_region: dict[int, list[int]] = defaultdict(list)  # the names of its branches, in their order
    found = []
    for launch in launches.tolist():
        at = start[launch]
        around = [[e for e in spans[kind] if start[e] <= at < end[e]] for kind in ("region", "task")]
        if not all(around):
            found.append((around[0][0] if around[0] else -1, -1))
            continue
        region, branch = around[0][0], int(trace.name[around[1][0]])
        if branch not in of_region[region]:
            of_region[region].append(branch)
        found.append((region, of_region[region].index(branch)))
    return found


def breadth_first(operations: Sequence[Operation]) -> list[Operation]:
    """The same operations in another order of launch: of several branches one kernel each in turn.

    An operation comes after all that it needs, and those that need equally many others before them come in their order.

    >>> from kit.simulating import Launch, Operation, breadth_first
    >>> a, b = (Launch(name, blocks=40, block_ns=20_000) for name in "ab")
    >>> chains = [Operation(a, 0), Operation(a, 0, after=(0,)), Operation(b, 1), Operation(b, 1, after=(2,))]
    >>> [each.kernel.name for each in breadth_first(chains)]
    ['a', 'b', 'a', 'b']
    """
    depth: list[int] = []
    for each in operations:
        depth.append(max((depth[i] + 1 for i in each.after), default=0))
    order = sorted(range(len(operations)), key=depth.__getitem__)
    place = {i: k for k, i in enumerate(order)}
    return [operations[i]._replace(after=tuple(sorted(place[j] for j in operations[i].after))) for i in order]
