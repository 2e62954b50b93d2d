"""The outputs of an executed notebook for a page without a kernel: live where a script suffices, still elsewhere."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
CHART = "application/vnd.plotly.v1+json"
BUTTONS = ("ButtonModel", "ToggleButtonModel", "PlayModel")
CHOICES = ("DropdownModel", "SelectionSliderModel", "RadioButtonsModel")


@dataclass
class Outputs:
    """Replaces the outputs of notebooks by HTML.

    Args:
        needs_python: what is said of a control that needs a kernel, as HTML.
        scripts: name -> source of the views' scripts that were met so far; it grows.
    """

    needs_python: str
    scripts: dict[str, str] = field(default_factory=dict)
    _state: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def replace(self, notebook: NotebookNode) -> None:
        """Turn widgets, charts and frames of the notebook into HTML, in place, and drop the state of its widgets."""
        self._state = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if not _empty(output)]
                for output in cell.outputs:
                    if (shown := self._html(output.get("data", {}))) is not None:
                        output.data = NotebookNode({"text/html": shown})

    def _html(self, data: Mapping[str, Any]) -> str | None:
        """One output as HTML, or None where it may stay as it is."""
        if VIEW in data:
            return self._widget(data)
        if CHART in data:
            return _chart(data)
        if "<iframe" in data.get("text/html", ""):  # of a server that ended with the kernel
            return f"<pre>{html.escape(data['text/plain'])}</pre>{self._needs()}"
        return None

    def _widget(self, data: Mapping[str, Any]) -> str:
        root = data[VIEW]["model_id"]
        models = [self._state[each] for each in self._tree(root)]
        shown = data.get("text/html")
        if shown is not None and "class='kit-quiz'" in shown:
            return str(shown)
        if shown is None or any(model["model_name"] == "AnyModel" for model in models):
            return self._drawn(root) + _without_script(data)
        controls = "".join(_control(model) for model in models)
        return f"{shown}{self._needs(controls) if controls else ''}"

    def _tree(self, root: str) -> Iterator[str]:
        """The widget and all that is shown in it."""
        traits = self._state[root]["state"]
        if self._state.get(_key(traits.get("layout")), {}).get("state", {}).get("display") != "none":
            yield root
            for child in traits.get("children", ()):
                yield from self._tree(_key(child))

    def _drawn(self, root: str) -> str:
        """The widget as it was on the screen, its controls disabled."""
        model = self._state[root]
        name, traits = model["model_name"], model["state"]
        if root not in self._tree(root):
            return ""
        if name == "AnyModel":
            return self._view(model)
        if name == "HTMLModel":
            return f"<div>{traits['value']}</div>"
        if name in ("VBoxModel", "HBoxModel"):
            inside = "".join(self._drawn(_key(child)) for child in traits["children"])
            return f"<div class='{name.lower()}'>{inside}</div>"
        return self._needs(control) if (control := _control(model)) else ""

    def _view(self, model: Mapping[str, Any]) -> str:
        """A view with a script of its own, and its saved traits."""
        traits = {
            name: value for name, value in model["state"].items() if not name.startswith("_") and name != "layout"
        }
        if "copy" in traits:  # of a timeline or a graph; what they draw is in its buffers
            traits["copy"]["buffers"] = [buffer["data"] for buffer in model.get("buffers", ())]
        script = model["state"]["_esm"]
        name = hashlib.sha256(script.encode()).hexdigest()[:12]
        self.scripts.setdefault(name, f'"use strict";\n{script.replace("export default {", "return {")}')
        return f"<div class='kit-live' data-view='{name}'>{_json(traits)}</div>"

    def _needs(self, controls: str = "") -> str:
        return f"<div class='kit-needs'>{controls}<p>{self.needs_python}</p></div>"


def _control(model: Mapping[str, Any]) -> str:
    """A disabled control as HTML; nothing for what is none."""
    name, traits = model["model_name"], model["state"]
    said = html.escape(traits.get("description") or "")
    if name in BUTTONS:
        return f"<button disabled>{said}</button> "
    if name in CHOICES:
        chosen = traits["_options_labels"][traits["index"]] if traits["index"] is not None else ""
        return f"<label>{said} <select disabled><option>{html.escape(chosen)}</option></select></label> "
    if name == "IntSliderModel":
        value, least, most = traits["value"], traits["min"], traits["max"]
        slider = f"<input type='range' disabled min='{least}' max='{most}' value='{value}'>"
        return f"<label>{said} {slider} {value}</label> "
    if name == "CheckboxModel":
        return f"<label><input type='checkbox' disabled{' checked' * traits['value']}> {said}</label> "
    return ""


def _chart(data: Mapping[str, Any]) -> str:
    height = data[CHART]["layout"].get("height", 450)
    return f"<div class='kit-chart' style='height:{height}px'>{_json(data[CHART])}</div>{_without_script(data)}"


def _without_script(data: Mapping[str, Any]) -> str:
    return f"<noscript>{picture}</noscript>" if (picture := data.get("image/svg+xml")) else ""


def _json(value: Any) -> str:
    return f"<script type='application/json'>{json.dumps(value).replace('<', chr(92) + 'u003c')}</script>"


def _key(reference: str | None) -> str:
    return (reference or "").removeprefix("IPY_MODEL_")


def _empty(output: NotebookNode) -> bool:
    """Whether nothing would be seen, as of a progress bar that was taken away."""
    return output.get("data") == {"text/plain": ""} or output.get("text") == ""
