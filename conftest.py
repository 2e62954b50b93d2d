"""What nbval does not compare: output that differs on each run, whatever the notebook does."""

import pytest

DIFFERS = ("stderr", "text/html", "application/javascript", "application/vnd.plotly.v1+json")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Add to what nbval's notebook collector leaves out of its comparisons; other collectors have no such list."""
    skipped = getattr(collector, "skip_compare", None)
    if skipped is not None:
        collector.skip_compare = (*skipped, *DIFFERS)  # type: ignore[attr-defined]
