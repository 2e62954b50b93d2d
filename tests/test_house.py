"""The house stands as drawn: imports only run down the floors, the core needs no Jupyter, the kit stays small."""

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit

ROOT = Path(__file__).parents[1]
KIT = ROOT / "kit"
MODULES = sorted(KIT.rglob("*.py"))

# A room is a module or a package right under kit. It imports from rooms on lower floors only, never from its own floor.
FLOORS = {
    "errors": 0,
    "data_files": 0,
    "progress": 0,
    "reprs": 0,
    "text": 0,
    "clips": 1,
    "equality": 1,
    "machine": 1,
    "paths": 1,
    "scheduling": 1,
    "spans": 1,
    "trace": 1,
    "macs": 1,
    "inputs": 2,
    "profiler": 2,
    "executors": 3,
    "pipeline": 4,
    "regions": 4,
    "models": 5,
    "transforms": 5,
    "approaches": 7,
    "graphs": 6,
    "simulating": 7,
    "recorder": 8,
    "measuring": 9,
    "explaining": 10,
    "verbs": 10,
    "workloads": 11,
    "views": 12,
    "labs": 13,
    "magic": 13,
    "cli": 13,
    "__main__": 14,
}
UNDER_JUPYTER = {"views", "labs", "magic"}  # what may need the lab packages as soon as it is imported
SCHEDULED = (
    "executors/lanes.py",
    "graphs/costs.py",
    "graphs/lanes.py",
    "graphs/scheduled.py",
    "scheduling/handing_over.py",
    "scheduling/phases.py",
    "scheduling/plans.py",
    "scheduling/stages.py",
    "scheduling/waiting.py",
)
ANALYSED = ("critical_path", "idling", "names", "overview", "rules", "streams", "tables", "walking")
OTHER_RUNTIMES = ("transforms/onnx_runtime.py", "transforms/openvino.py", "transforms/runtimes.py")
OTHER_HOSTS = ("executors/cluster.py", "executors/group_ranks.py")
OTHER_HOSTS += tuple(f"executors/workers/{name}.py" for name in ("clocks", "control", "group", "membership", "shares"))
OTHER_HOSTS += tuple(f"executors/workers/{name}.py" for name in ("counting", "dask_workers", "keeper"))
LAB_ONLY = ("IPython", "ipykernel", "jupyter", "jupyterlab", "jupyter_client", "notebook", "nbformat", "traitlets")
LAB_ONLY += (
    "ipywidgets",
    "anywidget",
    "pandas",
    "plotly",
    "matplotlib",
    "cv2",
    "psutil",
    "tqdm",
    "skimage",
    "safetensors",
    "tensorboard",
    "torch_tb_profiler",
)
LAB_ONLY += ("continual", "onnx", "onnxruntime", "onnxscript", "openvino", "distributed", "dask")


def name_of(path: Path) -> str:
    """``kit/trace/columns.py`` -> ``kit.trace.columns``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def tree(path: Path) -> ast.Module:
    """A module's syntax, which several tests walk through."""
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a module imports, inside functions and for typing as well."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def room(name: str) -> str:
    """``kit.trace.columns.Lane`` -> ``trace``; for ``kit`` itself, nothing."""
    return [*name.split("."), ""][1]


def upward_imports(path: Path) -> list[str]:
    """What breaks the rule in one module, in words."""
    here, faults = room(name_of(path)), []
    for line, name in imports(path):
        if name.split(".")[0] != "kit" or room(name) == here:
            continue
        where = f"{path.relative_to(ROOT)}:{line}"
        if room(name) not in FLOORS:
            faults.append(f"{where} imports {name}, which is no room: import from the module that defines it")
        elif FLOORS[room(name)] >= FLOORS[here]:
            faults.append(f"{where}, on floor {FLOORS[here]}, imports {name}, on floor {FLOORS[room(name)]}")
    return faults


def test_imports_run_down_the_floors() -> None:
    modules = [path for path in MODULES if path != KIT / "__init__.py"]
    assert {room(name_of(path)) for path in modules} <= FLOORS.keys(), "a new room: give it a floor"
    assert [fault for path in modules for fault in upward_imports(path)] == []


def on_the_map(text: str) -> dict[str, float]:
    """Room -> floor, from the rows of docs/house.md."""
    rows = re.findall(r"^\| ([\d.]+) \| (`.*?) \|", text, flags=re.MULTILINE)
    return {name: float(floor) for floor, rooms in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", rooms)}


def test_the_map_is_the_list_of_floors() -> None:
    built = {room(name_of(path)) for path in MODULES if path.parent != KIT or not path.name.startswith("__")}
    text = (ROOT / "docs/house.md").read_text(encoding="utf-8")
    assert on_the_map(text) == {name: floor for name, floor in FLOORS.items() if name in built}


def test_the_floor_test_bites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    module = tmp_path / "kit/trace/columns.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import numpy, kit.errors\n"
        "from . import lanes\n"
        "from ..measure import Row\n"
        "from kit import compare, spans\n"
        "def f():\n    import kit.views.timeline\n"
    )
    assert [fault.split()[0].rstrip(",") for fault in upward_imports(module)] == [
        "kit/trace/columns.py:3",  # measure
        "kit/trace/columns.py:4",  # the public name
        "kit/trace/columns.py:4",  # spans, on the same floor
        "kit/trace/columns.py:6",  # inside a function
    ]


