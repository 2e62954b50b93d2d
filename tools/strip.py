"""Strip notebooks for a commit: ``python tools/strip.py notebooks/*.ipynb``, or ``make strip``.

Takes out outputs, counts, the state of widgets and what names one machine's Python. Cells with the line
``# NBVAL_CHECK_OUTPUT`` keep their output, which nbval compares with.
"""

import sys

import nbformat
from nbformat import NotebookNode

CHECKED = "# NBVAL_CHECK_OUTPUT"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def strip(notebook: NotebookNode) -> None:
    """Strip one notebook, in place."""
    notebook.metadata = NotebookNode(kernelspec=KERNEL)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
            checked = CHECKED in [line.strip() for line in cell.source.splitlines()]
            cell.execution_count = 1 if checked else None  # nbval refuses stored output of a cell without a count
            if not checked:
                cell.outputs = []


if __name__ == "__main__":
    for path in sys.argv[1:]:
        opened = nbformat.read(path, as_version=4)
        strip(opened)
        nbformat.write(opened, path)
