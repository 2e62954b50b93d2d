"""A schedule beside its recording: what the prediction missed adds up, and is found where it was made up."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import kit
from kit.errors import KitError
from kit.explaining.schedules import Ran, Schedule, missed_ms
from kit.machine.load import Taken
from kit.scheduling import Slot
from kit.scheduling.phases import Phase
from kit.scheduling.plans import ALL_CORES, MIXED, Overheads, Plan, Tried, ends
from kit.trace import Trace
from tests.graphs import plain_models

MEASURED = {ALL_CORES: 8.0, MIXED: 6.0}


def diamond(taken: str = MIXED) -> Plan:
    """0 on all cores, then 1 and 2 side by side, and 3, which takes both; 1 and 3 on lane 0."""
    after: tuple[tuple[int, ...], ...] = ((), (0,), (0,), (1, 2))
    alone = Phase((Slot(0, 0, 0.0, 1.0),), 1)
    beside = Phase((Slot(1, 0, 1.2, 3.2), Slot(2, 1, 1.2, 2.2), Slot(3, 0, 3.2, 4.5)), 2)
    one_by_one = Phase(tuple(Slot(i, 0, 1.5 * i, 1.5 * i + 1.5) for i in range(4)), 1)
    return Plan(
        names=("stem", "long", "short", "join"),
        after=after,
        one_ms=(2.0, 2.0, 1.0, 1.0),
        all_ms=(1.0, 1.5, 1.5, 1.5),
        cores=2,
        lanes=2,
        policy="heft",
        overheads=Overheads(0.3, 0.2),
        tried={
            ALL_CORES: Tried((one_by_one,), MEASURED[ALL_CORES], 0, 9),
            MIXED: Tried((alone, beside), MEASURED[MIXED], 4, 9),
        },
        taken=taken,
    )


def as_predicted() -> dict[int, Ran]:
    return {0: Ran(9, 0.0, 1.0), 1: Ran(7, 1.2, 3.2), 2: Ran(8, 1.2, 2.2), 3: Ran(7, 3.2, 4.5)}


def test_nothing_is_missed_where_all_came_as_predicted() -> None:
    found = missed_ms(diamond(), as_predicted(), 4.5)
    assert sum(found.values()) == pytest.approx(0.0)
    assert [*found.values()] == pytest.approx([0.0] * len(found))


@pytest.mark.parametrize(
    ("ran", "call_ms", "cause", "ms"),
    [
        ({1: Ran(7, 1.2, 4.2), 3: Ran(7, 4.2, 5.5)}, 5.5, "operators", 1.0),
        ({3: Ran(7, 3.9, 5.2)}, 5.2, "operators", 0.7),  # the Python before it
        # The short one becomes the longest: the join waits for it, and gets its result late.
        ({2: Ran(8, 1.2, 3.7), 3: Ran(7, 4.1, 5.4)}, 5.4, "handing over", 0.4),
        ({}, 5.0, "phases", 0.5),
        ({1: Ran(7, 2.2, 4.2), 3: Ran(7, 4.2, 5.5)}, 5.5, "phases", 1.0),
    ],
)
def test_what_was_made_up_is_found(ran: dict[int, Ran], call_ms: float, cause: str, ms: float) -> None:
    found = missed_ms(diamond(), as_predicted() | ran, call_ms)
    assert found[cause] == pytest.approx(ms)
    assert sum(found.values()) == pytest.approx(call_ms - 4.5)


def made_up(**changes: Any) -> Schedule:
    plan = changes.pop("plan", diamond())
    found = missed_ms(plan, as_predicted(), 5.0) if plan.taken == MIXED else dict.fromkeys(("operators",), 1.0)
    return Schedule(
        name="Net",
        inputs="(1, 3) float32",
        plan=plan,
        given_ms=9.0,
        measured_ms=6.0,
        recorded_ms=5.0,
        missed_ms=found,
        trace=Trace.build([]),
        peak_bytes=(64 * 2**20, 32 * 2**20),
        taken=None,
        **changes,
    )


def test_it_tells_the_error_its_causes_and_the_memory() -> None:
    text = str(made_up())
    assert "3 of 4 operators run on 2 lanes in 1 phase, 1 on all cores; 4.5 ms a call predicted" in text
    assert "32 MiB of memory at its peak, of the model as given 64 MiB" in text
    assert "an error of -25%" in text
    assert "beginning and ending phases and the call: +0.5 ms" in text
    assert "1.50x" in text
    assert "taken" in text
    assert made_up().what_if(2).error == pytest.approx(-0.25)


def test_where_no_lane_was_faster_it_says_what_decided_that() -> None:
    assert (
        "no schedule on lanes was clearly faster than one operator after the other on all cores: mixed was more than "
        "2% faster in 4 of 9 trial calls, and 70% of them are needed, so it runs them so"
        in str(made_up(plan=diamond(ALL_CORES)))
    )


def test_on_a_busy_machine_nothing_is_concluded() -> None:
    busy = replace(made_up(), taken=Taken(0.6, 0.0))
    assert busy.doubt.startswith("machine busy: other programs took 60%")
    assert "is not decided" in busy.missed
    assert "%" not in busy.missed.replace("60%", "")


def test_the_trace_has_every_operator_twice_in_lanes_that_are_called_alike() -> None:
    model, x = plain_models.MODELS["multi_task"]()
    found = kit.schedule(model, x, rounds=6, progress=False)
    trace, names = found.trace, sorted(found.plan.names)
    by_group: dict[str, list[str]] = {"predicted": [], "recorded": []}
    for event in trace.events():
        if event.category == "part":
            by_group[event.lane.group].append(event.name)
    assert sorted(by_group["predicted"]) == sorted(by_group["recorded"]) == names
    # One thread may run both lanes of a call as short as this one.
    assert {lane.label for lane in trace.lanes} <= {"caller", "lane 0", "lane 1"}
    call = next(e for e in trace.events() if e.category == "call" and e.lane.group == "predicted")
    assert call.duration_ns == round(ends(found.plan.best.phases) * 1e6)
    assert sum(found.missed_ms.values()) == pytest.approx(found.recorded_ms - found.plan.best.predicted)
    assert found.given_ms > 0 < found.measured_ms


def test_the_policies_are_three_and_others_are_refused() -> None:
    model, x = plain_models.MODELS["siamese"]()
    for policy in ("heft", "stages", "wavefront"):
        assert kit.schedule(model, x, policy=policy, rounds=6, progress=False).plan.policy == policy
    with pytest.raises(KitError, match="best"):
        kit.schedule(model, x, policy="best", progress=False)
    with pytest.raises(KitError):
        kit.schedule(torch.nn.BatchNorm1d(3).train(), torch.ones(2, 3), progress=False)
