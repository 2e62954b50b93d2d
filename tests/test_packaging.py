"""The three ways in agree: what pyproject.toml allows, constraints.txt pins, and environment.yml installs the same."""

import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from kit.machine import hardware

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
]
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in CONSTRAINTS}
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
RANGES = {
    "core": [Requirement(text) for text in PROJECT["dependencies"]],
    **{extra: [Requirement(text) for text in texts] for extra, texts in PROJECT["optional-dependencies"].items()},
}
DIRECT = [requirement for part in RANGES.values() for requirement in part]


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_pinned_inside_its_range(requirement: Requirement) -> None:
    pin = PINS[canonicalize_name(requirement.name)]
    assert str(requirement.specifier), "a range, so that an ancient version cannot come in"
    assert requirement.specifier.contains(pin)


def test_constraints_are_exact_sorted_and_portable() -> None:
    names = [line.partition("==")[0].lower() for line in CONSTRAINTS]
    assert len(PINS) == len(CONSTRAINTS), "one line for each package"
    assert names == sorted(names)
    for name, pin in PINS.items():
        assert Version(pin).local is None, f"{name}=={pin} names a build that only one machine has"
    assert PINS["torch"] == "2.13.0"


def test_the_parts_hold_what_they_should() -> None:
    names = {part: {requirement.name for requirement in requirements} for part, requirements in RANGES.items()}
    assert names["core"] == {"cloudpickle", "msgspec", "numpy", "torch", "zstandard"}
    assert not names["core"] & (names["lab"] | names["test"])
    assert not names["lab"] & names["test"]


@pytest.mark.parametrize("banned", ["torchvision", "dash", "opencv-python", "opencv-contrib-python", "branch-lab"])
def test_what_must_not_come_in(banned: str) -> None:
    assert banned not in PINS
    assert banned not in {canonicalize_name(requirement.name) for requirement in DIRECT}


def test_doctor_checks_the_same_least_versions() -> None:
    for part, table in (("core", hardware.CORE_PACKAGES), ("lab", hardware.LAB_PACKAGES)):
        assert table == {r.name: str(r.specifier).removeprefix(">=") for r in RANGES[part]}


def test_environment_installs_what_make_lab_installs() -> None:
    [pip] = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    assert ENVIRONMENT["name"] == PROJECT["name"]
    assert pip == ["-c constraints.txt", "-e .[lab,onnx]"]
    assert "-c constraints.txt" in make("lab")
    assert "-e '.[lab,onnx]'" in make("lab")


def test_environment_names_a_python_that_the_project_allows() -> None:
    conda = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    [python] = [entry.partition("=")[2] for entry in conda if entry.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert "pip" in conda, "without it conda warns and picks one"


@functools.cache
def make(*arguments: str) -> str:
    """The commands that make would run in a fresh clone."""
    # In a folder that is not there, so that the commands are those of a first run, whatever is installed here.
    done = run_make("--no-print-directory", "-n", *arguments, "VENV=build/no-such-venv")
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Make, as typed into a fresh shell: a `make test TORCH=cpu` that runs these tests must not pass its words on."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    inherited = {
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "ARGS",
        "DRY",
        "FAST",
        "PYTHON",
        "TORCH",
        "VENV",
        "WHEELS",
    }
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def pip_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if " pip install " in line]


def test_torch_cpu_takes_only_torch_from_pytorchs_index_and_first() -> None:
    torch, rest = pip_lines(make("lab", "TORCH=cpu"))
    assert torch.endswith("--index-url https://download.pytorch.org/whl/cpu torch==2.13.0")
    assert "--no-deps" in torch
    assert "-e '.[lab,onnx]'" in rest
    assert "index-url" not in rest


def test_without_torch_named_there_is_one_install_from_the_usual_index() -> None:
    [line] = pip_lines(make("lab"))
    assert "index-url" not in line
    assert "--no-index" not in line


def test_wheels_installs_offline() -> None:
    for line in pip_lines(make("test", "WHEELS=wheels")):
        assert "--no-index --find-links wheels" in line


