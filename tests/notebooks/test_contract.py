"""What every notebook keeps to, checked without running it.

The first cell is a card, in Markdown, with these fields in this order, one blank line between them::

    # Two streams

    **After this notebook you can show** that appearance and motion are two independent problems, and what each costs.

    **Objectives**

    - Name the two streams and what each one sees        (3 to 5)
    - ...

    **Prerequisites** 00_start_here, and what a convolution is.

    **Hardware** Two cores; with one, the streams cannot overlap and the timeline says so.

    **Minutes** 35: what a stream sees 5, one after the other 10, side by side 20

``Minutes`` names the sections, which are the headings ``## 1. What a stream sees``, ``## 2. ...`` in their order, and
sums to its total. A heading without a number takes no time of its own.

An open code cell holds the experiment and nothing else: at most ten lines beside its imports, and no text that depends
on what came out. Sentences, tables and quizzes come from ``kit.labs`` by one call, where they are under test. At most a
quarter of a notebook's code lines only tell, as ``telling.py`` counts them.

An exercise is a cell tagged ``exercise`` that says ``(difficulty 2 of 5, 8 minutes)``. It reaches to the next
exercise or section, and holds a stub, a check from ``kit.labs``, hints in an unindented ``<details>``, and one code
cell tagged ``solution`` with ``"jupyter": {"source_hidden": true}``.

Outputs are stripped (``make strip``), except where a code cell has the line ``# NBVAL_CHECK_OUTPUT``.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks.telling import Telling, lines_of, telling, without_magics

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
CHECKED = "# NBVAL_CHECK_OUTPUT"
CARD = (
    "# ",
    "**After this notebook you can show** ",
    "**Objectives**",
    "**Prerequisites** ",
    "**Hardware** ",
    "**Minutes** ",
)

Lint = Callable[[NotebookNode], Iterator[str]]
LINTS: list[Lint] = []


def lint(rule: Lint) -> Lint:
    """A rule: yields what is wrong, in words; nothing where the notebook keeps to it."""
    LINTS.append(rule)
    return rule


# Reading a notebook -------------------------------------------------------------------------------------------------


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def headings(cell: NotebookNode, level: int) -> list[str]:
    """A Markdown cell's headings of one level; a comment in a fenced block is none."""
    if cell.cell_type != "markdown":
        return []
    text = re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^#{{{level}}} +(.+?)\s*$", text, flags=re.MULTILINE)


def field(notebook: NotebookNode, start: str) -> str:
    """The rest of the card's line that starts like this, or nothing."""
    lines = notebook.cells[0].source.splitlines() if notebook.cells else []
    return next((line.removeprefix(start).strip() for line in lines if line.startswith(start)), "")


def exercises(notebook: NotebookNode) -> Iterator[list[NotebookNode]]:
    """Each exercise's cells, up to the next exercise or section."""
    block: list[NotebookNode] = []
    for cell in notebook.cells:
        starts = "exercise" in tags(cell)
        if block and (starts or headings(cell, 2)):
            yield block
            block = []
        if starts or block:
            block.append(cell)
    if block:
        yield block


def before(block: list[NotebookNode], solution: NotebookNode) -> list[NotebookNode]:
    """The code cells that come before an exercise's solution."""
    return [cell for cell in block[: block.index(solution)] if cell.cell_type == "code"]


def is_checked(cell: NotebookNode) -> bool:
    return CHECKED in [line.strip() for line in cell.source.splitlines()]


# Rules --------------------------------------------------------------------------------------------------------------


@lint
def valid_format(notebook: NotebookNode) -> Iterator[str]:
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.message}"
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        yield "older than format 4.5, which gives cells their ids"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernel is not python3"


@lint
def card_has_its_fields(notebook: NotebookNode) -> Iterator[str]:
    if not notebook.cells or notebook.cells[0].cell_type != "markdown":
        yield "the first cell is not the card"
        return
    lines = notebook.cells[0].source.splitlines()
    places = [next((i for i, line in enumerate(lines) if line.startswith(start)), None) for start in CARD]
    missing = [start.strip() for start, place in zip(CARD, places, strict=True) if place is None]
    if missing:
        yield f"the card lacks {', '.join(missing)}"
    elif places != sorted(places, key=int) or places[0] != 0:
        yield f"the card's fields are not in the order {', '.join(start.strip() for start in CARD)}"
    for start in CARD:
        if start != "**Objectives**" and start.strip() in lines:
            yield f"the card's {start.strip()} says nothing"
    if not field(notebook, CARD[1]).endswith("."):
        yield "what one can show afterwards is one sentence, on one line, with its full stop"
    objectives = [line for line in lines if line.startswith("- ")]
    if not 3 <= len(objectives) <= 5:
        yield f"the card has {len(objectives)} objectives, and should have 3 to 5"


