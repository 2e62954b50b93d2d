"""A contest: entrants with the same work to do, prepared, checked and measured in the same rounds.

Both comparisons are one: of approaches on one model, and of ways through many items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from kit import kernels, neighbours, spans
from kit.budget import Budget, Overdue, can_interrupt, limited
from kit.comparison import Comparison, Ratio, Row, Timing
from kit.equality import Equality, as_args, compare_outputs, device_of
from kit.errors import KitError, MeasureError
from kit.executors.modes import intra_op_threads
from kit.executors.reports import remedy, starting_is_possible
from kit.hardware import detect
from kit.measure import TURN_NS, UNSTEADY, judged, least_rounds, measure, speed_up
from kit.progress import progress_bar
from kit.recording import record_kernels

WARM_TURNS = 4  # about as much as warming up takes
GRACE = 0.25  # of the budget, shared out: what each may try even when it is spent, so that those that refuse say why
WHOLE = 0.75  # a share of the cores below which a table says that they are not all there


@dataclass(eq=False)
class Entrant:
    """One way to do the work, on its way to a row of the table. It is called as its runner is."""

    name: str
    prepare: Callable[[], Any]  # -> its runner; whatever it raises is the reason for not taking part
    plain: bool = False  # one branch after the other: its turns tell what branches take alone
    rewrites: bool = False  # whether it runs a rewritten model
    seconds: Callable[[], float] = lambda: 0.0  # about how long preparing takes; raises where it is known to be refused
    runner: Any = None
    reason: str | None = None  # why it has no runner, or no more
    equality: Equality | None = None
    timing: Timing | None = None
    against: Timing | None = None  # the baseline's turns in the same rounds
    cost: float = 0.0  # the seconds, once they are asked for
    turn_ns: int = 0  # about how long its turn in a round takes
    failed: Exception | None = None  # what its last call raised
    stack: ExitStack = field(default_factory=ExitStack)  # closes its runner
    kernels: kernels.Kernels | None = None  # of one call; None: not recorded

    def __call__(self, *args: Any) -> Any:
        try:
            return self.runner(*args)
        except Exception as error:
            self.failed = error
            raise

    def estimate(self) -> None:
        """Ask what it will cost, which also shows some of what refuses this model, before anything dear begins."""
        try:
            self.cost = self.seconds()
        except Exception as error:
            self.fail(error)

    def enter(self, args: tuple[Any, ...], expected: Any, share: float, grace: float) -> None:
        """Prepare and check it within its share, in seconds; whatever it raises is its reason for not taking part.

        Without a share it is only prepared, within the grace: some that refuse this model say so there.
        """
        most = max(share, grace)
        if self.cost > most and not can_interrupt():
            self.leave_out(f"preparing it takes about {self.cost:.2g} s, and its share of the budget is {most:.2g} s")
            return
        try:
            with limited(most):
                self.runner = self.stack.enter_context(self.prepare())
                if share > 0:
                    self.check(args, expected)
        except Overdue:
            self.leave_out(f"preparing it had not ended within its share of the budget ({most:.2g} s)")
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
        said = remedy(error)
        why = f"{type(error).__name__}: {error}" + (f": {said}" if said else "")
        self.reason = str(error) if isinstance(error, KitError) else why
        self.runner = None
        self.stack.close()

    def leave_out(self, why: str) -> None:
        """Take it out for want of time."""
        self.fail(MeasureError(f"left out: {why}. Raise budget."))

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


@starting_is_possible("this comparison")
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
    limit = Budget(budget)
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
        for each in others:
            stack.enter_context(each.stack)
            if each.reason is None:
                each.estimate()
        queue = sorted((each for each in others if each.reason is None), key=lambda each: each.cost)
        with progress_bar(len(queue), progress, "approaches") as advance:
            for done, each in enumerate(queue):
                # Measuring one takes as long as the baseline, until more is known; what is dearer has no claim yet.
                claims = [lead for other in queue[done:] if other.cost <= each.cost]
                share = limit.left - _least_s([*entrants, *claims], lead)
                each.enter(args, expected, share, GRACE * limit.seconds / len(others))
                if each.runner and (share <= 0 or _least_s(entrants, lead) > limit.left):
                    each.leave_out(f"the {budget:g} s of this comparison would not do for it")
                advance(done + 1)
        # A cold approach takes seconds a call: it has the fewest rounds that mean anything, against the baseline only.
        cold = [each for each in others if each.cold]
        warm = [each for each in entrants if each.runner and each not in cold]
        few = least_rounds(len(warm) + len(cold) - 1)
        yardsticks = _yardsticks(stack, warm, alone) if len(warm) > 1 else {}
        usage = neighbours.Usage.now()
        with progress_bar(rounds + few * len(cold), progress) as advance:
            later = few * sum(each.turn_ns + lead.turn_ns for each in cold) / 1e9
            beside = _measure(warm, yardsticks, args, rounds, limit.enough(few, later), width, seed, advance)
            for each in cold:
                _measure([lead, each], {}, args, few, limit.enough(few), None, seed, advance)
        busy = neighbours.caveats(usage, neighbours.Usage.now())
    ratios = {each.name: each.timing.scatter for each in entrants if each.timing}
    unsteady = {name: ratio for name, ratio in ratios.items() if ratio > UNSTEADY}
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
    return Comparison(tuple(rows), rounds, about, (*caveats, *busy), solo, cores, gain, device_of(args, expected))


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


def _least_s(entrants: Sequence[Entrant], lead: Entrant) -> float:
    """What measuring those that are prepared takes at least; a cold one's rounds have the baseline beside it."""
    ready = [each for each in entrants if each.runner]
    cold = [each for each in ready if each.cold]
    # The branches one by one on a thread, a yardstick beside them, take about two of the baseline's turns.
    warm_ns = sum(each.turn_ns for each in ready if each not in cold) + 2 * lead.turn_ns
    cold_ns = sum(each.turn_ns + lead.turn_ns for each in cold)
    rounds = least_rounds(len(ready) - 1)
    return ((rounds + WARM_TURNS) * warm_ns + rounds * cold_ns) / 1e9


def _measure(
    entrants: list[Entrant],
    yardsticks: dict[str, Any],
    args: tuple[Any, ...],
    rounds: int,
    enough: Callable[[int], bool],
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
            timings = measure(
                runners, args, beside=yardsticks, rounds=rounds, enough=enough, width=width, seed=seed, progress=advance
            )
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
