"""Execute the notebooks and build the site from them: ``python -m tools.site [FOLDER]``, or ``make site``."""

import sys
import time
from pathlib import Path

from kit.machine.about import about_here
from tools.executing import BrokenCell, copied, executed
from tools.lab import ROOT
from tools.site.build import build, repository


def main(folder: Path) -> None:
    """Write the site of all notebooks to ``folder``, or leave it as it is and name the cell that failed."""
    begun = time.monotonic()
    made = {}
    with copied(sorted((ROOT / "notebooks").glob("*.ipynb"))) as paths:
        for path in paths:
            about = about_here()
            made[path.stem] = executed(path), about
    build(made, folder, repository())
    print(f"{folder}/index.html, in {(time.monotonic() - begun) / 60:.0f} minutes")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
    except BrokenCell as error:
        sys.exit(f"make site: {error}")
