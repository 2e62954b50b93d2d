"""A GPU and the calls that host threads make to it, as plain data: what :mod:`kit.scheduling.gpu_run` simulates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from kit.errors import KitError
from kit.reprs import one_line

DEFAULT = 7  # the default stream: the number that recordings of PyTorch give it
SHARE = 2**16  # units of an SM's share: as many as an SM has 32-bit registers

_GUIDE = "CUDA C++ Programming Guide, table of technical specifications per compute capability"
_READ = "read from public recordings of A100, H100 and RTX 2080 Ti, and from the kit's of H200"
_VARIABLES = "CUDA C++ Programming Guide, CUDA_DEVICE_MAX_CONNECTIONS"


def _set(value: Any, unit: str, low: float, high: float, source: str) -> Any:
    return field(default=value, metadata={"unit": unit, "low": low, "high": high, "source": source})


@one_line
class Parameter(NamedTuple):
    """What is known of one field of :class:`Gpu`."""

    name: str
    unit: str
    default: float
    low: float  # the range that the source gives; other values are allowed
    high: float
    source: str


@one_line
@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU and its driver, by numbers; :meth:`parameters` gives the unit, the range and the source of each.

    >>> from kit.simulating import Gpu
    >>> small = Gpu(sms=46)
    >>> small.sms, small.queues
    (46, 8)
    >>> [(each.unit, each.low, each.high) for each in Gpu.parameters() if each.name == "sms"]
    [('SMs', 14, 148)]

    Raises:
        KitError: a number that no GPU can have; the message names it.
    """

    sms: int = _set(132, "SMs", 14, 148, "NVIDIA's data sheets; H100 SXM and H200 have 132")
    threads_per_sm: int = _set(2048, "threads", 1024, 2048, _GUIDE)
    blocks_per_sm: int = _set(32, "blocks", 16, 32, _GUIDE)
    grids: int = _set(128, "kernels at a time", 16, 128, _GUIDE)
    flops: float = _set(67e12, "FLOP/s", 8e12, 80e12, "NVIDIA's data sheets, float32 without tensor cores")
    bytes_per_s: float = _set(4.8e12, "B/s", 0.3e12, 8e12, "NVIDIA's data sheets; H200 has 4.8e12")
    kernel_ns: int = _set(1_500, "ns", 1_200, 2_300, f"the shortest kernels, {_READ}")
    queues: int = _set(8, "hardware queues", 1, 32, _VARIABLES)
    pool: int = _set(32, "streams", 32, 32, "PyTorch, c10/cuda/CUDAStream.cpp: the 33rd stream is the first one again")
    blocking_streams: bool = _set(
        False,
        "yes or no",
        0,
        1,
        "CUDA Runtime API, stream synchronization behavior; PyTorch's streams are non-blocking",
    )
    launch_ns: int = _set(5_000, "ns", 3_000, 9_000, f"cudaLaunchKernel, {_READ}")
    start_ns: int = _set(7_000, "ns", 4_000, 11_000, f"from a launch to its kernel on an empty queue, {_READ}")
    gap_ns: int = _set(1_200, "ns", 900, 2_300, f"from a kernel to one that waits for it, {_READ}")
    eager_ns: int = _set(50_000, "ns", 24_000, 55_000, f"from one launch of eager PyTorch to the next, {_READ}")
    gil_share: float = _set(0.4, "of host time", 0.3, 0.5, f"host time outside of operators and calls, {_READ}")
    event_ns: int = _set(800, "ns", 400, 3_000, f"cudaEventRecord and cudaStreamWaitEvent, {_READ}")
    sync_ns: int = _set(5_000, "ns", 3_000, 8_000, f"from the end of the GPU's work to the return of the call, {_READ}")
    wake_ns: int = _set(20_000, "ns", 5_000, 100_000, "from one Python thread to another; kit.graph measures it")
    graph_ns: int = _set(15_000, "ns", 14_000, 28_000, f"cudaGraphLaunch of small graphs, {_READ}")
    node_ns: int = _set(
        1_050, "ns", 1_000, 1_200, "host, a node of cudaGraphLaunch; recorded on H200, and on an AMD GPU"
    )
    node_gap_ns: int = _set(400, "ns", 0, 700, "from a node of a graph to one that waits for it; recorded on H200")
    copy_ns: int = _set(8_000, "ns", 4_000, 15_000, f"cudaMemcpyAsync of pinned memory, {_READ}")
    pinned_gbps: float = _set(12.0, "GB/s", 7.6, 12.7, f"PCIe 3 and 4, {_READ}")
    pageable_gbps: float = _set(4.0, "GB/s", 3.1, 6.5, f"PCIe 3, {_READ}")

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), 0 if each.name.endswith("_ns") else 1
            if each.type == "int" and not _whole(value, least):
                raise KitError(f"{each.name} is {value!r}: give a whole number, {least} or more.")
            if each.type == "float" and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise KitError(f"{each.name} is {value!r}: give a number, 0 or more.")
        for name in ("flops", "bytes_per_s", "pinned_gbps", "pageable_gbps"):
            if not getattr(self, name):
                raise KitError(f"{name} is 0: nothing would ever end.")
        if self.gil_share > 1:
            raise KitError(f"gil_share is {self.gil_share}: it is a share of host time, from 0 to 1.")
        if self.queues > 32:
            raise KitError(f"queues is {self.queues}: a GPU has at most 32 hardware queues.")
        if self.start_ns < self.launch_ns:
            raise KitError(f"start_ns {self.start_ns} is below launch_ns {self.launch_ns}: it includes the launch.")

    @classmethod
    def parameters(cls) -> Iterator[Parameter]:
        """Each number with its unit, default, published range and source."""
        for each in fields(cls):
            yield Parameter(each.name, default=getattr(cls, each.name), **each.metadata)


