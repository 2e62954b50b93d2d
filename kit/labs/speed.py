"""The one switch of the notebooks: ``KIT_FAST=1`` shrinks them for tests."""

import os

from kit.measuring.statistics import MIN_ROUNDS, least_rounds


def rounds(full: int, rows: int = 1) -> int:
    """How many rounds a notebook measures: ``full``, or under ``KIT_FAST=1`` the fewest that a verdict needs.

    Args:
        rows: of the table, beside its baseline. Never fewer rounds than give each of them a verdict.
    """
    return max(size(full, MIN_ROUNDS), least_rounds(rows))


def size(full: int, fast: int) -> int:
    """How large something is in a notebook: ``full``, or under ``KIT_FAST=1`` the smaller ``fast``."""
    return fast if os.environ.get("KIT_FAST") == "1" else full
