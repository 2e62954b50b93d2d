"""Task graphs: which task runs on which lane, when it ends, and bounds on every schedule. Pure functions, no torch."""

from kit.scheduling.graph import Node, critical_path, lower_bound, span, work
from kit.scheduling.policies import POLICIES, Placement, Policy, PolicyName, policy
from kit.scheduling.simulate import Slot, makespan, simulate

__all__ = [
    "POLICIES",
    "Node",
    "Placement",
    "Policy",
    "PolicyName",
    "Slot",
    "critical_path",
    "lower_bound",
    "makespan",
    "policy",
    "simulate",
    "span",
    "work",
]
