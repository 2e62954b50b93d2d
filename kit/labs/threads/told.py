"""What notebook 03 measures and asks, what its quizzes reveal, its sentences, tables and card."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from kit.approaches import Workload
from kit.labs import conclusions
from kit.labs.conclusions import Claim, card, claim_faster, decided, row_of, told
from kit.labs.measured import branch_rounds, overlap
from kit.labs.openmp import AFTER_ALL, DEFAULT, ONE, PASSIVE, Waiting
from kit.labs.speed import rounds, size
from kit.measuring.comparison import Comparison, Timing
from kit.regions import Branches, Concat
from kit.text import markdown_table
from kit.trace import Trace, stack
from kit.views.grid import Grid
from kit.views.quiz import Quiz
from kit.workloads.medians import Median

NEARLY = 0.9  # of as many times as fast as there are cores
# One by one, and at the same time. Both on workers: the calling thread has a core of its own to be faster or slower on.
LOCK = ("threads(workers=1, threads=1)", "threads(workers=2, threads=1)")
QUIZZES = {
    "inside": (
        "Each operator on one thread for each core, against a single thread. How much faster is that?",
        ["as many times as there are cores, or nearly (90%)", "less than that, but faster", "not faster"],
    ),
    "budget": (
        "Four branches. Which product of workers and intra-op threads is fastest?",
        ["fewer threads than cores", "as many threads as cores", "more threads than cores"],
    ),
    "trap": (
        "4 workers with 16 or more threads each, against threads that fit the cores. The many threads are ...",
        ["faster", "slower", "no difference found"],
    ),
    "taken": (
        "Another program keeps one core busy. Operators on a thread for each core, or on one thread: which is faster?",
        ["a thread for each core", "one thread", "no difference found"],
    ),
    "lock": (
        "Two branches on two threads, against one after the other. What becomes clearly faster, by more than 1.25x?",
        ["both", "only the tensors", "only pure Python", "neither"],
    ),
    "fork": (
        "Branches forked in TorchScript, against the same on threads with their share of the cores. The fork is ...",
        ["faster", "slower", "no difference found"],
    ),
    "spin": (
        "Tasks on a worker for each core, right after an operator of this thread. After an operator on all cores, "
        "compared with one on a single thread, those tasks take ...",
        ["longer", "less time", "no difference found"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What is measured -----------------------------------------------------------------------------------------------------


def counts(cores: int) -> list[int]:
    """How many threads to try on so many cores: powers of two, all cores, and twice as many as there are."""
    return sorted({*(2**i for i in range(cores.bit_length())), cores, 2 * cores})


def four_branches(pixels: int) -> Workload:
    """Four branches of one 3x3 convolution each, on ``(1, 64, pixels, pixels)``; its speed is in calls a second."""
    region = Branches({name: nn.Conv2d(64, 64, 3, padding=1) for name in "abcd"}, merge=Concat(1)).eval()
    image = torch.randn(1, 64, pixels, pixels)
    return Workload("four-branches", region, (image,), 1, "calls", f"four branches, {pixels}x{pixels} pixels")


def grid(cores: int) -> Grid:
    """The control of workers x threads: for three sizes of the operators, up to twice as many threads as cores."""
    threads = sorted({*(max(1, cores // w) for w in (1, 2, 4)), 2 * cores})
    sizes = [size(56, 28), 14, size(112, 56)]
    options: dict[str, Any] = {"label": "pixels", "kind": "intra-op thread", "rounds": rounds(20)}
    return Grid(four_branches, items=sizes, workers=[1, 2, 4], threads=threads, approaches=["threads"], **options)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def inside_answer(sweep: Comparison, cores: int) -> str:
    """How much all cores bring within an operator, where the whole interval lies within one of the options."""
    nearly, faster, not_faster = QUIZZES["inside"][1]
    if cores == 1:
        return "not measured: this machine has one core"
    name = f"sequential(threads={cores})"
    said = told(sweep, name, faster=faster, slower=not_faster, same=not_faster)
    row = row_of(sweep, name)
    if said != faster or row is None or row.ratio is None:
        return said
    if row.ratio.low >= NEARLY * cores:
        return nearly
    return faster if row.ratio.high < NEARLY * cores else f"not decided: {row.ratio} leaves either open"


def budget_answer(found: Comparison, cores: int) -> str:
    """The budget whose best cell is faster than every cell of the other budgets, or why none is known to be."""
    options = QUIZZES["budget"][1]
    kinds = {row.name: (total > cores) - (total < cores) + 1 for row in found.rows if (total := product(row.name))}
    ran = [row for row in found.rows if row.name in kinds and row.ratio and row.verdict != "wrong output"]
    if not ran:
        return "not measured: none of them ran"
    best = max(ran, key=lambda row: found.per_second(row.name))  # as the grid marks it
    for row in ran:
        if kinds[row.name] != kinds[best.name] and (said := decided(found, best.name, row.name)) != "faster":
            return said if said.startswith("not ") else f"not decided: {best.name} against {row.name}: {said}"
    return options[kinds[best.name]]


def trap_answer(trap: Comparison, container: str) -> str:
    """The verdict on far too many threads, over threads that fit the cores."""
    return decided(trap, container, "threads")


def taken_answer(waiting: Waiting) -> str:
    """What is faster beside a program that keeps a core busy."""
    every, one, same = QUIZZES["taken"][1]
    return told(waiting.beside, ONE, faster=one, slower=every, same=same)


def lock_answer(python: Comparison, tensors: Comparison, locked: bool) -> str:
    """What became faster on two threads; each of the two has to be decided.

    Args:
        locked: whether this Python has a GIL: then no gain of pure Python is believed.
    """
    gains = [conclusions.no_gain(each, LOCK[1], LOCK[0]) for each in (python, tensors)]
    if locked and gains[0] == "false":
        return IMPOSSIBLE
    for each in gains:
        if each not in ("true", "false"):
            return each
    both, only_tensors, only_python, neither = QUIZZES["lock"][1]
    answers = {(True, True): both, (False, True): only_tensors, (True, False): only_python, (False, False): neither}
    return answers[gains[0] == "false", gains[1] == "false"]


def fork_answer(forked: Comparison) -> str:
    """The verdict on TorchScript's fork, over the kit's threads."""
    return decided(forked, "scripted_fork", "threads")


def spin_answer(after: Comparison) -> str:
    """What an operator on all cores does to the tasks that follow it."""
    longer, less, same = QUIZZES["spin"][1]
    return told(after, AFTER_ALL, faster=less, slower=longer, same=same)


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def product(name: str) -> int:
    """Workers times threads of ``threads(workers=w, threads=t)``; 0 for any other approach."""
    if not name.startswith("threads(workers="):
        return 0
    workers, _, threads = name.removeprefix("threads(workers=").removesuffix(")").partition(", threads=")
    return int(workers) * int(threads)


def against(comparison: Comparison, name: str, baseline: str) -> str:
    """One approach against another: the speed-up with its interval, and the verdict."""
    row, said = row_of(comparison, name, baseline), decided(comparison, name, baseline)
    return f"{row.ratio}, **{said}**" if row and row.ratio and row.decidable else f"**{said}**"


def about_inside(sweep: Comparison, cores: int) -> str:
    """What one thread for each core brings within an operator, and what twice as many bring."""
    one, full, double = (f"sequential(threads={n})" for n in (1, cores, 2 * cores))
    lines = [f"- {2 * cores} threads on {cores} cores, against {cores}: {against(sweep, double, full)}."]
    if cores > 1:
        lines.insert(0, f"- {cores} threads on {cores} cores, against one thread: {against(sweep, full, one)}.")
        if decided(sweep, full, one) == "slower":
            lines.append("- One thread is faster: these operators are too small to be split over so many threads.")
    return "\n".join(lines)


def about_budget(found: Comparison, cores: int) -> str:
    """Which cell is the fastest, and what four workers with too many threads cost."""
    cells = [row for row in found.rows if row.ratio and product(row.name)]
    if not cells:
        return "None of the cells ran."
    best = max(cells, key=lambda row: found.per_second(row.name))
    four = sorted((row.name for row in cells if row.name.startswith("threads(workers=4,")), key=product)
    lead = found.baseline.name
    lines = [
        f"- Highest rate in these rounds: `{best.name}`; against `{lead}`, {cores} threads for each operator: "
        f"{against(found, best.name, lead)}."
    ]
    if len(four) > 1:
        lines.append(
            f"- Four workers: {product(four[-1])} threads in all against {product(four[0])} in all: "
            f"{against(found, four[-1], four[0])}."
        )
    return "\n".join(lines)


def about_trap(trap: Comparison, plain: str, container: str) -> str:
    """What threads that fit the cores bring against far too many, and how long a branch takes with each."""
    lines = [
        f"- `threads` alone has at most one worker for each core, and each has its share of the cores. Against "
        f"`{container}`: {against(trap, 'threads', container)}; against `{plain}`: {against(trap, 'threads', plain)}."
    ]
    took = {name: branches_ms(timing) for name in (container, "threads") if (timing := _timing(trap, name))}
    if len(took) == 2:
        lines.append(f"- A branch takes {took[container]} in the trap and {took['threads']} with threads that fit.")
    said = decided(trap, "threads", container)
    if said == "faster":
        lines.append("- **Fewer threads did the same work sooner**: the others added only waiting for each other.")
    elif said == "slower":
        lines.append("- **The many threads were faster here**: this machine shows no trap.")
    else:
        lines.append("- So these rounds do not show what too many threads cost.")
    return "\n".join(lines)


def branches_ms(timing: Timing) -> str:
    """What a branch takes on average, as a median over all rounds."""
    branches = list(branch_rounds(timing).values())
    return Median.of(sum(each) / len(each) for each in zip(*branches, strict=True)).ms


def lock_lanes(python: Comparison, tensors: Comparison) -> Trace:
    """The calls on one worker and on two, of pure Python and of tensors, on one axis."""
    return stack(
        {
            f"{work}, {workers}": each.traces[name]
            for work, each in (("pure Python", python), ("tensors", tensors))
            for name, workers in zip(LOCK, ("one worker", "two workers"), strict=True)
            if name in each.traces
        }
    )


def lock_table(python: Comparison, tensors: Comparison) -> str:
    """What two threads did to branches in pure Python and to tensors, in Markdown."""
    rows = []
    for name, each in (("pure Python", python), ("tensors", tensors)):
        alone, beside = (_timing(each, approach) for approach in LOCK)
        if alone is None or beside is None:
            rows.append((name, "-", "-", "-", decided(each, LOCK[1], LOCK[0])))
            continue
        share = overlap(beside)
        cells = branches_ms(alone), branches_ms(beside), share.percent if share else "not known"
        rows.append((name, *cells, against(each, LOCK[1], LOCK[0])))
    head = ("work", "a branch alone", "beside the other", "their bars overlap", "two workers against one")
    return markdown_table(head, "lrrrl", rows)


# As when other programs want the cores too: then a program with two threads gets more turns than with one.
IMPOSSIBLE = (
    "not decided: with a GIL two threads never run pure Python at the same time, so another cause made it faster"
)


def has_lock() -> bool:
    """Whether this Python has a GIL."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def about_lock(python: Comparison, tensors: Comparison, locked: bool) -> str:
    """The table of the lock, and what to conclude of it.

    Args:
        locked: whether this Python has a GIL.
    """
    return f"{lock_table(python, tensors)}\n\n{_of_lock(python, tensors, locked)}"