@lint
def one_title(notebook: NotebookNode) -> Iterator[str]:
    titles = [title for cell in notebook.cells for title in headings(cell, 1)]
    if len(titles) != 1:
        yield f"one H1, not {len(titles)}: {titles}"


@lint
def minutes_add_up(notebook: NotebookNode) -> Iterator[str]:
    total, _, parts = field(notebook, CARD[5]).partition(":")
    minutes = [(name, int(number)) for name, number in re.findall(r"\s*(.+?) (\d+)(?:,|\.?\s*$)", parts)]
    sections = [heading for cell in notebook.cells for heading in headings(cell, 2) if heading[0].isdigit()]
    named = [f"{i}. {name}" for i, (name, _) in enumerate(minutes, 1)]
    if [name.lower() for name in named] != [heading.lower() for heading in sections]:
        yield f"the card's minutes name {named}, and the sections are {sections}"
    if total != str(sum(number for _, number in minutes)):
        yield f"the sections' minutes add up to {sum(number for _, number in minutes)}, not {total or 'nothing'}"


@lint
def outputs_are_stripped(notebook: NotebookNode) -> Iterator[str]:
    for cell in code(notebook):
        if is_checked(cell) and not cell.outputs:
            yield f"cell {cell.id} is checked, but has no output to check against"
        if not is_checked(cell) and (cell.outputs or cell.execution_count is not None):
            yield f"cell {cell.id} has stored output or a count: run `make strip`"
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell {cell.id} has a stored error"
    if "widgets" in notebook.metadata:
        yield "the state of its widgets is stored: run `make strip`"


@lint
def nbval_markers_are_ones_that_work(notebook: NotebookNode) -> Iterator[str]:
    # With a word after it nbval ignores a marker in silence, and after a skipped cell the later ones fail.
    for cell in code(notebook):
        for line in cell.source.splitlines():
            if "NBVAL_" in line and line.strip() != CHECKED:
                yield f"cell {cell.id}: {line.strip()!r}; the only marker is {CHECKED!r}, alone on its line"
        for tag in tags(cell):
            if tag.startswith("nbval-") or tag == "raises-exception":
                yield f"cell {cell.id} is tagged {tag}"


@lint
def exercises_are_complete(notebook: NotebookNode) -> Iterator[str]:
    blocks = list(exercises(notebook))
    for i, block in enumerate(blocks, 1):
        text = block[0].source
        solutions = [cell for cell in block if "solution" in tags(cell)]
        hints = "\n".join(cell.source for cell in block if cell.cell_type == "markdown")
        if not re.search(r"\(difficulty [1-5] of 5, \d+ minutes?\)", text):
            yield f"exercise {i} does not say '(difficulty n of 5, m minutes)'"
        if not re.search(r"^<details>", hints, re.MULTILINE):
            yield f"exercise {i} has no unindented <details> with hints"
        if len(solutions) != 1 or solutions[0].cell_type != "code":
            yield f"exercise {i} is not followed by one code cell tagged solution"
        elif not any("labs" in cell.source and "check_" in cell.source for cell in before(block, solutions[0])):
            yield f"exercise {i} has no stub with a check from kit.labs before its solution"
    for cell in notebook.cells:
        if "solution" in tags(cell) and not cell.metadata.get("jupyter", {}).get("source_hidden"):
            yield f"solution {cell.id} is not collapsed"
    loose = sum("solution" in tags(cell) for cell in notebook.cells)
    if loose > len(blocks):
        yield f"{loose} solutions for {len(blocks)} exercises"


@lint
def opens_alone(notebook: NotebookNode) -> Iterator[str]:
    for cell in code(notebook):
        if re.search(
            r"^\s*(%run|%store|%load|import import_ipynb|(from|import) notebooks)\b", cell.source, re.MULTILINE
        ):
            yield f"cell {cell.id} takes something from another notebook"


@lint
def says_something_to_the_instructor(notebook: NotebookNode) -> Iterator[str]:
    if not any("instructor" in tags(cell) for cell in notebook.cells):
        yield "no cell is tagged instructor"


MOST_LINES = 10  # of an open code cell


@lint
def open_cells_hold_the_experiment(notebook: NotebookNode) -> Iterator[str]:
    for cell in code(notebook):
        if not cell.metadata.get("jupyter", {}).get("source_hidden"):
            yield from (f"cell {cell.id} {fault}" for fault in what_is_no_experiment(cell.source))


