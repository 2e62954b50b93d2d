"""For tests of two hosts: a program on one of them that does what the test tells it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

# The end of the program: what to do comes as lines of Python, and what they gave goes back as lines of JSON.
ANSWERS = """
torch.manual_seed(0)
model, x = nn.Linear(1000, 1000).eval(), torch.rand(250, 1000)
with torch.inference_mode():
    for line in sys.stdin:
        begun = time.monotonic()
        try:
            found = eval(line)
        except KitError as error:
            found = f"{type(error).__name__}: {error} (cause: {type(error.__cause__).__name__})"
        print(json.dumps([found, time.monotonic() - begun]), flush=True)
"""


class Caller:
    """The running program, whose errors go to a file."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.errors = process, errors
        self._stdin, self._stdout = process.stdin, process.stdout

    def begin(self, expression: str) -> None:
        self._stdin.write(expression + "\n")
        self._stdin.flush()

    def result(self) -> tuple[Any, float]:
        """What the expression gave, or the error as text; and the seconds that it took."""
        line = self._stdout.readline()
        assert line, self.errors.read_text()
        found, seconds = json.loads(line)
        return found, seconds

    def ask(self, expression: str) -> Any:
        self.begin(expression)
        return self.result()[0]

    def finish(self) -> None:
        """Send nothing more; the program must end by itself."""
        self._stdin.close()
