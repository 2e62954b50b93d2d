"""Notebook 04: what its quizzes reveal, what its tables, sentences and card say, calm or busy; its exercises."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import kit
from kit.explaining.explanation import explain
from kit.explaining.schedules import Schedule
from kit.graphs import Branch, Graph, Operator, Region
from kit.labs import inception
from kit.labs.checks import Check
from kit.labs.inception import QUIZZES, check_balanced, check_parallelism, counting
from kit.labs.inception.gpu import OnGpu, gpu_claim, gpu_told, on_gpu
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison
from kit.scheduling.plans import ALL_CORES
from kit.trace import Event, Lane, Trace
from kit.trace.kernels import Kernel, Use
from tests.explaining.test_explanation import compared as explained
from tests.explaining.test_explanation import side_by_side, timing, turn
from tests.explaining.test_schedules import diamond
from tests.explaining.test_schedules import made_up as scheduled
from tests.labs.made_up import busy, made_up

MS = 1_000_000
SIDE, ALONE = "threads(threads=1)", "sequential(threads=1)"
TAKEN = "not decided: machine busy: other programs took 50% of the machine's CPU time during the rounds"
CALM = {"sequential": 10.0, ALONE: 15.0, SIDE: 8.0}
SLOWER = {"sequential": 10.0, ALONE: 18.0, SIDE: 14.0}
SAME = {"sequential": 10.0, ALONE: 18.0, SIDE: 10.0}
MISSING = {"sequential": 10.0, ALONE: 18.0, SIDE: "it cannot\nrun | here."}
OTHERS = {"sequential": 8.0, "threads": 6.0, "merged": 5.0, "onnxruntime": "it is not\ninstalled | at all."}


def block(name: str, *costs: tuple[str, int, float], at: int = 0) -> tuple[Region, list[Operator]]:
    """A region whose branches are one operator each, (branch, MACs, ms); they take what operator ``at - 1`` gives."""
    before = (at - 1,) if at else ()
    operators = [Operator(f"{name}_{each}", "Conv2d", name, "1", macs, ms, before, ()) for each, macs, ms in costs]
    branches = tuple(Branch(each, (at + i,)) for i, (each, _, _) in enumerate(costs))
    return Region(name, branches), operators


def one_block(*costs: tuple[str, int, float], cores: int = 2) -> Graph:
    region, operators = block("Block", *costs)
    return Graph("Net", "x", "torch.fx", 0.1, tuple(operators), (region,), (), cores, 0.05)


UNEQUAL = one_block(("1x1", 57_600, 1.0), ("3x3", 6_000_000, 5.0), ("pool", 0, 2.0))
EQUAL = one_block(("a", 1_000_000, 1.0), ("b", 1_000_000, 1.0), ("c", 1_000_000, 1.0))


def with_a_stem() -> Graph:
    """Two branches behind a stem."""
    region, operators = block("A", ("a", 4_000_000, 1.0), ("b", 4_000_000, 3.0), at=1)
    stem = Operator("stem", "Conv2d", "", "1", 2_000_000, 1.0, (), ())
    return Graph("Net", "x", "torch.fx", 0.1, (stem, *operators), (region,), (), 2, 0.05)


def recorded(second_start: int, category: str = "task") -> Trace:
    """Two branches of 100 ns, the second of which starts then on a lane of its own."""
    lanes = Lane(1, 1, "a"), Lane(1, 2, "b")
    return Trace.build([Event("a", category, 0, 100, lanes[0]), Event("b", category, second_start, 100, lanes[1])])


def side(own: float = 6.5, wall: float = 7.5, base: float = 6) -> Comparison:
    """Two branches of 6 ms alone; on two lanes each takes ``own`` ms, in a call of ``wall`` ms."""
    found = side_by_side(base, 6, own, wall=wall)
    rows = (found.rows[0], replace(found.rows[1], name=SIDE))
    return replace(found, rows=rows)


# Graphs ---------------------------------------------------------------------------------------------------------------


def test_the_tables_of_a_block_count_with_the_unit_that_fits() -> None:
    text = inception.branches_table(UNEQUAL)
    assert "| 1x1 | 57.60 k | 1 ms |" in text
    assert "| 3x3 | 6.00 M | 5 ms |" in text
    assert "| pool | 0 | 2 ms |" in text
    assert "| all branches | 6.06 M | 8 ms |" in text
    assert "its longest branch, by MACs `3x3`, which has 99% of all MACs" in text
    assert "**1.01**, although there are 3 branches." in text
    (row,) = [line for line in inception.regions_table(UNEQUAL).splitlines() if line.startswith("| Block")]
    assert row == "| Block | 1x1, 3x3, pool | 6.06 M | 6.00 M | 1.01 | 2.00 |"


def test_the_tables_of_a_network_say_which_it_is() -> None:
    graph = with_a_stem()
    told = inception.network_told(graph, "a narrow net")
    assert told.startswith("Of a narrow net, the work is 10.00 M MACs and the span 6.00 M MACs: **parallelism 1.67**.")
    assert "Even the best region, A, has only 2.00; and 20% of the work" in told
    chain = Graph("Net", "x", "torch.fx", 0.1, graph.operators[:1], (), (), 2, 0.05)
    assert (
        inception.network_told(chain, "mine") == "Of mine, the work is 2.00 M MACs, and no branches were found in it."
    )
    table = inception.networks_table({"one": graph, "other": UNEQUAL})
    assert "| one | 10.00 M | 1.67 | 1.50 | 1 |" in table
    assert "is that of **one**." in table
    both = inception.macs_and_ms(graph)
    assert "| A | 2.00 | 1.33 | a | b |" in both
    assert "by milliseconds about 1.25" in both
    assert "`a` did about 4.0 GMACs a second, those named `b` about 1.3" in both


def test_a_branch_that_forks_again_has_one_parallelism_in_all_tables() -> None:
    inner = Region("B", (Branch("c", (1,)), Branch("d", (2,))))
    nested = Branch("b", (1, 2), (inner,))
    operators = tuple(Operator(name, "Conv2d", "A", "1", 4_000_000, 1.0, (), ()) for name in "acd")
    graph = Graph("Net", "x", "torch.fx", 0.1, operators, (Region("A", (Branch("a", (0,)), nested)),), (), 2, 0.05)
    assert "| A | a, b | 12.00 M | 4.00 M | 3.00 |" in inception.regions_table(graph)
    assert "| A | 3.00 | 3.00 |" in inception.macs_and_ms(graph)
    assert "| a net | 12.00 M | 3.00 | 3.00 | 2 |" in inception.networks_table({"a net": graph})


def test_other_networks_are_narrow_in_tests_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_FAST", "1")
    found = inception.other_networks(UNEQUAL, "mine")
    assert [len(list(graph.all_regions())) for graph in found.values()] == [9, 1, 19]
    assert [name.partition(" (")[0] for name in found] == ["GoogLeNet", "mine", "two-stream I3D"]
    assert all("an eighth of the channels" in name for name in found if name != "mine")


def test_a_whole_network_only_where_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "inception_v3", lambda width=1: nn.Identity())
    monkeypatch.delenv("KIT_FAST", raising=False)
    assert [inception.affordable(limit)[2].shape[-1] for limit in (1e9, 0)] == [299, 139]
    monkeypatch.setenv("KIT_FAST", "1")
    assert "a narrow Inception v3 (a quarter of the channels" in inception.affordable(1e9)[0]


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def test_how_parallel_a_network_is() -> None:
    answers = [inception.free_answer(graph) for graph in (UNEQUAL, with_a_stem(), EQUAL)]
    assert answers == ["less than 1.3 times as fast", "1.3 to 2 times", "3 times or more"]
    assert set(answers) <= set(QUIZZES["free"][1])


@pytest.mark.parametrize(
    ("start", "says", "share"), [(100, "for none of it", 0), (80, "for some of it", 11), (10, "for most of it", 82)]
)
def test_for_how_long_branches_overlapped(start: int, says: str, share: int) -> None:
    assert inception.lane_answer(recorded(start)) == says
    assert says in QUIZZES["lane"][1]
    assert f"2 branches, and two of them overlapped for **{share}%**" in inception.lane_told(recorded(start), "a net")
    assert ("one lane" in inception.lane_told(recorded(start), "a net")) == (share == 0)
    assert inception.lane_told(recorded(start), "a net").startswith("A net: ")


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (made_up(CALM), "faster"),
        (made_up(SLOWER), "slower"),
        (made_up(SAME), "no difference found"),
        (busy(CALM), TAKEN),
        (busy(SLOWER), TAKEN),
        (made_up({**CALM, SIDE: 18.0}, cores=1), "slower"),
        (made_up(MISSING), "not measured: it cannot\nrun | here."),
        (made_up({"sequential": 10.0, ALONE: 18.0}), "not measured: threads(threads=1) is not in the table"),
        (made_up(CALM, wrong=(SIDE,)), "wrong output"),
    ],
)
def test_the_verdict_on_threads(comparison: Comparison, says: str) -> None:
    assert inception.side_answer(comparison) == says
    told = inception.side_told(comparison)
    assert f"`{SIDE}` against `sequential`: **{says}**" in told


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (made_up(OTHERS), "merged"),
        (made_up({**OTHERS, "merged": 6.0}), "not decided: "),
        (made_up({**OTHERS, "threads": 9.0, "merged": 9.0}), "sequential"),
        (made_up(OTHERS, wrong=("merged",)), "threads"),
        (busy(OTHERS), TAKEN),
    ],
)
def test_the_fastest_is_faster_than_every_other_row(comparison: Comparison, says: str) -> None:
    assert inception.fastest_answer(comparison).startswith(says)
    assert says in QUIZZES["fastest"][1] or says.startswith("not ")
    told = "these rounds cannot tell: not decided" if says.startswith("not ") else f"**{says}** is faster than every"
    assert told in inception.approaches_table(comparison)


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert inception.quiz(name).guess is None
    assert callable(getattr(inception, f"{name}_answer"))


# Sentences about measurements -----------------------------------------------------------------------------------------


def test_how_much_of_the_bound_threads_reached() -> None:
    told = inception.side_told(side())
    assert (
        "the branches take 12 ms, the longest 6 ms (medians of 6 rounds), and what is outside of them 0.5 ms." in told
    )
    assert (
        "cannot take less than **6.5 ms** [6.5 ms, 6.5 ms]. It took 7.5 ms [7.5 ms, 7.5 ms]: **87%** [87%, 87%]" in told
    )


@pytest.mark.parametrize(
    ("wall", "says"),
    [(6.5, "these rounds cannot tell it from the bound."), (5.0, "less than the bound, which cannot be.")],
)
def test_what_is_beyond_the_bound_is_no_success(wall: float, says: str) -> None:
    told = inception.side_told(side(own=min(6.0, wall - 0.2), wall=wall))
    assert says in told
    assert "of the speed that is possible" not in told


def test_where_threads_ran_on_other_kernels_the_fair_rows_are_named() -> None:
    one, other = ({Kernel("convolution", "conv2d", name): Use(4, 0.5)} for name in ("oneDNN", "thnn_conv2d"))
    found = made_up(CALM)
    assert "ran as" not in inception.side_told(found)
    found = replace(found, rows=tuple(replace(row, kernels=one if row.baseline else other) for row in found.rows))
    told = inception.side_told(found)
    assert "conv2d ran as oneDNN in sequential and as thnn_conv2d in threads(threads=1)" in told
    assert f"`{SIDE}` and `{ALONE}` run the same kernels" in told


def test_the_table_says_in_an_interval_when_preparing_breaks_even() -> None:
    found = made_up({**OTHERS, "folded": 9.0}, scatter=0)
    rows = tuple(row if row.baseline else replace(row, prepare_s=3.0) for row in found.rows)
    found = replace(found, rows=rows, caveats=("something else was using the cores.",))
    _, _, lead, _, merged, peer, slow, *_, caveat = inception.approaches_table(found).splitlines()
    assert lead == "| sequential | 8 ms | 1 | baseline | 0.0 s |  |"
    assert merged == "| merged | 5 ms | 1.60x [1.60, 1.60] | faster | 3.0 s | 1,000 calls |"
    assert peer == "| onnxruntime |  |  | not available: it is not installed &#124; at all. |  |  |"
    assert slow.endswith("| slower | 3.0 s |  |")
    assert caveat == "- &#9888; something else was using the cores."
    assert " calls |" not in inception.approaches_table(busy(OTHERS))
    wide = made_up(OTHERS, scatter=0.05)
    wide = replace(wide, rows=tuple(replace(row, prepare_s=3.0) for row in wide.rows))
    (line,) = [line for line in inception.approaches_table(wide).splitlines() if line.startswith("| merged")]
    assert " to " in line.split("|")[-2]


def test_the_network_is_set_against_its_block() -> None:
    chain, one = made_up({"sequential": 8.0, "threads": 5.0}), busy({"sequential": 8.0, "threads": 9.0})
    text = inception.network_against_block(chain, one, "a narrow net", UNEQUAL)
    assert "On a narrow net, whose parallelism is 1.01 by MACs, over `sequential`:" in text
    assert "- `threads`: **faster** (1.60x [" in text
    assert f"**{TAKEN}** (0.89x [" in text
    missing = inception.network_against_block(chain, made_up({"sequential": 8.0}), "a net", UNEQUAL)
    assert "**not measured: threads is not in the table** on the block" in missing


def test_a_gpu_of_another_machine_is_no_result_of_this_one() -> None:
    here = OnGpu({"sequential": recorded(100, "kernel"), "graphed_streams": recorded(50, "kernel")}, None, None)
    other = here._replace(reason="torch sees none.")
    told = gpu_told(other)
    assert told.startswith("**No GPU here:** torch sees none. The timeline below is a **recording of another machine**")
    assert "`sequential` 0%, `graphed_streams` 33%. That says nothing about this machine." in told
    assert gpu_claim(other)[1:] == ("not decided", "no GPU here: torch sees none")
    assert gpu_claim(here).truth == "false"
    assert gpu_claim(here._replace(traces={"sequential": recorded(50, "kernel")})).truth == "true"
    streams = made_up({"sequential": 8.0, "graphed": 4.0, "graphed_streams": 3.0})
    told = gpu_told(here._replace(streams=streams))
    assert told.startswith("On this machine's GPU. Two kernels ran")
    assert "against one without: **faster** (1.3" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is for machines without a GPU")
def test_without_a_gpu_the_recordings_are_shown() -> None:
    found = on_gpu()
    assert found.reason
    assert all(len(trace.select(categories=["kernel"])) for trace in found.traces.values())


# The control ----------------------------------------------------------------------------------------------------------


def test_the_cores_that_would_help_and_those_that_would_not() -> None:
    """Of 1, 3, 4 and 8 ms: on one core the work is the limit, from two on the longest branch."""
    alone = {"a": 1.0, "b": 3.0, "c": 4.0, "d": 8.0}
    base = timing([16 * MS] * 6, [turn(alone, 16, 1)] * 6)
    beside = {name: 1.25 * ms for name, ms in alone.items()}
    why = explain(explained(base, timing([11 * MS] * 6, [turn(beside, 10, 2)] * 6), {1: base}))
    one, two, four = (inception.cores_told(why, cores) for cores in (1, 2, 4))
    assert one.startswith("Predicted for 1 core: a call of 17 ms, 0.94x as fast as sequential was here. Bound: 16 ms.")
    assert "The limit is the cores: one more would help." in one
    assert two.startswith("Predicted for 2 cores: a call of 11 ms, 1.45x as fast as sequential was here. Bound: 8 ms.")
    assert "The limit is the longest branch, d: more cores do not help." in two
    assert "measured here, on 2 lanes, 11 ms; the prediction for that is +0% off." in two
    assert "4 cores: a call of 11 ms" in four
    control = inception.Cores(why)
    control.cores.value = 2
    assert two in control.still()
    assert "Predicted for 2 cores" in control.children[1].value
    assert ">4</td>" in control.still()


@pytest.mark.parametrize(
    "comparison", [busy(CALM), made_up(MISSING), side(own=3.0, wall=3.2)], ids=["busy", "missing", "beyond"]
)
def test_nothing_is_predicted_from_rounds_that_decide_nothing(comparison: Comparison) -> None:
    why = explain(comparison, SIDE)
    assert inception.cores_told(why, 2).startswith("No prediction: not ")
    assert "No prediction: not " in inception.Cores(why).still()


# The card -------------------------------------------------------------------------------------------------------------


def card(seen: Graph, rows: Comparison, others: Comparison, plan: Schedule | None = None) -> list[str]:
    gpu = OnGpu({"sequential": recorded(100, "kernel")}, "none here", None)
    found = inception.conclusion(seen, "a net", rows, others, plan or scheduled(), gpu)
    return [line.split(" | ")[1] for line in found.splitlines()[2:]]


@pytest.mark.parametrize(
    ("rows", "others", "says"),
    [
        (made_up(CALM), made_up({**OTHERS, "compiled": 4.0}), ["**true**"] * 4),
        (made_up({**SLOWER, ALONE: 9.0}), made_up({**OTHERS, "merged": 9.0, "compiled": 9.0}), ["**false**"] * 4),
        (
            made_up(SAME),
            made_up({**OTHERS, "merged": 8.0, "compiled": 8.0}),
            ["**false**", "**true**", "**false**", "**false**"],
        ),
        (busy(CALM), busy({**OTHERS, "compiled": 4.0}), ["not decided"] * 4),
        (made_up(MISSING), made_up(OTHERS), ["not decided", "not decided", "**true**", "not decided"]),
        (made_up(CALM, wrong=(SIDE,)), made_up(OTHERS, wrong=("merged",)), ["not decided"] * 4),
    ],
    ids=["faster", "slower", "the same", "busy", "missing", "wrong"],
)
def test_the_card(rows: Comparison, others: Comparison, says: list[str]) -> None:
    lane, gpu, parallel, *measured, _ = card(UNEQUAL, rows, others)
    assert lane == "**false**"  # whatever else the machine does: plain PyTorch has one lane
    assert gpu == "not decided"
    assert parallel == "**false**"
    assert measured == says
    assert card(EQUAL, rows, others)[2] == "**true**"


# A schedule of the network --------------------------------------------------------------------------------------------


BUSY = Taken(0.6, 0.0)


@pytest.mark.parametrize(
    ("measured", "says"), [(6.0, "longer"), (4.6, "as long"), (4.2, "as long"), (3.0, "less")], ids=str
)
def test_the_quiz_on_the_prediction(measured: float, says: str) -> None:
    assert says in inception.gantt_answer(replace(scheduled(), measured_ms=measured))
    assert inception.gantt_answer(replace(scheduled(), taken=BUSY)).startswith("not decided: machine busy")


def test_what_is_told_of_a_schedule() -> None:
    told = inception.gantt_told(scheduled())
    assert "The model as given takes 9 ms." in told
    assert "take 8 ms: this part of a gain" in told
    assert "a call takes 6 ms, **1.50x** over the model as given" in told
    assert "an error of -25%" in told
    assert "so none is taken" in inception.gantt_told(scheduled(plan=diamond(ALL_CORES)))
    busy_told = inception.gantt_told(replace(scheduled(), taken=BUSY))
    assert " ms" not in busy_told
    assert "machine busy" in busy_told


def test_the_table_of_more_cores() -> None:
    *rows, _, told = inception.more_cores(scheduled(), (2, 8)).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 2", "| 8"]
    assert "Error of the same prediction for the 2 cores that are here: -25%." in told
    assert "not decided: machine busy" in inception.more_cores(replace(scheduled(), taken=BUSY))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (scheduled(), "**true**"),
        (scheduled(plan=diamond(ALL_CORES)), "**false**"),
        (replace(scheduled(), taken=BUSY), "not decided"),
    ],
    ids=["lanes", "all cores", "busy"],
)
def test_the_card_on_the_schedule(plan: Schedule, says: str) -> None:
    assert card(EQUAL, made_up(CALM), made_up(OTHERS), plan)[-1] == says


# Exercises ------------------------------------------------------------------------------------------------------------


def stub(between: float, regions: list[list[float]]) -> float: ...


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda b, r: (b + sum(map(sum, r))) / (b + sum(map(max, r))), None),
        (lambda b, r: (b + sum(map(sum, r))) / (b + max(map(max, r), default=0)), "add up their longest"),
        (lambda b, r: sum(map(sum, r)) / sum(map(max, r)) if r else 1.0, "in the work and in the span"),
        (lambda b, r: len(r[0]) if r else 1.0, "4 / 3"),
        (lambda b, r: 1.0, "have parallelism 2"),
        (lambda b, r: [b, None][1], "is there a return"),
        (lambda b, r: sum(map(sum, r)) / sum(map(max, r)), "in the work and in the span"),
        (lambda b, r: (b + sum(map(sum, r))) / (b + max(map(max, r))), "add up their longest"),
        (lambda b, r: (b + sum(map(sum, r))) / (b + sum(map(max, r)) * (max(map(len, r)) > 0)), "without any region"),
        (lambda b, r: (b + sum(map(sum, r))) / (b + sum(map(max, r))) if r else 1 / 0, "without any region"),
    ],
)
def test_the_parallelism_exercise(answer: Callable[..., float], says: str | None) -> None:
    found: Check = check_parallelism(answer)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert check_parallelism(stub).state == check_parallelism(None).state == "not attempted yet"


def conv(out: int, kernel: int = 3) -> nn.Module:
    return nn.Conv2d(64, out, kernel, padding=kernel // 2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (kit.Branches({"a": conv(32), "b": conv(32), "c": conv(32)}, kit.Concat(1)), None),
        (kit.Branches({"a": conv(32, 1), "b": conv(32), "c": conv(32)}, kit.Concat(1)), "is 2.11: 'b' alone has 47%"),
        (kit.Branches({"a": conv(32), "b": conv(32)}, kit.Concat(1)), r"(1, 64, 16, 16) and should be"),
        (kit.Branches({"a": conv(48), "b": conv(48)}, kit.Concat(1)), "is 2.00, and with 2 branches it can be 2 at"),
        (
            nn.Sequential(
                kit.Branches({"a": conv(32), "b": conv(32), "c": conv(32)}, kit.Concat(1)), nn.Conv2d(96, 96, 1)
            ),
            "there is more than the region",
        ),
        (
            kit.Branches({"a": conv(96)}, kit.Concat(1)),
            "no region yet: build kit.Branches({...}, merge=kit.Concat(1)) with three",
        ),
        (conv(96), "no region"),
        (kit.Branches({"a": conv(32), "b": conv(32), "c": conv(32)}, list), "is a list, and should be one tensor"),
        (3, "not a int"),
    ],
)
def test_the_balance_exercise(model: object, says: str | None) -> None:
    found: Check = check_balanced(model)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert check_balanced(...).state == "not attempted yet"
