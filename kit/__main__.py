"""``python -m kit``. Imports nothing before it must: every worker process that is spawned comes through this file."""

import sys

if __name__ == "__main__":
    from kit.cli import main

    sys.exit(main())