def _of_lock(python: Comparison, tensors: Comparison, locked: bool) -> str:
    _both, only_tensors, _only_python, neither = QUIZZES["lock"][1]
    said = lock_answer(python, tensors, locked)
    if not locked:
        return "This Python runs without a GIL: pure Python may compute on both threads at the same time."
    if said == only_tensors:
        return "This Python has a GIL: in pure Python the threads took turns, **in tensor work they ran in parallel**."
    if said == neither:
        return "Neither became faster: with one core, the GIL makes no difference."
    return f"**{said[0].upper()}{said[1:]}.**"


def about_fork(forked: Comparison) -> str:
    """What TorchScript's fork brings against threads, and what it costs to prepare."""
    timing = _timing(forked, "scripted_fork")
    if timing is None:
        return f"`scripted_fork`: {decided(forked, 'scripted_fork')}."
    lead = forked.baseline.name
    return (
        f"`scripted_fork` on {torch.get_num_interop_threads()} inter-op threads, against `threads`: "
        f"{against(forked, 'scripted_fork', 'threads')}; against `{lead}`: {against(forked, 'scripted_fork', lead)}. "
        f"Tracing the model took {forked['scripted_fork'].prepare_s:.2f} s before the first call. Python does not see "
        "its branches run, so a timeline has no bars for them."
    )