def what_is_no_experiment(source: str) -> Iterator[str]:
    """What should come from kit.labs by one call, in the code of one cell."""
    parsed = ast.parse(without_magics(source))
    imported = {i for node in parsed.body if isinstance(node, ast.Import | ast.ImportFrom) for i in lines_of(node)}
    lines = [i for i, line in enumerate(source.splitlines(), 1) if line.strip() and not line.strip().startswith("#")]
    if (count := len(set(lines) - imported)) > MOST_LINES:
        yield f"has {count} lines beside its imports, more than {MOST_LINES}"
    for node in ast.walk(parsed):
        if isinstance(node, ast.JoinedStr) and len(lines_of(node)) > 1:
            yield f"has an f-string over several lines, at its line {node.lineno}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\|\s*:?---", node.value):
            yield f"has the markup of a table, at its line {node.lineno}"
        if isinstance(node, ast.IfExp) and any(is_text(each) for each in (node.body, node.orelse)):
            yield f"chooses between texts, at its line {node.lineno}"


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


MOST_TELLING = 0.25  # of a notebook's code lines


@lint
def most_code_is_no_telling(notebook: NotebookNode) -> Iterator[str]:
    found = telling(notebook)
    if found.share > MOST_TELLING:
        yield f"{found.telling} of its {found.lines} code lines only tell ({found.share:.0%}), not {MOST_TELLING:.0%}"


# The notebooks themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", LINTS, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, rule: Lint) -> None:
    assert list(rule(nbformat.read(path, as_version=nbformat.NO_CONVERT))) == []


NUMBERED = [path for path in NOTEBOOKS if path.stem[0].isdigit() and path.stem >= "01"]  # not the playground


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_notebook_has_two_exercises(path: Path) -> None:
    assert len(list(exercises(nbformat.read(path, as_version=4)))) >= 2


def test_how_much_of_the_notebooks_only_tells() -> None:
    """Prints the table: code lines, those that tell, and those in cells that hold nothing else."""
    found = {path.stem: telling(nbformat.read(path, as_version=4)) for path in NOTEBOOKS}
    total = Telling(*map(sum, zip(*found.values(), strict=True)))
    for name, each in {**found, "all": total}.items():
        print(f"{name:24}{each.lines:6}{each.telling:6}{each.share:6.0%}{each.alone:6}{each.alone / each.lines:6.0%}")
    assert total.share <= MOST_TELLING


# The rules bite -----------------------------------------------------------------------------------------------------

SAMPLE_CARD = """# Two streams

**After this notebook you can show** that a sample can keep every rule.

**Objectives**

- Name them
- Count them
- Keep them

**Prerequisites** none.

**Hardware** Anything.

**Minutes** 12: look, then think 5, try 7"""


@pytest.fixture
def sample() -> NotebookNode:
    """A notebook that keeps to every rule."""
    v4 = nbformat.v4
    collapsed = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    notebook = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [
        v4.new_markdown_cell(SAMPLE_CARD),
        v4.new_markdown_cell("## For you\n\nSpeak slowly.", metadata={"tags": ["instructor"]}),
        v4.new_markdown_cell("## 1. Look, then think\n\n```sh\n# no heading\n```"),
        v4.new_code_cell(f"{CHECKED}\n1 + 1", outputs=[v4.new_output("execute_result", {"text/plain": "2"})]),
        v4.new_markdown_cell("## 2. Try\n\nSomething."),
        v4.new_markdown_cell("### Exercise: two (difficulty 1 of 5, 5 minutes)", metadata={"tags": ["exercise"]}),
        v4.new_code_cell("answer = ...\nlabs.two_stream.check_two(answer)"),
        v4.new_markdown_cell("<details><summary>Hint</summary>\n\nTwo.\n</details>"),
        v4.new_code_cell("answer = 2", metadata=collapsed),
    ]
    return notebook


def faults(notebook: NotebookNode) -> list[str]:
    return [fault for rule in LINTS for fault in rule(notebook)]


def test_a_good_notebook_passes(sample: NotebookNode) -> None:
    assert faults(sample) == []


def test_the_fixture_is_read_as_the_author_sees_it(sample: NotebookNode) -> None:
    [block] = exercises(sample)
    assert [cell.cell_type for cell in block] == ["markdown", "code", "markdown", "code"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("# Two streams", "## Two streams", "lacks #"),
        ("**Hardware** Anything.", "**Hardware**", "lacks **Hardware**"),
        ("**Prerequisites** none.\n\n", "", "lacks **Prerequisites**"),
        ("- Keep them\n", "", "2 objectives"),
        ("every rule.", "every rule", "full stop"),
        ("12:", "13:", "add up to 12, not 13"),
        ("try 7", "tries 7", "name ['1. look, then think', '2. tries']"),
        ("**Minutes**", "# Minutes\n\n**Minutes**", "one H1"),
    ],
)
def test_a_faulty_card_is_reported(sample: NotebookNode, old: str, new: str, fault: str) -> None:
    sample.cells[0].source = SAMPLE_CARD.replace(old, new, 1)
    assert any(fault in found for found in faults(sample)), faults(sample)


def _drop(index: int) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells.pop(index)


