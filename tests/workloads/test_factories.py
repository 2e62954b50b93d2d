"""A user's own factory: loaded from a file, and told clearly what is wrong with it."""

from pathlib import Path

import pytest

from kit.cli import main
from kit.errors import KitError
from kit.workloads.factories import load

TEXT = """import torch, beside
def make(): return torch.nn.Linear(2, 2), torch.ones(1, 2)
def needs(x): return x
def wrong(): return 3
"""


def test_a_factory_of_a_file_or_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("")
    file = tmp_path / "own.py"
    file.write_text(TEXT)
    assert load(f"{file}:make")[1].shape == (1, 2)
    for name, says in (("mak", "make"), ("needs", "takes no arguments"), ("wrong", "returned int")):
        with pytest.raises(KitError, match=says):
            load(f"{file}:{name}")
    file.write_text("\n1 / 0\n")
    with pytest.raises(KitError, match=r"own\.py, line 2"):
        load(f"{file}:make")
    with pytest.raises(KitError, match="no file"):
        load(f"{tmp_path / 'none.py'}:make")


MINE = """
import torch
from torch import nn


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
"""


def test_a_file_is_compared_and_drawn_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    mine = f"{tmp_path / 'mine.py'}:two"
    assert main(["compare", mine, "--approaches", "sequential,threads,processes", "--rounds", "6"]) == 0
    said = capsys.readouterr().out
    assert "branches were found by torch.fx" in said
    assert len([line for line in said.splitlines() if line.startswith(("threads", "processes")) and "yes" in line]) == 2
    assert main(["graph", mine]) == 0
    assert "captured by torch.fx" in capsys.readouterr().out
    assert main(["graph", "two-stream"]) == 0
    assert "captured by torch.export" in capsys.readouterr().out  # its forward asks for shapes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "{}:training"], "in training mode"),
        (["graph", "{}:training"], "in training mode"),
        (["compare", "{}:two", "--items", "3"], "brings its inputs"),
        (["compare", "{}:tow"], "no function 'tow': choose from two"),
        (["graph", "feeding"], "is no model"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert main([each.format(tmp_path / "mine.py") for each in arguments]) == 2
    assert said in capsys.readouterr().err
