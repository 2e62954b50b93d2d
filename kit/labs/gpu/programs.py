"""What notebook 05 simulates: long kernels, sizes, orders of launch, copies, and uses of memory that nothing orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from kit.labs.gpu.sources import CHUNK, CHUNKS, PRODUCTS, SIDE, Copies, Products, on_this_gpu, record_here
from kit.simulating import (
    DEFAULT,
    Call,
    Copy,
    Gpu,
    Launch,
    Operation,
    Record,
    Synchronize,
    Wait,
    Work,
    breadth_first,
    recorded_operations,
    simulate,
)
from kit.trace import Trace

US, MS = 1_000, 1_000_000
SMS = Gpu().sms
SMALL, LARGE = "small kernels", "large kernels"
SIZES = {SMALL: SMS // 4, LARGE: SMS}  # blocks, each of which takes a whole SM
ONE, FOUR = "one stream", "four streams"
BRANCHES = 4
DEPTH, BREADTH = "depth first", "breadth first"
ONE_QUEUE = "1 hardware queue"
COPIES = {  # name -> pinned, non_blocking, streams
    "pageable": (False, False, False),
    "pinned": (True, False, False),
    "pinned, streams": (True, False, True),
    "pinned, non_blocking": (True, True, False),
    "pageable, non_blocking, streams": (False, True, True),
    "pinned, non_blocking, streams": (True, True, True),
}
PLAIN, PINNED, ALL_THREE = "pageable", "pinned", "pinned, non_blocking, streams"
PICTURED = (PLAIN, "pinned, non_blocking", ALL_THREE)
RECORDED_HERE = (PLAIN, PINNED, ALL_THREE)  # each costs a new process
HERE = ", on this GPU"
UP, COMPUTE, DOWN = DEFAULT + 1, DEFAULT + 2, DEFAULT + 3


def long_kernels() -> Trace:
    """Ten products of large matrices: on this machine's GPU, else simulated kernels of 2 ms that fill it."""
    if on_this_gpu():
        return record_here(Products(), torch.rand(SIDE, SIDE))
    return simulate([*_launches(Launch("product", SMS, 2 * MS, share=1.0) for _ in range(PRODUCTS)), Synchronize()])


def _launches(kernels: Iterable[Launch], gpu: Gpu | None = None) -> list[Call]:
    """The host's time for an operator, and its launch, of each."""
    gpu = gpu or Gpu()
    host = max(0, gpu.eager_ns - gpu.launch_ns)
    return [call for kernel in kernels for call in (Work(host, kernel.name), kernel)]


def branches(count: int, kernels: int, blocks: int, ns: int) -> list[Operation]:
    """So many equal branches of so many kernels each; a block takes a whole SM for ``ns``."""
    found: list[Operation] = []
    for branch in range(count):
        for i in range(kernels):
            kernel = Launch(f"branch {branch + 1}, kernel {i + 1}", blocks, ns, share=1.0)
            found.append(Operation(kernel, branch, (len(found) - 1,) if i else ()))
    return found


def sizes() -> dict[str, Trace]:
    """Four branches of two kernels, which take 200 µs alone and fill a quarter of the GPU, or all of it."""
    return {
        f"{size}, {name}": simulate(branches(BRANCHES, 2, blocks, 200 * US), approach)
        for size, blocks in SIZES.items()
        for name, approach in ((ONE, "sequential"), (FOUR, "cuda_streams"))
    }


def orders() -> dict[str, Trace]:
    """Four branches of four small kernels on four streams: whole branches in turn, or a kernel of each in turn."""
    depth = branches(BRANCHES, 4, SIZES[SMALL], 200 * US)
    given = {DEPTH: depth, BREADTH: breadth_first(depth)}
    queues = {"": Gpu(), f", {ONE_QUEUE}": Gpu(queues=1)}
    return {
        f"{name}{more}": simulate(each, "cuda_streams", gpu=gpu)
        for more, gpu in queues.items()
        for name, each in given.items()
    }


def copies() -> dict[str, Trace]:
    """Four chunks of 7.9 MB to the GPU, a kernel for each, and back: simulated, and also on this machine's GPU.

    Each of ``COPIES`` says whether the host memory is pinned, the copies are non-blocking, and copies and kernels are
    on streams of their own.
    """
    found = {name: simulate(copying(*how)) for name, how in COPIES.items()}
    if on_this_gpu():
        found |= {name + HERE: record_here(Copies(*COPIES[name]), torch.eye(CHUNK)) for name in RECORDED_HERE}
    return found


def of_copies(copies: Mapping[str, Trace], name: str) -> Trace:
    """One of ``COPIES``: as this machine's GPU made it, else simulated."""
    return copies.get(name + HERE, copies[name])


def shown(copies: Mapping[str, Trace]) -> dict[str, Trace]:
    """Those of :func:`copies` that a picture shows: three simulated ones, and what this machine's GPU did."""
    return {name: copies[name] for name in copies if name in PICTURED or name not in COPIES}


def copying(pinned: bool, non_blocking: bool, streams: bool) -> list[Call]:
    """A program that copies, computes and copies back; a blocking copy is waited for, as PyTorch does."""
    up, work, down = (UP, COMPUTE, DOWN) if streams else (DEFAULT,) * 3
    size = 4 * CHUNK * CHUNK
    calls: list[Call] = []
    for i in range(1, CHUNKS + 1):
        calls.append(Copy(size, "device", pinned, up))
        calls += [] if non_blocking else [Synchronize(stream=up)]
        calls += [Record(f"up {i}", up), Wait(f"up {i}", work)] if streams else []
        calls += [Work(20 * US, "product"), Launch(f"product {i}", SMS, 700 * US, share=1.0, stream=work)]
        calls += [Record(f"product {i}", work), Wait(f"product {i}", down)] if streams else []
        calls.append(Copy(size, "host", pinned, down))
        calls += [] if non_blocking else [Synchronize(stream=down)]
    return [*calls, Synchronize()]


def captured(one_stream: Trace) -> dict[str, Trace]:
    """The kernels of a recorded call, simulated in a captured graph: on one stream, and a stream for each branch.

    Recordings do not say how much of the GPU a kernel fills. Here it fills nothing: streams gain what they can.
    """
    operations = recorded_operations(one_stream, Gpu(), fills=0.0)
    return {name: simulate(operations, name) for name in ("graphed", "graphed_streams")}


def memory() -> dict[str, Trace]:
    """Uses of memory that nothing orders, each beside what orders it."""
    make = Launch("make x", 40, 200 * US, writes=("the memory of x",))
    use = Launch("use x", 40, 200 * US, stream=UP, reads=("the memory of x",))
    reuse = Launch("make y", 40, 50 * US, writes=("the memory of x",))  # the allocator gave the memory of x to y
    elsewhere = reuse._replace(writes=("the memory of y",))
    ready, waited = Record("x is made"), Wait("x is made", UP)
    down = Copy(4 * CHUNK * CHUNK, "host", stream=UP, reads=("the memory of x",), writes=("the copy of x",))
    read = Work(10 * US, "read the copy of x", reads=("the copy of x",))
    programs: dict[str, Sequence[Call]] = {
        "x is freed while stream 8 uses it": [make, ready, waited, use, reuse],
        "the same with record_stream": [make, ready, waited, use, elsewhere],
        "the host reads a non_blocking copy": [make, ready, waited, down, read],
        "the same after synchronize()": [make, ready, waited, down, Synchronize(stream=UP), read],
    }
    return {name: simulate([*calls, Synchronize()]) for name, calls in programs.items()}
