"""Requests to a network on two hosts: scattered by branch, or by request. And the program that measures both.

Start it once on each host, with its own ``--node-rank``::

    torchrun --nnodes=2 --nproc-per-node=1 --node-rank=0 --master-addr=... -m kit.workloads.two_hosts FOLDER
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kit.approaches import Workload
from kit.approaches.runner import FunctionRunner, ModelRunner
from kit.errors import KitError
from kit.executors import Executor, Task, use
from kit.executors.group_ranks import GroupRanks
from kit.executors.workers.group import joined_group
from kit.executors.workers.membership import membership
from kit.executors.workers.serving import take_part
from kit.measuring.comparison import Comparison, load_comparison
from kit.models import googlenet, two_stream
from kit.recorder import record_call
from kit.regions import Branches
from kit.reprs import one_line
from kit.spans import clock
from kit.trace import Trace, load_trace, save_trace
from kit.verbs import compare

ONE, BY_BRANCH, BY_REQUEST = "one_host", "by_branch", "by_request"
REQUESTS = 4
SIZES = (4, 40_000, 4 * 3 * 224 * 224, 4_000_000)  # bytes that are sent there and back
ECHOES = 21  # the first ones over a link that was idle may take several times as long
CALLS = 4  # of each way, whose bytes are counted


@one_line
class Measured(NamedTuple):
    """What was measured over two hosts."""

    call: Trace  # one call of a two-stream network, a stream on each host
    copies: Sequence[tuple[int, float]]  # bytes, and seconds of one way
    scatter: Comparison  # several requests, under ONE, BY_BRANCH and BY_REQUEST
    carried: dict[str, float]  # BY_BRANCH and BY_REQUEST -> bytes of a request over the link, both directions


def streams() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The two-stream network, a frame ``(1, 3, 112, 112)`` and ten flow fields ``(1, 20, 112, 112)``."""
    torch.manual_seed(0)
    return two_stream(), (torch.rand(1, 3, 112, 112), torch.rand(1, 20, 112, 112))


def network() -> tuple[nn.Module, list[Tensor]]:
    """A narrow GoogLeNet, nine regions of four branches; and an image ``(1, 3, 96, 96)`` for each request."""
    torch.manual_seed(0)
    return googlenet(100, width=0.25), [torch.rand(1, 3, 96, 96) for _ in range(REQUESTS)]


def scatter(executor: Executor) -> Workload:
    """The requests on one host; each request by its branches; and whole requests dealt out to the hosts.

    Args:
        executor: runs task i on host i modulo their number, each with one thread; it is not closed.
    """
    model, images = network()
    requests = Branches({f"request {i}": model for i in range(1, REQUESTS + 1)}, list)

    def by_branch() -> list[Tensor]:
        with use(executor):
            return [model(image) for image in images]

    def by_request() -> Any:
        with use(executor):
            return requests(*images)

    own: Any = {
        ONE: FunctionRunner(lambda: [model(image) for image in images]),
        BY_BRANCH: FunctionRunner(by_branch),
        BY_REQUEST: FunctionRunner(by_request),
    }
    caveats = tuple(filter(None, [executor.remark and f"{BY_BRANCH}, {BY_REQUEST}: {executor.remark}"]))
    return Workload(
        "requests on two hosts", None, (), REQUESTS, "requests", "images (1, 3, 96, 96)", own, caveats=caveats
    )


def copies(executor: Executor, sizes: Sequence[int]) -> list[tuple[int, float]]:
    """For each number of bytes, how long they take to the second host, in seconds: half of the time there and back."""
    same, found = nn.Identity(), []
    for size in sizes:
        x, took = torch.rand(size // 4), []
        for _ in range(ECHOES + 1):
            start = clock()
            executor.run([Task("here", _nothing), Task("there", same, (x,))])
            took.append((clock() - start) / 2e9)
        found.append((size, statistics.median(took[1:])))
    return found


def _nothing() -> None:
    """What the first host does meanwhile."""


def measure(executor: Executor, rounds: int, carried: Callable[[], int]) -> Measured:
    """All of it, on an executor that has a second host.

    Args:
        carried: the bytes that this host has sent and received so far.
    """
    model, inputs = streams()
    call = record_call(ModelRunner(model, inputs, executor, 1), operators=False)
    call = call.shifted(-int(call.start_ns.min()))
    work = scatter(executor)
    names = [*work.approaches]
    scattered = compare(work, approaches=names, rounds=rounds, progress=False)
    with torch.inference_mode():
        times = copies(executor, SIZES)
        counted = {name: _counted(work, name, carried) for name in names[1:]}
    return Measured(call, times, scattered, counted)


def _counted(work: Workload, name: str, carried: Callable[[], int]) -> float:
    call = work.prepare(name)  # it owns nothing that would have to be closed
    call()
    before = carried()
    for _ in range(CALLS):
        call()
    return (carried() - before) / (CALLS * REQUESTS)


def save(found: Measured, folder: Path) -> None:
    """Write it for :func:`load`."""
    save_trace(found.call, folder / "call.json.gz")
    found.scatter.save(folder / "scatter.json.gz")
    (folder / "numbers.json").write_text(json.dumps({"copies": found.copies, "carried": found.carried}))


def load(folder: Path) -> Measured:
    """What :func:`save` has written."""
    numbers = json.loads((folder / "numbers.json").read_text())
    copied = [(int(size), float(seconds)) for size, seconds in numbers["copies"]]
    scattered = load_comparison(folder / "scatter.json.gz")
    return Measured(load_trace(folder / "call.json.gz"), copied, scattered, numbers["carried"])


def over_interfaces() -> int:
    """All bytes that this host has sent and received over its network interfaces, but to itself."""
    found = [
        int((each / "statistics" / f"{way}_bytes").read_text())
        for each in Path("/sys/class/net").iterdir()
        if each.name != "lo"
        for way in ("rx", "tx")
    ]
    return sum(found)


def main(folder: str, rounds: str) -> int:
    """Of every rank: rank 0 measures and writes, the others serve it."""
    member = membership()
    if member is None:
        raise KitError("start this program by torchrun, on two hosts.")

    def work() -> int:
        group = joined_group()
        assert group is not None
        with GroupRanks(group, 1) as ranks:
            save(measure(ranks, int(rounds), over_interfaces), Path(folder))
        return 0

    return take_part(member, work)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
