"""The verbs on real models: same output, nothing changed, and errors that a learner can act on."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kit
from kit import approaches
from kit.approaches import REGISTRY, Runs, builtin
from kit.errors import KitError, MeasureError, ShapeError, TaskError, UnknownNameError
from kit.executors import Sequential
from kit.executors.processes_cold import ProcessesCold
from kit.machine.hardware import detect
from kit.machine.load import Taken
from kit.measuring.comparison import Ratio
from kit.measuring.statistics import MIN_ROUNDS, least_rounds
from kit.models import inception_block, toy_two_stream, two_stream

Make = Callable[[], nn.Module]

WAYS = ["sequential", "sequential(threads=1)", "threads", "threads(workers=1)", "threads(workers=4, threads=1)"]
MODELS: dict[str, tuple[Make, list[tuple[int, ...]]]] = {
    "two streams, concatenated": (lambda: two_stream(width=8), [(3, 48, 48), (20, 48, 48)]),
    "two streams, averaged": (lambda: two_stream(width=8, fusion="mean"), [(3, 48, 48), (20, 48, 48)]),
    "toy": (toy_two_stream, [(3, 25, 25), (2, 25, 25)]),
    "inception block": (lambda: inception_block(16), [(16, 17, 17)]),
}


def compare(model: nn.Module, inputs: Any, names: list[str] | None = None, rounds: int = 6) -> kit.Comparison:
    return kit.compare(model, inputs, names or ["sequential", "threads"], rounds=rounds, progress=False)


def random_inputs(batch: int, sizes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(batch, *size, generator=generator) for size in sizes)


class Region(nn.Module):
    """One region of plain callables."""

    def __init__(self, **branches: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.region = kit.Branches({name: Call(call) for name, call in branches.items()}, kit.Concat(1))

    def forward(self, *inputs: Any) -> Tensor:
        merged: Tensor = self.region(*inputs)
        return merged


class Call(nn.Module):
    """A callable as a module."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any) -> Any:
        return self.call(*args)


X = torch.ones(1, 2)


def fail(x: Tensor) -> Tensor:
    raise ZeroDivisionError("on purpose")


# The same output, and nothing changed ---------------------------------------------------------------------------------


def deaf_caveats(comparison: kit.Comparison) -> list[str]:
    """The caveats about inputs; others are about the machine, which may be busy."""
    return [caveat for caveat in comparison.caveats if "hardly changes" in caveat]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_every_approach_gives_sequentials_output_and_changes_nothing(name: str, batch: int) -> None:
    make, sizes = MODELS[name]
    model, inputs = make(), random_inputs(batch, sizes)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    inputs_before = [x.clone() for x in inputs]
    threads_before = torch.get_num_threads()

    comparison = compare(model, inputs, WAYS)

    assert deaf_caveats(comparison) == []  # the output moves when any input moves: the equality says something
    assert [row.name for row in comparison.rows] == WAYS
    assert all(row.equality is not None and row.equality.equal for row in comparison.rows[1:])
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(value.is_shared() for value in model.state_dict().values())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(x, before) and not x.is_shared() for x, before in zip(inputs, inputs_before, strict=True))
    assert torch.get_num_threads() == threads_before
    assert not any(thread.name.startswith("worker") for thread in threading.enumerate())


@pytest.mark.parametrize("name", MODELS)
def test_processes_give_sequentials_output_and_change_nothing(name: str) -> None:
    make, sizes = MODELS[name]
    model, inputs = make(), random_inputs(2, sizes)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    copies = [x.clone() for x in inputs]
    children, threads_before = set(multiprocessing.active_children()), torch.get_num_threads()

    comparison = compare(model, inputs, ["sequential", "processes"])

    assert comparison["processes"].equality is not None
    assert comparison["processes"].equality.equal
    assert deaf_caveats(comparison) == []
    assert all(torch.equal(value, state[key]) and not value.is_shared() for key, value in model.state_dict().items())
    assert all(torch.equal(x, copy) and not x.is_shared() for x, copy in zip(inputs, copies, strict=True))
    assert set(multiprocessing.active_children()) == children
    assert torch.get_num_threads() == threads_before
    assert comparison["processes"].timing is not None
    labels = {lane.label for lane in comparison["processes"].timing.trace.lanes}
    assert labels == {"caller", "merge 0", "process 0", *(["process 1"] if detect().cores > 1 else [])}


