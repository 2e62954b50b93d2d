"""A trace says by its own data whether it was simulated or recorded."""

from dataclasses import replace
from pathlib import Path

import pytest

from kit.simulating import Gpu, Launch, Synchronize, simulate
from kit.trace import Trace, load_trace, save_trace, stack
from kit.views.badge import badge

RECORDED = Path(__file__).parents[2] / "data" / "traces" / "h200-inception-block-sequential.json.gz"
PROGRAM = [Launch("k", 1, 100), Synchronize()]


def test_a_simulated_trace_names_its_numbers_after_a_file_too(tmp_path: Path) -> None:
    trace = simulate(PROGRAM, gpu=Gpu(sms=16, queues=1))
    assert badge(trace) == (
        "Simulated, not measured: a GPU of 16 SMs, 5.00 µs a launch, 50.0 µs between two of eager PyTorch, queues 1."
    )
    save_trace(trace, tmp_path / "trace.json")
    assert badge(load_trace(tmp_path / "trace.json")) == badge(trace)


def test_a_recorded_trace_names_its_date_and_its_machine() -> None:
    said = badge(load_trace(RECORDED))
    assert said.startswith("Recorded: made ")
    assert "NVIDIA H200" in said
    assert "imulated" not in said


def test_without_an_origin_there_is_no_badge() -> None:
    assert badge(Trace.build([])) == ""


def test_a_simulated_trace_without_numbers_is_still_simulated() -> None:
    assert badge(replace(simulate(PROGRAM), about={"simulated": True})).startswith("Simulated, not measured")


def test_a_declared_network_is_simulated_and_the_rest_keeps_its_origin(tmp_path: Path) -> None:
    link = {"bits_per_second": 1e9, "latency": 5e-5}
    trace = replace(load_trace(RECORDED), about={**load_trace(RECORDED).about, "simulated": True, "network": link})
    said = badge(trace)
    assert said.startswith("Simulated, not measured: a network of 1 Gbit/s, 50 µs one way, slept at each hand-over")
    assert "All else: made " in said
    assert "NVIDIA H200" in said
    save_trace(trace, tmp_path / "trace.json")
    assert badge(load_trace(tmp_path / "trace.json")) == said


def test_hosts_that_are_one_machine_are_told() -> None:
    recorded = load_trace(RECORDED)
    trace = replace(recorded, about={**recorded.about, "hosts": "Two hosts are one machine"})
    assert badge(trace) == f"{badge(recorded)} Two hosts are one machine."


def test_stacked_traces_of_different_origins_say_which_is_which(tmp_path: Path) -> None:
    recorded, small, large = load_trace(RECORDED), simulate(PROGRAM, gpu=Gpu(sms=4)), simulate(PROGRAM)
    both = stack({"here": recorded, "model": small})
    save_trace(both, tmp_path / "both.json")
    assert badge(load_trace(tmp_path / "both.json")) == f"here: {badge(recorded)}\nmodel: {badge(small)}"
    lines = badge(stack({"small": small, "large": large, "unknown": Trace.build([])})).split("\n")
    assert [line.partition(", ")[0] for line in lines] == [
        "small: Simulated", "large: Simulated", "unknown: No origin."
    ]  # fmt: skip
    assert badge(stack({"one": large, "other": large})) == badge(large)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"simulated": True, "gpu": ["odd"]}, "Simulated, not measured: the file does not say with which numbers."),
        ({"simulated": True, "gpu": {"sms": "many"}}, "Simulated, not measured: the file does not say"),
        ({"simulated": True, "network": {"speed": 1}}, "Simulated, not measured: a network, and the file does not say"),
        ({"simulated": True, "network": {"bits_per_second": "fast"}}, "Simulated, not measured: a network, and"),
        ({"hosts": ["odd"]}, ""),
        ({"traces": ["odd"], "date": 7, "versions": "odd"}, ""),
        ({"traces": {"a": "odd"}}, "No origin."),
        ({"version": "of another program"}, ""),
    ],
)
def test_what_other_programs_wrote_is_no_error(about: dict[str, object], said: str) -> None:
    assert badge(replace(Trace.build([]), about=about)).startswith(said)
    assert bool(said) == bool(badge(replace(Trace.build([]), about=about)))
