"""The one switch of the notebooks: ``KIT_FAST=1`` shrinks them for tests."""

import os

from kit.measuring.statistics import MIN_ROUNDS


def rounds(full: int) -> int:
    """How many rounds a notebook measures: ``full``, or under ``KIT_FAST=1`` the fewest that mean anything."""
    return size(full, MIN_ROUNDS)


def size(full: int, fast: int) -> int:
    """How large something is in a notebook: ``full``, or under ``KIT_FAST=1`` the smaller ``fast``."""
    return fast if os.environ.get("KIT_FAST") == "1" else full
