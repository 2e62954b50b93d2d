"""A recording shows every operator, on the thread that ran it, inside the branch that it belongs to."""

import itertools
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import kit
from kit.approaches import FunctionRunner, ModelRunner
from kit.errors import KitError, ShapeError, TaskError, TraceError, TransferError, WorkerError
from kit.executors import Sequential
from kit.executors.threads import Threads
from kit.models import inception_block, two_stream
from kit.recorder import on_gpu, record_call, record_fresh
from kit.trace import Event, Trace, launch_delays, merge
from kit.trace.curves import curves
from tests.conftest import OnGpu

SLACK_NS = 200_000  # the profiler writes wall-clock time; the anchor that converts it is good to tens of microseconds
FRAME, FLOW = torch.randn(1, 3, 48, 48), torch.randn(1, 20, 48, 48)


def named(trace: Trace, name: str) -> list[Event]:
    return [event for event in trace.events() if event.name == name]


def end(event: Event) -> int:
    return event.start_ns + event.duration_ns


def within(inner: Event, outer: Event, slack: int = 0) -> bool:
    return outer.start_ns - slack <= inner.start_ns and end(inner) <= end(outer) + slack


@pytest.fixture(scope="module", params=["sequential", "threads(workers=2)"])
def recorded(request: pytest.FixtureRequest) -> tuple[str, Trace]:
    return request.param, kit.record(two_stream(width=8), (FRAME, FLOW), request.param)


def test_every_convolution_is_there_once(recorded: tuple[str, Trace]) -> None:
    _, trace = recorded
    convolutions = sum(isinstance(module, nn.Conv2d) for module in two_stream(width=8).modules())
    assert len(named(trace, "aten::convolution")) == convolutions == 10
    assert len(named(trace, "aten::addmm")) == 1


def test_the_spans_are_those_of_one_call_and_nest(recorded: tuple[str, Trace]) -> None:
    _, trace = recorded
    spans = [event for event in trace.events() if event.category in ("call", "region", "task", "merge")]
    assert Counter(event.name for event in spans) == Counter(["call", "region", "spatial", "temporal", "merge"])
    (call,), (region,) = named(trace, "call"), named(trace, "region")
    assert within(region, call)
    assert all(within(event, region) for event in spans if event.category in ("task", "merge"))


def test_operators_lie_within_the_branch_on_the_lane_that_ran_it(recorded: tuple[str, Trace]) -> None:
    way, trace = recorded
    tasks = [event for event in trace.events() if event.category == "task"]
    expected = {"caller"} if way == "sequential" else {"worker 0", "worker 1"}
    assert {task.lane.label for task in tasks} <= expected
    owners = []
    for convolution in named(trace, "aten::convolution"):  # most of it lies in one task, the clocks' slack in another
        beside = [task for task in tasks if task.lane == convolution.lane]
        shared = [min(end(task), end(convolution)) - max(task.start_ns, convolution.start_ns) for task in beside]
        owner = beside[shared.index(max(shared))]
        assert within(convolution, owner, SLACK_NS)
        owners.append(owner.name)
    assert Counter(owners) == {"spatial": 5, "temporal": 5}
    (call,) = named(trace, "call")
    assert all(within(event, call, SLACK_NS) for event in trace.events())


def test_the_caller_waits_and_a_worker_merges(recorded: tuple[str, Trace]) -> None:
    way, trace = recorded
    labels = {lane.label for lane in trace.lanes}
    assert "caller" in labels
    assert labels <= ({"caller"} if way == "sequential" else {"caller", "worker 0", "worker 1"})
    assert {event.lane.label for name in ("call", "region") for event in named(trace, name)} == {"caller"}
    (merge,), (cat,) = named(trace, "merge"), named(trace, "aten::cat")
    assert merge.lane == cat.lane
    tasks = [event for event in trace.events() if event.category == "task"]
    assert merge.lane in {task.lane for task in tasks}  # sequential's is the caller
    assert all(end(task) <= merge.start_ns for task in tasks)


def test_four_branches_on_two_threads() -> None:
    trace = kit.record(inception_block(16), torch.randn(1, 16, 17, 17), "threads(workers=2)")
    tasks = Counter(event.name for event in trace.events() if event.category == "task")
    assert tasks == Counter(["1x1", "5x5", "double 3x3", "pool"])
    assert len(named(trace, "aten::convolution")) == 7


def test_a_model_without_any_operator_is_recorded_too() -> None:
    trace = kit.record(nn.Identity(), torch.ones(1))
    assert [event.name for event in trace.events()] == ["call"]


# Any code -------------------------------------------------------------------------------------------------------------


