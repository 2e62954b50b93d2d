"""Two runs that are not paired: what changed between them, and how often that is wrong."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import kit
from kit.equality import Equality
from kit.machine.about import About
from kit.measuring.changes import Changes, compare_results
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.trace import Trace

SAME = Equality(True, 0.0)
HERE = About("2026-11-26T04:20:52+00:00", "a.py", {"torch": "2.13"}, {"cpu": "Z80", "cores": 2})


def run(samples: dict[str, NDArray[np.float64]], about: About = HERE) -> Comparison:
    """Rows by the milliseconds of their rounds, the baseline first."""
    timings = {name: Timing(np.asarray(ms, float) * 1e6, 1, Trace.build([])) for name, ms in samples.items()}
    base = next(iter(timings.values()))
    one = Ratio(1, 1, 1)
    rows = [Row(name, None, each, one, SAME, each is base, paired_baseline=base) for name, each in timings.items()]
    return Comparison(tuple(rows), len(base.samples_ns), "(1, 3) float32 on cpu", about=about)


def noisy(random: np.random.Generator, rounds: int, **medians: float) -> Comparison:
    """Rounds of 4% noise that all approaches of a round share in part; one of twenty is slower by a third."""
    shared = np.exp(0.02 * random.standard_normal(rounds))

    def own() -> NDArray[np.float64]:
        return np.exp(0.03 * random.standard_normal(rounds)) * np.where(random.random(rounds) < 0.05, 1.33, 1)

    return run({name: ms * shared * own() for name, ms in medians.items()})


STEADY = {"sequential": np.full(20, 8.0), "threads": np.full(20, 4.0), "folded": np.full(20, 6.0)}


def test_the_interval_is_made_of_both_medians_by_hand() -> None:
    """One row and no other: 2 medians at 97.5% each, which of 10 rounds are the second and the ninth value."""
    old, new = (run({"sequential": np.array(values)}) for values in (range(11, 21), range(1, 11)))
    (change,) = compare_results(old, new).rows
    assert change.time == pytest.approx((15.5 / 5.5, 12 / 9, 19 / 2))
    assert change.verdict == "faster"


def test_a_machine_that_is_slower_leaves_the_speed_ups() -> None:
    slower = {name: 2 * ms for name, ms in STEADY.items()}
    found = compare_results(run(STEADY), run(slower))
    assert [row.verdict for row in found.rows] == ["slower"] * 3
    assert [row.speed_up_verdict for row in found.rows] == [None, "no difference found", "no difference found"]
    assert found["threads"].time == pytest.approx((0.5, 0.5, 0.5))


def test_one_approach_that_is_faster_now() -> None:
    found = compare_results(run(STEADY), run(STEADY | {"threads": np.full(20, 2.0)}))
    assert [row.verdict for row in found.rows] == ["no difference found", "faster", "no difference found"]
    assert found["threads"].speed_up == pytest.approx((2, 2, 2))
    back = compare_results(run(STEADY | {"threads": np.full(20, 2.0)}), run(STEADY))
    assert (back["threads"].verdict, back["threads"].speed_up_verdict) == ("slower", "slower")


def test_the_speed_up_of_a_cold_approach_is_that_of_its_own_rounds() -> None:
    beside = Timing(np.full(30, 80e6), 1, Trace.build([]))
    old, new = run(STEADY), run(STEADY)
    cold = Row(
        "cold", None, Timing(np.full(30, 160e6), 1, Trace.build([])), Ratio(1, 1, 1), SAME, paired_baseline=beside
    )
    old, new = replace(old, rows=(*old.rows, cold)), replace(new, rows=(*new.rows, cold))
    assert compare_results(old, new)["cold"].speed_up == (1, 1, 1)


def test_equal_runs_are_called_different_in_at_most_one_table_of_twenty() -> None:
    random = np.random.default_rng(1)
    medians = {"sequential": 8.0, "threads": 4.0, "folded": 7.9}
    false = 0
    for _ in range(400):
        found = compare_results(noisy(random, 13, **medians), noisy(random, 13, **medians))
        said = {row.verdict for row in found.rows} | {row.speed_up_verdict for row in found.rows}
        false += bool(said & {"faster", "slower"})
    assert false <= 0.05 * 400


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    """Without the 1% that counts as none, and of one row: the strictest case."""
    random = np.random.default_rng(2)
    runs = [noisy(random, 20, sequential=8.0) for _ in range(1000)]
    ratios = [compare_results(old, new).rows[0].time for old, new in zip(runs[::2], runs[1::2], strict=True)]
    missed = sum(ratio is None or not ratio.low <= 1 <= ratio.high for ratio in ratios)
    assert missed <= 0.05 * 500
    assert np.mean([math.log(ratio.high / ratio.low) for ratio in ratios if ratio]) < 0.2  # and it is no empty claim


def test_a_change_of_a_fifth_is_found_in_twenty_rounds() -> None:
    random = np.random.default_rng(3)
    old, new = {"sequential": 8.0, "threads": 4.0}, {"sequential": 8.0, "threads": 3.2}
    runs = [compare_results(noisy(random, 20, **old), noisy(random, 20, **new))["threads"] for _ in range(100)]
    assert sum(each.verdict == "faster" for each in runs) >= 90
    assert sum(each.speed_up_verdict == "faster" for each in runs) >= 90


def test_too_few_rounds_find_nothing_and_leave_the_interval_open() -> None:
    few = {name: ms[:6] for name, ms in STEADY.items()}
    found = compare_results(run(few), run({name: ms / 9 for name, ms in few.items()}))
    assert found["threads"].time == (9, 0, math.inf)
    assert found["threads"].verdict == "no difference found"
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["approaches"][1]["time"] == {"estimate": 9, "low": 0, "high": None}


def test_what_is_only_in_one_run_keeps_a_row() -> None:
    old = run({name: STEADY[name] for name in ("sequential", "threads")})
    new = run({name: STEADY[name] for name in ("sequential", "folded")})
    new = replace(new, rows=(*new.rows, Row("threads", "left out"), Row("streams", "there is no GPU")))
    found = compare_results(old, new)
    assert [(row.name, row.verdict) for row in found.rows] == [
        ("sequential", "no difference found"),
        ("folded", "only in one"),
        ("threads", "only in one"),
    ]
    assert (found["folded"].old, found["folded"].new) == ("not compared", "6 ms a call")
    assert found["threads"].new == "not measured: left out"
    assert any("measured in neither run: streams" in said for said in found.caveats)
    with pytest.raises(KeyError, match="'streams' is in neither run"):
        found["streams"]


def test_what_else_differs_is_said() -> None:
    there = replace(HERE, versions={"torch": "2.14"}, machine={"cpu": "Z80", "cores": 4})
    old = replace(run(STEADY), caveats=("the machine was busy",))
    new = replace(run(STEADY, there), inputs="(8, 3) float32 on cpu", device="cuda")
    said = "\n".join(compare_results(old, new).caveats)
    assert "the machines differ: cores 2 -> 4" in said
    assert "the versions differ: torch '2.13' -> '2.14'" in said
    assert "inputs '(1, 3) float32 on cpu' -> '(8, 3) float32 on cpu', device 'cpu' -> 'cuda'" in said
    assert "old run: the machine was busy" in said
    assert compare_results(old, old).caveats == ("old run: the machine was busy", "new run: the machine was busy")


def test_other_baselines_leave_no_speed_up_to_compare() -> None:
    old, new = run(STEADY), run({name: STEADY[name] for name in ("threads", "sequential")})
    found = compare_results(old, new)
    assert {row.speed_up for row in found.rows} == {None}
    assert any("the baselines differ: sequential in the old run, threads in the new" in said for said in found.caveats)


def test_a_wrong_output_is_said() -> None:
    new = run(STEADY)
    wrong = replace(new["threads"], equality=Equality(False, 1.0))
    found = compare_results(run(STEADY), replace(new, rows=(new.baseline, wrong, new["folded"])))
    assert found.caveats == ("in the new run the output of threads is wrong: ignore its time.",)


def test_rates_are_compared_by_the_item() -> None:
    old = replace(run(STEADY), items=8, unit="images")
    new = replace(run({name: 2 * ms for name, ms in STEADY.items()}), items=16, unit="images")
    found = compare_results(old, new)
    assert found["threads"].time == (1, 1, 1)
    assert found["threads"].old == "2,000 images/s"
    assert any("items 8 -> 16" in said for said in found.caveats)


@pytest.fixture
def found() -> Changes:
    return compare_results(run(STEADY), run({**STEADY, "threads<2>": np.full(20, 4.0)}))


def test_the_table_as_text_and_html(found: Changes) -> None:
    lines = str(found).splitlines()
    assert lines[0].split("  ")[0] == "approach"
    assert lines[2].split() == [
        *("threads", "4", "ms", "a", "call", "4", "ms", "a", "call", "1.00x", "[1.00,", "1.00]"),
        *("no", "difference", "found", "1.00x", "[1.00,", "1.00]", "no", "difference", "found"),
    ]
    assert "old: made 2026-11-26 04:20:52 UTC by a.py; torch 2.13; Z80, 2 cores, no GPU" in lines
    page = found._repr_html_()
    assert "threads&lt;2&gt;" in page
    assert "threads<2>" not in page
    assert page.count("<tr>") == 5
    assert repr(found) == "Changes(4 rows)"


def test_the_public_name() -> None:
    assert kit.compare_results is compare_results
