"""%%timeline records a cell in the user's namespace; an error is the cell's own; it works wherever IPython does."""

import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from kit.trace import Trace

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
completer = pytest.importorskip("IPython.core.completer")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture
def shell() -> Iterator["InteractiveShell"]:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_cell("%load_ext kit\nimport torch, kit\nx = torch.ones(8, 8)").raise_error()
    yield shell
    InteractiveShell.clear_instance()


def names(trace: Trace) -> set[str]:
    return {trace.names[i] for i in trace.name.tolist()}


def test_a_cell_runs_in_the_users_namespace_and_its_trace_is_kept(
    shell: "InteractiveShell", capsys: pytest.CaptureFixture[str]
) -> None:
    code = "%%timeline --name found\ny = x @ x\nwith kit.span('mine'):\n    z = y.relu()\nz.sum()"
    shell.run_cell(code).raise_error()
    assert shell.user_ns["y"].shape == (8, 8)
    found = shell.user_ns["found"]
    assert {"cell", "mine", "aten::mm", "aten::relu"} <= names(found)
    said = capsys.readouterr().out
    assert "tensor(512.)" in said
    assert "aten::mm" in said  # the table, where there are no widgets
    assert "aten::masked_select" not in names(found)  # of writing the value as text, which is no part of the cell


def test_a_statement_is_recorded_as_it_is_written(shell: "InteractiveShell") -> None:
    shell.run_cell("""%timeline --name found --no-operators text = "a  --b 'c'" """).raise_error()
    assert shell.user_ns["text"] == "a  --b 'c'"
    assert names(shell.user_ns["found"]) == {"cell"}


def test_an_option_may_have_the_sign_of_equality(shell: "InteractiveShell") -> None:
    shell.run_cell("%timeline --name=found --warm=1 --no-operators y = 3").raise_error()
    assert shell.user_ns["y"] == 3
    assert names(shell.user_ns["found"]) == {"cell"}


def test_warm_runs_come_before_and_say_nothing(shell: "InteractiveShell", capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("runs = []")
    shell.run_cell("%%timeline --warm 2\nruns.append(1)\nprint('ran', len(runs))").raise_error()
    assert shell.user_ns["runs"] == [1, 1, 1]
    said = capsys.readouterr().out
    assert "ran 3" in said
    assert "ran 1" not in said


def test_options_reach_the_recording(shell: "InteractiveShell") -> None:
    shell.run_cell("%%timeline --name plain\nx @ x").raise_error()
    shell.run_cell("%%timeline --name deep --stacks\nx @ x").raise_error()
    assert "python_function" not in {event.category for event in shell.user_ns["plain"].events()}
    assert "python_function" in {event.category for event in shell.user_ns["deep"].events()}


@pytest.mark.parametrize(
    "call", ["%%timeline\ndef f():\n    return 1 / 0\nf()", "%timeline 1 / 0", "%%timeline --warm 1\n1 / 0"]
)
def test_an_error_is_the_cells_own(shell: "InteractiveShell", call: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell(call)
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    said = capsys.readouterr().out
    assert said.count("ZeroDivisionError") == 2  # the head and the end of one traceback
    assert "magic.py" not in said
    assert "run_cell_magic" not in said
    shell.run_cell("%timeline x @ x").raise_error()  # nothing is left running


def test_text_that_is_no_python_is_a_syntax_error(shell: "InteractiveShell") -> None:
    assert isinstance(shell.run_cell("%%timeline\ny = = 1").error_in_exec, SyntaxError)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("%timeline", "there is no code to record"),
        ("%%timeline\n \n", "there is no code to record"),
        ("%%timeline x @ x\n1", "'x @ x' is no option"),
        ("%%timeline --colour\n1", "option --colour not recognized.\n%%timeline [options]"),
        ("%%timeline --warm x\n1", "a whole number of runs"),
        ("%%timeline --name a.b\n1", "a variable cannot be called so"),
    ],
)
def test_a_wrong_call_says_what_is_right(
    shell: "InteractiveShell", call: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell(call)
    assert said in "".join(capsys.readouterr())


def test_help_names_every_option_and_tab_offers_it(
    shell: "InteractiveShell", capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%timeline --help").raise_error()
    said = capsys.readouterr().out
    for line in ("%timeline --", "%%timeline --"):
        with completer.provisionalcompleter():
            offered = [each.text for each in shell.Completer.completions(line + "\nx = 1", len(line))]
        options = [each for each in offered if each.startswith("--")]  # it offers names too
        assert "--shapes" in options
        assert all(option in said for option in options)


def run(*cells: str) -> Any:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    return book


def test_a_notebook_shows_the_timeline_and_a_picture_that_needs_no_kernel() -> None:
    book = run("%load_ext kit\nimport torch\nx = torch.ones(4, 4)", "%%timeline\ny = x @ x\ny.sum()")
    value, shown = book.cells[1].outputs
    assert value["data"]["text/plain"] == "tensor(64.)"
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    assert shown["data"]["image/svg+xml"].startswith("<svg")
    assert "aten::mm" in shown["data"]["image/svg+xml"]


def test_a_cell_that_fails_fails_in_a_notebook_too() -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError") as caught:
        run("%load_ext kit", "%%timeline\n1 / 0")
    assert "magic.py" not in str(caught.value)


def test_a_cell_that_awaits_is_told_what_to_write() -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"with kit\.recording\(\) as recording:"):
        run("%load_ext kit\nimport asyncio", "%%timeline\nawait asyncio.sleep(0)")


def test_the_terminal_prints_a_table() -> None:
    code = "%load_ext kit\nimport torch\n%timeline torch.ones(2) + 1\n"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        input=code,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "aten::add" in done.stdout
