"""Where a file is to be written: known before the minutes of work whose result goes there."""

import os
import tempfile
from pathlib import Path

from kit.errors import KitError


def check_writable(path: Path) -> None:
    """Whether a file of this name can be written, without writing it.

    Raises:
        KitError: it is a folder, its folder is not there, or either may not be written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise KitError(f"cannot write {path}: it is a folder. Name a file in it.")
    if not folder.is_dir():
        raise KitError(f"cannot write {path}: its folder {folder} does not exist. Make it first.")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, "the file is there, and may not be changed")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise KitError(f"cannot write {path}: {error.strerror}. Choose another place.") from error
