"""Simulates host threads and a GPU, event by event, in integer nanoseconds. The rules, each with its source:

1. A thread makes its calls one after the other. A call costs host time, and holds the GIL for a share of it, at its
   beginning; threads get the GIL in the order in which they ask. (CPython; the switch interval plays no part, because
   no call computes in Python for 5 ms.)
2. What is launched reaches the GPU ``start_ns`` after the beginning of its call (recordings). It is put at the end of
   the hardware queue of its stream; streams are dealt to the queues in the order of their first use. (CUDA C++
   Programming Guide, ``CUDA_DEVICE_MAX_CONNECTIONS``.)
3. The head of a hardware queue leaves it when everything before it in its own stream has ended; what is behind waits,
   also if it is of another stream. (Rennich, *CUDA C/C++ Streams and Concurrency*, NVIDIA 2011; with a queue for each
   stream this is rule G2 of Amert, Otterness, Yang, Anderson & Smith, *GPU Scheduling on the NVIDIA TX2: Hidden Details
   Revealed*, RTSS 2017.)
4. A kernel that leaves its queue goes to the end of the execution-engine queue. Only blocks of the kernel at the head
   may be placed, each on an SM that has room for it: blocks, threads, and share. The kernel leaves when its last block
   is placed. (Amert et al., rules G2, G3, X1, X2, R1 and R2.) A block goes to the SM that has most room, and is never
   interrupted. At most ``grids`` kernels run at the same time. (CUDA C++ Programming Guide.)
5. A kernel has ended when all its blocks have. (Rule G4.)
6. Each direction has a copy engine, which makes one copy at a time, in the order in which copies leave their queues.
   (Rules C1 to C4, with an engine for each direction: CUDA C++ Programming Guide, ``asyncEngineCount``.)
7. A call that copies pinned memory returns at once. One that copies pageable memory returns when the copy has ended.
   (CUDA Runtime API, API synchronization behavior; there small copies to the device may return earlier.)
8. An event happens when what was before it in its stream has ended; a wait holds up its stream until then. (CUDA
   Runtime API, event management.)
9. If streams are blocking, what is put into the default stream waits for all that is in other streams, and the other
   way round. (CUDA Runtime API, stream synchronization behavior; rules N1 and N2.) PyTorch's streams are not.
10. A captured graph is one launch: ``graph_ns`` and ``node_ns`` for each kernel or copy, one after the other. Its
    streams keep their order. (Recordings.)

What is left out: kernels that run at the same time do not slow each other down by memory, caches or clocks; priorities;
the limit of launches that wait. So times of many streams are a lower bound.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.errors import KitError
from kit.reprs import one_line
from kit.scheduling.gpu import (
    DEFAULT,
    SHARE,
    Await,
    Call,
    Copy,
    Gpu,
    Launch,
    LaunchGraph,
    Record,
    Signal,
    Synchronize,
    Wait,
    Work,
    check,
)

Blocks = NDArray[np.int64]  # on each SM, shape (sms,)


@one_line
class Called(NamedTuple):
    """A call as a thread made it; while it waited for the GIL or for a flag it had not begun."""

    thread: str
    call: Call
    start_ns: int
    end_ns: int


@one_line
class Ran(NamedTuple):
    """A kernel or a copy as the GPU ran it."""

    call: int  # index into the calls: of its launch, or of the graph's
    what: Launch | Copy
    queue: int  # hardware queue
    arrived_ns: int  # at its hardware queue
    left_ns: int  # its hardware queue, for the queue of its engine
    start_ns: int
    end_ns: int


@one_line
class Wave(NamedTuple):
    """Blocks of one kernel that began at the same time."""

    ran: int  # index into what ran
    start_ns: int
    end_ns: int
    blocks: Blocks


@one_line
class Race(NamedTuple):
    """Two uses of the same memory, at least one of which writes, without an order between them."""

    memory: str
    first: str  # as the program was launched
    second: str

    def __str__(self) -> str:
        return f"nothing orders {self.first} and {self.second}, which use {self.memory}: the result is left to chance"


@one_line
class Run(NamedTuple):
    """What a simulation did."""

    calls: list[Called]  # in the order in which they ended
    ran: list[Ran]  # in the order in which it was launched
    waves: list[Wave]
    races: list[Race]


def run(programs: Mapping[str, Sequence[Call]], gpu: Gpu) -> Run:
    """Simulate threads (name -> calls) and a GPU; the same programs give the same run.

    Raises:
        KitError: a call that means nothing, or threads that wait for each other.
    """
    given = {thread: tuple(calls) for thread, calls in programs.items()}
    check(given, gpu)
    return _Machine(given, gpu).run()


@dataclass(eq=False, slots=True)
class _Item:
    """What is in a stream: a kernel, a copy, or an event that is recorded or waited for."""

    what: Launch | Copy | Record | Wait
    stream: int
    arrives: int  # at its hardware queue
    gap: int  # from the end of what it waits for to its own start
    number: int  # among all uses of memory and items
    before: int  # bits of the numbers that are known to come before it
    call: int = -1  # among the calls
    open: int = 0  # how many of those that it waits for have not ended
    ready: int = 0  # when what it waits for lets it begin
    followers: list[_Item] = field(default_factory=list)
    threads: list[_Thread] = field(default_factory=list)  # that wait for it
    left: int = -1
    start: int = -1
    end: int = -1
    block_ns: int = 0
    to_place: int = 0  # blocks
    running: int = 0  # blocks
    demand: Any = None  # of a block: (blocks, threads, share), those that are not 0


@dataclass(eq=False, slots=True)
class _Thread:
    name: str
    calls: tuple[Call, ...]
    at: int = 0
    began: int = 0
    waits: int = 0  # for so many items
    knows: int = 0  # bits of what has ended, as far as this thread has made sure
    launched: list[_Item] = field(default_factory=list)  # by the call that it makes now


class _Machine:
    """The state of the simulation: host threads, queues, SMs and copy engines."""

    def __init__(self, programs: Mapping[str, tuple[Call, ...]], gpu: Gpu) -> None:
        self.gpu = gpu
        self.now = self.count = self.numbers = 0
        self.agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.threads = [_Thread(name, calls) for name, calls in programs.items()]
        self.gil_free, self.gil_queue = True, deque[_Thread]()
        self.flags: dict[str, int] = {}  # set -> what the thread knew that set it
        self.awaiting: dict[str, list[_Thread]] = defaultdict(list)
        self.last: dict[int, _Item] = {}  # of each stream
        self.events: dict[str, _Item] = {}
        self.queue_of: dict[int, int] = {}
        self.queues: list[deque[_Item]] = [deque() for _ in range(gpu.queues)]
        self.engine = deque[_Item]()  # the execution engine's queue
        self.resident = 0  # kernels with blocks on SMs
        self.free = np.array([[gpu.blocks_per_sm], [gpu.threads_per_sm], [SHARE]]).repeat(gpu.sms, 1)
        self.copies: dict[str, deque[_Item]] = {"device": deque(), "host": deque()}
        self.copying: dict[str, _Item | None] = {"device": None, "host": None}
        self.calls: list[Called] = []
        self.items: list[_Item] = []
        self.waves: list[tuple[_Item, int, Blocks]] = []
        self.uses: list[tuple[int, int, Work | Launch | Copy]] = []  # number, what is before it, and what it is

    def run(self) -> Run:
        for thread in self.threads:
            self.at(0, self.next_call, thread)
        while self.agenda:
            self.now = self.agenda[0][0]
            while self.agenda and self.agenda[0][0] == self.now:
                _, _, act, args = heapq.heappop(self.agenda)
                act(*args)
            self.settle()
        for thread in self.threads:
            if thread.at < len(thread.calls):
                raise KitError(f"{thread.name} waits for ever in {thread.calls[thread.at]}: nothing will end the wait.")
        place = {id(item): i for i, item in enumerate(self.items)}
        ran = [
            Ran(i.call, i.what, self.queue_of[i.stream], i.arrives, i.left, i.start, i.end)
            for i in self.items
            if isinstance(i.what, Launch | Copy)
        ]
        waves = [Wave(place[id(item)], start, start + item.block_ns, counts) for item, start, counts in self.waves]
        return Run(self.calls, ran, waves, self.races())

    def at(self, time: int, act: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heapq.heappush(self.agenda, (time, self.count, act, args))

    # Host threads -----------------------------------------------------------------------------------------------------

    def next_call(self, thread: _Thread) -> None:
        if thread.at == len(thread.calls):
            return
        call = thread.calls[thread.at]
        if isinstance(call, Await) and call.flag not in self.flags:
            self.awaiting[call.flag].append(thread)
        elif not self.held(call):
            self.begin(thread)
        elif self.gil_free:
            self.gil_free = False
            self.begin(thread)
        else:
            self.gil_queue.append(thread)

    def cost(self, call: Call) -> int:
        """Host time of a call, without what it waits for."""
        gpu = self.gpu
        match call:
            case Work():
                return call.ns
            case Launch():
                return gpu.launch_ns
            case Copy():
                return gpu.copy_ns
            case Record() | Wait():
                return gpu.event_ns
            case LaunchGraph():
                return gpu.graph_ns + gpu.node_ns * sum(isinstance(each, Launch | Copy) for each in call.calls)
            case _:
                return 0

    def held(self, call: Call) -> int:
        """The part of it in which the thread holds the GIL."""
        share = call.gil if isinstance(call, Work) and call.gil is not None else self.gpu.gil_share
        return round(self.cost(call) * share)

    def begin(self, thread: _Thread) -> None:
        thread.began = self.now
        call = thread.calls[thread.at]
        if held := self.held(call):
            self.at(self.now + held, self.release)
        if isinstance(call, LaunchGraph):
            self.submit_graph(thread, call)
        self.at(self.now + self.cost(call), self.act, thread, call)

    def release(self) -> None:
        if self.gil_queue:
            self.begin(self.gil_queue.popleft())
        else:
            self.gil_free = True

    def act(self, thread: _Thread, call: Call) -> None:
        """The host part of a call is over."""
        lag = self.gpu.start_ns - self.gpu.launch_ns
        match call:
            case Launch() | Record() | Wait():
                self.submit(thread, call, self.now + lag, self.gpu.gap_ns)
            case Copy():
                item = self.submit(thread, call, self.now + lag, self.gpu.gap_ns)
                if not call.pinned:
                    return self.wait_for(thread, [item], 0)
            case Synchronize(event=str(event)):
                return self.wait_for(thread, [self.events[event]] if event in self.events else [], self.gpu.sync_ns)
            case Synchronize(stream=stream):
                streams = self.last if stream is None else [stream]
                items = [self.last[each] for each in streams if each in self.last]
                return self.wait_for(thread, items, self.gpu.sync_ns)
            case Signal(flag=flag):
                self.flags[flag] = thread.knows
                for other in self.awaiting.pop(flag, []):
                    self.at(self.now + self.gpu.wake_ns, self.next_call, other)
            case Await(flag=flag):
                thread.knows |= self.flags[flag]
            case Work() if call.reads or call.writes:
                self.uses.append((self.numbers, thread.knows, call))
                thread.knows |= 1 << self.numbers
                self.numbers += 1
        self.finish(thread)

    def finish(self, thread: _Thread) -> None:
        for item in thread.launched:
            item.call = len(self.calls)
        thread.launched = []
        self.calls.append(Called(thread.name, thread.calls[thread.at], thread.began, self.now))
        thread.at += 1
        self.next_call(thread)

    def wait_for(self, thread: _Thread, items: Sequence[_Item], returns_ns: int) -> None:
        """The thread goes on when these have ended, and the call has returned."""
        for item in items:
            thread.knows |= item.before | 1 << item.number
            if item.end < 0:
                item.threads.append(thread)
                thread.waits += 1
        if not thread.waits:
            self.at(self.now + returns_ns, self.finish, thread)

    # Streams and hardware queues --------------------------------------------------------------------------------------

    def submit_graph(self, thread: _Thread, graph: LaunchGraph) -> None:
        """Nodes reach the GPU one after the other, while the call still goes on."""
        gpu, outside = self.gpu, self.events
        arrives = self.now + gpu.graph_ns + gpu.start_ns - gpu.launch_ns
        self.events = {}  # those of a capture are the graph's own
        for call in graph.calls:
            arrives += gpu.node_ns if isinstance(call, Launch | Copy) else 0
            self.submit(thread, call, arrives, gpu.node_gap_ns)
        self.events = outside

    def submit(self, thread: _Thread, call: Launch | Copy | Record | Wait, arrives: int, gap: int) -> _Item:
        needs = [self.last[call.stream]] if call.stream in self.last else []
        if isinstance(call, Wait) and call.event in self.events:
            needs.append(self.events[call.event])
        if self.gpu.blocking_streams:
            needs += [item for stream, item in self.last.items() if DEFAULT in (stream, call.stream)]
        before = thread.knows
        for each in needs:
            before |= each.before | 1 << each.number
        item = _Item(call, call.stream, arrives, gap, self.numbers, before, ready=arrives)
        self.numbers += 1
        thread.launched.append(item)
        for each in needs:
            if each.end < 0:
                each.followers.append(item)
                item.open += 1
            else:
                self.follow(item, each)
        if not item.open:
            self.at(item.ready, _nothing)
        self.last[call.stream] = item
        queue = self.queue_of.setdefault(call.stream, len(self.queue_of) % self.gpu.queues)
        self.queues[queue].append(item)
        if isinstance(call, Record):
            self.events[call.event] = item
        if isinstance(call, Launch | Copy):
            self.items.append(item)
            if call.reads or call.writes:
                self.uses.append((item.number, before, call))
        return item

    def follow(self, item: _Item, ended: _Item) -> None:
        gap = item.gap if isinstance(item.what, Launch | Copy) else 0
        item.ready = max(item.ready, ended.end + gap)

    def settle(self) -> None:
        """All that can leave a queue at this moment does so."""
        moved = True
        while moved:
            moved = False
            for queue in self.queues:
                while queue and not queue[0].open and queue[0].ready <= self.now:
                    self.leave(queue.popleft())
                    moved = True
        self.place()
        for to, queue in self.copies.items():
            if queue and self.copying[to] is None:
                self.copy(to, queue.popleft())

    def leave(self, item: _Item) -> None:
        item.left = self.now
        match item.what:
            case Launch(blocks=blocks, block_ns=ns, threads=threads, share=share):
                item.to_place, item.block_ns = blocks, ns
                item.demand = np.array([1, threads, *([max(1, int(share * SHARE))] if share else [])])[:, None]
                self.engine.append(item)
            case Copy(to=to):
                self.copies[to].append(item)
            case _:
                item.start = self.now
                self.ended(item)

    def ended(self, item: _Item) -> None:
        item.end = self.now
        for each in item.followers:
            each.open -= 1
            self.follow(each, item)
            if not each.open:
                self.at(each.ready, _nothing)
        for thread in item.threads:
            thread.waits -= 1
            if not thread.waits:
                returns = self.gpu.sync_ns if isinstance(thread.calls[thread.at], Synchronize) else 0
                self.at(self.now + returns, self.finish, thread)

    # Engines ----------------------------------------------------------------------------------------------------------

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
                item.start = self.now
                self.resident += 1
            alone = self.resident == 1 and not item.running
            waves = max(1, (item.to_place - 1) // placed) if alone else 1  # before the last, nothing else has a turn
            self.free[:rows] -= counts * item.demand
            item.to_place -= placed * waves
            item.running += placed
            self.waves += [(item, self.now + i * item.block_ns, counts) for i in range(waves)]
            self.at(self.now + waves * item.block_ns, self.blocks_end, item, counts, placed)
            if item.to_place:
                return
            self.engine.popleft()

    def blocks_end(self, item: _Item, counts: Blocks, placed: int) -> None:
        self.free[: len(item.demand)] += counts * item.demand
        item.running -= placed
        if not item.running and not item.to_place:
            self.resident -= 1
            self.ended(item)

    def copy(self, to: str, item: _Item) -> None:
        assert isinstance(item.what, Copy)
        item.start, self.copying[to] = self.now, item
        self.at(self.now + copy_ns(item.what, self.gpu), self.copy_ends, to, item)

    def copy_ends(self, to: str, item: _Item) -> None:
        self.copying[to] = None
        self.ended(item)

    def races(self) -> list[Race]:
        """Uses of the same memory that nothing orders: no stream, no event, and no wait of a thread."""
        by_memory: dict[str, list[tuple[int, int, str, bool]]] = defaultdict(list)
        for number, before, what in self.uses:
            for memory in {*what.reads, *what.writes}:
                by_memory[memory].append((number, before, name_of(what), memory in what.writes))
        return [
            Race(memory, first, second)
            for memory, uses in by_memory.items()
            for i, (number, known, first, writes) in enumerate(uses)
            for other, before, second, writes_too in uses[i + 1 :]
            if (writes or writes_too) and not before >> number & 1 and not known >> other & 1
        ]


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


def name_of(what: Work | Launch | Copy) -> str:
    """As recordings name it; of a copy, its direction and memory."""
    if not isinstance(what, Copy):
        return what.name
    host = "Pinned" if what.pinned else "Pageable"
    return f"Memcpy HtoD ({host} -> Device)" if what.to == "device" else f"Memcpy DtoH (Device -> {host})"


def _nothing() -> None:
    """At this time something may leave its queue."""
