"""The workers of a Dask cluster, as an executor sees them: how it reaches them, asks them, and lets them go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from kit import spans
from kit.errors import KitError, TaskError, WorkerError, brief
from kit.executors.workers.clocks import EXCHANGES, OtherClock, Sample
from kit.executors.workers.keeper import Facts, Keeper
from kit.executors.workers.membership import host_names
from kit.executors.workers.messages import Reply
from kit.executors.workers.rank import error_of_task
from kit.executors.workers.shares import reply_of, write_spans
from kit.machine.load import also_own
from kit.spans import Span

FORGET_S = 10.0  # to forget shares


@dataclass(eq=False)
class DaskWorker:
    """A worker of the cluster, with an actor on it that keeps the shares of one executor."""

    lane: str  # "worker" and its name, as timelines show it
    host: str  # its address, and once it has answered its host's name, which no other host has
    address: str  # of Dask
    future: Any = field(repr=False, default=None)  # of Dask, for the actor
    actor: Any = field(repr=False, default=None)  # of Dask, for a Keeper
    same_clock: bool = False  # whether it is on this process's host, and so on its clock
    clock: OtherClock = field(repr=False, default_factory=OtherClock)
    has: set[int] = field(repr=False, default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.lane} on {self.host}"


class Answer(NamedTuple):
    """What a worker has answered, when it was asked, and when the answer came, on this clock."""

    value: Any
    sent_ns: int
    received_ns: int

    def results(self, worker: DaskWorker) -> list[Tensor] | TaskError:
        """Of ``run``: the packed results, or the error of a task. Writes the worker's spans into the log."""
        arrived, answered, packed_reply, pieces = self.value
        reply, offset = reply_of(packed_reply.data), 0
        if not worker.same_clock:
            worker.clock.add(Sample.of(self.sent_ns, arrived, answered, self.received_ns))
            offset = worker.clock.best(self.received_ns).offset_ns
        if reply.spans:  # else it was lost
            last = Span(*reply.spans[-1])._replace(category="transfer", cpu_ns=None)
            there = last._replace(
                name="inputs through Dask", start_ns=min(self.sent_ns + offset, arrived), end_ns=arrived
            )
            back = last._replace(
                name="results through Dask", start_ns=answered, end_ns=max(answered, self.received_ns + offset)
            )
            reply.spans.extend([tuple(there), tuple(back)])
        write_spans(worker, reply)
        try:
            reply.outcome(worker.name)
        except TaskError as error:
            return error_of_task(error) or error
        return [torch.from_numpy(piece) for piece in pieces]