def test_a_recording_shows_all_threads_and_the_marks_of_the_code_itself() -> None:
    model, x = inception_block(16), torch.randn(1, 16, 17, 17, requires_grad=True)
    other = threading.Thread(target=lambda: torch.ones(3).cumsum(0), name="other")
    with kit.recording() as recording:
        with kit.span("forward"):
            out = model(x)
        out.sum().backward()
        other.start()
        other.join()
    trace = recording.trace
    (whole,), (forward,), (cumsum,) = (named(trace, name) for name in ("recording", "forward", "aten::cumsum"))
    assert whole.start_ns == 0
    assert within(forward, whole)
    assert within(cumsum, whole, SLACK_NS)
    assert cumsum.lane.thread != forward.lane.thread
    assert len(named(trace, "aten::convolution")) == 7
    assert len(named(trace, "aten::convolution_backward")) == 7  # no mode is forced: gradients are made


def test_a_recording_shows_worker_processes_of_executors() -> None:
    model = two_stream(width=8)
    with kit.approaches.parse("processes").prepare(model, (FRAME, FLOW)) as runner:
        runner()
        with kit.recording() as recording:
            runner()
    assert {event.lane.label for event in named(recording.trace, "aten::convolution")} == {"process 0", "process 1"}


def test_a_recording_without_the_profiler_has_spans_alone() -> None:
    with kit.recording("mine", operators=False) as recording, kit.span("inner"):
        torch.ones(1) + 1
    assert [event.name for event in recording.trace.events()] == ["mine", "inner"]


def test_stacks_are_events_of_their_own() -> None:
    def outer() -> torch.Tensor:
        return torch.ones(1) + 1

    with kit.recording(stacks=True) as recording:
        outer()
    assert any("outer" in event.name for event in recording.trace.events() if event.category == "python_function")


def test_memory_is_a_curve_and_shapes_are_arguments() -> None:
    with kit.recording(memory=True, shapes=True) as recording:
        torch.ones(1024) + 1
    trace = recording.trace
    (curve,) = curves(trace)
    assert curve.value.max() - curve.value.min() >= 4096
    assert "operators of other threads are missing" in " ".join(trace.notes)
    (add,) = [i for i, event in enumerate(trace.events()) if event.name == "aten::add"]
    assert trace.args(add)["Input Dims"][0] == [1024]


def test_before_the_end_and_after_an_error_there_is_no_trace() -> None:
    with kit.recording() as recording, pytest.raises(KitError, match="read it behind"):
        _ = recording.trace
    with pytest.raises(ZeroDivisionError), kit.recording() as recording:
        1 / 0  # noqa: B018
    with pytest.raises(KitError, match="end without error"):
        _ = recording.trace
    with kit.recording() as recording:  # the profiler has ended
        torch.ones(1)
    assert named(recording.trace, "aten::ones")


def test_a_second_profiler_is_refused_instead_of_ending_the_process() -> None:
    with torch.profiler.profile(), pytest.raises(KitError, match="a profiler is on already"), kit.recording():
        pass
    with kit.recording(), pytest.raises(KitError, match="a profiler is on already"):
        kit.record(nn.Identity(), torch.ones(1))
    with kit.recording():
        kit.compare(nn.Identity(), torch.ones(1), "sequential", rounds=6, progress=False)
    with (
        pytest.raises(KitError, match="another profiler ran within this recording"),
        kit.recording(),
        torch.profiler.profile(),
    ):
        torch.ones(1)
    with kit.recording() as recording:
        torch.ones(1)
    assert named(recording.trace, "aten::ones")


def test_a_call_that_runs_a_profiler_itself_can_be_compared() -> None:
    def profiled() -> torch.Tensor:
        with torch.profiler.profile():
            return torch.ones(1)

    def recorded() -> torch.Tensor:
        with kit.recording():
            return torch.ones(1)

    own = {"alone": lambda: torch.ones(1), "profiled": profiled, "recorded": recorded}
    found = kit.compare(kit.Workload("calls", None, (), approaches=own), rounds=6, progress=False)
    assert [row.name for row in found.rows if row.timing] == [*own]


def test_recordings_of_two_processes_can_be_merged_on_one_clock() -> None:
    traces = []
    for _ in range(2):
        with kit.recording(operators=False) as recording:
            time.sleep(0.01)
        traces.append(recording.trace)
    first, second = (event for event in merge(traces).events() if event.name == "recording")
    assert end(first) <= second.start_ns


# Worker processes -----------------------------------------------------------------------------------------------------


def lane(trace: Trace, label: str) -> list[Event]:
    """The kit's own spans of a lane, in the order in which they began."""
    own = ("startup", "transfer", "task", "call", "region", "merge", "wait")
    events = [event for event in trace.events() if event.lane.label == label and event.category in own]
    return sorted(events, key=lambda event: event.start_ns)


