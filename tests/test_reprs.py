"""Whatever the kit hands out shows itself in one short line: no address, no array, and of results no time."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

import kit
from kit import approaches, clips, pipeline
from kit.equality import Equality
from kit.graphs import Graph, Operator
from kit.labs import Check
from kit.labs.continual import Explorer
from kit.labs.devices import Explorer as DevicesExplorer
from kit.labs.gpu import Explorer as GpuExplorer
from kit.labs.inception.cores import Cores
from kit.labs.modules import Gallery
from kit.labs.modules import Row as ModuleRow
from kit.machine import hardware
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.models.continual import stepper
from kit.reprs import LONGEST
from kit.spans import SpanLog
from kit.trace import Event, Lane, Trace, by_name, changes, idle
from kit.views.again import Again
from kit.views.badged import badged
from kit.views.copied import Copied
from kit.views.graph_picture import graph_picture
from kit.views.grid import Grid
from kit.views.keys import Keys
from kit.views.live import Live
from kit.views.playground import Playground
from kit.views.static import Figure
from kit.views.trials import Trials
from kit.workloads import live

MACHINERY = {  # what no caller is handed
    "kit.magic.TimelineMagics",
    "kit.measuring.budget.Budget",
    "kit.measuring.candidates.Candidate",
    "kit.executors.workers.channel.Channel",
    "kit.executors.workers.clocks.OtherClock",
    "kit.executors.workers.control.Control",
    "kit.executors.workers.control.Door",
    "kit.executors.workers.group.Group",
    "kit.executors.workers.group.Peer",
    "kit.executors.workers.dask_workers.Answer",
    "kit.executors.workers.dask_workers.DaskWorker",
    "kit.executors.workers.dask_workers.DaskWorkers",
    "kit.executors.workers.keeper.Keeper",
    "kit.executors.workers.shares.Shares",
    "kit.machine.namespaces.Hosts",
    "kit.executors.cuda_streams.SideStreams",
    "kit.graphs.costs.OperatorTimes",
    "kit.executors.workers.pickling.PlacedTensors",
    "kit.executors.workers.pickling.TensorMemory",
    "kit.executors.workers.process.WorkerProcess",
    "kit.executors.workers.thread_state.ThreadState",
    "kit.executors.workers.rank.Share",
    "kit.executors.workers.fork.Fork",
    "kit.executors.workers.messages.Reply",
    "kit.executors.workers.messages.Request",
    "kit.measuring.factors.RowBreakdown",
    "kit.scheduling.gpu_engines.Clock",
    "kit.scheduling.gpu_engines.Device",
    "kit.scheduling.gpu_engines.Item",
    "kit.trace.kernels.Family",
    "kit.clips.scenes.painting.Chance",
    "kit.clips.scenes.painting.Layer",
    "kit.spans.span",
    "kit.trace.arguments.Keeper",
    "kit.trace.categories.Role",
    "kit.trace.columns.Interner",
    "kit.trace.expanding.Text",
    "kit.trace.gathering.Columns",
    "kit.trace.gathering.Reader",
    "kit.trace.mending.Mended",
    "kit.trace.places.Kind",
    "kit.trace.places.Place",
    "kit.trace.walking.Cause",
    "kit.trace.walking.Walk",
    "kit.transforms.copying.Observed",
    "kit.views.palette.Look",
    "kit.views.palette.Palette",
    "kit.views.meanwhile.Meanwhile",
    "kit.views.still.Still",
    "kit.workloads.branch_costs.Counting",
    "kit.workloads.instead.Instead",
    "kit.workloads.instead.Replay",
    "kit.workloads.instead.WithoutZeros",
}
MODEL = kit.Branches({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, kit.Concat(1)).eval()
X = torch.ones(1, 2)


def public_classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(kit.__path__, "kit."):
        if module.name.endswith("__main__") or module.name.startswith("kit.trace.reading"):  # which is all machinery
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if not inspect.isclass(value) or value.__module__ != module.name or name.startswith("_"):
                continue
            abstract = inspect.isabstract(value) or getattr(value, "_is_protocol", False)
            # An exception shows its message. A module of torch shows its layers, each on a line.
            if not abstract and not issubclass(value, BaseException | nn.Module):
                yield value


def example(hint: Any) -> Any:
    """A value of a field that is hard to show in little space."""
    text = str(hint)
    if "NDArray" in text or "ndarray" in text:
        return np.arange(10_000)
    if "Tensor" in text and "tuple" not in text:
        return torch.ones(100, 100)
    if "Module" in text or "Branches" in text:
        return nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    if "Callable" in text or hint is Any:
        return lambda: None
    if "dict" in text or "Mapping" in text:
        return {f"key {i}": 1.23456789012345 for i in range(2000)}
    if "tuple" in text or "list" in text or "Sequence" in text or "deque" in text:
        return [np.arange(1000)] * 3
    if "Path" in text:
        return Path("folder") / ("x" * 200)
    if "Literal" in text or "bool" in text:
        return True
    if "str" in text:
        return "a name\n" * 100
    return 1.23456789012345 if "float" in text else 123_456_789 if "int" in text else None


def made(cls: type) -> Any:
    """An object of a data class or named tuple with such values, as its ``__repr__`` sees it."""
    hints = get_type_hints(cls)
    if hasattr(cls, "_fields"):
        return tuple.__new__(cls, [example(hints[name]) for name in cls._fields])
    thing = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(thing, field.name, example(hints[field.name]))
    return thing


def timing(ms: float) -> Timing:
    trace = Trace.build([Event("a", "task", 0, int(ms * 1e6), Lane(1, 1, "caller"))])
    return Timing(np.full(12, ms * 1e6), 3, trace, (None,) * 12, np.full(36, ms * 1e6))


def compared(ms: float) -> Comparison:
    same, base = Equality(True, 0.0), Row("sequential", None, timing(1), Ratio(1, 1, 1), Equality(True, 0.0), True)
    row = Row(
        "threads",
        None,
        timing(ms),
        Ratio(1 / ms, 1 / ms, 1 / ms),
        same,
        paired_baseline=base.timing,
        minimum_detectable_effect=0.1 * ms,
    )
    return Comparison((base, row), 12, "(1, 2) float32 on cpu", (f"a caveat of {ms} ms",))


def samples(ms: float) -> list[Any]:
    """An object of each class whose ``__repr__`` is written out, or has no fields; times in it are ``ms``."""
    comparison = compared(ms)
    row, stage = comparison["threads"], pipeline.Stage("double", lambda x: 2 * x)
    runner = approaches.parse("threads(workers=2)").prepare(MODEL, X)
    runner.close()
    figures = pipeline.Pipeline([stage]).run([1, 2], lambda x: None)
    figures.latencies_ns.append(int(ms * 1e6))
    net = nn.Sequential(nn.Conv3d(3, 4, 3, padding=(0, 1, 1))).eval()
    _, state = stepper(net)(torch.rand(1, 3, 8, 8), None)
    with patch.object(Grid, "_measure"):
        grid = Grid(lambda items: None)  # type: ignore[arg-type, return-value]
    graph = Graph("Net", "(1, 2)", "torch.fx", ms, (Operator("a", "Linear", "", "1x2", 4, ms, (), ()),), (), (), 2, ms)
    return [
        *(comparison, row, row.timing, kit.explain(comparison, "threads"), comparison.traces["threads"]),
        *(by_name(row.timing.trace), changes(row.timing.trace, row.timing.trace), idle(row.timing.trace)),
        *(approaches.parse("folded + threads(workers=2)"), runner, SpanLog(), hardware.detect()),
        *(state, clips.generate(frames=2, height=32, width=32)),
        *(pipeline.Pipeline([stage]), figures),
        *(approaches.FunctionRunner(lambda: None), live.Flow(), live.FromFile(True, Path("a.mp4"), 8)),
        *(kit.timeline(comparison), kit.comparison_chart(comparison), grid),
        *(kit.Quiz("Which?", {"one": "no", "two": "yes"}), Check("hint", "look again"), Figure("<svg/>" * 99)),
        *(Live(lambda: pipeline.Pipeline([stage]), list), Explorer(), graph, graph_picture(graph)),
        *(Cores(kit.explain(comparison, "threads")), Again(comparison, lambda seconds: comparison)),
        *(GpuExplorer(), DevicesExplorer(), badged(row.timing.trace), Gallery([ModuleRow("Delay", "2", "over time")])),
        *(Playground({}), Copied(), Keys()),
        Trials(lambda row, column: (MODEL, X), ("width", [8]), ("pixels", [16])),
        kit.clip_player(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 2), np.float32)),
    ]


def check(text: str) -> None:
    assert "\n" not in text
    assert " at 0x" not in text
    assert "array([" not in text
    assert "tensor([" not in text
    assert len(text) <= LONGEST


PUBLIC = [cls for cls in public_classes() if f"{cls.__module__}.{cls.__name__}" not in MACHINERY]


def test_every_public_object_is_one_short_line_without_an_address() -> None:
    known = samples(2.0)
    for cls in PUBLIC:
        found = [thing for thing in known if isinstance(thing, cls)]
        check(repr(found[0] if found else made(cls)))


def test_a_result_shows_no_time_so_that_a_stored_output_stays_as_it_is() -> None:
    assert [*map(repr, samples(2.0))] == [*map(repr, samples(3.21))]


def test_modules_show_no_address_either() -> None:
    for module in (MODEL, kit.models.two_stream(width=8), kit.Branches({"a": nn.ReLU()}, lambda outputs: outputs)):
        assert " at 0x" not in repr(module)
