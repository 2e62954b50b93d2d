"""The experiments and exercises of notebook 03."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import nn

from kit.approaches import ModelRunner
from kit.executors import Task
from kit.executors.threads import Threads
from kit.labs.checks import check, first_wrong
from kit.measuring.comparison import Comparison, Ratio, Row, Verdict
from kit.measuring.gate import over
from kit.measuring.rounds import measure
from kit.measuring.statistics import speed_up
from kit.regions import Branches
from kit.text import times
from kit.views.chart import Chart
from kit.views.figures import TEXT
from kit.views.palette import OKABE_ITO


def counts(cores: int) -> list[int]:
    """How many threads to try on so many cores: powers of two, all cores, and twice as many as there are."""
    return sorted({*(2**i for i in range(cores.bit_length())), cores, 2 * cores})


def started(workers: int, threads: int) -> int:
    """How many threads this process has more while so many workers each run an operator on so many threads."""
    import psutil

    process, meet = psutil.Process(), threading.Barrier(workers)
    x = torch.zeros(threads * 2**16)  # enough that the operator is split into as many parts

    def work() -> None:
        meet.wait()  # nobody takes the task of another
        x + 1

    time.sleep(0.1)  # threads of an earlier pool end a little after it was closed
    before = process.num_threads()
    with Threads(workers, threads) as pool:
        pool.run([Task(f"worker {i}", work) for i in range(workers)])
        return int(process.num_threads() - before)


def after_an_operator(threads: Sequence[int], workers: int, rounds: int) -> tuple[list[float], Ratio]:
    """How long a task on each of so many workers takes in all, right after an operator of the calling thread.

    Args:
        threads: two numbers of intra-op threads for that operator.

    Returns:
        Milliseconds for each of the numbers, medians of interleaved rounds; and how many times as long it takes after
        the second, with its 95% interval.
    """
    tasks = {f"task {i}": nn.Sequential(*[nn.Tanh()] * 4) for i in range(workers)}
    model = nn.Sequential(nn.ReLU(), Branches(tasks, merge=itemgetter(0)))
    with ExitStack() as stack:
        data = (torch.ones(2**20),)
        runners = {count: stack.enter_context(ModelRunner(model, data, Threads(workers), count)) for count in threads}
        timings = measure(runners, rounds=rounds).values()
    inside = [np.array([turn.regions for turn in timing.turns if turn]) for timing in timings]
    regions = [replace(timing, samples_ns=samples) for timing, samples in zip(timings, inside, strict=True)]
    return [each.median_ms for each in regions], speed_up(regions[1], regions[0])


def versus(comparison: Comparison, name: str, other: str) -> Row:
    """The row of one approach as if another had been the baseline.

    Args:
        name: an approach, the baseline itself too.
        other: the one to compare it with; its rounds are the same.
    """
    row, baseline = comparison[name], comparison[other]
    if row.timing is None or baseline.timing is None:
        return replace(row, ratio=None)
    return over(comparison, other)[name]


def heat_map(comparison: Comparison, workers: Sequence[int], threads: Sequence[int]) -> Chart:
    """The speed-up of ``threads(workers=w, threads=t)`` as a cell for each w (upwards) and t (to the right)."""
    rows = [[comparison[f"threads(workers={w}, threads={t})"] for t in threads] for w in workers]
    speed = np.array([[row.ratio.estimate if row.ratio else np.nan for row in line] for line in rows])
    labels = [
        [f"{times(speed[i, j])}x<br>{w} x {t} = {w * t}" for j, t in enumerate(threads)] for i, w in enumerate(workers)
    ]
    reach = float(np.nanmax(np.abs(np.log2(speed)))) or 1.0  # twice as fast and half as fast are equally far from 1
    figure = Chart(
        go.Heatmap(
            z=np.log2(speed),
            x=[str(t) for t in threads],
            y=[str(w) for w in workers],
            text=labels,
            texttemplate="%{text}",
            textfont={"size": 13, "color": "black"},
            colorscale=[OKABE_ITO[5], "#f4f4f4", OKABE_ITO[0]],
            zmin=-reach,
            zmax=reach,
            xgap=3,
            ygap=3,
            showscale=False,
            hovertemplate="%{y} workers of %{x} threads: %{text}<extra></extra>",
        )
    )
    figure.update_layout(
        **TEXT,
        height=120 + 75 * len(workers),
        margin={"l": 20, "r": 20, "t": 20, "b": 50},
        xaxis={"title": {"text": "intra-op threads of each worker", "font": {"size": 13}}},
        yaxis={"title": {"text": "workers", "font": {"size": 13}}},
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    return figure


def about_the_trap(cure: Verdict) -> str:
    """What to conclude where threads that fit the cores were compared with far more threads than cores.

    Args:
        cure: the verdict of the threads that fit.
    """
    if cure == "faster":
        return "**Fewer threads did the same work sooner**: what the others added was waiting for each other."
    if cure == "slower":
        return (
            "Here the trap won, and the likely reason is the neighbours: where other programs want the cores too, one "
            "with more threads gets more turns. It takes them from the others. Run it again on a quiet machine."
        )
    return "These rounds found no price for too many threads: they wait cheaply, or a busy machine hides it."


def about_the_lock(gained: Collection[str], locked: bool) -> str:
    """What to conclude from which of "pure Python" and "tensors" became faster on two threads.

    Args:
        locked: whether this Python has a GIL.
    """
    if not locked:
        return "This Python runs without a GIL: pure Python may compute on both threads at once."
    if "pure Python" in gained:
        return (
            "This Python has a GIL, so two threads never ran pure Python at once. That it became faster all the same "
            "comes from elsewhere: where other programs want the cores, one with two threads gets more turns."
        )
    if "tensors" in gained:
        return "This Python has a GIL: in pure Python two threads took turns, **in tensor work they ran in parallel**."
    return "Neither gained in these rounds: with one core, or cores that others use, the GIL does not decide."


@check
def check_share(share: Callable[[int, int], Any]) -> str | None:
    """``share(cores, workers)``: the intra-op threads of each worker, so that all of them fit the cores."""
    cases = [
        ((8, 2), 4, "8 cores for 2 workers are 4 threads each."),
        ((1, 1), 1, "one worker on one core has one thread."),
        (
            (8, 3),
            2,
            "8 cores for 3 workers: a thread is whole, and 3 threads each would be 9, one too many. // rounds down.",
        ),
        ((2, 4), 1, "4 workers on 2 cores are too many already, but a worker cannot have less than one thread."),
    ]
    return first_wrong(share, cases)


@check
def check_pool(make: Callable[[int, int], Any]) -> str | None:
    """``make(workers, cores)``: a ThreadPoolExecutor whose threads share the cores; its caller keeps what it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(6)  # what a thread has that nobody tells otherwise
    try:
        pool = make(3, 6)
        if not isinstance(pool, ThreadPoolExecutor):
            return f"it gives {pool!r} and not a ThreadPoolExecutor: is there a return?"
        with pool:
            return _hint_of_pool(pool)
    finally:
        torch.set_num_threads(before)


def _hint_of_pool(pool: ThreadPoolExecutor) -> str | None:
    meet = threading.Barrier(3)

    def ask() -> int:
        meet.wait(5)
        return torch.get_num_threads()

    try:
        found = [future.result() for future in [pool.submit(ask) for _ in range(3)]]
    except threading.BrokenBarrierError:
        return "3 workers were asked for, and 3 tasks never ran at the same time: give max_workers."
    if torch.get_num_threads() != 6:
        return f"the thread that made the pool now has {torch.get_num_threads()} and had 6: set them in the workers."
    if found != [2, 2, 2]:
        return f"3 workers on 6 cores have {found} intra-op threads, {sum(found)} in all: 2 each would fit."
    return None