def test_a_cold_approach_has_few_rounds_by_itself_and_the_others_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def in_place(self: ProcessesCold, tasks: Any) -> list[Any]:
        """As slow as nothing else here, and without the processes, each of which would import torch."""
        calls.append(len(tasks))
        time.sleep(0.05)
        return Sequential().run(tasks)

    monkeypatch.setattr(ProcessesCold, "run", in_place)
    make, sizes = MODELS["toy"]
    comparison = compare(make(), random_inputs(1, sizes), ["sequential", "processes_cold", "threads"], rounds=9)
    few = least_rounds(2)
    assert calls == [2] * (1 + few)  # once for equality, and no call that is not timed
    timings = {row.name: row.timing for row in comparison.rows}
    assert {name: timing and len(timing.samples_ns) for name, timing in timings.items()} == {
        "sequential": 9,
        "processes_cold": few,
        "threads": 9,
    }
    cold = comparison["processes_cold"]
    assert cold.verdict in ("slower", "not decided")  # the latter beside other programs
    assert cold.timing is not None
    assert cold.timing.calls == 1
    for row in comparison.rows:  # each against the baseline's turns in its own rounds
        assert row.paired_baseline is not None
        assert row.timing is not None
        assert len(row.paired_baseline.samples_ns) == len(row.timing.samples_ns)


@pytest.mark.skipif(detect().cores == 1, reason="there is one core")
@pytest.mark.parametrize(("share", "busy"), [(0.9, False), (0.6, False), (0.6, True)])
def test_cores_that_are_not_all_there_are_a_caveat_unless_others_have_them(
    monkeypatch: pytest.MonkeyPatch, share: float, busy: bool
) -> None:
    monkeypatch.setattr(
        "kit.measuring.candidates.speed_up", lambda one, together: Ratio(share, share - 0.1, share + 0.1)
    )
    monkeypatch.setattr("kit.machine.load.taken", lambda before, after: Taken(0.2 * busy, 0.0))
    make, sizes = MODELS["toy"]
    comparison = compare(make(), random_inputs(1, sizes), ["sequential", "threads"])
    assert comparison.core_scaling is not None
    assert comparison.core_scaling.estimate == share * detect().cores
    assert any("independent work" in caveat for caveat in comparison.caveats) == (share == 0.6 and not busy)
    assert f"independent work ran {comparison.core_scaling} as fast on" in str(comparison)
    assert comparison.to_dict()["core_scaling"] == comparison.core_scaling._asdict()


def test_rounds_end_with_the_width_and_not_before_a_budget_could_pay() -> None:
    make, sizes = MODELS["toy"]
    options: dict[str, Any] = {"rounds": 500, "progress": False}
    comparison = kit.compare(make(), random_inputs(1, sizes), ["sequential", "threads"], width=1e9, **options)
    assert comparison.rounds == least_rounds(1) == len(comparison["threads"].timing.samples_ns)
    with pytest.raises(MeasureError, match="budget of 1e-06 s is too small"):
        kit.compare(make(), random_inputs(1, sizes), ["sequential", "threads"], budget=1e-6, **options)


@pytest.mark.parametrize("way", WAYS)
def test_equal_to_the_model_called_by_hand(way: str) -> None:
    make, sizes = MODELS["two streams, concatenated"]
    model, (frame, flow) = make(), random_inputs(4, sizes)
    streams = model.streams
    with torch.inference_mode(), approaches.parse(way).prepare(model, (frame, flow)) as runner:
        by_hand = streams.merge([streams.branches["spatial"](frame), streams.branches["temporal"](flow)])
        torch.testing.assert_close(runner(), by_hand)
        assert not torch.allclose(runner.run((frame, flow + 1)), by_hand)
        assert not torch.allclose(runner.run((frame + 1, flow)), by_hand)


def test_an_approach_with_another_output_is_caught() -> None:
    """Branches that are not independent: under threads they see each other's work."""
    main = threading.get_ident()
    comparison = compare(Region(a=lambda x: x, b=lambda x: x + (threading.get_ident() != main)), X)
    assert comparison["threads"].verdict == "wrong output"
    assert comparison["threads"].equality == (False, 1.0)
    assert "NO, off by 1" in str(comparison)


