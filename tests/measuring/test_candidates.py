"""A budget is kept: refusals come first, cheap candidates before dear ones, and what outlives its share is ended."""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import kit
from kit.approaches import REGISTRY, Calls, Rewrites, Runs, Workload, builtin, parse
from kit.errors import KitError
from kit.machine.hardware import detect
from kit.measuring.comparison import Comparison
from kit.models import inception_block, inception_v3
from kit.transforms import Transform

SOAK = os.environ.get("KIT_SOAK") == "1"
X = torch.ones(4)


class Plain:
    """A runner that knows whether it was closed."""

    intra_op_threads, lane_threads, cold, prepare_s, inputs = 1, None, False, 0.0, ()

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.closed = seconds, False

    def __call__(self) -> torch.Tensor:
        time.sleep(self.seconds)
        return X

    def close(self) -> None:
        self.closed = True


def costs(make: Callable[[], Plain], seconds: float = 0.0) -> Calls:
    """An approach that makes such a runner, and is said to take so long."""
    return Calls(lambda: make(), seconds=lambda model: seconds)


def held(budget: float | None, **approaches: Calls) -> Comparison:
    """These against one that takes no time."""
    work = Workload("held", None, (), approaches={"lead": costs(Plain), **approaches}, baseline="lead")
    return kit.compare(work, approaches=list(approaches), budget=budget, progress=False)


def asleep(seconds: float) -> Callable[[], Plain]:
    """Prepares for so long, in steps, as a compiler does."""

    def prepare() -> Plain:
        for _ in range(round(seconds / 0.01)):
            time.sleep(0.01)
        return Plain()

    return prepare


def test_cheap_candidates_come_before_dear_ones_and_rows_stay_in_order() -> None:
    order: list[str] = []

    def noted(name: str, cost: float) -> Calls:
        return costs(lambda: (order.append(name), Plain())[1], cost)

    comparison = held(None, dear=noted("dear", 60), cheap=noted("cheap", 0), middle=noted("middle", 5))
    assert order == ["cheap", "middle", "dear"]
    assert [row.name for row in comparison.rows] == ["lead", "dear", "cheap", "middle"]


def test_what_takes_longer_than_its_share_is_ended_and_the_others_are_measured() -> None:
    start = time.monotonic()
    comparison = held(3, slow=costs(asleep(60), 9), quick=costs(Plain))
    assert time.monotonic() - start < 4.5
    reason = str(comparison["slow"].reason)
    assert reason.startswith("left out: preparing it took longer than its share of the budget (")
    assert reason.endswith(" s). Raise the budget.")
    assert comparison["quick"].timing is not None
    assert held(None, slow=costs(asleep(0.1)))["slow"].timing is not None


def test_a_first_call_that_never_ends_is_ended_and_closed() -> None:
    stuck = Plain(60)
    comparison = held(6, stuck=costs(lambda: stuck), quick=costs(Plain))  # enough for quick, also on a busy machine
    assert "took longer than its share" in str(comparison["stuck"].reason)
    assert stuck.closed
    assert comparison["quick"].timing is not None


def test_what_could_not_be_measured_in_time_is_left_out_and_closed() -> None:
    slow = Plain(0.3)
    comparison = held(2, slow=costs(lambda: slow))
    assert comparison["slow"].reason == "left out: the budget of 2 s is too small to measure it. Raise the budget."
    assert slow.closed


def test_one_that_raises_while_it_is_measured_keeps_its_row_and_the_others_go_on() -> None:
    class Late(Plain):
        calls = 0

        def __call__(self) -> torch.Tensor:
            self.calls += 1
            if self.calls == 9:
                raise ZeroDivisionError("the ninth call")
            return X

    late, steady = Late(), Plain()
    comparison = held(None, late=costs(lambda: late), steady=costs(lambda: steady))
    assert comparison["late"].reason == "ZeroDivisionError: the ninth call"
    assert comparison["late"].timing is None
    assert late.closed
    assert len(comparison["steady"].timing.samples_ns) == 12


def test_a_baseline_that_raises_while_it_is_measured_is_the_comparisons_own_error() -> None:
    class Late(Plain):
        calls = 0

        def __call__(self) -> torch.Tensor:
            self.calls += 1
            return X / (1 if self.calls < 9 else [][0])

    work = Workload("late", None, (), approaches={"lead": costs(Late), "other": costs(Plain)}, baseline="lead")
    with pytest.raises(IndexError):
        kit.compare(work, approaches="other", progress=False)


def test_where_open_files_run_out_a_row_and_a_comparison_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    found = held(None, files=costs(refuse))
    assert "OSError: [Errno 24] Too many open files: this process may have" in (found["files"].reason or "")
    monkeypatch.setattr("kit.measuring.candidates.with_verdicts", refuse)
    with pytest.raises(KitError, match=r"cannot start this comparison \(OSError: .*ulimit -n"):
        held(None, plain=costs(Plain))


