"""The files that come with the kit: the trained weights and the demo clip."""

from pathlib import Path


def data_file(name: str) -> Path:
    """Where the file ``data/<name>`` is: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parent
    installed = package / "data"
    return (installed if installed.is_dir() else package.parent / "data") / name
