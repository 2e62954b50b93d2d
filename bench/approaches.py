"""What an executor costs over code by hand, and how fast a whole network gets: ``python -m bench.approaches``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from kit.approaches import FunctionRunner, Runner
from kit.equality import compare_outputs
from kit.executors import use
from kit.executors.threads import Threads
from kit.machine.hardware import detect
from kit.measuring.rounds import measure
from kit.measuring.statistics import speed_up
from kit.regions import Branches
from kit.workloads import workload

ROUNDS = 100
NETWORK_ROUNDS = 12
PEERS = ("onnxruntime", "openvino")
OURS = (
    "threads",
    "channels_last",
    "folded",
    "merged",
    "folded + merged + channels_last",
    "folded + merged + channels_last + threads",
    "compiled",
    "compiled(freezing=True)",
    "merged + channels_last + compiled(freezing=True)",
    "folded + merged + channels_last + compiled + threads",
)


def row(name: str, ours: Runner, by_hand: Runner) -> str:
    """Median time of both, what ours adds, and the median of the rounds' ratios."""
    timings = measure({"ours": ours, "by hand": by_hand}, rounds=ROUNDS)
    mine, theirs = (timings[side].median_ms * 1000 for side in ("ours", "by hand"))
    ratio = speed_up(timings["ours"], timings["by hand"])
    return f"{name:44} {mine:11.1f} {theirs:11.1f} {mine - theirs:9.1f} us   {ratio}"


def overheads() -> list[str]:
    """A region of two branches that do nothing, and the two-stream network."""
    empty, x = Branches({"a": nn.Identity(), "b": nn.Identity()}, list), torch.ones(1)
    streams = workload("two-stream")
    model: Any = streams.model
    return [
        *overhead("two empty branches", empty, (x,), empty, (x, x)),
        *overhead("two-stream", model, streams.inputs, model.streams, streams.inputs),
    ]


def overhead(
    name: str, model: nn.Module, inputs: tuple[Any, ...], region: Branches, branch_inputs: tuple[Any, ...]
) -> list[str]:
    """A model on two executors, against its only region by hand: in a loop, and in a pool of threads."""
    branches, merge, cores = list(region.branches.values()), region.merge, detect().cores
    share = max(1, cores // 2)

    def loop() -> Any:
        return merge([branch(x) for branch, x in zip(branches, branch_inputs, strict=True)])

    def in_inference(branch: nn.Module, x: Any) -> Any:
        with torch.inference_mode():
            return branch(x)

    with (
        ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(share,)) as pool,
        Threads(2, share) as threads,
    ):

        def pooled() -> Any:
            futures = [pool.submit(in_inference, *each) for each in zip(branches, branch_inputs, strict=True)]
            return merge([future.result() for future in futures])

        def on_threads() -> Any:
            with use(threads):
                return model(*inputs)

        def runner(call: Callable[[], Any]) -> FunctionRunner:
            return FunctionRunner(call, intra_op_threads=cores)

        return [
            row(f"sequential, {name}", runner(partial(model, *inputs)), runner(loop)),
            row(f"threads, {name}", runner(on_threads), runner(pooled)),
        ]


def network(name: str) -> list[str]:
    """Our approaches and the peers on one network, all in the same rounds."""
    work = workload(name)
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for each in ("sequential", *OURS, *PEERS):
            runners[each] = work.prepare(each)
            stack.callback(runners[each].close)
        timings = measure(runners, rounds=NETWORK_ROUNDS)
        with torch.inference_mode():
            torch.set_num_threads(detect().cores)
            expected = work.model(*work.inputs)
            same = {
                each: compare_outputs(expected, runner())
                for each, runner in runners.items()
                if "compiled" not in each  # which takes no other thread count than the one of its turn
            }
    base = timings["sequential"]
    rows = []
    for each, timing in timings.items():
        over = (f"over {peer}: {speed_up(timings[peer], timing)!s:22}" for peer in PEERS)
        against = f"{speed_up(base, timing)!s:22} {' '.join(over)}"
        notes = f"same output: {same.get(each, '-')}, prepared in {runners[each].prepare_s:.1f} s"
        rows.append(f"{each:55} {timing.median_ms:9.1f} ms  {against} {notes}")
    best = max(OURS, key=lambda each: speed_up(base, timings[each]).estimate)
    return [*rows, f"best of ours: {best}, {speed_up(base, timings[best])} over sequential on {detect().cores} cores"]


def main() -> None:
    print(f"{'':44} {'ours':>11} {'by hand':>11} {'added':>9}      ours / by hand [95%]")
    for line in overheads():
        print(line)
    for line in network("inception-v3"):
        print(line)


if __name__ == "__main__":
    main()
