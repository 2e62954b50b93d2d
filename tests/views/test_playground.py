"""The playground without a browser: its controls, what they measure, the code that does the same, and how it stops."""

from __future__ import annotations

import html
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import kit
from kit import models
from kit.approaches import REGISTRY
from kit.machine import hardware
from kit.measuring.comparison import Comparison
from kit.views import meanwhile, playground
from kit.views.cells import BUILT_IN, Cell, inputs_code, modules_in, named
from kit.views.meanwhile import Meanwhile
from kit.views.playground import Playground
from tests.labs.made_up import made_up

ROOT = Path(__file__).parents[2]


class Sum(nn.Module):
    """Two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


class Decides(nn.Module):
    """Cannot be captured: it decides by a value what to do next."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("a wheel\nhas come off <here>")


@pytest.fixture
def namespace() -> dict[str, Any]:
    """Variables of a notebook."""
    return {
        "net": Sum().eval(),
        "training": nn.Sequential(nn.BatchNorm1d(4)),
        "decides": Decides().eval(),
        "broken": Broken().eval(),
        "x": torch.rand(2, 4),
        "_hidden": Sum().eval(),
        "number": 3,
    }


@pytest.fixture
def play(namespace: dict[str, Any]) -> Iterator[Playground]:
    """A playground that is small and fast, and ends with the test."""
    made = Playground(namespace)
    made.model.value, made.inputs.value, made.rounds.value = "net", "x", 6
    yield made
    made.end()
    assert not [each for each in threading.enumerate() if each.name == "caller"]
    assert active_children() == []


def run(play: Playground) -> None:
    play.button.click()
    play.wait(120)
    assert (play.running, play.button.description) == (False, "Run")


# The cell ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x", "x"),
        (" x ", "x"),
        ("1x3x8x8", "torch.rand(1, 3, 8, 8)"),
        ("(1, 3, 8, 8)", "torch.rand(1, 3, 8, 8)"),
        ("1, 4", "torch.rand(1, 4)"),
        ("(4,)", "torch.rand(4)"),
        ("1x3; 1x4", "(torch.rand(1, 3), torch.rand(1, 4))"),
        ("(1, 3), (1, 4)", "(torch.rand(1, 3), torch.rand(1, 4))"),
        ("((1, 3), (1, 4))", "(torch.rand(1, 3), torch.rand(1, 4))"),
    ],
)
def test_inputs_are_a_variable_or_shapes(text: str, code: str) -> None:
    assert inputs_code(text, {"x": 1}) == code


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read the inputs ''"),
        ("y", "there is no variable 'y'"),
        ("1x0", "cannot read"),
        ("1xx3", "cannot read"),
        ("torch.rand(3)", "cannot read"),
        ("1x-3", "cannot read"),
        ("1x3;", "cannot read"),
        ("1000x1000x1000", "inputs of 4 GB are too large"),
    ],
)
def test_other_inputs_are_refused_with_what_would_do(text: str, said: str) -> None:
    with pytest.raises(kit.KitError, match=said):
        inputs_code(text, {"x": 1})


def test_the_baseline_leads_and_threads_go_to_the_approaches_that_have_them() -> None:
    assert named([], "", None) == ["sequential"]
    assert named(["threads", "folded"], "", None) == ["sequential", "threads", "folded"]
    several = named(["threads", "folded"], "folded + threads(workers=2), threads(threads=1)", 1)
    assert several == [
        "sequential",
        "sequential(threads=1)",
        "threads(threads=1)",
        "folded",
        "folded+threads(workers=2)",
    ]


def test_a_name_cannot_leave_its_quotes() -> None:
    cell = Cell("net", "x", ['threads"]); boom(["'], 6)
    with pytest.raises(kit.KitError, match="threads"):
        cell.run({"net": Sum().eval(), "x": torch.rand(2, 4), "boom": pytest.fail})


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_built_in_network_takes_the_inputs_of_its_code(name: str) -> None:
    network = BUILT_IN[name]
    size = {"Inception v3": 75, "two streams, I3D": 32, "GoogLeNet": 32}.get(name, network.size)
    known = {"torch": torch, "models": models}
    model, inputs = (eval(code, known) for code in (network.code, network.inputs.format(n=2, s=size)))
    with torch.inference_mode():
        output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    found = output["image"] if isinstance(output, dict) else output
    assert len(found) == 2


