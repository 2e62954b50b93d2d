"""Approaches: the registry of their names, what each name stands for, and how a model is prepared for one."""

from kit.approaches import builtin
from kit.approaches.approach import Approach
from kit.approaches.names import available, meant, parse, split_names
from kit.approaches.registry import ALL, REGISTRY, Calls, Rewrites, Runs, register
from kit.approaches.runner import FunctionRunner, ModelRunner, Runner
from kit.approaches.workload import Workload, one_request

__all__ = [
    "ALL",
    "REGISTRY",
    "Approach",
    "Calls",
    "FunctionRunner",
    "ModelRunner",
    "Rewrites",
    "Runner",
    "Runs",
    "Workload",
    "available",
    "builtin",
    "meant",
    "one_request",
    "parse",
    "register",
    "split_names",
]
