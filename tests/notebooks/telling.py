"""How much of a notebook's code only tells: a rule over its syntax trees, one statement at a time.

A *telling* statement makes or shows text. Its value is one of these:

- text in the code itself: an f-string, a text that is joined, formatted, added, or chosen between others;
- what a function of the kit gives that is declared to return ``str``: a sentence, a table, a quiz's answer;
- ``Markdown``, ``HTML`` or ``print``, a quiz's ``reveal``, ``display`` of any of these, or a variable that holds one.

Everything else is the experiment: a model, a comparison, a chart, a timeline, a question. A text that the experiment
reads, such as the name of an approach, belongs to the experiment. ``if``, ``for``, ``with`` and ``def`` tell as far as
their bodies do; an import tells nothing.

Statements are counted, and not cells, so that a sentence does not count less beside something else. So the share is
at least that of the cells that only tell. It is of all code lines without blanks and comments, the exercises' and
solutions' too.
"""

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from nbformat import NotebookNode

TELLERS = {"Markdown", "HTML", "print", "reveal"}
TEXT_METHODS = {"format", "join", "replace", "strip"}


class Telling(NamedTuple):
    lines: int  # of code, without blanks and comments
    telling: int  # of these, lines of statements that tell
    alone: int  # of these, lines of cells that hold nothing else but imports

    @property
    def share(self) -> float:
        return self.telling / max(1, self.lines)


def telling(notebook: NotebookNode) -> Telling:
    """Counts the lines of a notebook's code cells."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    trees = [ast.parse(without_magics(source)) for source in cells]
    reader = _Reader(trees)
    lines = telling = alone = 0
    for source, tree in zip(cells, trees, strict=True):
        code = {i for i, line in enumerate(source.splitlines(), 1) if line.strip() and not line.strip().startswith("#")}
        imports = {i for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for i in lines_of(node)}
        told = code & reader.told(tree.body)
        lines, telling = lines + len(code), telling + len(told)
        alone += len(told) if code == told | (imports & code) else 0
    return Telling(lines, telling, alone)


def without_magics(source: str) -> str:
    """A cell as Python, each line in its place."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())


def lines_of(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


class _Reader:
    """Knows what the notebook imports from the kit, and which of its variables hold text that is only told."""

    def __init__(self, trees: list[ast.Module]) -> None:
        self.known: dict[str, Any] = {}
        statements = [node for tree in trees for node in _statements(tree.body)]
        for node in statements:
            if isinstance(node, ast.Import | ast.ImportFrom) and ast.unparse(node).split()[1].startswith("kit"):
                exec(ast.unparse(node), self.known)
            if isinstance(node, ast.Assign) and (meant := self.meaning(node.value)) is not None:
                self.known |= dict.fromkeys(_names(node, ast.Store), meant)
        self.texts: set[str] = set()
        for node in statements:
            if isinstance(node, ast.Assign) and self.is_text(node.value):
                self.texts |= _names(node, ast.Store)
        while read := self.texts & {name for node in statements if not self.tells(node) for name in _names(node)}:
            self.texts -= read  # the experiment's own

    def told(self, body: list[ast.stmt]) -> set[int]:
        """The lines of statements that tell; the first lines of a block only if all of the block tells."""
        found: set[int] = set()
        for node in body:
            inner = list(_blocks(node))
            found |= {i for block in inner for i in self.told(block)}
            if self.tells(node) or (
                inner and {i for block in inner for each in block for i in lines_of(each)} <= found
            ):
                found |= set(lines_of(node))
        return found

    def tells(self, node: ast.stmt) -> bool:
        match node:
            case ast.Assign(value=value) | ast.AugAssign(value=value):
                return self.is_text(value) and bool(_names(node, ast.Store) & self.texts)
            case ast.Expr(value=ast.Constant()):
                return False  # a docstring, or the ... of a stub
            case ast.Expr(value=value) | ast.Return(value=ast.expr() as value):
                return self.is_text(value)
        return False

    def is_text(self, node: ast.expr) -> bool:
        match node:
            case ast.JoinedStr():
                return True
            case ast.Constant(value=value):
                return isinstance(value, str)
            case ast.Name(id=name):
                return name in self.texts
            case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, right=other):
                return self.is_text(one) or self.is_text(other)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Call(func=ast.Name(id="display"), args=parts):
                return any(self.is_text(part) for part in parts)
            case ast.Starred(value=each) | ast.ListComp(elt=each) | ast.GeneratorExp(elt=each):
                return self.is_text(each)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in TELLERS:
                return True
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in TEXT_METHODS and self.is_text(value):
                return True
            case ast.Call(func=function):
                return getattr(self.meaning(function), "__annotations__", {}).get("return") in ("str", str)
        return False

    def meaning(self, node: ast.expr) -> Any:
        """What a name with dots stands for in the kit, or None."""
        if not isinstance(node, ast.Name | ast.Attribute):
            return None
        try:
            return eval(ast.unparse(node), {"__builtins__": {}}, self.known)
        except (NameError, AttributeError):
            return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, in their order; a block's inner ones after it."""
    for node in body:
        yield node
        for block in _blocks(node):
            yield from _statements(block)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        if block := getattr(node, name, []):
            yield block
    for handler in getattr(node, "handlers", []):
        yield handler.body


def _names(node: ast.stmt, context: type[ast.expr_context] = ast.Load) -> set[str]:
    """The variables that a statement itself reads, or writes; not those of the blocks in it."""
    inner = {id(each) for block in _blocks(node) for each in block}
    found, left = set(), [node]
    while left:
        at = left.pop()
        if isinstance(at, ast.Name) and isinstance(at.ctx, context):
            found.add(at.id)
        left += [child for child in ast.iter_child_nodes(at) if id(child) not in inner]
    return found