def test_the_own_models_are_those_of_the_notebook(namespace: dict[str, Any]) -> None:
    assert modules_in(namespace) == {"net": "Sum", "training": "Sequential", "decides": "Decides", "broken": "Broken"}


# The controls --------------------------------------------------------------------------------------------------------


def test_nothing_runs_before_it_is_asked_for(play: Playground) -> None:
    assert not play.running
    assert play.comparison is None
    assert "Nothing has been measured yet" in play.still()


def test_every_control_has_a_label(play: Playground) -> None:
    controls = [play.model, *play._settings, play.button]
    assert all(each.description for each in controls)
    assert len({each.description for each in controls}) == len(controls)


def test_only_what_can_run_here_is_offered_and_the_rest_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(machine: hardware.Hardware) -> dict[str, str | None]:
        return dict.fromkeys(REGISTRY, None) | {"openvino": "openvino not installed: run `pip install openvino`."}

    monkeypatch.setattr(playground, "available", without)
    play = Playground({})
    assert play.approaches.keys() == REGISTRY.keys() - {"sequential", "openvino"}
    said = "".join(str(each.value) for each in play.children if hasattr(each, "value"))
    assert "`" not in said  # the marks of a docstring
    assert "why 1 more cannot run here" in said
    assert (
        "<code>openvino</code>: cannot run here: openvino not installed: run <code>pip install openvino</code>." in said
    )
    assert f"<code>threads</code>: {REGISTRY['threads'].about}" in said
    assert "on all cores (or on <code>threads</code> of them)." in said


def test_a_built_in_network_has_a_size_and_an_own_one_has_inputs(play: Playground) -> None:
    play.model.value = "Inception v3"
    assert (play.size.value, play.size.layout.display, play.inputs.layout.display) == (299, None, "none")
    play.model.value = "net"
    assert (play.size.layout.display, play.batch.layout.display, play.inputs.layout.display) == ("none", "none", None)
    assert play.inputs.options == ("x",)


def test_the_code_follows_the_controls(play: Playground) -> None:
    play.model.value, play.size.value, play.batch.value = "GoogLeNet", 64, 2
    assert "kit.compare(\n    models.googlenet(),\n    torch.rand(2, 3, 64, 64)," in play.copied.code
    play.approaches["folded"].value, play.threads.value, play.rounds.value = True, 1, 8
    assert '["sequential", "sequential(threads=1)", "threads(threads=1)", "folded"],\n    rounds=8,' in play.copied.code
    play.model.value, play.inputs.value = "net", "y"
    assert play.copied.code.startswith("# there is no variable 'y'")
    compile(play.copied.code, "cell", "exec")


# A run ---------------------------------------------------------------------------------------------------------------


def test_a_run_shows_the_comparison_its_timeline_and_why(play: Playground) -> None:
    copies: list[str] = []
    play._handle = SimpleNamespace(update=lambda bundle, raw: copies.append(bundle["text/html"]))
    run(play)
    assert isinstance(play.comparison, Comparison)
    assert [row.name for row in play.comparison.rows] == ["sequential", "branched", "threads"]
    rounds = play.comparison.rounds  # a table of three rows needs more than six
    table, line, why = play.results.children
    assert play.comparison._repr_html_() in table.value
    assert "caller" in {lane.label for lane in line.trace.lanes}
    assert len(line.trace) == sum(map(len, play.comparison.traces.values()))
    assert kit.explain(play.comparison)._repr_html_() in why.value
    assert f"Measured: {rounds} rounds." in play.said.value
    assert all(text in copies[-1] for text in ("<pre>", "<table>", "<svg", "Explanation"))
    play.button.click()
    play.wait(120)
    assert table not in play.results.children


