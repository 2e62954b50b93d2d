"""Every public name has an example in its docstring, and an example gives what it shows.

The examples assume ``import kit, torch, numpy as np`` and ``from torch import nn``, and import all else themselves.
"""

import doctest
import importlib
import inspect
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

import kit
from kit.approaches import REGISTRY

ROOMS = ("kit.approaches", "kit.clips", "kit.executors", "kit.models", "kit.models.continual", "kit.pipeline")
ROOMS += ("kit.simulating", "kit.trace", "kit.workloads")
NAMES = [f"kit.{name}" for name in kit.__all__]
NAMES += [f"{room}.{name}" for room in ROOMS for name in importlib.import_module(room).__all__ if name not in dir(kit)]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(room), last)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return  # a constant or a module
    names = {"kit": kit, "torch": torch, "nn": nn, "np": np}
    [example] = doctest.DocTestFinder(recurse=False).find(thing, name, globs=names)
    assert example.examples, f"{name} has no example in its docstring: write what a reader would type after >>>"
    monkeypatch.chdir(tmp_path)  # some write a file
    torch.manual_seed(0)
    with patch.dict(REGISTRY):  # some register an approach
        failed, _ = doctest.DocTestRunner().run(example)
    assert not failed, capsys.readouterr().out
