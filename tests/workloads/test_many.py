"""Many items: every approach gives the same outputs, in order; rates add up; what cannot run says so."""

import json
import multiprocessing
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kit
from kit import load_trace, spans, workloads
from kit.approaches import Calls, FunctionRunner, Workload
from kit.cli import main
from kit.equality import compare_outputs
from kit.errors import ClipError, KitError, MeasureError, TaskError, UnavailableError, UnknownNameError, WorkerError
from kit.explaining.explanation import explain
from kit.machine.hardware import detect
from kit.measuring.statistics import MIN_ROUNDS
from kit.models import trained_two_stream
from kit.workloads import feeding, live, opencv_dnn, workload
from kit.workloads.feeding import Pictures, Unread, collate

pytest.importorskip("onnx")
ITEMS = 3


@pytest.fixture(scope="module")
def images() -> Workload:
    return opencv_dnn.make(ITEMS)


def output(work: Workload, way: str) -> object:
    with work.prepare(way) as runner, torch.inference_mode():
        return runner()


# OpenCV's DNN module -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["threads", "processes", "batch", "batch(threads=1)", "onnxruntime", "torch"])
def test_every_way_classifies_as_torch_does(images: Workload, way: str) -> None:
    expected = output(images, "torch")
    assert expected.shape == (ITEMS, 45)
    assert expected.sum(1) == pytest.approx(torch.ones(ITEMS))
    assert compare_outputs(expected, output(images, way)).equal
    # not vacuous: another image gives other odds, by far more than what counts as equal
    assert not compare_outputs(expected[:1], expected[1:2]).equal


def test_another_runtime_is_not_limited_by_what_lanes_could_give(images: Workload) -> None:
    """ONNX Runtime was 2.3x as fast as the loop on one lane, and the table called that a busy machine."""
    rewrites = {name: getattr(images.approaches[name], "rewrites", False) for name in images.approaches}
    assert rewrites == {"pool_cold": False, "batch": True, "onnxruntime": True, "torch": True}


def test_a_fixed_batch_of_one_refuses_more_with_opencvs_own_error() -> None:
    import cv2

    network = opencv_dnn.OpenCV(opencv_dnn.exported(1))
    one, *more = opencv_dnn.pictures(2)
    assert network(one).shape == (1, 45)
    with pytest.raises(cv2.error, match=r"Invalid dimension|shape"):
        network(one, *more)


def test_preprocessing_is_its_own_span_and_the_forums() -> None:
    grey = torch.full((480, 640, 3), 128, dtype=torch.uint8)
    grey[..., 2] = 255  # red, in BGR
    with spans.collect() as log:
        blob = opencv_dnn.preprocess((grey,))
    assert [each.name for each in log.spans] == ["preprocess"]
    want = [(value / 255 - mean) / std for value, mean, std in zip((255, 128, 128), *_statistics(), strict=True)]
    assert blob.shape == (1, 3, 224, 224)
    assert blob[0, :, 100, 100].tolist() == pytest.approx(want, abs=1e-3)


def _statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    from kit import clips

    return clips.RGB_MEAN, clips.RGB_STD


def test_every_thread_has_a_net_of_its_own(images: Workload) -> None:
    with images.prepare("threads(workers=2)") as runner, spans.collect() as log:
        for _ in range(4):
            runner()
    loads = [each.thread for each in log.spans if each.name == "load network"]
    assert len(loads) == len(set(loads)) <= 2