def test_those_that_refuse_say_why_also_when_the_budget_is_spent() -> None:
    def refuse(model: Any = None) -> Any:
        raise KitError("there is nothing in it to fold.")

    dear = {f"dear_{i}": costs(asleep(60), 5) for i in range(3)}
    early, late = Calls(lambda: Plain(), seconds=refuse), costs(refuse, 9)
    start = time.monotonic()
    comparison = held(2, **dear, late=late, early=early)
    assert time.monotonic() - start < 3
    for name in ("early", "late"):
        assert comparison[name].reason == "there is nothing in it to fold."
    assert all("took longer than its share" in str(comparison[name].reason) for name in dear)


def test_where_nothing_can_be_ended_an_estimate_decides() -> None:
    """As in a thread, or on Windows."""
    begun: list[str] = []
    found: list[Comparison] = []

    def noted(name: str, cost: float) -> Calls:
        return costs(lambda: (begun.append(name), Plain())[1], cost)

    thread = threading.Thread(target=lambda: found.append(held(2, dear=noted("dear", 60), cheap=noted("cheap", 0.1))))
    thread.start()
    thread.join()
    assert begun == ["cheap"]
    assert "preparing it takes about 60 s, but its share of the budget is" in str(found[0]["dear"].reason)


# Approaches -----------------------------------------------------------------------------------------------------------


class Slow(Transform):
    """A transform that takes a minute."""

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        for _ in range(600):
            time.sleep(0.1)
        return model


def test_an_estimate_grows_with_the_model_and_refuses_one_without_regions() -> None:
    small, large = inception_block(16), inception_v3(width=0.125)
    for name in ("compiled", "onnxruntime", "openvino", "processes_cold"):
        assert 0 < parse(name).seconds(small) < parse(name).seconds(large)
    assert parse("channels_last + threads").seconds(large) == 0
    assert parse("compiled + threads").seconds(large) == parse("compiled").seconds(large)
    assert parse("sequential(threads=1)").seconds(nn.Linear(4, 4)) == 0
    for name in ("threads", "processes", "ranks", "processes_cold", "compiled + threads"):
        with pytest.raises(KitError, match="Linear has no region"):
            parse(name).seconds(nn.Linear(4, 4))


def test_rows_that_can_never_run_are_not_told_to_raise_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a region, batch norm or convolution, behind something that takes all of the budget."""
    monkeypatch.setitem(REGISTRY, "slow", Rewrites(Slow, seconds=lambda model: 1.0))
    names = ["slow", "threads", "processes", "ranks", "processes_cold", "merged", "folded", "channels_last"]
    start = time.monotonic()
    comparison = kit.compare(nn.Linear(4, 4).eval(), X, [*names, "folded + slow"], budget=4, progress=False)
    assert time.monotonic() - start < 6
    assert "took longer than its share" in str(comparison["slow"].reason)
    for row in comparison.rows[2:]:
        assert row.verdict == "not available"
        assert "budget" not in str(row.reason), row.name


def test_a_transform_that_was_ended_leaves_the_others_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "slow", Rewrites(Slow, seconds=lambda model: 1.0))
    monkeypatch.setitem(REGISTRY, "again", Runs(builtin.sequential))
    pair = kit.Branches({"a": nn.ReLU(), "b": nn.ReLU()}, kit.Mean())
    comparison = kit.compare(pair, X, ["slow", "threads", "again"], budget=5, rounds=6, progress=False)
    assert "took longer than its share" in str(comparison["slow"].reason)
    assert comparison["threads"].equality == (True, 0.0)
    assert comparison["again"].equality == (True, 0.0)


@pytest.mark.skipif(not SOAK, reason="minutes: a compiler is ended again and again")
@pytest.mark.parametrize("budget", [6.0, 20.0, 45.0])
def test_a_budget_is_kept_while_compilers_work_and_they_work_afterwards(budget: float) -> None:
    names = ["compiled", "onnxruntime", "compiled(freezing=True)", "processes_cold", "threads"]
    usable = [name for name in names if parse(name).unavailable_because(detect()) is None]
    network, image = inception_v3(), torch.rand(1, 3, 299, 299)
    start = time.monotonic()
    comparison = kit.compare(network, image, usable, budget=budget, progress=False)
    took = time.monotonic() - start
    assert any("took longer than its share" in str(row.reason) for row in comparison.rows)
    after = kit.compare(inception_block(8), torch.rand(1, 8, 9, 9), usable[:2], rounds=6, progress=False)
    assert all(row.equality and row.equality.equal for row in after.rows)
    if any("other programs took" in caveat for caveat in comparison.caveats):
        pytest.skip(
            f"the machine is busy: {took:.0f} s for a budget of {budget:g} s, in which the baseline has 6 rounds"
        )
    assert took < 1.5 * budget
