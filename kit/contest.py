"""A contest: entrants with the same work to do, prepared, checked and measured in the same rounds.

Both comparisons are one: of approaches on one model, and of ways through many items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from kit import kernels, neighbours, spans
from kit.comparison import Comparison, Ratio, Row, Timing
from kit.equality import Equality, as_args, compare_outputs
from kit.errors import KitError, MeasureError
from kit.executors.modes import intra_op_threads
from kit.hardware import detect
from kit.measure import TURN_NS, UNSTEADY, judged, least_rounds, measure, speed_up
from kit.progress import progress_bar
from kit.recording import record_kernels

WHOLE = 0.75  # a share of the cores below which a table says that they are not all there


@dataclass(eq=False)
class Entrant:
    """One way to do the work, on its way to a row of the table. It is called as its runner is."""

    name: str
    prepare: Callable[[], Any]  # -> its runner; whatever it raises is the reason for not taking part
    plain: bool = False  # one branch after the other: its turns tell what branches take alone
    rewrites: bool = False  # whether it runs a rewritten model
    runner: Any = None
    reason: str | None = None  # why it has no runner, or no more
    equality: Equality | None = None
    timing: Timing | None = None
    against: Timing | None = None  # the baseline's turns in the same rounds
    turn_ns: int = 0  # about how long its turn in a round takes
    failed: Exception | None = None  # what its last call raised
    kernels: kernels.Kernels | None = None  # of one call; None: not recorded

    def __call__(self, *args: Any) -> Any:
        try:
            return self.runner(*args)
        except Exception as error:
            self.failed = error
            raise

    def enter(self, stack: ExitStack, args: tuple[Any, ...], expected: Any) -> None:
        """Prepare and check it; whatever it raises is its reason for not taking part."""
        try:
            self.runner = stack.enter_context(self.prepare())
            self.check(args, expected)
        except Exception as error:
            self.fail(error)

    def check(self, args: tuple[Any, ...], expected: Any) -> None:
        """Compare its output; the last call, warm where it can be, tells how long a turn takes."""
        with torch.inference_mode(), intra_op_threads(self.intra_op_threads):  # compiled code takes no others
            for _ in range(1 if self.cold else 2):
                start = spans.clock()
                found = self(*args)
                call_ns = spans.clock() - start
            if not self.cold:
                self.kernels = record_kernels(self, args)
        self.turn_ns = call_ns if self.cold else call_ns + max(call_ns, TURN_NS)
        self.equality = compare_outputs(expected, found)

    def fail(self, error: Exception) -> None:
        """Take it out; its row says why."""
        self.reason = str(error) if isinstance(error, KitError) else f"{type(error).__name__}: {error}"
        self.runner = None

    def row(self, baseline: bool) -> Row:
        """What there is to say of it."""
        return Row(
            self.name,
            self.reason,
            self.timing,
            Ratio(1, 1, 1) if baseline else None,
            self.equality,
            baseline,
            getattr(self.runner, "prepare_s", 0.0),
            self.against,
            self.lane_threads,
            rewritten=self.rewrites,
            kernels=self.kernels,
        )

    @property
    def cold(self) -> bool:
        """Whether it starts anew on every call."""
        return self.runner is not None and self.runner.cold

    @property
    def intra_op_threads(self) -> int:
        """Of the calling thread while it has its turn."""
        threads: int = self.runner.intra_op_threads
        return threads

    @property
    def lane_threads(self) -> int | None:
        """Intra-op threads of each of its lanes, where the kit sets them."""
        threads: int | None = getattr(self.runner, "lane_threads", None)
        return threads


def contest(
    entrants: Sequence[Entrant],
    inputs: Any,
    about: str,
    *,
    rounds: int,
    budget: float | None,
    width: float | None,
    seed: int,
    progress: bool,
    alone: Callable[[int], Any] | None,
    remarks: Callable[[Entrant], list[str]] = lambda lead: [],
) -> Comparison:
    """Measure entrants, the first plain one as the baseline, as :func:`kit.compare` says.

    Args:
        about: what the inputs are, for people.
        alone: intra-op threads -> a runner of the branches one after the other, by which speed-ups are explained.
        remarks: what to say of the baseline, once it is ready.
    """
    entrants = sorted(entrants, key=lambda each: not each.plain)  # stable: the first plain one leads
    lead, *others = entrants
    args = as_args(inputs)
    deadline = None if budget is None else spans.clock() + int(budget * 1e9)
    with ExitStack() as stack:
        lead.runner = stack.enter_context(lead.prepare())
        with torch.inference_mode():
            expected = lead(*args)
            lead.check(args, expected)
            if not (lead.equality and lead.equality.equal):
                raise MeasureError(
                    f"{lead.name} gives another output on every call, so nothing can be said of equality: "
                    "take the random numbers out of the model's forward, or seed them there."
                )
            if budget is not None and lead.turn_ns > budget * 1e9:
                raise MeasureError(
                    f"one turn of {lead.name} takes {lead.turn_ns / 1e9:.2g} s here: a budget of {budget:g} s "
                    "is too small. Give more, or leave it out."
                )
            caveats = remarks(lead)
        spent = f"left out: the {budget or 0:g} s of this comparison would not do for it. Raise budget."
        with progress_bar(len(others), progress, "approaches") as advance:
            for done, each in enumerate(others, start=1):
                if each.reason is None and deadline and spans.clock() + _least_ns(entrants) > deadline:
                    each.reason = spent
                elif each.reason is None:
                    each.enter(stack, args, expected)
                # What a cold approach takes is known once it has run: minutes, where each of many regions starts anew.
                if deadline and each.cold and spans.clock() + _least_ns(entrants) > deadline:
                    each.reason, each.runner = spent, None
                advance(done)
        # A cold approach takes seconds a call: it has the fewest rounds that mean anything, against the baseline only.
        cold = [each for each in others if each.cold]
        warm = [each for each in entrants if each.runner and each not in cold]
        few = least_rounds(len(warm) + len(cold) - 1)
        yardsticks = _yardsticks(stack, warm, alone) if len(warm) > 1 else {}
        if deadline:
            round_ns = sum(each.turn_ns for each in warm) + len(yardsticks.keys() - {CORE, CORES}) * lead.turn_ns
            rounds = min(rounds, few + max(0, (deadline - spans.clock() - _least_ns(entrants)) // round_ns))
        usage = neighbours.Usage.now()
        with progress_bar(rounds + few * len(cold), progress) as advance:
            beside = _measure(warm, yardsticks, args, rounds, width, seed, advance)
            for each in cold:
                _measure([lead, each], {}, args, few, None, seed, advance)
        busy = neighbours.caveats(usage, neighbours.Usage.now())
    unsteady = {each.name: each.timing.scatter for each in entrants if each.timing and each.timing.scatter > UNSTEADY}
    if unsteady:
        caveats.append(
            f"rounds scatter, those of {', '.join(f'{name} by {by:.1f} times' for name, by in unsteady.items())}: "
            "something else was using the cores. Close it and measure again before believing a ratio."
        )
    measured = [each for each in others if each.timing]
    caveats += kernels.caveats(lead.name, lead.kernels, [(each.name, each.kernels, each.rewrites) for each in measured])
    cores, gain = detect().cores, None
    if CORES in beside:
        gain = Ratio(*(cores * each for each in speed_up(beside.pop(CORE), beside.pop(CORES))))
        if gain.high < WHOLE * cores and not busy:
            caveats.append(
                f"on work that shares nothing, the {cores} cores together did {gain} what one of them does: they are "
                "threads of fewer real cores, or the machine's host lends them out. What wants all of them gains less."
            )
    rows = judged([each.row(each is lead) for each in entrants])
    assert lead.timing
    rounds = len(lead.timing.samples_ns)  # fewer where the budget or the width says so
    solo = {int(name): timing for name, timing in beside.items()}
    return Comparison(tuple(rows), rounds, about, (*caveats, *busy), solo, cores, gain)


CORE, CORES = "one core", "all cores"


def _yardsticks(stack: ExitStack, warm: list[Entrant], alone: Callable[[int], Any] | None) -> dict[str, Any]:
    """What explains a speed-up: the cores themselves, and the branches one by one at the lanes' thread counts."""
    cores = detect().cores
    found = {CORE: neighbours.OwnWork(1), CORES: neighbours.OwnWork(cores)} if cores > 1 else {}
    if alone:
        here = {each.lane_threads for each in warm if each.plain}
        wanted = {1, *(each.lane_threads for each in warm)} - here
        found |= {str(threads): alone(threads) for threads in sorted(filter(None, wanted))}
    return {name: stack.enter_context(runner) for name, runner in found.items()}