class DaskWorkers:
    """The workers that one executor uses, by position. If one is lost, all are let go.

    Args:
        client: of Dask, connected.
        most: how many at most.
        least: how many there must be.
        timeout: seconds to reach them.

    Raises:
        KitError: there are fewer, or one lacks the kit, or has another version of what must be the same.
        WorkerError: one does not answer in time.
    """

    def __init__(self, client: Any, most: int, least: int, timeout: float) -> None:
        self._client, self.lost = client, ""  # why nothing can run there
        self._own = set[int]()  # pids of those on this machine
        known = client.scheduler_info(n_workers=-1)["workers"]
        if len(known) < least:
            address = client.scheduler.address
            raise KitError(
                f"the cluster at {address} has {len(known)} of the {least} workers that are needed: start more, as in "
                f"`dask worker {address}`."
            )
        chosen = sorted(known, key=lambda address: str(known[address]["name"]))[:most]
        with client.as_current():  # an actor belongs to the current client
            self.all = [
                DaskWorker(f"worker {known[address]['name']}", known[address]["host"], address) for address in chosen
            ]
            try:
                self._reach(timeout)
                self.facts = self._recognised(timeout)
            except BaseException:
                self.release("it could not be reached.")
                raise

    @property
    def size(self) -> int:
        return len(self.all)

    def check(self) -> None:
        """Raise a WorkerError if a worker was lost."""
        if self.lost:
            raise WorkerError(f"the workers of this approach were let go, so nothing can run there: {self.lost}")

    def release(self, why: str) -> None:
        """Let the actors go, and with them the weights, unless Dask has let them go with the client."""
        if not self.lost and self._client.status == "running":
            self._client.cancel([worker.future for worker in self.all])
        also_own.difference_update(self._own)
        self.lost = self.lost or why

    def load(self, key: int, pieces: Mapping[DaskWorker, bytearray], timeout: float) -> dict[DaskWorker, Reply]:
        """As :meth:`kit.executors.workers.shares.Places.load`."""
        arguments = {worker: (key, np.frombuffer(piece, np.uint8), worker.lane) for worker, piece in pieces.items()}
        answers = self.ask("keep", arguments, timeout, "its share of the model")
        return {worker: reply_of(answer.value.data) for worker, answer in answers.items()}

    def forget(self, keys: set[int]) -> None:
        """As :meth:`kit.executors.workers.shares.Places.forget`."""
        self.ask("forget", {worker: (keys,) for worker in self.all if keys & worker.has}, FORGET_S, "to forget a model")
        for worker in self.all:
            worker.has -= keys

    def compare_clocks(self, worker: DaskWorker, timeout: float) -> None:
        """Exchange some messages with a worker, if it is on another host."""
        for _ in range(0 if worker.same_clock else EXCHANGES):
            answer = self.ask("clock", {worker: ()}, timeout, "its clock")[worker]
            arrived, answered = answer.value
            worker.clock.add(Sample.of(answer.sent_ns, arrived, answered, answer.received_ns))

    def ask(
        self, method: str, arguments: Mapping[DaskWorker, tuple[Any, ...]], timeout: float, what: str
    ) -> dict[DaskWorker, Answer]:
        """Call a method of the keepers on these workers at the same time; the answer of each.

        Args:
            what: what they are asked for, for messages.

        Raises:
            WorkerError: one has ended, or does not answer in time. All workers are then let go.
        """
        found: dict[DaskWorker, Any] = self._client.sync(_answers, method, arguments, timeout)
        for worker, answer in found.items():
            if isinstance(answer, Exception):
                self.lose(
                    f"{worker.name} has ended, or its connection is lost, while it was asked for {what} "
                    f"({brief(answer)})."
                )
        if late := [worker.name for worker in arguments if worker not in found]:
            self.lose(
                f"no answer within {timeout:.2g} s from {', '.join(late)}, asked for {what}. Allow more time, as in "
                "cluster(timeout=300), or look at the link between the hosts, or for a deadlock."
            )
        return found

    def lose(self, why: str) -> NoReturn:
        """Let all workers go, and raise a WorkerError with the reason."""
        self.release(why)
        raise WorkerError(f"{why} The workers of this approach are let go: prepare it again.")

    def _reach(self, timeout: float) -> None:
        """Make the actors, after an import: a worker that lacks the kit would give no answer to what it cannot load."""
        deadline = time.monotonic() + timeout
        for call, actor in (((import_module, Keeper.__module__), False), ((Keeper,), True)):
            for worker in self.all:
                worker.future = self._client.submit(*call, workers=[worker.address], actor=actor, pure=False)
            for worker in self.all:
                try:
                    error = worker.future.exception(timeout=max(0.01, deadline - time.monotonic()))
                except TimeoutError:
                    self.lose(f"no answer within {timeout:.2g} s from {worker.name}, asked to import the kit.")
                if error is not None:
                    raise KitError(
                        f"{worker.name} cannot run branches: {brief(error)}. Install this version of the kit there, "
                        "and for the scheduler, and start both again."
                    ) from error
        for worker in self.all:
            worker.actor = worker.future.result()

    def _recognised(self, timeout: float) -> list[Facts]:
        """The facts of each worker, whose host is now known by its name."""
        answers = self.ask("facts", dict.fromkeys(self.all, ()), timeout, "its versions")
        here, facts = Facts.here(), [Facts(*answers[worker].value) for worker in self.all]
        names = host_names([(each.host, each.boot) for each in (here, *facts)])[1:]
        self._own = {each.process for each in facts if each.boot == here.boot}
        also_own.update(self._own)
        for worker, of, host in zip(self.all, facts, names, strict=True):
            worker.host, worker.same_clock = host, (of.host, of.boot) == (here.host, here.boot)
            for what, version in here.versions.items():
                if of.versions.get(what) != version:
                    raise KitError(
                        f"{worker.name} has {what} {of.versions.get(what)}, but this process has {what} {version}: "
                        "install the same there, and start the worker again."
                    )
        return facts


async def _answers(
    method: str, arguments: Mapping[DaskWorker, tuple[Any, ...]], timeout: float
) -> dict[DaskWorker, Answer | Exception]:
    """What each worker has answered, or its error; without those that have not answered in time.

    An error ends the waiting: nobody needs the other answers then.
    """
    asked = {asyncio.ensure_future(_answer(worker, method, each)): worker for worker, each in arguments.items()}
    if asked:
        _, late = await asyncio.wait(asked, timeout=timeout, return_when=asyncio.FIRST_EXCEPTION)
        for each in late:
            each.cancel()
    return {worker: _outcome(each) for each, worker in asked.items() if each.done()}


async def _answer(worker: DaskWorker, method: str, arguments: tuple[Any, ...]) -> Answer:
    sent = spans.clock()
    value = await getattr(worker.actor, method)(*arguments)
    return Answer(value, sent, spans.clock())


def _outcome(task: asyncio.Task[Answer]) -> Answer | Exception:
    error = task.exception()
    return error if isinstance(error, Exception) else task.result()
