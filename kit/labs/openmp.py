"""What the threads of OpenMP do, in experiments of notebook 03: how many start, and how they wait.

They wait by spinning, which is quick where each has a core. Where another program has taken one, the last thread of an
operator comes late to the barrier at its end, and the others keep their cores busy until then.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kit.approaches import ModelRunner, Workload
from kit.equality import Equality
from kit.executors import Task
from kit.executors.base import uninterrupted
from kit.executors.processes import Processes
from kit.executors.threads import Threads
from kit.executors.workers.process import starting
from kit.executors.workers.reports import starting_is_possible
from kit.labs.conclusions import decided
from kit.labs.measured import call_ms
from kit.machine import hardware, load
from kit.machine.neighbour import keep_busy
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.measuring.gate import gated
from kit.measuring.rounds import measure
from kit.measuring.statistics import with_verdicts
from kit.regions import Branches
from kit.reprs import one_line
from kit.text import markdown_table
from kit.verbs import compare

# How many threads a pool really starts --------------------------------------------------------------------------------


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


def count_table(pools: Sequence[tuple[int, int]], cores: int) -> str:
    """How many threads pools of (workers, intra-op threads of each) start, in Markdown."""
    return counted_table([(*pool, started(*pool)) for pool in pools], cores)


def counted_table(found: Sequence[tuple[int, int, int]], cores: int) -> str:
    """The same from numbers: workers, intra-op threads of each, and how many threads were started."""
    head = ("workers", "intra-op threads of each", "product", "threads started")
    table = markdown_table(head, "rrrr", [(w, t, w * t, count) for w, t, count in found])
    product = all(count == w * t for w, t, count in found)
    said = "The operating system counts **exactly the product**." if product else "Here the count is not the product."
    return f"{table}\n\n{said} Cores that can run them at the same time: {cores}."


# A core that another program takes ------------------------------------------------------------------------------------

DEFAULT, PASSIVE, ONE = "default", "passive", "one_thread"
SETTINGS = {
    DEFAULT: "a thread for each core; they wait by spinning",
    PASSIVE: "a thread for each core; `OMP_WAIT_POLICY=passive`",
    ONE: "one thread",
}
OPERATORS = 16  # in a call: so many barriers


@one_line
class Waiting(NamedTuple):
    """The settings compared twice: alone, and beside a program that keeps a core busy."""

    alone: Comparison
    beside: Comparison


class Operators(nn.Module):
    """``OPERATORS`` convolutions on the same input, one after the other: ``(1, 32, H, W) -> (1, 32, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(OPERATORS - 1):
            self.conv(x)
        out: Tensor = self.conv(x)
        return out


def beside_a_program(rounds: int, side: int = 56) -> Waiting:
    """How long operators take, with each setting in a fresh process, alone and beside a program on one core.

    OpenMP reads its settings when a process first uses it. All processes that this starts have ended when it returns,
    also by an interrupt.

    Args:
        rounds: of each of the two comparisons.
        side: pixels of the input's sides.

    Raises:
        WorkerError: a process cannot be started, or died.
    """
    network, x = Operators().eval(), torch.randn(1, 32, side, side)
    cores = hardware.detect().cores
    told = {DEFAULT: (cores, {}), PASSIVE: (cores, {"OMP_WAIT_POLICY": "passive"}), ONE: (1, {})}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(Processes(1, threads)) for name, (threads, _) in told.items()}
        for name, pool in pools.items():
            with _environment(told[name][1]):
                pool.start()
        calls: dict[str, Any] = {name: partial(_call, pool, network, x) for name, pool in pools.items()}
        about = f"{OPERATORS} convolutions on {side}x{side} pixels"
        work = Workload("operators", None, (), inputs_description=about, approaches=calls)
        alone = compare(work, approaches=list(calls), rounds=rounds, progress=False)
        with busy_neighbour():
            beside = compare(work, approaches=list(calls), rounds=rounds, progress=False)
    return Waiting(alone, gated(beside, scatter=inf))  # what scatters these rounds is the neighbour


