"""A captured graph as straight-line programs, one for each lane, that wait for each other where they have to."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from kit import spans
from kit.executors import Task
from kit.executors.lanes import Lanes
from kit.executors.thread_counts import let_helpers_go
from kit.graphs.found import Found, is_question
from kit.graphs.tracing import fetched
from kit.scheduling.plans import Plan
from kit.scheduling.waiting import waits

Slots = dict[int, Any]  # what programs hand to each other in one call; who needs a value takes it out
Phases = Sequence[Sequence[Sequence[int]]]  # phase -> lane -> operators, by their indices, in the order they run


def sources(node: fx.Node, found: Found) -> list[fx.Node]:
    """Operators and inputs whose values a node takes, also through questions that it asks itself."""
    behind: dict[fx.Node, None] = {}
    for each in node.all_input_nodes:
        if each.op != "get_attr":
            behind |= dict.fromkeys(sources(each, found) if is_question(each, found.effects) else [each])
    return list(behind)


def needed(found: Found) -> list[tuple[int, ...]]:
    """For each operator, the indices of those that have to end before it: the values it takes, and the order."""
    index = {node: i for i, node in enumerate(found.nodes)}
    return [
        tuple(sorted({index[each] for each in sources(node, found) if each in index} | order))
        for node, order in zip(found.nodes, found.order, strict=True)
    ]


class Place(NamedTuple):
    """One lane of one phase."""

    phase: int
    lane: int


BEGIN, END = Place(-1, 0), Place(-2, 0)  # where the inputs come from, and where the outputs go


class _Program:
    """What one lane does in one phase: Python without loops and questions."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"clock": spans.clock, "current": spans.current}
        self._lines: list[tuple[str, str]] = []  # a line, and the span that it writes, if any
        self._made: dict[bool, Callable[[Slots], None]] = {}

    def add(self, line: str, title: str = "", category: spans.Category = "part") -> None:
        """Add a line; with a title, a recording has a span of it."""
        self._lines.append((line, f"write({title!r}, {category!r}, start)" if title else ""))

    def bound(self, value: Any) -> str:
        """A name for a value in the source."""
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def source(self, detail: bool) -> str:
        """The program as Python.

        Args:
            detail: whether it writes a span for each operator.
        """
        lines = ["def program(slots):", "take = slots.pop", *(["write = current().write"] if detail else [])]
        for line, note in self._lines:
            lines += ["start = clock()", line, note] if detail and note else [line]
        return "\n    ".join(lines)

    def __call__(self, slots: Slots, detail: bool) -> None:
        if detail not in self._made:
            names = dict(self.names)
            exec(compile(self.source(detail), "<lane>", "exec"), names)
            self._made[detail] = names["program"]
        self._made[detail](slots)


class _Phase:
    """Programs that run at the same time on a lane each, or a single one, in the calling thread on all cores."""

    def __init__(self, programs: Sequence[_Program], locks: Sequence[Any]) -> None:
        self.programs, self.locks, self.failed = programs, locks, False

    def run(self, slots: Slots, lanes: Lanes) -> None:
        """Run all programs, with the values that they need in ``slots``, and theirs there afterwards."""
        log = spans.current()
        detail = log is not None and log.operators
        if len(self.programs) == 1:
            Task("all cores", self.programs[0], (slots, detail))()
            return
        let_helpers_go()
        try:
            lanes.run([Task(f"lane {i}", self._run, (each, slots, detail)) for i, each in enumerate(self.programs)])
        finally:
            if self.failed:
                for lock in self.locks:
                    lock.acquire(blocking=False)
                self.failed = False

    def _run(self, program: _Program, slots: Slots, detail: bool) -> None:
        try:
            program(slots, detail)
        except BaseException:
            if self.failed:  # what another lane was to hand over did not come: its error is the cause
                return
            self.failed = True
            for lock in self.locks:
                with suppress(RuntimeError):  # it is open already
                    lock.release()
            raise


class OnLanes(nn.Module):
    """A captured model whose operators run in phases, on lanes; one call at a time.

    Raises:
        TaskError: an operator raised; the message names its lane, and the operator's own exception is the cause.
    """

    def __init__(self, found: Found, phases: Phases, lanes: Lanes) -> None:
        super().__init__()
        self.found, self.root, self.lanes = found, found.captured.module, lanes
        writer = _Writer(found, phases)
        self.phases = writer.phases
        self.plan: Plan | None = None  # whose phases these are
        self.inputs, self.outputs = writer.inputs, writer.outputs
        self._turn = threading.Lock()  # the locks between lanes belong to one call

    def forward(self, *leaves: Tensor) -> list[Any]:
        slots: Slots = {key: leaves[i] for i, key in self.inputs}
        with self._turn:
            for phase in self.phases:
                phase.run(slots, self.lanes)
        return [slots[each] if isinstance(each, int) else each.value for each in self.outputs]


class _Constant(NamedTuple):
    """An output that is no operator's."""

    value: Any


