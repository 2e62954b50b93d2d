"""Checks that a file can be written, before the work whose result it will hold."""

import os
import tempfile
from pathlib import Path

from kit.errors import KitError


def check_writable(path: Path, *, make_folder: bool = False) -> None:
    """Raise unless a file of this name can be written, without writing it; ``make_folder`` creates its folder.

    Raises:
        KitError: the path is a folder, its folder does not exist, or writing is not allowed.
    """
    folder = path.absolute().parent
    try:
        if make_folder:
            folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise KitError(f"cannot write {path}: it is a folder. Give the name of a file in it.")
        if path.exists() and not os.access(path, os.W_OK):
            raise KitError(f"cannot write {path}: the file exists and may not be changed. Choose another file.")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise KitError(f"cannot write {path}: its folder {folder}: {error.strerror}. Choose another folder.") from error
