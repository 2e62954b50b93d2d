"""The workflows for GitHub: actions are pinned to commits, and what they run exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def steps(path: Path) -> list[dict[str, Any]]:
    """The steps of all jobs of a workflow."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_target_of_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    run = [step["run"].split() for step in steps(path) if "run" in step]
    assert {words[0] for words in run} == {"make"}
    assert {words[1] for words in run} <= targets


def test_the_test_workflow_runs_all_parts_of_make_test() -> None:
    [parts] = re.findall(r"^test: ([\w ]+?) +##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    run = {step["run"].split()[1] for step in steps(ROOT / ".github/workflows/test.yml") if "run" in step}
    assert set(parts.split()) <= run