def test_an_input_that_the_output_does_not_react_to_is_a_caveat() -> None:
    comparison = compare(Region(a=lambda x: x, b=lambda x: 0 * x), (X, X))
    (caveat,) = deaf_caveats(comparison)
    assert "when input 2 of 2 changes" in caveat
    assert caveat in str(comparison)


def test_a_class_from_a_notebook_cell_works() -> None:
    cell = """
import torch, kit
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.both = kit.Branches({"left": nn.Linear(4, 2), "right": nn.Linear(4, 3)}, merge=kit.Concat(1))

    def forward(self, x):
        return self.both(x)

torch.manual_seed(0)
comparison = kit.compare(Net(), torch.randn(2, 4), ["sequential", "threads"], rounds=6, progress=False)
trace = kit.record(Net(), torch.randn(2, 4), "threads")
"""
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec(cell, notebook)
    assert notebook["comparison"]["threads"].equality.equal
    assert deaf_caveats(notebook["comparison"]) == []
    assert {"left", "right"} <= set(notebook["trace"].names)


# What is compared with what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        (["threads"], ["sequential", "threads"]),
        (["threads", "sequential"], ["sequential", "threads"]),
        (["threads", "threads()", " threads", "sequential"], ["sequential", "threads"]),
        (["sequential(threads=1)", "sequential"], ["sequential(threads=1)", "sequential"]),
        ("threads, threads(workers=1, threads=1)", ["sequential", "threads", "threads(workers=1, threads=1)"]),
    ],
)
def test_sequential_leads_and_nothing_is_compared_twice(given: str | list[str], compared: list[str]) -> None:
    comparison = kit.compare(Region(a=lambda x: x, b=lambda x: x), X, given, rounds=6, progress=False)
    assert [row.name for row in comparison.rows] == compared
    assert [row.baseline for row in comparison.rows] == [True] + [False] * (len(compared) - 1)


@pytest.mark.parametrize("given", ["", [], " , "])
def test_nothing_to_compare(given: str | list[str]) -> None:
    with pytest.raises(KitError, match="no approach was named"):
        kit.compare(Region(a=lambda x: x, b=lambda x: x), X, given, rounds=6, progress=False)


def test_a_model_with_another_output_on_every_call_is_refused() -> None:
    model = Region(a=lambda x: x, b=lambda x: x + torch.rand_like(x))
    with pytest.raises(MeasureError, match="a different output on every call"):
        kit.compare(model, X, rounds=6, progress=False)


def test_what_cannot_run_here_has_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Runs(builtin.sequential, lambda machine: "it needs a GPU.")
    monkeypatch.setitem(REGISTRY, "streams", entry)
    comparison = compare(Region(a=lambda x: x), X, ["sequential", "streams"])
    assert comparison["streams"].verdict == "not available"
    assert comparison["streams"].reason == "it needs a GPU."


def test_what_does_not_fit_the_model_keeps_its_row_and_the_others_go_on() -> None:
    comparison = compare(nn.Linear(2, 1).eval(), X, ["threads", "merged", "replicated"])
    for name in ("threads", "merged"):
        assert comparison[name].verdict == "not available"
        assert "no branches were found in Linear" in str(comparison[name].reason)
    replicated = comparison["replicated"]
    assert replicated.equality == (True, 0.0)
    assert any(caveat.startswith("replicated: nn.DataParallel has no GPU here") for caveat in comparison.caveats)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_approach_that_raises_keeps_its_row_and_the_others_go_on(after: int) -> None:
    """In its first call, when it is checked, in the middle of the rounds."""
    main, calls = threading.get_ident(), []

    def fails_elsewhere(x: Tensor) -> Tensor:
        if threading.get_ident() != main:
            calls.append(1)
            if len(calls) > after:
                raise ZeroDivisionError("on purpose")
        return x

    model = Region(a=fails_elsewhere, b=lambda x: x)
    comparison = compare(model, X, ["sequential", "threads", "sequential(threads=1)"])
    assert comparison["threads"].timing is None
    assert comparison["threads"].reason == "branch 'a' raised ZeroDivisionError: on purpose"
    assert comparison["sequential(threads=1)"].timing is not None
    assert "on purpose" in str(comparison)