@one_line
class Work(NamedTuple):
    """Host time of a thread: Python, or an operator before it launches.

    >>> from kit.simulating import Launch, Synchronize, Work
    >>> kit.simulate([Work(50_000, "aten::conv2d"), Launch("a", blocks=40, block_ns=20_000), Synchronize()]).names
    ('aten::conv2d', 'cudaLaunchKernel', 'cudaDeviceSynchronize', 'a')
    """

    ns: int
    name: str = "operator"
    gil: float | None = None  # the share of it, at its beginning, with the GIL; None: the GPU's gil_share
    reads: tuple[str, ...] = ()  # names of memory, for the account of what is not ordered
    writes: tuple[str, ...] = ()


@one_line
class Launch(NamedTuple):
    """A kernel, put into a stream.

    >>> from kit.simulating import Gpu, Launch, Synchronize
    >>> from kit.trace import gpu_busy_ns
    >>> gpu_busy_ns(kit.simulate([Launch("a", blocks=92, block_ns=20_000, share=1.0), Synchronize()], gpu=Gpu(sms=46)))
    40000
    """

    name: str
    blocks: int  # >= 1
    block_ns: int  # from the start of a block to its end, >= 1
    threads: int = 256  # of a block
    share: float = 0.0  # of an SM that a block takes, 0 to 1: registers, shared memory, or what else is limited
    stream: int = DEFAULT
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@one_line
class Copy(NamedTuple):
    """A copy between the host and the GPU, as cudaMemcpyAsync makes it.

    >>> from kit.simulating import Copy, Synchronize
    >>> from kit.trace import gpu_busy_ns
    >>> [gpu_busy_ns(kit.simulate([Copy(1_000_000, pinned=pinned), Synchronize()])) for pinned in (True, False)]
    [83333, 250000]
    """

    bytes: int  # >= 1
    to: Literal["device", "host"] = "device"
    pinned: bool = True  # False: of pageable memory, for which the call blocks
    stream: int = DEFAULT
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@one_line
class Record(NamedTuple):
    """An event, put into a stream: it happens when what is before it in the stream has ended.

    >>> from kit.simulating import Launch, Record, Synchronize, Wait
    >>> first = [Launch("a", blocks=40, block_ns=20_000, stream=8, writes=("x",)), Record("done", 8)]
    >>> then = [Wait("done"), Launch("b", 40, 20_000, reads=("x",)), Synchronize()]
    >>> kit.simulate([*first, *then]).about["races"]
    []
    """

    event: str
    stream: int = DEFAULT


@one_line
class Wait(NamedTuple):
    """A stream waits for an event as it was recorded last; for one that is not recorded yet it does not wait.

    >>> from kit.simulating import Launch, Record, Synchronize, Wait
    >>> writes = Launch("a", blocks=40, block_ns=20_000, stream=8, writes=("x",))
    >>> reads = Launch("b", blocks=40, block_ns=20_000, reads=("x",))
    >>> len(kit.simulate([writes, reads, Synchronize()]).about["races"])  # b may read x before a has written it
    1
    >>> len(kit.simulate([writes, Record("done", 8), Wait("done"), reads, Synchronize()]).about["races"])
    0
    """

    event: str
    stream: int = DEFAULT


@one_line
class Synchronize(NamedTuple):
    """The thread waits for a stream, for an event, or for all that was launched.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import wall_ns
    >>> launch = Launch("a", blocks=40, block_ns=200_000)
    >>> host = [kit.simulate([launch, *rest]).select(lanes=[0]) for rest in ([], [Synchronize()])]
    >>> [wall_ns(trace) for trace in host]  # without it the thread goes on while the GPU works
    [5000, 212000]
    """

    stream: int | None = None
    event: str | None = None