def _call(pool: Processes, network: nn.Module, x: Tensor) -> Any:
    return pool.run([Task("operators", network, (x,))])[0]


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A process that keeps a core busy for as long as the block lasts.

    It counts as a child of this process: what it takes of the machine is not taken by other programs.
    """
    context = multiprocessing.get_context("spawn")
    processes = []
    ours, theirs = context.Pipe(duplex=False)
    try:
        with starting_is_possible("a busy process"), starting():
            process = context.Process(target=keep_busy, args=(theirs,), daemon=True)
            process.start()
            processes.append(process)
        theirs.close()
        ours.recv()
        yield
    finally:
        with uninterrupted():
            for process in processes:
                process.kill()
                process.join()
                process.close()
        ours.close()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """What OpenMP is told of how to wait by processes that start in this block: this, and nothing else."""
    before = {name: os.environ.pop(name, None) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def waiting_table(found: Waiting) -> str:
    """Each setting alone and beside the program, in Markdown, with the verdict over the default."""
    rows = []
    for name, about in SETTINGS.items():
        alone, beside = (each[name].timing for each in found)
        if alone is None or beside is None:
            rows.append((about, "-", "-", "-", decided(found.beside, name)))
            continue
        times = call_ms(beside).over(call_ms(alone)).times
        ratio = "" if name == DEFAULT else f"{found.beside[name].ratio_text}, "
        said = f"{ratio}**{decided(found.beside, name)}**"
        rows.append((about, call_ms(alone).ms, call_ms(beside).ms, times, said))
    head = (
        "threads of each operator",
        f"{OPERATORS} operators alone",
        "beside the program",
        "beside it / alone",
        "beside the program, against the default",
    )
    return markdown_table(head, "lrrrl", rows)


def about_waiting(found: Waiting) -> str:
    """What to conclude of how threads wait where a core is taken."""
    said = {name: decided(found.beside, name) for name in (ONE, PASSIVE)}
    if any(each.startswith(("not ", "wrong")) for each in said.values()):
        why = next(each for each in said.values() if each.startswith(("not ", "wrong")))
        return f"**{why[0].upper()}{why[1:]}.**"
    praise = {
        ONE: "**Beside that program, one thread is faster than all cores by default**: it has no barrier to wait at.",
        PASSIVE: "**Beside that program, `OMP_WAIT_POLICY=passive` makes all cores faster**: who waits, sleeps.",
    }
    lines = [f"- {text} {_alone(found.alone, name)}" for name, text in praise.items() if said[name] == "faster"]
    return "\n".join(lines) or "Beside that program, neither setting was found faster than the default."


def _alone(alone: Comparison, name: str) -> str:
    """What a setting does where no other program runs, against the default."""
    said = decided(alone, name)
    if said.startswith(("not ", "wrong")):
        return f"Alone, against the default: {said}."
    return f"Alone, against the default: {alone[name].ratio_text}, **{said}**."


# Threads that spin after an operator ----------------------------------------------------------------------------------

AFTER_ONE, AFTER_ALL = "after one thread", "after all cores"


def after_an_operator(threads: Sequence[int], workers: int, rounds: int) -> Comparison:
    """How long a task on each of so many workers takes in all, right after an operator of the calling thread.

    Args:
        threads: two numbers of intra-op threads for that operator: one, and as many as there are cores.

    Returns:
        Rows :data:`AFTER_ONE`, the baseline, and :data:`AFTER_ALL`: only the tasks are in their times.
    """
    tasks = {f"task {i}": nn.Sequential(*[nn.Tanh()] * 4) for i in range(workers)}
    model = nn.Sequential(nn.ReLU(), Branches(tasks, merge=itemgetter(0)))
    usage = load.Usage.now()
    with ExitStack() as stack:
        data = (torch.ones(2**20),)
        runners = {count: stack.enter_context(ModelRunner(model, data, Threads(workers), count)) for count in threads}
        timings = list(measure(runners, rounds=rounds).values())
    taken = load.taken(usage, load.Usage.now())
    inside = [np.array([turn.regions for turn in timing.turns if turn]) for timing in timings]
    one, every = (replace(each, samples_ns=ns, turns=()) for each, ns in zip(timings, inside, strict=True))
    same = Equality(True, 0.0)  # the tasks are the same
    rows = (
        Row(AFTER_ONE, None, one, Ratio(1, 1, 1), same, True),
        Row(AFTER_ALL, None, every, None, same, paired_baseline=one),
    )
    cores = hardware.detect().cores
    return gated(Comparison(tuple(with_verdicts(rows)), rounds, "tasks after an operator", cores=cores, taken=taken))


# Whose number of threads counts ---------------------------------------------------------------------------------------


@one_line
class Counts(NamedTuple):
    """Numbers of intra-op threads, as threads had them."""

    had: int  # this thread, before
    set_elsewhere: int  # by another thread, for itself
    now: int  # this thread, after that
    later: int  # a thread that was started after that
    kept: int  # a thread that had set 1, after this one had set ``had``


def whose_number() -> Counts:
    """Set numbers of intra-op threads in several threads, and look who has which; in the end all is as before."""
    had = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.set_num_threads, had + 1).result()
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(torch.get_num_threads).result()
    now = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.set_num_threads, 1).result()
        torch.set_num_threads(had)  # in this thread; and threads to come start as before
        kept = pool.submit(torch.get_num_threads).result()
    return Counts(had, had + 1, now, later, kept)


def about_numbers(counts: Counts) -> str:
    """What these numbers say of ``torch.set_num_threads``, in Markdown."""
    first = (
        f"1. This thread had {counts.had} intra-op threads. Another thread set **{counts.set_elsewhere}**. After that "
        f"this thread has **{counts.now}**, and a thread that was started later **{counts.later}**."
    )
    if (counts.now, counts.later) == (counts.had, counts.set_elsewhere):
        first += " So each thread has its own number, and a new thread begins with the number that was set last."
    second = (
        f"2. A new thread set **1** for itself. Before it ran an operator, this thread set {counts.had}. Now the new "
        f"thread has **{counts.kept}**."
    )
    if counts.kept == counts.had != 1:
        second += (
            " PyTorch gives a thread the number that was set last when the thread first runs an operator or first asks "
            "for its number: also where the thread has set its own before. Call `torch.get_num_threads()` once before "
            "`torch.set_num_threads()`: then the setting is kept."
        )
    return f"{first}\n{second}"
