"""What several tests of executors need."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from kit.machine.namespaces import Hosts


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts, on which nothing is left after the test."""
    with Hosts() as two:
        yield two
    assert two.processes() == []
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"kit-{os.getpid()}-" not in left
