"""Simulated GPUs: programs, models and recordings under an approach, as traces that say that they are simulated."""

from kit.scheduling.gpu import (
    DEFAULT,
    Await,
    Call,
    Copy,
    Gpu,
    Launch,
    LaunchGraph,
    Record,
    Signal,
    Synchronize,
    Wait,
    Work,
)
from kit.simulating.operations import Operation, breadth_first, operations_of, recorded_operations
from kit.simulating.programs import APPROACHES, program
from kit.simulating.simulation import simulate

__all__ = [
    "APPROACHES",
    "DEFAULT",
    "Await",
    "Call",
    "Copy",
    "Gpu",
    "Launch",
    "LaunchGraph",
    "Operation",
    "Record",
    "Signal",
    "Synchronize",
    "Wait",
    "Work",
    "breadth_first",
    "operations_of",
    "program",
    "recorded_operations",
    "simulate",
]
