"""A branch per device: what moves, in which order, and where the results are."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import kit
from kit import spans
from kit.approaches.registry import REGISTRY
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import TaskError, UnavailableError
from kit.executors import Sequential, Task, current, use
from kit.executors import devices as room
from kit.executors.devices import Devices, unavailable_because
from kit.machine.hardware import detect
from kit.models import inception_block, two_stream
from tests.conftest import GPU, FakeEvent

FRAME, FLOW = torch.randn(1, 3, 48, 48), torch.randn(1, 20, 48, 48)


def test_on_the_cpu_alone_it_is_the_sequential_answer() -> None:
    model = two_stream(width=8)
    with torch.inference_mode(), Devices(("cpu", "cpu")) as executor:
        expected = model(FRAME, FLOW)
        assert inputs_without_effect(model, (FRAME, FLOW)) == []
        with use(executor):
            assert compare_outputs(expected, model(FRAME, FLOW)).equal
        assert executor._replicas == {}  # the weights are there already


def test_one_device_under_several_names_is_told_as_one() -> None:
    assert Devices(("cpu", "cpu")).remark.startswith("all of its devices are cpu: nothing is copied")
    assert Devices(("cuda:0", "cuda:0")).remark.startswith("all of its devices are cuda:0")
    assert Devices(("cuda:0", "cpu")).remark == ""


def test_the_table_says_what_an_executor_says_of_itself() -> None:
    kit.register("one_cpu_twice", lambda: Devices(("cpu", "cpu")))
    try:
        comparison = kit.compare(two_stream(width=8), (FRAME, FLOW), "one_cpu_twice", rounds=6, progress=False)
    finally:
        del REGISTRY["one_cpu_twice"]
    assert any(caveat.startswith("one_cpu_twice: all of its devices are cpu") for caveat in comparison.caveats)


def test_a_branch_gets_its_copy_of_the_weights_once_and_the_model_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The meta device is one to which weights really move; its outputs have a shape and nothing else."""
    model = nn.Linear(2, 3)
    back = []

    def moved(value, device, *, wait=False):
        if device.type == "cpu" and isinstance(value, Tensor) and value.is_meta:
            back.append(wait)
            return torch.zeros(value.shape)
        return plain(value, device, wait=wait)

    plain = room.moved
    monkeypatch.setattr(room, "moved", moved)
    executor = Devices(("meta", "cpu"))
    tasks = [Task("far", model, (torch.ones(1, 2),)), Task("near", model, (torch.ones(1, 2),))]
    far, near = executor.run(tasks)
    executor.run(tasks)
    assert torch.equal(far, torch.zeros(1, 3))
    assert torch.equal(near, model(torch.ones(1, 2)))
    assert back == [True, True]  # what the CPU reads next must have arrived
    assert [len(executor._replicas), model.weight.device.type] == [1, "cpu"]
    executor.close()
    assert executor._replicas == {}


def test_launches_come_before_the_work_of_the_cpu() -> None:
    ran: list[tuple[int, str]] = []
    calls = [lambda x, i=i: ran.append((i, x.device.type)) for i in range(3)]
    Devices(("cpu", "meta")).run([Task(str(i), call, (torch.ones(1),)) for i, call in enumerate(calls)])
    assert ran == [(1, "meta"), (0, "cpu"), (2, "cpu")]


def test_the_cpus_branch_waits_for_inputs_from_a_gpu(fake_cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    event, order = FakeEvent({}), []

    def moved(value, device, *, wait=False):
        order.append(f"move to {device.type}" + (", wait" if wait else ""))
        return value

    monkeypatch.setattr(room, "moved", moved)
    fake_cuda.streams[0].record_event = lambda: order.append("record") or event
    near = Task("near", lambda x: order.append(f"work, arrived: {event.waited}"), (fake_cuda.kernel(),))
    far = Task("far", lambda x: order.append("launch"), (fake_cuda.kernel(),))
    Devices(("cpu", str(GPU))).run([near, far])
    assert order == [
        *("move to cpu", "move to cuda", "record", "launch", "work, arrived: True", "move to cuda", "move to cuda")
    ]


def test_regions_inside_a_branch_stay_on_its_device() -> None:
    seen = []

    Devices(("cpu",)).run([Task("a", lambda: seen.append(type(current())))])
    assert seen == [Sequential]


def test_spans_and_errors() -> None:
    with spans.collect() as log, pytest.raises(TaskError, match="branch 'b' raised"):
        Devices(("cpu", "cpu")).run([Task("a", lambda: 1), Task("b", lambda: 1 // 0)])
    assert [span.name for span in log.spans] == ["inputs", "a", "b"]


@pytest.mark.parametrize(
    ("gpus", "chosen"), [(1, ("cuda:0", "cpu")), (2, ("cuda:0", "cuda:1")), (3, ("cuda:0", "cuda:1", "cuda:2"))]
)
def test_which_devices_without_being_told(gpus: int, chosen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert Devices().devices == chosen
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UnavailableError, match="no GPU"):
        Devices()


def test_availability_is_a_sentence() -> None:
    assert unavailable_because(replace(detect(), gpus=("H200",))) is None
    assert unavailable_because(replace(detect(), gpus=())).startswith("it needs two devices")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("home", ["cpu", "cuda:0"])
def test_on_a_gpu_and_the_cpu_beside_it(home: str) -> None:
    model, x = inception_block().to(home), torch.randn(1, 192, 35, 35, device=home)
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # the CPU has no TF32
    with torch.inference_mode(), exact, Devices() as executor:
        expected = model(x)
        for _ in range(20):
            with use(executor):
                output = model(x)
            assert output.device == x.device
            assert compare_outputs(expected, output).equal
