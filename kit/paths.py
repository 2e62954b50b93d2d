"""Where a file is to be written: known before the minutes of work whose result goes there."""

import os
import tempfile
from pathlib import Path

from kit.errors import KitError


def check_writable(path: Path, *, make_folder: bool = False) -> None:
    """Whether a file of this name can be written, without writing it; ``make_folder`` makes its folder.

    Raises:
        KitError: it is a folder, its folder is not there, or either may not be written to.
    """
    folder = path.absolute().parent
    try:
        if make_folder:
            folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise KitError(f"cannot write {path}: it is a folder. Name a file in it.")
        if path.exists() and not os.access(path, os.W_OK):
            raise KitError(f"cannot write {path}: the file is there, and may not be changed. Choose another.")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise KitError(f"cannot write {path}: its folder {folder} says {error.strerror}. Choose another.") from error
