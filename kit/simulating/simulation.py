"""``kit.simulate``: a program, a model or a recording on a simulated GPU, as a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import cast

from kit.errors import KitError
from kit.graphs.operators import Graph
from kit.scheduling.gpu import Await, Call, Copy, Gpu, Launch, LaunchGraph, Record, Signal, Synchronize, Wait, Work
from kit.scheduling.gpu_run import Run, name_of, run
from kit.simulating.operations import Operation, operations_of, recorded_operations
from kit.simulating.programs import CALLER, program
from kit.trace import Event, Lane, Trace

Simulated = Graph | Trace | Sequence[Operation] | Sequence[Call] | Mapping[str, Sequence[Call]]


def simulate(
    what: Simulated, approach: str | None = None, *, gpu: Gpu | None = None, streams: int | None = None
) -> Trace:
    """Simulate host threads and a GPU by a small model with stated rules: nothing is measured.

    The trace looks like a recording, with launches, kernels and copies in lanes; ``trace.about`` says that it is
    simulated, with the numbers of the GPU, and lists uses of memory that nothing orders. The rules, their sources, and
    what they leave out are in :mod:`kit.scheduling.gpu_run`.

    >>> from kit.simulating import Gpu, Launch, Synchronize
    >>> two = [Launch("a", blocks=40, block_ns=20_000), Launch("b", 40, 20_000, stream=8), Synchronize()]
    >>> trace = kit.simulate(two, gpu=Gpu(sms=46))
    >>> trace, trace.about["simulated"]
    (Trace(5 events in 3 lanes), True)
    >>> block = kit.Branches({"1x1": nn.Conv2d(8, 8, 1), "3x3": nn.Conv2d(8, 8, 3, padding=1)}, kit.Concat(1)).eval()
    >>> kit.simulate(kit.graph(block, torch.rand(1, 8, 16, 16)), "cuda_streams").about["approach"]
    'cuda_streams'

    Args:
        what: the graph of a model; operations; a recording, whose kernels are launched as one stream; or a program:
            the calls of one thread, or thread -> calls.
        approach: how a model is launched: "sequential" (by default), "cuda_streams", "cuda_streams_threads", "graphed"
            or "graphed_streams". A program says this itself.
        gpu: its numbers; None: those of an H200.
        streams: at most so many beside the default stream; None: one for each branch.

    Raises:
        UnknownNameError: no such approach.
        KitError: nothing to simulate, a call that means nothing on this GPU, or threads that wait for each other.
    """
    gpu = gpu or Gpu()
    programs = _program_in(what)
    if programs is None:
        approach = approach or "sequential"
        programs = dict(program(_operations_in(what, gpu), approach, gpu, streams))
    elif approach is not None or streams is not None:
        raise KitError("a program says itself what is launched where: give it without an approach or streams.")
    if not any(programs.values()):
        raise KitError("there is no call to simulate.")
    found = run(programs, gpu)
    about = {"simulated": True, "approach": approach or "a program", "gpu": asdict(gpu)}
    trace = Trace.build(_events(found, list(programs), approach or ""))
    return replace(trace, about={**about, "races": [str(race) for race in found.races]})


def _program_in(what: Simulated) -> Mapping[str, Sequence[Call]] | None:
    """Thread -> calls, if it is a program."""
    if isinstance(what, Mapping):
        return what
    if not isinstance(what, Graph | Trace) and all(isinstance(each, Call) for each in what):
        return {CALLER: cast("Sequence[Call]", what)}
    return None


def _operations_in(what: Simulated, gpu: Gpu) -> Sequence[Operation]:
    if isinstance(what, Graph):
        return operations_of(what, gpu)
    if isinstance(what, Trace):
        return recorded_operations(what, gpu)
    if isinstance(what, Iterable) and all(isinstance(each, Operation) for each in what):
        return cast("Sequence[Operation]", what)
    raise KitError(f"{type(what).__name__} cannot be simulated: give a graph, a recording, operations, or calls.")


def _events(found: Run, threads: Sequence[str], group: str) -> Iterator[Event]:
    """As PyTorch's profiler writes them."""
    lanes = {name: Lane(1, i + 1, name, group) for i, name in enumerate(threads)}
    launches = {ran.call for ran in found.ran}
    for i, each in enumerate(found.calls):
        name, category = _host(each.call)
        if name and each.end_ns > each.start_ns:
            tie = i + 1 if i in launches else -1
            yield Event(name, category, each.start_ns, each.end_ns - each.start_ns, lanes[each.thread], tie)
    for ran in found.ran:
        lane = Lane(0, ran.what.stream, f"GPU 0 stream {ran.what.stream}", group)
        category = "kernel" if isinstance(ran.what, Launch) else "gpu_memcpy"
        yield Event(name_of(ran.what), category, ran.start_ns, ran.end_ns - ran.start_ns, lane, ran.call + 1)


def _host(call: Call) -> tuple[str, str]:
    """Name and category of a call; no name for one that a profiler does not see."""
    match call:
        case Work(name=name):
            return name, "cpu_op"
        case Launch():
            return "cudaLaunchKernel", "cuda_runtime"
        case Copy():
            return "cudaMemcpyAsync", "cuda_runtime"
        case Record():
            return "cudaEventRecord", "cuda_runtime"
        case Wait():
            return "cudaStreamWaitEvent", "cuda_runtime"
        case LaunchGraph():
            return "cudaGraphLaunch", "cuda_runtime"
        case Synchronize(stream=None, event=None):
            return "cudaDeviceSynchronize", "cuda_runtime"
        case Synchronize(event=None):
            return "cudaStreamSynchronize", "cuda_runtime"
        case Synchronize():
            return "cudaEventSynchronize", "cuda_runtime"
        case Signal() | Await():
            return "", ""
