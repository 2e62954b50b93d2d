"""Notebook 08: the runs of a pipeline, what its stages allow, and what it reached of that."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from kit.approaches import Workload
from kit.executors.thread_counts import intra_op_threads
from kit.machine import load
from kit.measuring.gate import BUSY, SCATTER
from kit.pipeline import RunStatistics
from kit.reprs import one_line
from kit.text import markdown_table
from kit.workloads import live
from kit.workloads.medians import Median


@one_line
class Runs(NamedTuple):
    """Whole runs of a clip by several approaches, in interleaved rounds."""

    statistics: Mapping[str, Sequence[RunStatistics]]  # approach -> a run for each round
    taken: load.Taken | None  # what other programs took of the cores meanwhile; None: not known

    @property
    def doubt(self) -> str:
        """Why these runs decide nothing, by the thresholds of a comparison; empty where they may be believed."""
        if self.taken and self.taken.share > BUSY:
            return f"machine busy: {self.taken}"
        for name, rounds in self.statistics.items():
            lower, upper = np.percentile([run.per_second for run in rounds], (25, 75))
            if upper > SCATTER * lower:
                return (
                    f"machine busy: frames/s of {name} vary a lot: the upper quartile is {upper / lower:.1f} times the "
                    "lower"
                )
        return ""

    def latency_ms(self, name: str) -> Median:
        """The time that half of the frames of a run take from read to labelled."""
        return Median.of(run.latency_ms(50) for run in self.statistics[name])

    def per_second(self, name: str) -> Median:
        """Frames a second."""
        return Median.of(run.per_second for run in self.statistics[name])

    def bound(self, cores: int) -> Median:
        """The most frames a second that the stages allow, timed one frame after the other at one thread."""
        return Median.of(run.bound(cores) for run in self.statistics["sequential"])

    def reached(self, name: str, cores: int) -> Median:
        """The rate of an approach by the bound of the same round."""
        rounds = zip(self.statistics[name], self.statistics["sequential"], strict=True)
        return Median.of(run.per_second / alone.bound(cores) for run, alone in rounds)

    def typical(self, name: str) -> RunStatistics:
        """The run whose rate is nearest the median."""
        middle = self.per_second(name).estimate
        return min(self.statistics[name], key=lambda run: abs(run.per_second - middle))


def run_all(video: Workload, names: Sequence[str], rounds: int) -> Runs:
    """Play a clip by each approach in every round, after one call that counts for nothing."""
    with ExitStack() as stack:
        runners = {}
        for name in names:
            runner = video.prepare(name)
            assert isinstance(runner, live.FromFile)
            runners[name] = stack.enter_context(runner)
        found: dict[str, list[RunStatistics]] = {name: [] for name in names}
        _play(runners)
        before = load.Usage.now()
        for _ in range(rounds):
            for name, run in _play(runners).items():
                found[name].append(run)
        return Runs(found, load.taken(before, load.Usage.now()))


def _play(runners: Mapping[str, live.FromFile]) -> dict[str, RunStatistics]:
    found = {}
    for name in random.sample(list(runners), len(runners)):
        runner = runners[name]
        with intra_op_threads(runner.intra_op_threads):
            runner()
        assert runner.statistics is not None
        found[name] = runner.statistics
    return found


def stages_table(runs: Runs, cores: int) -> str:
    """What each stage took, one frame after the other at one thread, and what limits the pipeline, in Markdown."""
    rows = [(name, Median.of(rounds).ms) for name, rounds in _stage_ms(runs).items()]
    table = markdown_table(("stage", "time of a frame"), "lr", rows)
    if runs.doubt:
        return f"{table}{_caveat(runs)}"
    most = f"The stages allow at most **{runs.bound(cores).number} frames/s** on {cores} cores"
    return f"{table}\n\n{most}: {_limit(runs, cores)}"


def _stage_ms(runs: Runs) -> dict[str, list[float]]:
    """Milliseconds a frame of each stage, a number for each round."""
    rounds = runs.statistics["sequential"]
    return {stage.name: [run.stages[i].ms for run in rounds] for i, stage in enumerate(rounds[0].stages)}


def _limit(runs: Runs, cores: int) -> str:
    """What sets the bound, if it is larger in the rounds than everything else that could.

    A stage is compared with every other stage, and with what the cores take for a frame: all stages by the cores.
    """
    stages = _stage_ms(runs)
    share = [sum(ms) / cores for ms in zip(*stages.values(), strict=True)]
    limits = {**stages, "": share}
    largest = max(limits, key=lambda name: Median.of(limits[name]).estimate)
    for name, rounds in limits.items():
        if name != largest and not _ratio(limits[largest], rounds).low > 1:
            return "which stage sets this limit is not decided, since two of them are too close."
    if not largest:
        total = Median.of(sum(ms) for ms in zip(*stages.values(), strict=True))
        return f"the cores set this limit. All stages of a frame together take {total.ms} of a core's time."
    return f"the slowest stage, **{largest}**, sets this limit. Split it, or make it faster."


def _ratio(one: Sequence[float], other: Sequence[float]) -> Median:
    return Median.of(a / b for a, b in zip(one, other, strict=True))


def latency_table(runs: Runs) -> str:
    """How long one frame takes from read to labelled, and frames a second, in Markdown."""
    rows = [(name, runs.latency_ms(name).ms, runs.per_second(name).number) for name in runs.statistics]
    table = markdown_table(("approach", "half of the frames within", "frames/s"), "lrr", rows)
    return f"{table}{_caveat(runs)}"


def _caveat(runs: Runs) -> str:
    return f"\n\n**Not decided: {runs.doubt}.** These numbers decide nothing." if runs.doubt else ""


def about_line(runs: Runs, cores: int) -> str:
    """What the pipeline reached of its bound, and what longer queues do to the time of a frame."""
    if runs.doubt:
        return f"**Not decided: {runs.doubt}.** The numbers above were seen, and decide nothing. Measure again."
    return (
        f"{_reached(runs.reached('pipeline', cores))} From a file, frames come as fast as they are taken. So the "
        "queues are full, and a frame waits in each of them. With longer queues, `pipeline(capacity=8)`, half of the "
        f"frames are labelled within {runs.latency_ms('pipeline(capacity=8)').ms}; with short ones, `pipeline`, "
        f"within {runs.latency_ms('pipeline').ms}. The rates are {runs.per_second('pipeline(capacity=8)').number} and "
        f"{runs.per_second('pipeline').number} frames/s. (Rates and bound are of the same rounds: medians with their "
        "intervals.)"
    )


def _reached(share: Median) -> str:
    """A share above 100% is no success: the bound's own measurement was disturbed, or the rounds are too few."""
    if share.low > 1:
        return f"The pipeline seems to reach {share.percent} of its bound, **which cannot be**: measure again."
    if share.estimate > 1:
        return f"How much of its bound the pipeline reaches is **not decided**: {share.percent} was seen."
    return f"The pipeline reaches **{share.percent}** of what its stages allow."


def about_camera(shown: RunStatistics, rushed: RunStatistics) -> str:
    """What came of a camera's pace, and of a camera that is far too fast: one run each."""
    return (
        f"At 25 frames a second {shown.read} frames came; {shown.done} were labelled, {shown.dropped} dropped. Half of "
        f"the labels came within {shown.latency_ms(50):.0f} ms, 95% within {shown.latency_ms(95):.0f} ms.\n\n"
        f"At 1000 frames a second {rushed.read} came, {rushed.done} were labelled, {rushed.dropped} dropped, and half "
        f"of the labels came within {rushed.latency_ms(50):.0f} ms. (One run each: these numbers have no interval.)"
    )
