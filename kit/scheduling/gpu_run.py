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

What is left out: kernels that run at the same time do not slow each other down by memory, caches or clocks; calls of
several threads do not wait for each other in the driver; priorities; the limit of launches that wait. So the times of
many streams and of many threads are lower bounds.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kit.errors import KitError
from kit.reprs import one_line
from kit.scheduling.gpu import (
    DEFAULT,
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
from kit.scheduling.gpu_engines import Blocks, Clock, Device, Item


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
    return _Host(given, gpu).run()


@dataclass(eq=False, slots=True)
class _Thread:
    name: str
    calls: tuple[Call, ...]
    at: int = 0
    began: int = 0
    waits: int = 0  # for so many items
    knows: int = 0  # bits of what has ended, as far as this thread has made sure
    launched: list[Item] = field(default_factory=list)  # by the call that it makes now


class _Host:
    """Host threads, the GIL, and the streams that they fill."""

    def __init__(self, programs: Mapping[str, tuple[Call, ...]], gpu: Gpu) -> None:
        self.gpu = gpu
        self.clock = Clock()
        self.device = Device(gpu, self.clock, self.wake)
        self.threads = [_Thread(name, calls) for name, calls in programs.items()]
        self.gil_free, self.gil_queue = True, deque[_Thread]()
        self.flags: dict[str, int] = {}  # set -> what the thread knew that set it
        self.awaiting: dict[str, list[_Thread]] = defaultdict(list)
        self.waiting: dict[int, list[_Thread]] = defaultdict(list)  # number of an item -> threads
        self.last: dict[int, Item] = {}  # of each stream
        self.events: dict[str, Item] = {}
        self.queue_of: dict[int, int] = {}  # stream -> hardware queue
        self.numbers = 0
        self.calls: list[Called] = []
        self.items: list[Item] = []  # kernels and copies
        self.uses: list[tuple[int, int, Work | Launch | Copy]] = []  # number, what is before it, and what it is

    def run(self) -> Run:
        for thread in self.threads:
            self.clock.at(0, self.next_call, thread)
        while self.clock.step():
            self.device.settle()
        for thread in self.threads:
            if thread.at < len(thread.calls):
                raise KitError(f"{thread.name} waits for ever in {thread.calls[thread.at]}: nothing will end the wait.")
        ran = [
            Ran(i.call, i.what, self.queue_of[i.stream], i.arrives, i.left, i.start, i.end)
            for i in self.items
            if isinstance(i.what, Launch | Copy)
        ]
        place = {item.number: i for i, item in enumerate(self.items)}
        waves = [
            Wave(place[item.number], start, start + item.block_ns, counts) for item, start, counts in self.device.waves
        ]
        return Run(self.calls, ran, waves, races(self.uses))

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
        thread.began = self.clock.now
        call = thread.calls[thread.at]
        if held := self.held(call):
            self.clock.at(self.clock.now + held, self.release)
        if isinstance(call, LaunchGraph):
            self.submit_graph(thread, call)
        self.clock.at(self.clock.now + self.cost(call), self.act, thread, call)

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
                self.submit(thread, call, self.clock.now + lag, self.gpu.gap_ns)
            case Copy():
                item = self.submit(thread, call, self.clock.now + lag, self.gpu.gap_ns)
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
                    self.clock.at(self.clock.now + self.gpu.wake_ns, self.next_call, other)
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
        self.calls.append(Called(thread.name, thread.calls[thread.at], thread.began, self.clock.now))
        thread.at += 1
        self.next_call(thread)

    def wait_for(self, thread: _Thread, items: Sequence[Item], returns_ns: int) -> None:
        """The thread goes on when these have ended, and the call has returned."""
        for item in items:
            thread.knows |= item.before | 1 << item.number
            if item.end < 0:
                self.waiting[item.number].append(thread)
                thread.waits += 1
        if not thread.waits:
            self.clock.at(self.clock.now + returns_ns, self.finish, thread)

    def wake(self, item: Item) -> None:
        """It has ended: threads that waited for nothing else go on."""
        for thread in self.waiting.pop(item.number, []):
            thread.waits -= 1
            if not thread.waits:
                returns = self.gpu.sync_ns if isinstance(thread.calls[thread.at], Synchronize) else 0
                self.clock.at(self.clock.now + returns, self.finish, thread)

    def submit_graph(self, thread: _Thread, graph: LaunchGraph) -> None:
        """Nodes reach the GPU one after the other, while the call still goes on."""
        gpu, outside = self.gpu, self.events
        arrives = self.clock.now + gpu.graph_ns + gpu.start_ns - gpu.launch_ns
        self.events = {}  # those of a capture are the graph's own
        for call in graph.calls:
            arrives += gpu.node_ns if isinstance(call, Launch | Copy) else 0
            self.submit(thread, call, arrives, gpu.node_gap_ns)
        self.events = outside

    def submit(self, thread: _Thread, call: Launch | Copy | Record | Wait, arrives: int, gap: int) -> Item:
        needs = [self.last[call.stream]] if call.stream in self.last else []
        if isinstance(call, Wait) and call.event in self.events:
            needs.append(self.events[call.event])
        if self.gpu.blocking_streams:
            needs += [item for stream, item in self.last.items() if DEFAULT in (stream, call.stream)]
        before = thread.knows
        for each in needs:
            before |= each.before | 1 << each.number
        item = Item(call, call.stream, arrives, gap, self.numbers, before, ready=arrives)
        self.numbers += 1
        thread.launched.append(item)
        self.last[call.stream] = item
        queue = self.queue_of.setdefault(call.stream, len(self.queue_of) % self.gpu.queues)
        self.device.put(item, queue, needs)
        if isinstance(call, Record):
            self.events[call.event] = item
        if isinstance(call, Launch | Copy):
            self.items.append(item)
            if call.reads or call.writes:
                self.uses.append((item.number, before, call))
        return item


def races(all_uses: Sequence[tuple[int, int, Work | Launch | Copy]]) -> list[Race]:
    """Uses of the same memory that nothing orders: no stream, no event, and no wait of a thread."""
    by_memory: dict[str, list[tuple[int, int, str, bool]]] = defaultdict(list)
    for number, before, what in all_uses:
        for memory in {*what.reads, *what.writes}:
            by_memory[memory].append((number, before, name_of(what), memory in what.writes))
    return [
        Race(memory, first, second)
        for memory, uses in sorted(by_memory.items())
        for i, (number, known, first, writes) in enumerate(uses)
        for other, before, second, writes_too in uses[i + 1 :]
        if (writes or writes_too) and not before >> number & 1 and not known >> other & 1
    ]


def name_of(what: Work | Launch | Copy) -> str:
    """As recordings name it; of a copy, its direction and memory."""
    if not isinstance(what, Copy):
        return what.name
    host = "Pinned" if what.pinned else "Pageable"
    return f"Memcpy HtoD ({host} -> Device)" if what.to == "device" else f"Memcpy DtoH (Device -> {host})"