def _source(index: int, text: str) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[index].update(source=text)


def _metadata(index: int, **entries: object) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[index].metadata.update(entries)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda notebook: notebook.metadata.kernelspec.update(name="julia"), "kernel is not python3"),
        (lambda notebook: notebook.update(nbformat_minor=4), "4.5"),
        (lambda notebook: notebook.metadata.update(widgets={}), "widgets"),
        (_drop(0), "lacks"),
        (_drop(1), "instructor"),
        (lambda notebook: notebook.cells[3].outputs.clear(), "no output to check"),
        (_source(3, "1 + 1"), "stored output"),
        (lambda notebook: notebook.cells[6].update(execution_count=3), "a count"),
        (_source(6, "# NBVAL_SKIP\n1"), "only marker"),
        (_source(6, f"{CHECKED} because\n1"), "only marker"),
        (_metadata(6, tags=["nbval-skip"]), "nbval-skip"),
        (_source(5, "### Exercise"), "difficulty n of 5"),
        (_drop(6), "no stub"),
        (_drop(7), "<details>"),
        (_source(7, "    <details>"), "<details>"),
        (_drop(8), "one code cell tagged solution"),
        (_metadata(8, jupyter={}), "not collapsed"),
        (_metadata(5, tags=[]), "1 solutions for 0 exercises"),
        (_source(6, "answer = ..."), "no stub with a check"),
        (_source(4, "## Try"), "the sections are ['1. Look, then think']"),
        (_source(6, "%run 00_start_here.ipynb"), "another notebook"),
        (_source(6, "labs.check_it(\n" + "0,\n" * 10 + ")"), "12 lines beside its imports"),
        (_source(6, "labs.check_it(\n    f'{1} of '\n    f'{2}'\n)"), "an f-string over several lines"),
        (_source(6, "labs.check_it('|---|---:|')"), "the markup of a table"),
        (_source(6, "labs.check_it('more' if a > b else 'less')"), "chooses between texts"),
        (_source(6, "print(1)\n" * 3), "3 of its 5 code lines only tell"),
    ],
)
def test_a_faulty_notebook_is_reported(
    sample: NotebookNode, spoil: Callable[[NotebookNode], object], fault: str
) -> None:
    good = copy.deepcopy(sample)
    spoil(sample)
    assert sample != good
    assert any(fault in found for found in faults(sample)), faults(sample)


@pytest.mark.parametrize(
    ("source", "telling_lines"),
    [
        ("Markdown(labs.start.about_naps(table))", 1),
        ("from IPython import display\ndisplay.HTML(f'<b>{n}</b>')", 1),
        ("print(labs.start.naps_answer(table))", 1),
        ("quiz.reveal(labs.start.naps_answer(table))\ntable", 1),
        ("said = labs.describe(table)\nsaid", 2),
        ("lab = labs.start\nlab.conclusion(a, b)", 1),
        ("rows = [f'{n} ms' for n in times]\nMarkdown('\\n'.join(rows))", 2),
        ("for n in times:\n    print(n)", 2),
        ("for n in times:\n    total += n\n    print(n)", 1),
        ("def sentence(n):\n    return f'{n} ms'", 2),
        ("why = 'it ran'\ntry:\n    run()\nexcept ValueError as error:\n    why = str(error)\nMarkdown(why)", 2),
        ("display(chart, Markdown(f'{n}'))", 1),
        ("Markdown('a')\n# not a line\n\nmodel(x)", 1),
    ],
)
def test_what_tells(source: str, telling_lines: int) -> None:
    assert telling(_cells(f"from kit import labs\n{source}")).telling == telling_lines


@pytest.mark.parametrize(
    "source",
    [
        "name = f'threads(workers={n})'\nkit.compare(model, x, ['sequential', name])",
        "one, two = f'threads={n}', 'threads'\nkit.compare(model, x, [one, two])",
        "table = kit.compare(model, x)\ntable",
        "kit.timeline(table)",
        "display(kit.timeline(table))",
        "quiz = labs.start.quiz('naps')\nquiz",
        "labs.two_stream.calls_chart(calls)",
        "net.call_mode = 'forward_step'",
        "def my_share(cores: int) -> int: ...\n\n\nlabs.threads.check_share(my_share)",
        "%load_ext kit",
    ],
)
def test_what_does_not_tell(source: str) -> None:
    assert telling(_cells(f"import kit\nfrom kit import labs\n{source}")).telling == 0


def test_what_is_known_of_earlier_cells_counts_and_cells_that_only_tell_are_told_apart() -> None:
    found = telling(_cells("from kit import labs\nlab = labs.start", "said = lab.about_naps(x)", "run(x)\nprint(x)"))
    assert found == Telling(lines=5, telling=2, alone=1)


def _cells(*sources: str) -> NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