def about_spin(after: Comparison) -> str:
    """What threads that spin do to the tasks on other threads."""
    longer, _less, _same = QUIZZES["spin"][1]
    took = [f"{Median.of(row.timing.samples_ns / 1e6).ms} {row.name}" for row in after.rows if row.timing]
    said = f"The same tasks take {' and '.join(took)}: {against(after, AFTER_ALL, after.baseline.name)}."
    if spin_answer(after) == longer:
        said += " Nothing is computed twice: threads of the operator had no work, and still kept the workers' cores."
    return said


def conclusion(
    trap: Comparison,
    container: str,
    waiting: Waiting,
    python: Comparison,
    tensors: Comparison,
    forked: Comparison,
    eager_in_caller: bool,
) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided.

    Args:
        eager_in_caller: whether a function that was forked in eager mode ran in the thread that called fork.
    """
    helpless = conclusions.no_gain(python, LOCK[1], LOCK[0]) if has_lock() else "false"
    helpless = IMPOSSIBLE if has_lock() and helpless == "false" else helpless
    where = "the forked function ran in the thread that called fork" if eager_in_caller else "it ran in another thread"
    return card(
        [
            claim_faster("Threads that fit the cores are faster than far too many", trap, "threads", container),
            claim_faster(
                "Beside a program on one core, operators on one thread are faster than on all cores by default",
                waiting.beside,
                ONE,
                DEFAULT,
            ),
            claim_faster(
                "Beside that program, OMP_WAIT_POLICY=passive makes operators on all cores faster",
                waiting.beside,
                PASSIVE,
                DEFAULT,
            ),
            Claim(
                "Two threads make pure Python at most 1.25x as fast, because of the GIL",
                conclusions.truth(helpless, "true"),
                (IMPOSSIBLE if helpless == IMPOSSIBLE else _by(python)) if has_lock() else "it runs without a GIL",
            ),
            claim_faster(
                "Two threads speed up tensor work: PyTorch's operators release the GIL", tensors, LOCK[1], LOCK[0]
            ),
            Claim(
                "torch.jit.fork runs branches at the same time in eager mode",
                "false" if eager_in_caller else "true",
                where,
            ),
            claim_faster(
                "Forked in TorchScript, branches are faster than on threads", forked, "scripted_fork", "threads"
            ),
        ]
    )


def _by(comparison: Comparison) -> str:
    row, said = row_of(comparison, LOCK[1], LOCK[0]), decided(comparison, LOCK[1], LOCK[0])
    return f"{row.ratio}, {said}" if row and row.ratio else said


def _timing(comparison: Comparison, name: str) -> Timing | None:
    row = row_of(comparison, name)
    return row.timing if row else None