@pytest.mark.parametrize("threads", [1, 2])
def test_opencv_has_the_threads_of_its_lane(images: Workload, threads: int) -> None:
    import cv2

    before = torch.get_num_threads()
    with images.prepare(f"threads(workers=2,threads={threads})") as runner:
        runner()
        assert cv2.getNumThreads() == threads
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        ([torch.tensor([3, 1])], opencv_dnn.Misuse(40, wrong=3, raised=1)),
        ([torch.tensor([0, 0])], opencv_dnn.Misuse(40)),
        (WorkerError("killed by SIGSEGV"), opencv_dnn.Misuse(40, died="killed by SIGSEGV")),
    ],
)
def test_what_comes_of_sharing_a_net_is_told(
    monkeypatch: pytest.MonkeyPatch, outcome: list[torch.Tensor] | WorkerError, found: opencv_dnn.Misuse
) -> None:
    def run(pool: object, tasks: object) -> list[torch.Tensor]:
        if isinstance(outcome, WorkerError):
            raise outcome
        return outcome

    monkeypatch.setattr("kit.workloads.opencv_dnn.ProcessesCold.run", run)
    assert opencv_dnn.share_one_net(40) == found
    assert found.harmless == (found == opencv_dnn.Misuse(40))


def test_two_threads_that_share_a_net_leave_this_process_alone() -> None:
    opencv_dnn.share_one_net(40)  # what comes of it is a matter of chance
    assert compare_outputs(output(opencv_dnn.make(1), "sequential"), output(opencv_dnn.make(1), "torch")).equal


def test_the_control_sleeps_for_each_item() -> None:
    control = opencv_dnn.sleep_control(3, 0.02)
    trace = kit.record(control, approach="sequential", operators=False)
    naps = [event.duration_ns for event in trace.events() if event.name == "sleep"]
    assert len(naps) == 3
    assert min(naps) >= 20_000_000


# Rates ---------------------------------------------------------------------------------------------------------------


def test_a_comparison_tells_rates_and_no_latencies(images: Workload) -> None:
    rates = kit.compare(images, approaches="batch", rounds=MIN_ROUNDS, progress=False)
    assert [row.name for row in rates.rows] == ["sequential", "batch"]
    assert rates.table()[0][:2] == ("approach", "images/s")
    median = rates["batch"].timing.median_ms
    assert rates.per_second("batch") == pytest.approx(ITEMS / median * 1000)
    plain = rates.to_dict()
    assert plain["unit"] == "images"
    assert plain["items"] == ITEMS
    assert [row["equal"] for row in plain["approaches"]] == [True, True]
    assert " ms" not in str(rates).split("interleaved")[0]


def test_the_first_sequential_leads_with_its_options() -> None:
    control = opencv_dnn.sleep_control(2, 0.001)
    rates = kit.compare(
        control, approaches="threads,sequential(threads=2),sequential", rounds=MIN_ROUNDS, progress=False
    )
    assert [row.name for row in rates.rows] == ["sequential(threads=2)", "sequential", "threads"]
    assert rates.rows[0].verdict == "baseline"


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("bach", "did you mean 'batch'"),
        ("batch(thread=1)", "no option of batch 'thread'"),
        ("batch(threads=some)", "whole number"),
    ],
)
def test_a_wrong_way_is_named(images: Workload, way: str, message: str) -> None:
    with pytest.raises(KitError, match=message):
        images.prepare(way)


def test_an_approach_that_cannot_run_keeps_its_row() -> None:
    def broken() -> FunctionRunner:
        raise UnavailableError("there is no such thing here.")

    def torn() -> FunctionRunner:
        raise RuntimeError("a tear")

    work = live.make(3)
    work = replace(work, approaches={**work.approaches, "broken": Calls(broken), "torn": Calls(torn)})
    rates = kit.compare(work, approaches="broken, torn, pipeline", rounds=MIN_ROUNDS, progress=False)
    assert rates["broken"].verdict == rates["torn"].verdict == "not available"
    assert rates["broken"].reason == "there is no such thing here."
    assert rates["torn"].reason == "RuntimeError: a tear"
    assert rates["pipeline"].timing
    assert "frames/s" in str(rates)


def test_without_a_model_only_its_own_approaches_run() -> None:
    with pytest.raises(KitError, match=r"pipeline is not a model, so threads cannot run it: choose from sequential"):
        live.make(3).prepare("threads")
    with pytest.raises(KitError, match=r"pipeline is not a model, so folded \+ pipeline cannot run it"):
        live.make(3).prepare("folded + pipeline")
    with pytest.raises(KitError, match="loader runs the whole workload by itself: name it alone"):
        feeding.make(2).prepare("folded + loader")