@one_line
class LaunchGraph(NamedTuple):
    """A captured graph: its calls are those that were captured, and all of them are launched with one call.

    A side stream of the capture begins with a Wait, and the stream of the launch waits for its end, as CUDA demands.

    >>> from kit.simulating import Launch, LaunchGraph, Synchronize
    >>> graph = LaunchGraph((Launch("a", blocks=40, block_ns=20_000), Launch("b", 40, 20_000)))
    >>> kit.simulate([graph, Synchronize()]).names
    ('cudaGraphLaunch', 'cudaDeviceSynchronize', 'a', 'b')
    """

    calls: tuple[Launch | Copy | Record | Wait, ...]
    stream: int = DEFAULT
    name: str = "graph"


@one_line
class Signal(NamedTuple):
    """The thread sets a flag for other threads.

    >>> from kit.simulating import Await, Launch, Signal, Synchronize, Work
    >>> helper = [Await("ready"), Launch("a", blocks=40, block_ns=20_000), Synchronize()]
    >>> kit.simulate({"main": [Work(20_000), Signal("ready")], "helper": helper}).names
    ('operator', 'cudaLaunchKernel', 'cudaDeviceSynchronize', 'a')
    """

    flag: str


@one_line
class Await(NamedTuple):
    """The thread waits until another one sets the flag.

    >>> from kit.simulating import Await, Launch, Signal, Synchronize, Work
    >>> main = [Work(20_000, "prepare"), Signal("ready")]
    >>> helper = [Await("ready"), Launch("a", blocks=40, block_ns=20_000), Synchronize()]
    >>> kit.simulate({"main": main, "helper": helper})
    Trace(4 events in 3 lanes)
    """

    flag: str


Call = Work | Launch | Copy | Record | Wait | Synchronize | LaunchGraph | Signal | Await


def check(programs: dict[str, tuple[Call, ...]], gpu: Gpu) -> None:
    """Refuse calls that mean nothing on this GPU.

    Raises:
        KitError: a block that no SM can hold, a time or size below 1, an event or flag that nobody sets, a graph with
            a stream that CUDA would not capture; the message names the thread and the call.
    """
    recorded = {call.event for calls in programs.values() for call in calls if isinstance(call, Record)}
    flags = {call.flag for calls in programs.values() for call in calls if isinstance(call, Signal)}
    for thread, calls in programs.items():
        for call in calls:
            fault = _fault(call, gpu, recorded, flags)
            if fault:
                raise KitError(f"{thread}, {call}: {fault}")


def _fault(call: Call, gpu: Gpu, events: set[str], flags: set[str]) -> str:
    match call:
        case Launch(blocks=blocks, block_ns=ns) if not (_whole(blocks, 1) and _whole(ns, 1)):
            return "a kernel has at least 1 block, and a block takes at least 1 ns."
        case Launch(threads=threads) if not (_whole(threads, 1) and threads <= gpu.threads_per_sm):
            return f"a block has 1 to {gpu.threads_per_sm} threads here."
        case Launch(share=share) if not 0 <= share <= 1:
            return "a block takes a share of an SM from 0 to 1."
        case Copy(bytes=size) if not _whole(size, 1):
            return "a copy has at least 1 byte."
        case Copy(to=to) if to not in ("device", "host"):
            return 'a copy goes to "device" or to "host".'
        case Work(ns=ns, gil=gil) if not (_whole(ns, 0) and (gil is None or 0 <= gil <= 1)):
            return "host time is 0 ns or more, and the share with the GIL from 0 to 1."
        case Wait(event=str(event)) | Synchronize(event=str(event)) if event not in events:
            return f"no call records the event {event!r}."
        case Await(flag=flag) if flag not in flags:
            return f"no thread signals {flag!r}."
        case LaunchGraph():
            return _graph_fault(call, gpu)
        case _:
            return ""


def _graph_fault(graph: LaunchGraph, gpu: Gpu) -> str:
    """What is wrong with a graph: a side stream forks from the captured stream and is joined by it, over events."""
    recorded = {call.event for call in graph.calls if isinstance(call, Record)}
    waited = {call.event for call in graph.calls if isinstance(call, Wait)}
    first, last = {call.stream: call for call in reversed(graph.calls)}, {call.stream: call for call in graph.calls}
    if not graph.calls:
        return "it captured no call."
    for call in graph.calls:
        if isinstance(call, Copy) and not call.pinned:
            return "a copy of pageable memory cannot be captured."
        if fault := _fault(call, gpu, recorded, set()):
            return f"in it, {call}: {fault}"
    for stream in last.keys() - {graph.stream}:
        end = last[stream]
        if not isinstance(first[stream], Wait):
            return f"stream {stream} does not begin with a Wait, so it was not captured."
        if not isinstance(end, Record) or end.event not in waited:
            return f"the end of stream {stream} is not recorded and waited for: CUDA calls this unjoined work."
    return ""


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least
