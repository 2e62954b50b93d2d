"""The part of a simulated GPU that runs what it was given: hardware queues, SMs and copy engines.

The rules are in :mod:`kit.scheduling.gpu_run`, by number.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.scheduling.gpu import SHARE, Copy, Gpu, Launch, Record, Wait

Blocks = NDArray[np.int64]  # on each SM, shape (sms,)


class Clock:
    """What happens when: acts in the order of their times, and of equal times in the order in which they were put."""

    def __init__(self) -> None:
        self.now = self._count = 0
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: int, act: Callable[..., None], *args: Any) -> None:
        """Call this at that time."""
        self._count += 1
        heapq.heappush(self._agenda, (time, self._count, act, args))

    def step(self) -> bool:
        """Go to the next time at which something happens, and do all of it; False if nothing is left."""
        if not self._agenda:
            return False
        self.now = self._agenda[0][0]
        while self._agenda and self._agenda[0][0] == self.now:
            _, _, act, args = heapq.heappop(self._agenda)
            act(*args)
        return True


@dataclass(eq=False, slots=True)
class Item:
    """What is in a stream: a kernel, a copy, or an event that is recorded or waited for."""

    what: Launch | Copy | Record | Wait
    stream: int
    arrives: int  # at its hardware queue
    gap: int  # from the end of what it waits for to its own start
    number: int  # among all uses of memory and items
    before: int  # bits of the numbers that are known to come before it
    call: int = -1  # among the calls; set when the call ends
    open: int = 0  # how many of those that it waits for have not ended
    ready: int = 0  # when what it waits for lets it begin
    followers: list[Item] = field(default_factory=list)
    left: int = -1
    start: int = -1
    end: int = -1
    block_ns: int = 0
    to_place: int = 0  # blocks
    running: int = 0  # blocks
    demand: Any = None  # of a block: (blocks, threads, share), those that are not 0


class Device:
    """The state of the GPU.

    Args:
        ended: is called with each item that ends.
    """

    def __init__(self, gpu: Gpu, clock: Clock, ended: Callable[[Item], None]) -> None:
        self.gpu, self.clock, self.ended = gpu, clock, ended
        self.queues: list[deque[Item]] = [deque() for _ in range(gpu.queues)]
        self.engine = deque[Item]()  # the execution engine's queue
        self.resident = 0  # kernels with blocks on SMs
        self.free = np.array([[gpu.blocks_per_sm], [gpu.threads_per_sm], [SHARE]]).repeat(gpu.sms, 1)
        self.copies: dict[str, deque[Item]] = {"device": deque(), "host": deque()}
        self.copying: dict[str, Item | None] = {"device": None, "host": None}
        self.waves: list[tuple[Item, int, Blocks]] = []  # with the time at which they begin

    def put(self, item: Item, queue: int, needs: list[Item]) -> None:
        """At the end of a hardware queue; it begins when these have ended."""
        for each in needs:
            if each.end < 0:
                each.followers.append(item)
                item.open += 1
            else:
                self.follow(item, each)
        if not item.open:
            self.clock.at(item.ready, _nothing)
        self.queues[queue].append(item)

    def follow(self, item: Item, ended: Item) -> None:
        gap = item.gap if isinstance(item.what, Launch | Copy) else 0
        item.ready = max(item.ready, ended.end + gap)

    def settle(self) -> None:
        """All that can leave a queue at this moment does so."""
        moved = True
        while moved:
            moved = False
            for queue in self.queues:
                while queue and not queue[0].open and queue[0].ready <= self.clock.now:
                    self.leave(queue.popleft())
                    moved = True
        self.place()
        for to, queue in self.copies.items():
            if queue and self.copying[to] is None:
                self.copy(to, queue.popleft())

    def leave(self, item: Item) -> None:
        item.left = self.clock.now
        match item.what:
            case Launch(blocks=blocks, block_ns=ns, threads=threads, share=share):
                item.to_place, item.block_ns = blocks, ns
                item.demand = np.array([1, threads, *([max(1, int(share * SHARE))] if share else [])])[:, None]
                self.engine.append(item)
            case Copy(to=to):
                self.copies[to].append(item)
            case _:
                item.start = self.clock.now
                self.end(item)

    def end(self, item: Item) -> None:
        """It has ended: what waits for it may begin, after its gap."""
        item.end = self.clock.now
        for each in item.followers:
            each.open -= 1
            self.follow(each, item)
            if not each.open:
                self.clock.at(each.ready, _nothing)
        self.ended(item)

    def place(self) -> None:
        """Place blocks of the kernel at the head, and of the next one when all of its blocks are placed."""
        while self.engine:
            item = self.engine[0]
            if item.start < 0 and self.resident == self.gpu.grids:
                return
            rows = len(item.demand)
            counts = spread((self.free[:rows] // item.demand).min(0), item.to_place)
            placed = int(counts.sum())
            if not placed:
                return
            if item.start < 0:
                item.start = self.clock.now
                self.resident += 1
            alone = self.resident == 1 and not item.running
            waves = max(1, (item.to_place - 1) // placed) if alone else 1  # before the last, nothing else has a turn
            self.free[:rows] -= counts * item.demand
            item.to_place -= placed * waves
            item.running += placed
            self.waves += [(item, self.clock.now + i * item.block_ns, counts) for i in range(waves)]
            self.clock.at(self.clock.now + waves * item.block_ns, self.blocks_end, item, counts, placed)
            if item.to_place:
                return
            self.engine.popleft()

    def blocks_end(self, item: Item, counts: Blocks, placed: int) -> None:
        self.free[: len(item.demand)] += counts * item.demand
        item.running -= placed
        if not item.running and not item.to_place:
            self.resident -= 1
            self.end(item)

    def copy(self, to: str, item: Item) -> None:
        assert isinstance(item.what, Copy)
        item.start, self.copying[to] = self.clock.now, item
        self.clock.at(self.clock.now + copy_ns(item.what, self.gpu), self.copy_ends, to, item)

    def copy_ends(self, to: str, item: Item) -> None:
        self.copying[to] = None
        self.end(item)


def spread(room: Blocks, blocks: int) -> Blocks:
    """So many blocks, one after the other, each on the SM with most room, the first of several; as many as fit.

    Args:
        room: for how many of them each SM has room, shape ``(sms,)``.
    """
    if blocks >= int(room.sum()):
        return room
    # above[i]: how many blocks bring all SMs down to the i-th level from the top
    above = np.cumsum(np.cumsum(np.bincount(room)[:0:-1]))
    level = len(above) - int(np.searchsorted(above, blocks))  # the last level that is begun
    counts = np.maximum(room - level, 0)
    rest = blocks - int(counts.sum())
    counts[np.flatnonzero(room >= level)[:rest]] += 1
    return counts


def copy_ns(copy: Copy, gpu: Gpu) -> int:
    """How long a copy engine takes for a copy; 1 GB/s is 1 byte a nanosecond."""
    return max(1, round(copy.bytes / (gpu.pinned_gbps if copy.pinned else gpu.pageable_gbps)))


def _nothing() -> None:
    """At this time something may leave its queue."""