def test_the_copied_code_gives_the_same_kind_of_comparison(play: Playground, namespace: dict[str, Any]) -> None:
    play.approaches["folded"].value = play.approaches["channels_last"].value = True
    run(play)
    shown: list[Any] = []
    namespace["display"] = lambda *things: shown.extend(things)
    code = play.copied.code.replace("from IPython.display import display\n", "", 1)
    exec(code, namespace)
    again, line, why = shown
    assert again is namespace["comparison"]
    assert play.comparison is not None
    assert [row.name for row in again.rows] == [row.name for row in play.comparison.rows]
    assert (again.rounds, again.inputs) == (play.comparison.rounds, play.comparison.inputs)
    assert type(line).__name__ == "Timeline"
    assert type(why).__name__ == "Explanation"


def test_a_run_leaves_the_notebooks_variables_alone(play: Playground, namespace: dict[str, Any]) -> None:
    before = dict(namespace)
    run(play)
    assert namespace == before


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        ("net", "1x5", "Sum does not take these inputs"),
        ("net", "nowhere", "there is no variable 'nowhere'"),
        ("net", "number", "It could not be measured"),
        ("training", "x", "training mode"),
        ("broken", "x", "a wheel has come off <here>"),
    ],
)
def test_an_error_is_one_sentence_and_the_results_stay(play: Playground, model: str, inputs: str, said: str) -> None:
    run(play)
    before = play.comparison, play.results.children
    play.model.value, play.inputs.value = model, inputs
    run(play)
    assert said in html.unescape(play.said.value)
    assert "<here>" not in play.said.value
    assert "role='alert'" in play.said.value
    assert "Traceback" not in play.said.value
    assert "\n" not in play.said.value
    assert (play.comparison, play.results.children) == before


def test_a_model_that_cannot_be_captured_says_why_in_the_table(play: Playground) -> None:
    play.model.value = "decides"
    run(play)
    assert play.comparison is not None
    assert "no branches could be looked for" in play.comparison["threads"].summary


def test_a_model_that_is_gone_is_named(play: Playground, namespace: dict[str, Any]) -> None:
    del namespace["net"]
    play.button.click()
    assert "there is no variable &#x27;net&#x27; any more" in play.said.value
    assert not play.running


