"""Workloads: a model and inputs that fit it, from a name."""

from pathlib import Path

import pytest
import torch

from kit import clips
from kit.equality import inputs_without_effect, tensors
from kit.errors import ClipError, KitError, UnavailableError, UnknownNameError
from kit.workloads import NAMES, workload

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "eleven.mp4"
    clips.save(clips.generate(frames=11, height=120, width=160, seed=3), path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_inputs_fit_the_model_which_reacts_to_each(name: str) -> None:
    work = workload(name)
    assert work.name == name
    with torch.inference_mode():
        assert next(iter(tensors(work.model(*work.inputs))))[1].shape[0] == 1
        assert inputs_without_effect(work.model, work.inputs) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_the_same_each_time(name: str) -> None:
    for one, same in zip(workload(name).inputs, workload(name).inputs, strict=True):
        assert torch.equal(one, same)


def test_the_shapes_of_two_stream() -> None:
    assert [tuple(x.shape) for x in workload("two-stream").inputs] == [(1, 3, 112, 112), (1, 20, 112, 112)]


def test_the_shapes_of_whole_networks() -> None:
    assert [tuple(x.shape) for x in workload("googlenet").inputs] == [(1, 3, 224, 224)]
    assert [tuple(x.shape) for x in workload("inception-v3").inputs] == [(1, 3, 299, 299)]
    assert [tuple(x.shape) for x in workload("two-stream-i3d").inputs] == [(1, 3, 8, 224, 224), (1, 2, 8, 224, 224)]


def test_i3d_sees_each_frame_with_its_flow(video: Path) -> None:
    rgb, flow = workload("two-stream-i3d", video).inputs
    last = clips.Clip(clips.load(video).frames[7:9], 25.0, "two frames")
    frame, motion = clips.two_stream_inputs(last, size=224, length=1)
    assert torch.equal(rgb[:, :, 7], torch.from_numpy(frame))
    assert torch.equal(flow[:, :, 7], torch.from_numpy(motion))
    assert not torch.equal(rgb[:, :, 0], rgb[:, :, 7])


@pytest.mark.parametrize("name", ["googlenet", "inception-v3", "two-stream", "two-stream-i3d"])
def test_a_clip_takes_the_place_of_the_scene(name: str, video: Path) -> None:
    own, scene = workload(name, video), workload(name)
    for x, other in zip(own.inputs, scene.inputs, strict=True):
        assert x.shape == other.shape
        assert not torch.allclose(x, other)


def test_a_clip_that_is_missing_or_too_short(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"no clip .*did you mean 'eleven\.mp4'"):
        workload("two-stream", video.with_name("elevn.mp4"))
    short = tmp_path / "short.mp4"
    clips.save(clips.generate(frames=10, height=64, width=64), short)
    with pytest.raises(ClipError, match="needs 11 frames, but there are 10"):
        workload("two-stream", short)
    clips.save(clips.generate(frames=8, height=64, width=64), short)
    with pytest.raises(ClipError, match=r"needs 9 frames.* has 8"):
        workload("two-stream-i3d", short)


def test_a_clip_where_none_is_taken(video: Path) -> None:
    with pytest.raises(KitError, match="takes no clip"):
        workload("inception-block", video)


def test_an_unknown_workload() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'two-stream'"):
        workload("two_streams")


@NO_CUDA
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none_is_never_replaced(device: str) -> None:
    with pytest.raises(UnavailableError, match=f"no {device} here.*doctor"):
        workload("two-stream", device=device)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "meta", "mps"])
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(KitError, match="write cpu, cuda or cuda:1"):
        workload("inception-block", device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_workload_on_a_gpu() -> None:
    work = workload("inception-block", device="cuda")
    assert {x.device.type for x in (*work.inputs, *work.model.parameters())} == {"cuda"}
