"""Notebook 05: what its quizzes reveal and its sentences say, of recordings, simulations and made-up traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import kit
from kit.graphs import analysed, graph_of
from kit.inputs import opened
from kit.labs import gpu
from kit.labs.gpu import programs, settled, sources, told
from kit.labs.gpu.explorer import Explorer
from kit.labs.gpu.measures import clocks_ns, copies_ns, hidden_ns, in_order, kernels_ns, returned_early, window_ns
from kit.labs.gpu.programs import ALL_THREE, BREADTH, COPIES, DEPTH, HERE, LARGE, ONE_QUEUE, PINNED, PLAIN, SIZES, SMALL
from kit.labs.gpu.settled import Prediction
from kit.labs.gpu.sweep import CAPTURED, EAGER, Sweep, batched
from kit.labs.gpu.told import QUIZZES
from kit.machine.about import about_here
from kit.models import inception_block
from kit.simulating import Gpu, Launch, Record, Synchronize, Wait, operations_of
from kit.trace import Event, Lane, Trace, load_trace, save_trace
from kit.trace.metrics import on_gpu
from kit.views.badge import badge
from kit.views.badged import badge_html, badged, beside
from tests.conftest import FakeCuda, OnGpu

MS = 1_000_000
CALLER = Lane(1, 1, "caller")
OTHERS = {"date": "2026-01-02", "machine": {"cpu": "a CPU", "cores": 4, "gpus": "a GPU"}}
HERE_ABOUT = about_here().to_dict()
SIMULATED: dict[str, Any] = {"simulated": True, "races": []}


def made(
    *kernels: tuple[int, int, int], launch_ms: int = 1, about: Mapping[str, Any] = OTHERS, kind: str = "kernel"
) -> Trace:
    """Work of a GPU as (stream, start, end) in ms; its launches follow each other from 0, ``launch_ms`` each."""
    events = []
    for i, (stream, start, end) in enumerate(kernels):
        events.append(Event("cudaLaunchKernel", "cuda_runtime", i * launch_ms * MS, launch_ms * MS, CALLER, i + 1))
        lane = Lane(0, stream, f"GPU 0 stream {stream}")
        events.append(Event(f"k{i}", kind, start * MS, (end - start) * MS, lane, i + 1))
    return replace(Trace.build(events), about=about)


IN_TURN = made((7, 10, 20), (7, 20, 30))
BOTH = made((8, 10, 20), (9, 12, 22))
A_LITTLE = made((8, 10, 20), (9, 19, 29))


# Where traces come from -----------------------------------------------------------------------------------------------


def test_without_a_gpu_another_machines_recording_is_shown_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "on_this_gpu", lambda: False)
    for name in sources.CALLS:
        trace = gpu.call_of(name)
        assert badge(trace).startswith("Recorded: made 2026")
        assert sources.whose(trace) == "a recording (NVIDIA H200, 2026-11-26)"


def test_with_a_gpu_the_block_is_recorded_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(sources, "on_this_gpu", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(sources, "record", lambda model, x, name: asked.append((model, x, name)) or IN_TURN)
    assert gpu.call_of("cuda_streams") is IN_TURN
    assert sources.record_here(sources.Products(8), torch.rand(8, 8)) is IN_TURN
    (block, image, name), (products, x, plain) = asked
    assert (name, plain, image.shape[0]) == ("cuda_streams", "sequential", 1)
    assert not block.training
    assert not products.training
    assert products(x).equal(x)  # the weight is the identity


def test_with_a_gpu_products_and_copies_are_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    here = replace(IN_TURN, about=HERE_ABOUT)
    monkeypatch.setattr(programs, "on_this_gpu", lambda: True)
    monkeypatch.setattr(programs, "record_here", lambda model, x: asked.append((model, x)) or here)
    monkeypatch.setattr(programs, "SIDE", 16)
    assert gpu.long_kernels() is here
    copies = gpu.copies()
    assert [name for name in copies if name not in COPIES] == [
        f"{PLAIN}{HERE}",
        f"{PINNED}{HERE}",
        f"{ALL_THREE}{HERE}",
    ]
    assert [(m.pinned, m.non_blocking, m.streams) for m, _ in asked[1:]] == [
        COPIES[n] for n in (PLAIN, PINNED, ALL_THREE)
    ]
    assert programs.of_copies(copies, PLAIN) is here
    assert programs.of_copies(copies, "pinned, streams") is copies["pinned, streams"]
    shown = gpu.shown(copies)
    assert {f"{PLAIN}{HERE}", PLAIN, ALL_THREE} <= shown.keys()
    assert "this machine" in gpu.about_copies(copies)


def test_chunks_are_copied_multiplied_and_copied_back() -> None:
    copies = sources.Copies(False, True, False, side=8)
    results = copies(2 * torch.eye(8))
    assert len(results) == sources.CHUNKS
    for (given, taken), result in zip(copies._memory, results, strict=True):
        assert result is taken
        assert torch.equal(taken, 2 * given)
    assert copies(2 * torch.eye(8))[0] is results[0]  # the same memory again


def test_copies_on_streams_wait_for_what_they_read_and_the_caller_for_all(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Account(sources.Copies):
        def _up(self, given: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return fake_cuda.kernel(name="upload")

        def _down(self, y: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
            return fake_cuda.kernel(cast("OnGpu", y), name="download")

    monkeypatch.setattr(OnGpu, "__matmul__", lambda x, weight: fake_cuda.kernel(x, name="product"), raising=False)
    Account(pinned=False, non_blocking=True, streams=True, side=8)(torch.eye(8))
    assert fake_cuda.faults == []
    caller, up, work, down = fake_cuda.streams
    assert up.seen.keys() == {up.cuda_stream}  # no upload waits for computing
    assert {caller.seen[each.cuda_stream] for each in (up, work, down)} == {sources.CHUNKS}


@pytest.mark.parametrize(
    ("model", "x"),
    [(sources.Products(8), torch.rand(8, 8)), (sources.Copies(False, True, False, side=8), torch.eye(8))],
)
def test_what_a_gpu_would_run_is_recorded_as_this_machines(
    model: torch.nn.Module, x: torch.Tensor, tmp_path: Path
) -> None:
    recorded = kit.record(model.eval(), x, "sequential")
    save_trace(recorded, tmp_path / "here.json.gz")  # as it comes from the process that records a GPU
    assert sources.whose(load_trace(tmp_path / "here.json.gz")) == "this machine"


def test_whose_a_trace_is_comes_from_its_own_data() -> None:
    assert sources.whose(replace(IN_TURN, about=SIMULATED)) == "a simulation"
    assert sources.whose(replace(IN_TURN, about=HERE_ABOUT)) == "this machine"
    assert sources.whose(IN_TURN) == "a recording (a GPU, 2026-01-02)"
    assert sources.whose(replace(IN_TURN, about={})) == "a recording"
    assert gpu.how(replace(IN_TURN, about=SIMULATED)) == "simulated"
    assert gpu.how({"a": replace(IN_TURN, about=HERE_ABOUT)}) == "measured"
    assert gpu.how(IN_TURN) == "recorded"


# Measures -------------------------------------------------------------------------------------------------------------


def test_what_is_read_from_a_trace() -> None:
    assert window_ns(IN_TURN) == 30 * MS
    assert clocks_ns(IN_TURN) == (2 * MS, 30 * MS)
    assert returned_early(IN_TURN) == (2, 2)
    assert returned_early(made((7, 0, 1), (7, 10, 20), launch_ms=5)) == (1, 2)
    assert in_order(IN_TURN)
    assert not in_order(made((8, 20, 30), (9, 10, 20)))
    copy = made((8, 15, 25), about=OTHERS, kind="gpu_memcpy")
    both = kit.trace.stack({"a": IN_TURN, "b": copy})
    assert (copies_ns(both), kernels_ns(both)) == (10 * MS, 20 * MS)
    assert hidden_ns(both) == 10 * MS


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [(125, 100, 1), (100, 125, -1), (100, 105, 0), (105, 100, 0), (120, 100, 2), (100, 120, 2)],
)
def test_small_differences_of_single_calls_decide_nothing(before: int, after: int, found: int) -> None:
    assert told.compared(before, after) == found


# Quizzes and sentences ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trace", "place"), [(IN_TURN, 0), (A_LITTLE, 1), (BOTH, 2)])
def test_concurrent(trace: Trace, place: int) -> None:
    assert gpu.concurrent_answer(trace) == QUIZZES["concurrent"][1][place]
    text = gpu.about_concurrent(trace)
    assert ("asynchronous is not concurrent" in text) == (place == 0)
    assert "a recording (a GPU, 2026-01-02)" in text
    assert ("on 1 stream," in text) == (place == 0)
    assert "did not begin" in gpu.about_concurrent(made((8, 20, 30), (9, 10, 20)))


def test_nothing_is_called_asynchronous_that_was_not() -> None:
    late = made((7, 0, 1), (7, 5, 6), launch_ms=10)
    assert "for 0 of 2 kernels" in gpu.about_concurrent(late)
    assert "asynchronous is not concurrent" not in gpu.about_concurrent(late)


@pytest.mark.parametrize(
    ("trace", "place"), [(made((7, 1, 2), launch_ms=2), 0), (IN_TURN, 1), (made((7, 1, 2), launch_ms=4), 2)]
)
def test_timing(trace: Trace, place: int) -> None:
    assert gpu.timing_answer(trace) == QUIZZES["timing"][1][place]


def test_the_table_of_clocks() -> None:
    text = gpu.about_timing({"mine": IN_TURN, "theirs": replace(IN_TURN, about=SIMULATED)})
    assert "| mine | 2.00 ms | 30.0 ms | **7%** | a recording (a GPU, 2026-01-02) |" in text
    assert "a simulation" in text


def of_sizes(small: tuple[int, int], large: tuple[int, int]) -> dict[str, Trace]:
    """Times in ms on one stream and on four."""
    found = {}
    for size, (one, four) in ((SMALL, small), (LARGE, large)):
        found[f"{size}, {told.ONE}"] = made((7, 1, one))
        found[f"{size}, {told.FOUR}"] = made((8, 1, four))
    return found


@pytest.mark.parametrize(
    ("small", "large", "place"),
    [((20, 10), (20, 10), 0), ((20, 10), (20, 20), 1), ((20, 20), (20, 10), 2), ((20, 20), (20, 20), 3)],
)
def test_sizes(small: tuple[int, int], large: tuple[int, int], place: int) -> None:
    assert gpu.sizes_answer(of_sizes(small, large)) == QUIZZES["sizes"][1][place]


def test_small_kernels_overlap_and_large_ones_do_not() -> None:
    sizes = gpu.sizes()
    assert gpu.sizes_answer(sizes) == QUIZZES["sizes"][1][1]
    assert told.gain(sizes, SMALL) > 2
    assert told.gain(sizes, LARGE) < 1.05
    text = gpu.about_sizes(sizes)
    assert all(f"{size}: {blocks} blocks of 132 that fit" in text for size, blocks in SIZES.items())
    assert text.count("a simulation") == 2


def test_overlap_is_told_with_its_source() -> None:
    assert "**67%**" in gpu.about_overlap(BOTH).replace("66%", "67%")
    assert "add up to 20.0 ms, and the GPU worked for 12.0 ms" in gpu.about_overlap(BOTH)
    assert "So says a recording (a GPU, 2026-01-02)" in gpu.about_overlap(BOTH)


def of_calls(one: int, streams: int, threads: int = 30, graph: int = 5, about: Mapping[str, Any] = OTHERS) -> Any:
    ends = {"sequential": one, "cuda_streams": streams, "cuda_streams_threads": threads, "graphed_streams": graph}
    return {name: made((7, 1, end), about=about) for name, end in ends.items()}


@pytest.mark.parametrize(("streams", "place"), [(10, 0), (20, 1), (30, 2)])
def test_streams_and_the_time_of_a_call(streams: int, place: int) -> None:
    assert gpu.launches_answer(of_calls(20, streams)) == QUIZZES["launches"][1][place]


def test_a_small_difference_of_one_call_each_is_not_decided() -> None:
    assert gpu.launches_answer(of_calls(20, 23)).startswith("not decided")


def test_the_table_of_approaches() -> None:
    text = gpu.about_launches(of_calls(20, 30))
    assert "| `cuda_streams` | 30.0 ms | 1.50 | 97% | 0% | not launch-bound | a recording (a GPU, 2026-01-02) |" in text


def test_why_streams_do_not_help() -> None:
    assert "there is nothing to overlap with" in gpu.about_idle(gpu.call_of("cuda_streams"))
    assert "there is nothing to overlap with" not in gpu.about_idle(gpu.long_kernels())


def test_a_graph_is_told_apart_from_its_streams() -> None:
    calls = {name: gpu.call_of(name) for name in sources.CALLS}
    captured = gpu.captured(calls["sequential"])
    assert all(trace.about["simulated"] for trace in captured.values())
    assert window_ns(captured["graphed"]) > window_ns(captured["graphed_streams"])
    text = gpu.about_captured(calls, captured)
    assert text.index("a recording (NVIDIA H200") < text.index("a simulation")
    assert "rough split" in text


@pytest.mark.parametrize(("depth", "breadth", "place"), [(10, 20, 0), (20, 10, 1), (10, 10, 2)])
def test_order(depth: int, breadth: int, place: int) -> None:
    orders = {DEPTH: made((8, 1, depth)), BREADTH: made((8, 1, breadth))}
    assert gpu.order_answer(orders) == QUIZZES["order"][1][place]


def test_the_order_matters_more_with_one_hardware_queue() -> None:
    orders = gpu.orders()
    assert gpu.order_answer(orders) == BREADTH
    gains = [window_ns(orders[f"{DEPTH}{q}"]) / window_ns(orders[f"{BREADTH}{q}"]) for q in ("", f", {ONE_QUEUE}")]
    assert gains[1] > gains[0] > 1.1
    assert "queues 1" in badge(orders[f"{DEPTH}, {ONE_QUEUE}"])
    assert gpu.about_orders(orders).count("a simulation") == 2


@pytest.mark.parametrize(("overlapping", "place"), [(PINNED, 0), ("pinned, streams", 1), (ALL_THREE, 2), ("", 3)])
def test_what_lets_copies_overlap(overlapping: str, place: int) -> None:
    copies = gpu.copies()
    never, always = copies[PLAIN], copies[ALL_THREE]
    given = {name: always if name == overlapping else never for name in COPIES}
    assert gpu.copies_answer(given) == QUIZZES["copies"][1][place]


def test_only_all_three_let_copies_overlap() -> None:
    copies = gpu.copies()
    assert [name for name in copies if hidden_ns(copies[name])] == [ALL_THREE]
    assert gpu.copies_answer(copies) == QUIZZES["copies"][1][2]
    text = gpu.about_copies(copies)
    assert text.count("never") == len(COPIES) - 1
    assert all(not trace.about["races"] for trace in copies.values())


def test_what_the_machine_here_says_of_copies_counts_more_than_a_simulation() -> None:
    copies = gpu.copies()
    copies[f"{ALL_THREE}{HERE}"] = replace(copies[PLAIN], about=HERE_ABOUT)
    assert gpu.copies_answer(copies) == QUIZZES["copies"][1][3]


def races() -> tuple[Trace, Trace]:
    make, use = Launch("make x", 40, 200_000, stream=8, writes=("x",)), Launch("use x", 40, 100_000, reads=("x",))
    waited = [make, Record("made", 8), Wait("made"), use, Synchronize()]
    return kit.simulate([make, use, Synchronize()]), kit.simulate(waited)


def test_a_missing_wait_is_found() -> None:
    race, ordered = races()
    assert gpu.race_answer(race) == QUIZZES["race"][1][1]
    assert gpu.race_answer(ordered) == QUIZZES["race"][1][0]
    text = gpu.about_races({"no wait": race, "a wait": ordered})
    assert "nothing orders make x and use x" in text
    assert text.count("everything is ordered") == 1


def test_each_use_of_memory_without_order_stands_beside_its_cure() -> None:
    wrong, right = [*gpu.memory().values()][::2], [*gpu.memory().values()][1::2]
    assert all(trace.about["races"] for trace in wrong)
    assert not any(trace.about["races"] for trace in right)
    assert all("same" in name for name in [*gpu.memory()][1::2])


# The batch size -------------------------------------------------------------------------------------------------------


def of_gains(eager: list[float], captured: list[float]) -> Sweep:
    return Sweep((1, 2, 4), {EAGER: eager, CAPTURED: captured}, races()[0])


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([1.5, 1.2, 1.1], "streams pay at **every batch size here**"),
        ([1.5, 1.2, 1.0], "streams pay at **batch 1, 2**"),
        ([1.0, 1.5, 1.0], "streams pay at **batch 2**"),
        ([1.0, 1.0, 0.9], "streams pay at **no batch size here**"),
    ],
)
def test_at_which_batch_sizes_streams_pay(gains: list[float], said: str) -> None:
    text = gpu.about_sweep(of_gains(gains, [1.0, 1.0, 1.06]))
    assert f"launched by Python: {said}" in text
    assert "in a captured graph: streams pay at **batch 4**" in text
    assert "| in a captured graph | 1.00 | 1.00 | **1.06** |" in text
    assert "So says a simulation" in text


def test_the_sweep_is_simulated_and_its_chart_says_so() -> None:
    found = gpu.sweep((1, 32))
    assert found.gains[CAPTURED][0] > found.gains[CAPTURED][1] > 1
    assert found.gains[EAGER][0] < 1
    chart = gpu.sweep_chart(found)
    assert chart.layout.title.text.startswith("Simulated, not measured:")
    assert "Simulated, not measured" in chart.still()


def test_a_graph_of_a_larger_batch_is_that_of_the_model_with_it() -> None:
    def graph(batch: int) -> Any:
        model, args = opened(inception_block().eval(), torch.rand(batch, 192, 8, 8))
        return graph_of(analysed(model, args), "", "")

    torch.manual_seed(0)
    assert operations_of(batched(graph(1), 3), Gpu()) == operations_of(graph(3), Gpu())


# The explorer ---------------------------------------------------------------------------------------------------------


def test_every_control_of_the_explorer_changes_what_it_shows() -> None:
    explorer = Explorer()
    assert all(control.description and not control.continuous_update for control in explorer.controls.values())
    seen = {explorer.answer.value}
    for name, value in {"SMs": 40, "blocks of a kernel": 100, "µs of a kernel": 400, "branches": 6}.items():
        explorer.controls[name].value = value
        seen.add(explorer.answer.value)
    explorer.controls["µs from launch to launch"].value = 5
    seen.add(explorer.answer.value)
    explorer.controls["streams"].value = 2
    seen.add(explorer.answer.value)
    explorer.graph.value = True
    seen.add(explorer.answer.value)
    assert len(seen) == 8
    assert all("Simulated, not measured" in text and "<svg" in text for text in seen)
    assert "a GPU of 40 SMs" in explorer.answer.value
    assert "captured graph: yes" in explorer.still()


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("end", [1, 2])
def test_the_explorer_goes_to_the_ends_of_its_ranges(graph: bool, end: int) -> None:
    explorer = Explorer()
    explorer.graph.value = graph
    for control in explorer.controls.values():
        control.value = control.min if end == 1 else control.max
    one, several = explorer.traces()
    assert len(on_gpu(one)) == len(on_gpu(several)) == explorer.controls["branches"].value * 4


# How far off, and the card --------------------------------------------------------------------------------------------


def of_predictions(error: float) -> list[Prediction]:
    share = settled.busy_share(IN_TURN)
    return [
        Prediction("net", "sequential", IN_TURN, share, share),
        Prediction("net", "cuda_streams", IN_TURN, share * (1 + error), share * (1 + 1.5 * error)),
    ]


def test_a_prediction_is_as_wrong_as_its_nearer_end() -> None:
    share = settled.busy_share(IN_TURN)
    assert Prediction("", "", IN_TURN, share / 2, share * 2).error == 0
    assert Prediction("", "", IN_TURN, share * 1.5, share * 2).error == pytest.approx(0.5)
    assert Prediction("", "", IN_TURN, share / 4, share / 2).error == pytest.approx(-0.5)


@pytest.mark.parametrize(("error", "usable"), [(0.1, True), (0.4, True), (0.6, False), (-0.6, False)])
def test_what_cannot_be_believed_is_said(error: float, usable: bool) -> None:
    text = gpu.about_predictions(of_predictions(error))
    assert f"**{error:+.0%}**" in text
    assert ("Do not believe" not in text) == usable
    assert "`sequential` is predicted within 0.0%" in text


def test_every_recording_of_the_kit_is_predicted() -> None:
    calls = {name: gpu.call_of(name) for name in sources.CALLS}
    found = gpu.predictions(calls)
    assert len(found) == 7
    assert all(abs(each.error) < 0.05 for each in found if each.approach == "sequential")
    assert all(abs(each.error) < 0.6 for each in found if each.approach != "cuda_streams_threads")
    assert gpu.about_predictions(found).count("a recording (NVIDIA H200") == 7


def test_calls_of_this_machine_are_predicted_too() -> None:
    calls = {name: replace(gpu.call_of(name), about=HERE_ABOUT) for name in sources.CALLS}
    found = gpu.predictions(calls)
    assert [each.network for each in found[7:]] == ["Inception block, here"] * 4
    assert gpu.about_predictions(found).count("| this machine |") == 4


def card(calls: Any = None, **changes: Any) -> dict[str, tuple[str, str]]:
    """Claim -> answer, and whose it is."""
    race, _ = races()
    given: dict[str, Any] = {
        "long": gpu.long_kernels(),
        "sizes": gpu.sizes(),
        "orders": gpu.orders(),
        "copies": gpu.copies(),
        "race": race,
        "batches": of_gains([1.0] * 3, [1.5, 1.2, 1.0]),
        **changes,
    }
    text = gpu.conclusion(calls or {name: gpu.call_of(name) for name in sources.CALLS}, **given)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:] if line.startswith("|")]
    return {row[0]: (row[1].strip("*"), row[2]) for row in rows} | {"left": (text.splitlines()[-1], "")}


def test_the_card_says_whose_each_answer_is() -> None:
    found = card()
    left = found.pop("left")[0]
    assert left.startswith("None of this was measured on this machine")
    assert len(found) == 13
    assert {whose for _, whose in found.values()} == {"a simulation", "a recording (NVIDIA H200, 2026-11-26)"}
    answers = [answer for answer, _ in found.values()]
    true, false = ["true"], ["false"]
    assert answers == [*true, *3 * false, *true, *false, *true, *2 * false, *true, *3 * false]


def test_the_card_on_a_machine_with_a_gpu() -> None:
    found = card(of_calls(20, 10, threads=20, graph=19, about=HERE_ABOUT))
    assert found.pop("left")[0].startswith("5 of 13 claims were measured on this machine")
    answers = [answer for answer, whose in found.values() if whose == "this machine"]
    assert answers == ["true", "false", "true", "false", "false"]
    undecided = card(of_calls(20, 17, about=HERE_ABOUT))
    assert undecided["A stream for each branch shortens this call"] == ("not decided", "this machine")


def test_other_answers_of_the_card() -> None:
    some = {**of_calls(20, 20), "sequential": made((7, 0, 1), (8, 11, 40), launch_ms=10)}
    same = made((8, 1, 10))
    hidden = gpu.copies()[ALL_THREE]
    _, ordered = races()
    found = card(
        some,
        long=made((7, 1, 2), launch_ms=2),
        sizes={**gpu.sizes(), f"{LARGE}, {told.FOUR}": BOTH},
        orders={DEPTH: same, BREADTH: same},
        copies=dict.fromkeys(COPIES, hidden),
        race=ordered,
        batches=of_gains([1.5] * 3, [1.5] * 3),
    )
    assert found["Calls to a GPU are asynchronous: they return before its work has ended"][0] == "not decided"
    for claim in (
        "A clock that does not wait shows the GPU's time",
        "On several streams, kernels that fill the GPU run at the same time",
        "The order of launches does not matter",
        "Pinned memory alone lets copies and kernels overlap",
        "A stream of PyTorch waits by itself for what another stream computes",
        "Streams pay at every batch size",
    ):
        assert found[claim][0] == "true", claim
    both = {**of_calls(20, 20), "sequential": made((7, 0, 10), (8, 5, 15), launch_ms=20)}
    sync = card(both)
    assert sync["Calls to a GPU are asynchronous: they return before its work has ended"][0] == "false"
    assert sync["Independent branches of plain PyTorch run at the same time, since calls are asynchronous"][0] == "true"
    assert card(copies=dict.fromkeys(COPIES, BOTH))["Copies between CPU and GPU can be the bottleneck"][0] == "false"


# Badges ---------------------------------------------------------------------------------------------------------------


def test_a_picture_carries_its_origin_twice_from_the_traces_data() -> None:
    simulated, recorded = races()[0], gpu.call_of("sequential")
    both = {"a": simulated, "b": recorded, "c": simulated, "d": made((7, 1, 2), about={})}
    assert [group.split(" (")[-1] for group in dict.fromkeys(lane.group for lane in beside(both).lanes)] == [
        "simulated)",
        "recorded)",
        "simulated)",
        "d",
    ]
    text = badged(both).still()
    assert text.count("<b>Simulated, not measured</b>") == text.count("dashed") == 1
    assert text.count("<b>Recorded</b>") == text.count("solid") == 1
    assert "Here: a (simulated), c (simulated)" in text
    assert "NVIDIA H200" in text
    assert badge_html(made((7, 1, 2), about={})) == ""
    assert "<script>" not in badge_html(replace(IN_TURN, about={"command": "<script>"}))


# Exercises ------------------------------------------------------------------------------------------------------------


def test_how_many_at_once_is_checked_and_the_simulation_agrees() -> None:
    def stub(blocks: int, sms: int, per_sm: int) -> int: ...  # type: ignore[empty-body]

    def solved(blocks: int, sms: int, per_sm: int) -> int:
        return max(1, sms * per_sm // blocks)

    assert gpu.check_at_once(stub).state == "not attempted yet"
    assert gpu.check_at_once(solved).state == "passed"
    assert "one at a time" in gpu.check_at_once(lambda blocks, sms, per_sm: sms * per_sm // blocks).message
    for blocks, sms, per_sm in ((33, 132, 1), (10, 46, 2)):
        kernels = [Launch(f"{i}", blocks, MS, share=1 / per_sm, stream=8 + i) for i in range(12)]
        trace = on_gpu(kit.simulate([*kernels, Synchronize()], gpu=Gpu(sms=sms, queues=32)))
        first = trace.start_ns.min()
        whole = int(((trace.start_ns < first + MS) & (trace.duration_ns <= MS)).sum())
        assert whole == solved(blocks, sms, per_sm)


def test_waits_are_checked() -> None:
    stem, left, right, merge = gpu.fork_join()
    fork = [stem, Record("x"), Wait("x", 8), Wait("x", 9)]
    join = [Wait("l"), Wait("r"), merge]
    solved = [*fork, left, Record("l", 8), right, Record("r", 9), *join]
    assert gpu.check_waits(None).state == "not attempted yet"
    assert gpu.check_waits(...).state == "not attempted yet"
    assert gpu.check_waits(solved).state == "passed"
    assert "each of the four kernels" in gpu.check_waits([stem]).message
    assert "nothing orders" in gpu.check_waits([stem, left, right, merge]).message
    assert "1 such pair left" in gpu.check_waits([each for each in solved if each != Wait("l")]).message
    in_turn = [*fork, left, Record("l", 8), Wait("l", 9), right, Record("r", 9), *join]
    assert "do not overlap" in gpu.check_waits(in_turn).message
    assert "making Python wait" in gpu.check_waits([*solved, Synchronize()]).message
    assert "raised" in gpu.check_waits([*solved, Wait("nothing")]).message