def test_a_budget_takes_rounds_away_and_leaves_out_what_was_not_prepared() -> None:
    model = Region(a=lambda x: (time.sleep(0.02), x)[1], b=lambda x: x)
    comparison = kit.compare(model, X, ["sequential", "threads"], rounds=1000, budget=6, progress=False)
    assert MIN_ROUNDS <= comparison.rounds < 1000
    assert comparison["threads"].timing is not None
    comparison = kit.compare(model, X, ["sequential", "threads"], budget=0.1, progress=False)
    assert comparison.rounds == MIN_ROUNDS
    assert comparison["sequential"].timing is not None
    assert comparison["threads"].reason == "left out: the budget of 0.1 s is too small to measure it. Raise the budget."


def test_a_compiled_model_is_compared_and_recorded_whatever_threads_the_caller_has() -> None:
    if reason := approaches.parse("compiled").unavailable_because(detect()):
        pytest.skip(reason)
    before = torch.get_num_threads()
    torch.set_num_threads(detect().cores + 1)
    try:
        comparison = compare(inception_block(8), torch.randn(1, 8, 9, 9), ["sequential", "compiled"])
        assert comparison["compiled"].reason is None
        assert comparison["compiled"].prepare_s > 0
        assert torch.get_num_threads() == detect().cores + 1
    finally:
        torch.set_num_threads(before)


def test_all_is_every_approach_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    light = {name: REGISTRY[name] for name in ("sequential", "threads", "folded", "merged")}
    monkeypatch.setattr("kit.approaches.workload.REGISTRY", light)
    for given in ("all", "threads(workers=1), all"):
        comparison = kit.compare(inception_block(8), torch.randn(1, 8, 9, 9), given, rounds=6, progress=False)
        assert {row.name for row in comparison.rows} - {"threads(workers=1)"} == set(light)
        assert all(row.timing is not None for row in comparison.rows)


def test_traces_of_a_comparison_show_the_branches_where_they_ran() -> None:
    comparison = compare(Region(a=lambda x: x + 1, b=lambda x: x + 2), X)
    for name, trace in comparison.traces.items():
        tasks = [event for event in trace.events() if event.category == "task"]
        assert sorted(event.name for event in tasks) == ["a", "b"]
        assert {event.lane.label.split()[0] for event in tasks} == {"caller" if name == "sequential" else "worker"}


def test_progress_shows_and_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    kit.compare(Region(a=lambda x: x), X, ["sequential"], rounds=6, progress=True)
    out, bars = capsys.readouterr()
    assert out == ""
    assert "rounds: " in bars
    assert "| 0/6 [" in bars
    shown = bars.rpartition("\r")
    assert not shown[2].strip(), "what stands on the line at the end"
    assert not shown[0].rpartition("\r")[2].strip(), "blanks over the bar"
    kit.compare(Region(a=lambda x: x), X, ["sequential"], rounds=6, progress=False)
    assert capsys.readouterr() == ("", "")


def test_inputs_that_are_not_tensors() -> None:
    comparison = compare(Call(lambda x, factor: x * factor), (X, 3), ["sequential"])
    assert comparison.inputs == "(1, 2) float32 on cpu, int"


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_branch_that_raises_is_named_and_threads_are_gone() -> None:
    for verb in (compare, lambda model, x: kit.record(model, x, "threads")):
        with pytest.raises(TaskError, match=r"branch 'temporal' raised ZeroDivisionError: on purpose") as caught:
            verb(Region(spatial=lambda x: x, temporal=fail), X)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert caught.value.__notes__ == ["Region was given (1, 2) float32 on cpu"]
    assert not any(thread.name.startswith("worker") for thread in threading.enumerate())


