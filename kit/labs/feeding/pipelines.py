"""Notebook 08: the runs of a pipeline, what its stages allow, and what it reached of that."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from kit.approaches import Workload
from kit.executors.thread_counts import intra_op_threads
from kit.machine import load
from kit.measuring.gate import BUSY
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
        """Why these runs decide nothing; nothing where they may be believed."""
        return f"machine busy: {self.taken}" if self.taken and self.taken.share > BUSY else ""

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
    rounds = runs.statistics["sequential"]
    times = {stage.name: Median.of(run.stages[i].ms for run in rounds) for i, stage in enumerate(rounds[0].stages)}
    slowest = max(times, key=lambda name: times[name].estimate)
    rows = [(f"{name} (the slowest)" if name == slowest else name, ms.ms) for name, ms in times.items()]
    return f"{markdown_table(('stage', 'a frame'), 'lr', rows)}\n\n{_limit(runs, times, slowest, cores)}"


def _limit(runs: Runs, times: Mapping[str, Median], slowest: str, cores: int) -> str:
    total = sum(ms.estimate for ms in times.values())
    most = f"So the stages allow at most **{runs.bound(cores).number} frames/s** on {cores} cores: "
    if total / cores > times[slowest].estimate:
        return f"{most}all of them together take {total:.3g} ms a frame, and no stage takes more than a core's share."
    return f"{most}the stage **{slowest}** limits it. Split it, or make it faster."


def latency_table(runs: Runs) -> str:
    """How long one frame takes from read to labelled, and frames a second, in Markdown."""
    rows = [(name, runs.latency_ms(name).ms, runs.per_second(name).number) for name in runs.statistics]
    return markdown_table(("approach", "half of the frames within", "frames/s"), "lrr", rows)


def about_line(runs: Runs, cores: int) -> str:
    """What the pipeline reached of its bound, and what longer queues do to the time of a frame."""
    if runs.doubt:
        return f"**Not decided: {runs.doubt}.** The numbers above were seen, and decide nothing. Measure again."
    share = runs.reached("pipeline", cores)
    said = f"The pipeline reaches **{share.percent}** of what its stages allow."
    if share.low > 1:
        said = f"The pipeline seems to reach {share.percent} of its bound, **which cannot be**: measure again."
    return (
        f"{said} From a file, frames come as fast as they are taken, so the queues are full, and a frame waits in each "
        f"of them: longer queues give {runs.per_second('pipeline(capacity=8)').number} frames/s, and half of the "
        f"frames are labelled within {runs.latency_ms('pipeline(capacity=8)').ms}, instead of "
        f"{runs.latency_ms('pipeline').ms}. (Rates and bound are of the same rounds: medians with their intervals.)"
    )


def about_camera(shown: RunStatistics, rushed: RunStatistics) -> str:
    """What came of a camera's pace, and of a camera that is far too fast: one run each."""
    return (
        f"At 25 frames a second {shown.read} frames came; {shown.done} were labelled, {shown.dropped} dropped. Half of "
        f"the labels came within {shown.latency_ms(50):.0f} ms, 95% within {shown.latency_ms(95):.0f} ms.\n\n"
        f"At 1000 frames a second {rushed.read} came, {rushed.done} were labelled, {rushed.dropped} dropped, and half "
        f"of the labels came within {rushed.latency_ms(50):.0f} ms. (One run each: these numbers have no interval.)"
    )
