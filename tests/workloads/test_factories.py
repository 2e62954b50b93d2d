"""A user's own factory: loaded from a file or a module, run in every way, and told clearly what is wrong with it."""

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit.verbs
from kit.cli import _told_if_long, main
from kit.errors import KitError, UnknownNameError
from kit.workloads.factories import load

ROOT = Path(__file__).parents[2]
MINE = """
import torch
from torch import nn
import beside


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)


def two():
    return Two().eval(), torch.randn(1, 3, 16, 16)


def training():
    return nn.Sequential(nn.BatchNorm2d(3)), torch.randn(1, 3, 16, 16)


def needs(x, *, width, depth=3): return x
def number(): return 3
def three(): return Two(), 1, 2
def swapped(): return torch.ones(1), Two()


def fails():
    return beside.broken(), None
"""
BESIDE = """
def broken():
    return 1 / 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With the files above; Python's path and modules are as before afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "raises.py").write_text("import beside\n\nbeside.broken()\n")
    (tmp_path / "itself.py").write_text("\n\n1 / 0\n")
    (tmp_path / "wrong.py").write_text("def make(:\n")
    (tmp_path / "lacks.py").write_text("import no_such_package\n")
    (tmp_path / "relative.py").write_text("from .beside import broken\n")
    yield tmp_path
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_factory_of_a_file_or_of_a_module_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(f"{folder / 'mine.py'}:two")[1].shape == (1, 3, 16, 16)
    monkeypatch.chdir(folder)
    assert load("mine:two")[1].shape == (1, 3, 16, 16)
    (folder / "random.py").write_text(MINE)
    assert load("random.py:two")[1].shape == (1, 3, 16, 16)
    assert sys.path.index(str(folder)) == len(sys.path) - 1  # else the next process would take random.py for Python's


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.py:make", r"no file 'none\.py'"),
        ("C:\\models.py:make", "no file"),
        ("C:\\models.py", "does not name a factory: write FILE.py:factory"),
        ("mine.py", "does not name a factory: write FILE.py:factory"),
        ("mine.py:", "does not name a factory: write FILE.py:factory"),
        ("mine.py:needs", r"takes arguments \(x, width\), but a factory must not need arguments"),
        ("mine.py:number", r"returned int: return \(model, inputs\)"),
        ("mine.py:three", r"returned \(Two, int, int\): return \(model, inputs\)"),
        ("mine.py:swapped", r"returned \(Tensor, Two\): return \(model, inputs\)"),
        ("mine.py:fails", r"raised ZeroDivisionError: division by zero \(.*beside\.py, line 3\)"),
        ("empty.py:make", r"has no function: write one, as in def make\(\)"),
        ("raises.py:make", r"cannot be imported: ZeroDivisionError: division by zero \(.*beside\.py, line 3\)"),
        ("itself.py:make", r"cannot be imported: ZeroDivisionError: division by zero \(.*itself\.py, line 3\)"),
        ("wrong.py:make", r"cannot be imported: SyntaxError: .*wrong\.py, line 1"),
        ("lacks.py:make", r"cannot be imported: ModuleNotFoundError: .*no_such_package.*lacks\.py, line 1"),
        ("relative.py:make", r"part of a package .*: name it as package\.module:factory"),
        ("nowhere.models:make", r"no module 'nowhere\.models', looked for in .*: check its name"),
        ("queue:make", r"queue is a module of Python itself: name the file, as in queue\.py:factory"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said_in_a_sentence(
    name: str, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(KitError, match=says):
        load(name)


def test_a_slip_in_the_name_is_told_with_the_near_ones(folder: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"called 'trainig': did you mean 'training'\? Known: two, training, needs"
    ):
        load(f"{folder / 'mine.py'}:trainig")


def test_a_file_is_compared_and_drawn_from_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[object] = []
    analysed = kit.verbs.analysed
    monkeypatch.setattr(kit.verbs, "analysed", lambda *given: captured.append(given) or analysed(*given))
    mine, traces = f"{folder / 'mine.py'}:two", folder / "traces"
    arguments = ["--approaches", "sequential,threads,processes", "--rounds", "6", "--traces", str(traces)]
    assert main(["compare", mine, *arguments]) == 0
    said = capsys.readouterr().out
    assert "branches were found by torch.fx" in said
    assert len([line for line in said.splitlines() if line.startswith(("threads", "processes")) and "yes" in line]) == 2
    rows = ("sequential", "branched", "threads", "processes")
    assert {path.name for path in traces.iterdir()} == {f"Two-{row}.json.gz" for row in rows}
    assert len(captured) == 1  # for the comparison and all recordings
    assert main(["graph", mine]) == 0
    assert "captured by torch.fx" in capsys.readouterr().out
    assert main(["graph", "two-stream"]) == 0
    assert "captured by torch.fx for these shapes" in capsys.readouterr().out  # its forward asks for shapes


def test_what_takes_long_is_said_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    written = threading.Event()
    stream = io.StringIO()
    monkeypatch.setattr(stream, "flush", written.set)
    monkeypatch.setattr(sys, "stderr", stream)
    with _told_if_long("capturing Two", after_s=0), contextlib.redirect_stderr(io.StringIO()):
        assert written.wait(30)
    with _told_if_long("nothing", after_s=60):
        pass
    assert stream.getvalue() == "capturing Two ...\n"


OWN = """
import torch
from torch import nn

import kit
from parts.leaf import Leaf, joined


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.region = kit.Branches({"a": Leaf(), "b": Here()}, joined)

    def forward(self, x):
        return self.region(x)


class Here(Leaf):
    def forward(self, x):
        from late import twice

        return twice(super().forward(x))


def make():
    return Own().eval(), torch.randn(1, 3, 16, 16)
"""
LEAF = """
import torch
from torch import nn


class Leaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)


def joined(outputs):
    return torch.cat(outputs, 1)
"""


@pytest.mark.parametrize(
    ("name", "here"), [("../project/own.py:make", "elsewhere"), ("own:make", "project"), ("pack.own:make", "project")]
)
def test_worker_processes_know_the_classes_of_a_file_and_of_what_lies_beside_it(
    name: str, here: str, tmp_path: Path
) -> None:
    """Through the installed command, for which the current folder is not on Python's path."""
    for each in ("project/parts", "project/pack", "elsewhere"):
        (tmp_path / each).mkdir(parents=True)
    project = tmp_path / "project"
    (project / "own.py").write_text(OWN)
    (project / "pack/own.py").write_text(OWN)
    (project / "parts/leaf.py").write_text(LEAF)
    (project / "late.py").write_text("def twice(x):\n    return 2 * x\n")
    command = [sys.executable, "-P", "-c", "import sys; from kit.cli import main; sys.exit(main())", "compare", name]
    done = subprocess.run(
        [*command, "--approaches", "sequential,processes", "--rounds", "6"],
        cwd=tmp_path / here,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("processes"))
    assert "yes" in row, done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "{}:training"], "in training mode"),
        (["graph", "{}:training"], "in training mode"),
        (["compare", "{}:two", "--items", "3"], "has its own inputs"),
        (["compare", "{}:trainig"], "did you mean 'training'?"),
        (["compare", "{}"], "does not name a factory"),
        (["compare", "{}:two", "--approaches", "threds"], "did you mean 'threads'?"),
        (["graph", "feeding"], "is not a model"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([each.format(folder / "mine.py") for each in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert said in message
    assert message.count("\n") == 1