def test_an_error_in_the_middle_of_measuring_restores_everything() -> None:
    calls = []

    def fails_late(x: Tensor) -> Tensor:
        calls.append(1)
        return fail(x) if len(calls) > 30 else x

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(TaskError):
            compare(Region(a=fails_late, b=lambda x: x), X)
        assert torch.get_num_threads() == 3
        assert not torch.is_inference_mode_enabled()
        assert not any(thread.name.startswith("worker") for thread in threading.enumerate())
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of one thread are POSIX")
@pytest.mark.parametrize("at", [1, 8, 200])
def test_the_stop_button_leaves_no_thread_and_the_next_comparison_works(at: int) -> None:
    """SIGINT from within a branch: in its first call, in a check of equality, in a round."""
    calls = []

    def interrupts(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == at:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return x

    model, before = Region(a=interrupts, b=lambda x: x), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        compare(model, X, rounds=1000)
    assert not any(thread.name.startswith("worker") for thread in threading.enumerate())
    assert torch.get_num_threads() == before
    assert compare(model, X)["threads"].equality == (True, 0.0)


@pytest.mark.parametrize(
    ("model", "inputs", "error", "says"),
    [
        (two_stream(width=8), (torch.ones(1, 3, 32, 32),) * 2, ShapeError, r"flow \(N, 20, H, W\)"),
        (two_stream(width=8), (torch.ones(2, 3, 32, 32), torch.ones(1, 20, 32, 32)), ShapeError, "same batch"),
        (two_stream(width=8), torch.ones(1, 3, 32, 32), ShapeError, r"does not take these inputs, \(1, 3, 32, 32\)"),
        (two_stream(width=8), (X, X, X), ShapeError, "one entry for each argument"),
        (inception_block(16), (torch.ones(1, 16, 8, 8),) * 3, ShapeError, "got 3 inputs"),
        (inception_block(16), torch.ones(1, 8, 8, 8), TaskError, "branch '1x1' raised RuntimeError"),
        (nn.Linear(3, 1), X, ShapeError, r"Linear does not take these inputs, \(1, 2\) float32 on cpu"),
        (nn.Linear(2, 1), None, ShapeError, "the inputs are missing"),
        (Region(a=lambda x: x, b=lambda x: x), (X, X, X), ShapeError, "region of a, b got 3 inputs"),
        (Region(a=lambda x: x / 0 * 0), X, MeasureError, "NaN"),
        (Call(lambda x: x / 0 * 0), X, MeasureError, "NaN"),
        (Call(lambda x: "three"), X, MeasureError, "output is a str"),
        (Call(lambda x: {"scores": [x, "text"]}), X, MeasureError, r"output\['scores'\]\[1\] is a str"),
        (nn.BatchNorm1d(2), X, KitError, r"BatchNorm1d is in training mode.*model\.eval\(\)"),
        (
            two_stream(width=8).train(),
            (X, X),
            KitError,
            r"TwoStream is in training mode.*streams\.branches\.spatial\.1 ",
        ),
        (nn.Sequential(nn.Dropout(0.5)), X, KitError, "training mode"),
    ],
)
def test_what_cannot_be_compared(model: nn.Module, inputs: Any, error: type[KitError], says: str) -> None:
    with pytest.raises(error, match=says):
        compare(model, inputs, ["sequential"])


def test_outputs_of_another_structure_are_refused() -> None:
    main = threading.get_ident()
    model = kit.Branches(
        {"a": Call(lambda x: x if threading.get_ident() == main else x[0])}, merge=lambda parts: parts[0]
    )
    row = compare(model, X)["threads"]
    assert row.timing is None
    assert "output is (2,)" in str(row.reason)
    assert "the baseline's is (1, 2)" in str(row.reason)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"approaches": ["sequental"]}, UnknownNameError, "did you mean 'sequential'"),
        ({"approaches": ["threads(workers=none)"]}, KitError, "whole number"),
        ({"approaches": ["threads + folded"]}, KitError, "it must be the last step"),
        ({"rounds": 5, "approaches": ["sequential"]}, MeasureError, "at least 6"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[KitError], says: str) -> None:
    with pytest.raises(error, match=says):
        kit.compare(nn.Linear(2, 1), X, progress=False, **options)


def test_a_model_in_training_mode_without_batch_norm_or_dropout_is_fine() -> None:
    assert compare(Region(a=lambda x: x).train(), X)["threads"].equality == (True, 0.0)


@pytest.mark.parametrize(
    ("waited", "says"),
    [(None, "waited 5 s for other programs to leave the cores free, but they did not."), (0.0, None)],
)
def test_patience_is_told(monkeypatch: pytest.MonkeyPatch, waited: float | None, says: str | None) -> None:
    monkeypatch.setattr("kit.machine.load.wait_for_calm", lambda patience: waited)
    comparison = kit.compare(nn.Linear(2, 1).eval(), X, "sequential", rounds=6, progress=False, patience=5)
    assert [caveat for caveat in comparison.caveats if "waited" in caveat] == ([says] if says else [])


def test_record_refuses_as_compare_does() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'threads'"):
        kit.record(nn.Linear(2, 1), X, "thread")
    with pytest.raises(KitError, match="training mode"):
        kit.record(nn.BatchNorm1d(2), X)
    with pytest.raises(ShapeError, match="does not take these inputs"):
        kit.record(nn.Linear(3, 1), X)