def test_a_workload_brings_its_inputs() -> None:
    with pytest.raises(KitError, match=r"feeding has its own inputs: name approaches as approaches='threads'"):
        kit.compare(feeding.make(2), "threads")


def test_a_budget_that_is_too_small_is_refused(images: Workload) -> None:
    with pytest.raises(MeasureError, match="budget"):
        kit.compare(images, approaches="batch", budget=1e-6, progress=False)


def test_many_items_are_explained_in_items_a_second(images: Workload) -> None:
    rates = kit.compare(images, approaches="threads(threads=1), batch", rounds=MIN_ROUNDS, progress=False)
    for row in rates.rows:
        explanation = explain(rates, row.name)
        # Beside other programs nothing is decided, and so nothing advised.
        undecided = any(each.verdict == "not decided" for each in rates.rows)
        assert undecided or "images/s" in explanation.advice[0].text
        assert not any("one request at a time" in each.text for each in explanation.advice)
    factors = explain(rates, "threads(threads=1)").factors
    assert factors is not None
    assert factors["lanes"] == min(images.items, detect().cores)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("opencv-dnn", Path("x.mp4")), "opencv-dnn takes no clip"),
        (("feeding", None, "cuda"), "feeding runs on the CPU"),
        (("pipeline", None, "cpu", 0), "0 items are too few"),
        (("two-stream", None, "cpu", 3), "one request, not 3 items"),
    ],
)
def test_what_a_workload_does_not_take(arguments: tuple, says: str) -> None:
    with pytest.raises(KitError, match=says):
        workload(*arguments)


def test_names_of_both_kinds_are_listed() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'feeding'"):
        workload("feding")
    assert set(workloads.MANY) == {"feeding", "opencv-dnn", "pipeline"}


# Feeding -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return feeding.write_pictures(tmp_path_factory.mktemp("pictures"), 6)


WAYS = ["threads", "processes", "mp_pool", "mp_spawn", "loader", "loader(workers=2,batch=2)"]


@pytest.mark.parametrize("way", [*WAYS, "loader(workers=1,persistent=0)", "pool_cold"])
def test_every_way_reads_the_same(way: str) -> None:
    work = feeding.make(5)
    expected = output(work, "sequential")
    assert expected.images.shape == (5, 3, 112, 112)
    assert compare_outputs(expected, output(work, way)).equal
    assert not compare_outputs(expected.images[0], expected.images[1]).equal


def test_its_files_can_be_removed_and_come_back() -> None:
    file = feeding.make(2).model.branches["0001"].files[1]
    assert file.is_file()
    feeding.remove_pictures()
    assert not file.parent.exists()
    assert output(feeding.make(2), "sequential").images.shape[0] == 2


@pytest.mark.parametrize("work", feeding.WORKS)
def test_each_work_gives_normalised_inputs(folder: list[Path], work: str) -> None:
    pictures = Pictures(folder, work)
    side = feeding.SIDE // 2 if work == "python" else feeding.SIDE
    assert pictures[0].shape == (3, side, side)
    middle = [pictures[0].mean().item(), Pictures(folder)[0].mean().item()]
    assert middle[0] == pytest.approx(middle[1], abs=0.15)


