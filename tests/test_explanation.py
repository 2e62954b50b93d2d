"""Why an approach is as fast as it is: factors that multiply to the ratio, and planted causes that are found."""

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import kit
from kit.comparison import Comparison, Ratio, Row, Timing
from kit.equality import Equality
from kit.errors import MeasureError
from kit.executors import Executor, Sequential, Task
from kit.executors.threads import Threads
from kit.explanation import FACTORS, Explanation, explain
from kit.measure import judged, measure
from kit.models import inception_block
from kit.snippets import snippet
from kit.spans import Span
from kit.trace import Event, Lane, Trace
from kit.turns import Turn, reduce_turn
from tests.test_turns import turns

SAME = Equality(True, 0.0)
MS = 1_000_000


def timing(walls: Sequence[float], reduced: Sequence[Turn | None]) -> Timing:
    lane = Lane(1, 1, "caller")
    names = sorted({name for turn in reduced if turn for _, name in turn.tasks})
    events = [Event("call", "call", 100, 90, lane), *(Event(name, "task", 110, 50, lane) for name in names)]
    return Timing(np.array(walls, float), 1, Trace.build(events), tuple(reduced))


def turn(tasks: dict[str, float], busiest: float, lanes: int, *, regions: float = 0, cpu: float = 0) -> Turn:
    """In milliseconds; all overhead is dispatch."""
    regions = regions or busiest
    own = {(0, name): ms * MS for name, ms in tasks.items()}
    overhead = {"startup": 0.0, "transfer": 0.0, "merge": 0.0, "dispatch": (regions - busiest) * MS, "join": 0.0}
    return Turn(regions * MS, own, busiest * MS, lanes, (cpu or sum(tasks.values())) * MS, overhead, 0.0)


def compared(base: Timing, own: Timing, solo: dict[int, Timing] | None = None, threads: int | None = 1) -> Comparison:
    first = Row("sequential", None, base, Ratio(1, 1, 1), SAME, True, base, 2)
    rows = judged([first, Row("threads", None, own, None, SAME, False, base, threads)])
    return Comparison(tuple(rows), len(base.samples_ns), "", (), solo or {}, cores=2)


# The factors ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(turns(), turns()), min_size=6, max_size=8))
def test_factors_multiply_to_the_measured_ratio(rounds: list[tuple[list[Span], list[Span]]]) -> None:
    def made(side: int) -> Timing:
        walls, reduced = [], []
        for pair in rounds:
            calls = [s for s in pair[side] if s.category == "call"]
            walls.append(max(1, sum(s.end_ns - s.start_ns for s in calls)) / len(calls))
            reduced.append(reduce_turn(pair[side]))
        return timing(walls, reduced)

    base, own, alone = made(0), made(1), made(1)
    found = explain(compared(base, own, {1: alone}))
    assert found.factors is not None
    assert found.inflation is not None
    assert tuple(found.factors) == FACTORS
    measured = float(np.exp(np.log(base.samples_ns / own.samples_ns).mean()))
    assert math.prod(found.factors.values()) == pytest.approx(measured, rel=1e-9)
    assert math.prod(value for _, value in found.steps()) == pytest.approx(measured, rel=1e-9)
    assert any(sum(found.parts_ms.values()) == pytest.approx(wall / 1e6) for wall in own.samples_ns)
    json.dumps(found.to_dict(), allow_nan=False)


def example(**changes: Any) -> Comparison:
    """Branches of 2 and 6 ms: on two cores each 1.5 and 4 ms one by one; 2 and 6 alone on a thread; 2.5 and 7.5 beside
    each other."""
    base = timing([6 * MS] * 6, [turn({"a": 1.5, "b": 4}, 5.5, 1)] * 6)
    alone = timing([8.5 * MS] * 6, [turn({"a": 2, "b": 6}, 8, 1)] * 6)
    own = timing([9 * MS] * 6, [turn({"a": 2.5, "b": 7.5}, 7.5, 2, regions=8.5, cpu=9)] * 6)
    return compared(base, own, {1: alone, 2: base}, **changes)