def test_gpu_takes_the_named_python_and_unpacks_wheels_without_pip() -> None:
    assert make("gpu", "PYTHON=python3.12").split() == ["python3.12", "-m", "bench.gpu"]
    *_, line = make("gpu", "PYTHON=python3.12", "DRY=1", "WHEELS=wheels", "ARGS=--budget 300").splitlines()
    assert line.split() == ["python3.12", "-m", "bench.gpu", "--dry", "--budget", "300"]
    assert pip_lines(make("gpu", "WHEELS=wheels")) == []


def test_tests_install_every_extra_but_the_zoo() -> None:
    assert "-e '.[cluster,lab,onnx,openvino,site,test]'" in pip_lines(make("test"))[-1]


def test_jupyterlab_is_local_has_its_token_and_takes_arguments() -> None:
    [line] = [line for line in make("lab", "ARGS=--no-browser").splitlines() if "/jupyter lab" in line]
    assert "--ip=127.0.0.1" in line
    assert "token" not in line, "JupyterLab makes one"
    assert line.endswith(" --no-browser")
    assert "/lab/tree/notebooks/00_start_here.ipynb" in line, "as the first address, so that it is in the printed URL"


def test_a_python_that_is_too_old_is_refused_by_name(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.1; else exit 1; fi\n')
    old.chmod(0o755)
    done = run_make("lab", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert re.search(r"needs Python 3\.11 or later, and .* is: Python 3\.9\.1", done.stderr)
    assert not (tmp_path / "venv").exists()


def test_help_lists_every_target() -> None:
    listed = re.findall(r"^  make (\w+) ", run_make().stdout, flags=re.MULTILINE)
    targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert listed == targets
    assert {"lab", "test", "setup", "bench", "soak"} <= set(listed)


INSTALLED = """
import sys
from pathlib import Path
import kit
assert Path(sys.argv[1]) in Path(kit.__file__).parents, f"another kit was imported: {kit.__file__}"
from kit import cli, models
models.trained_two_stream()
cli.main(["predict", "--clip", str(Path(kit.__file__).parent / "data/clips/shapes.mp4")])
cli.main(["compare", "two-stream", "--approaches", "threads", "--rounds", "6"])
cli.main(["compare", "pipeline", "--items", "4", "--approaches", "pipeline", "--rounds", "6"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel of this project was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests", "notebooks", "*.egg-info"))
    # With the packages that are installed here: what is tried is what the wheel holds, not where the rest comes from.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


def test_a_wheel_brings_weights_and_clip_and_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", INSTALLED, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wheel_holds_the_kit_with_its_scripts_and_data_and_licences_and_nothing_else(installed: Path) -> None:
    [about] = installed.glob("branch_lab-*.dist-info")
    assert about.name == f"branch_lab-{PROJECT['version']}.dist-info"
    assert {path.name for path in installed.iterdir()} == {"bin", "kit", about.name}
    written = {path.relative_to(installed) for path in (installed / "kit").rglob("*") if path.is_file()}
    package = {path for folder in ("kit", "data") for path in (ROOT / folder).rglob("*") if path.is_file()}
    wanted = {path.relative_to(ROOT) for path in package if path.suffix != ".pyc" and path != ROOT / "data/README.md"}
    assert {path for path in written if path.suffix != ".pyc"} == {
        path if path.parts[0] == "kit" else "kit" / path for path in wanted
    }
    licences = {path.relative_to(about / "licenses") for path in about.rglob("licenses/**/*") if path.is_file()}
    vendored = {path.relative_to(ROOT) for path in ROOT.glob("kit/views/vendor/*.LICENSE.txt")}
    assert licences == {Path("LICENSE"), *vendored}


def test_every_script_of_others_has_its_licence() -> None:
    for script in (ROOT / "kit/views/vendor").glob("*.js"):
        assert script.with_name(script.name.partition(".")[0] + ".LICENSE.txt").is_file(), script.name


def test_one_version_is_told_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= cited.keys()
    newest = re.search(r"^## (\S+), (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest.groups() == (PROJECT["version"], str(cited["date-released"]))
    assert cited["version"] == PROJECT["version"]
    assert f"branch_lab-{PROJECT['version']}-py3" in (ROOT / "docs/installing.md").read_text()


def test_dist_builds_and_checks_what_an_index_would() -> None:
    *_, build, check = make("dist").splitlines()
    assert build.endswith("-m build --no-isolation")
    assert check.endswith("twine check --strict dist/*")