def test_a_file_that_is_no_picture_is_raised_by_name_or_left_out(folder: list[Path], tmp_path: Path) -> None:
    bad, cut, gone = tmp_path / "bad.jpg", tmp_path / "empty.jpg", tmp_path / "gone.jpg"
    bad.write_bytes(b"no picture at all")
    cut.write_bytes(b"")
    files = [folder[0], bad, folder[1], cut, gone]
    for i, name in ((1, "bad.jpg"), (3, "empty.jpg"), (4, "gone.jpg")):
        with pytest.raises(ClipError, match=name):
            Pictures(files)[i]
    skipping = Pictures(files, on_error="skip")
    batch = collate([skipping[i] for i in range(len(files))])
    assert [item.name for item in batch.unread] == ["bad.jpg", "empty.jpg", "gone.jpg"]
    assert len(batch.images) + len(batch.unread) == len(files)
    assert torch.equal(batch.images[1], Pictures(files)[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_tells_what_it_left_out(folder: list[Path], tmp_path: Path, workers: int) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    with feeding._loader(Pictures([*folder[:3], bad], on_error="skip"), workers, 2, 2, True, False) as runner:
        batch = runner()
    assert [len(batch.images), len(batch.unread)] == [3, 1]
    assert isinstance(batch.unread[0], Unread)


def test_a_loader_raises_what_a_worker_raised_and_leaves_no_process(folder: list[Path], tmp_path: Path) -> None:
    with (
        feeding._loader(Pictures([*folder[:3], tmp_path / "gone.jpg"]), 1, 2, 2, True, False) as runner,
        pytest.raises(ClipError, match=r"gone\.jpg"),
    ):
        runner()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of one thread are POSIX")
@pytest.mark.parametrize("way", ["threads", "pool_cold", "mp_pool", "mp_spawn", "loader(workers=1)"])
def test_an_interrupt_leaves_no_process_and_no_thread(way: str) -> None:
    work = feeding.make(400, "io")  # four seconds of waiting for one worker
    here = threading.main_thread().ident
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(here, signal.SIGINT))
    with work.prepare(way) as runner:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            runner()
    timer.join()
    assert multiprocessing.active_children() == []
    assert not [each.name for each in threading.enumerate() if each.name.startswith("worker")]


def test_the_command_line_tells_rates_and_writes_the_same_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    command = ["compare", "pipeline", "--items", "12", "--approaches", "pipeline", "--rounds", "6"]
    assert main([*command, "--json", str(out), "--traces", str(tmp_path)]) == 0
    assert "frames/s" in capsys.readouterr().out
    told = json.loads(out.read_text())
    assert (told["workload"], told["items"], told["unit"], told["rounds"]) == ("pipeline", 12, "frames", 6)
    assert [row["name"] for row in told["approaches"]] == ["sequential", "pipeline"]
    assert told["approaches"][1].keys() >= {"median_ms", "ratio", "equal", "verdict", "per_second"}
    names = {event.name for event in load_trace(tmp_path / "pipeline-pipeline.json.gz").events()}
    assert {"decode", "flow", "two-stream", "label"} <= names


# The live pipeline ---------------------------------------------------------------------------------------------------


def test_the_pipeline_sees_what_the_sequential_version_sees() -> None:
    work = live.make(14)
    expected = output(work, "sequential")
    assert expected.shape == (14, 45)
    assert compare_outputs(expected, output(work, "pipeline(capacity=1)")).equal
    assert not compare_outputs(expected[:1], expected[-1:]).equal


def test_its_last_frame_is_what_recognise_would_see() -> None:
    """The stack of a pipeline and that of a clip are the same fields."""
    from kit import clips

    clip = clips.load(live.CLIP, max_frames=11)
    sights: list[live.Sight] = []
    live.pipeline(trained_two_stream()).run(iter(clip.frames), sights.append)
    _, stack = clips.two_stream_inputs(clip, size=live.TRAINED_SIZE)
    assert torch.equal(torch.from_numpy(sights[-1].stack), torch.from_numpy(stack))
    assert sights[-1].texture.name in clips.TEXTURES
    assert sights[-1].motion.name in clips.MOTIONS


def test_no_camera_is_said_and_a_clip_only_where_asked() -> None:
    with pytest.raises(UnavailableError, match="camera 99 cannot be opened"):
        live.camera(99)
    assert next(live.camera(99, instead=live.CLIP)).shape == (240, 320, 3)


def test_a_file_is_let_go_when_the_pipeline_is_stopped() -> None:
    source = live.frames(live.CLIP)
    line = live.pipeline(trained_two_stream())
    line.run(source, lambda sight: line.stop())
    assert next(source, None) is None


def test_a_frame_of_another_kind_ends_it() -> None:
    with pytest.raises(TaskError, match="'flow' raised"):
        live.pipeline(trained_two_stream()).run([torch.zeros(3).numpy()], lambda sight: None)