def test_each_factor_of_an_example_by_hand() -> None:
    found = explain(example())
    assert found.factors == pytest.approx(
        {
            "baseline's overhead": 6 / 5.5,
            "lanes": 2,
            "no inflation": 5.5 / 10,
            "load balance": 5 / 7.5,
            "no overhead": 7.5 / 9,
        }
    )
    assert found.inflation == pytest.approx({"lost intra-op parallelism": 5.5 / 8, "contention": 8 / 10})
    assert found.waiting_ms == pytest.approx(
        {"CPU time (memory, caches)": 1, "waiting for a core": 0, "waiting for the GIL or a lock": 1}
    )
    assert found.parts_ms == pytest.approx({"regions": 8.5, "serial rest": 0.5})
    assert {kind: ms for kind, ms in found.overhead_ms.items() if ms} == {"dispatch": 1, "serial rest": 0.5}
    assert found.verdict == "slower"


def test_bounds_of_an_example_by_hand() -> None:
    bounds = explain(example()).bounds
    assert bounds is not None
    assert (bounds.work_ms, bounds.span_ms, bounds.serial_ms) == (8, 6, 0.5)
    assert (bounds.least_ms, bounds.speed_up, bounds.share) == pytest.approx((6.5, 6 / 6.5, 6.5 / 9))
    assert bounds.amdahl == pytest.approx(1 / (0.5 / 6 + 5.5 / 6 / 2))


def test_what_if_moves_branches_and_says_how_far_off_it_was() -> None:
    found = explain(example())
    here = found.what_if(2)
    assert here.ms == pytest.approx(6 + 1.5)  # the longest alone, and the overhead
    assert here.errors["threads"] == pytest.approx(7.5 / 9 - 1)
    assert found.what_if(1).ms == found.what_if(2, merged=[("a", "b")]).ms == pytest.approx(8 + 1.5)
    assert found.what_if(7).speed_up == pytest.approx(6 / 7.5)
    with pytest.raises(MeasureError, match="0 lanes"):
        found.what_if(0)


def test_what_was_not_measured_is_not_separated() -> None:
    without = explain(replace(example(), solo={}))
    assert (without.inflation, without.waiting_ms, without.bounds) == (None, {}, None)
    assert "not separated" in str(without)
    assert explain(example(threads=None)).bounds is None
    own = example().rows[1].timing
    assert own is not None
    blind = replace(own, turns=tuple(t and t._replace(cpu=None) for t in own.turns))
    found = explain(replace(example(), rows=(example().rows[0], replace(example().rows[1], timing=blind))))
    assert found.waiting_ms == {}


def test_an_approach_without_tasks_and_one_that_is_missing() -> None:
    rows = example().rows
    whole = replace(rows[1], name="compiled", timing=timing([MS] * 6, [None] * 6))
    absent = Row("streams", "there is no GPU")
    comparison = replace(example(), rows=(*rows, whole, absent))
    assert explain(comparison, "compiled").factors is None
    assert "no tasks" in str(explain(comparison, "compiled"))
    assert "there is no GPU" in str(explain(comparison, "streams"))
    with pytest.raises(MeasureError, match="cannot predict compiled"):
        explain(comparison, "compiled").what_if(2)
    with pytest.raises(KeyError, match="streams"):
        explain(comparison, "stream")
    for name in ("compiled", "streams"):
        json.dumps(explain(comparison, name).to_dict(), allow_nan=False)


def test_advice_has_numbers_and_evidence() -> None:
    found = explain(example())
    latency, throughput, change = found.advice
    assert latency.text.startswith("For one request at a time keep sequential, 6 ms a call")
    assert "8.5 ms of one core, so at most 235 a second on 2 cores" in throughput.text
    assert "What costs threads most is imbalance, x 0.67: the longest branch, b," in change.text
    assert (change.approach, change.event, change.start_ns, change.duration_ns) == ("threads", "b", 10, 50)
    assert repr(found) == "Explanation(threads over sequential)"


