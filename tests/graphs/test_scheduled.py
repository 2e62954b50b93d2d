"""The approach ``scheduled``: right outputs, an honest choice, and no thread left behind."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kit
from kit.approaches.names import parse
from kit.equality import compare_outputs
from kit.errors import KitError
from kit.graphs import analysed, scheduled
from kit.graphs.costs import costs
from kit.graphs.lanes import OnLanes
from kit.graphs.scheduled import choice, clearly_faster
from kit.inputs import opened
from kit.scheduling.plans import ALL_CORES, MIXED, SIDE_BY_SIDE
from tests.graphs import plain_models


def lanes() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lane")}


@pytest.mark.parametrize("name", ["scheduled", "scheduled(policy=wavefront, lanes=3)", "folded + scheduled"])
def test_it_computes_what_the_model_computes_and_leaves_no_thread(name: str) -> None:
    model, x = plain_models.MODELS["multi_task"]()
    with parse(name).prepare(model, x) as runner, torch.inference_mode():
        assert compare_outputs(model(x), runner()).equal
        other = torch.randn_like(x)
        assert compare_outputs(model(other), runner.run(other)).equal
    assert not lanes()


def test_lanes_are_taken_only_where_they_are_clearly_faster_than_all_cores() -> None:
    def taken(side_by_side: list[float], mixture: list[float]) -> str:
        return choice({ALL_CORES: [10.0, 20.0, 10.0, 10.0, 10.0], SIDE_BY_SIDE: side_by_side, MIXED: mixture})

    slow = [12.0, 24.0, 12.0, 12.0, 12.0]
    assert taken([9.9] * 5, slow) == ALL_CORES
    assert taken([9.0] * 5, [8.5] * 5) == MIXED
    assert taken([8.5] * 5, [9.0] * 5) == SIDE_BY_SIDE
    assert taken([30.0] * 5, slow) == ALL_CORES
    assert taken([9.0, 18.0, 9.0, 9.0, 15.0], slow) == SIDE_BY_SIDE
    assert taken([5.0, 5.0, 5.0, 10.0, 10.0], slow) == ALL_CORES  # a lower median, in too few rounds
    assert clearly_faster({ALL_CORES: [10.0, 20.0, 10.0], MIXED: [5.0, 19.0, 9.9]}, MIXED) == 2


def always_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled, "choice", lambda took: SIDE_BY_SIDE)


def test_a_recording_shows_the_lanes_with_their_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    always_lanes(monkeypatch)
    model, x = plain_models.MODELS["multi_task"]()
    trace = kit.record(model, x, "scheduled")
    tasks = [trace.names[i] for i in trace.select(categories=["task"]).name]
    assert sorted(tasks) == ["lane 0", "lane 1"]
    operators = {each.name for each in kit.graph(model, x).operators}
    parts = {trace.names[i] for i in trace.select(categories=["part"]).name}
    assert parts == operators


def test_equal_operators_share_what_they_cost() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 8)).eval()
    seen, args = opened(model, torch.randn(4, 32))
    first, second, tanh, last = costs(analysed(seen, args).found, args, 1)
    assert first == second
    assert min(first, tanh, last) > 0
    assert last != first


def test_where_the_proof_fails_the_lanes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    always_lanes(monkeypatch)
    forward = OnLanes.forward
    monkeypatch.setattr(OnLanes, "forward", lambda self, *leaves: [each + 1 for each in forward(self, *leaves)])
    model, x = plain_models.MODELS["siamese"]()
    with pytest.raises(KitError, match="changes the output of Siamese"):
        parse("scheduled").prepare(model, x)
    assert not lanes()


def test_what_cannot_be_captured_is_refused_and_nothing_runs_its_lanes() -> None:
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(KitError, match="cannot be captured"):
        parse("scheduled").prepare(Decides().eval(), torch.ones(3))
    with pytest.raises(KitError, match="leave one of them out"):
        parse("scheduled + threads")
    with pytest.raises(KitError):
        parse("scheduled(policy=best)")
    with pytest.raises(KitError, match="needs 2 lanes or more, not 1"):
        parse("scheduled(lanes=1)").prepare(nn.Linear(2, 2).eval(), torch.ones(1, 2))


def test_a_comparison_has_a_row_of_it_for_any_model() -> None:
    model, x = plain_models.MODELS["pyramid"]()
    row: Any = kit.compare(model, x, ["scheduled"], rounds=6)["scheduled"]
    assert row.equality.equal
    assert row.rewritten
    assert row.timing.median_ms > 0
    assert not lanes()
