"""A model of the user's own, named as ``FILE.py:factory`` or ``package.module:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from torch import nn

from kit.errors import KitError, UnknownNameError, brief, line_of


def load(name: str) -> tuple[nn.Module, Any]:
    """The model and the inputs that a factory returns.

    The file's folder, or for a module the current one, stays on Python's path: modules that lie there are imported by
    worker processes too, and by a ``forward`` that imports late.

    Args:
        name: ``FILE.py:factory`` or ``package.module:factory``, of a function without arguments.

    Raises:
        UnknownNameError: no such function; the message lists similar names.
        KitError: any other fault; the message names the line of the user's code.
    """
    source, _, wanted = name.rpartition(":")
    if wanted.endswith("()"):
        raise KitError(f"{name!r} calls its factory: name it without parentheses, as {name[:-2]}.")
    if not source or not wanted or name.endswith(".py"):  # C:\models.py has a colon too
        raise KitError(f"{name!r} does not name a factory: write FILE.py:factory or package.module:factory.")
    module = _module(source)
    factory = getattr(module, wanted, None)
    if not callable(factory):
        raise _no_factory(source, module, wanted)
    if isinstance(factory, nn.Module):
        raise KitError(
            f"{name} is a model, not a factory: write a function without arguments that returns (model, inputs)."
        )
    if needed := _required(factory):
        raise KitError(
            f"{name} takes arguments ({', '.join(needed)}), but a factory must not need arguments: give them defaults, "
            "or write a function without arguments that calls it."
        )
    try:
        made = factory()
    except Exception as error:
        raise KitError(f"{name} raised {_told(error)}. Correct it, then try again.") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        given = f"({', '.join(type(x).__name__ for x in made)})" if isinstance(made, tuple) else type(made).__name__
        raise KitError(
            f"{name} returned {given}: return (model, inputs), in this order; the model must be an nn.Module."
        )
    return made


def _module(source: str) -> ModuleType:
    path, is_file = Path(source), source.endswith(".py")
    if is_file and not path.is_file():
        raise KitError(f"no file {source!r}: check its path.")
    if path.is_file() and not is_file:
        raise KitError(f"{source} is not a Python file: its name must end in .py.")
    top = source.partition(".")[0]
    if not is_file and top in sys.stdlib_module_names:
        raise KitError(
            f"{top} is a module of Python itself: name the file, as in {source.replace('.', '/')}.py:factory, or "
            "rename it."
        )
    with _importing_from(path.resolve().parent if is_file else Path.cwd()):
        try:
            return _of_file(path) if is_file else importlib.import_module(source)
        except Exception as error:
            raise KitError(_not_imported(source, error)) from error


def _of_file(path: Path) -> ModuleType:
    # Under a name that no other module has: random.py is a file like any other.
    spec = importlib.util.spec_from_file_location(f"kit_file_{path.stem}", path)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    cloudpickle.register_pickle_by_value(module)  # no worker process could import it by this name
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """In this block the folder is first on Python's path, as for a script in it; later it is last.

    Else a file in it that is called as one of Python's own modules would be taken for that by each new process.
    """
    known = str(folder) in sys.path
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if not known:
            sys.path.append(str(folder))


def _no_factory(source: str, module: ModuleType, wanted: str) -> KitError:
    own = [
        key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    if not own:
        return KitError(f"{source} has no function: write one, as in def {wanted}(): return model, inputs.")
    return UnknownNameError(f"function in {source} called", wanted, own)


def _required(factory: Any) -> list[str]:
    """The names of its arguments without a default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # what is built in may have no signature
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in optional]


def _not_imported(source: str, error: Exception) -> str:
    missing = isinstance(error, ModuleNotFoundError) and error.name
    if missing and (source == missing or source.startswith(f"{missing}.")):
        return (
            f"no module {source!r}, looked for in {Path.cwd()} and in the installed packages: check its name, or give "
            "a file, as in FILE.py:factory."
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return f"{source} is part of a package ({_told(error)}): name it as package.module:factory, beside the package."
    return f"{source} cannot be imported: {_told(error)}. Correct it, then try again."


def _told(error: Exception) -> str:
    """The error, and the line of the user's own code where it came from."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # which names its own file and line
    line = line_of(error)
    return brief(error) + (f" ({line.filename}, line {line.lineno})" if line else "")
