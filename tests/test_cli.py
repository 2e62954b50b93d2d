"""The command line: what it prints, writes and returns, without Jupyter and without plotly."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.synthetic import synthesise
from kit import clips, load_trace
from kit.approaches import split_names
from kit.cli import main
from kit.data_files import data_file
from kit.measuring.comparison import Comparison, load_comparison
from kit.workloads import NAMES
from tests.explaining.test_explanation import example

ROOT = Path(__file__).parents[1]
ABSENT = (
    "IPython",
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "jupyterlab",
    "plotly",
    "skimage",
    "psutil",
    "tqdm",
)

QUICK = ["inception-block", "--approaches", "sequential(threads=1)", "--rounds", "6"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def check_contract(comparison: dict[str, Any], names: list[str]) -> None:
    rows = comparison["approaches"]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert {"name", "available", "reason", "median_ms", "ratio", "equal", "max_abs_error"} <= row.keys()
        assert row["available"] is True
        assert row["reason"] is None
        assert row["median_ms"] > 0
    for row in rows[1:]:
        ratio = row["ratio"]
        assert ratio.keys() == {"estimate", "low", "high"}
        assert 0 < ratio["low"] <= ratio["estimate"] <= ratio["high"]
        assert row["equal"] is True
        assert 0 <= row["max_abs_error"] < 1e-3


def test_compare_headless_with_json_and_traces(tmp_path: Path) -> None:
    """In a process of its own, in which nothing of the lab can be imported."""
    out, traces = tmp_path / "out.json", tmp_path / "deep" / "traces"
    names = ["sequential", "threads", "processes"]
    arguments = ["compare", "two-stream", "--approaches", "sequential,threads,processes", "--rounds", "9"]
    arguments += ["--json", str(out), "--traces", str(traces)]
    done = python(
        "-W",
        "error",
        "-c",
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
        f"from kit.cli import main\n"
        f"sys.exit(main({arguments}))",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()][:5] == ["approach", *names, "9"]
    assert f"wrote {out}" in done.stdout
    comparison = json.loads(out.read_text())
    assert comparison["workload"] == "two-stream"
    assert comparison["rounds"] == 9
    check_contract(comparison, names)
    assert {path.name for path in traces.iterdir()} == {f"two-stream-{name}.json.gz" for name in names}
    for path in traces.iterdir():
        events = list(load_trace(path).events())
        assert sum(event.name == "aten::convolution" for event in events) == 10
        assert {"spatial", "temporal", "merge"} <= {event.name for event in events}


def test_nothing_of_the_lab_is_imported_although_it_is_there() -> None:
    lab = [name for name in ABSENT if name != "tqdm"]  # which torch imports where it is installed
    done = python("-c", f"import sys, kit.cli\nprint([name for name in {lab} if name in sys.modules])")
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_inception_block_with_options_in_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    names = "threads(workers=2, threads=1),sequential(threads=1)"
    assert main(["compare", "inception-block", "--approaches", names, "--rounds", "6", "--json", str(out)]) == 0
    check_contract(json.loads(out.read_text()), ["sequential(threads=1)", "threads(workers=2, threads=1)"])
    assert "speed-up over sequential(threads=1)" in capsys.readouterr().out


def test_explain_prints_why_and_adds_it_to_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    arguments = ["--approaches", "sequential,threads", "--rounds", "6", "--explain", "--json", str(out)]
    assert main(["compare", "inception-block", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "load balance" in printed
    comparison = json.loads(out.read_text())
    first, second = comparison["explanations"]
    assert (first["approach"], second["approach"]) == ("sequential", "threads")
    assert set(second["factors"]) == {
        "1 / baseline efficiency",
        "lanes",
        "computation efficiency",
        "load balance",
        "scheduling efficiency",
    }
    assert second["bounds"]["least_ms"] > 0
    if "not decided" not in printed:
        assert "For one request at a time" in printed
        assert len(second["advice"]) == 3
        assert "import torch" in second["snippet"]
    else:  # a busy machine
        assert "nothing is concluded" in printed or "no advice: threads is not decided" in printed
        assert (second["advice"], second["snippet"]) == ([], None)


def saved(folder: Path, name: str = "a.json") -> Path:
    example().save(folder / name)
    return folder / name


def test_a_comparison_is_saved_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.json.gz"
    arguments = ["--approaches", "sequential(threads=1),threads", "--rounds", "6", "--explain", "--save", str(path)]
    assert main(["compare", "inception-block", *arguments]) == 0
    before, _, after = capsys.readouterr().out.rpartition(f"wrote {path}\n")
    assert after == ""
    assert main(["show", str(path), "--explain"]) == 0
    shown = capsys.readouterr().out
    about = str(load_comparison(path).about)
    assert about in shown.splitlines()
    assert shown == before.replace("\n\nthreads:", f"\n{about}\n\nthreads:")
    assert main(["show", str(path)]) == 0
    assert capsys.readouterr().out == shown.partition("\n\nthreads:")[0] + "\n"


def test_a_summary_of_what_was_saved_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--json", str(saved(tmp_path))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["approaches"]] == ["sequential", "threads"]
    assert found["about"]["machine"]["cores"] >= 1


def test_of_two_files_what_changed_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(saved(tmp_path, name)) for name in ("old.json", "new.json.gz")]
    assert main(["show", *files]) == 0
    assert "no difference found" in capsys.readouterr().out
    assert main(["show", "--json", *files]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["approaches"]] == ["sequential", "threads"]
    assert main(["show", *files, files[0]]) == 2
    assert "give one, or an old one and a new one" in capsys.readouterr().err


def test_what_cannot_be_shown_ends_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text('{"traceEvents": []}')
    assert main(["show", str(trace)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {trace} is not a kit comparison: it is a trace")


@pytest.mark.skipif(os.environ.get("KIT_SOAK") != "1", reason="twenty new processes that import torch: make soak")
def test_cold_processes_headless(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    names = ["sequential", "threads", "processes_cold", "processes"]
    arguments = ["--approaches", ",".join(names), "--rounds", "6", "--json", str(out)]
    done = python("-W", "error", "-m", "kit", "compare", "two-stream", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    check_contract(json.loads(out.read_text()), names)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:5]] == names


def test_recording_cold_processes_headless() -> None:
    """The least that starts them: what they would write to the standard error is a warning."""
    code = "import kit, torch\nfrom kit.models import toy_two_stream\n"
    code += "inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)\n"
    code += "print('spawn' in kit.record(toy_two_stream(), inputs, 'processes_cold').names)"
    done = python("-W", "error", "-c", code)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_a_clip_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "clip.mp4"
    clips.save(clips.generate(frames=12, height=64, width=96), video)
    arguments = ["--approaches", "sequential(threads=1)", "--rounds", "6", "--clip", str(video)]
    assert main(["compare", "two-stream", *arguments]) == 0
    assert "sequential" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["two-streams"], "did you mean 'two-stream'"),
        (["resnet50"], "no workload 'resnet50': choose one of these"),
        ([], "name a workload (continual, googlenet"),
        (["--approaches", "threads"], "name a workload (continual, googlenet"),
        (["two-stream", "--approaches", "sequential,thread"], "did you mean 'threads'?"),
        (["two-stream", "--approaches", "sequential", "torch.compile"], "did you mean 'compiled'?"),
        (["two-stream", "--approaches", ""], "no approach was named"),
        (["feeding", "--items", "1", "--approaches", ""], "no approach was named"),
        (["feeding", "--items", "1", "--approaches", "multiprocessing"], "did you mean 'processes'?"),
        (["two-stream", "--approaches", "threads(workers=0)"], "whole number of at least 1"),
        (["two-stream", "--clip", "no/such/clip.mp4"], "no clip 'no/such/clip.mp4'"),
        (["two-stream", "--clip", __file__], "no frame can be decoded"),
        (["inception-block", "--clip", __file__], "takes no clip"),
        (["inception-block", "--rounds", "5"], "at least 6"),
        (["inception-block", "--device", "gpu"], "write cpu, cuda or cuda:1"),
        ([*QUICK, "--json", "no/such/folder/out.json"], "cannot write no/such/folder"),
        ([*QUICK, "--save", "no/such/folder/out.json"], "cannot write no/such/folder"),
        ([*QUICK, "--json", "."], "cannot write .: it is a folder"),
        ([*QUICK, "--traces", __file__], "cannot make the folder"),
    ],
)
def test_bad_input_ends_with_a_message_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert says in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["inception-block", "--approaches", "sequential(threads=1)", "threads(workers=1)"],
        ["--approaches", "sequential(threads=1),threads(workers=1)", "inception-block"],
        ["--approaches", "sequential(threads=1)", "threads(workers=1)", "inception-block", "--seed", "1"],
    ],
)
def test_approaches_with_spaces_or_commas_before_or_after_the_workload(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def compare(work: object, approaches: Any, **options: Any) -> Comparison:
        asked.extend(split_names(approaches))
        return Comparison((), 6, "nothing")

    monkeypatch.setattr("kit.verbs.compare", compare)
    monkeypatch.setattr("kit.cli.print", lambda *_: None, raising=False)  # the table of nothing has no head
    assert main(["compare", *arguments]) == 0
    assert asked == ["sequential(threads=1)", "threads(workers=1)"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "two-stream", "--device", "cuda"]) == 2
    assert "there is no cuda here" in capsys.readouterr().err


def test_a_short_clip_through_the_real_command(tmp_path: Path) -> None:
    video = tmp_path / "short.mp4"
    clips.save(clips.generate(frames=5, height=64, width=64), video)
    done = python("-m", "kit", "compare", "two-stream", "--clip", str(video))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "needs 11 frames, but there are 5" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["hardware"]["cores"] >= 1
    statuses = {check["status"] for check in found["checks"]}
    assert statuses <= {"OK", "WARN", "FAIL"}
    assert status == int("FAIL" in statuses)


def test_doctor_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert all(line.startswith(("[OK] ", "[WARN] ", "[FAIL] ")) for line in capsys.readouterr().out.splitlines())


def test_no_command_is_an_error_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: python -m kit" in capsys.readouterr().err


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.verbs.compare", stop)
    assert main(["compare", "inception-block"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    command = [sys.executable, "-m", "kit", "trace"]
    synthesise(2000, path)
    with subprocess.Popen([*command, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_trace_of_a_cpu_has_no_rows_about_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    op = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 2}
    kernel = {**op, "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7}
    counter = {"ph": "C", "name": "memory", "pid": 1, "tid": 1, "ts": 2, "args": {"bytes": 5}}

    def told(*rows: dict[str, object]) -> list[str]:
        path.write_text(json.dumps({"traceEvents": rows}))
        assert main(["trace", str(path)]) == 0
        return [line[:18].strip() for line in capsys.readouterr().out.split("\n\n")[0].splitlines()]

    plain = ["complete_events", "lanes", "wall", "busy", "sum", "overlap", "of wall", "operators", "other", "idle"]
    assert told(op) == plain
    assert told(op, counter) == [*plain[:1], "counter_values", *plain[1:]]
    gpu = ["gpu_events", "gpu_streams", "gpu_wall", "gpu_sum", "gpu_busy", "gpu_concurrent"]
    assert told(op, kernel) == [*plain[:6], *gpu, "of wall", "kernel", "memory", "runtime", *plain[7:]]


def test_a_trace_tells_its_critical_path_and_why_the_gpu_was_idle_and_what_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, graph = (
        str(data_file(f"traces/h200-inception-block-{approach}.json.gz"))
        for approach in ("sequential", "graphed_streams")
    )
    assert main(["trace", one]) == 0
    alone = capsys.readouterr().out
    for said in ("cudaLaunchKernel", "critical path     time", "for the host", "\nlaunch-bound: for "):
        assert said in alone
    assert " -> of " not in alone
    assert main(["trace", graph, "--against", one]) == 0
    both = capsys.readouterr().out
    assert f"operators, with the calls into CUDA that they make, of {one} -> of {graph}:" in both
    assert f"kernels and copies of {one} -> of {graph}:" in both
    assert "107 -> 4 " in both  # of operators, together
    assert main(["trace", graph, "--against", one, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["critical_path_ns"].values()) == found["wall_ns"]
    assert found["idle"][0]["busy_ns"] == found["gpu_busy_ns"]
    assert found["launch_bound"]["verdict"] != "launch-bound"
    for what, name in (("operators", "aten::conv2d"), ("kernels", "Memcpy DtoD (Device -> Device)")):
        rows = {row["name"]: row for row in found["changes"][what]}
        assert {"name", "before", "before_ns", "after", "after_ns"} == rows[name].keys()


def test_shapes_are_told_apart_as_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    op = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 2}
    rows = [op | {"ts": n, "dur": 2, "args": {"Input Dims": [[n, n]]}} for n in (10, 20)]
    path.write_text(json.dumps({"traceEvents": rows}))
    for flags, shapes in (([], [""]), (["--shapes"], ["10x10", "20x20"])):
        assert main(["trace", str(path), "--json", *flags]) == 0
        assert [row["shapes"] for row in json.loads(capsys.readouterr().out)["top"]] == shapes


def test_a_damaged_trace_is_told_with_the_flag_that_loads_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.json"
    path.write_text('[{"ph": "X", "ts": 1, "dur": 1}, {"ph: "X"}, {"ph": "X", "ts": 5, "dur": 1}]')
    assert main(["trace", str(path)]) == 2
    said = capsys.readouterr().err
    assert "1 of its rows cannot be read" in said
    assert "--partial loads them" in said
    assert "load_trace" not in said
    assert main(["trace", str(path), "--partial", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete_events"] == 2


def test_help_names_every_workload(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert set(NAMES) <= set(capsys.readouterr().out.replace(",", " ").replace(";", " ").split())


def test_predict_in_words_and_as_json_headless(tmp_path: Path) -> None:
    video = tmp_path / "known.mp4"
    clips.save(clips.labelled("rings", "left", seed=1), video)
    done = python(
        "-c",
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        f"from kit.cli import main; sys.exit(main(['predict', '--clip', {str(video)!r}, '--json']))",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["texture"][0]["name"] == "rings"
    assert told["motion"][0]["name"] == "left"
    assert list(told["stages_ms"]) == ["decode", "flow", "spatial", "temporal", "fusion"]


def test_predict_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--clip", str(ROOT / "data/clips/shapes.mp4")]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("texture ", "motion ", "%", "fusion", "ms"))
    for arguments in (["--clip", "nowhere.mp4"], ["nowhere.mp4"]):
        assert main(["predict", *arguments]) == 2
        assert "no clip 'nowhere.mp4'" in capsys.readouterr().err
    for arguments in ([], ["one.mp4", "--clip", "two.mp4"]):
        assert main(["predict", *arguments]) == 2
        assert "error: give exactly one clip, as in 'kit predict my_video.mp4'." in capsys.readouterr().err


def test_train_writes_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kit.workloads import training

    tiny = training.Recipe(clips=4, held_out=4, epochs=1, workers=1)
    monkeypatch.setattr(training, "Recipe", lambda: tiny)
    out = tmp_path / "own.safetensors"
    assert main(["train", "two-stream", "--out", str(out)]) == 0
    assert out.is_file()
    assert out.with_suffix(".json").is_file()
    told = capsys.readouterr().out
    assert "fused     texture " in told
    assert f"wrote {out}" in told


def test_train_looks_at_its_path_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.workloads.training.examples", lambda *_, **__: pytest.fail("it trains"))
    (tmp_path / "taken.json").mkdir()
    for out, says in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "x.safetensors", "No such file"),
        (Path("x.json"), "would be overwritten by the recipe's .json file"),
        (tmp_path / "taken.safetensors", "taken.json: it is a folder"),
    ):
        assert main(["train", "two-stream", "--out", str(out)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert says in message
    assert main(["train", "two-stream", "--out", ""]) == 2


SCRIPT = "import sys\nfrom kit.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"  # as pip writes it


def test_kit_is_a_command_too_and_its_workers_start(tmp_path: Path) -> None:
    [(name, target)] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
    assert (name, target) == ("kit", "kit.cli:main")
    script = tmp_path / "kit"
    script.write_text(SCRIPT)
    done = python(str(script), "compare", "inception-block", "--approaches", "processes", "--rounds", "6")
    assert done.returncode == 0, done.stderr
    assert "not available" not in done.stdout
    helped = python(str(script), "predict", "--help")
    assert helped.stdout.startswith("usage: kit predict [-h] [--clip CLIP] [--json] [file]")


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
import kit.verbs
from kit.cli import main
print("ready", flush=True)
sys.exit(main(["compare", "inception-block", "--rounds", "100000"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_real_interrupt_ends_with_one_word() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        try:
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, error) == (130, b"", b"interrupted\n")
