"""A playground: choose a model and approaches, measure them, and see the comparison, its timeline and why.

The measurement runs in a thread of its own, so that the kernel hears the Stop button. It stops between two timed calls.
What it says of its progress goes to the page between two rounds, at most once in ``SAID_S`` seconds.
"""

from __future__ import annotations

import atexit
import html
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from kit.approaches import REGISTRY, available
from kit.errors import KitError, brief
from kit.explaining.explanation import explain
from kit.machine import hardware
from kit.measuring.comparison import Comparison
from kit.measuring.rounds import ROUNDS
from kit.measuring.statistics import MIN_ROUNDS
from kit.profiler import begin
from kit.progress import Stopped, watched
from kit.text import counted
from kit.views.cells import BUILT_IN, Cell, inputs_code, modules_in, named
from kit.views.copied import Copied
from kit.views.meanwhile import Meanwhile
from kit.views.still import Still
from kit.views.timeline import timeline

SAID_S = 0.5  # between two messages to the page: each makes the browser draw, which takes time from the cores
END_S = 5.0  # that a kernel which ends waits for a measurement to stop
LARGEST, MOST = 512, 64  # pixels, and requests of a batch
_WIDE = {"style": {"description_width": "110px"}, "layout": {"width": "400px", "max_width": "100%"}}

_the_one: list[Playground] = []  # of this kernel: two would measure at the same time, and disturb each other


def playground() -> Playground:
    """Controls to compare approaches on a model without writing code; nothing runs before *Run* is pressed.

    The models are those of the kit and the variables of the notebook that hold an ``nn.Module``. Below the controls
    appear the comparison, its timeline and its explanation, and ``.comparison`` keeps the last one. *Copy as code*
    gives the cell that does the same. A kernel has one playground: called again, it has its values and results still,
    and knows the variables that were made since.

    >>> kit.playground()
    Playground()
    """
    namespace = sys._getframe(1).f_globals
    if not _the_one:
        _the_one.append(Playground(namespace))
        atexit.register(_the_one[0].end)
    _the_one[0].look(namespace)
    return _the_one[0]


