"""Section 6 of notebook 04: a schedule of the whole network, predicted and recorded."""

from __future__ import annotations

from collections.abc import Sequence

from kit.explaining.schedules import Schedule
from kit.scheduling.plans import ALL_CORES
from kit.text import counted, markdown_table, milliseconds, times

CLOSE = 0.1  # a prediction that is off by less is called close

GANTT = [
    "the call took about as long as predicted (10% more or less)",
    "it took longer",
    "it took less",
]


def gantt_answer(plan: Schedule) -> str:
    """How long calls took, against the prediction."""
    if plan.doubt:
        return f"not decided: {plan.doubt}"
    close, longer, less = GANTT
    return close if abs(plan.error) <= CLOSE else longer if plan.error < 0 else less


def gantt_told(plan: Schedule) -> str:
    """What the schedule gave, what the prediction missed, and why, in Markdown."""
    if plan.doubt:
        return f"Nothing is concluded from these times: {plan.doubt}. Close the other programs, and run the cell again."
    given, gain = milliseconds(plan.given_ms), f"{times(plan.given_ms / plan.measured_ms)}x"
    one_by_one = plan.plan.tried[ALL_CORES].measured
    told = [
        f"- The model as given takes {given}. Its operators one after the other on all cores, without the Python of "
        f"its modules, take {milliseconds(one_by_one)}: this part of a gain has nothing to do with running at the same "
        "time."
    ]
    if plan.plan.taken == ALL_CORES:
        told.append("- No schedule on lanes was faster than that, so none is taken.")
    else:
        told.append(
            f"- With the schedule a call takes {milliseconds(plan.measured_ms)}, **{gain}** over the model as given."
        )
    return "\n".join([*told, f"- {plan.missed}"])


def more_cores(plan: Schedule, cores: Sequence[int] = (2, 4, 8, 16)) -> str:
    """A table of what more cores would give, with the bound, and how far off the prediction was here."""
    head = ("cores", "one after the other", "with a schedule", "over one after the other", "no schedule ends before")
    rows = [
        (
            each.cores,
            milliseconds(each.sequential_ms),
            milliseconds(each.ms),
            f"{times(each.speed_up)}x",
            milliseconds(each.bound_ms),
        )
        for each in map(plan.what_if, cores)
    ]
    error = f"not decided: {plan.doubt}" if plan.doubt else f"{plan.error:+.0%}"
    told = (
        f"Error of the same prediction for the {counted(plan.plan.cores, 'core')} that are here: {error}. An "
        "operator's time on more cores is computed from what it gained from the cores that are here."
    )
    return "\n".join([markdown_table(head, "lrrrr", rows), "", told])
