"""A model of the user's own, named as ``FILE.py:factory`` or ``package.module:factory``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from torch import nn

from kit.errors import KitError


def load(name: str) -> tuple[nn.Module, Any]:
    """The model and the inputs that a factory returns.

    Args:
        name: ``FILE.py:factory`` or ``package.module:factory``, of a function without arguments.

    Raises:
        KitError: what is wrong, and in which line of the file.
    """
    source, _, wanted = name.rpartition(":")
    if not source or not wanted:
        raise KitError(f"{name!r} names no factory: write FILE.py:factory or package.module:factory.")
    module = _module(source)
    factory = getattr(module, wanted, None)
    if not callable(factory):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        near = difflib.get_close_matches(wanted, own)
        raise KitError(
            f"{source} has no function {wanted!r}: choose from {', '.join(near or own) or 'none: write one'}."
        )
    try:
        made = factory()
    except Exception as error:
        raise KitError(
            f"{name} raised {_told(error, module.__file__)}: a factory takes no arguments and returns (model, inputs)."
        ) from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise KitError(f"{name} returned {type(made).__name__}: return (model, inputs), the model an nn.Module.")
    return made


def _module(source: str) -> ModuleType:
    path, is_file = Path(source), source.endswith(".py")
    if is_file and not path.is_file():
        raise KitError(f"no file {source!r}: check its path.")
    folder = str(path.resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        if not is_file:
            return importlib.import_module(source)
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
    except Exception as error:
        raise KitError(f"{source} does not import: {_told(error, source)}. Correct it, then try again.") from error
    finally:
        sys.path.remove(folder)


def _told(error: Exception, file: str | None) -> str:
    """The error, and the last line of that file on the way to it."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # which names its own file and line
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and Path(frame.filename).resolve() == Path(file).resolve()]
    last = (own or frames)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