def test_what_leaves_the_learners_code_is_told_whatever_it_is(
    play: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(self: Cell, namespace: object) -> Comparison:
        raise SystemExit(3)

    monkeypatch.setattr(Cell, "run", leave)
    run(play)
    assert "SystemExit: 3" in play.said.value


def test_the_own_class_of_an_approach_is_offered() -> None:
    kit.register("backwards_here", lambda: kit.executors.sequential.Sequential())  # type: ignore[attr-defined]
    try:
        assert "backwards_here" in Playground({}).approaches
    finally:
        del REGISTRY["backwards_here"]


# Stopping ------------------------------------------------------------------------------------------------------------


def until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("approach", ["threads", "processes"])
def test_stop_ends_the_rounds_and_leaves_nothing(play: Playground, approach: str) -> None:
    play.approaches["threads"].value, play.approaches[approach].value = False, True
    play.rounds.value = 1000
    threads = torch.get_num_threads()
    play.button.click()
    assert play.button.description == "Stop"
    until(lambda: play.progress.description.startswith("rounds") and play.progress.value)
    play.button.click()
    play.wait(60)
    assert (play.running, play.button.description, play.comparison) == (False, "Run", None)
    assert "Stopped." in play.said.value
    assert active_children() == []
    assert torch.get_num_threads() == threads
    play.rounds.value = 6
    run(play)
    assert play.comparison is not None


def test_stop_says_that_results_are_of_an_earlier_run(play: Playground) -> None:
    run(play)
    play.rounds.value = 1000
    play.button.click()
    play.stop()
    play.wait(60)
    assert "results below are of an earlier run" in play.said.value
    assert play.comparison is not None


def test_a_second_run_waits_for_nobody_and_is_not_started(play: Playground) -> None:
    play.rounds.value = 1000
    play.start()
    first = play._thread
    play.start()
    assert play._thread is first
    play.stop()


def test_progress_is_said_rarely(play: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(playground.time, "monotonic", lambda: now)
    said: list[str] = []
    play.progress.observe(lambda change: said.append(change["new"]), "description")
    play.step("rounds", 0, 100)
    for i in range(1, 101):
        now += 0.1
        play.step("rounds", i, 100)
    assert len(said) <= 1 + 100 * 0.1 / playground.SAID_S
    assert said[0] == "rounds 0 of 100"


BUSY = """\
import kit, multiprocessing, time
play = kit.playground()
play.model.value, play.rounds.value, play.approaches["processes"].value = "two streams, toy", 1000, True
play.button.click()
while not (play.progress.description.startswith("rounds") and play.progress.value):
    time.sleep(0.01)
print("workers", *(child.pid for child in multiprocessing.active_children()))"""


def test_a_kernel_that_restarts_in_the_middle_leaves_no_process_and_says_nothing() -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3", env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        said: list[dict[str, Any]] = []
        hook = {"timeout": 120, "output_hook": lambda message: said.append(message["content"])}
        assert client.execute_interactive(BUSY, **hook)["content"]["status"] == "ok", said
        texts = "".join(each["text"] for each in said if "text" in each)
        assert texts.startswith("workers "), "and nothing of a library that another thread began"
        workers = [int(pid) for pid in texts.split()[1:]]
        assert len(workers) == 2
        kernel.restart_kernel()
        until(lambda: not any(is_there(pid) for pid in workers), 30)
        client.wait_for_ready(60)
        again = client.execute_interactive("import kit; assert not kit.playground().running", **hook)
        assert again["content"]["status"] == "ok", said
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# The one of the kernel -----------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground, "_the_one", [])
    monkeypatch.setattr(playground.atexit, "register", lambda function: function)


def test_a_cell_that_runs_again_keeps_values_and_results(fresh: None, namespace: dict[str, Any]) -> None:
    cell = "import kit\nshown = kit.playground()"
    exec(cell, namespace)
    first = namespace["shown"]
    first.model.value, first.inputs.value, first.rounds.value = "net", "x", 6
    run(first)
    results, namespace["later"] = first.results.children, Sum().eval()
    exec(cell, namespace)
    assert namespace["shown"] is first
    assert (first.model.value, first.inputs.value, first.rounds.value) == ("net", "x", 6)
    assert first.results.children == results
    assert ("later (Sum, your variable)", "later") in first.model.options


def test_a_model_that_is_gone_is_no_longer_offered(fresh: None, namespace: dict[str, Any]) -> None:
    exec("import kit\nshown = kit.playground()", namespace)
    namespace["shown"].model.value = "net"
    del namespace["net"]
    exec("shown = kit.playground()", namespace)
    assert namespace["shown"].model.value == next(iter(BUILT_IN))
    assert "net" not in dict(map(reversed, namespace["shown"].model.options))


# Cells that run meanwhile --------------------------------------------------------------------------------------------


class Shell:
    """The events of IPython."""

    def __init__(self) -> None:
        self.known: list[tuple[str, Any]] = []
        self.events = SimpleNamespace(
            register=lambda name, function: self.known.append((name, function)),
            unregister=lambda name, function: self.known.remove((name, function)),
        )

    def fire(self, name: str) -> None:
        for known, function in self.known:
            if known == name:
                function(None)


@pytest.mark.parametrize(("seconds", "ended", "decided"), [(0.5, True, True), (3.0, True, False), (3.0, False, False)])
def test_cells_that_run_for_long_meanwhile_leave_nothing_decided(
    monkeypatch: pytest.MonkeyPatch, seconds: float, ended: bool, decided: bool
) -> None:
    now, shell = 0.0, Shell()
    monkeypatch.setattr(meanwhile.time, "monotonic", lambda: now)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    compared = made_up({"sequential": 10.0, "threads": 5.0})
    assert compared["threads"].verdict == "faster"
    with Meanwhile() as noted:
        now = 10.0 - seconds
        shell.fire("pre_run_cell")
        now = 10.0
        if ended:
            shell.fire("post_run_cell")
    assert shell.known == []
    found = noted.doubted(compared)
    assert (found["threads"].verdict == "faster") == decided
    if not decided:
        assert "cells of this notebook ran for 30% of the time" in found["threads"].summary
        assert found["sequential"].verdict == "baseline"


def test_without_a_notebook_no_cell_runs() -> None:
    compared = replace(made_up({"sequential": 10.0, "threads": 5.0}))
    with Meanwhile() as noted:
        pass
    assert noted.doubted(compared) is compared
