"""Executors: each runs a list of independent tasks.

This file imports only modules that do not need torch: a worker process imports this file first, and its timeline must
show the time that importing torch takes.
"""

from kit.executors.base import Executor, Task, current, use
from kit.executors.sequential import Sequential

__all__ = ["Executor", "Sequential", "Task", "current", "use"]
