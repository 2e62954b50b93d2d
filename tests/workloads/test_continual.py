"""One step as a workload, and a step against a sliding window."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kit import clips
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import ClipError, KitError
from kit.models import inception3d_block
from kit.models.continual import shallow_two_stream_3d, stepper
from kit.transforms.channels_last import channels_last
from kit.verbs import compare
from kit.workloads import workload
from kit.workloads.continual import OneStep, frames_of, live_clip, of_library, prepared_or_not, window_versus_step

SMALL = (4, 4, 6, 2, 4, 4)


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, ...]:
    return live_clip()


def test_the_workload_gives_what_the_window_gives(scene: tuple[torch.Tensor, ...]) -> None:
    work = workload("continual")
    rgb, flow = scene
    with torch.no_grad():
        window = shallow_two_stream_3d()(rgb, flow)
        out, *remembered = work.model(*work.inputs)
    assert compare_outputs(window[:, :, 0], out).equal
    assert inputs_without_effect(lambda *frames: work.model(*frames)[0], work.inputs) == []
    assert len(remembered) == len(work.model.remembered)


@pytest.mark.parametrize("approach", ["threads", "channels_last"])
def test_approaches_run_a_step(approach: str) -> None:
    clip = torch.randn(1, 8, 4, 7, 7)
    step = OneStep(stepper(inception3d_block(8, SMALL)), clip)
    row = compare(step, step.frames, [approach], rounds=6, progress=False)[approach]
    assert row.equality.equal
    assert {event.name for event in row.timing.trace.select(categories=["task"]).events()} == {
        "1x1",
        "3x3",
        "5x5",
        "pool",
    }


def test_a_video_of_one_s_own(tmp_path: Path, scene: tuple[torch.Tensor, ...]) -> None:
    path = tmp_path / "clip.mp4"
    clips.save(clips.generate(frames=20, seed=4), path)
    assert not torch.equal(workload("continual", path).inputs[0], frames_of(scene[0])[-1])
    clips.save(clips.generate(frames=16), path)
    with pytest.raises(ClipError, match="need 17"):
        workload("continual", path)


def test_no_output_due() -> None:
    with pytest.raises(KitError, match="first output comes with frame 3"):
        OneStep(stepper(nn.Conv3d(3, 4, 3)), torch.randn(1, 3, 2, 5, 5))
    with pytest.raises(KitError, match="stride in time: 2"):
        OneStep(stepper(nn.Conv3d(3, 4, 3, stride=2)), torch.randn(1, 3, 4, 5, 5))


@pytest.mark.parametrize("last", [False, True])
def test_a_step_against_a_window(last: bool) -> None:
    found = window_versus_step(inception3d_block(8, SMALL), torch.randn(2, 8, 6, 7, 7), channels_last=last, rounds=6)
    assert found.equality.equal
    assert found.window_macs == 6 * found.step_macs  # padded: a window of 6 frames is 6 frames' work
    assert found.counted == 6
    assert found.realised == pytest.approx([each / 6 for each in found.measured])


def test_the_same_macs_are_counted_for_streams(scene: tuple[torch.Tensor, ...]) -> None:
    found = window_versus_step(shallow_two_stream_3d(width=8), scene, rounds=6)
    assert found.equality.equal
    assert 5 < found.counted < 16


def test_in_containers_of_the_library() -> None:
    model = inception3d_block(8, SMALL)
    clip = torch.rand(1, 8, 6, 7, 7)  # of negative frames the library's max pool takes its padding, 0, at the start
    library, net = of_library(model), stepper(model)
    with torch.no_grad():
        assert compare_outputs(model(clip), library(clip)).equal
        assert compare_outputs(library.forward_steps(clip), net.over(clip)[0]).equal
    assert (library.delay, library.receptive_field) == (net.delay, net.reach.receptive_field)


def test_a_max_pool_of_negative_frames_is_torchs_from_the_first_one_on() -> None:
    pool, clip = nn.MaxPool3d(3, 1, 1), -1 - torch.rand(1, 2, 6, 4, 4)
    outputs = stepper(pool).over(clip)[0]
    assert compare_outputs(pool(clip)[:, :, : outputs.shape[2]], outputs).equal


def test_a_window_and_a_step_that_ran_on_different_kernels() -> None:
    conv, clip = nn.Conv3d(64, 64, (3, 1, 1)).eval(), torch.randn(1, 64, 6, 28, 28)
    given = {"approach": "sequential(threads=2)", "transforms": (), "channels_last": False, "rounds": 6}
    found = window_versus_step(conv, clip, **given)  # on two threads PyTorch gives the step's 1x1 convolution to oneDNN
    (exchange,) = found.exchanges
    assert [(kernel.operator, kernel.name) for kernel in (*exchange.lost, *exchange.gained)] == [
        ("conv3d", "slow_conv3d"),
        ("conv2d", "oneDNN"),
    ]
    same = window_versus_step(conv, clip, one_dnn=True, **given)
    assert same.exchanges == []
    assert {kernel.name for side in same.kernels.values() for kernel in side} == {"oneDNN"}
    assert same.equality.equal


def test_what_preparing_a_window_gains_is_not_limited_by_the_cores() -> None:
    """It was called a busy machine, since one lane on two cores cannot be more than twice as fast."""
    found = prepared_or_not(inception3d_block(8, SMALL), torch.randn(2, 8, 6, 7, 7), rounds=9)
    assert {row.name: row.rewritten for row in found.rows} == {
        "window": False,
        "step": True,
        "window_prepared": True,
        "step_prepared": True,
    }
    assert found.baseline.name == "window"
    assert found.unit == "predictions"


def test_frames_are_as_a_camera_gives_them() -> None:
    clip = torch.randn(2, 3, 4, 5, 5)
    for x, memory in ((clip, torch.contiguous_format), (channels_last(clip), torch.channels_last)):
        frames = frames_of(x)
        assert all(frame.is_contiguous(memory_format=memory) for frame in frames)
        assert torch.equal(torch.stack(frames, 2), clip)
