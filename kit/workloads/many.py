"""Many items through one network: a branch for each, so that any executor runs them, and ways that are none."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from kit import approaches
from kit.approaches import REGISTRY, read_options, split_names
from kit.errors import UnknownNameError
from kit.executors import Executor, Task
from kit.executors.processes import Processes
from kit.hardware import detect
from kit.measuring.candidates import Entrant, contest
from kit.measuring.comparison import Comparison
from kit.measuring.rounds import ROUNDS
from kit.recording import record_call
from kit.regions import Branches
from kit.reprs import one_line
from kit.spans import span
from kit.trace import Trace, stack

BASELINE = "sequential"
Way = Callable[..., Any]  # (cores, **options) -> a runner; its keywords are the way's options, whole numbers


@one_line
@dataclass(frozen=True, eq=False)
class Many:
    """A workload of many items, and the ways to get through them."""

    name: str
    inputs: tuple[Tensor, ...]  # the arguments of a call
    items: int  # in a call
    unit: str  # what they are, as in "images"
    about: str  # what one of them is, for people
    ways: Mapping[str, Way]  # name -> how to prepare it
    model: Branches | None = None  # a branch for each item, which the catalogue's approaches run as well

    def prepare(self, name: str) -> Any:
        """A runner for one way, by its name and options, as in ``threads(workers=2)`` or ``batch``.

        Raises:
            UnknownNameError: no such way, or none of its options.
            UnavailableError: the machine cannot do this.
        """
        return self._entrant(name).prepare()

    def _entrant(self, name: str) -> Entrant:
        """How to prepare a way, and about how long that takes."""
        kind, _, options = name.strip().removesuffix(")").partition("(")
        if kind in self.ways:
            way = self.ways[kind]
            parameters = inspect.signature(way).parameters.values()
            known = {each.name: int for each in parameters if each.kind is each.KEYWORD_ONLY}
            prepare = partial(way, detect().cores, **read_options(kind, options, known, least=0))
            return Entrant(name, prepare, _is_baseline(name))
        if kind not in REGISTRY or self.model is None:
            names = [*self.ways, *(REGISTRY if self.model else ())]
            raise UnknownNameError(f"way through {self.name}", kind, names, set(names) & set(approaches.meant(kind)))
        approach = approaches.parse(name)
        prepare, seconds = partial(approach.prepare, self.model, self.inputs), partial(approach.seconds, self.model)
        return Entrant(name, prepare, _is_baseline(name), seconds=seconds)

    def compare(
        self,
        names: str | Sequence[str],
        *,
        rounds: int = ROUNDS,
        budget: float | None = None,
        width: float | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Comparison:
        """Measure ways side by side on the same items, as :func:`kit.compare` measures approaches.

        ``all`` stands for its own ways, and threads and processes where its items are branches. The first
        ``sequential`` leads, with its options; it is added where there is none. A way that this machine
        cannot do, or that raises, keeps its row.

        Raises:
            UnknownNameError: no such way, or none of its options.
            KitError: no name at all, or an item raised in the baseline.
            MeasureError: fewer than 6 rounds, or a budget too small for one of the baseline.
        """
        chosen = list(dict.fromkeys(split_names(names)))
        if chosen == ["all"]:
            chosen = [*self.ways, *(("threads", "processes") if self.model else ())]
        if not any(map(_is_baseline, chosen)):
            chosen.insert(0, BASELINE)
        comparison = contest(
            [self._entrant(name) for name in chosen],
            self.inputs,
            f"{self.items} {self.unit} of {self.about}",
            rounds=rounds,
            budget=budget,
            width=width,
            seed=seed,
            progress=progress,
            alone=(lambda threads: self.prepare(f"{BASELINE}(threads={threads})")) if self.model else None,
        )
        return replace(comparison, items=self.items, unit=self.unit)

    def record(self, name: str, *, first: bool = False) -> Trace:
        """One call of a way as a trace of spans; ``first`` records the very first one, start-up included."""
        with self.prepare(name) as runner:
            trace = record_call(
                runner,
                self.inputs,
                intra_op_threads=runner.intra_op_threads,
                warm=not (first or runner.cold),
                operators=False,
            )
        return stack({name: trace})


def _is_baseline(name: str) -> bool:
    return name.partition("(")[0].strip() == BASELINE


def match_opencv_threads() -> None:
    """Give OpenCV as many threads as PyTorch has here. It has one number for the whole process, and keeps its pool."""
    import cv2

    if cv2.getNumThreads() != torch.get_num_threads():
        with _one_at_a_time:
            cv2.setNumThreads(torch.get_num_threads())


_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class ColdPool(Executor):
    """A pool of processes that is made and ended in every call, as in ``with Pool(4) as pool: pool.map(...)``."""

    cold: ClassVar[bool] = True
    workers: int
    intra_op_threads: int

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`kit.executors.processes.Processes.run`."""
        pool = Processes(self.workers, self.intra_op_threads)
        try:
            return pool.run(tasks)
        finally:
            with span("end", "startup"):
                pool.close()


def pool_cold(model: Branches, cores: int, *, workers: int | None = None, threads: int | None = None) -> Runner:
    """The branches on a pool that every call starts and ends."""
    return Runner(model, ColdPool(workers or cores, threads or cores), cores, cold=True)