def check_workers(trace: Trace, steps: list[str], merges: str = "merge 0") -> None:
    """In each worker's lane: these steps, one after the other, within the call; and its operators within its task."""
    (call,) = named(trace, "call")
    assert {event.lane.label for event in trace.events()} == {"caller", merges, "process 0", "process 1"}
    assert len({event.lane.process for event in trace.events()}) == 3
    for i, branch in enumerate(("spatial", "temporal")):
        spans = lane(trace, f"process {i}")
        assert [span.name for span in spans] == [branch if step == "task" else step for step in steps]
        assert all(within(span, call) for span in spans)
        assert all(a.start_ns + a.duration_ns <= b.start_ns for a, b in itertools.pairwise(spans))
        (task,) = named(trace, branch)
        convolutions = [event for event in named(trace, "aten::convolution") if event.lane == task.lane]
        assert len(convolutions) == 5
        assert all(within(convolution, task, SLACK_NS) for convolution in convolutions)
    assert {event.lane.label for name in ("aten::cat", "merge") for event in named(trace, name)} == {merges}
    assert {event.lane.label for event in named(trace, "region")} == {"caller"}


def test_a_process_per_call_shows_every_step_of_its_start() -> None:
    trace = kit.record(two_stream(width=8), (FRAME, FLOW), "processes_cold")
    check_workers(trace, ["spawn", "imports", "load", "task", "send"], merges="caller")
    assert [span.name for span in lane(trace, "caller")] == [
        *["call", "region", "start", "start", "wait", "wait", "join", "merge"]
    ]


def test_warm_processes_show_what_comes_and_goes() -> None:
    trace = kit.record(two_stream(width=8), (FRAME, FLOW), "processes")
    check_workers(trace, ["receive", "task", "send"])
    assert [span.name for span in lane(trace, "caller")][:4] == ["call", "region", "send", "send"]


def test_the_first_call_of_warm_processes_shows_their_start() -> None:
    trace = kit.record(two_stream(width=8), (FRAME, FLOW), "processes", first=True)
    check_workers(trace, ["spawn", "imports", "load", "task", "send"])


def test_a_recording_without_operators_has_the_spans_alone() -> None:
    trace = kit.record(two_stream(width=8), (FRAME, FLOW), "processes", operators=False)
    assert not [event for event in trace.events() if event.name.startswith("aten::")]
    assert [span.name for span in lane(trace, "process 1")] == ["receive", "temporal", "send"]


@pytest.mark.parametrize("fails_at", [None, 1, 3])
def test_the_callers_thread_count_comes_back(fails_at: int | None) -> None:
    seen: list[int] = []

    def call() -> torch.Tensor:
        seen.append(torch.get_num_threads())
        if len(seen) == fails_at:
            raise ZeroDivisionError
        return torch.ones(1) + 1

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if fails_at:
            with pytest.raises(ZeroDivisionError):
                record_call(FunctionRunner(call, intra_op_threads=3))
        else:
            record_call(FunctionRunner(call, intra_op_threads=3))
        assert torch.get_num_threads() == 2
        assert set(seen) == {3}
    finally:
        torch.set_num_threads(before)
    record_call(FunctionRunner(lambda: torch.ones(1)))  # no profiler is left running


def test_a_caller_that_is_not_the_main_thread_keeps_its_name() -> None:
    traces: list[Trace] = []
    model = kit.Branches({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}, kit.Concat(1))

    def work() -> None:
        for executor in (Threads(2), Sequential()):
            with ModelRunner(model, (torch.ones(1, 1),), executor, 1) as runner:
                traces.append(record_call(runner))

    thread = threading.Thread(target=work, name="somebody")
    thread.start()
    thread.join()
    pooled, alone = traces
    assert {lane.label for lane in alone.lanes} == {"somebody"}
    assert {lane.label for lane in pooled.lanes} <= {"somebody", "worker 0", "worker 1"}
    assert len(named(pooled, "aten::addmm")) == len(named(alone, "aten::addmm")) == 2


# GPUs -----------------------------------------------------------------------------------------------------------------


def with_kernels(monkeypatch: pytest.MonkeyPatch, delay_us: float) -> None:
    """Let every convolution of a profile launch a kernel, as Kineto writes it on a machine with a GPU."""
    plain = torch.autograd.profiler.profile.export_chrome_trace

    def export(self: torch.autograd.profiler.profile, path: str) -> None:
        plain(self, path)
        about = json.loads(Path(path).read_text())
        events = about["traceEvents"]
        for i, event in enumerate([event for event in events if event.get("name") == "aten::convolution"], start=1):
            ids = {"correlation": i}
            start = event["ts"] + event["dur"] / 2
            launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": start, "dur": 0.5}
            kernel = {"ph": "X", "cat": "kernel", "name": "conv", "ts": start + delay_us, "dur": 1.5, "pid": 0}
            events += [{**launch, "pid": event["pid"], "tid": event["tid"], "args": ids}]
            events += [{**kernel, "tid": 7, "args": {**ids, "device": 0, "stream": 7}}]
        Path(path).write_text(json.dumps(about))

    monkeypatch.setattr(torch.autograd.profiler.profile, "export_chrome_trace", export)