class Playground(Still):
    """The controls and what was measured with them. Make one with :func:`kit.playground`.

    Args:
        namespace: variable -> value; the learner's own models and inputs are looked for there.
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        begin()  # here, since the measurement has another thread
        self.comparison: Comparison | None = None  # the last one
        self._namespace = namespace
        self._thread: threading.Thread | None = None
        self.running = False  # whether something is measured now
        self._stop = threading.Event()
        self._said_at = 0.0
        self._shown = ""  # what the results say, as HTML
        self.model = widgets.Dropdown(options=list(BUILT_IN), description="model", **_WIDE)
        self.size = _whole("input size (px)", BUILT_IN[self.model.value].size, 1, LARGEST)
        self.batch = _whole("batch", 1, 1, MOST)
        self.inputs = widgets.Combobox(description="inputs", placeholder="a variable, or 1x3x224x224", **_WIDE)
        machine = hardware.detect()
        reasons = available(machine)
        self.approaches = {
            name: widgets.Checkbox(name == "threads", description=name, indent=False, layout={"width": "auto"})
            for name, reason in reasons.items()
            if reason is None and name != "sequential"
        }
        self.others = widgets.Text(description="others", placeholder="folded + threads(workers=2)", **_WIDE)
        counts = [(str(count), count) for count in range(1, machine.cores + 1)]
        self.threads = widgets.Dropdown(
            options=[("as each approach decides", None), *counts], description="threads each", **_WIDE
        )
        self.rounds = _whole("rounds", ROUNDS, MIN_ROUNDS, 1000)
        self.button = widgets.Button(description="Run", button_style="primary")
        self.progress = widgets.IntProgress(
            description="", layout={"visibility": "hidden"}, style={"description_width": "initial"}
        )
        self.said = widgets.HTML("Nothing has been measured yet.")
        self.copied = Copied()
        self.results = widgets.VBox()
        columns = {"display": "grid", "grid_template_columns": "repeat(auto-fill, minmax(170px, 1fr))"}
        super().__init__(
            *(self.model, self.size, self.batch, self.inputs),
            widgets.HTML("<b>approaches</b>, each compared with <code>sequential</code>, the model as it is"),
            widgets.Box(list(self.approaches.values()), layout=columns),
            widgets.HTML(_described(reasons)),
            *(self.others, self.threads, self.rounds),
            widgets.HBox([self.button, self.progress]),
            *(self.said, self.copied, self.results),
        )
        self.look(namespace)
        self.button.on_click(self._pressed)
        self.model.observe(self._chosen, "value")
        for control in (self.model, *self._settings):
            control.observe(self._say_code, "value")
        self._chosen()
        self._say_code()

    @property
    def _settings(self) -> tuple[Any, ...]:
        return (self.size, self.batch, self.inputs, *self.approaches.values(), self.others, self.threads, self.rounds)

    @property
    def cell(self) -> Cell:
        """The cell that does what the controls say.

        Raises:
            KitError: they say nothing that could run.
        """
        chosen = [name for name, box in self.approaches.items() if box.value]
        names = named(chosen, self.others.value, self.threads.value)
        if (built_in := BUILT_IN.get(self.model.value)) is not None:
            inputs = built_in.inputs.format(n=self.batch.value, s=self.size.value)
            return Cell(built_in.code, inputs, names, self.rounds.value)
        if self.model.value not in self._namespace:
            raise KitError(f"there is no variable {self.model.value!r} any more: run the cell that makes it.")
        return Cell(self.model.value, inputs_code(self.inputs.value, self._namespace), names, self.rounds.value)

    def look(self, namespace: Mapping[str, Any]) -> None:
        """Look for the models in these variables; the values of all controls stay as they are."""
        self._namespace, chosen = namespace, self.model.value
        own = [(f"{name} ({kind}, your variable)", name) for name, kind in modules_in(namespace).items()]
        options = [*((name, name) for name in BUILT_IN), *own]
        if list(self.model.options) != options:
            with self.hold_trait_notifications():
                self.model.options = options
                self.model.value = chosen if chosen in [value for _, value in options] else options[0][1]
        self.inputs.options = [
            name
            for name, value in list(namespace.items())
            if not name.startswith("_") and type(value).__name__ in ("Tensor", "tuple", "list", "dict")
        ]

    def start(self) -> None:
        """Begin to measure in the background; does nothing while a measurement runs."""
        if self.running:
            return
        try:
            cell = self.cell
        except KitError as error:
            self._fail(error)
            return
        self._stop.clear()
        self.running = True
        self.button.description, self.button.button_style = "Stop", ""
        self.progress.layout.visibility = "visible"
        self.progress.value, self.progress.description = 0, "preparing"
        self._say("Measuring. Run no other cell meanwhile: it would take time from the approaches.")
        # Its name is that of the lane that a notebook's own calls have in a timeline.
        self._thread = threading.Thread(target=self._measure, args=(cell,), name="caller", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the measurement to stop: it does so before the next timed call."""
        if self.running:
            self._stop.set()
            self._say("Stopping, as soon as the call or the preparation ends that runs now.")

    def wait(self, seconds: float | None = None) -> None:
        """Wait until nothing is measured, at most so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def end(self) -> None:
        """Stop, and wait a little for it: else a kernel would end in the middle of a call."""
        self._stop.set()
        self.wait(END_S)

    def step(self, what: str, done: int, total: int) -> None:
        """See :class:`kit.progress.Watcher`."""
        self.checkpoint()
        now = time.monotonic()
        if now - self._said_at >= SAID_S or done == 0:
            self._said_at = now
            with self.progress.hold_sync():  # one message
                self.progress.max, self.progress.value = max(total, 1), min(done, total)
                self.progress.description = f"{what} {done} of {total}"

    def checkpoint(self) -> None:
        """See :class:`kit.progress.Watcher`."""
        if self._stop.is_set():
            raise Stopped

    def _pressed(self, _button: object) -> None:
        (self.stop if self.running else self.start)()

    def _measure(self, cell: Cell) -> None:
        try:
            with watched(self), Meanwhile() as meanwhile:
                found = cell.run(self._namespace)
            self._show(cell, meanwhile.doubted(found))
            self._say(f"Measured: {counted(found.rounds, 'round')}.")
        except Stopped:
            self._say(
                "Stopped. Nothing was measured; results below are of an earlier run." if self._shown else "Stopped."
            )
        except BaseException as error:  # there is no cell to raise it in, and the learner's code may raise anything
            self._fail(error)
        self.running = False
        self.button.description, self.button.button_style = "Run", "primary"
        self.progress.layout.visibility = "hidden"
        self.renew()

    def _show(self, cell: Cell, comparison: Comparison) -> None:
        self.comparison = comparison
        line, why = timeline(comparison), explain(comparison)
        title = (
            f"<h4>Comparison: <code>{html.escape(cell.model)}</code></h4>{comparison._repr_html_()}<h4>Timeline</h4>"
        )
        below = f"<h4>Explanation</h4>{why._repr_html_()}"
        before = self.results.children
        self.results.children = (widgets.HTML(title), line, widgets.HTML(below))
        for old in before:
            old.close()
        self._shown = f"{title}{line.figure().svg}{below}"

    def _fail(self, error: BaseException) -> None:
        said = str(error) if isinstance(error, KitError) else brief(error)
        self.said.value = f"<p role='alert'><b>It could not be measured:</b> {html.escape(' '.join(said.split()))}</p>"

    def _say(self, text: str) -> None:
        self.said.value = f"<p role='status'>{html.escape(text)}</p>"

    def _chosen(self, _change: object = None) -> None:
        """Show the controls of this kind of model, with its usual size."""
        built_in = BUILT_IN.get(self.model.value)
        for control in (self.size, self.batch):
            control.layout.display = None if built_in else "none"
        self.inputs.layout.display = "none" if built_in else None
        if built_in:
            self.size.value = built_in.size

    def _say_code(self, _change: object = None) -> None:
        try:
            self.copied.code = self.cell.code
        except KitError as error:
            self.copied.code = f"# {' '.join(str(error).split())}"

    def still(self) -> str:
        """The settings as code, and the last results, as HTML."""
        return f"<pre>{html.escape(self.copied.code)}</pre>{self._shown or self.said.value}"

    def __repr__(self) -> str:
        return "Playground()"


def _whole(name: str, value: int, least: int, most: int) -> Any:
    return widgets.BoundedIntText(value, min=least, max=most, description=name, **_WIDE)


def _described(reasons: Mapping[str, str | None]) -> str:
    """What each approach does, or why it cannot run here, folded."""
    said = {name: REGISTRY[name].about if why is None else f"cannot run here: {why}" for name, why in reasons.items()}
    rows = "".join(f"<li><code>{name}</code>: {_with_code(text)}</li>" for name, text in said.items())
    lacking = sum(reason is not None for reason in reasons.values())
    more = f", and why {lacking} more cannot run here" if lacking else ""
    return f"<details style='line-height:1.5'><summary>What they do{more}</summary><ul>{rows}</ul></details>"


def _with_code(text: str) -> str:
    """A sentence of a docstring or an error as HTML: what stands between backticks is code."""
    return re.sub(r"(`{1,2})(.+?)\1", r"<code>\2</code>", html.escape(text))