def python(code: str) -> None:
    """Run code in a fresh interpreter, in which nothing is imported yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_core_imports_without_the_lab_packages() -> None:
    core = [name for name in map(name_of, MODULES) if room(name) not in UNDER_JUPYTER]
    python(f"""
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LAB_ONLY!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Blocker())
for name in {core!r}:
    importlib.import_module(name)
""")


def test_on_a_server_with_a_gpu_its_tests_are_found_without_the_lab_packages() -> None:
    code = f"""
import sys, pytest

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args):
        found = name.partition(".")[0] in {(*LAB_ONLY, "yaml", "playwright", "nbval", "xdist")!r}
        return None if found else self.finder.find_spec(name, *args)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.exit(pytest.main("-m gpu --collect-only --quiet -p no:cacheprovider --ignore=tests/browser tests".split()))
"""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # plugins here are not those there
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout  # 5: none is found
    assert "test_on_a_gpu_each_recording_has_its_kernels_after_their_launches" in done.stdout


def test_importing_kit_imports_nothing_heavy() -> None:
    python(
        "import sys, kit; assert not {'torch', 'numpy', 'plotly', 'zstandard'} & set(sys.modules), 'kit is not lazy'"
    )


def test_reading_traces_needs_no_torch() -> None:
    python("import sys, kit.trace; assert 'torch' not in sys.modules")
    allowed = {*sys.stdlib_module_names, "numpy", "msgspec", "zstandard", "pandas", "kit"}
    for path in (KIT / "trace").glob("*.py"):
        assert {name.partition(".")[0] for _, name in imports(path)} <= allowed, path.name


def test_public_names_are_sorted_and_few_lines() -> None:
    assert list(kit.__all__) == sorted(set(kit.__all__))
    assert dir(kit) == list(kit.__all__)
    assert len((KIT / "__init__.py").read_text().splitlines()) <= 54


@pytest.mark.parametrize("name", kit.__all__)
def test_public_names_resolve(name: str) -> None:
    value = getattr(kit, name)
    assert value.__name__ == name, "the function or class itself, not a module of the same name"
    assert value.__doc__, "a public name says what it is"


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        kit.no_such_name  # noqa: B018


def lines_of_code(path: Path) -> int:
    """Lines that do something: no blank lines, comments or docstrings."""
    text = path.read_text()
    described = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            described |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(i not in described and bool(line.strip()) and not line.strip().startswith("#") for i, line in lines)


def needed_by(*verbs: str) -> set[Path]:
    """The modules that these import, one through the other."""
    paths = {name_of(path): path for path in MODULES}
    waiting, found = list(verbs), set()
    while waiting:
        name = waiting.pop()
        while name and name not in paths:  # an imported function: the module that holds it
            name = name.rpartition(".")[0]
        if name and paths[name] not in found:
            found.add(paths[name])
            waiting += [name.rpartition(".")[0], *(imported for _, imported in imports(paths[name]))]
    return found


def test_the_core_and_its_modules_stay_small() -> None:
    lines = {path: lines_of_code(path) for path in MODULES}
    largest = sorted(lines, key=lines.__getitem__, reverse=True)[:3]
    said = f"the largest: {', '.join(f'{path.name} {lines[path]}' for path in largest)}"
    core = needed_by(
        "kit.verbs", "kit.explaining.explanation"
    )  # to compare, to record, to explain, and for the graph of any model
    core -= {KIT / "machine" / "about.py", KIT / "measuring" / "records.py"}  # to keep the results of that
    foreign = ("mending", "expanding", "doubts", "nsight", "viewers")  # others' traces, and traces for others' viewers
    core -= {KIT / "trace" / f"{name}.py" for name in foreign}
    analysed = {KIT / "trace" / f"{name}.py" for name in ANALYSED}  # to say why a recording took its time
    assert analysed <= core
    core -= analysed
    scheduled = {KIT / name for name in SCHEDULED}  # to run a whole graph on lanes
    runtimes = {KIT / name for name in OTHER_RUNTIMES}  # to compare with what one would take instead of PyTorch
    hosts = {KIT / name for name in OTHER_HOSTS}  # to run branches on ranks or workers of several hosts
    assert scheduled | runtimes | hosts <= core
    core -= scheduled | runtimes | hosts
    assert KIT / "executors" / "threads.py" in core
    assert KIT / "views" / "timeline.py" not in core
    assert max(lines.values()) <= 300, said
    assert sum(lines[path] for path in core) <= 9260, said
    assert sum(lines[path] for path in scheduled) <= 850, said
    assert sum(lines[path] for path in analysed) <= 820, said
    assert sum(lines[path] for path in runtimes) <= 140, said
    assert sum(lines[path] for path in hosts) <= 930, said


READABLE = [path for room in ("executors", "transforms") for path in sorted((KIT / room).glob("*.py"))]


def test_a_learner_reads_an_approach_on_one_screen() -> None:
    lines = {path.name: lines_of_code(path) for path in READABLE}
    assert {name: count for name, count in lines.items() if count > 110} == {}


def test_the_library_does_not_print() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [call for call in calls if not call.startswith(("kit/cli.py", "kit/magic.py"))] == []
