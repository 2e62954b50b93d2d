"""A budget is kept: refusals first, cheap entrants before dear ones, and what takes longer than its share is ended."""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.catalogue import Entry, Runner, sequential
from torch import nn

import kit
from kit import catalogue
from kit.approaches import parse
from kit.errors import KitError
from kit.hardware import detect
from kit.measuring.candidates import Entrant, contest
from kit.measuring.comparison import Comparison
from kit.models import inception_block, inception_v3
from kit.transforms import Transform

SOAK = os.environ.get("KIT_SOAK") == "1"
X = torch.ones(4)


class Plain:
    """A runner that knows whether it was closed."""

    intra_op_threads, cold = 1, False

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.closed = seconds, False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed = True


def held(*entrants: Entrant, budget: float | None) -> Comparison:
    """A contest of these against one that takes no time."""
    lead = Entrant("lead", Plain, plain=True)
    options: dict[str, Any] = {"rounds": 12, "width": None, "seed": 0, "progress": False, "alone": None}
    return contest([lead, *entrants], X, "ones", budget=budget, **options)


def asleep(seconds: float) -> Callable[[], Plain]:
    """Prepares for so long, in steps, as a compiler does."""

    def prepare() -> Plain:
        for _ in range(round(seconds / 0.01)):
            time.sleep(0.01)
        return Plain()

    return prepare


def test_cheap_entrants_come_before_dear_ones_and_rows_stay_in_order() -> None:
    order: list[str] = []

    def noted(name: str, cost: float) -> Entrant:
        return Entrant(name, lambda: (order.append(name), Plain())[1], seconds=lambda: cost)

    comparison = held(noted("dear", 60), noted("cheap", 0), noted("middle", 5), budget=None)
    assert order == ["cheap", "middle", "dear"]
    assert [row.name for row in comparison.rows] == ["lead", "dear", "cheap", "middle"]


def test_what_takes_longer_than_its_share_is_ended_and_the_others_are_measured() -> None:
    start = time.monotonic()
    comparison = held(Entrant("slow", asleep(60), seconds=lambda: 9), Entrant("quick", Plain), budget=3)
    assert time.monotonic() - start < 4.5
    reason = str(comparison["slow"].reason)
    assert reason.startswith("left out: preparing it had not ended within its share of the budget (")
    assert reason.endswith(" s). Raise budget.")
    assert comparison["quick"].timing is not None
    assert held(Entrant("slow", asleep(0.1)), budget=None)["slow"].timing is not None


def test_a_first_call_that_never_ends_is_ended_and_closed() -> None:
    stuck = Plain(60)
    comparison = held(Entrant("stuck", lambda: stuck), Entrant("quick", Plain), budget=2)
    assert "had not ended" in str(comparison["stuck"].reason)
    assert stuck.closed
    assert comparison["quick"].timing is not None


def test_what_could_not_be_measured_in_time_is_left_out_and_closed() -> None:
    slow = Plain(0.3)
    comparison = held(Entrant("slow", lambda: slow), budget=2)
    assert comparison["slow"].reason == "left out: the 2 s of this comparison would not do for it. Raise budget."
    assert slow.closed


def test_where_open_files_run_out_a_row_and_a_comparison_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    inputs = (torch.ones(1, 2),)
    entrants = [Entrant("plain", lambda: sequential(nn.Identity(), 1), plain=True), Entrant("files", refuse)]
    options = {"rounds": 6, "budget": None, "width": None, "seed": 0, "progress": False, "alone": None}
    found = contest(entrants, inputs, "inputs", **options)
    assert "OSError: [Errno 24] Too many open files: this process may have" in (found["files"].reason or "")
    monkeypatch.setattr("kit.measuring.candidates.judged", refuse)
    with pytest.raises(KitError, match=r"cannot start this comparison \(OSError: .*ulimit -n"):
        contest(entrants, inputs, "inputs", **options)


def test_those_that_refuse_say_why_also_when_the_budget_is_spent() -> None:
    def refuse() -> Any:
        raise KitError("there is nothing in it to fold.")

    dear = [Entrant(f"dear {i}", asleep(60), seconds=lambda: 5) for i in range(3)]
    early, late = Entrant("early", Plain, seconds=refuse), Entrant("late", refuse, seconds=lambda: 9)
    start = time.monotonic()
    comparison = held(*dear, late, early, budget=2)
    assert time.monotonic() - start < 3
    for name in ("early", "late"):
        assert comparison[name].reason == "there is nothing in it to fold."
    assert all("had not ended" in str(comparison[each.name].reason) for each in dear)