class _Writer:
    """Writes the programs of all phases."""

    def __init__(self, found: Found, phases: Phases) -> None:
        self.found, self.root = found, found.captured.module
        graph = self.root.graph
        output: Any = next(node for node in graph.nodes if node.op == "output")
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        self.place = dict.fromkeys(placeholders, BEGIN) | {
            found.nodes[i]: Place(p, lane) for p, each in enumerate(phases) for lane, on in enumerate(each) for i in on
        }
        self.needs = {node: sources(node, found) for node in (*found.nodes, output)}
        self.place[output] = END
        # Every place that needs a value of another one has an entry of its own, and takes the value out of it: so the
        # value lives as long as somebody needs it, and no longer.
        self.key: dict[tuple[fx.Node, Place], int] = {}
        self.takers: dict[fx.Node, list[Place]] = defaultdict(list)
        for node, taken in self.needs.items():
            for each in taken:
                wanted = (each, self.place[node])
                if self.place[each] != self.place[node] and wanted not in self.key:
                    self.key[wanted] = len(self.key)
                    self.takers[each].append(self.place[node])
        after = needed(found)
        self.phases = [self._phase(p, lanes, after) for p, lanes in enumerate(phases)]
        self.inputs = [(i, self.key[node, to]) for i, node in enumerate(placeholders) for to in self.takers[node]]
        self.outputs = [self.key.get((each, END), _Constant(self._value(each))) for each in output.args[0]]

    def _phase(self, p: int, lanes: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> _Phase:
        nodes = self.found.nodes
        waiting = waits(lanes, after)
        opens: dict[int, list[Any]] = defaultdict(list)  # node -> locks that it opens when it has ended
        locks: dict[tuple[int, int], Any] = {}  # (node, the one that waits for it) -> lock
        for node, others in waiting.items():
            for other in others:
                lock = threading.Lock()
                lock.acquire()
                locks[other, node] = lock
                opens[other].append(lock)
        programs = []
        for lane, on in enumerate(lanes):
            program = _Program()
            env = _Lane(self, program, Place(p, lane), [nodes[i] for i in on])
            for i in on:
                for other in waiting.get(i, ()):
                    program.add(f"{program.bound(locks[other, i].acquire)}()", f"for {nodes[other].name}", "wait")
                env.run(nodes[i])
                for lock in opens[i]:
                    program.add(f"{program.bound(lock.release)}()")
            programs.append(program)
        return _Phase(programs, list(locks.values()))

    def _value(self, each: Any) -> Any:
        if isinstance(each, fx.Node) and each.op == "get_attr":
            return fetched(self.root, str(each.target))
        return each


class _Lane:
    """Writes the program of one lane."""

    def __init__(self, writer: _Writer, program: _Program, place: Place, nodes: Sequence[fx.Node]) -> None:
        self.writer, self.program, self.place = writer, program, place
        self.local: dict[fx.Node, str] = {}
        self.last: dict[fx.Node, fx.Node] = {}  # value -> the last node on this lane that needs it
        for node in nodes:
            for each in writer.needs[node]:
                self.last[each] = node

    def run(self, node: fx.Node) -> None:
        """Add an operator: take what it needs, call it, hand over what others need, and let go of the rest."""
        add, writer = self.program.add, self.writer
        for each in writer.needs[node]:
            if each not in self.local:
                self.local[each] = f"v{len(self.local)}"
                add(f"{self.local[each]} = take({writer.key[each, self.place]})")
        text = self._call(node)
        name = f"v{len(self.local)}"
        self.local[node] = name
        add(f"{name} = {text}", node.name)
        for to in writer.takers[node]:
            add(f"slots[{writer.key[node, to]}] = {name}")
        dead = [each for each in writer.needs[node] if self.last[each] is node]
        dead += [node] if node not in self.last else []
        if dead:
            add(f"del {', '.join(self.local[each] for each in dead)}")

    def _call(self, node: fx.Node) -> str:
        args = [self._text(each) for each in node.args]
        args += [f"{key}={self._text(each)}" for key, each in node.kwargs.items()]
        if node.op == "call_method":
            first, *args = args
            return f"{first}.{node.target}({', '.join(args)})"
        target: Any = node.target
        if node.op == "call_module":
            module = self.writer.root.get_submodule(str(target))
            target = module.forward if _plain(module) else module
        return f"{self.program.bound(target)}({', '.join(args)})"

    def _text(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            if value in self.local:
                return self.local[value]
            if value.op == "get_attr":
                return self.program.bound(fetched(self.writer.root, str(value.target)))
            return f"({self._call(value)})"  # a question, asked again here
        if isinstance(value, slice):
            return f"slice({', '.join(map(self._text, (value.start, value.stop, value.step)))})"
        if type(value) is tuple:
            return f"({''.join(f'{self._text(each)}, ' for each in value)})"
        if isinstance(value, list):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self._text(k)}: {self._text(v)}' for k, v in value.items())}}}"
        if value is None or isinstance(value, bool | int):
            return repr(value)
        return self.program.bound(value)


def _plain(module: nn.Module) -> bool:
    """Whether calling a module is calling its forward: no hooks."""
    return not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