def test_kernels_are_on_the_clock_of_the_spans_and_tied_to_their_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernels(monkeypatch, delay_us=2)
    trace = kit.record(two_stream(width=8), (FRAME, FLOW), "threads(workers=2)")
    kernels = named(trace, "conv")
    assert len(kernels) == 10
    assert {kernel.lane.label for kernel in kernels} == {"GPU 0 stream 7"}
    convolutions = named(trace, "aten::convolution")
    for launch in named(trace, "cudaLaunchKernel"):
        assert sum(launch.lane == other.lane and within(launch, other, 1) for other in convolutions) == 1
    assert launch_delays(trace).delay_ns.tolist() == [2000] * 10
    (call,) = named(trace, "call")
    assert all(within(kernel, call, SLACK_NS) for kernel in kernels)


def test_a_kernel_before_its_launch_ends_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernels(monkeypatch, delay_us=-3)
    with pytest.raises(TraceError, match=r"10 of 10 kernels.*conv by 3\.000 us before its cudaLaunchKernel"):
        kit.record(two_stream(width=8), (FRAME, FLOW))


class NeedsItsProcess(nn.Module):
    """Gives its process away, and is defined where no other process can import it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Pause(nn.Module):
    """Long enough for the other worker to take the other branch: else one may do both, which is chance."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return x


@pytest.mark.parametrize("approach", ["threads(workers=2)", "processes(workers=2)"])
def test_a_recording_in_a_fresh_process_is_like_one_made_here(approach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = two_stream(width=8), (FRAME, FLOW)
    for stream in model.streams.branches.values():
        stream.append(Pause())
    here = kit.record(model, inputs, approach)
    monkeypatch.setattr("kit.verbs.on_gpu", lambda *values: True)
    fresh = kit.record(model, inputs, approach)
    assert os.getpid() not in {lane.process for lane in fresh.lanes}
    assert {(lane.group, lane.label) for lane in fresh.lanes} == {(lane.group, lane.label) for lane in here.lanes}
    for name in ("call", "region", "spatial", "temporal", "merge", "aten::convolution"):
        assert len(named(fresh, name)) == len(named(here, name)) > 0
    assert fresh.start_ns.min() == 0
    (call,) = named(fresh, "call")
    assert all(within(event, call, SLACK_NS) for event in fresh.events())


def test_a_model_of_this_file_travels_into_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.verbs.on_gpu", lambda *values: True)
    trace = kit.record(NeedsItsProcess(), torch.ones(1))
    assert len(named(trace, "aten::add")) == 1


def test_errors_come_back_from_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.verbs.on_gpu", lambda *values: True)
    with pytest.raises(ShapeError, match=r"was given \(3, 48, 48\)"):
        kit.record(two_stream(width=8), (FRAME[0], FLOW))
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        record_fresh(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(WorkerError, match=r"no answer from branch .recording. in time"):
        record_fresh(lambda: time.sleep(60), timeout=0.5)  # type: ignore[arg-type,return-value]
    with pytest.raises(TransferError, match="cannot be pickled"):
        record_fresh(threading.Lock().acquire)  # type: ignore[arg-type]


def test_what_is_on_a_gpu_is_found_in_inputs_and_weights() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    assert not on_gpu(model, torch.ones(1), ["text", {"x": torch.ones(1)}])
    assert on_gpu({"x": [torch.ones(1).as_subclass(OnGpu)]})
    model[1].running_mean = torch.ones(1).as_subclass(OnGpu)
    assert on_gpu(model)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_each_recording_has_its_kernels_after_their_launches() -> None:
    model, x = inception_block().cuda(), torch.randn(1, 192, 35, 35, device="cuda")
    for _ in range(3):
        trace = kit.record(model, x)
        kernels = [event for event in trace.events() if event.category == "kernel"]
        assert len(kernels) >= 7 + 6  # at least one for each convolution, and what follows them
        assert {event.lane.process for event in kernels} == {0}
        (call,) = named(trace, "call")
        assert all(within(kernel, call, SLACK_NS) for kernel in kernels)
        assert (launch_delays(trace).delay_ns >= 0).all()


def test_a_recording_says_where_it_was_made() -> None:
    trace = record_call(FunctionRunner(lambda: torch.ones(1)), operators=False)
    assert trace.about["versions"]["torch"] == torch.__version__
    assert trace.about["machine"]["cpu"]
