"""Where a result comes from."""

import sys
import types
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from kit.machine.about import LONGEST_COMMAND, About, about_here
from kit.machine.hardware import detect


def test_this_process_and_this_machine() -> None:
    about = about_here()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(about.date)) < timedelta(minutes=1)
    assert about.versions["torch"] == torch.__version__
    assert about.versions["numpy"] == np.__version__
    assert about.versions["python"].startswith("3.")
    assert about.machine["cores"] == detect().cores
    assert about.machine["cpu"] in str(about)


def test_the_command_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "kit", "compare", "a model"])
    assert about_here().command == "python3 -m kit compare 'a model'"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "x" * 9999])
    assert len(about_here().command) == LONGEST_COMMAND
    ipython = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel="of a notebook"))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert about_here().command == "notebook"


def test_what_is_not_known_is_left_out_of_the_line() -> None:
    assert str(About()) == ""
    assert str(About("2026-11-26T04:20:52+00:00", "notebook")) == "made 2026-11-26 04:20:52 UTC by notebook"
    machine = {"cpu": "Z80", "cores": 1, "gpus": "H100"}
    assert str(About(versions={"kit": "1"}, machine=machine)) == "kit 1; Z80, 1 core, H100"
    assert str(About(machine={"cpu": "16 cores of a virtual machine", "cores": 16})) == (
        "16 cores of a virtual machine, no GPU"
    )
