"""Streams fork, join, and mark what crosses: on streams that keep account, and, where there is one, on a GPU."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from kit import spans
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import KitError, TaskError, UnavailableError, UnknownNameError
from kit.executors import Executor, Sequential, Task, use
from kit.executors.cuda_streams import CudaStreams, unavailable_because
from kit.executors.cuda_streams_threads import CudaStreamsThreads
from kit.machine.hardware import detect
from kit.models import inception_block
from kit.regions import Branches
from kit.scheduling import POLICIES, Placement

MAKERS: dict[str, Callable[[], Executor]] = {
    **{name: lambda name=name: CudaStreams(name) for name in POLICIES},
    **{f"{name} on 2": lambda name=name: CudaStreams(name, 2) for name in POLICIES},
    "threads": lambda: CudaStreamsThreads(4),
    "fewer threads than branches": lambda: CudaStreamsThreads(2),
}


@pytest.fixture(params=MAKERS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with MAKERS[request.param]() as made:
        yield made


class Kernel(nn.Module):
    """A layer that launches one kernel on the fake GPU."""

    def __init__(self, cuda, name: str) -> None:
        super().__init__()
        self.cuda, self.name = cuda, name

    def forward(self, x):
        return self.cuda.kernel(x, name=self.name)


def block(cuda, layers: dict[str, int]) -> Branches:
    branches = {
        name: nn.Sequential(*(Kernel(cuda, f"{name} {i}") for i in range(count))) for name, count in layers.items()
    }
    return Branches(branches, lambda outputs: cuda.kernel(*outputs, name="merge"))


LAYERS = {"1x1": 1, "5x5": 2, "double 3x3": 3, "pool": 2}


def test_every_kernel_waits_for_what_it_reads_and_all_that_crosses_is_marked(executor: Executor, fake_cuda) -> None:
    model = block(fake_cuda, LAYERS)
    with use(executor):
        for _ in range(3):
            output = model(fake_cuda.kernel(name="input"))
    assert fake_cuda.faults == []
    assert output.made[0] is fake_cuda.streams[0]
    assert sum(stream.seen.get(stream.cuda_stream, 0) for stream in fake_cuda.streams) == 3 * (1 + 8 + 1)


def test_a_branch_that_changes_its_stream_waits_for_itself(fake_cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        POLICIES, "zigzag", lambda nodes, streams: [Placement(i, i % streams) for i in range(len(nodes))]
    )
    with use(CudaStreams("zigzag")):  # type: ignore[arg-type]
        block(fake_cuda, LAYERS)(fake_cuda.kernel())
    assert fake_cuda.faults == []
    assert len({stream.cuda_stream for stream in fake_cuda.streams if stream.seen}) == 5


def test_regions_one_after_the_other_and_inside_each_other(executor: Executor, fake_cuda) -> None:
    inner = block(fake_cuda, {"1x3": 1, "3x1": 1})
    outer = Branches(
        {"nested": nn.Sequential(Kernel(fake_cuda, "head"), inner), "plain": Kernel(fake_cuda, "plain")},
        lambda outputs: fake_cuda.kernel(*outputs, name="merge"),
    )
    with use(executor):
        for _ in range(2):
            block(fake_cuda, LAYERS)(outer(fake_cuda.kernel(name="input")))
    assert fake_cuda.faults == []


@pytest.mark.parametrize("name", ["one_per_branch", "wavefront", "longest_path_first", "threads"])
def test_branches_may_really_run_at_the_same_time(name: str, fake_cuda) -> None:
    """No branch's last kernel is known to come after another branch's first one."""
    firsts, seen = {}, {}

    def branch(i: int) -> Callable:
        def call(x):
            y = fake_cuda.kernel(x)
            firsts[i], seen[i] = y.made, dict(fake_cuda.current_stream().seen)
            return y

        return call

    with MAKERS[name]() as executor:
        executor.run([Task(str(i), branch(i), (fake_cuda.kernel(),)) for i in range(4)])
    assert len({stream for stream, _ in firsts.values()}) == 4
    for i, (stream, count) in firsts.items():
        assert not [j for j in seen if j != i and seen[j].get(stream.cuda_stream, 0) >= count]


def test_a_nested_region_does_not_queue_behind_its_parents_siblings(fake_cuda) -> None:
    places = []

    def where(x):
        places.append(fake_cuda.current_stream())
        return fake_cuda.kernel(x)

    executor = CudaStreams()
    inner = lambda x: executor.run([Task("c", where, (x,)), Task("d", where, (x,))])[0]  # noqa: E731
    executor.run([Task("a", inner, (fake_cuda.kernel(),)), Task("b", where, (fake_cuda.kernel(),))])
    assert len(set(places)) == 3
    assert fake_cuda.faults == []


def test_single_uses_one_stream_and_streams_are_kept(fake_cuda) -> None:
    with use(CudaStreams("single")):
        for _ in range(3):
            block(fake_cuda, LAYERS)(fake_cuda.kernel())
    assert [bool(stream.seen) for stream in fake_cuda.streams] == [True, True, False, False, False]


def test_a_wavefront_launches_the_first_stages_first(fake_cuda) -> None:
    launched = []
    model = block(fake_cuda, LAYERS)
    for module in model.modules():
        if isinstance(module, Kernel):
            module.register_forward_hook(lambda module, args, output: launched.append(module.name))
    with spans.collect() as log, use(CudaStreams("wavefront")):
        model(fake_cuda.kernel())
    assert launched[:4] == ["1x1 0", "5x5 0", "double 3x3 0", "pool 0"]
    assert launched[-1] == "double 3x3 2"
    assert [span.name for span in log.spans if span.category == "task"][:4] == list(LAYERS)


def test_one_span_per_task_where_a_branch_is_launched_at_once(fake_cuda) -> None:
    for executor in (CudaStreams(), CudaStreams("single"), CudaStreamsThreads(4)):
        with executor, spans.collect() as log, use(executor):
            block(fake_cuda, LAYERS)(fake_cuda.kernel())
        assert sorted(span.name for span in log.spans if span.category == "task") == sorted(LAYERS)


def test_what_is_no_module_is_not_kept_between_calls(executor: Executor, fake_cuda) -> None:
    held = Kernel(fake_cuda, "held")
    executor.run([Task("a", lambda x, held=held: held(x), (fake_cuda.kernel(),))])
    reference = weakref.ref(held)
    del held
    gc.collect()
    assert reference() is None


def test_a_sequential_with_hooks_is_called_as_one(fake_cuda) -> None:
    called = []
    branch = nn.Sequential(Kernel(fake_cuda, "a"), Kernel(fake_cuda, "b"))
    branch.register_forward_hook(lambda *_: called.append(1))
    CudaStreams("wavefront").run([Task("hooked", branch, (fake_cuda.kernel(),))])
    assert called == [1]


def test_a_sequential_with_a_forward_of_its_own_is_called_as_one(fake_cuda) -> None:
    called: list[int] = []
    branch = nn.Sequential(nn.Identity(), nn.Identity())
    branch.forward = lambda x: called.append(1)  # type: ignore[method-assign]
    CudaStreams("wavefront").run([Task("patched", branch, (fake_cuda.kernel(),))])
    assert called == [1]


def test_an_error_names_its_branch_and_what_was_launched_is_joined(executor: Executor, fake_cuda) -> None:
    made = []

    def fail(x):
        raise ZeroDivisionError("on purpose")

    tasks = [Task("good", lambda x: made.append(fake_cuda.kernel(x)), (fake_cuda.kernel(),))]
    with pytest.raises(TaskError, match="branch 'bad' raised ZeroDivisionError: on purpose"):
        executor.run([*tasks, Task("bad", fail, (fake_cuda.kernel(),))])
    ((stream, count),) = [tensor.made for tensor in made]
    assert fake_cuda.streams[0].seen[stream.cuda_stream] >= count
    assert fake_cuda.current_stream() is fake_cuda.streams[0]
    assert len(executor.run(tasks)) == 1


def test_threads_launch_on_streams_of_their_own(fake_cuda) -> None:
    places = {}
    together = threading.Barrier(3)

    def where(x):
        together.wait(10)
        places[threading.get_ident()] = fake_cuda.current_stream()
        return fake_cuda.kernel(x)

    with CudaStreamsThreads(3) as executor:
        executor.run([Task(str(i), where, (fake_cuda.kernel(),)) for i in range(3)])
    assert len(places) == len(set(places.values())) == 3
    assert threading.get_ident() not in places


def test_inputs_on_the_cpu_are_refused_and_none_at_all_are_fine(executor: Executor, fake_cuda) -> None:
    with pytest.raises(UnavailableError, match=r"branch 'a' was given \(1, 2\) on cpu.*model.cuda\(\)"):
        executor.run([Task("a", nn.Identity(), (torch.ones(1, 2),))])
    assert executor.run([Task("a", lambda: 1), Task("b", lambda: 2)]) == [1, 2]
    assert executor.run([]) == []


def test_options_that_mean_nothing() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'wavefront'"):
        CudaStreams("wavefronts")  # type: ignore[arg-type]
    with pytest.raises(KitError, match="at least 1"):
        CudaStreams("single", 0)


def test_availability_is_a_sentence() -> None:
    none = replace(detect(), gpus=(), nvidia_device=False)
    assert unavailable_because(replace(none, gpus=("H200",))) is None
    assert unavailable_because(none) == "it needs a CUDA GPU, but torch finds none here."
    assert "doctor" in unavailable_because(replace(none, nvidia_device=True))


# On a GPU -------------------------------------------------------------------------------------------------------------

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("mark", [pytest.param(None, marks=needs_gpu)])
def test_a_thousand_runs_bit_by_bit(executor: Executor, mark: None) -> None:
    """Memory is freed and handed out again all the time: what is not marked, or not waited for, is overwritten."""
    model = inception_block().cuda()
    torch.manual_seed(0)
    inputs = [torch.randn(4, 192, 35, 35, device="cuda").relu() for _ in range(10)]
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        with use(Sequential()):
            expected = [model(x) for x in inputs]
            assert inputs_without_effect(model, inputs[0]) == []
        wrong = torch.zeros(1000, dtype=torch.bool, device="cuda")
        with use(executor):
            for i in range(1000):  # without waiting for the GPU in between, so that it lags far behind
                output = model(inputs[i % 10] + 0)  # an input that only this call holds
                wrong[i] = (output != expected[i % 10]).any()
                del output
                clutter = [torch.full((4, 256, 35, 35), float(i), device="cuda") for _ in range(3)]
                del clutter
        assert wrong.nonzero().flatten().tolist() == []
        assert compare_outputs(expected[0], model(inputs[0])).equal