@pytest.mark.parametrize("approach", ["sequential", "threads"])
def test_the_snippet_runs_without_the_kit(approach: str) -> None:
    branches, x = [nn.Linear(4, 3), nn.Linear(4, 2)], torch.rand(1, 4)
    names: dict[str, Any] = {}
    before = torch.get_num_threads()
    exec(snippet(approach, 2, before) or "", names)
    with torch.inference_mode():
        expected = torch.cat([branch(x) for branch in branches], 1)
    assert torch.equal(names["run"](branches, lambda outputs: torch.cat(outputs, 1), (x, x)), expected)
    assert "kit" not in (snippet(approach, 2, 1) or "")
    if "pool" in names:
        names["pool"].shutdown()


# Planted causes -------------------------------------------------------------------------------------------------------


@dataclass
class Planted:
    """A runner of sleeping tasks: waiting takes the same time on a busy machine, nearly."""

    executor: Executor
    tasks: Sequence[Task]
    intra_op_threads: int = 1
    cold: bool = False

    def __call__(self) -> list[Any]:
        return self.executor.run(self.tasks)


def explained(executor: Executor, *calls: Callable[[], object]) -> Explanation:
    tasks = [Task(f"task {i}", call) for i, call in enumerate(calls)]
    with executor:
        timings = measure({"base": Planted(Sequential(), tasks), "own": Planted(executor, tasks)}, (), rounds=6)
    return explain(compared(timings["base"], timings["own"], {1: timings["base"]}))


def sleep(ms: float) -> Callable[[], None]:
    return lambda: time.sleep(ms / 1000)


def losses(found: Explanation) -> dict[str, float]:
    return {name: value for name, value in found.steps() if name not in ("lanes", "baseline's overhead")}


def test_imbalance_by_a_known_ratio() -> None:
    found = explained(Threads(2), sleep(20), sleep(60))
    assert losses(found)["load balance"] == pytest.approx(40 / 60, abs=0.05)
    assert min(losses(found), key=losses(found).__getitem__) == "load balance"


def test_sleep_as_overhead() -> None:
    class Late(Threads):
        def run(self, tasks: Sequence[Task]) -> list[Any]:
            time.sleep(0.04)
            return super().run(tasks)

    found = explained(Late(2), sleep(20), sleep(20))
    assert min(losses(found), key=losses(found).__getitem__) == "no overhead"
    assert max(found.overhead_ms, key=found.overhead_ms.__getitem__) == "dispatch"
    assert found.overhead_ms["dispatch"] >= 40


def test_a_lock_as_contention() -> None:
    lock = threading.Lock()

    def guarded() -> None:
        with lock:
            time.sleep(0.02)

    found = explained(Threads(2), guarded, guarded)
    waiting = found.waiting_ms
    assert max(waiting, key=waiting.__getitem__) == "waiting for the GIL or a lock"
    assert waiting["waiting for the GIL or a lock"] == pytest.approx(20, abs=8)
    assert losses(found)["contention"] == pytest.approx(2 / 3, abs=0.1)  # 20 + 20 ms alone, 20 + 40 beside each other


def test_regions_and_the_rest_of_a_real_comparison_add_up() -> None:
    block = inception_block(16)
    comparison = kit.compare(block, torch.rand(1, 16, 17, 17), ["sequential", "threads"], rounds=6, progress=False)
    found = kit.explain(comparison)
    own = comparison["threads"].timing
    assert own is not None
    assert found.factors is not None
    assert sum(found.parts_ms.values()) == pytest.approx(float(np.sort(own.samples_ns)[2:4].mean()) / 1e6, rel=0.5)
    assert sum(found.overhead_ms.values()) <= sum(found.parts_ms.values())
    assert 1 in comparison.solo
    assert len(found.advice) == 3
