"""A user's own factory: loaded from a file, and told clearly what is wrong with it."""

from pathlib import Path

import pytest

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
