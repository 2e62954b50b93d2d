"""Who watches is told of the steps in place of a bar, and may stop the work between them."""

from __future__ import annotations

import threading

import pytest
import torch

import kit
from kit import models
from kit.progress import Stopped, checkpoint, progress_bar, watched


class Watcher:
    """Keeps what it is told; stops at a step or at the n-th checkpoint, if it should."""

    def __init__(self, at_step: tuple[str, int] | None = None, at_checkpoint: int | None = None) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.checkpoints = 0
        self._step, self._checkpoint = at_step, at_checkpoint

    def step(self, what: str, done: int, total: int) -> None:
        self.told.append((what, done, total))
        if (what, done) == self._step:
            raise Stopped

    def checkpoint(self) -> None:
        self.checkpoints += 1
        if self.checkpoints == self._checkpoint:
            raise Stopped


def compared() -> kit.Comparison:
    inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)
    return kit.compare(models.toy_two_stream(), inputs, ["sequential", "threads"], rounds=6)


def test_the_steps_are_counted_on_and_nothing_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher()
    with watched(watcher), progress_bar(3, True, "clips") as advance:
        for done in (1, 2, 1):  # an approach with rounds of its own begins at 1 again
            advance(done)
    assert watcher.told == [("clips", 0, 3), ("clips", 1, 3), ("clips", 2, 3), ("clips", 3, 3)]
    assert capfd.readouterr() == ("", "")


def test_a_comparison_tells_its_approaches_and_its_rounds() -> None:
    watcher = Watcher()
    with watched(watcher):
        found = compared()
    assert [told for told in watcher.told if told[0] == "approaches"] == [("approaches", 0, 1), ("approaches", 1, 1)]
    assert [told[1] for told in watcher.told if told[0] == "rounds"] == list(range(found.rounds + 1))
    assert watcher.checkpoints > 2 * found.rounds  # before each turn


@pytest.mark.parametrize(
    "watcher", [Watcher(("approaches", 0)), Watcher(("rounds", 3)), Watcher(at_checkpoint=1), Watcher(at_checkpoint=9)]
)
def test_what_stops_a_comparison_is_no_reason_of_a_row(watcher: Watcher) -> None:
    before = torch.get_num_threads(), threading.active_count()
    with pytest.raises(Stopped), watched(watcher):
        compared()
    assert (torch.get_num_threads(), threading.active_count()) == before


def test_only_the_thread_that_watches_is_watched() -> None:
    watcher = Watcher(at_checkpoint=1)
    with watched(watcher):
        other = threading.Thread(target=checkpoint)
        other.start()
        other.join()
        assert watcher.checkpoints == 0
    checkpoint()
    assert watcher.checkpoints == 0