def _least_ns(entrants: Sequence[Entrant]) -> int:
    """What measuring those that are prepared takes at least; a cold one's rounds have the baseline beside it."""
    ready = [each for each in entrants if each.runner]
    cold = sum(each.cold for each in ready)
    return least_rounds(len(ready)) * (sum(each.turn_ns for each in ready) + cold * entrants[0].turn_ns)


def _measure(
    entrants: list[Entrant],
    yardsticks: dict[str, Any],
    args: tuple[Any, ...],
    rounds: int,
    width: float | None,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, Timing]:
    """Measure these against the first of them; where one of the others raises, once more without it.

    Returns the timings of the yardsticks, and of the plain entrants by their intra-op threads.
    """
    while True:
        ready = [each for each in entrants if each.runner]
        runners = {each.name: each for each in ready}
        try:
            timings = measure(runners, args, beside=yardsticks, rounds=rounds, width=width, seed=seed, progress=advance)
            break
        except Exception as error:
            culprits = [each for each in ready[1:] if each.failed]
            if not culprits:
                raise
            culprits[0].fail(error)
    beside = {name: timings[name] for name in yardsticks}
    for each in ready:
        if each.timing is None:  # the baseline keeps those of the rounds with all
            each.against, each.timing = timings[ready[0].name], timings[each.name]
        if each.plain:
            beside[str(each.intra_op_threads)] = timings[each.name]
    return beside