def test_where_nothing_can_be_ended_an_estimate_decides() -> None:
    """As in a thread, or on Windows."""
    begun: list[str] = []
    found: list[Comparison] = []

    def noted(name: str, cost: float) -> Entrant:
        return Entrant(name, lambda: (begun.append(name), Plain())[1], seconds=lambda: cost)

    thread = threading.Thread(target=lambda: found.append(held(noted("dear", 60), noted("cheap", 0.1), budget=2)))
    thread.start()
    thread.join()
    assert begun == ["cheap"]
    assert "preparing it takes about 60 s, and its share of the budget is" in str(found[0]["dear"].reason)


# Approaches -----------------------------------------------------------------------------------------------------------


class Slow(Transform):
    """A transform that takes a minute."""

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        for _ in range(600):
            time.sleep(0.1)
        return model


def test_an_estimate_grows_with_the_model_and_refuses_one_without_regions() -> None:
    small, large = inception_block(16), inception_v3(width=0.125)
    for name in ("compiled", "onnxruntime", "processes_cold"):
        assert 0 < parse(name).seconds(small) < parse(name).seconds(large)
    assert parse("channels_last + threads").seconds(large) == 0
    assert parse("compiled + threads").seconds(large) == parse("compiled").seconds(large)
    assert parse("sequential(threads=1)").seconds(nn.Linear(4, 4)) == 0
    for name in ("threads", "processes", "ranks", "processes_cold", "compiled + threads"):
        with pytest.raises(KitError, match="Linear has no region"):
            parse(name).seconds(nn.Linear(4, 4))


def test_rows_that_can_never_run_are_not_told_to_raise_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a region, batch norm or convolution, behind something that takes all of the budget."""
    monkeypatch.setitem(catalogue.REGISTRY, "slow", Entry(Slow, seconds=lambda model: 1.0))
    names = ["slow", "threads", "processes", "ranks", "processes_cold", "merged", "folded", "channels_last"]
    start = time.monotonic()
    comparison = kit.compare(nn.Linear(4, 4).eval(), X, [*names, "folded + slow"], budget=4, progress=False)
    assert time.monotonic() - start < 6
    assert "had not ended within its share" in str(comparison["slow"].reason)
    for row in comparison.rows[2:]:
        assert row.verdict == "not available"
        assert "budget" not in str(row.reason), row.name


def test_a_transform_that_was_ended_leaves_the_others_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.REGISTRY, "slow", Entry(Slow, seconds=lambda model: 1.0))
    monkeypatch.setitem(catalogue.REGISTRY, "again", Entry(again))
    pair = kit.Branches({"a": nn.ReLU(), "b": nn.ReLU()}, kit.Mean())
    comparison = kit.compare(pair, X, ["slow", "threads", "again"], budget=5, rounds=6, progress=False)
    assert "had not ended within its share" in str(comparison["slow"].reason)
    assert comparison["threads"].equality == (True, 0.0)
    assert comparison["again"].equality == (True, 0.0)


def again(model: nn.Module, cores: int) -> Runner:
    """The baseline under another name."""
    return sequential(model, cores)


@pytest.mark.skipif(not SOAK, reason="minutes: a compiler is ended again and again")
@pytest.mark.parametrize("budget", [6.0, 20.0, 45.0])
def test_a_budget_is_kept_while_compilers_work_and_they_work_afterwards(budget: float) -> None:
    names = ["compiled", "onnxruntime", "compiled(freezing=True)", "processes_cold", "threads"]
    usable = [name for name in names if parse(name).unavailable_because(detect()) is None]
    network, image = inception_v3(), torch.rand(1, 3, 299, 299)
    start = time.monotonic()
    comparison = kit.compare(network, image, usable, budget=budget, progress=False)
    took = time.monotonic() - start
    assert any("had not ended" in str(row.reason) for row in comparison.rows)
    after = kit.compare(inception_block(8), torch.rand(1, 8, 9, 9), usable[:2], rounds=6, progress=False)
    assert all(row.equality and row.equality.equal for row in after.rows)
    if any("other programs took" in caveat for caveat in comparison.caveats):
        pytest.skip(
            f"the machine is busy: {took:.0f} s for a budget of {budget:g} s, in which the baseline has 6 rounds"
        )
    assert took < 1.5 * budget
